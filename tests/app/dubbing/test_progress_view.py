"""Progress display of many jobs."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from talkhead.app.dubbing.events import JobFinished, JobProgressed, JobStarted
from talkhead.app.dubbing.job import DONE, FAILED, QUEUED, Job, Task
from talkhead.app.dubbing.progress_view import (
    JsonProgressView,
    LiveProgressView,
    ProgressStats,
    ProgressView,
    clock,
    make_progress_view,
)


def make_job(number: int) -> Job:
    task = Task("line", "anna", output=str(Path("/out") / f"{number}.mp4"))
    return Job(f"job-{number}", QUEUED, task, number, "")


def play(view: ProgressView) -> None:
    """Two jobs start; one is done, one fails, is delayed and fails again."""
    for event in (
        JobStarted("job-0"),
        JobStarted("job-1"),
        JobProgressed("job-0", "Listening", 0, 1),
        JobProgressed("job-0", "Rendering", 0, 50),
        JobProgressed("job-0", "Rendering", 30, 50),
        JobProgressed("job-1", "Rendering", 750, 1500),  # resumed: 750 are done
        JobProgressed("job-1", "Rendering", 770, 1500),
        JobProgressed("job-0", "Rendering", 50, 50),
    ):
        view.handle(event)
        view.refresh()
    done = JobFinished("job-0", DONE, result={"n_frames": 50})
    view.handle(done)
    view.job_finished(make_job(0), done)
    view.job_delayed(make_job(1), JobFinished("job-1", QUEUED, "no luck", time.time() + 4.0))
    view.job_finished(make_job(1), JobFinished("job-1", FAILED, "no [red]luck"))


def test_the_counters() -> None:
    stats = ProgressStats(5, n_earlier=2, n_open=3)
    assert stats.left_s is None
    play(ProgressView(stats))
    assert stats.n_frames == 70 and stats.ended == {DONE: 1, FAILED: 1}
    assert set(stats.running) == {"job-1"} and stats.left_s is not None
    assert clock(59.6) == "1:00" and clock(3725) == "1:02:05"


def test_lines_without_a_terminal() -> None:
    stream = io.StringIO()
    view = LiveProgressView(ProgressStats(2, 0, 2), Console(file=stream, width=200))
    play(view)
    view.close()
    assert stream.getvalue().splitlines() == [
        "done      0.mp4",
        "retry in 4 s: job-1: no luck",
        "failed    1.mp4: no [red]luck",
    ]


def test_messages_of_jobs_that_are_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = io.StringIO()
    done = JobFinished("job-0", DONE, result={"n_frames": 50, "notes": ["far", "little"]})
    for view in (
        LiveProgressView(ProgressStats(1, 0, 1), Console(file=stream, width=200)),
        JsonProgressView(ProgressStats(1, 0, 1)),
    ):
        view.job_finished(make_job(0), done)
        view.close()
    assert stream.getvalue() == "done      0.mp4: far: little\n"
    assert json.loads(capsys.readouterr().err)["notes"] == ["far", "little"]


def test_a_table_on_a_terminal() -> None:
    stream = io.StringIO()
    view = LiveProgressView(
        ProgressStats(2, 0, 2), Console(file=stream, width=120, force_terminal=True)
    )
    play(view)
    view._live.refresh()
    view.close()
    shown = stream.getvalue()
    assert "job-1" in shown and "770/1500" in shown and "all jobs" in shown and "1/2" in shown


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    view = make_progress_view("json", ProgressStats(2, 0, 2))
    assert isinstance(view, JsonProgressView)
    play(view)
    view.close()
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["event"] for event in events] == ["progress", "job", "retry", "job"]
    assert events[1] == {
        "event": "job",
        "id": "job-0",
        "status": "done",
        "output": "/out/0.mp4",
        "reason": "",
    }
    assert type(make_progress_view("silent", ProgressStats(0, 0, 0))) is ProgressView
