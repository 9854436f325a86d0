"""Lip measures of tracks with known motion."""

from __future__ import annotations

import math

import numpy as np
import pytest

from talkhead.app.evaluation.measures import image as image_measures
from talkhead.app.evaluation.measures.lips import (
    CLOSED,
    GUARD_FRAMES,
    LIP_MEASURES,
    MIN_SILENT,
    OPEN_IN_SILENCE,
    LipTracks,
    aperture_lag_ms,
    closure_f1,
    closure_f1_at_rate,
    lip_results,
    silence_motion,
)
from talkhead.app.evaluation.results import plain
from talkhead.face import INNER_LIPS, OUTER_EYE_CORNERS, OUTER_LIPS, lip_aperture
from talkhead.types import Float32, Float64

EYES = 100.0


def speaking(n_frames: int, seed: int = 0) -> Float64:
    """Apertures [F] that rise and fall irregularly, as in speech, and are often closed."""
    rng = np.random.default_rng(seed)
    rough = np.convolve(rng.normal(size=n_frames + 8), np.hanning(9), "valid")
    return np.clip(0.04 + 0.05 * rough, 0.0, 0.2)


def face(apertures: Float64, size: float = EYES) -> Float32:
    """Landmarks [F, 478, 2] of a face with its eye corners `size` px apart."""
    rng = np.random.default_rng(9)
    points = np.tile(rng.uniform(0, size, (478, 2)), (len(apertures), 1, 1))
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    for lips, extra in ((OUTER_LIPS, 0.1), (INNER_LIPS, 0.0)):
        points[:, list(lips), 0] = size * (0.5 + 0.3 * np.cos(turn))
        points[:, list(lips), 1] = size * (1.0 + extra * np.sin(turn))
    gap = size * apertures[:, None] / 2
    points[:, [13, 82, 312], 1] = size - gap
    points[:, [14, 87, 317], 1] = size + gap
    points[:, list(OUTER_EYE_CORNERS), 1] = 0.0
    points[:, list(OUTER_EYE_CORNERS), 0] = [0.0, size]
    return points.astype(np.float32)


def moved(points: Float32) -> Float32:
    """The same faces in a head that shifts, rolls and approaches the camera."""
    time = np.arange(len(points))
    angle, scale = 0.3 * np.sin(time / 5), 1 + 0.4 * np.sin(time / 7)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1)
    turned = np.einsum("fij,fpj->fpi", turn.reshape(-1, 2, 2), points)
    shift = 30 * np.stack([np.sin(time / 3), np.cos(time / 4)], -1)
    return (turned * scale[:, None, None] + shift[:, None]).astype(np.float32)


# ------------------------------------------------------------------------------- results


def test_drawn_frames_are_measured_as_if_they_were_all() -> None:
    made, real = face(speaking(200, 1)), face(speaking(200))
    places = np.random.default_rng(2).integers(200, size=150)
    names = {n for n, m in LIP_MEASURES.measures.items() if not m.in_order and n != "n_silent"}
    drawn = LipTracks(np.arange(200), made, real).drawn(places)
    found = LIP_MEASURES.compute(drawn, names=names)
    expected = lip_results(np.arange(150), made[places], real[places])
    assert set(found) == names
    assert plain(found) == plain({name: expected[name] for name in names})


def test_measures_of_the_real_lips_themselves() -> None:
    real = face(speaking(200))
    results = lip_results(np.arange(200), real, real, n_lost=3, silent=np.zeros(200, bool))
    assert (results.n_tracked, results.n_lost, results.n_silent) == (200, 3, 0)
    assert results.lmd_px.mean == results.lmd_eyes == 0.0
    assert results.aperture_correlation == pytest.approx(1.0)
    assert results.aperture_lag_ms == pytest.approx(0.0, abs=1.0)
    assert results.aperture_spread == pytest.approx(1.0)
    assert results.closure_f1 == results.closure_f1_at_rate == results.jitter_ratio == 1.0
    assert results.silence_leak is None


def test_half_the_opening_is_half_the_spread() -> None:
    apertures = speaking(200)
    results = lip_results(np.arange(200), face(apertures / 2), face(apertures))
    assert results.aperture_spread == pytest.approx(0.5, abs=1e-3)
    assert results.aperture_correlation == pytest.approx(1.0, abs=1e-5)
    distance = image_measures.lmd(face(apertures / 2), face(apertures))
    assert results.lmd_px.mean == pytest.approx(distance.mean())
    assert results.lmd_eyes == pytest.approx(distance.mean() / EYES, rel=1e-5)


def test_measures_without_a_frame_are_undefined() -> None:
    nothing = np.zeros((0, 478, 2), np.float32)
    results = lip_results(np.zeros(0, np.int64), nothing, nothing, 7, np.zeros(0, bool))
    assert (results.n_tracked, results.n_lost, results.silence_leak) == (0, 7, None)
    undefined = (results.lmd_px.mean, results.lmd_eyes, results.aperture_correlation)
    timing = (results.aperture_lag_ms, results.aperture_spread, results.closure_f1)
    assert all(math.isnan(value) for value in undefined + timing)


def test_a_mouth_that_only_the_head_moves_has_no_timing() -> None:
    real = speaking(200)
    made = 0.05 + 0.05 * real  # a nod on every stress: in time, but no speech
    results = lip_results(np.arange(200), face(made), face(real))
    assert results.aperture_spread == pytest.approx(0.05, abs=1e-3)
    assert math.isnan(results.aperture_correlation)
    assert math.isnan(results.aperture_lag_ms)
    assert math.isnan(results.closure_f1_at_rate)
    assert results.closure_f1 == 0.0


# ------------------------------------------------------------------------------- in time


@pytest.mark.parametrize("lag", [-9, -3, 0, 1, 7])
def test_lag_of_a_shifted_track(lag: int) -> None:
    long = speaking(240)
    made, real = long[20 - lag : 220 - lag], long[20:220]
    found = aperture_lag_ms(made, real, np.arange(200))
    assert found == pytest.approx(40.0 * lag, abs=2.0)


@pytest.mark.parametrize("lag", [-10, 10, 14])
def test_a_lag_at_the_end_of_the_range_is_undefined(lag: int) -> None:
    long = speaking(240)
    made, real = long[20 - lag : 220 - lag], long[20:220]
    assert math.isnan(aperture_lag_ms(made, real, np.arange(200)))


def test_lag_between_frames_is_found_by_the_parabola() -> None:
    fine = np.convolve(np.random.default_rng(1).normal(size=2000), np.hanning(41), "same")
    made, real = fine[100:1900:5], fine[102:1902:5]  # 0.4 of a frame later
    assert aperture_lag_ms(made, real, np.arange(len(made))) == pytest.approx(16.0, abs=3.0)


def test_gaps_in_the_frames_do_not_shift_the_lag() -> None:
    long = speaking(300)
    made, real = long[16:296], long[20:300]
    frames = np.flatnonzero(np.random.default_rng(2).random(280) > 0.3)
    found = aperture_lag_ms(made[frames], real[frames], frames + 1000)
    assert found == pytest.approx(160.0, abs=4.0)
    closed_up = aperture_lag_ms(made[frames], real[frames], np.arange(len(frames)))
    assert abs(closed_up - 160.0) > 20.0


def test_no_lag_without_correlation_or_enough_frames() -> None:
    made, real = speaking(400, seed=3), speaking(400, seed=4)
    assert math.isnan(aperture_lag_ms(made, real, np.arange(400)))
    assert math.isnan(aperture_lag_ms(real[:20], real[:20], np.arange(20)))


# -------------------------------------------------------------------------------- closed


def test_closure_f1_by_hand() -> None:
    real = np.array([0.0, 0.01, 0.01, 0.1, 0.1, 0.1])
    made = np.array([0.0, 0.01, 0.1, 0.01, 0.1, 0.1])  # two found, one missed, one too many
    assert closure_f1(made, real) == pytest.approx(2 * 2 / (3 + 3))
    assert closure_f1(np.full(6, 0.1), real) == 0.0
    assert closure_f1(made, real, threshold=0.5) == 1.0


def test_closure_at_rate_tolerates_small_motion_and_nothing_else() -> None:
    real = speaking(300)
    reduced = 0.05 + 0.3 * real
    assert closure_f1(reduced, real) == 0.0
    assert closure_f1_at_rate(reduced, real) == 1.0
    assert closure_f1_at_rate(real[::-1], real) < 0.8


def test_closure_at_rate_of_a_still_mouth_is_chance() -> None:
    real = speaking(300)
    assert closure_f1_at_rate(np.full(300, 0.07), real) == pytest.approx((real < CLOSED).mean())


def test_ties_at_the_threshold_count_in_part() -> None:
    real = np.array([0.0, 0.0, 0.1, 0.1])
    made = np.array([0.3, 0.5, 0.5, 0.9])  # the second closure is one of two equals
    assert closure_f1_at_rate(made, real) == pytest.approx((1 + 0.5) / 2)


def test_lips_that_never_close_have_no_closures_to_find() -> None:
    real = np.full(9, 0.1)
    assert math.isnan(closure_f1(real, real))
    assert math.isnan(closure_f1_at_rate(real, real))


# ---------------------------------------------------------------------------- in silence


def silence_share(apertures: Float64) -> float:
    points = face(apertures)
    share, n_silent = silence_motion(points, np.arange(len(points)), np.ones(len(points), bool))
    assert share is not None
    assert n_silent == len(points) - 2 * GUARD_FRAMES
    return share


def test_a_resting_mouth_does_not_move_in_silence() -> None:
    noise = np.random.default_rng(5).normal(0, 0.002, 100)
    assert silence_share(np.full(100, 0.01) + np.abs(noise)) == 0.0
    assert silence_share(np.full(100, 0.08) + noise) == 0.0  # lips parted to breathe
    glitch = np.where(np.arange(100) == 50, 0.03, 0.0)  # one frame tracked badly
    assert silence_share(np.full(100, 0.03) + glitch) == 0.0


def test_a_breath_does_not_count_as_motion_but_a_syllable_does() -> None:
    time = np.arange(100)
    breath = 0.07 / (1 + np.exp(-(time - 50) / 1.5))
    assert silence_share(breath) == 0.0
    syllable = 0.01 + 0.06 * np.exp(-(((time - 50) / 2) ** 2))
    assert 0.05 < silence_share(syllable) < 0.15
    pressed = 0.07 - syllable  # closes and opens again
    assert silence_share(pressed) == pytest.approx(silence_share(syllable), abs=0.03)


def test_babbling_and_an_open_mouth_are_motion_in_silence() -> None:
    assert silence_share(0.03 + 0.025 * np.sin(np.arange(100) * 2 * np.pi / 6)) == 1.0
    assert silence_share(np.full(100, OPEN_IN_SILENCE + 0.01)) == 1.0


def test_size_and_head_motion_are_ignored() -> None:
    apertures = np.where(np.arange(120) < 60, 0.05, 0.03 + 0.03 * np.sin(np.arange(120)))
    points, silent = face(apertures), np.ones(120, bool)
    expected = silence_motion(points, np.arange(120), silent)
    assert expected[0] is not None
    assert 0.3 < expected[0] < 0.7
    for other in (moved(points), face(apertures, size=23.0), face(apertures, size=700.0)):
        assert silence_motion(other, np.arange(120), silent) == expected


def test_frames_near_speech_and_near_gaps_are_ignored() -> None:
    apertures = np.where(np.arange(100) < 40, 0.15, 0.01)  # speaks until frame 39, closes at once
    silent = np.arange(100) >= 40
    share, n_silent = silence_motion(face(apertures), np.arange(100), silent)
    assert (share, n_silent) == (0.0, 60 - 2 * GUARD_FRAMES)
    frames = np.arange(100) + np.where(np.arange(100) >= 70, 3, 0)  # three frames lost after 69
    _, n_whole = silence_motion(face(apertures), frames, silent)
    assert n_whole == (30 - 2 * GUARD_FRAMES) * 2


def test_too_little_silence_has_no_share() -> None:
    n_frames = 2 * GUARD_FRAMES + MIN_SILENT - 1
    points = face(np.full(n_frames, 0.05))
    assert silence_motion(points, np.arange(n_frames), np.ones(n_frames, bool)) == (
        None,
        MIN_SILENT - 1,
    )
    assert silence_motion(points[:3], np.arange(3), np.ones(3, bool)) == (None, 0)


def test_apertures_of_the_synthetic_face_are_as_specified() -> None:
    apertures = speaking(20)
    assert lip_aperture(face(apertures)) == pytest.approx(apertures, abs=1e-5)
