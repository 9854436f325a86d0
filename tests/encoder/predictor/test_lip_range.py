"""Lip range: maps between known distributions, lines in pieces, silence, size of the motion."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from damage import accepted

from talkhead.encoder.predictor.lip_range import (
    CLOSED_LEVEL,
    LEVELS,
    MEASURES,
    OTHERS_SHARE,
    STRENGTHS,
    TYPICAL_FRAMES,
    LipRange,
    fit_lip_range,
    lip_measures,
    scale_motion,
)
from talkhead.encoder.predictor.rest import FADING_FRAMES, NEAR_FRAMES, speech_share
from talkhead.errors import PackageError
from talkhead.face import N_LANDMARKS, FaceModel, lip_aperture
from talkhead.types import FRAME_RATE, Bool, Float32, Float64

N_MOUTH, N_CODES = 4, 12
OPENING, WIDTH = range(MEASURES)


def make_face() -> FaceModel:
    random = np.random.default_rng(0)
    template = random.normal(size=(N_LANDMARKS, 3)).astype(np.float32)
    template[[33, 263], :2] = [[-0.5, 0.0], [0.5, 0.0]]  # eyes at distance 1, which no code moves
    basis = (0.1 * random.normal(size=(N_CODES, N_LANDMARKS, 3))).astype(np.float32)
    basis[:, [33, 263]] = 0.0
    silence = np.zeros(N_CODES, np.float32)
    return FaceModel(template, basis, N_MOUTH, np.zeros((0, 3), np.int64), silence)


FACE = make_face()
SPREAD = np.array([1.0, 0.6, 0.4, 0.2])


def make_codes(n: int, seed: int, share: float = 1.0) -> Float32:
    """Mouth codes [n, K] whose spread is a share of the person's own."""
    codes = np.random.default_rng(seed).normal(size=(n, N_MOUTH)) * SPREAD * share
    return codes.astype(np.float32)


def fit(predicted: Float32, tracked: Float32 | None = None) -> LipRange:
    """The map alone: the codes here are noise, which a held opening would not follow."""
    tracked = make_codes(3000, 1) if tracked is None else tracked
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("talkhead.encoder.predictor.lip_motion.STRENGTH", 0.0)
        lips = fit_lip_range(FACE, tracked, predicted[:0], predicted)
    assert lips is not None
    return replace(lips, motion=None)


def speech(n: int) -> Bool:
    return np.zeros(n, dtype=bool)


def opening(codes: Float32) -> Float64:
    offset, slope = lip_measures(FACE)
    return np.asarray(offset[OPENING] + codes.astype(np.float64) @ slope[OPENING])


def width(codes: Float32) -> Float64:
    offset, slope = lip_measures(FACE)
    return np.asarray(offset[WIDTH] + codes.astype(np.float64) @ slope[WIDTH])


def reach(values: Float64) -> float:
    low, high = np.percentile(values, (10, 90))
    return float(high - low)


def corrected(lips: LipRange, codes: Float32, silent: Bool | None = None) -> Float32:
    silent = speech(len(codes)) if silent is None else silent
    return lips.line().correct(codes, speech_share(silent, len(codes)), ~silent)


def test_opening_and_width_are_those_of_the_mesh() -> None:
    codes = np.pad(make_codes(50, 2), ((0, 0), (0, N_CODES - N_MOUTH)))
    points = FACE.vertices(codes)
    corners = points[:, 291, 0] - points[:, 61, 0]
    np.testing.assert_allclose(width(codes[:, :N_MOUTH]), corners, atol=1e-5)
    level = FACE.basis.copy()
    level[:, :, 0] = (
        0.0  # where lips move only up and down, the gap is the aperture, except for its sign
    )
    template = FACE.template.copy()
    template[[14, 87, 317], :2] = template[[13, 82, 312], :2] + [0.0, 5.0]
    face = replace(FACE, basis=level, template=template)
    offset, slope = lip_measures(face)
    gap = offset[OPENING] + codes[:, :N_MOUTH] @ slope[OPENING]
    np.testing.assert_allclose(gap, lip_aperture(face.vertices(codes)), atol=1e-5)


@pytest.mark.parametrize("share", [0.3, 0.7, 1.5])
def test_a_line_reaches_the_quantiles_of_the_person(share: float) -> None:
    lips, line = fit(make_codes(3000, 2, share)), make_codes(2000, 3, share)
    own = make_codes(3000, 1)
    made = corrected(lips, line)
    for level in (5, 25, 50, 75, 95):
        expected = np.percentile(opening(own), level)
        spread = reach(opening(own))
        assert np.percentile(opening(made), level) == pytest.approx(expected, abs=0.06 * spread)
    assert reach(opening(line)) == pytest.approx(share * reach(opening(own)), rel=0.1)


def test_the_width_is_corrected_in_part() -> None:
    line, own = make_codes(2000, 3, 0.4), reach(width(make_codes(3000, 1)))
    lips, found = fit(make_codes(3000, 2, 0.4)), []
    for strength in (0.0, STRENGTHS[WIDTH], 1.0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("talkhead.encoder.predictor.lip_range.STRENGTHS", (1.0, strength))
            found.append(reach(width(corrected(lips, line))) / own)
    assert found[2] == pytest.approx(1.0, rel=0.1)
    assert found[0] + 0.1 < found[1] < found[2] - 0.05


def test_the_correction_of_the_width_does_not_change_the_opening() -> None:
    lips, line = fit(make_codes(3000, 2, 0.5)), make_codes(FRAME_RATE, 3, 0.5)
    expected = lips.wanted(opening(line), lips.predicted[OPENING].astype(np.float64), OPENING)
    progress = corrected(lips, line)  # the first map is the stored one
    np.testing.assert_allclose(opening(progress), expected, atol=1e-4)
    assert np.abs(width(progress) - width(line)).max() > 0.01


def test_maps_are_monotone() -> None:
    random = np.random.default_rng(4)
    lips = fit(make_codes(500, 2, 0.5))
    values = np.linspace(-5.0, 5.0, 4001)
    for index in range(MEASURES):
        quantiles = np.sort(random.normal(size=len(LEVELS)).round(1))  # with ties
        mapped = lips.wanted(values, quantiles, index)
        assert (np.diff(mapped) >= 0.0).all()
        assert mapped[-1] - mapped[0] > 0.1


def test_equal_distributions_change_nothing() -> None:
    tracked = make_codes(3000, 1)
    lips = fit(tracked, tracked)
    np.testing.assert_allclose(lips.own[OPENING], lips.predicted[OPENING], atol=1e-6)
    # The map ends at the outermost quantiles, where changing the opening also changes the width.
    np.testing.assert_allclose(lips.own[WIDTH], lips.predicted[WIDTH], atol=3e-3)
    line = make_codes(FRAME_RATE, 3)
    inside = np.ones(FRAME_RATE, dtype=bool)
    for index, values in enumerate((opening(line), width(line))):
        inside &= (values > lips.own[index][0]) & (values < lips.own[index][-1])
    assert inside.sum() > 15
    np.testing.assert_allclose(corrected(lips, line)[inside], line[inside], atol=2e-3)


def test_lips_beyond_the_quantiles() -> None:
    """Beyond them, a wide mouth opens half as far again; a closed mouth stays as closed as the
    person's.
    """
    lips = fit(make_codes(3000, 2, 0.5))
    predicted = lips.predicted[OPENING].astype(np.float64)
    low, high = lips.own[OPENING][[0, -1]]
    beyond = np.array([predicted[0] - 1.0, predicted[-1] + 1.0])
    np.testing.assert_allclose(
        lips.wanted(beyond, predicted, OPENING), [low, high + 0.5], rtol=1e-6
    )


def test_the_quantiles_are_those_of_the_sample() -> None:
    """LEVELS are Hazen's plotting positions."""
    tracked = make_codes(997, 1)
    expected = np.quantile(opening(tracked), LEVELS, method="hazen")
    np.testing.assert_allclose(fit(tracked, tracked).own[OPENING], expected, atol=1e-5)


def test_other_voices_count_more_than_held_out_frames() -> None:
    """Their share is OTHERS_SHARE for any numbers of frames."""
    tracked, few = make_codes(3000, 1), make_codes(100, 2, 0.01)
    for n in (1000, 5000):
        many = make_codes(n, 3)
        for held_out, others, share in ((few, many, 1.0 - OTHERS_SHARE), (many, few, OTHERS_SHARE)):
            lips = fit_lip_range(FACE, tracked, held_out, others)
            assert lips is not None
            narrow = np.ptp(opening(few))
            found = np.abs(lips.predicted[OPENING] - opening(few).mean()) < narrow
            assert found.mean() == pytest.approx(share, abs=0.06)


def test_a_quiet_line_grows_to_the_person_s_range() -> None:
    lips, own = fit(make_codes(3000, 2, 0.8)), reach(opening(make_codes(3000, 1)))
    line = make_codes(8 * TYPICAL_FRAMES, 3, 0.4)
    made = opening(corrected(lips, line)) / own
    first, last = reach(made[: TYPICAL_FRAMES // 3]), reach(made[-2 * TYPICAL_FRAMES :])
    assert first < 0.75 and 0.85 < last < 1.05


def test_the_map_changes_smoothly() -> None:
    """There is no step at the times at which the map is computed again."""
    lips, seconds = fit(make_codes(3000, 2, 0.8)), 12
    line = make_codes(seconds * FRAME_RATE, 3, 0.4)
    line[1::2] = line[0]  # a recurring pose
    found = opening(corrected(lips, line))[1::2]
    assert np.ptp(found) > 0.01
    assert np.abs(np.diff(found)).max() < 0.06 * np.ptp(found)


def test_later_frames_have_no_effect() -> None:
    lips, line = fit(make_codes(500, 2, 0.5)), make_codes(200, 3, 0.5)
    other = line.copy()
    other[130:] = make_codes(70, 4, 2.0)
    np.testing.assert_array_equal(corrected(lips, line)[:130], corrected(lips, other)[:130])


@pytest.mark.parametrize("size", [1, 7, 25, 50, 60])
def test_pieces_equal_the_whole(size: int) -> None:
    lips, n = fit(make_codes(500, 2, 0.5)), 10 * FRAME_RATE
    codes, silent = make_codes(n, 3, 0.5), np.arange(n) % 70 > 50
    whole = corrected(lips, codes, silent)
    line, share = lips.line(), speech_share(silent, n)
    parts = [
        line.correct(codes[at : at + size], share[at : at + size], ~silent[at : at + size])
        for at in range(0, n, size)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_silence_is_unchanged() -> None:
    lips, n = fit(make_codes(500, 2, 0.5)), 4 * FRAME_RATE
    silent = np.zeros(n, dtype=bool)
    silent[30:80] = True
    codes = make_codes(n, 3, 0.5)
    made = corrected(lips, codes, silent)
    far = slice(30 + NEAR_FRAMES + FADING_FRAMES - 1, 80 - NEAR_FRAMES - FADING_FRAMES + 1)
    np.testing.assert_array_equal(made[far], codes[far])
    assert (made[[10, 30 + NEAR_FRAMES - 1]] != codes[[10, 30 + NEAR_FRAMES - 1]]).any()
    np.testing.assert_array_equal(corrected(lips, codes, ~speech(n)), codes)


def test_silent_frames_do_not_change_the_map() -> None:
    lips, n = fit(make_codes(500, 2, 0.5)), 8 * FRAME_RATE
    silent = np.arange(n) % 50 > 20
    codes = make_codes(n, 3, 0.5)
    other = codes.copy()
    other[silent] *= 3.0
    far = speech_share(silent, n) == 0.0
    np.testing.assert_array_equal(
        corrected(lips, codes, silent)[~silent], corrected(lips, other, silent)[~silent]
    )
    assert far.any()


def test_speech_share_fades_around_speech() -> None:
    silent = np.ones(30, dtype=bool)
    silent[14:16] = False
    ramp = np.concatenate([np.zeros(1), np.arange(1, 4) / 4, np.ones(8), np.arange(3, 0, -1) / 4])
    np.testing.assert_array_equal(speech_share(silent, 30)[7:22], ramp)
    assert not speech_share(silent, 30)[:8].any() and not speech_share(silent, 40)[22:].any()
    assert not speech_share(np.zeros(0, dtype=bool), 5).any()


def test_restored_from_tensors() -> None:
    lips = fit(make_codes(500, 2, 0.5))
    again = LipRange.from_tensors(lips.tensors(), N_MOUTH)
    line = make_codes(50, 3)
    np.testing.assert_array_equal(corrected(lips, line), corrected(again, line))


def test_a_line_is_held_and_pieces_give_the_same_codes() -> None:
    tracked, predicted = make_codes(500, 1), make_codes(500, 2, 0.5)
    lips = fit_lip_range(FACE, tracked, predicted[:0], predicted)
    assert lips is not None and lips.motion is not None
    again = LipRange.from_tensors(lips.tensors(), N_MOUTH)
    silent = np.arange(80) > 60
    share = speech_share(silent, 80)
    line, codes = again.line(), make_codes(80, 3)
    pieces = [line.correct(codes[p], share[p], ~silent[p]) for p in (slice(0, 33), slice(33, 80))]
    whole = corrected(lips, codes, silent)
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    np.testing.assert_array_equal(whole[share == 0.0], codes[share == 0.0])
    without = corrected(replace(lips, motion=None), codes, silent)
    assert np.abs(whole - without)[share == 1.0].mean() > 0.05


def test_packages_without_motion_load() -> None:
    lips = fit(make_codes(500, 2, 0.5))
    assert LipRange.from_tensors(lips.tensors(), N_MOUTH).motion is None


def test_damaged_tensors_are_refused() -> None:
    lips = fit(make_codes(500, 2, 0.5))
    assert accepted(lips.tensors(), partial(LipRange.from_tensors, n_mouth=N_MOUTH)) == set()
    falling = {**lips.tensors(), "lip_range.own": torch.from_numpy(lips.own[:, ::-1].copy())}
    with pytest.raises(PackageError, match=r"lip_range\.own holds quantiles that do not rise"):
        LipRange.from_tensors(falling, N_MOUTH)


def test_too_little_speech_gives_no_map() -> None:
    tracked, predicted = make_codes(500, 1), make_codes(500, 2)
    few = predicted[:10]
    assert fit_lip_range(FACE, tracked[:40], predicted, predicted) is None
    assert fit_lip_range(FACE, tracked, few, predicted[:0]) is None
    assert fit_lip_range(FACE, 0.0 * tracked, predicted, predicted) is None
    expected = fit_lip_range(FACE, tracked, predicted[:0], predicted)
    assert expected is not None
    for held_out, others in ((few, predicted), (predicted, few)):
        lips = fit_lip_range(FACE, tracked, held_out, others)
        assert lips is not None
        np.testing.assert_allclose(lips.predicted, expected.predicted, atol=2e-3)


# ------------------------------------------------------------------------------ intensity


@pytest.mark.parametrize("intensity", [0.0, 0.5, 1.5, 2.0])
def test_motion_is_scaled_about_closed_lips(intensity: float) -> None:
    lips, codes = fit(make_codes(500, 2, 0.5)), make_codes(300, 3)
    rest = np.array([0.5, -0.2, 0.1, 0.0], np.float32)
    made = scale_motion(codes, rest, lips, intensity)
    closed = min(opening(rest[None])[0], np.interp(CLOSED_LEVEL, LEVELS, lips.own[OPENING]))
    before, after = opening(codes) - closed, opening(made) - closed
    opened = before > 0.0
    assert 0.5 < opened.mean() < 1.0
    np.testing.assert_allclose(after[opened], intensity * before[opened], atol=1e-4)
    pressed = min(1.0, intensity) * before[~opened]
    np.testing.assert_allclose(after[~opened], pressed, atol=1e-4)
    assert reach(width(made)) == pytest.approx(intensity * reach(width(codes)), rel=0.3, abs=1e-5)


def test_an_intensity_of_1_changes_nothing() -> None:
    codes, rest = make_codes(30, 3), np.zeros(N_MOUTH, np.float32)
    for lips in (None, fit(make_codes(500, 2, 0.5))):
        np.testing.assert_array_equal(scale_motion(codes, rest, lips, 1.0), codes)


def test_without_a_lip_range_motion_is_scaled_about_rest() -> None:
    codes, rest = make_codes(30, 3), make_codes(1, 4)[0]
    np.testing.assert_allclose(
        scale_motion(codes, rest, None, 2.0) - rest, 2.0 * (codes - rest), atol=1e-5
    )
