"""Blinks: found in footage, removed, and inserted at another rate.

A blink is the change of the codes of eyes and brows relative to the straight line between the frames
before and after it. Inserted blinks are copies of the person's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import find_peaks, peak_widths

from talkhead.app.composer.expression_model import ExpressionModel, measured
from talkhead.app.composer.idle_clip import IdleClip
from talkhead.blendshapes import BLENDSHAPES
from talkhead.types import Float32, Float64

MIN_PROMINENCE = 0.4
"""Lowest blink, relative to the person's range of the coefficient, above its surroundings."""
MIN_CHANGE = 0.05
"""Smaller peaks of the coefficient are noise."""
BASE = 0.9
"""Depth below the peak at which a blink begins and ends, relative to its prominence."""
MAX_S = 0.6
"""Longest blink that is copied."""
PAD = 5
"""Frames with open eyes that are assumed beyond the ends of a clip."""
MARGIN = 1
"""Frames before and after a peak's base that belong to the blink."""
MIN_PAUSE_S = 0.8
"""Shortest time from one inserted blink to the next."""
SHAPE = 2.0
"""Shape of the gamma distribution of the times between blinks beyond MIN_PAUSE_S: 1 is random, larger
values are more regular."""
_CLOSED = [i for i, name in enumerate(BLENDSHAPES) if name.startswith("eyeBlink")]


@dataclass(frozen=True)
class Blink:
    """A blink in a clip.

    Attributes:
        first: First frame that it changes.
        codes: Change of the codes of eyes and brows [n, E].
        coefficients: Change of the coefficients [n, 52].
        is_complete: It begins and ends within the clip, and lasts no longer than one blink.
    """

    first: int
    codes: Float32
    coefficients: Float64
    is_complete: bool = True

    def __len__(self) -> int:
        return len(self.codes)


def find_blinks(clip: IdleClip, model: ExpressionModel, rate: float) -> list[Blink]:
    """Find the blinks in a clip.

    Args:
        clip: The clip.
        model: The person's expressions.
        rate: Frames per second of the clip.

    Returns:
        The blinks in order; they do not overlap.
    """
    coefficients, upper = measured(clip), clip.codes[:, clip.face.eyes]
    found = []
    for before, after in _spans(coefficients, model, rate):
        codes, change = (_deviation(values, before, after) for values in (upper, coefficients))
        is_complete = before >= 0 and after < len(clip) and after - before <= MAX_S * rate
        found.append(Blink(before + 1, codes, change, is_complete))
    return found


def _spans(coefficients: Float64, model: ExpressionModel, rate: float) -> list[tuple[int, int]]:
    """Return the frames before and after each blink, given coefficients [F, 52].

    The frame before may be -1, and the one after F. Blinks that overlap are one.
    """
    # With open eyes before the first and after the last frame, blinks that are cut there are peaks, too.
    closed = np.pad(
        coefficients[:, _CLOSED].mean(1), PAD, constant_values=model.usual[_CLOSED].mean()
    )
    size = float((model.high - model.usual)[_CLOSED].mean())
    reach, prominence = round(2 * MAX_S * rate), max(MIN_PROMINENCE * size, MIN_CHANGE)
    peaks, _ = find_peaks(closed, prominence=prominence, wlen=reach)
    _, _, starts, ends = peak_widths(closed, peaks, rel_height=BASE, wlen=reach)
    spans: list[tuple[int, int]] = []
    for start, end in zip(starts - PAD, ends - PAD, strict=True):
        before = max(int(np.floor(start)) - MARGIN, -1)
        after = min(int(np.ceil(end)) + MARGIN, len(coefficients))
        if spans and before < spans[-1][1]:
            spans[-1] = (spans[-1][0], max(after, spans[-1][1]))
        elif after - before > 1:
            spans.append((before, after))
    return spans


def _deviation(values: Float64 | Float32, before: int, after: int) -> np.ndarray:
    """Return how far values [F, n] between two frames are from the line between these, [m, n].

    Beyond the ends of the values, the line is level.
    """
    first = values[before] if before >= 0 else values[min(after, len(values) - 1)]
    last = values[after] if after < len(values) else first
    share = np.linspace(0.0, 1.0, after - before + 1)[1:-1, None].astype(values.dtype)
    return np.asarray(values[before + 1 : after] - (first + share * (last - first)))


def blink_part(blinks: Sequence[Blink], n_frames: int) -> tuple[Float32, Float64]:
    """Return the part of a clip's motion that is due to blinks.

    Args:
        blinks: The blinks of the clip; at least one.
        n_frames: Number of frames F; later ones are left out.

    Returns:
        Codes of eyes and brows [F, E], and coefficients [F, 52]; 0 between blinks.
    """
    codes = np.zeros((n_frames, blinks[0].codes.shape[1]), np.float32)
    coefficients = np.zeros((n_frames, blinks[0].coefficients.shape[1]))
    for blink in blinks:
        span = slice(blink.first, blink.first + len(blink))
        n_inside = len(codes[span])
        codes[span], coefficients[span] = blink.codes[:n_inside], blink.coefficients[:n_inside]
    return codes, coefficients


def random_blinks(
    blinks: Sequence[Blink], per_minute: float, n_frames: int, rate: float, seed: int = 0
) -> list[Blink]:
    """Distribute copies of blinks at random.

    Args:
        blinks: Blinks of the person's footage, of which the complete ones are copied.
        per_minute: Mean number per minute.
        n_frames: Number of frames.
        rate: Frames per second.
        seed: Seed of the times.

    Returns:
        Blinks at new frames, in order; they do not overlap.
    """
    own = [blink for blink in blinks if blink.is_complete]
    if per_minute == 0.0 or not own:
        return []
    rng = np.random.default_rng(seed)
    mean_s = max(60.0 / per_minute - MIN_PAUSE_S, 0.05)
    placed: list[Blink] = []
    time = rng.gamma(SHAPE, mean_s / SHAPE)
    while True:
        blink = own[int(rng.integers(len(own)))]
        first = round(time * rate)
        if placed:
            first = max(first, placed[-1].first + len(placed[-1]))
        if first + len(blink) > n_frames:
            return placed
        placed.append(Blink(first, blink.codes, blink.coefficients))
        time += MIN_PAUSE_S + rng.gamma(SHAPE, mean_s / SHAPE)
