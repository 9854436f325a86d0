"""The clean plate: what is behind the person, per-pixel median over the frames that show it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from talkhead.types import Bool, UInt8

MAX_SAMPLES = 60
SEEN_AT_LEAST = 3
PERSON_BELOW = 10
"""A pixel is background where the mask (0..255) is below this."""
MOVING_ABOVE = 12.0
"""A plate that differs by more than this (median, of 255) between the clip's halves moved."""


@dataclass(frozen=True)
class Plate:
    """image: [H, W, 3] uint8. seen: [H, W] bool, False where inpainted. moving: bool."""

    image: UInt8
    seen: Bool
    moving: bool


def clean_plate(frames: list[UInt8], masks: list[UInt8]) -> Plate:
    """The background of a clip.

    frames: a few dozen whole images [H, W, 3]. masks: their person masks [H, W], 255 = person or
    unknown (outside of where the mask was computed).
    """
    stack, background = np.stack(frames), np.stack(masks) < PERSON_BELOW
    image, seen = _masked_median(stack, background)
    half = len(frames) // 2
    moving = half >= SEEN_AT_LEAST and _moved(stack, background, half)
    return Plate(_inpaint(image, seen), seen, moving)


def _masked_median(stack: UInt8, background: Bool) -> tuple[UInt8, Bool]:
    """Median [H, W, 3] over the frames where a pixel is background, and where there were enough."""
    image = np.zeros(stack.shape[1:], dtype=np.uint8)
    count = background.sum(0)
    for row in range(stack.shape[1]):  # row by row: a masked median needs floats
        values = np.where(background[:, row, :, None], stack[:, row].astype(np.float32), np.inf)
        ordered = np.sort(values, axis=0)
        middle = np.clip((count[row] - 1) // 2, 0, None)
        picked = np.take_along_axis(ordered, middle[None, :, None], axis=0)[0]
        image[row] = np.where(np.isfinite(picked), picked, 0)
    return image, count >= SEEN_AT_LEAST


def _moved(stack: UInt8, background: Bool, half: int) -> bool:
    first, first_seen = _masked_median(stack[:half], background[:half])
    last, last_seen = _masked_median(stack[half:], background[half:])
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
    colour = cv2.resize(
        image.astype(np.float32) * seen[..., None], small_size, interpolation=cv2.INTER_AREA
    )
    filled = _push_pull(colour, weight)
    large = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(seen[..., None], image, np.clip(large + 0.5, 0, 255)).astype(np.uint8)


def _push_pull(
    colour: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Premultiplied colours [h, w, 3] with weights [h, w] -> colours everywhere, coarse to fine."""
    height, width = weight.shape
    if min(height, width) <= 2:
        mean = colour.reshape(-1, 3).sum(0) / max(float(weight.sum()), 1e-6)
        coarse = np.broadcast_to(mean, colour.shape).astype(np.float32)
    else:
        half = ((width + 1) // 2, (height + 1) // 2)
        small = _push_pull(
            cv2.resize(colour, half, interpolation=cv2.INTER_AREA),
            cv2.resize(weight, half, interpolation=cv2.INTER_AREA),
        )
        coarse = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(colour + coarse * (1.0 - weight[..., None]), dtype=np.float32)
