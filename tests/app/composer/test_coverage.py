"""Mouth shapes that are far from all of the footage are reported; others are not."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from synthetic_head import N_CODES, N_MOUTH, make_clip, make_codes

from talkhead.app.composer import coverage as unseen
from talkhead.app.composer.coverage import MIN_FRAMES, coverage_warning, uncovered_mouths
from talkhead.app.composer.idle_clip import IdleClip


@pytest.fixture(scope="module")
def clip() -> IdleClip:
    return make_clip(make_codes(1000))


def test_other_footage_of_the_same_person_is_not_reported(clip: IdleClip) -> None:
    assert coverage_warning(make_codes(1500)[1000:], clip) == ""
    assert coverage_warning(clip.codes, clip) == ""


def test_far_mouths_are_counted_from_the_first(clip: IdleClip) -> None:
    codes = clip.codes[:500].copy()
    codes[100:160, 0] += 20.0
    assert np.flatnonzero(uncovered_mouths(codes, clip)).tolist() == list(range(100, 160))
    assert coverage_warning(codes, clip) == (
        "12 % of the frames need mouth shapes far from any in the idle clip (first at 4.0 s): "
        "they may look wrong"
    )


def test_a_few_frames_cause_no_message(clip: IdleClip) -> None:
    codes = clip.codes[:500].copy()
    codes[100:110, 0] += 20.0
    assert uncovered_mouths(codes, clip).sum() == 10
    assert coverage_warning(codes, clip) == ""


def test_eyes_and_body_don_t_count(clip: IdleClip) -> None:
    codes = clip.codes[:500].copy()
    codes[:, N_MOUTH:] += 20.0
    assert not uncovered_mouths(codes, clip).any()


def test_adjacent_frames_of_a_slow_clip_are_not_compared() -> None:
    """A mouth that moves steadily is NEIGHBORS + 1 steps from the nearest other moment."""
    codes = np.zeros((200, N_CODES), np.float32)
    codes[:, 0] = 0.1 * np.arange(200)
    limit = 0.1 * (unseen.NEIGHBORS + 1) * unseen.MARGIN
    line = np.zeros((2, N_CODES), np.float32)
    line[:, 0] = codes[-1, 0] + np.array([0.95, 1.05]) * limit
    assert uncovered_mouths(line, make_clip(codes)).tolist() == [False, True]


def test_a_clip_that_is_too_short_gives_no_report() -> None:
    short = make_clip(make_codes(MIN_FRAMES - 1))
    assert coverage_warning(make_codes(50) + 30.0, short) == ""


def test_comparing_in_blocks_gives_the_same_result(
    clip: IdleClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = 1.7 * make_codes(700, seed=5)
    whole = uncovered_mouths(codes, clip)
    assert 0 < whole.sum() < len(whole)
    monkeypatch.setattr(unseen, "BLOCK", 64)
    assert np.array_equal(uncovered_mouths(codes, clip), whole)


def test_an_hour_takes_little_memory(clip: IdleClip) -> None:
    codes = np.tile(clip.codes, (90, 1))
    tracemalloc.start()
    uncovered_mouths(codes, clip)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
