"""Expression model: how a person's motion codes follow from the coefficients of their expression.

It is fitted to the idle clip, whose frames have both. Eyes and brows depend on the coefficients of eyes
and brows, the mouth on all others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkhead.app.composer.expression_track import (
    COEFFICIENTS,
    NAMED_EXPRESSIONS,
    ExpressionTrack,
)
from talkhead.app.composer.idle_clip import IdleClip
from talkhead.app.composer.limits import limit_smoothly
from talkhead.blendshapes import BLENDSHAPES, N_BLENDSHAPES
from talkhead.errors import TalkheadError
from talkhead.types import FRAME_RATE, Float32, Float64

RANGE_PERCENT = (1.0, 99.5)
"""Percentiles of the footage that bound a person's range; the upper one includes blinks."""
TOLERANCE = 0.1
"""How far beyond the person's range a coefficient can go."""
MIN_SPREAD = 0.02
"""Standard deviations below this are treated as noise of the tracker."""
EYE_RIDGE, MOUTH_RIDGE = 0.01, 0.1
"""Regularization, in variances of a coefficient. Codes of the mouth are less linear in theirs."""
MAX_NAMED = 6
"""Number of coefficients that a message lists."""
MIN_FRAMES = 2 * FRAME_RATE
"""Shorter footage does not show how codes and coefficients are related."""
EYES = [i for i, name in enumerate(BLENDSHAPES) if name.startswith(("eye", "brow"))]
"""Coefficients of eyes and brows."""
MOUTH = [i for i in range(1, N_BLENDSHAPES) if i not in EYES]
"""All others: mouth, jaw, cheeks and nose."""


@dataclass(frozen=True)
class ExpressionModel:
    """A person's range of expressions, and the motion codes of the face for them.

    Attributes:
        usual: Median of each coefficient [52].
        low: Lower end of the person's range [52].
        high: Upper end [52].
        slopes: Change of the motion code per unit of each coefficient [52, K].
    """

    usual: Float64
    low: Float64
    high: Float64
    slopes: Float64

    @classmethod
    def from_clip(cls, clip: IdleClip) -> ExpressionModel:
        """Fit the model by ridge regression.

        Args:
            clip: The idle clip.

        Returns:
            The model.

        Raises:
            TalkheadError: The clip was made by an earlier version, or is too short.
        """
        check_controllable(clip)
        coefficients = measured(clip)
        low, high = np.percentile(coefficients, RANGE_PERCENT, axis=0)
        n_mouth, n_codes = clip.face.n_mouth, clip.face.n_codes
        slopes = np.zeros((N_BLENDSHAPES, n_codes))
        upper = clip.face.eyes
        slopes[EYES, upper] = ridge_slopes(
            coefficients[:, EYES], clip.codes[:, upper], EYE_RIDGE, MIN_SPREAD
        )
        mouth = slice(0, n_mouth)
        slopes[MOUTH, mouth] = ridge_slopes(
            coefficients[:, MOUTH], clip.codes[:, mouth], MOUTH_RIDGE, MIN_SPREAD
        )
        return cls(np.median(coefficients, axis=0), low, high, slopes)

    def limited(self, coefficients: Float64) -> Float64:
        """Limit coefficients smoothly to the person's range and TOLERANCE.

        Args:
            coefficients: [F, 52].

        Returns:
            [F, 52]; values inside the range are unchanged.
        """
        return limit_smoothly(coefficients, self.low, self.high, TOLERANCE)

    def code_changes(self, changes: Float64) -> Float32:
        """Return how much motion codes change with coefficients.

        Args:
            changes: Changes of the coefficients [F, 52].

        Returns:
            Changes of the motion codes [F, K].
        """
        return np.asarray(changes @ self.slopes, np.float32)

    def changes(
        self, track: ExpressionTrack, times: Float64, filmed: Float64
    ) -> tuple[Float64, list[str]]:
        """Return by how much an expression track changes coefficients.

        Args:
            track: The track.
            times: Times of the frames [F], seconds.
            filmed: Coefficients of the frames without the track [F, 52].

        Returns:
            Changes [F, 52], and messages about what the footage does not show.
        """
        wanted, weight = self._named(track, times)
        beyond = []
        for name in filter(COEFFICIENTS.__contains__, track.curves):
            index = BLENDSHAPES.index(name)
            level, share = track.at(name, times)
            wanted[:, index] += share * (level - wanted[:, index])
            weight[:, index] = np.maximum(weight[:, index], share)
            if (level[share > 0.0] > self.high[index] + TOLERANCE).any():
                beyond.append(name)
        notes = [self._range_message(beyond), self._missing_message(track)]
        if not (weight > 0.0).any():
            notes.append(f"the expressions begin after the end, {times[-1]:.1f} s: nothing changes")
        return weight * (self.limited(wanted) - filmed), notes

    def _named(self, track: ExpressionTrack, times: Float64) -> tuple[Float64, Float64]:
        """Return the coefficients and weights [F, 52] of the named expressions of a track."""
        wanted = np.repeat(self.usual[None], len(times), axis=0)
        weight = np.zeros_like(wanted)
        for name in filter(NAMED_EXPRESSIONS.__contains__, track.curves):
            level, share = track.at(name, times)
            for coefficient, side in NAMED_EXPRESSIONS[name].items():
                index = BLENDSHAPES.index(coefficient)
                end = self.high[index] if side > 0 else self.low[index]
                wanted[:, index] += share * level * (end - self.usual[index])
                weight[:, index] = np.maximum(weight[:, index], share)
        return wanted, weight

    def _range_message(self, beyond: list[str]) -> str:
        """Describe coefficients that were limited; "" if there are none."""
        if not beyond:
            return ""
        ends = {one: self.high[BLENDSHAPES.index(one)] for one in beyond[:MAX_NAMED]}
        listed = ", ".join(f"{one} {end:.2f}" for one, end in ends.items())
        more = f" and {len(beyond) - len(ends)} others" if len(beyond) > len(ends) else ""
        return (
            f"expressions beyond those that the footage shows are limited to {TOLERANCE:g} more than its "
            f"largest: {listed}{more}"
        )

    def _missing_message(self, track: ExpressionTrack) -> str:
        """Describe named expressions of a track that the footage does not show; "" if there are none."""
        missing = [
            name
            for name, parts in NAMED_EXPRESSIONS.items()
            if name in track.curves
            and max(self._reach(part, side) for part, side in parts.items()) < MIN_SPREAD
        ]
        return f"the footage does not show: {', '.join(missing)}. Little changes" if missing else ""

    def _reach(self, coefficient: str, side: float) -> float:
        """Return how far a coefficient goes from the usual one to the upper or lower end."""
        index = BLENDSHAPES.index(coefficient)
        ends = self.high - self.usual if side > 0 else self.usual - self.low
        return float(ends[index])


def check_controllable(clip: IdleClip) -> None:
    """Check that a person's expressions and blinks can be changed.

    Args:
        clip: The idle clip.

    Raises:
        TalkheadError: The clip was made by an earlier version, or is too short.
    """
    measured(clip)
    if len(clip) < MIN_FRAMES:
        raise TalkheadError(
            f"expressions and blinks cannot be changed: footage of {len(clip) / FRAME_RATE:.1f} s is "
            f"too short to learn this person's from. Fit at least {MIN_FRAMES / FRAME_RATE:.0f} s"
        )


def measured(clip: IdleClip) -> Float64:
    """Return the coefficients of a clip's frames.

    Args:
        clip: The clip.

    Returns:
        Coefficients [F, 52].

    Raises:
        TalkheadError: The clip was made by a version that did not keep them.
    """
    if clip.blendshapes is None:
        raise TalkheadError(
            "the identity was fitted by a version that did not keep expressions. Run the same "
            "talkhead fit again to change them"
        )
    return clip.blendshapes.astype(np.float64)


def ridge_slopes(inputs: Float64, outputs: Float32, ridge: float, least: float) -> Float64:
    """Regress outputs on inputs.

    Args:
        inputs: Inputs [F, n].
        outputs: Outputs [F, m].
        ridge: Regularization, in variances of an input.
        least: Least standard deviation of an input.

    Returns:
        Change of each output per unit of each input [n, m].
    """
    spread = np.maximum(inputs.std(axis=0), least)
    scaled = (inputs - inputs.mean(axis=0)) / spread
    centered = (outputs - outputs.mean(axis=0)).astype(np.float64)
    gram = scaled.T @ scaled / len(scaled) + ridge * np.eye(len(spread))
    return np.asarray(np.linalg.solve(gram, scaled.T @ centered / len(scaled)) / spread[:, None])
