"""Detail of the skin that mode paste replaces, which borders on real skin in the same picture."""

from __future__ import annotations

import cv2
import numpy as np

from talkhead.app.composer.paste import paste_mask
from talkhead.app.evaluation.measures.image import (
    IMAGE_MEASURES,
    Box,
    FramePair,
    gradient_correlation,
    sharpness_ratio,
)
from talkhead.face import FACE_OVAL, OUTER_LIPS
from talkhead.types import Bool, Float32, UInt8

SOLID = 0.95
"""Share of the rendering in a pasted pixel from which the pixel counts."""
OVAL_MARGIN, LIP_MARGIN = 0.026, 0.015
"""Margins inside the face's oval and around the lips, relative to the face's height: 7 and 4 px for
267.
"""


def skin_mask(landmarks: Float32, size: tuple[int, int]) -> Bool:
    """Compute the skin that mode paste replaces: lower face without lips, neck and outline.

    Args:
        landmarks: Landmarks [478, 2 or 3] of the real frame, pixels.
        size: Height and width of the image.

    Returns:
        Mask [H, W]. All false if that part of the face is outside the image.
    """
    points = landmarks[:, :2].astype(np.float32)
    height = float(np.linalg.norm(points[10] - points[152]))
    pasted = paste_mask(points, points, size) > SOLID
    oval = cv2.erode(_hull(points[list(FACE_OVAL)], size), _disc(OVAL_MARGIN * height))
    lips = cv2.dilate(_hull(points[list(OUTER_LIPS)], size), _disc(LIP_MARGIN * height))
    return np.asarray(pasted & (oval > 0) & (lips == 0))


def _hull(points: Float32, size: tuple[int, int]) -> UInt8:
    """Fill the convex hull of points [n, 2]: [H, W], 1 inside."""
    outline = cv2.convexHull(np.floor(points).astype(np.int32))
    return np.asarray(cv2.fillConvexPoly(np.zeros(size, np.uint8), outline, 1))


def _disc(radius: float) -> UInt8:
    """Return a disc [2 r + 1, 2 r + 1] of a radius in pixels, at least 1."""
    side = 2 * max(1, round(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))


def _skin(frame: FramePair) -> tuple[Box, Bool]:
    """Compute the skin's mask [H, W] of a frame, and the box around it, empty without skin."""
    mask = skin_mask(frame.landmarks, frame.size)
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return Box(left, top, left + width, top + height), mask


@IMAGE_MEASURES.measure("skin_sharpness", label="skin sharpness", better=1.0, headline="median")
def skin_sharpness(frame: FramePair) -> float:
    """Detail of the pasted skin over that of the real one: 1 is real."""
    box, mask = _skin(frame)
    return sharpness_ratio(frame.image, frame.real, box, mask) if box.area else float("nan")


@IMAGE_MEASURES.measure("skin_gradient_correlation", label="skin in place", better="more")
def skin_gradient_correlation(frame: FramePair) -> float:
    """Correlation of the pasted skin's detail with that of the real one."""
    box, mask = _skin(frame)
    return gradient_correlation(frame.image, frame.real, box, mask) if box.area else float("nan")
