"""Lip motion: the mouth's parts move as independently as the person's, and hold still between movements.

Networks that predict the mean of all possible motions move the parts of a mouth together, so the jaw
does little that the opening does not do. They also move all the time, at a moderate speed, where real
lips hold still and then move fast. Two changes of predicted mouth codes correct this:

    covariance   slow and fast motion are each multiplied by the matrix that brings its covariance
                 closer to that of the person's own motion
    hold         the opening follows small changes slowly, and runs a little ahead of large ones

Both depend on past frames only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from talkhead.face import MAX_CODE, MAX_CODES
from talkhead.tensors import Size, TensorSpec, add_prefix, check_tensors, strip_prefix
from talkhead.types import Float32, Float64

SMOOTHING = 0.3
"""Weight of the newest frame in the running mean that is slow motion; the rest is fast motion."""
STRENGTH = 0.5
"""Share of the change of the covariance that is applied."""
RIDGE = 0.1
"""Added to the diagonal of covariances, relative to its mean: directions in which a mouth hardly
moves are measured poorly.
"""
LEAD = 0.2
"""By how many frames the opening is extrapolated before it is held."""
HOLD = 0.1
"""Change of the opening of which half is followed in a frame, in standard deviations of the person's
own opening. More is followed of larger changes, less of smaller ones.
"""

MOUTH_CODES = Size("K", 1, MAX_CODES)
MAX_FACTOR = 1e3
"""Largest entry of a matrix that a package stores."""
_MATRIX = TensorSpec((MOUTH_CODES, MOUTH_CODES), minimum=-MAX_FACTOR, maximum=MAX_FACTOR)
LIP_MOTION = "lip_range.motion."
"""Prefix of the names of a LipMotion's tensors, which packages of older versions do not have."""
TENSORS = {
    "centre": TensorSpec((MOUTH_CODES,), minimum=-MAX_CODE, maximum=MAX_CODE),
    "slow": _MATRIX,
    "fast": _MATRIX,
}
"""Shape and range of each tensor of a LipMotion."""


@dataclass(frozen=True)
class LipMotion:
    """How predicted motion of a person's mouth is changed.

    Attributes:
        centre: Mean of the predicted mouth codes in speech, [K].
        slow: Matrix that slow motion about `centre` is multiplied by, [K, K].
        fast: Matrix that fast motion is multiplied by, [K, K].
    """

    centre: Float32
    slow: Float32
    fast: Float32

    def line(self) -> LineMotion:
        """Begin a line."""
        return LineMotion(self)

    def tensors(self) -> dict[str, Tensor]:
        """Collect what a package stores.

        Returns:
            Tensors of the shapes of TENSORS, under names that begin with LIP_MOTION.
        """
        return {
            LIP_MOTION + one.name: torch.from_numpy(getattr(self, one.name)) for one in fields(self)
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], n_mouth: int) -> LipMotion:
        """Restore what `tensors` has collected.

        Args:
            tensors: Tensors of the shapes of TENSORS, under names that begin with LIP_MOTION.
            n_mouth: Components of a mouth code, K.

        Returns:
            The lip motion.

        Raises:
            ContentError: For tensors with other names, shapes, types or values.
        """
        check_tensors(tensors, add_prefix(TENSORS, LIP_MOTION), {MOUTH_CODES.name: n_mouth})
        return cls(**{n: value.numpy() for n, value in strip_prefix(tensors, LIP_MOTION).items()})


class LineMotion:
    """Changes the covariance of the mouth codes of one line, in order."""

    def __init__(self, motion: LipMotion) -> None:
        """Begin a line.

        Args:
            motion: The matrices of the person.
        """
        self._motion = motion
        self._average = _RunningMean()

    def changed(self, codes: Float64) -> Float64:
        """Change the next frames; the number of frames per call does not affect the result.

        Args:
            codes: Mouth codes [n, K].

        Returns:
            [n, K].
        """
        motion, slow = self._motion, self._average.of(codes)
        moved = _multiplied(slow - motion.centre, motion.slow)
        return np.asarray(motion.centre + moved + _multiplied(codes - slow, motion.fast))


class Hold:
    """Holds the opening of one line still between movements, in order."""

    def __init__(self, spread: float) -> None:
        """Begin a line.

        Args:
            spread: Standard deviation of the person's own opening, above 0.
        """
        self._scale = HOLD * spread
        self._last = self._held = np.nan

    def held(self, values: Float64) -> Float64:
        """Process the next frames; the number of frames per call does not affect the result.

        Args:
            values: The opening [n].

        Returns:
            [n].
        """
        result = np.empty_like(values)
        for frame, value in enumerate(values):
            if np.isnan(self._held):
                self._last = self._held = value
            change = value + LEAD * (value - self._last) - self._held
            size = abs(change)
            self._held += change * size / (size + self._scale)
            self._last, result[frame] = value, self._held
        return result


class _RunningMean:
    """Slow motion: the exponential running mean of codes."""

    def __init__(self) -> None:
        self._value: Float64 | None = None

    def of(self, codes: Float64) -> Float64:
        """Return the mean [n, K] up to each of the next frames, whose codes are [n, K]."""
        result = np.empty(codes.shape)
        value = self._value
        for frame, code in enumerate(codes):
            value = code.copy() if value is None else value + SMOOTHING * (code - value)
            result[frame] = value
        self._value = value
        return result


def fit_lip_motion(tracked: Float32, predicted: Sequence[tuple[Float64, float]]) -> LipMotion:
    """Compute the matrices that bring the covariance of predicted motion closer to the tracked one.

    Args:
        tracked: Mouth codes of frames with speech, [n, K].
        predicted: Predicted mouth codes of speech, [m, K], each with its weight.

    Returns:
        The lip motion.
    """
    weights = np.array([weight for _, weight in predicted])
    weights /= weights.sum()
    own = _bands(tracked.astype(np.float64))
    bands = [_bands(codes) for codes, _ in predicted]
    matrices = []
    for band in range(len(own)):
        known = np.stack([_covariance(parts[band]) for parts in bands])
        matrix = transport(np.tensordot(weights, known, 1), _covariance(own[band]))
        matrices.append((1.0 - STRENGTH) * np.eye(len(matrix)) + STRENGTH * matrix)
    centre = weights @ np.stack([codes.mean(0) for codes, _ in predicted])
    slow, fast = (matrix.astype(np.float32) for matrix in matrices)
    return LipMotion(centre.astype(np.float32), slow, fast)


def transport(source: Float64, target: Float64) -> Float64:
    """Compute the linear map between two centered Gaussians that moves values least.

    It is the optimal transport map of Peyré & Cuturi, "Computational Optimal Transport" (2019),
    remark 2.31, for covariances with RIDGE added.

    Args:
        source: Covariance [K, K].
        target: Covariance [K, K], not 0.

    Returns:
        A symmetric matrix [K, K]. Values with the covariance `source`, multiplied by it, have the
        covariance `target`.
    """
    ridge = RIDGE * np.trace(target) / len(target) * np.eye(len(target))
    root = _root(source + ridge)
    inverse = np.linalg.inv(root)
    return np.asarray(inverse @ _root(root @ (target + ridge) @ root) @ inverse)


def _root(matrix: Float64) -> Float64:
    """Return the symmetric square root of a positive matrix [K, K]."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)


def _covariance(codes: Float64) -> Float64:
    """Return the covariance [K, K] of codes [n, K]."""
    return np.atleast_2d(np.cov(codes.T))


def _bands(codes: Float64) -> tuple[Float64, Float64]:
    """Split codes [n, K] into slow and fast motion, [n, K] each."""
    slow = _RunningMean().of(codes)
    return slow, codes - slow


def _multiplied(values: Float64, matrix: Float32) -> Float64:
    """Multiply rows [n, K] by a matrix [K, K]: not by BLAS, whose last digits depend on n."""
    return np.asarray((values[:, None, :] * matrix).sum(2))
