"""The pictures of a line: any run of them, so that long lines are made in segments.

A shot's pictures depend on their number, and on `state`: what the pictures before have left behind.
Set to what it was at the end of one segment, the next one is bitwise that of the whole line.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from fractions import Fraction
from typing import Protocol

import cv2
import numpy as np
import torch

from talkhead.app.composer.head_view import AS_FILMED, View, head_camera, head_origin, turned_clip
from talkhead.app.composer.idle_clip import IdleClip, idle_frames, ping_pong
from talkhead.app.composer.paste import CropPaster, mask_window, paste_mask
from talkhead.crops import cut_crop
from talkhead.renderers.base import Renderer
from talkhead.types import FRAME_RATE, Float32, UInt8

BLEED_PX = (2.0, 8.0)
"""How far the colours of a head go on outside it, one blur after the other."""
State = list[float]
"""What pictures leave behind, empty at the start; JSON holds it exactly."""


class FrameSource(Protocol):
    """The footage that a line is pasted into."""

    @property
    def clip(self) -> IdleClip: ...
    @property
    def frame_rate(self) -> Fraction: ...
    def track_index(self, frame: int) -> int | None:
        """Which of the clip's tracks a frame has, None where no face is known."""

    def frames(self, first: int, after: int) -> Generator[UInt8, None, None]:
        """The frames first to after - 1 themselves, [H, W, 3]."""


class FrameRenderer(Protocol):
    """The pictures of a line. state: see the top; set it before frames, read it after them."""

    state: State

    def __len__(self) -> int: ...
    @property
    def frame_rate(self) -> Fraction: ...
    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures."""

    def frames(self, first: int, after: int) -> Generator[UInt8, None, None]:
        """The pictures first to after - 1, [H, W, 3 or 4]."""


class IdleFootage:
    """The idle clip, played there and back."""

    frame_rate = Fraction(FRAME_RATE)

    def __init__(self, clip: IdleClip) -> None:
        self.clip = clip

    def track_index(self, frame: int) -> int:
        """See Footage."""
        return int(ping_pong(len(self.clip), 1, frame)[0])

    def frames(self, first: int, after: int) -> Generator[UInt8, None, None]:
        """See Footage."""
        return idle_frames(self.clip.path, len(self.clip), first, after)


class PasteFrameRenderer:
    """Footage with the lower face that says the line. codes: [F, K] of the footage's frames."""

    def __init__(self, renderer: Renderer, footage: FrameSource, codes: Float32) -> None:
        self._paster = Compositor(renderer, footage.clip)
        self._footage, self._codes = footage, codes

    @property
    def frame_rate(self) -> Fraction:
        return self._footage.frame_rate

    @property
    def size(self) -> tuple[int, int]:
        height, width = self._footage.clip.plate.shape[:2]
        return width, height

    @property
    def state(self) -> State:
        return self._paster.composer.gain

    @state.setter
    def state(self, state: State) -> None:
        self._paster.composer.gain = state

    def __len__(self) -> int:
        return len(self._codes)

    def frames(self, first: int, after: int) -> Generator[UInt8, None, None]:
        """See Shot."""
        with closing(self._footage.frames(first, after)) as frames:
            for place, frame in zip(range(first, after), frames, strict=True):
                track_index = self._footage.track_index(place)
                if track_index is not None:
                    frame = self._paster(frame, track_index, self._codes[place])
                yield frame


class Compositor:
    """Re-lips frames: frame [H, W, 3], its number in the clip, code [K] -> frame [H, W, 3].

    Eyes and brows stay those of the frame.
    """

    def __init__(self, renderer: Renderer, clip: IdleClip) -> None:
        self.composer = CropPaster(clip.plate, clip.scale)
        self._renderer, self._clip = renderer, clip
        self._device = device_of(renderer)

    def __call__(self, frame: UInt8, track_index: int, code: Float32) -> UInt8:
        clip, n_mouth = self._clip, self._clip.face.n_mouth
        source = clip.codes[track_index]
        target = np.concatenate([code[:n_mouth], source[n_mouth:]])
        before, after = clip.landmarks(track_index, np.stack([source, target]))
        mask = paste_mask(before, after, (clip.crop_height, clip.crop_width))
        window = mask_window(mask)
        ks = clip.crop_ks[track_index : track_index + 1].copy()
        ks[:, 0, 2] -= window.left
        ks[:, 1, 2] -= window.top
        with torch.no_grad():
            rendering = self._renderer.render(
                torch.from_numpy(target[None]).to(self._device),
                torch.from_numpy(clip.viewmats[track_index : track_index + 1]).to(self._device),
                torch.from_numpy(ks).to(self._device),
                window.bottom - window.top,
                window.right - window.left,
            )
        return self.composer.paste(
            frame,
            clip.origins[track_index],
            window,
            rendering.rgb[0].cpu().numpy(),
            rendering.alpha[0].cpu().numpy(),
            mask[window.slices],
            clip.mask(track_index)[window.slices],
        )


class HeadFrameRenderer:
    """Crops of the rendered head, which follows the idle clip's head motion. codes: [F, K].

    view: what is changed of that, as far as the clip shows it. backgrounds: gives the pictures
    [h, w, 3] behind the frames first to after - 1 of the line, of the crop's size; None: the head
    alone, as RGBA that is not premultiplied.
    """

    frame_rate = Fraction(FRAME_RATE)

    def __init__(
        self,
        renderer: Renderer,
        clip: IdleClip,
        codes: Float32,
        backgrounds: Callable[[int, int], Iterator[UInt8]] | None,
        view: View = AS_FILMED,
    ) -> None:
        self.state: State = []
        self._renderer, self._clip, self._codes = renderer, turned_clip(clip, view), codes
        self._backgrounds = backgrounds
        self._device = device_of(renderer)
        self._ks = torch.from_numpy(head_camera(clip, view.zoom)).to(self._device)

    @property
    def size(self) -> tuple[int, int]:
        return self._clip.crop_width, self._clip.crop_height

    def __len__(self) -> int:
        return len(self._codes)

    def frames(self, first: int, after: int) -> Generator[UInt8, None, None]:
        """See Shot."""
        behind = None if self._backgrounds is None else self._backgrounds(first, after)
        numbers = ping_pong(len(self._clip), after - first, first)
        for track_index, code in zip(numbers, self._codes[first:after], strict=True):
            rgb, alpha = self._render(int(track_index), code)
            yield transparent(rgb, alpha) if behind is None else over(rgb, alpha, next(behind))

    def _render(self, track_index: int, code: Float32) -> tuple[Float32, Float32]:
        clip, n_mouth = self._clip, self._clip.face.n_mouth
        target = np.concatenate([code[:n_mouth], clip.codes[track_index, n_mouth:]])
        with torch.no_grad():
            made = self._renderer.render(
                torch.from_numpy(target[None]).to(self._device),
                torch.from_numpy(clip.viewmats[track_index : track_index + 1]).to(self._device),
                self._ks,
                clip.crop_height,
                clip.crop_width,
            )
        return made.rgb[0].cpu().numpy(), made.alpha[0].cpu().numpy()


def over(rgb: Float32, alpha: Float32, background: UInt8) -> UInt8:
    """A rendering, premultiplied [h, w, 3] with alpha [h, w, 1], over a picture [h, w, 3]."""
    image = rgb + (1.0 - alpha) * (background.astype(np.float32) / 255.0)
    return np.asarray(np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def transparent(rgb: Float32, alpha: Float32) -> UInt8:
    """A rendering as RGBA [h, w, 4] that is not premultiplied.

    The head's colours go on outside its edge: encoders that halve the colours' resolution would mix
    black into the edge else, and scaling too.
    """
    whole = np.concatenate([rgb, alpha], axis=2)
    for sigma in BLEED_PX:
        wide = cv2.GaussianBlur(whole, (0, 0), sigma)
        whole = whole + (1.0 - np.clip(whole[..., 3:], 0.0, 1.0)) * wide
    color = whole[..., :3] / np.maximum(whole[..., 3:], 1e-4)
    inside = alpha > 0.5  # where the rendering's own colour is sure
    color = np.where(inside, rgb / np.maximum(alpha, 1e-4), color)
    image = np.concatenate([color, alpha], axis=2)
    return np.asarray(np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def own_background(clip: IdleClip) -> UInt8:
    """The person's own background [h, w, 3] behind head shots."""
    size = (clip.crop_height, clip.crop_width)
    return cut_crop(clip.plate, head_origin(clip), size, clip.scale)


def device_of(renderer: Renderer) -> torch.device:
    """Where a renderer computes."""
    return next(iter(renderer.tensors().values())).device


def pasted_line(renderer: Renderer, idle: IdleClip, codes: Float32) -> Generator[UInt8, None, None]:
    """The idle clip's frames, there and back, re-lipped by codes [F, K]."""
    return PasteFrameRenderer(renderer, IdleFootage(idle), codes).frames(0, len(codes))
