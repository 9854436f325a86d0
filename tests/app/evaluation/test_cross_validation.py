"""Folds, coverage of the intervals, and the fair gain."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.signal import lfilter

from talkhead.app.evaluation.cross_validation import (
    FEW_FRAMES,
    MIN_FRAMES,
    Interval,
    block_bootstrap,
    contiguous_folds,
    fair_gain,
    few_frames,
    mean_gain_bootstrap,
    paired_block_bootstrap,
)
from talkhead.types import Float64, Int

# --------------------------------------------------------------------------------- folds


@pytest.mark.parametrize(("n_frames", "n_folds"), [(500, 11), (1779, 11), (80, 2)])
def test_every_frame_is_tested_once_and_not_trained_on_nearby(n_frames: int, n_folds: int) -> None:
    folds = contiguous_folds(n_frames, n_folds)
    assert np.concatenate([fold.test for fold in folds]).tolist() == list(range(n_frames))
    for fold in folds:
        learned = np.flatnonzero(fold.train)
        distance = np.abs(learned[:, None] - fold.test[None]).min(1)
        assert distance.min() == 26  # a whole second in between
        n_guard = n_frames - len(learned) - len(fold.test)
        n_inner_borders = int(fold.test[0] > 0) + int(fold.test[-1] < n_frames - 1)
        assert n_guard == 25 * n_inner_borders


def test_folds_are_equal_up_to_a_frame() -> None:
    sizes = {len(fold.test) for fold in contiguous_folds(500, 11)}
    assert sizes <= {45, 46}


def test_folds_cut_at_sentences() -> None:
    folds = contiguous_folds(7500, 11, guard_s=0.0, sentences=range(0, 7500, 75))
    assert all(fold.test[0] % 75 == 0 for fold in folds)
    assert {len(fold.test) // 75 for fold in folds} == {9, 10}
    assert sum(len(fold.test) for fold in folds) == 7500
    assert all(fold.train.sum() + len(fold.test) == 7500 for fold in folds)


def test_impossible_folds_are_refused() -> None:
    with pytest.raises(ValueError, match="1 folds"):
        contiguous_folds(100, 1)
    with pytest.raises(ValueError, match="100 frames can't be cut into 3 folds"):
        contiguous_folds(100, 3, sentences=[0, 50])


# ----------------------------------------------------------------------------- intervals


def correlated_errors(n_frames: int, seed: int, memory: float = 0.7) -> Float64:
    """Autocorrelated errors [N] of mean 0: x = memory * (x before) + noise."""
    noise = np.random.default_rng(seed).normal(size=n_frames + 100)
    return np.asarray(lfilter([1.0], [1.0, -memory], noise))[100:]


def coverage(block: int, n_frames: int, n_worlds: int = 200) -> float:
    """Share of simulations in which the interval contains the true difference, 0.3."""
    held = 0
    for world in range(n_worlds):
        b = correlated_errors(n_frames, 2 * world)
        a = 0.3 + 0.5 * b + correlated_errors(n_frames, 2 * world + 1)
        found = paired_block_bootstrap(a, b, block, n_draws=400, seed=world)
        held += found.low <= 0.3 <= found.high
    return held / n_worlds


def test_the_interval_contains_the_truth_in_95_of_100_cases() -> None:
    assert 0.91 <= coverage(block=25, n_frames=1000) <= 0.98
    assert 0.90 <= coverage(block=25, n_frames=200) <= 0.99  # eight blocks


def test_resampling_single_frames_would_not() -> None:
    assert coverage(block=1, n_frames=1000) < 0.75


def test_pairing_distinguishes_systems_with_common_errors() -> None:
    shared = 5 * correlated_errors(500, 1)
    a = shared + 0.1 + 0.01 * correlated_errors(500, 2)
    paired = paired_block_bootstrap(a, shared)
    assert paired.is_sure
    assert paired.mean == pytest.approx(0.1, abs=0.01)
    assert not paired_block_bootstrap(a, 5 * correlated_errors(500, 3)).is_sure


def test_interval_of_a_constant_difference() -> None:
    b = correlated_errors(200, 4)
    found = paired_block_bootstrap(b - 2.0, b)
    assert (found.mean, found.low, found.high) == pytest.approx((-2.0, -2.0, -2.0))
    assert found.is_sure


def test_the_same_seed_gives_the_same_interval() -> None:
    a, b = correlated_errors(300, 5), correlated_errors(300, 6)
    assert paired_block_bootstrap(a, b, seed=1) == paired_block_bootstrap(a, b, seed=1)
    assert paired_block_bootstrap(a, b, seed=1) != paired_block_bootstrap(a, b, seed=2)


def test_seeds_are_averaged_first() -> None:
    fits, b = np.stack([correlated_errors(300, s) for s in range(3)]), correlated_errors(300, 9)
    assert paired_block_bootstrap(fits, b) == paired_block_bootstrap(fits.mean(0), b)
    assert paired_block_bootstrap(b, fits).mean == pytest.approx((b - fits.mean(0)).mean())


def test_too_few_frames_give_a_mean_and_no_interval() -> None:
    found = paired_block_bootstrap(np.full(99, 1.0), np.zeros(99))
    assert found.mean == 1.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert not found.is_sure
    assert not math.isnan(paired_block_bootstrap(np.full(100, 1.0), np.zeros(100)).low)


def test_errors_of_different_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="9 and 8 frames"):
        paired_block_bootstrap(np.zeros(9), np.zeros(8))
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_block_bootstrap(np.zeros(0), np.zeros(0))


def test_an_interval_is_sure_on_either_side() -> None:
    assert Interval(1, 0.5, 1.5).is_sure
    assert Interval(-1, -1.5, -0.5).is_sure
    assert not Interval(0.1, -0.1, 0.3).is_sure


# ---------------------------------------------------------------------------------- gain


def test_fair_gain_by_hand() -> None:
    assert fair_gain(0.3, floor=0.3, baseline=2.1) == 1.0
    assert fair_gain(2.1, floor=0.3, baseline=2.1) == 0.0
    assert fair_gain(1.2, floor=0.3, baseline=2.1) == pytest.approx(0.5)
    assert fair_gain(3.0, floor=0.3, baseline=2.1) == pytest.approx(-0.5)
    assert math.isnan(fair_gain(1.0, floor=0.5, baseline=0.5))


def test_intervals_of_a_mean_are_those_of_the_paired_bootstrap() -> None:
    """Drawn from the same seed, up to rounding."""
    errors = np.abs(lfilter([1.0], [1.0, -0.7], np.random.default_rng(0).normal(size=500)))

    def mean(places: Int) -> dict[str, float]:
        return {"mean": float(errors[places].mean())}

    found = block_bootstrap(mean, 500)["mean"]
    expected = paired_block_bootstrap(errors, np.zeros(500), n_draws=1000)
    assert [found.mean, found.low, found.high] == pytest.approx(
        [expected.mean, expected.low, expected.high]
    )


def test_undefined_values_have_no_interval() -> None:
    def compute(places: Int) -> dict[str, float]:
        rare, rarer = (places < 30).any(), (places < 470).any()
        return {"rare": 1.0 if rare else math.nan, "rarer": 1.0 if rarer else math.nan}

    found = block_bootstrap(compute, 500)
    assert found["rare"].mean == 1.0 and math.isnan(found["rare"].low)
    assert found["rarer"] == Interval(1.0, 1.0, 1.0)
    assert math.isnan(block_bootstrap(compute, 99)["rarer"].low)  # three blocks


def test_few_frames_give_a_warning() -> None:
    assert few_frames(45).startswith("45 test frames (1.8 s) are too few")
    assert few_frames(FEW_FRAMES) == ""
    assert "too few for reliable results" in few_frames(MIN_FRAMES - 1)
    assert "too few" not in few_frames(MIN_FRAMES)


def test_mean_gain_weights_clips_equally() -> None:
    """Gains of 0.2 and 0.4 over floors of 0.5 and 0.0 px, on clips of different length."""
    clips = [(np.full(2000, 1.3), np.full(2000, 1.5), 0.5), (np.full(300, 0.6), np.ones(300), 0.0)]
    gain = mean_gain_bootstrap(clips)
    assert (gain.mean, gain.low, gain.high) == pytest.approx((0.3, 0.3, 0.3))


def test_mean_gain_is_significant_for_consistent_differences_only() -> None:
    random = np.random.default_rng(0)
    other = random.uniform(1.0, 2.0, (2, 600))
    better = mean_gain_bootstrap([(0.8 * other, other, 0.2), (0.9 * other, other, 0.2)])
    assert better.is_sure and better.low < better.mean < better.high
    chance = mean_gain_bootstrap([(other + random.normal(size=600), other, 0.2)])
    assert not chance.is_sure


def test_mean_gain_of_few_blocks_has_no_interval_and_unpaired_errors_are_refused() -> None:
    short = mean_gain_bootstrap([(np.full(60, 0.5), np.ones(60), 0.0)])
    assert short.mean == pytest.approx(0.5) and np.isnan(short.low)
    with pytest.raises(ValueError, match="cannot be paired"):
        mean_gain_bootstrap([(np.ones(60), np.ones(50), 0.0)])
