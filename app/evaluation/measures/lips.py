"""How lips move, from landmark tracks: against the real ones, in time, when closed, in silence.

Landmarks are mediapipe's 478 points in pixels, [N, 478, 2 or 3], at 25 frames a second; frames are
their numbers, rising, maybe with gaps. An aperture is the inner lips' gap over the distance of the
outer eye corners (face.lip_aperture), which neither the image's size nor a moving head changes.
docs/measures.md: how to read the figures.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import convolve1d

from talkhead.app.evaluation.measures import image as metrics
from talkhead.app.evaluation.measures.image import Points
from talkhead.app.evaluation.results import LipMetrics, summarize
from talkhead.face import LIPS, lip_aperture
from talkhead.preprocess.av_sync import peak_index
from talkhead.types import FRAME_RATE, Bool, Float64, Int

Values = npt.NDArray[np.floating[Any]]
"""[N] one value a frame."""

CLOSED = 0.02
"""Lips with a smaller aperture are closed."""
MOVES = 0.02
"""A smoothed aperture that changes by more than this and back again is a mouth that moves."""
STANDS_OPEN = 0.1
"""Lips with a larger aperture are open though nothing is said; breathing people part them to 0.09."""
GUARD_FRAMES = round(0.2 * FRAME_RATE)
"""Silence is judged where nothing is heard so long before and after."""
MIN_SILENT = 10
"""Frames of silence that a share is given for."""
STILL = 0.15
"""A mouth whose aperture spreads by less than this share of the real one's does not move: what varies
is the turning of the head, which goes with speech and would pass for timing."""
MIN_COMMON = FRAME_RATE
"""Frames that two tracks need in common at a lag."""
MIN_CORRELATION = 0.3
"""Tracks that correlate less at every lag have nothing to be late with."""


def lip_metrics(
    frames: Int, made: Points, real: Points, n_lost: int = 0, silent: Bool | None = None
) -> LipMetrics:
    """Figures of made lips against the real ones of the same frames.

    frames: [N] numbers of the frames with a face in both. made, real: [N, 478, 2 or 3] pixels of
    the source. n_lost: frames with a face in the real one only. silent: [N] bool, nothing is
    said; None when unknown. Figures that are undefined are NaN, as are those of timing (correlation,
    lag, closures at the real rate) where the made mouth is STILL.
    """
    distance = metrics.lmd(made, real)
    leak, n_silent = (None, 0) if silent is None else silence_leak(made, frames, silent)
    own, true = lip_aperture(made), lip_aperture(real)
    seen = len(frames) > 0
    spread = float(own.std() / true.std()) if seen and true.std() else math.nan
    alive = spread >= STILL
    return LipMetrics(
        n_tracked=len(frames),
        n_lost=n_lost,
        lmd_px=summarize(distance, less_is_better=True),
        lmd_eyes=float(distance.mean() / metrics.eye_distance(real).mean()) if seen else math.nan,
        aperture_correlation=metrics.correlation(own, true) if alive else math.nan,
        aperture_lag_ms=aperture_lag_ms(own, true, frames) if alive else math.nan,
        aperture_spread=spread,
        closure_f1=closure_f1(own, true),
        closure_f1_at_rate=closure_f1_at_rate(own, true) if alive else math.nan,
        jitter_ratio=metrics.jitter_ratio(made[:, list(LIPS)], real[:, list(LIPS)], frames),
        silence_leak=leak,
        n_silent=n_silent,
    )


# ------------------------------------------------------------------------------ in time


def aperture_lag_ms(made: Values, real: Values, frames: Int, max_lag: int = 10) -> float:
    """How late made apertures are: the lag in ms at which they correlate best, + is later.

    made, real: [N] apertures of frames [N]. The best of the whole lags within max_lag frames,
    refined by the parabola through its neighbours. NaN where the best is at the end of the range, and
    where no lag has MIN_COMMON frames in common and correlates by MIN_CORRELATION.
    """
    if not len(frames):
        return math.nan
    lags = range(-max_lag, max_lag + 1)
    ours, theirs = (_dense(values, frames, max_lag) for values in (made, real))
    scores = np.array([_lagged_correlation(ours, theirs, lag) for lag in lags])
    if not (scores >= MIN_CORRELATION).any():
        return math.nan
    best = peak_index(scores)
    return math.nan if best is None else (best - max_lag) * 1000 / FRAME_RATE


def _dense(values: Values, frames: Int, margin: int) -> Float64:
    """Values on every frame number from the first to the last and beyond, NaN where unknown."""
    track = np.full(int(frames[-1] - frames[0]) + 1 + 2 * margin, np.nan)
    track[frames - frames[0] + margin] = values
    return track


def _lagged_correlation(made: Float64, real: Float64, lag: int) -> float:
    """Pearson's r of what was made lag frames later than the real; NaN for too few frames."""
    later = np.roll(made, -lag)  # what wraps around are margins, which are NaN
    both = np.isfinite(later) & np.isfinite(real)
    return metrics.correlation(later[both], real[both]) if both.sum() >= MIN_COMMON else math.nan


# ------------------------------------------------------------------------------- closed


def closure_f1(made: Values, real: Values, threshold: float = CLOSED) -> float:
    """F1 score of the closed frames found: apertures [N] under a threshold, in both.

    0 when none is found, NaN when the real lips never close.
    """
    closes, closed = made < threshold, real < threshold
    if not closed.any():
        return math.nan
    return float(2 * (closes & closed).sum() / (closes.sum() + closed.sum()))


def closure_f1_at_rate(made: Values, real: Values) -> float:
    """closure_f1 when made lips count as closed in as many frames as the real ones are.

    The threshold of what is made is moved, that of the real stays CLOSED: so lips that are timid
    but in time score well, and what has no idea scores the real lips' rate of closure. Where
    equal apertures [N] straddle the threshold, each of them counts in part, as if drawn by lot.
    NaN when the real lips never close.
    """
    closed = real < CLOSED
    n_closed = int(closed.sum())
    if not n_closed:
        return math.nan
    threshold = np.sort(made)[n_closed - 1]
    below, tied = made < threshold, made == threshold
    found = (below & closed).sum() + (n_closed - below.sum()) * closed[tied].mean()
    return float(found / n_closed)


# ---------------------------------------------------------------------------- in silence


def silence_leak(landmarks: Points, frames: Int, silent: Bool) -> tuple[float | None, int]:
    """Share of the silent frames in which the mouth moves or stands open, and their number.

    landmarks: [N, 478, 2 or 3] of frames [N]. silent: [N] bool. A frame counts when it and all
    within GUARD_FRAMES of it are there and silent: lips open before the first sound and close
    after the last. In it the mouth moves if, within these frames, the aperture (filtered by
    [1, 2, 1] / 4, against the tracker's noise) rises by more than MOVES and falls by more than that
    again, or falls and rises: one breath, which parts the lips, is no movement, a syllable is. It
    stands open if the aperture exceeds STANDS_OPEN. None for fewer than MIN_SILENT frames.
    """
    width = 2 * GUARD_FRAMES + 1
    if len(frames) < width:
        return None, 0
    whole = frames[width - 1 :] - frames[: -width + 1] == width - 1
    counted = whole & sliding_window_view(silent, width).all(-1)
    n_silent = int(counted.sum())
    if n_silent < MIN_SILENT:
        return None, n_silent
    windows = sliding_window_view(lip_aperture(landmarks), width)[counted]
    smooth = convolve1d(windows, [0.25, 0.5, 0.25], mode="nearest")
    moves = np.maximum(_there_and_back(smooth), _there_and_back(-smooth)) > MOVES
    return float((moves | (windows[:, GUARD_FRAMES] > STANDS_OPEN)).mean()), n_silent


def _there_and_back(windows: Values) -> Values:
    """By how much values rise and then fall again, [n], in windows [n, T] of time."""
    before = np.minimum.accumulate(windows, axis=1)
    after = np.minimum.accumulate(windows[:, ::-1], axis=1)[:, ::-1]
    return np.asarray((windows - np.maximum(before, after)).max(1))
