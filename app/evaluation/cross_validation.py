"""Compare predictors by cross-validation, with confidence intervals of their difference.

The last 1/11 of a one-minute clip is too short to distinguish two good predictors. Contiguous folds
evaluate every frame once, with a predictor that was not fitted on it, and resampling blocks of frames
instead of frames respects that neighboring errors are correlated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from talkhead.types import FRAME_RATE, Bool, Float64, Int

Values = npt.NDArray[np.floating[Any]]

CONFIDENCE = 0.95
MIN_BLOCKS = 4
"""Smallest number of blocks for an interval; fewer give no reliable one."""
MAX_UNDEFINED = 0.05
"""Largest share of the draws in which a measure may be undefined."""
FEW_FRAMES, MIN_FRAMES = 10 * FRAME_RATE, 2 * FRAME_RATE
"""Results on fewer frames than the first come with a warning, see `few_frames`; fewer than the second
are too few for a verdict."""


@dataclass(frozen=True)
class Fold:
    """One division of a clip into training and test frames.

    Attributes:
        train: Mask [F] of the frames to fit on.
        test: Frame indices [n] to evaluate on.
    """

    train: Bool
    test: Int


@dataclass(frozen=True)
class Interval:
    """A mean, or another value of a clip, and its 95 % confidence interval.

    Attributes:
        mean: The mean, or the value over all frames.
        low: Lower end; NaN with too few frames.
        high: Upper end; NaN with too few frames.
    """

    mean: float
    low: float
    high: float

    @property
    def is_sure(self) -> bool:
        """True if 0 is outside the interval."""
        return self.low > 0 or self.high < 0


def contiguous_folds(
    n_frames: int,
    n_folds: int = 11,
    guard_s: float = 1.0,
    sentences: Sequence[int] | Int | None = None,
) -> list[Fold]:
    """Divide a clip into contiguous folds; each frame is tested in one of them.

    Args:
        n_frames: Number of frames F of the clip.
        n_folds: Number of folds.
        guard_s: Seconds at both borders of the test block that are not used for training.
        sentences: First frame of each sentence of the clip, [S]; blocks begin only there. None to let
            them begin anywhere.

    Returns:
        Folds in the order of time, each with a mask [F] and frame indices [n].

    Raises:
        ValueError: There are fewer than two folds, or more folds than frames or sentences.
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
    a: Values,
    b: Values,
    block: int = FRAME_RATE,
    n_draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Compute the mean difference of the errors of two systems on the same frames.

    Seeds are averaged first, frame by frame: they are repetitions on the same frames, and the two or
    three that one can afford are too few to be resampled (three draws of three make their spread
    18 % too small). The interval therefore describes these fits on other speech; how much one fit
    differs from the next is described by the spread of the seeds' means, which should be
    reported with it.

    Circular blocks of `block` frames are drawn (Politis and Romano 1992), within which errors may be
    correlated. Differences of lip errors are correlated over about five frames (r 0.6, 0.3, 0.2,
    0.1); for blocks of ten or more, their length hardly changes the interval. The percentiles of the
    drawn means are widened as Student's t is for this number of blocks (Hesterberg 2015, Am. Stat.
    69(4), "expanded percentile interval").

    Args:
        a: Errors [N] in the order of time, or [n_seeds, N] of several fits.
        b: Errors of the other system, likewise.
        block: Frames per block.
        n_draws: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        Mean of a - b with its 95 % interval, whose ends are NaN with fewer than MIN_BLOCKS blocks.

    Raises:
        ValueError: The errors are of different frames, or there are none.
    """
    ours, theirs = (np.atleast_2d(e).mean(0, dtype=np.float64) for e in (a, b))
    n_frames = len(ours)
    if len(theirs) != n_frames or not n_frames:
        raise ValueError(f"errors of {n_frames} and {len(theirs)} frames cannot be paired")
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


def block_bootstrap(
    compute: Callable[[Int], Mapping[str, float]],
    n_frames: int,
    block: int = FRAME_RATE,
    n_draws: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Compute intervals of measures that are no means over frames, such as correlations.

    Blocks are drawn and percentiles widened as in `paired_block_bootstrap`. The measures may not
    depend on the order of the frames.

    Args:
        compute: Value of each measure by name for frames drawn with repetition, given their
            positions [m]; NaN where it is undefined. It is called with all positions first.
        n_frames: Number of frames N, in the order of time.
        block: Frames per block.
        n_draws: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        The value of each measure over all frames with its 95 % interval. Its ends are NaN with fewer
        than MIN_BLOCKS blocks, or if the value is undefined in more than MAX_UNDEFINED of the draws.
    """
    whole = compute(np.arange(n_frames))
    n_blocks = n_frames // block
    if n_blocks < MIN_BLOCKS:
        return {name: Interval(value, math.nan, math.nan) for name, value in whole.items()}
    starts = np.random.default_rng(seed).integers(n_frames, size=(n_draws, n_blocks))
    places = (starts[..., None] + np.arange(block)).reshape(n_draws, -1) % n_frames
    draws = [compute(drawn) for drawn in places]
    tail = _expanded_tail(n_blocks)
    return {
        name: _percentiles(value, np.array([one[name] for one in draws]), tail)
        for name, value in whole.items()
    }


def _percentiles(value: float, draws: Float64, tail: float) -> Interval:
    """Make an interval of a value from draws [n], of which some may be NaN."""
    undefined = np.isnan(draws)
    if math.isnan(value) or undefined.mean() > MAX_UNDEFINED:
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(draws[~undefined], (tail, 1 - tail))
    return Interval(value, float(low), float(high))


def _block_means(values: Float64, block: int) -> Float64:
    """Compute the mean of the block that begins at each value, [N]; the end wraps around."""
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values[: block - 1]]))])
    return np.asarray((sums[block:] - sums[:-block]) / block)


def _expanded_tail(n: int) -> float:
    """Compute the share of the drawn means outside the interval on either side."""
    reach = stats.t.ppf((1 - CONFIDENCE) / 2, n - 1) * math.sqrt(n / (n - 1))
    return float(stats.norm.cdf(reach))


def fair_gain(lmd: float, floor: float, baseline: float) -> float:
    """Compute the share of the way from a baseline's lip error to the codec floor.

    1 - (lmd - floor) / (baseline - floor). Over several clips the mean counts, with equal weights.

    Args:
        lmd: Lip error of the system.
        floor: Lip error of the real frames re-encoded at CRF 23.
        baseline: Lip error of the baseline.

    Returns:
        1 at the floor, below 0 if worse than the baseline; NaN if the baseline is not above the floor.
    """
    return 1.0 - (lmd - floor) / (baseline - floor) if baseline > floor else math.nan


def mean_gain_bootstrap(
    clips: Sequence[tuple[Values, Values, float]],
    block: int = FRAME_RATE,
    n_draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Compute the mean fair gain of one system over another on several clips, with equal weights.

    As in `paired_block_bootstrap`, seeds are averaged first and blocks are drawn, here within each
    clip: the interval describes other speech of these people, not other people. The percentiles are
    widened for the clip with the fewest blocks.

    Args:
        clips: For each clip the errors of the system, [N] or [n_seeds, N] in the order of time, the
            errors of the other system on the same frames, and the codec floor.
        block: Frames per block.
        n_draws: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        Mean with its 95 % interval, whose ends are NaN if a clip has fewer than MIN_BLOCKS blocks.

    Raises:
        ValueError: The errors are of different frames, or there are none.
    """
    random = np.random.default_rng(seed)
    means, draws, counts = [], [], []
    for own, other, floor in clips:
        ours, theirs = (np.atleast_2d(e).mean(0, dtype=np.float64) for e in (own, other))
        if len(ours) != len(theirs) or not len(ours):
            raise ValueError(f"errors of {len(ours)} and {len(theirs)} frames cannot be paired")
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
    """Warn of results on fewer than FEW_FRAMES test frames.

    Args:
        n_frames: Number of test frames.

    Returns:
        The warning; "" for enough frames.
    """
    if n_frames >= FEW_FRAMES:
        return ""
    if n_frames < MIN_FRAMES:
        return (
            f"{n_frames} test frames ({n_frames / FRAME_RATE:.1f} s) are too few for reliable "
            "results. Record half a minute or more, of which the last 1/11 is evaluated"
        )
    return (
        f"{n_frames} test frames ({n_frames / FRAME_RATE:.1f} s) are few: small differences may be "
        "random. Record longer, or cross-validate over folds"
    )
