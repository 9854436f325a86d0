from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from talkhead.progress import (
    BarProgress,
    JsonProgress,
    NumberedProgress,
    Progress,
    SilentProgress,
    make_progress,
)


class Clock:
    """A clock that advances on request."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def bars(*, terminal: bool) -> tuple[BarProgress, io.StringIO]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100, _environ={})
    return BarProgress(console), stream


def test_json_lines_give_the_state_and_the_time_left() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = JsonProgress(stream, clock)
    with progress.step("Tracking faces", total=10, done=4) as step:
        step.advance()
        clock.now += 2
        step.detail("no face in 1 frame")
        step.advance()
        step.advance(4)
    progress.message("hello")
    assert events(stream) == [
        {"event": "start", "step": "Tracking faces", "total": 10, "done": 4},
        {
            "event": "advance",
            "step": "Tracking faces",
            "done": 6,
            "total": 10,
            "elapsed_s": 2.0,
            "left_s": 4.0,
            "detail": "no face in 1 frame",
        },
        {
            "event": "finish",
            "step": "Tracking faces",
            "done": 10,
            "total": 10,
            "elapsed_s": 2.0,
            "left_s": 0.0,
            "detail": "no face in 1 frame",
        },
        {"event": "message", "text": "hello"},
    ]


def test_json_lines_of_a_skipped_and_a_failed_step() -> None:
    stream = io.StringIO()
    progress = JsonProgress(stream)
    with progress.step("One") as step:
        step.skip("up to date")
    with pytest.raises(KeyboardInterrupt), progress.step("Two"):
        raise KeyboardInterrupt
    assert events(stream)[1::2] == [
        {"event": "skip", "step": "One", "reason": "up to date"},
        {"event": "fail", "step": "Two", "error": "KeyboardInterrupt"},
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_show_each_step_once_it_ended(terminal: bool) -> None:
    progress, stream = bars(terminal=terminal)
    with progress.step("Outer", total=2) as outer:
        with progress.step("Inner", total=None) as inner:
            inner.skip("up to date")
        outer.advance(2)
    progress.message("done [with] this")
    text = stream.getvalue()
    assert "Outer" in text
    assert "Inner" in text
    assert "up to date" in text
    assert "2/2" in text
    assert "done [with] this" in text


@pytest.mark.parametrize(
    ("error", "word"), [(ValueError, "failed"), (KeyboardInterrupt, "interrupted")]
)
def test_bars_close_on_exceptions_and_can_continue(error: type[BaseException], word: str) -> None:
    progress, stream = bars(terminal=True)
    with pytest.raises(error), progress.step("Outer"), progress.step("Broken", total=9):
        raise error
    assert word in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[?25h")  # the cursor is shown again
    with progress.step("Next", total=3) as step:
        step.advance()
    assert "3/3" in stream.getvalue()


def test_silent_progress_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress: Progress = SilentProgress()
    with progress.step("One", total=1) as step:
        step.advance()
        step.detail("x")
        step.skip("y")
    progress.message("z")
    assert capsys.readouterr() == ("", "")


def test_progress_writes_nothing_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    for style in ("bars", "json"):
        progress = make_progress(style)  # type: ignore[arg-type]
        with progress.step("One", total=1) as step:
            step.advance()
        progress.message("hello")
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "One" in captured.err
        assert "hello" in captured.err


def test_steps_show_their_number_and_the_total() -> None:
    stream = io.StringIO()
    progress = NumberedProgress(JsonProgress(stream), ["Tracking", "Cutting", "Fitting"])
    with progress.step("Cutting", total=2, done=1), progress.step("Waiting"):
        progress.message("half done")
    shown = [event.get("step") or event["text"] for event in events(stream)]
    assert shown == ["2 of 3: Cutting", "Waiting", "half done", "Waiting", "2 of 3: Cutting"]
    assert events(stream)[0] == {"event": "start", "step": "2 of 3: Cutting", "total": 2, "done": 1}


def test_a_long_message_stays_one_line() -> None:
    progress, stream = bars(terminal=False)
    progress.message("word " * 50)
    assert stream.getvalue().count("\n") == 1
