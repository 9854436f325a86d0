"""Subtitles of dubbed lines at their places."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from talkhead.app.dubbing.line_planner import PlacementLimits, plan_lines
from talkhead.app.dubbing.line_subtitles import line_cues
from talkhead.app.dubbing.timeline import Line, Timeline
from talkhead.app.output.cue_layout import GAP_S, LINGER_S, Cue
from talkhead.app.output.subtitle_files import read_srt, write_srt

LONG = (
    "People often believe that a picture can speak, but somebody has to show it how to move. " * 2
)


def timeline(*lines: tuple[float, float, str | None]) -> Timeline:
    """Lines that fill their places."""
    made = [Line(i, start, end, text=text) for i, (start, end, text) in enumerate(lines, 1)]
    return plan_lines(made, [end - start for start, end, _ in lines], 30.0)


def test_a_short_text_is_shown_as_written() -> None:
    cues = line_cues(timeline((1.0, 3.0, "Hello,\nworld"), (10.0, 12.0, None), (20.0, 22.0, "♪")))
    assert cues == (Cue(1.0, 3.0 + LINGER_S, "Hello,\nworld"), Cue(20.0, 22.0 + LINGER_S, "♪"))


def test_subtitles_leave_when_the_next_line_begins() -> None:
    cues = line_cues(timeline((1.0, 1.2, "No"), (1.5, 3.0, "Yes"), (3.0, 29.9, "Oh")))
    assert [(cue.start_s, round(cue.end_s, 6)) for cue in cues] == [
        (1.0, 1.5 - GAP_S),
        (1.5, 3.0),
        (3.0, 30.0),
    ]


def test_they_follow_the_plan_and_not_the_file() -> None:
    lines = [Line(1, 2.0, 4.0, text="One"), Line(2, 5.0, 7.0, text="Two")]
    plan = plan_lines(lines, [3.3, 2.0], 30.0, PlacementLimits())
    assert plan.placements[0].start_s < 2.0
    assert [cue.start_s for cue in line_cues(plan)] == [one.start_s for one in plan.placements]


@pytest.mark.parametrize("max_chars", [20, 42])
def test_a_long_text_is_divided(tmp_path: Path, max_chars: int) -> None:
    cues = line_cues(timeline((5.0, 15.0, LONG), (15.2, 17.0, "Next")), max_chars)
    assert len(cues) > 3 and cues[-1].text == "Next"
    words = " ".join(cue.text for cue in cues[:-1]).split()
    assert words == LONG.split()
    assert cues[0].start_s == 5.0 and cues[-2].end_s <= 15.2
    for before, after in pairwise(cues):
        assert before.start_s < before.end_s <= after.start_s
    assert all(len(line) <= max_chars for cue in cues for line in cue.text.split("\n"))
    write_srt(tmp_path / "a.srt", cues)
    assert [cue.text for cue in read_srt(tmp_path / "a.srt")] == [cue.text for cue in cues]


def test_no_lines_have_no_subtitles() -> None:
    assert line_cues(timeline()) == line_cues(timeline((1.0, 2.0, ""))) == ()
