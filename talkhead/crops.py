"""Head crops and their masks: cutting, shrinking, the areas that are hidden or body."""

from __future__ import annotations

import cv2
import numpy as np

from talkhead.face import (
    CHIN,
    FACE_OVAL,
    FOREHEAD,
    JAW_LINE,
)
from talkhead.types import Bool, Float32, Int, UInt8

MASK_SHRINK = 4


JAW_MARGIN = 0.06
"""Share of the face's height by which the body begins under the jaw."""


HIDDEN_MARGIN = 0.04
"""What stands before the face is widened by this share of the face's width..."""


HIDDEN_MARGIN_PX = 8
"""...and by so many pixels: no window in which structure is compared sees it."""


def crop_landmarks(landmarks: Float32, origins: Float32, scale: float) -> Float32:
    """Landmarks [F, 478, 2] in crop pixels, of landmarks [F, 478, 3] and crops' origins [F, 2] in source
    pixels."""
    return np.asarray((landmarks[..., :2] - origins[:, None]) * scale, dtype=np.float32)


def small_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the small mask of a crop of height and width `size`."""
    return size[0] // MASK_SHRINK, size[1] // MASK_SHRINK


def shrunk_mask(mask: UInt8) -> UInt8:
    """A person mask [H, W] at a quarter of its size."""
    height, width = small_size((mask.shape[0], mask.shape[1]))
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def enlarged_mask(small: UInt8, size: tuple[int, int]) -> Float32:
    """A shrunk mask as one of height and width `size` again, in [0, 1]."""
    values = small.astype(np.float32) / 255.0
    return np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def hidden_area(points: Float32, triangles: Int, size: tuple[int, int]) -> Bool:
    """Where what stands before triangles [n, 3] of a face may be in an image, [H, W], with a margin.

    points: [478, 2] landmarks in pixels. size: height, width. An arm goes on beside the face: a pixel
    there belongs with the nearest one of the face.
    """
    area, outside = np.zeros(size, np.uint8), np.ones(size, np.uint8)
    if not len(triangles):
        return area > 0
    for corners in points[triangles].round().astype(np.int32):
        cv2.fillConvexPoly(area, corners, 1)
    oval = points[list(FACE_OVAL)].round().astype(np.int32)
    cv2.fillPoly(outside, [oval], 0)
    outside[area > 0] = 0
    _, nearest = cv2.distanceTransformWithLabels(
        outside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    is_hidden = np.zeros(int(nearest.max()) + 1, np.uint8)
    is_hidden[nearest[outside == 0]] = area[outside == 0]
    margin = HIDDEN_MARGIN_PX + round(HIDDEN_MARGIN * float(np.ptp(oval[:, 0])))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    return np.asarray(cv2.dilate(is_hidden[nearest], kernel) > 0)


def body_area(points: Float32, size: tuple[int, int]) -> UInt8:
    """Where neck and clothes may be in an image, [H, W], 0 or 255: well under the jaw, people or not.

    points: [478, 2] landmarks in pixels. size: height, width.
    """
    area, jaw = np.zeros(size, np.uint8), points[list(JAW_LINE)]
    area[max(int(jaw[:, 1].mean()), 0) :] = 255
    margin = JAW_MARGIN * float(points[CHIN, 1] - points[FOREHEAD, 1])
    head = np.concatenate([jaw + np.array([0, margin]), jaw * np.array([1, 0])])
    cv2.fillConvexPoly(area, cv2.convexHull(head.round().astype(np.int32)), 0)
    return area


def cut_crop(
    image: UInt8, origin: Float32, size: tuple[int, int], scale: float, pad: str = "edge"
) -> UInt8:
    """The crop [H, W, ...] of an image; what lies outside the image repeats its edge, or is 0.

    origin: left, top in image pixels (whole numbers). size: height, width in crop pixels.
    scale: crop pixels per image pixel, at most 1.
    """
    height, width = (round(n / scale) for n in size)
    left, top = (int(n) for n in origin)
    bounds = (max(0, -top), max(0, top + height - len(image)))
    sides = (max(0, -left), max(0, left + width - image.shape[1]))
    part = image[max(0, top) : top + height, max(0, left) : left + width]
    if any(bounds + sides):
        spread = (bounds, sides) + ((0, 0),) * (image.ndim - 2)
        part = np.pad(part, spread, mode="edge" if pad == "edge" else "constant")
    if part.shape[:2] != size:
        part = cv2.resize(part, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(part)
