"""Which of two predictors is better: folds to judge them on, and how sure the difference is.

The last 1/11 of a clip of a minute is too short to tell two good predictors apart. Contiguous folds
judge every frame once, by a predictor that has not seen it, and resampling blocks of frames, not
frames, respects that neighbouring errors are alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from talkhead.types import FRAME_RATE, Bool, Float64, Int

Numbers = npt.NDArray[np.floating[Any]]

CONFIDENCE = 0.95
MIN_BLOCKS = 4
"""Blocks that an interval is given for: from fewer it would be guesswork."""
FEW_FRAMES, MIN_FRAMES = 10 * FRAME_RATE, 2 * FRAME_RATE
"""A figure on fewer frames than the first comes with a warning, see few_frames; fewer than the second
are too few for a verdict."""


@dataclass(frozen=True)
class Fold:
    """train: [F] bool, frames to learn from. test: [n] numbers of the frames to judge on."""

    train: Bool
    test: Int


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that holds the true one in 95 of 100 cases; low and high are NaN when
    there are too few frames to say."""

    mean: float
    low: float
    high: float

    @property
    def is_sure(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


def contiguous_folds(
    n_frames: int,
    n_folds: int = 11,
    guard_s: float = 1.0,
    sentences: Sequence[int] | Int | None = None,
) -> list[Fold]:
    """Folds of a clip in time's order; each frame is judged in one of them.

    guard_s: seconds at both borders of the judged block that are not learned from. sentences: first
    frames of the clip's sentences, at the nearest of which blocks are cut; None cuts anywhere.
    Raises ValueError for fewer than two folds or more than there is something to cut for.
    """
    borders = np.linspace(0, n_frames, n_folds + 1).round().astype(np.int64)
    if sentences is not None:
        cuts = np.unique([0, *sentences, n_frames])
        borders = cuts[np.abs(cuts[None] - borders[:, None]).argmin(1)]
    if n_folds < 2 or (np.diff(borders) < 1).any():
        raise ValueError(f"{n_frames} frames can't be cut into {n_folds} folds")
    guard = round(guard_s * FRAME_RATE)
    folds = []
    for first, stop in pairwise(borders):
        train = np.ones(n_frames, dtype=bool)
        train[max(0, first - guard) : stop + guard] = False
        folds.append(Fold(train, np.arange(first, stop)))
    return folds


def paired_block_bootstrap(
    a: Numbers,
    b: Numbers,
    block: int = FRAME_RATE,
    n_draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of a - b over frames, with its 95 % interval: errors of two systems on the same frames.

    a, b: [N] errors in time's order, or [n_seeds, N] of several fits. Seeds are averaged first,
    frame by frame: they are repetitions on the same frames, and the two or three that one can
    afford are too few to be drawn from (three draws of three make their spread 18 % too small). So
    the interval tells of these fits on other speech; what one fit differs from the next is told by
    the spread of the seeds' means, which belongs beside it.

    Circular blocks of `block` frames are drawn (Politis and Romano 1992), whose errors may hang
    together as they like. Differences of lip errors do for about five frames (r 0.6, 0.3, 0.2, 0.1);
    from ten on, the blocks' length hardly changes the interval. Of the
    drawn means, percentiles are taken that lie as much further out as Student's t does for so many
    blocks (Hesterberg 2015, Am. Stat. 69(4), "expanded percentile interval"). NaN for both ends
    with fewer than MIN_BLOCKS blocks. Raises ValueError for errors of different frames or of none.
    """
    ours, theirs = (np.atleast_2d(e).mean(0, dtype=np.float64) for e in (a, b))
    n_frames = len(ours)
    if len(theirs) != n_frames or not n_frames:
        raise ValueError(f"errors of {n_frames} and {len(theirs)} frames are no pairs")
    difference = ours - theirs
    mean = float(difference.mean())
    n_blocks = n_frames // block
    if n_blocks < MIN_BLOCKS:
        return Interval(mean, math.nan, math.nan)
    starts = np.random.default_rng(seed).integers(n_frames, size=(n_draws, n_blocks))
    draws = _block_means(difference, block)[starts].mean(1)
    tail = _expanded_tail(n_blocks)
    low, high = np.quantile(draws, (tail, 1 - tail))
    return Interval(mean, float(low), float(high))


def _block_means(values: Float64, block: int) -> Float64:
    """Means of the blocks that begin at each value, [N]; the end goes on at the beginning."""
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values[: block - 1]]))])
    return np.asarray((sums[block:] - sums[:-block]) / block)


def _expanded_tail(n: int) -> float:
    """Share of the drawn means that is left out at either side."""
    reach = stats.t.ppf((1 - CONFIDENCE) / 2, n - 1) * math.sqrt(n / (n - 1))
    return float(stats.norm.cdf(reach))


def fair_gain(lmd: float, floor: float, baseline: float) -> float:
    """Share of the way from a baseline's lip error to the floor: 1 reaches it, below 0 is worse.

    1 - (lmd - floor) / (baseline - floor). floor: error of the true frames re-encoded at CRF 23.
    The mean over clips counts, each clip alike. NaN where the baseline is not above the floor.
    """
    return 1.0 - (lmd - floor) / (baseline - floor) if baseline > floor else math.nan


def mean_gain_bootstrap(
    clips: Sequence[tuple[Numbers, Numbers, float]],
    block: int = FRAME_RATE,
    n_draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean over clips, each alike, of the fair gain of one system over another, and its interval.

    clips: errors of the system, errors of the other, both [N] or [n_seeds, N] on the same frames in
    time's order, and the floor. As in paired_block_bootstrap, seeds are averaged first and blocks
    are drawn, here within each clip: the interval tells of other speech of these people, not of
    other people. Percentiles lie as far out as the clip with the fewest blocks wants it; NaN for
    both ends where one has fewer than MIN_BLOCKS. Raises ValueError for errors that are no pairs.
    """
    random = np.random.default_rng(seed)
    means, draws, counts = [], [], []
    for own, other, floor in clips:
        ours, theirs = (np.atleast_2d(e).mean(0, dtype=np.float64) for e in (own, other))
        if len(ours) != len(theirs) or not len(ours):
            raise ValueError(f"errors of {len(ours)} and {len(theirs)} frames are no pairs")
        counts.append(len(ours) // block)
        means.append(fair_gain(float(ours.mean()), floor, float(theirs.mean())))
        starts = random.integers(len(ours), size=(n_draws, max(1, counts[-1])))
        drawn = (_block_means(errors, block)[starts].mean(1) for errors in (ours, theirs))
        draws.append([fair_gain(a, floor, b) for a, b in zip(*drawn, strict=True)])
    mean, n_blocks = float(np.mean(means)), min(counts)
    if n_blocks < MIN_BLOCKS:
        return Interval(mean, math.nan, math.nan)
    tail = _expanded_tail(n_blocks)
    low, high = np.quantile(np.mean(draws, axis=0), (tail, 1 - tail))
    return Interval(mean, float(low), float(high))


def few_frames(n_frames: int) -> str:
    """A warning for figures on fewer than FEW_FRAMES test frames, "" for enough."""
    if n_frames >= FEW_FRAMES:
        return ""
    if n_frames < MIN_FRAMES:
        return (
            f"{n_frames} test frames ({n_frames / FRAME_RATE:.1f} s) are few, too short to judge: the "
            "figures are chance. Record half a minute or more, of which the last 1/11 is judged"
        )
    return (
        f"{n_frames} test frames ({n_frames / FRAME_RATE:.1f} s) are few: small differences are "
        "chance. Record longer, or compare predictors over folds"
    )
