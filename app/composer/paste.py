"""Paste rendered lower faces into the person's own frames.

The pasted region is the lower face down to the jaw line and a strip of neck below it, over the union
of the jaw in the source frame and the new jaw, so that neither an old open jaw (a second chin) nor
a border of the new one is visible. The background is shown where the head no longer is.
docs/composer.md has a picture of the masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numba
import numpy as np

from talkhead.face import JAW_LINE, LEFT_BROW, LEFT_EYE, RIGHT_BROW, RIGHT_EYE
from talkhead.renderers.fastmath import IN_ORDER
from talkhead.types import Float32, UInt8

UPPER_LINE = (116, 117, 118, 119, 195, 348, 347, 346, 345)
"""Landmarks across both cheeks and the nose, from left to right; nothing is pasted above them."""
NECK_FRACTION = 0.03
"""Height of the neck strip, relative to the face's height."""
FEATHER_FRACTION = 0.010
"""Standard deviation of the mask's soft border, relative to the face's height: 2.5 px for 267."""
EYE_MARGIN_FRACTION, EYE_FEATHER_FRACTION = 0.03, 0.015
"""Margin around eyes and brows, and standard deviation of its border, relative to the face's height."""
INNER_WIDTH, INNER_RISE, INNER_FEATHER_FRACTION = 0.7, 0.3, 0.04
"""For footage in other light: width of the mask, and its top above its middle, relative to the lower
face, and the blur of its border, relative to the face's height."""
SUBPIXEL_BITS = 4
Outline: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.int32]]"
MAX_GAIN = 1.12
GAIN_MEMORY = 0.9


@dataclass(frozen=True)
class Window:
    """Window of a crop, in crop pixels.

    Attributes:
        top: First row.
        bottom: Row after the last one.
        left: First column.
        right: Column after the last one.
    """

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def paste_mask(source: Float32, target: Float32, size: tuple[int, int]) -> Float32:
    """Make the mask within which the rendering is pasted.

    Args:
        source: Crop landmarks [478, 2] of the source frame.
        target: Crop landmarks [478, 2] of the new face.
        size: Height and width of the crop.

    Returns:
        Mask [H, W] in [0, 1].
    """
    height = _face_height(source)
    outlines = [_outline(points, NECK_FRACTION * height) for points in (source, target)]
    return _filled(outlines, size, FEATHER_FRACTION * height)


def inner_paste_mask(source: Float32, target: Float32, size: tuple[int, int]) -> Float32:
    """Make the mask for footage in other light than the rendering: mouth, chin and inner cheeks.

    The sides of the face, where light and outline differ most, stay as filmed, and the border is soft.

    Args:
        source: Crop landmarks [478, 2] of the source frame.
        target: Crop landmarks [478, 2] of the new face.
        size: Height and width of the crop.

    Returns:
        Mask [H, W] in [0, 1].
    """
    height, outlines = _face_height(source), []
    for points in (source, target):
        outline = _outline(points, NECK_FRACTION * height).astype(np.float64)
        middle = outline.mean(axis=0)
        outline[:, 0] = middle[0] + INNER_WIDTH * (outline[:, 0] - middle[0])
        outline[:, 1] = np.maximum(outline[:, 1], middle[1] - INNER_RISE * np.ptp(outline[:, 1]))
        outlines.append(outline.round().astype(np.int32))
    return _filled(outlines, size, INNER_FEATHER_FRACTION * height)


def _face_height(points: Float32) -> float:
    """Return the distance of forehead and chin in landmarks [478, 2]."""
    return float(np.linalg.norm(points[10] - points[152]))


def _filled(outlines: Sequence[Outline], size: tuple[int, int], sigma: float) -> Float32:
    """Fill outlines [n, 2] in OpenCV's fixed-point pixels, and soften the border, [H, W] in [0, 1]."""
    mask = np.zeros(size, np.uint8)
    for outline in outlines:
        cv2.fillPoly(mask, [outline], 255, lineType=cv2.LINE_AA, shift=SUBPIXEL_BITS)
    return _soften(mask, sigma)


def eye_mask(source: Float32, target: Float32, size: tuple[int, int]) -> Float32:
    """Make the mask within which eyes and brows are pasted.

    Args:
        source: Crop landmarks [478, 2] of the source frame.
        target: Crop landmarks [478, 2] of the new face.
        size: Height and width of the crop.

    Returns:
        Mask [H, W] in [0, 1].
    """
    height, mask = _face_height(source), np.zeros(size, np.uint8)
    for side in (LEFT_EYE + LEFT_BROW, RIGHT_EYE + RIGHT_BROW):
        points = np.concatenate([source[list(side)], target[list(side)]])
        outline = cv2.convexHull(_fixed_point(points))
        cv2.fillConvexPoly(mask, outline, 255, lineType=cv2.LINE_AA, shift=SUBPIXEL_BITS)
    margin = max(1, round(EYE_MARGIN_FRACTION * height))
    mask = np.asarray(
        cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1,) * 2))
    )
    return _soften(mask, EYE_FEATHER_FRACTION * height)


def _fixed_point(points: Float32) -> Outline:
    """Convert points [n, 2] to OpenCV's fixed-point pixels.

    Landmarks have pixel centers at +0.5, OpenCV at 0; subpixel corners keep the edge steady.
    """
    return np.rint((points - 0.5) * 2**SUBPIXEL_BITS).astype(np.int32)


def _outline(points: Float32, neck: float) -> Outline:
    """Return the polygon [n, 2] around the lower face and the neck strip, from landmarks [478, 2].

    The strip narrows toward its ends.
    """
    jaw = points[list(JAW_LINE)].copy()
    low, high = jaw[:, 1].min(), jaw[:, 1].max()
    share = np.clip((jaw[:, 1] - low) / max(high - low, 1e-6), 0.0, 1.0)
    jaw[:, 1] += neck * share
    upper = points[list(UPPER_LINE)]
    return _fixed_point(np.concatenate([jaw, upper]))


def _soften(mask: UInt8, sigma: float) -> Float32:
    """Blur the border of a mask, [H, W] in [0, 1]; only the part around it is computed."""
    sigma = max(sigma, 0.8)
    margin = int(np.ceil(4.0 * sigma)) + 1
    left, top, width, height = cv2.boundingRect(mask)
    rows = slice(max(0, top - margin), top + height + margin)
    columns = slice(max(0, left - margin), left + width + margin)
    soft = np.zeros(mask.shape, np.float32)
    part = mask[rows, columns].astype(np.float32) / np.float32(255.0)
    soft[rows, columns] = cv2.GaussianBlur(part, (0, 0), sigma)
    return soft


def mask_window(mask: Float32, margin: int = 4) -> Window:
    """Return the smallest window around a mask.

    Args:
        mask: Mask [H, W].
        margin: Margin in pixels.

    Returns:
        The window.
    """
    rows, columns = np.flatnonzero(mask.max(1) > 0.002), np.flatnonzero(mask.max(0) > 0.002)
    if len(rows) == 0:
        return Window(0, 1, 0, 1)
    height, width = mask.shape
    return Window(
        max(0, int(rows[0]) - margin),
        min(height, int(rows[-1]) + 1 + margin),
        max(0, int(columns[0]) - margin),
        min(width, int(columns[-1]) + 1 + margin),
    )


class CropPaster:
    """Pastes renderings into frames of one clip, with a color match that is steady over time."""

    def __init__(self, background: UInt8, scale: float) -> None:
        """Initialize the paster.

        Args:
            background: Background without the person [H, W, 3] at source size.
            scale: Crop pixels per source pixel.
        """
        self._background = background
        self._scale = scale
        self._gain: Float32 | None = None

    @property
    def gain(self) -> list[float]:
        """Color match of the last frame, from which the next one starts; empty before the first."""
        return [] if self._gain is None else [float(value) for value in self._gain]

    @gain.setter
    def gain(self, gain: list[float]) -> None:
        self._gain = np.array(gain, np.float32) if len(gain) == 3 else None

    def paste(
        self,
        frame: UInt8,
        origin: Float32,
        window: Window,
        rgba: Float32,
        mask: Float32,
        person: Float32,
        is_matched: bool = True,
    ) -> UInt8:
        """Paste a rendering into a frame.

        Args:
            frame: Frame [H, W, 3], which is not changed.
            origin: Left and top [2] of the crop in the frame.
            window: Part of the crop that was rendered.
            rgba: Premultiplied colors and opacity [h, w, 4] of the window.
            mask: Where to paste [h, w], of the window.
            person: Mask of the person in the source frame [h, w], of the window.
            is_matched: The brightness is matched to the frame's by this rendering. If False, the match of
                the last one is used.

        Returns:
            Frame [H, W, 3].
        """
        covered = np.maximum(person, rgba[..., 3])
        mask = mask * cv2.dilate(np.clip(2.0 * covered, 0.0, 1.0), np.ones((3, 3), np.uint8))
        patch = np.concatenate([rgba, mask[..., None]], axis=2)
        rows, columns, patch = self._in_source(
            patch, origin, window, (frame.shape[0], frame.shape[1])
        )
        if is_matched or self._gain is None:
            gain = self._match(patch, frame[rows, columns])
        else:
            gain = self._gain
        result = frame.copy()
        background = self._background[rows, columns].astype(np.float32)
        _blend_rows(np.ascontiguousarray(patch), gain, background, result[rows, columns])
        return result

    def _in_source(
        self, patch: Float32, origin: Float32, window: Window, size: tuple[int, int]
    ) -> tuple[slice, slice, Float32]:
        """Resample a patch [h, w, 5] of the crop to source pixels; also return the rows and columns
        it covers.

        Parts outside the frame are cut off.
        """
        scale = self._scale
        left, top = origin[0] + window.left / scale, origin[1] + window.top / scale
        right, bottom = origin[0] + window.right / scale, origin[1] + window.bottom / scale
        rows = slice(max(0, int(np.floor(top))), min(size[0], int(np.ceil(bottom))))
        columns = slice(max(0, int(np.floor(left))), min(size[1], int(np.ceil(right))))
        if scale == 1.0:
            first, start = rows.start - round(top), columns.start - round(left)
            height, width = rows.stop - rows.start, columns.stop - columns.start
            return rows, columns, patch[first : first + height, start : start + width]
        # Pixel centers are at +0.5 in both images.
        shift_x = (columns.start + 0.5 - left) * scale - 0.5
        shift_y = (rows.start + 0.5 - top) * scale - 0.5
        matrix = np.array([[scale, 0.0, shift_x], [0.0, scale, shift_y]])
        shape = (columns.stop - columns.start, rows.stop - rows.start)

        def resample(part: Float32, how: int, border: int) -> Float32:
            flags = how | cv2.WARP_INVERSE_MAP
            return cv2.warpAffine(part, matrix, shape, flags=flags, borderMode=border)

        head = resample(patch[..., :4], cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)
        share = resample(patch[..., 4], cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)
        return rows, columns, np.dstack([head, share])

    def _match(self, patch: Float32, under: UInt8) -> Float32:
        """Return the smoothed gain [3] that matches the brightness of the rendered cheeks to that
        of the frame's cheeks.

        Patch [h, w, 5] is premultiplied colors, alpha and mask; under [h, w, 3] is the frame. Only
        the upper third is compared: cheeks and nose, which do not move with speech.
        """
        third = slice(0, max(1, len(patch) // 3))
        head, under = patch[third], under[third]
        inside = (head[..., 4] > 0.5) & (head[..., 3] > 0.95)
        if inside.sum() < 50:
            return np.ones(3, np.float32) if self._gain is None else self._gain
        own = 255.0 * head[inside][:, :3].mean(0)
        ratio = under[inside].mean(0, dtype=np.float32) / np.maximum(own, 1.0)
        ratio = np.clip(ratio, 1.0 / MAX_GAIN, MAX_GAIN)
        if self._gain is not None:
            ratio = GAIN_MEMORY * self._gain + (1.0 - GAIN_MEMORY) * ratio
        self._gain = ratio.astype(np.float32)
        return self._gain


@numba.njit(nogil=True, cache=True, parallel=True, fastmath=IN_ORDER, error_model="numpy")
def _blend_rows(patch, gain, background, frame):  # type: ignore[no-untyped-def]
    """Blend a patch [h, w, 5] over a frame [h, w, 3] in place; the background shows where the head
    is not."""
    zero, one, white = np.float32(0.0), np.float32(1.0), np.float32(255.0)
    for y in numba.prange(patch.shape[0]):
        for x in range(patch.shape[1]):
            share = min(max(patch[y, x, 4], zero), one)
            if share > zero:
                behind = one - min(max(patch[y, x, 3], zero), one)
                for c in range(3):
                    under = np.float32(frame[y, x, c])
                    made = patch[y, x, c] * white * gain[c] + behind * background[y, x, c]
                    value = under + share * (made - under) + np.float32(0.5)
                    frame[y, x, c] = np.uint8(min(max(value, zero), white))
