"""Placing lines on a timeline: examples, and properties of any plan."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkhead.app.dubbing.line_planner import OVERRUN, PlacementLimits, plan_lines
from talkhead.app.dubbing.timeline import (
    FITS,
    LATE,
    MOVED,
    STRETCHED,
    UNPLACED,
    Line,
    Placement,
    Shot,
    Timeline,
)
from talkhead.errors import TalkheadError

LENGTH_S = 20.0
Place = tuple[float, float, float]
"""Start and end of a line's place, and the duration of its speech."""


def plan(*places: Place, limits: PlacementLimits | None = None) -> tuple[Placement, ...]:
    lines = [Line(i, start, end, source=10 * i) for i, (start, end, _) in enumerate(places, 1)]
    return plan_lines(lines, [one[2] for one in places], LENGTH_S, limits).placements


def only(*places: Place, limits: PlacementLimits | None = None) -> Placement:
    return plan(*places, limits=limits)[0]


def times(placement: Placement) -> tuple[float, float, float, str]:
    values = (placement.start_s, placement.end_s, placement.speed)
    return (*(round(value, 6) for value in values), placement.status)  # type: ignore[return-value]


def test_a_line_that_fits_begins_at_its_start() -> None:
    assert times(only((2.0, 4.0, 1.5))) == (2.0, 3.5, 1.0, FITS)
    assert times(only((2.0, 4.0, 2.0))) == (2.0, 4.0, 1.0, FITS)


def test_a_longer_line_uses_the_room_after_it_first() -> None:
    following = (6.0, 7.0, 1.0)
    assert times(only((2.0, 4.0, 3.9), following)) == (2.0, 5.9, 1.0, FITS)
    # At the end of the video, no gap is needed.
    assert times(only((17.0, 18.0, 3.0))) == (17.0, 20.0, 1.0, FITS)


def test_then_it_begins_earlier() -> None:
    following = (5.0, 7.0, 1.0)
    assert times(only((2.0, 4.0, 3.3), following)) == (1.6, 4.9, 1.0, MOVED)
    # Speech before it, and the beginning of the video, limit how much.
    _, second, _ = plan((0.0, 1.8, 1.8), (2.0, 4.0, 3.0), following)
    assert times(second) == (1.9, 4.9, 1.0, MOVED)
    assert times(only((0.2, 4.0, 5.0), following)) == (0.0, 4.9, round(5 / 4.9, 6), STRETCHED)


def test_then_it_is_sped_up() -> None:
    following = (5.0, 7.0, 1.0)
    assert times(only((2.0, 4.0, 3.6), following)) == (1.5, 4.9, round(3.6 / 3.4, 6), STRETCHED)
    limit = 3.4 * 1.15
    assert only((2.0, 4.0, limit - 1e-6), following).status == STRETCHED


def test_a_line_without_room_is_reported_and_disturbs_no_other() -> None:
    first, second = plan((2.0, 4.0, 4.0), (5.0, 7.0, 2.0))
    assert (first.status, round(first.room_s, 6), first.speed) == (UNPLACED, 3.4, 1.15)
    assert times(second) == (5.0, 7.0, 1.0, FITS)
    with pytest.raises(TalkheadError) as error:
        Timeline(LENGTH_S, (first, second)).check()
    assert str(error.value).startswith(
        "1 of 2 lines do not fit, even at 1.15 times their speed. line 10: lasts 4.00 s, but 3.40 s "
        "are free. "
    )
    Timeline(LENGTH_S, (second,)).check()


def test_overruns_delay_the_lines_after_them() -> None:
    limits = PlacementLimits(overflow=OVERRUN)
    first, second, third = plan((2.0, 4.0, 4.6), (5.0, 7.0, 1.0), (12.0, 14.0, 1.0), limits=limits)
    assert times(first) == (1.5, 5.5, 1.15, STRETCHED)
    assert times(second) == (5.6, 6.6, 1.0, LATE)
    assert times(third) == (12.0, 13.0, 1.0, FITS)
    late, last = plan((16.0, 18.0, 2.0), (18.0, 20.0, 3.0), limits=limits)
    assert late.status == FITS and last.status == UNPLACED  # nothing can be after the end


def test_places_that_touch_need_no_gap() -> None:
    first, second = plan((1.0, 2.0, 1.0), (2.0, 3.0, 1.0))
    assert times(first) == (1.0, 2.0, 1.0, FITS) and times(second) == (2.0, 3.0, 1.0, FITS)


def test_speakers_overlap_only_if_asked() -> None:
    lines = [Line(1, 1.0, 3.0, "Anna"), Line(2, 3.0, 5.0, "Ben")]
    apart = plan_lines(lines, [2.8, 2.0], LENGTH_S).placements
    assert apart[0].end_s <= 3.0 and apart[0].speed > 1.0
    limits = PlacementLimits(overlaps=True)
    both = plan_lines(lines, [3.0, 2.0], LENGTH_S, limits).placements
    assert [times(one) for one in both] == [(1.0, 4.0, 1.0, FITS), (3.0, 5.0, 1.0, FITS)]


def test_each_line_needs_a_duration() -> None:
    with pytest.raises(ValueError):
        plan_lines([Line(1, 0.0, 1.0)], [], LENGTH_S)
    assert plan_lines([], [], LENGTH_S) == Timeline(LENGTH_S, ())


# ---------------------------------------------------------------------------- properties


@st.composite
def scripts(draw: st.DrawFn) -> tuple[list[Line], list[float]]:
    """Lines of two speakers whose places do not overlap, with durations."""
    steps = st.integers(0, 1500).map(lambda ms: ms / 1000)
    lines, durations, at = [], [], 0.0
    for number in range(1, draw(st.integers(1, 8)) + 1):
        start = at + draw(steps)
        at = start + 0.1 + draw(steps)
        if at > LENGTH_S:
            break
        lines.append(Line(number, start, at, draw(st.sampled_from(["Anna", "Ben"]))))
        durations.append(draw(st.integers(50, 4000)) / 1000)
    return lines, durations


LIMITS = st.builds(
    PlacementLimits,
    max_speed=st.sampled_from([1.0, 1.15, 1.7]),
    max_early_s=st.sampled_from([0.0, 0.5, 3.0]),
    gap_s=st.sampled_from([0.0, 0.1, 0.4]),
    overflow=st.sampled_from(["refuse", OVERRUN]),
    overlaps=st.booleans(),
)


@given(scripts(), LIMITS)
def test_properties_of_every_plan(
    script: tuple[list[Line], list[float]], limits: PlacementLimits
) -> None:
    lines, durations = script
    placements = plan_lines(lines, durations, LENGTH_S, limits).placements
    assert [one.line for one in placements] == lines
    for one, duration in zip(placements, durations, strict=True):
        # Nothing is cut: at its speed, the whole line is spoken.
        assert (one.end_s - one.start_s) * one.speed == pytest.approx(duration)
        assert 1.0 <= one.speed <= limits.max_speed + 1e-12
        assert one.start_s >= max(0.0, one.line.start_s - limits.max_early_s)
        shift = one.start_s - one.line.start_s
        if one.status == FITS:
            assert shift == 0.0 and one.speed == 1.0
        elif one.status == MOVED:
            assert shift < 0.0 and one.speed == 1.0
        elif one.status == STRETCHED:
            assert shift <= 0.0
        elif one.status == LATE:
            assert shift > 0.0
        if one.status != UNPLACED:
            assert one.end_s <= LENGTH_S
        if limits.overflow != OVERRUN and duration <= one.line.end_s - one.line.start_s:
            assert one.status == FITS
    spoken = [one for one in placements if one.status != UNPLACED]
    speakers = ("Anna", "Ben") if limits.overlaps else (None,)
    for speaker in speakers:
        own = [one for one in spoken if speaker in (None, one.line.speaker)]
        for before, after in pairwise(own):
            assert after.start_s >= before.end_s
            if after.start_s != after.line.start_s:
                assert after.start_s >= before.end_s + limits.gap_s - 1e-9


@given(scripts(), LIMITS, st.randoms(use_true_random=False))
def test_the_order_of_the_lines_does_not_matter(
    script: tuple[list[Line], list[float]], limits: PlacementLimits, random: Random
) -> None:
    pairs = list(zip(*script, strict=True))
    random.shuffle(pairs)
    lines, durations = [one[0] for one in pairs], [one[1] for one in pairs]
    assert plan_lines(lines, durations, LENGTH_S, limits) == plan_lines(*script, LENGTH_S, limits)


@given(scripts(), LIMITS)
def test_what_fits_without_overruns_fits_with_them(
    script: tuple[list[Line], list[float]], limits: PlacementLimits
) -> None:
    lines, durations = script
    refused = plan_lines(lines, durations, LENGTH_S, PlacementLimits()).placements
    if all(one.status != UNPLACED for one in refused):
        overrun = plan_lines(lines, durations, LENGTH_S, PlacementLimits(overflow=OVERRUN))
        assert overrun.placements == refused


# ---------------------------------------------------------------------------- shots


def test_frames_of_a_line_in_a_shot() -> None:
    placement = only((2.0, 4.0, 1.01))
    rate = Fraction(25)
    assert Shot(0, 1000).frames_of(placement, rate) == range(50, 76)
    assert Shot(60, 70).frames_of(placement, rate) == range(60, 70)
    assert not Shot(0, 50).frames_of(placement, rate)
    assert not Shot(76, 90).frames_of(placement, rate)
    ntsc = Fraction(30000, 1001)
    assert Shot(0, 1000).frames_of(placement, ntsc) == range(59, 91)
