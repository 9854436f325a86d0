"""Baselines of landmarks alone: a mouth that never moves, and mismatched speech.

Faces are aligned by their outer eye corners: translation, rotation in the image plane and scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from talkhead.face import OUTER_EYE_CORNERS
from talkhead.types import Float32

Complex = npt.NDArray[np.complexfloating[Any, Any]]


def mean_mouth(real: Float32, source: Float32) -> Float32:
    """Place the mean face of a source in every frame.

    Args:
        real: Landmarks [N, 478, 2] that give the place of the face; NaN without one.
        source: Landmarks [M, 478, 2] to average.

    Returns:
        Landmarks [N, 478, 2].
    """
    return _placed(np.nanmean(_normalized(source), axis=0, keepdims=True), real)


def mismatched_speech(real: Float32, source: Float32) -> Float32:
    """Move the faces of a source to the places of the real ones.

    Args:
        real: Landmarks [N, 478, 2] that give the place of the face; NaN without one.
        source: Landmarks [N, 478, 2] that move differently.

    Returns:
        Landmarks [N, 478, 2].
    """
    return _placed(_normalized(source), real)


def half_turned(landmarks: Float32) -> Float32:
    """Shift landmarks circularly by half the clip.

    Args:
        landmarks: Landmarks [N, 478, 2].

    Returns:
        Landmarks [N, 478, 2].
    """
    return np.roll(landmarks, len(landmarks) // 2, axis=0)


def _normalized(landmarks: Float32) -> Complex:
    """Convert landmarks [N, P, 2] to x + iy [N, P] with the outer eye corners at -1/2 and 1/2."""
    middle, eyes = _eyes(landmarks)
    with np.errstate(invalid="ignore"):  # frames without a face
        return (_complex(landmarks) - middle) / eyes


def _placed(shapes: Complex, real: Float32) -> Float32:
    """Align shapes [N or 1, P] with the eyes of landmarks [N, 478, 2]."""
    middle, eyes = _eyes(real)
    places = shapes * eyes + middle
    return np.stack([places.real, places.imag], axis=-1).astype(np.float32)


def _eyes(landmarks: Float32) -> tuple[Complex, Complex]:
    """Compute the midpoint of the outer eye corners and the vector between them, [N, 1] each."""
    left, right = (_complex(landmarks[:, [index]]) for index in OUTER_EYE_CORNERS)
    return (left + right) / 2, right - left


def _complex(points: Float32) -> Complex:
    """Convert points [..., 2] to x + iy."""
    return points[..., 0].astype(np.float64) + 1j * points[..., 1]
