"""Lip measures of landmark tracks: distance, timing, closures, jitter and motion in silence.

Landmarks are MediaPipe's 478 points in pixels, [N, 478, 2 or 3], at 25 frames per second; `frames` are
their frame indices, ascending, possibly with gaps. An aperture is the gap of the inner lips over the
distance between the outer eye corners (`face.lip_aperture`), which neither the image's size nor a moving
head changes. docs/measures.md explains how to read the measures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import convolve1d

from talkhead.app.evaluation.measures import image as image_measures
from talkhead.app.evaluation.measures.image import Points
from talkhead.app.evaluation.measures.registry import ClipMeasures
from talkhead.app.evaluation.results import Results
from talkhead.face import LIPS, lip_aperture
from talkhead.preprocess.av_sync import peak_index
from talkhead.types import FRAME_RATE, Bool, Float64, Int

Values = npt.NDArray[np.floating[Any]]
"""[N] one value per frame."""

CLOSED = 0.02
"""Lips with a smaller aperture are closed."""
MOVES = 0.02
"""A smoothed aperture that changes by more than this and back again is a mouth that moves."""
OPEN_IN_SILENCE = 0.1
"""Lips with a larger aperture are open without speech; people who breathe part them to 0.09."""
GUARD_FRAMES = round(0.2 * FRAME_RATE)
"""Frames without speech on both sides of a frame that counts as silent."""
MIN_SILENT = 10
"""Fewer silent frames give no value."""
STILL = 0.15
"""A mouth whose aperture spreads by less than this share of the real one's does not move: what varies
is the turning of the head, which correlates with speech and would pass for timing."""
MIN_COMMON = FRAME_RATE
"""Frames that two tracks need in common at a lag."""
MIN_CORRELATION = 0.3
"""Tracks that correlate less at every lag have no lag."""

LIP_MEASURES: ClipMeasures[LipTracks] = ClipMeasures("lips", "Lips")
"""Measures of lip landmarks over time."""


@dataclass(frozen=True)
class LipTracks:
    """Landmark tracks of rendered lips and of the real ones: the input of lip measures.

    Attributes:
        frames: Frame indices [N], ascending, of the frames with a face in both tracks.
        made: Rendered landmarks [N, 478, 2 or 3], pixels of the source.
        real: Real landmarks [N, 478, 2 or 3], pixels of the source. Without real frames equal to
            `made`: then only the measures are computed that need no reference.
        n_lost: Number of frames with a face in the real track only.
        silent: Mask [N] of the frames without speech; None if unknown.
    """

    frames: Int
    made: Points
    real: Points
    n_lost: int = 0
    silent: Bool | None = None

    @cached_property
    def aperture(self) -> Values:
        """Aperture [N] of the rendered lips."""
        return lip_aperture(self.made)

    @cached_property
    def real_aperture(self) -> Values:
        """Aperture [N] of the real lips."""
        return lip_aperture(self.real)

    @cached_property
    def distance(self) -> Float64:
        """Mouth landmark distance [N] in pixels."""
        return image_measures.lmd(self.made, self.real)

    @cached_property
    def spread(self) -> float:
        """Standard deviation of the rendered aperture over the real one's; NaN if undefined."""
        own, true = self.aperture, self.real_aperture
        return float(own.std() / true.std()) if len(self.frames) and true.std() else math.nan

    def drawn(self, places: Int) -> LipTracks:
        """Select frames in any order and repeatedly, as a bootstrap does.

        Args:
            places: Positions [m] among the frames.

        Returns:
            The tracks of these frames, for measures that do not depend on the order of frames.
        """
        own, true = self.made[places], self.real[places]
        tracks = replace(self, frames=self.frames[places], made=own, real=true, silent=None)
        for name in ("aperture", "real_aperture", "distance"):  # need not be computed again
            vars(tracks)[name] = getattr(self, name)[places]
        return tracks

    @property
    def is_moving(self) -> bool:
        """True if the rendered mouth moves enough to have a timing."""
        return self.spread >= STILL

    @cached_property
    def silence(self) -> tuple[float | None, int]:
        """Result of `silence_motion`."""
        if self.silent is None:
            return None, 0
        return silence_motion(self.made, self.frames, self.silent)


def lip_results(
    frames: Int, made: Points, real: Points, n_lost: int = 0, silent: Bool | None = None
) -> Results:
    """Compute all lip measures of rendered lips against the real ones of the same frames.

    Args:
        frames: Frame indices [N] of the frames with a face in both.
        made: Rendered landmarks [N, 478, 2 or 3], pixels of the source.
        real: Real landmarks [N, 478, 2 or 3], pixels of the source.
        n_lost: Number of frames with a face in the real track only.
        silent: Mask [N] of the frames without speech; None if unknown.

    Returns:
        Value by name. Undefined values are NaN, as are those of timing (correlation, lag, closures at
        the real rate) if the rendered mouth moves less than STILL.
    """
    return LIP_MEASURES.compute(LipTracks(frames, made, real, n_lost, silent))


# ---------------------------------------------------------------- registered measures


@LIP_MEASURES.measure("n_tracked", label="tracked", digits=0, needs_reference=False)
def _n_tracked(tracks: LipTracks) -> int:
    """Number of frames with a face in the real and the rendered video."""
    return len(tracks.frames)


@LIP_MEASURES.measure("n_lost", label="lost", digits=0, needs_reference=False)
def _n_lost(tracks: LipTracks) -> int:
    """Number of frames with a face in the real video only."""
    return tracks.n_lost


@LIP_MEASURES.measure("lmd_px", label="LMD", better="less", unit="px", headline="mean")
def _lmd_px(tracks: LipTracks) -> Float64:
    """Mean distance of the lip points from the real ones.

    One value per frame, [N] pixels.
    """
    return tracks.distance


@LIP_MEASURES.measure("lmd_eyes", label="LMD / eyes", better="less", digits=4)
def _lmd_eyes(tracks: LipTracks) -> float:
    """Mean LMD over the distance of the outer eye corners."""
    if not len(tracks.frames):
        return math.nan
    return float(tracks.distance.mean() / image_measures.eye_distance(tracks.real).mean())


@LIP_MEASURES.measure("aperture_correlation", label="opening r", better="more")
def _aperture_correlation(tracks: LipTracks) -> float:
    """Correlation of the lip opening with the real one."""
    if not tracks.is_moving:
        return math.nan
    return image_measures.correlation(tracks.aperture, tracks.real_aperture)


@LIP_MEASURES.measure(
    "aperture_lag_ms",
    label="opening lag",
    better=0.0,
    unit="ms",
    digits=0,
    in_order=True,
)
def _aperture_lag_ms(tracks: LipTracks) -> float:
    """Delay of the lip opening; 0 is in time."""
    if not tracks.is_moving:
        return math.nan
    return aperture_lag_ms(tracks.aperture, tracks.real_aperture, tracks.frames)


@LIP_MEASURES.measure("aperture_spread", label="opening range", better=1.0)
def _aperture_spread(tracks: LipTracks) -> float:
    """Standard deviation of the lip opening over the real one's: 1 is real."""
    return tracks.spread


@LIP_MEASURES.measure("closure_f1", label="closures F1", better="more")
def _closure_f1(tracks: LipTracks) -> float:
    """F1 score of closed lips at a fixed threshold."""
    return closure_f1(tracks.aperture, tracks.real_aperture)


@LIP_MEASURES.measure("closure_f1_at_rate", label="closures F1, same rate", better="more")
def _closure_f1_at_rate(tracks: LipTracks) -> float:
    """F1 score of closed lips at the threshold that closes them as often as the real ones."""
    if not tracks.is_moving:
        return math.nan
    return closure_f1_at_rate(tracks.aperture, tracks.real_aperture)


@LIP_MEASURES.measure("jitter_ratio", label="jitter", better=1.0, in_order=True)
def _jitter_ratio(tracks: LipTracks) -> float:
    """Trembling of the lips over the real one's: 1 is real."""
    made, real = (points[:, list(LIPS)] for points in (tracks.made, tracks.real))
    return image_measures.jitter_ratio(made, real, tracks.frames)


@LIP_MEASURES.measure(
    "silence_leak", label="silence motion", better="real", needs_reference=False, in_order=True
)
def _silence_leak(tracks: LipTracks) -> float | None:
    """Share of the silent frames in which the mouth moves or is open."""
    return tracks.silence[0]


@LIP_MEASURES.measure("n_silent", label="silent", digits=0, needs_reference=False)
def _n_silent(tracks: LipTracks) -> int:
    """Number of frames without speech."""
    return tracks.silence[1]


# ------------------------------------------------------------------------------ timing


def aperture_lag_ms(made: Values, real: Values, frames: Int, max_lag: int = 10) -> float:
    """Find the lag at which rendered apertures correlate best with the real ones.

    The best whole lag within `max_lag` frames is refined by the parabola through its neighbors.

    Args:
        made: Rendered apertures [N].
        real: Real apertures [N].
        frames: Their frame indices [N], ascending.
        max_lag: Largest lag tested, in frames.

    Returns:
        Milliseconds, positive if the rendered mouth is late. NaN if the best lag is at the end of the
        range, or if no lag has MIN_COMMON frames in common and a correlation of MIN_CORRELATION.
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
    """Spread values [N] over all frames from the first to the last and a margin, NaN elsewhere."""
    track = np.full(int(frames[-1] - frames[0]) + 1 + 2 * margin, np.nan)
    track[frames - frames[0] + margin] = values
    return track


def _lagged_correlation(made: Float64, real: Float64, lag: int) -> float:
    """Compute Pearson's r of tracks [n] with `made` later by `lag`; NaN for too few frames."""
    later = np.roll(made, -lag)  # wraps around within the margins, which are NaN
    both = np.isfinite(later) & np.isfinite(real)
    return (
        image_measures.correlation(later[both], real[both])
        if both.sum() >= MIN_COMMON
        else math.nan
    )


# ---------------------------------------------------------------------------- closures


def closure_f1(made: Values, real: Values, threshold: float = CLOSED) -> float:
    """Compute the F1 score of the closed frames found.

    Args:
        made: Rendered apertures [N].
        real: Real apertures [N].
        threshold: Lips with a smaller aperture are closed, in both.

    Returns:
        0 if none is found; NaN if the real lips never close.
    """
    closes, closed = made < threshold, real < threshold
    if not closed.any():
        return math.nan
    return float(2 * (closes & closed).sum() / (closes.sum() + closed.sum()))


def closure_f1_at_rate(made: Values, real: Values) -> float:
    """Compute `closure_f1` with rendered lips closed in as many frames as the real ones.

    The threshold of the rendered lips is moved, that of the real ones stays CLOSED: lips that move
    too little but in time score well, and random lips score the real lips' rate of closure. Where
    equal apertures straddle the threshold, each of them counts in part, as if drawn at random.

    Args:
        made: Rendered apertures [N].
        real: Real apertures [N].

    Returns:
        The score; NaN if the real lips never close.
    """
    closed = real < CLOSED
    n_closed = int(closed.sum())
    if not n_closed:
        return math.nan
    threshold = np.sort(made)[n_closed - 1]
    below, tied = made < threshold, made == threshold
    found = (below & closed).sum() + (n_closed - below.sum()) * closed[tied].mean()
    return float(found / n_closed)


# -------------------------------------------------------------------------- silence


def silence_motion(landmarks: Points, frames: Int, silent: Bool) -> tuple[float | None, int]:
    """Compute the share of the silent frames in which the mouth moves or is open.

    A frame counts if it and all within GUARD_FRAMES of it are tracked and silent: lips open before
    the first sound and close after the last. The mouth moves if, within these frames, the aperture
    (filtered by [1, 2, 1] / 4 against the tracker's noise) rises by more than MOVES and falls by more
    than that again, or falls and rises: one breath, which parts the lips, is not a movement; a
    syllable is. It is open if the aperture exceeds OPEN_IN_SILENCE.

    Args:
        landmarks: Landmarks [N, 478, 2 or 3].
        frames: Their frame indices [N], ascending.
        silent: Mask [N] of the frames without speech.

    Returns:
        The share, None for fewer than MIN_SILENT frames, and the number of frames that count.
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
    moves = np.maximum(_rise_and_fall(smooth), _rise_and_fall(-smooth)) > MOVES
    return float((moves | (windows[:, GUARD_FRAMES] > OPEN_IN_SILENCE)).mean()), n_silent


def _rise_and_fall(windows: Values) -> Values:
    """Compute by how much values rise and then fall again, [n], in windows [n, T] of time."""
    before = np.minimum.accumulate(windows, axis=1)
    after = np.minimum.accumulate(windows[:, ::-1], axis=1)[:, ::-1]
    return np.asarray((windows - np.maximum(before, after)).max(1))
