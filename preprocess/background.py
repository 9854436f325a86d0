"""The clean plate: what is behind the person, per-pixel median over the frames that show it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import SpooledTemporaryFile

import cv2
import numpy as np

from talkhead.types import Bool, Float32, UInt8

MAX_SAMPLES = 60
SEEN_AT_LEAST = 3
PERSON_BELOW = 38
"""A pixel is background where the mask (0..255) is below this: masks leave a haze around people, in which
nothing is seen of them."""
HELD_BYTES = 256 << 20
"""Of images that are held in memory: 60 of 1280x720 are 166 MB, 60 of 4K would be 1.5 GB."""
BAND = 16
"""Rows that are worked on at a time."""
MOVING_ABOVE = 12.0
"""A plate that differs by more than this (median, of 255) between the clip's halves moved."""


@dataclass(frozen=True)
class Plate:
    """image: [H, W, 3] uint8. seen: [H, W] bool, False where inpainted. moving: bool."""

    image: UInt8
    seen: Bool
    moving: bool


class ImageStack:
    """Images of one shape, held in memory while they are small, else in a file without a name.

    Whole images are put in one after the other; bands of rows of all of them are taken out.
    """

    def __init__(self, images: Iterable[UInt8], folder: Path | None = None) -> None:
        """folder: where the file lies. Raises OSError when that can't be written."""
        where = None if folder is None else str(folder)
        self._file = SpooledTemporaryFile(HELD_BYTES, dir=where)  # noqa: SIM115
        self._n, self._shape = 0, (0, 0)
        for image in images:
            self._shape = image.shape
            self._file.write(np.ascontiguousarray(image).tobytes())
            self._n += 1

    def __enter__(self) -> ImageStack:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._n

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image."""
        return self._shape

    def rows(self, first: int, after: int, images: range) -> UInt8:
        """Rows first to after - 1 of some of the images, [n, h, W, ...]."""
        row_bytes = prod(self._shape[1:])
        parts = []
        for number in images:
            self._file.seek((number * self._shape[0] + first) * row_bytes)
            parts.append(self._file.read((after - first) * row_bytes))
        stack = np.frombuffer(b"".join(parts), np.uint8)
        return stack.reshape(len(images), after - first, *self._shape[1:])


def disk_bytes(height: int, width: int) -> int:
    """What `clean_plate` writes to the disk, at the most, of images of a size."""
    parts = (MAX_SAMPLES * height * width * channels for channels in (3, 1))
    return sum(part for part in parts if part > HELD_BYTES)


def clean_plate(
    frames: Iterable[UInt8], masks: Iterable[UInt8], folder: Path | None = None
) -> Plate:
    """The background of a clip.

    frames: a few dozen whole images [H, W, 3], one after the other. masks: their person masks
    [H, W], 255 = person or unknown (outside of where the mask was computed). folder: for what is too
    large to be held in memory. Raises OSError when it can't be written there.
    """
    with ImageStack(frames, folder) as stack, ImageStack(masks, folder) as people:
        half = len(stack) // 2
        image, seen = _masked_median(stack, people, range(len(stack)))
        moving = half >= SEEN_AT_LEAST and _moved(stack, people, half)
    return Plate(_inpaint(image, seen), seen, moving)


def _masked_median(stack: ImageStack, people: ImageStack, images: range) -> tuple[UInt8, Bool]:
    """Median [H, W, 3] over some images where a pixel is background, and where there were enough."""
    height, width = stack.shape[:2]
    image, seen = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.bool_)
    for first in range(0, height, BAND):
        after = min(first + BAND, height)
        band = stack.rows(first, after, images)
        background = people.rows(first, after, images) < PERSON_BELOW
        for row in range(after - first):  # row by row: a masked median needs floats
            image[first + row] = _median_row(band[:, row], background[:, row])
        seen[first:after] = background.sum(0) >= SEEN_AT_LEAST
    return image, seen


def _median_row(pixels: UInt8, background: Bool) -> Float32:
    """Median [W, 3] of the pixels [n, W, 3] that are background [n, W]; 0 where none is."""
    values = np.where(background[..., None], pixels.astype(np.float32), np.inf)
    ordered = np.sort(values, axis=0)
    middle = np.clip((background.sum(0) - 1) // 2, 0, None)
    picked = np.take_along_axis(ordered, middle[None, :, None], axis=0)[0]
    return np.where(np.isfinite(picked), picked, 0)


def _moved(stack: ImageStack, people: ImageStack, half: int) -> bool:
    first, first_seen = _masked_median(stack, people, range(half))
    last, last_seen = _masked_median(stack, people, range(half, len(stack)))
    both = first_seen & last_seen
    if both.sum() < 0.02 * both.size:
        return False
    change = np.abs(first[both].astype(np.int16) - last[both].astype(np.int16))
    return bool(np.median(change) > MOVING_ABOVE)


def _inpaint(image: UInt8, seen: Bool) -> UInt8:
    """Unseen pixels filled smoothly from the seen ones (a quarter of the size, then enlarged)."""
    if seen.all():
        return image
    if not seen.any():
        return np.full_like(image, 127)
    height, width = seen.shape
    small_size = (max(1, width // 4), max(1, height // 4))
    weight = cv2.resize(seen.astype(np.float32), small_size, interpolation=cv2.INTER_AREA)
    color = image.astype(np.float32)
    color *= seen[..., None]
    color = cv2.resize(color, small_size, interpolation=cv2.INTER_AREA)
    filled = _push_pull(color, weight)
    large = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
    large += np.float32(0.5)  # in place: these are the largest arrays there are
    np.clip(large, 0, 255, out=large)
    return np.where(seen[..., None], image, large.astype(np.uint8))


def _push_pull(
    color: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Premultiplied colours [h, w, 3] with weights [h, w] -> colours everywhere, coarse to fine."""
    height, width = weight.shape
    if min(height, width) <= 2:
        mean = color.reshape(-1, 3).sum(0) / max(float(weight.sum()), 1e-6)
        coarse = np.broadcast_to(mean, color.shape).astype(np.float32)
    else:
        half = ((width + 1) // 2, (height + 1) // 2)
        small = _push_pull(
            cv2.resize(color, half, interpolation=cv2.INTER_AREA),
            cv2.resize(weight, half, interpolation=cv2.INTER_AREA),
        )
        coarse = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(color + coarse * (1.0 - weight[..., None]), dtype=np.float32)
