"""What a system must beat, as landmarks alone: a mouth that never moves, and a wrong sentence.

Faces are laid over each other by their outer eye corners: shift, turn in the image plane and size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from talkhead.face import OUTER_EYE_CORNERS
from talkhead.types import Float32

Complex = npt.NDArray[np.complexfloating[Any, Any]]


def mean_mouth(real: Float32, source: Float32) -> Float32:
    """Landmarks [N, 478, 2] that stand in every frame as the source's [M, 478, 2] do in the mean.

    real: [N, 478, 2], where the faces are, NaN without one.
    """
    return _placed(np.nanmean(_shapes(source), axis=0, keepdims=True), real)


def mismatched_speech(real: Float32, source: Float32) -> Float32:
    """Landmarks [N, 478, 2] that move as the source's [N, 478, 2] do."""
    return _placed(_shapes(source), real)


def half_turned(landmarks: Float32) -> Float32:
    """Landmarks [N, 478, 2] of half the clip later, its end followed by its beginning."""
    return np.roll(landmarks, len(landmarks) // 2, axis=0)


def _shapes(landmarks: Float32) -> Complex:
    """Landmarks as complex numbers with the outer eye corners at -1/2 and 1/2."""
    middle, eyes = _eyes(landmarks)
    with np.errstate(invalid="ignore"):  # frames without a face
        return (_complex(landmarks) - middle) / eyes


def _placed(shapes: Complex, real: Float32) -> Float32:
    middle, eyes = _eyes(real)
    places = shapes * eyes + middle
    return np.stack([places.real, places.imag], axis=-1).astype(np.float32)


def _eyes(landmarks: Float32) -> tuple[Complex, Complex]:
    """The point between the outer eye corners and the way from one to the other, [N, 1] each."""
    left, right = (_complex(landmarks[:, [index]]) for index in OUTER_EYE_CORNERS)
    return (left + right) / 2, right - left


def _complex(points: Float32) -> Complex:
    return points[..., 0].astype(np.float64) + 1j * points[..., 1]
