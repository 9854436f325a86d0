"""Lip range: predicted lips move as far as the person's own, and close as often.

Networks that were trained on a minute of speech predict the mean of all possible motions, so the
mouth opens too little and hardly ever closes, most of all with another voice. Two measures of a mouth
code are corrected, each by a monotone map from the distribution of its predicted values to that of
its tracked values in the person's own speech:

    opening    the signed gap between the inner lips, below 0 where the lips are pressed together
    width      the distance between the corners of the mouth

Before that, the mouth's parts are made to move more independently of each other, and after it, the
opening is held still between movements (`lip_motion`).

Predicted values come from other voices and, with less weight, from the frames that the networks left
out. While a line is spoken, its own past values are added. The map depends on past frames only, and it
is computed again each second on a fixed grid, so that a line in pieces gives the same codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from talkhead.encoder.predictor.lip_motion import LIP_MOTION, Hold, LipMotion, fit_lip_motion
from talkhead.face import LIP_PAIRS, MAX_CODES, OUTER_EYE_CORNERS, WORLD, FaceModel
from talkhead.tensors import Size, TensorSpec, add_prefix, check_tensors, strip_prefix
from talkhead.types import FRAME_RATE, Bool, Float32, Float64

N_LEVELS = 55
"""Number of quantiles that describe a distribution."""
LEVELS = (np.arange(N_LEVELS) + 0.5) / N_LEVELS
"""Their levels, 0 to 1."""
MEASURES = 2
"""Measures of a mouth code: opening and width, corrected in this order."""
STRENGTHS = (1.0, 0.75)
"""Share of each correction that is applied."""
SLOPES_BELOW, SLOPE_ABOVE = (0.0, 0.5), 0.5
"""Slopes of each map below the lowest quantile, and above the highest."""
TYPICAL_FRAMES = 150
"""Number of frames of a line's speech that have the same total weight as the other predicted values."""
MEMORY_FRAMES = 60 * FRAME_RATE
"""Largest number of frames of a line's speech that are kept."""
MIN_SPOKEN = 2 * FRAME_RATE
"""Smallest number of tracked frames of speech."""
MIN_PREDICTED = FRAME_RATE
"""Smallest number of predicted frames of speech, for held-out frames and for other voices; if one of
them has fewer, only the other is used.
"""
OTHERS_SHARE = 0.75
"""Weight of other voices among the predicted values; the rest is that of held-out frames."""
MIN_SPREAD = 1e-4
"""Smallest standard deviation, in eye distances, of a mouth that moves."""
CLOSED_LEVEL = 0.2
"""Level of the quantile of the opening at which the lips are closed: real lips are closed in 0.22 to
0.36 of the spoken frames.
"""
MOUTH_CORNERS = (61, 291)
"""Outer corners of the mouth, image left and right."""

MOUTH_CODES = Size("K", 1, MAX_CODES)
MAX_DIRECTION = 1e6
"""Largest change of a code by a measure's unit."""


def _order_fault(values: Tensor) -> str:
    return "" if bool((values.diff() >= 0).all()) else "holds quantiles that do not rise"


_QUANTILES = TensorSpec((MEASURES, N_LEVELS), minimum=-WORLD, maximum=WORLD, fault=_order_fault)
LIP_RANGE = "lip_range."
"""Prefix of the names of a LipRange's tensors, which packages of older versions do not have."""
TENSORS = {
    "offset": TensorSpec((MEASURES,), minimum=-WORLD, maximum=WORLD),
    "slope": TensorSpec((MEASURES, MOUTH_CODES), minimum=-WORLD, maximum=WORLD),
    "direction": TensorSpec((MEASURES, MOUTH_CODES), minimum=-MAX_DIRECTION, maximum=MAX_DIRECTION),
    "own": _QUANTILES,
    "predicted": _QUANTILES,
}
"""Shape and range of each tensor of a LipRange."""


@dataclass(frozen=True)
class LipRange:
    """Distributions of a person's lip measures, tracked and predicted; measures are in eye distances.

    Attributes:
        offset: Value of each measure for the mouth code 0, [MEASURES].
        slope: Its change by one unit of each mouth code, [MEASURES, K].
        direction: Change of the mouth code by one unit of a measure, [MEASURES, K]. That of the
            opening is how this person's mouth opens; that of the width does not change the opening.
        own: Quantiles of the tracked measures in speech, [MEASURES, N_LEVELS], at LEVELS.
        predicted: Quantiles of the predicted measures in speech, of the same shape; those of the
            width are measured with the opening corrected.
        motion: How motion is changed before its range is. None: neither motion is changed nor the
            opening held.
    """

    offset: Float32
    slope: Float32
    direction: Float32
    own: Float32
    predicted: Float32
    motion: LipMotion | None = field(default=None, kw_only=True)

    def measured(self, codes: Float64, index: int) -> Float64:
        """Measure mouth codes.

        Args:
            codes: Mouth codes [n, K].
            index: 0 for the opening, 1 for the width.

        Returns:
            [n] in eye distances.
        """
        return np.asarray(self.offset[index] + (codes * self.slope[index]).sum(1))

    def wanted(self, values: Float64, predicted: Float64, index: int) -> Float64:
        """Map a measure from the predicted to the person's own distribution.

        Args:
            values: Its values [n].
            predicted: Quantiles of the predicted distribution, [N_LEVELS].
            index: 0 for the opening, 1 for the width.

        Returns:
            [n]: piecewise linear between quantiles.
        """
        own = self.own[index]
        mapped = np.interp(values, predicted, own)
        mapped += SLOPES_BELOW[index] * np.minimum(values - predicted[0], 0.0)
        mapped += SLOPE_ABOVE * np.maximum(values - predicted[-1], 0.0)
        return np.asarray(mapped)

    def line(self) -> LineCorrection:
        """Begin the correction of a line."""
        return LineCorrection(self)

    def tensors(self) -> dict[str, Tensor]:
        """Collect what a package stores.

        Returns:
            Tensors of the shapes of TENSORS, under names that begin with LIP_RANGE, and those of the
            LipMotion, if there is one.
        """
        own = {LIP_RANGE + name: torch.from_numpy(getattr(self, name)) for name in TENSORS}
        return own if self.motion is None else own | self.motion.tensors()

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], n_mouth: int) -> LipRange:
        """Restore what `tensors` has collected.

        Args:
            tensors: Tensors of the shapes of TENSORS, under names that begin with LIP_RANGE; perhaps
                those of a LipMotion.
            n_mouth: Components of a mouth code, K.

        Returns:
            The lip range.

        Raises:
            ContentError: For tensors with other names, shapes, types or values.
        """
        moving = {k: value for k, value in tensors.items() if k.startswith(LIP_MOTION)}
        own = {k: value for k, value in tensors.items() if k not in moving}
        check_tensors(own, add_prefix(TENSORS, LIP_RANGE), {MOUTH_CODES.name: n_mouth})
        motion = LipMotion.from_tensors(moving, n_mouth) if moving else None
        values = {n: value.numpy() for n, value in strip_prefix(own, LIP_RANGE).items()}
        return cls(**values, motion=motion)


class LineCorrection:
    """Corrects the mouth codes of one line, in order."""

    def __init__(self, lips: LipRange) -> None:
        """Begin a line.

        Args:
            lips: The distributions of the person.
        """
        self._lips = lips
        self._n_done = 0
        self._past = [np.zeros(0)] * MEASURES
        self._fresh: list[list[Float64]] = [[] for _ in range(MEASURES)]
        typical = lips.predicted.astype(np.float64)
        # The quantiles at the beginning and at the end of the current second.
        self._quantiles = [(one, one) for one in typical]
        self._motion = None if lips.motion is None else lips.motion.line()
        self._hold = Hold(max(float(lips.own[0].std()), MIN_SPREAD))

    def correct(self, codes: Float32, share: Float64, spoken: Bool) -> Float32:
        """Correct the next frames; the number of frames per call does not affect the result.

        Args:
            codes: Mouth codes [n, K].
            share: To what degree each frame belongs to speech, [n] (`speech_share`). Frames whose
                share is 0 are left as they are.
            spoken: Frames with speech, [n], from which corrections of later seconds are computed.

        Returns:
            [n, K].
        """
        corrected, start = codes.astype(np.float64), 0
        while start < len(codes):
            stop = min(len(codes), start + FRAME_RATE - self._n_done % FRAME_RATE)
            part = slice(start, stop)
            self._correct_part(corrected[part], share[part], spoken[part])
            start = stop
        return corrected.astype(np.float32)

    def _correct_part(self, codes: Float64, share: Float64, spoken: Bool) -> None:
        """Correct codes [n, K], n frames of the current second, in place; share and spoken: [n]."""
        lips, first = self._lips, self._n_done % FRAME_RATE
        if self._motion is not None:
            codes += share[:, None] * (self._motion.changed(codes) - codes)
        progress = np.arange(first + 1, first + len(codes) + 1) / FRAME_RATE
        for index in range(MEASURES):
            values = lips.measured(codes, index)
            before, after = (lips.wanted(values, q, index) for q in self._quantiles[index])
            change = share * STRENGTHS[index] * (before + progress * (after - before) - values)
            codes += change[:, None] * lips.direction[index]
            self._fresh[index].append(values[spoken])
        if self._motion is not None:
            opening = lips.measured(codes, 0)
            change = share * (self._hold.held(opening) - opening)
            codes += change[:, None] * lips.direction[0]
        self._n_done += len(codes)
        if self._n_done % FRAME_RATE == 0:
            for index in range(MEASURES):
                self._remember(index, np.concatenate(self._fresh[index]))
                self._fresh[index] = []

    def _remember(self, index: int, values: Float64) -> None:
        """Add spoken values [n] of a measure, and mix the quantiles for the end of the next second."""
        past = np.concatenate([self._past[index], values])[-MEMORY_FRAMES:]
        share = len(past) / (len(past) + TYPICAL_FRAMES)
        typical = self._lips.predicted[index].astype(np.float64)
        mixed = _mixed_quantiles([(typical, 1.0 - share), (past, share)])
        self._past[index] = past
        self._quantiles[index] = (self._quantiles[index][1], mixed)


def lip_measures(face: FaceModel) -> tuple[Float64, Float64]:
    """Express opening and width as linear functions of the mouth code.

    Args:
        face: The person's face model.

    Returns:
        Their values for the code 0, [MEASURES], and their change by one unit of each mouth code,
        [MEASURES, n_mouth], in eye distances.
    """
    points = np.concatenate([face.template[None], face.basis[: face.n_mouth]]).astype(np.float64)
    left, right = OUTER_EYE_CORNERS
    eyes = np.linalg.norm(face.template[right, :2] - face.template[left, :2])
    gaps = [points[:, low, 1] - points[:, top, 1] for top, low in LIP_PAIRS]
    width = points[:, MOUTH_CORNERS[1], 0] - points[:, MOUTH_CORNERS[0], 0]
    values = np.stack([np.mean(gaps, axis=0), width]) / eyes  # [MEASURES, 1 + n_mouth]
    return values[:, 0], values[:, 1:]


def fit_lip_range(
    face: FaceModel, tracked: Float32, held_out: Float32, others: Float32
) -> LipRange | None:
    """Measure the distributions of a person's lips.

    Args:
        face: The person's face model.
        tracked: Mouth codes of training frames with speech, [n, K].
        held_out: Mouth codes predicted for speech in frames that the networks left out, [m, K].
        others: Mouth codes predicted for other people's speech, [n, K].

    Returns:
        The lip range. None if there is too little speech, or the mouth does not move.
    """
    offset, slope = lip_measures(face)
    measured = offset + tracked.astype(np.float64) @ slope.T  # [n, MEASURES]
    known: list[tuple[Float64, float]] = [
        (codes.astype(np.float64), weight)
        for codes, weight in ((held_out, 1.0 - OTHERS_SHARE), (others, OTHERS_SHARE))
        if len(codes) >= MIN_PREDICTED
    ]
    if len(tracked) < MIN_SPOKEN or not known or measured.std(0).min() < MIN_SPREAD:
        return None
    motion = fit_lip_motion(tracked, known)
    known = [(motion.line().changed(codes), weight) for codes, weight in known]
    codes, values = tracked - tracked.mean(0, dtype=np.float64), measured - measured.mean(0)
    opening = values[:, 0] @ codes / np.square(values[:, 0]).sum()
    width = np.linalg.lstsq(values, codes, rcond=None)[0][1]
    own = np.stack([_mixed_quantiles([(one, 1.0)]) for one in measured.T])
    direction = np.stack([opening, width])
    stored = (a.astype(np.float32) for a in (offset, slope, direction, own, own))
    draft = LipRange(*stored, motion=motion)
    quantiles = []
    for index in range(MEASURES):
        found = [(draft.measured(codes, index), weight) for codes, weight in known]
        quantiles.append(_mixed_quantiles(found))
        for (codes, _), (values, _) in zip(known, found, strict=True):
            change = draft.wanted(values, quantiles[-1], index) - values
            codes += change[:, None] * direction[index]
    return replace(draft, predicted=np.stack(quantiles).astype(np.float32))


def scale_motion(codes: Float32, rest: Float32, lips: LipRange | None, intensity: float) -> Float32:
    """Make the motion of the mouth larger or smaller, while closed lips stay closed.

    Motion is scaled about a closed mouth: the rest code, or, if the person rests with the mouth
    open, the rest code with the lips closed. Lips that are pressed together are not pressed more.

    Args:
        codes: Mouth codes [n, K].
        rest: Mouth code at rest, [K].
        lips: The person's lip range. None: motion is scaled about the rest code.
        intensity: Factor on the motion; 1 changes nothing.

    Returns:
        [n, K].
    """
    if intensity == 1.0:
        return codes
    whole, centre = codes.astype(np.float64), rest.astype(np.float64)
    if lips is None:
        return np.asarray(centre + intensity * (whole - centre), dtype=np.float32)
    opening = float(lips.measured(centre[None], 0)[0])
    closed = min(opening, float(np.interp(CLOSED_LEVEL, LEVELS, lips.own[0])))
    centre = centre + (closed - opening) * lips.direction[0]
    scaled = centre + intensity * (whole - centre)
    apart = lips.measured(whole, 0) - closed
    wanted = closed + np.where(apart > 0.0, intensity, min(intensity, 1.0)) * apart
    change = wanted - lips.measured(scaled, 0)
    return np.asarray(scaled + change[:, None] * lips.direction[0], dtype=np.float32)


def _mixed_quantiles(samples: Sequence[tuple[Float64, float]]) -> Float64:
    """Return quantiles [N_LEVELS] at LEVELS of a mixture of samples [n], each with its weight."""
    used = [(values, weight) for values, weight in samples if len(values)]
    values = np.concatenate([one for one, _ in used])
    weights = np.concatenate([np.full(len(one), weight / len(one)) for one, weight in used])
    order = np.argsort(values, kind="stable")
    weights = weights[order] / weights.sum()
    return np.interp(LEVELS, np.cumsum(weights) - weights / 2.0, values[order])
