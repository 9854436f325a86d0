"""Lip motion: covariances, the held opening, lines in pieces, packages with and without it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from damage import accepted

from talkhead.encoder.predictor import lip_motion
from talkhead.encoder.predictor.lip_motion import (
    HOLD,
    LEAD,
    LIP_MOTION,
    SMOOTHING,
    Hold,
    LipMotion,
    fit_lip_motion,
    transport,
)
from talkhead.errors import PackageError
from talkhead.types import Float32, Float64

N_MOUTH = 3


def covariance(seed: int) -> Float64:
    root = np.random.default_rng(seed).normal(size=(N_MOUTH, N_MOUTH))
    return np.asarray(root @ root.T + 0.1 * np.eye(N_MOUTH))


def make_codes(n: int, seed: int, coupled: float) -> Float64:
    """Codes [n, K] of smooth motion, of which the share `coupled` is common to all parts."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(n, 1 + N_MOUTH))
    for frame in range(1, n):
        noise[frame] = 0.8 * noise[frame - 1] + 0.6 * noise[frame]
    common, own = noise[:, :1], noise[:, 1:]
    return np.asarray(np.sqrt(coupled) * common + np.sqrt(1.0 - coupled) * own)


def fit(coupled: float = 0.9, own: float = 0.4) -> LipMotion:
    tracked = make_codes(4000, 1, own).astype(np.float32)
    return fit_lip_motion(tracked, [(make_codes(4000, 2, coupled), 1.0)])


def correlation(codes: Float64) -> float:
    return float(np.corrcoef(codes.T)[0, 1])


@pytest.fixture
def _no_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lip_motion, "RIDGE", 0.0)


@pytest.mark.usefixtures("_no_ridge")
def test_transport_gives_the_target_s_covariance() -> None:
    source, target = covariance(0), covariance(1)
    matrix = transport(source, target)
    np.testing.assert_allclose(matrix @ source @ matrix.T, target, atol=1e-9)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-9)
    assert np.linalg.eigvalsh(matrix).min() > 0.0  # no direction is reversed
    np.testing.assert_allclose(transport(source, source), np.eye(N_MOUTH), atol=1e-9)
    spreads = np.diag([1.0, 4.0, 9.0])
    np.testing.assert_allclose(transport(np.eye(3), spreads), np.diag([1.0, 2.0, 3.0]), atol=1e-9)


def test_directions_without_motion_are_not_amplified_without_limit() -> None:
    source, target = np.diag([1.0, 1e-9, 1e-9]), np.diag([1.0, 1e-3, 0.0])
    assert transport(source, target).max() < 1.1


def test_parts_that_are_predicted_together_become_more_independent() -> None:
    line = make_codes(2000, 3, 0.9)
    changed = fit().line().changed(line)
    assert correlation(make_codes(2000, 4, 0.4)) + 0.1 < correlation(changed)
    assert correlation(changed) < correlation(line) - 0.1


def test_motion_like_the_person_s_is_not_changed() -> None:
    line = make_codes(200, 3, 0.4)
    changed = fit(coupled=0.4).line().changed(line)
    np.testing.assert_allclose(changed, line, atol=0.25)


def test_slow_and_fast_motion_are_changed_each_by_its_matrix() -> None:
    eye = np.eye(N_MOUTH, dtype=np.float32)
    motion = LipMotion(np.array([1.0, 0.0, -1.0], np.float32), 2.0 * eye, 3.0 * eye)
    codes = make_codes(3, 5, 0.5)
    first = codes[0]
    second = (1.0 - SMOOTHING) * first + SMOOTHING * codes[1]
    third = (1.0 - SMOOTHING) * second + SMOOTHING * codes[2]
    slow = np.stack([first, second, third])
    expected = motion.centre + 2.0 * (slow - motion.centre) + 3.0 * (codes - slow)
    np.testing.assert_allclose(motion.line().changed(codes), expected, atol=1e-12)


def test_weights_of_the_predicted_codes_count() -> None:
    tracked = make_codes(3000, 1, 0.4).astype(np.float32)
    few, many = make_codes(3000, 2, 0.9), make_codes(3000, 3, 0.4)
    light, heavy = (
        fit_lip_motion(tracked, [(few, weight), (many, 1.0 - weight)]).slow[0, 1]
        for weight in (0.1, 0.9)
    )
    assert heavy < light - 0.05  # the more coupled the predicted motion, the more is taken out


def test_a_held_opening_follows_large_changes_and_not_small_ones() -> None:
    still = np.zeros(10)
    small, large = HOLD * np.tile([0.25, -0.25], 10), np.repeat([0.0, 3.0], 10)
    assert np.ptp(Hold(1.0).held(still)) == 0.0
    assert np.ptp(Hold(1.0).held(small)[10:]) < 0.5 * np.ptp(small)
    made = Hold(1.0).held(large)
    assert made[10] > 0.95 * 3.0  # the frame of the change itself
    assert abs(made[-1] - 3.0) < HOLD


def test_the_held_opening_by_hand() -> None:
    made = Hold(2.0).held(np.array([1.0, 2.0, 2.0]))
    change = 1.0 + LEAD
    second = 1.0 + change * change / (change + 2.0 * HOLD)
    change = 2.0 - second
    third = second + change * abs(change) / (abs(change) + 2.0 * HOLD)
    np.testing.assert_allclose(made, [1.0, second, third], atol=1e-12)


@pytest.mark.parametrize("size", [1, 7, 40])
def test_pieces_give_the_same_values(size: int) -> None:
    motion, codes = fit(), make_codes(100, 6, 0.9)
    line, hold = motion.line(), Hold(1.0)
    pieces = [codes[i : i + size] for i in range(0, 100, size)]
    changed = np.concatenate([line.changed(piece) for piece in pieces])
    np.testing.assert_array_equal(changed, motion.line().changed(codes))
    held = np.concatenate([hold.held(piece[:, 0]) for piece in pieces])
    np.testing.assert_array_equal(held, Hold(1.0).held(codes[:, 0]))


def test_stored_and_restored() -> None:
    motion = fit()
    again = LipMotion.from_tensors(motion.tensors(), N_MOUTH)
    codes = make_codes(50, 7, 0.9)
    np.testing.assert_array_equal(again.line().changed(codes), motion.line().changed(codes))
    assert accepted(motion.tensors(), partial(LipMotion.from_tensors, n_mouth=N_MOUTH)) == set()
    with pytest.raises(PackageError, match=LIP_MOTION):
        LipMotion.from_tensors(motion.tensors(), N_MOUTH + 1)


def test_one_code() -> None:
    """A face model may have a mouth of one component."""
    tracked: Float32 = make_codes(500, 1, 0.4)[:, :1].astype(np.float32)
    motion = fit_lip_motion(tracked, [(0.5 * make_codes(500, 2, 0.4)[:, :1], 1.0)])
    assert motion.slow.shape == (1, 1) and 1.2 < motion.slow[0, 0] < 1.7
