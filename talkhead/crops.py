"""Head crops and their masks: cutting, resizing, areas of occluders and of the body."""

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
"""Reduction of small masks along each axis."""
JAW_MARGIN = 0.06
"""Distance from jaw to body, as a fraction of the face's height."""
OCCLUSION_MARGIN = 0.04
"""Margin around occluders, as a fraction of the face's width; OCCLUSION_MARGIN_PX is added to it."""
OCCLUSION_MARGIN_PX = 8
"""Further margin around occluders, pixels, so that no window of SSIM includes an occluder."""


def crop_landmarks(landmarks: Float32, origins: Float32, scale: float) -> Float32:
    """Convert landmarks from source pixels to crop pixels.

    Args:
        landmarks: [F, 478, 3] in source pixels.
        origins: [F, 2] left and top of the crops, source pixels.
        scale: Crop pixels per source pixel.

    Returns:
        [F, 478, 2].
    """
    return np.asarray((landmarks[..., :2] - origins[:, None]) * scale, dtype=np.float32)


def small_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a crop's small mask.

    Args:
        size: Height and width of the crop.

    Returns:
        Height and width.
    """
    return size[0] // MASK_SHRINK, size[1] // MASK_SHRINK


def shrunk_mask(mask: UInt8) -> UInt8:
    """Reduce a person mask to a quarter of its size.

    Args:
        mask: [H, W] uint8.

    Returns:
        [H // 4, W // 4] uint8.
    """
    height, width = small_size((mask.shape[0], mask.shape[1]))
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def enlarged_mask(small: UInt8, size: tuple[int, int]) -> Float32:
    """Enlarge a shrunk mask.

    Args:
        small: [h, w] uint8.
        size: Height and width H, W of the result.

    Returns:
        [H, W] in [0, 1].
    """
    values = small.astype(np.float32) / 255.0
    return np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def occluded_area(points: Float32, triangles: Int, size: tuple[int, int]) -> Bool:
    """Return the area of an image that an occluder of the face may cover, with a margin.

    An arm extends beyond the face, so a pixel outside the face is treated like the nearest one inside it.

    Args:
        points: [478, 2] landmarks in pixels.
        triangles: [n, 3] occluded triangles of the face mesh.
        size: Height and width H, W of the image.

    Returns:
        [H, W] bool.
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
    is_occluded = np.zeros(int(nearest.max()) + 1, np.uint8)
    is_occluded[nearest[outside == 0]] = area[outside == 0]
    margin = OCCLUSION_MARGIN_PX + round(OCCLUSION_MARGIN * float(np.ptp(oval[:, 0])))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    return np.asarray(cv2.dilate(is_occluded[nearest], kernel) > 0)


def body_area(points: Float32, size: tuple[int, int]) -> UInt8:
    """Return the area of an image well below the jaw, where neck and clothes may be.

    Args:
        points: [478, 2] landmarks in pixels.
        size: Height and width H, W of the image.

    Returns:
        [H, W] uint8, 0 or 255.
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
    """Cut a crop out of an image.

    Args:
        image: [height, width, ...] uint8.
        origin: [2] left and top in image pixels, whole numbers.
        size: Height and width H, W in crop pixels.
        scale: Crop pixels per image pixel, at most 1.
        pad: "edge" repeats the edge of the image outside it; with any other value, pixels there are 0.

    Returns:
        [H, W, ...] uint8.
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
