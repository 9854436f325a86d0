"""Footage over another background: the person of each frame, cut out at the size of the footage."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, repeat

import cv2
import numpy as np
import torch

from talkhead.app.composer.backgrounds import Backgrounds
from talkhead.app.composer.frames import (
    FrameSource,
    PasteFrameRenderer,
    State,
    over,
    transparent,
)
from talkhead.crops import cut_crop
from talkhead.device import map_concurrently
from talkhead.preprocess.person_mask import PersonSegmenter
from talkhead.renderers.batches import mask_regions
from talkhead.renderers.matting import rim_matte
from talkhead.types import Float32, UInt8

FEATHER = 0.08
"""Width of the strip in which the masks of crop and frame are mixed, as a fraction of the
crop's height."""
SCRAP_REACH = 0.01
"""Distance from the person up to which separate parts of the mask are kept, as a fraction of the frame's
height: hair."""
MIN_ENLARGED = 1.3
"""The head's crop is segmented separately in frames that are at least this many times as high."""


class PersonCutout:
    """Cuts the person out of frames. Several threads may use it at the same time."""

    def __init__(self, footage: FrameSource) -> None:
        """Load the segmenter.

        Args:
            footage: The frames' footage.
        """
        self._footage, self._segmenter = footage, PersonSegmenter()

    def __call__(self, frame: UInt8, number: int, background: UInt8 | None) -> UInt8:
        """Put the person of a frame in front of a background.

        Args:
            frame: Frame [H, W, 3].
            number: Its number.
            background: Background [H, W, 3]. None: the result is RGBA, not premultiplied.

        Returns:
            Picture [H, W, 3], or [H, W, 4] without a background.
        """
        mask = _without_scraps(self._mask(frame, number))
        image = frame.astype(np.float32) / np.float32(255.0)
        alpha, person = rim_matte(image, mask, *mask_regions(mask))
        opacity = alpha[..., None]
        return (
            transparent(person, opacity)
            if background is None
            else over(person, opacity, background)
        )

    def close(self) -> None:
        """Release the segmenter."""
        self._segmenter.close()

    def _mask(self, frame: UInt8, number: int) -> UInt8:
        """Segment a frame; its head's crop, which shows finer detail, separately if it is smaller."""
        mask = self._segmenter.smooth_mask(frame)
        clip, index = self._footage.clip, self._footage.track_index(number)
        size = (clip.crop_height, clip.crop_width)
        if index is None or len(frame) < MIN_ENLARGED * size[0] / clip.scale:
            return mask
        origin = clip.origins[index]
        fine = self._segmenter.smooth_mask(cut_crop(frame, origin, size, clip.scale))
        height, width = (round(n / clip.scale) for n in size)
        left, top = (int(n) for n in origin)
        window = np.s_[top : top + height, left : left + width]
        part = mask[window].astype(np.float32)
        fine = np.asarray(cv2.resize(fine, (width, height)), np.uint8)[: len(part), : part.shape[1]]
        share = _feather((height, width), FEATHER * height)[: len(part), : part.shape[1]]
        mask = mask.copy()
        mask[window] = (part + share * (fine - part) + np.float32(0.5)).astype(np.uint8)
        return mask


@dataclass
class CutoutFrameRenderer:
    """Renders the lower face into footage, and puts the person in front of other backgrounds.

    Attributes:
        pasted: Renders the frames of the footage.
        footage: The footage.
        backgrounds: Returns the backgrounds [H, W, 3] of the frames first to after - 1. None: frames
            are RGBA, not premultiplied.
    """

    pasted: PasteFrameRenderer
    footage: FrameSource
    backgrounds: Backgrounds | None

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second."""
        return self.pasted.frame_rate

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames."""
        return self.pasted.size

    @property
    def state(self) -> State:
        """State of the renderer of the footage."""
        return self.pasted.state

    @state.setter
    def state(self, state: State) -> None:
        self.pasted.state = state

    def __len__(self) -> int:
        return len(self.pasted)

    def frames(self, first: int, after: int) -> Generator[UInt8, None, None]:
        """Render frames. See FrameRenderer.

        Args:
            first: First frame.
            after: Frame after the last one.

        Yields:
            Frames [H, W, 3], or [H, W, 4] without backgrounds.
        """
        n = after - first
        behind = repeat(None, n) if self.backgrounds is None else self.backgrounds(first, after)
        with (
            closing(PersonCutout(self.footage)) as cut_out,
            closing(self.pasted.frames(first, after)) as frames,
            closing(
                map_concurrently(
                    lambda at: cut_out(*at),
                    zip(frames, range(first, after), islice(behind, n), strict=True),
                    torch.get_num_threads(),
                )
            ) as pictures,
        ):
            yield from pictures


def _feather(size: tuple[int, int], width: float) -> Float32:
    """Return weights [H, W] that rise from 0 at the edges to 1 at a distance of `width` pixels."""
    rows, columns = (
        np.clip((np.minimum(np.arange(n), np.arange(n)[::-1])) / width, 0.0, 1.0) for n in size
    )
    return np.minimum(rows[:, None], columns[None]).astype(np.float32)


def _without_scraps(mask: UInt8) -> UInt8:
    """Remove all parts of a mask [H, W] but the largest, and what is close to it."""
    count, labels, facts, _ = cv2.connectedComponentsWithStats(
        (mask > 127).astype(np.uint8), connectivity=4
    )
    if count < 2:
        return mask
    largest = 1 + int(np.argmax(facts[1:, cv2.CC_STAT_AREA]))
    side = 2 * round(SCRAP_REACH * len(mask)) + 1
    near = cv2.dilate((labels == largest).astype(np.uint8), np.ones((side, side), np.uint8))
    return np.asarray(mask * near, np.uint8)
