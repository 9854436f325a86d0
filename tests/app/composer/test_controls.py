"""Controls of the face: the person's expressions, and their blinks."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_head import N_CODES, N_EYES, N_MOUTH, make_clip

from talkhead.app.choices import parse_blinks
from talkhead.app.composer.blinks import MIN_PAUSE_S, Blink, find_blinks, random_blinks
from talkhead.app.composer.controls import NO_BLINKS, Controls, controlled_codes
from talkhead.app.composer.expression_model import (
    EYES,
    MIN_FRAMES,
    MOUTH,
    TOLERANCE,
    ExpressionModel,
)
from talkhead.app.composer.expression_track import read_track
from talkhead.app.composer.idle_clip import IdleClip, ping_pong
from talkhead.app.composer.resampling import resampled_clip, resampled_codes
from talkhead.blendshapes import BLENDSHAPES, N_BLENDSHAPES
from talkhead.errors import TalkheadError

N, RATE = 1000, 25.0
FIRST = (100, 300, 520, 810)
"""Frames in which blinks begin."""
PROFILE = np.array([0.3, 0.9, 1.0, 0.8, 0.5, 0.25, 0.1], np.float32)
EYE_PART = slice(N_MOUTH, N_MOUTH + N_EYES)
BLINKS = [BLENDSHAPES.index(name) for name in ("eyeBlinkLeft", "eyeBlinkRight")]
SMILES = [BLENDSHAPES.index(name) for name in ("mouthSmileLeft", "mouthSmileRight")]


@pytest.fixture(scope="module")
def slopes() -> np.ndarray:
    """True change of the code per unit of each coefficient [52, K]."""
    rng = np.random.default_rng(5)
    made = np.zeros((N_BLENDSHAPES, N_CODES))
    made[EYES, EYE_PART] = rng.normal(size=(len(EYES), N_EYES))
    made[MOUTH, :N_MOUTH] = rng.normal(size=(len(MOUTH), N_MOUTH))
    made[BLINKS, N_MOUTH] = 2.0
    return made


@pytest.fixture(scope="module")
def clip(slopes: np.ndarray) -> IdleClip:
    """A face with slowly changing coefficients and four blinks."""
    rng = np.random.default_rng(6)
    times = np.arange(N)[:, None] / RATE
    waves = np.sin(times * rng.uniform(0.3, 2.0, N_BLENDSHAPES) + rng.uniform(0, 6, N_BLENDSHAPES))
    coefficients = 0.3 + 0.2 * waves
    coefficients[:, BLINKS] = 0.05 + 0.02 * waves[:, BLINKS]
    for first in FIRST:
        coefficients[first : first + len(PROFILE), BLINKS] += 0.7 * PROFILE[:, None]
    codes = (coefficients @ slopes).astype(np.float32)
    return make_clip(codes, coefficients.astype(np.float32))


@pytest.fixture(scope="module")
def model(clip: IdleClip) -> ExpressionModel:
    return ExpressionModel.from_clip(clip)


def controlled(
    clip: IdleClip, model: ExpressionModel, text: str | None = None, blinks: float | None = None
) -> tuple[np.ndarray, list[str]]:
    """Codes [N, K] of a resting mouth in the clip's frames."""
    track = None if text is None else read_track(text)
    spoken = np.zeros((N, N_CODES), np.float32)
    return controlled_codes(spoken, clip, np.arange(N), RATE, model, Controls(track, blinks))


# ------------------------------------------------------------------------------- model


def test_slopes_are_estimated(clip: IdleClip, model: ExpressionModel, slopes: np.ndarray) -> None:
    """A change of the coefficients along which they vary changes the code as in the footage."""
    assert clip.blendshapes is not None
    change = clip.blendshapes[FIRST[0] + 2] - clip.blendshapes[FIRST[0] - 2]
    found, true = model.code_changes(change[None].astype(np.float64))[0], change @ slopes
    assert np.abs(found - true)[EYE_PART].max() < 0.15 * np.abs(true[EYE_PART]).max()
    assert not model.slopes[EYES, :N_MOUTH].any() and not model.slopes[MOUTH, EYE_PART].any()
    assert not model.slopes[:, N_MOUTH + N_EYES :].any(), (
        "the body does not depend on the expression"
    )


@given(st.floats(-1.0, 2.0))
def test_limits_are_smooth_and_keep_the_order(value: float) -> None:
    ends = np.full(N_BLENDSHAPES, 0.2), np.full(N_BLENDSHAPES, 0.6)
    model = ExpressionModel(np.full(N_BLENDSHAPES, 0.3), *ends, np.zeros((N_BLENDSHAPES, N_CODES)))
    near = model.limited(np.array([[value], [value + 1e-3]]) * np.ones(N_BLENDSHAPES))[:, 0]
    assert 0.2 - TOLERANCE <= near[0] <= near[1] <= 0.6 + TOLERANCE
    assert near[1] - near[0] <= 1e-3 + 1e-12
    if 0.2 <= value <= 0.6:
        assert near[0] == value


def test_named_expressions_reach_the_ends_of_the_range(
    clip: IdleClip, model: ExpressionModel
) -> None:
    """The mouth is that of the speech, so a smile is added to it."""
    codes, notes = controlled(clip, model, "smile=1")
    expected = (model.high - model.usual)[SMILES] @ model.slopes[SMILES]
    np.testing.assert_allclose(
        codes[:, :N_MOUTH], np.repeat(expected[None, :N_MOUTH], N, 0), atol=1e-5
    )
    np.testing.assert_array_equal(codes[:, N_MOUTH:], clip.codes[:, N_MOUTH:])
    assert notes == []
    half, _ = controlled(clip, model, "smile=0.5")
    np.testing.assert_allclose(half[:, :N_MOUTH], codes[:, :N_MOUTH] / 2, atol=1e-5)
    usual, _ = controlled(clip, model, "smile=0")
    np.testing.assert_allclose(usual[:, :N_MOUTH], 0.0, atol=1e-6)


def test_coefficients_are_absolute_and_limited_with_a_message(
    clip: IdleClip, model: ExpressionModel
) -> None:
    index = BLENDSHAPES.index("browInnerUp")
    codes, notes = controlled(clip, model, "browInnerUp=0.3")
    assert clip.blendshapes is not None
    change = (0.3 - clip.blendshapes[:, index].astype(np.float64))[:, None] * model.slopes[index]
    np.testing.assert_allclose(
        codes[:, EYE_PART], clip.codes[:, EYE_PART] + change[:, EYE_PART], atol=1e-5
    )
    assert notes == []
    _, notes = controlled(clip, model, "browInnerUp=1,jawOpen=1")
    assert "expressions beyond those that the footage shows are limited" in notes[0]
    assert "browInnerUp 0.5" in notes[0] and "jawOpen" in notes[0]


def test_requests_without_effect_are_reported(clip: IdleClip, model: ExpressionModel) -> None:
    _, notes = controlled(clip, model, "5000:smile=1")
    assert notes == ["the expressions begin after the end, 40.0 s: nothing changes"]
    flat = replace(model, high=model.usual, low=model.usual)
    _, notes = controlled(clip, flat, "smile=1,look_up=1")
    assert notes == ["the footage does not show: smile, look_up. Little changes"]


def test_a_coefficient_does_not_cancel_a_named_expression_before_it_begins(
    clip: IdleClip, model: ExpressionModel
) -> None:
    codes, _ = controlled(clip, model, "0:smile=1; 20:mouthSmileLeft=0.2; 30:mouthSmileLeft=-")
    plain, _ = controlled(clip, model, "smile=1")
    at = np.arange(N) / RATE
    outside = (at < 19.7) | (at > 30.3)
    np.testing.assert_allclose(codes[outside], plain[outside], atol=1e-6)
    assert np.abs(codes - plain)[(at > 20) & (at < 30)].max() > 0.1


def test_identities_of_earlier_versions_and_short_footage_are_refused(clip: IdleClip) -> None:
    with pytest.raises(TalkheadError, match="a version that did not keep expressions"):
        ExpressionModel.from_clip(make_clip(clip.codes))
    assert clip.blendshapes is not None
    short = make_clip(clip.codes[: MIN_FRAMES - 1], clip.blendshapes[: MIN_FRAMES - 1])
    with pytest.raises(TalkheadError, match="is too short to learn"):
        ExpressionModel.from_clip(short)


# ------------------------------------------------------------------------------ blinks


def test_blinks_are_found(clip: IdleClip, model: ExpressionModel) -> None:
    found = find_blinks(clip, model, RATE)
    assert len(found) == len(FIRST)
    for blink, first in zip(found, FIRST, strict=True):
        assert abs(blink.first - first) <= 2 and abs(len(blink) - len(PROFILE)) <= 4


def test_without_blinks_the_eyes_stay_open(clip: IdleClip, model: ExpressionModel) -> None:
    codes, notes = controlled(clip, model, blinks=0.0)
    changed = (codes != clip.codes)[:, EYE_PART].any(1)
    assert notes == [] and 4 * len(PROFILE) - 8 <= changed.sum() <= 4 * (len(PROFILE) + 4)
    steps = np.abs(np.diff(codes[:, N_MOUTH]))
    filmed = np.abs(np.diff(clip.codes[:, N_MOUTH]))
    assert steps.max() < 0.25 * filmed.max()


def test_blinks_at_the_ends_and_pairs_of_blinks_are_removed(clip: IdleClip) -> None:
    assert clip.blendshapes is not None
    coefficients = np.full((200, N_BLENDSHAPES), 0.05, np.float32)
    for first in (-3, 60, 66, 195):  # one is cut at each end, and two overlap
        for offset, value in enumerate(PROFILE):
            if 0 <= first + offset < 200:
                coefficients[first + offset, BLINKS] += 0.7 * value
    codes = np.zeros((200, N_CODES), np.float32)
    codes[:, N_MOUTH] = coefficients[:, BLINKS[0]]
    made = make_clip(codes, coefficients)
    model = ExpressionModel.from_clip(made)
    spoken = np.zeros((200, N_CODES), np.float32)
    still, _ = controlled_codes(spoken, made, np.arange(200), RATE, model, Controls(None, 0.0))
    assert still[:, N_MOUTH].max() < 0.25, "the lids stay open"
    assert codes[:, N_MOUTH].max() > 0.7


def test_blinks_at_another_rate_are_the_persons_own(clip: IdleClip, model: ExpressionModel) -> None:
    still, _ = controlled(clip, model, blinks=0.0)
    codes, _ = controlled(clip, model, blinks=30.0)
    added = (codes - still)[:, N_MOUTH]
    filmed = clip.codes[FIRST[0] + 2, N_MOUTH] - clip.codes[FIRST[0] - 2, N_MOUTH]
    assert added.max() == pytest.approx(filmed, rel=0.1)
    again, _ = controlled(clip, model, blinks=30.0)
    np.testing.assert_array_equal(codes, again)


@given(st.floats(0.5, 60.0), st.integers(0, 2000), st.integers(0, 50))
def test_random_blinks_do_not_overlap(per_minute: float, n_frames: int, seed: int) -> None:
    clip = make_clip(np.zeros((N, N_CODES), np.float32))
    own = [Blink(3, clip.codes[:n, EYE_PART], np.zeros((n, N_BLENDSHAPES))) for n in (5, 9)]
    placed = random_blinks(own, per_minute, n_frames, RATE, seed)
    for before, after in pairwise(placed):
        assert after.first >= before.first + len(before)
        assert after.first - before.first >= MIN_PAUSE_S * RATE - 1
    assert all(one.first >= 0 and one.first + len(one) <= n_frames for one in placed)


@pytest.mark.parametrize("per_minute", [6.0, 20.0, 40.0])
def test_the_mean_rate_is_as_requested(
    clip: IdleClip, model: ExpressionModel, per_minute: float
) -> None:
    placed = random_blinks(find_blinks(clip, model, RATE), per_minute, 60 * 1500, RATE)
    assert len(placed) / 60 == pytest.approx(per_minute, rel=0.1)


def test_footage_without_blinks(clip: IdleClip) -> None:
    assert clip.blendshapes is not None
    open_eyes = make_clip(clip.codes[:90], clip.blendshapes[:90])
    model = ExpressionModel.from_clip(open_eyes)
    spoken = np.zeros((90, N_CODES), np.float32)
    for rate, notes in ((0.0, []), (20.0, [NO_BLINKS])):
        codes, found = controlled_codes(
            spoken, open_eyes, np.arange(90), RATE, model, Controls(None, rate)
        )
        assert found == notes
        np.testing.assert_array_equal(codes[:, N_MOUTH:], open_eyes.codes[:, N_MOUTH:])


def test_blinks_are_removed_while_the_clip_plays_backward(
    clip: IdleClip, model: ExpressionModel
) -> None:
    indices = ping_pong(N, 2 * N - 2)
    spoken = np.zeros((len(indices), N_CODES), np.float32)
    codes, _ = controlled_codes(spoken, clip, indices, RATE, model, Controls(None, 0.0))
    np.testing.assert_array_equal(codes[1:N], codes[: N - 2 : -1][: N - 1])


@pytest.mark.parametrize(
    ("text", "rate"),
    [("filmed", None), ("none", 0.0), ("0", 0.0), ("1e-310", 0.0), ("12.5", 12.5), ("60", 60.0)],
)
def test_values_of_the_option(text: str, rate: float | None) -> None:
    assert parse_blinks(text) == rate


@pytest.mark.parametrize("text", ["", "often", "-1", "61", "nan", "inf"])
def test_other_values_are_refused(text: str) -> None:
    with pytest.raises(TalkheadError, match="Choose filmed, none, or a number per minute"):
        parse_blinks(text)


# -------------------------------------------------------------------------- resampling


def test_motion_is_resampled_in_time(clip: IdleClip) -> None:
    assert resampled_clip(clip, Fraction(25)) is clip
    assert resampled_codes(clip.codes, Fraction(25)) is clip.codes
    fast = resampled_clip(clip, Fraction(50))
    assert len(fast) == 2 * N
    np.testing.assert_array_equal(fast.codes[:-1:2], clip.codes)
    middle = (clip.codes[:-1] + clip.codes[1:]) / 2
    np.testing.assert_allclose(fast.codes[1:-2:2], middle, atol=1e-6)
    np.testing.assert_array_equal(resampled_codes(clip.codes, Fraction(50)), fast.codes)
    assert fast.blendshapes is not None and fast.blendshapes.shape == (2 * N, N_BLENDSHAPES)
    film = resampled_codes(clip.codes, Fraction(30000, 1001))
    assert len(film) == np.ceil(N * 30000 / 1001 / 25)
