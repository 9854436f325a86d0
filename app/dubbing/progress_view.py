"""Progress display of many jobs: a live table, one line per finished job, JSON lines, or nothing."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from talkhead.app.dubbing.events import Event, JobFinished, JobProgressed, JobStarted
from talkhead.app.dubbing.job import DONE, FAILED, Job
from talkhead.progress import JsonProgress, Style
from talkhead.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

RENDERING = "Rendering"
"""The stage whose units are frames; see talkhead.app.resume."""
ON_CLUSTER = "on the cluster"
"""The stage of a job on a cluster, which reports its frames only at the end."""
NOTES = "notes"
"""Key in the result of a job: messages about a video that was rendered nevertheless."""
MAX_SHOWN = 16
"""Maximum number of running jobs in the table."""


@dataclass
class ProgressStats:
    """Counters of a run.

    Attributes:
        n_jobs: Number of jobs.
        n_earlier: Number of jobs that were done before the run.
        n_open: Number of jobs that were queued or running at its start.
        ended: Number of jobs that ended during the run, by status.
        n_frames: Number of frames rendered during the run.
        running: Latest progress of each running job, by ID.
        started: Start of the run, in seconds of the monotonic clock.
    """

    n_jobs: int
    n_earlier: int
    n_open: int
    ended: Counter[str] = field(default_factory=Counter)
    n_frames: int = 0
    running: dict[str, JobProgressed] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def handle(self, event: Event) -> None:
        """Update the counters.

        Args:
            event: An event of a worker.
        """
        if isinstance(event, JobStarted):
            self.running[event.job_id] = JobProgressed(event.job_id, "starting", 0, 0)
        elif isinstance(event, JobProgressed):
            before = self.running.get(event.job_id)
            if event.stage == RENDERING and before is not None:
                known = before.done if before.stage == RENDERING else event.done
                self.n_frames += max(0, event.done - known)
            self.running[event.job_id] = event
        else:
            before = self.running.pop(event.job_id, None)
            if before is not None and before.stage == ON_CLUSTER:
                self.n_frames += int(event.result.get("n_frames", 0))

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return max(1e-6, time.monotonic() - self.started)

    @property
    def frames_per_s(self) -> float:
        """Frames rendered per second since the start of the run, all workers together."""
        return self.n_frames / self.elapsed_s

    @property
    def left_s(self) -> float | None:
        """Estimated seconds until the end; None before the first job has ended."""
        n_ended = sum(self.ended.values())
        if not n_ended:
            return None
        n_partial = sum(
            e.done / e.total for e in self.running.values() if e.stage == RENDERING and e.total
        )
        n_left = self.n_open - n_ended - n_partial
        return max(0.0, n_left) * self.elapsed_s / (n_ended + n_partial)


class ProgressView:
    """Base class of the displays. It updates the counters and shows nothing.

    Args:
        stats: Counters of the run.
    """

    def __init__(self, stats: ProgressStats) -> None:
        self.stats = stats

    def handle(self, event: Event) -> None:
        """Update the counters.

        Args:
            event: An event of a worker.
        """
        self.stats.handle(event)

    def job_finished(self, job: Job, event: JobFinished) -> None:
        """Show that a job is done, failed or cancelled.

        Args:
            job: The job as it was before the attempt.
            event: The outcome.
        """
        self.stats.ended[event.status] += 1

    def job_delayed(self, job: Job, event: JobFinished) -> None:
        """Show that a job failed and will be retried.

        Args:
            job: The job as it was before the attempt.
            event: The outcome.
        """

    def refresh(self) -> None:
        """Show the current counters."""

    def close(self) -> None:
        """End the display."""


class JsonProgressView(ProgressView):
    """JSON lines on stderr: one per finished or delayed job, and one per second for the whole run.

    The events "job", "retry" and "progress" are part of the protocol of JsonProgress, which writes them.

    Args:
        stats: Counters of the run.
        progress: Writer of the lines.
    """

    def __init__(self, stats: ProgressStats, progress: JsonProgress | None = None) -> None:
        super().__init__(stats)
        self._progress = progress or JsonProgress()
        self._refreshed = -math.inf

    def job_finished(self, job: Job, event: JobFinished) -> None:
        """Write a "job" event; see ProgressView.

        Args:
            job: The job as it was before the attempt.
            event: The outcome.
        """
        super().job_finished(job, event)
        values = {"output": job.task.output, "reason": event.reason}
        if NOTES in event.result:
            values[NOTES] = event.result[NOTES]
        self._progress.emit("job", id=job.id, status=event.status, **values)

    def job_delayed(self, job: Job, event: JobFinished) -> None:
        """Write a "retry" event; see ProgressView.

        Args:
            job: The job as it was before the attempt.
            event: The outcome.
        """
        self._progress.emit("retry", id=job.id, reason=event.reason, wait_s=_wait_s(event))

    def refresh(self) -> None:
        """Write a "progress" event, at most one per second."""
        now = self._progress.clock()
        if now - self._refreshed < self._progress.interval_s:
            return
        self._refreshed = now
        stats = self.stats
        self._progress.emit(
            "progress",
            jobs=stats.n_jobs,
            done=stats.n_earlier + stats.ended[DONE],
            failed=stats.ended[FAILED],
            running=len(stats.running),
            frames_per_s=round(stats.frames_per_s, 1),
            left_s=None if stats.left_s is None else round(stats.left_s, 1),
        )


class LiveProgressView(ProgressView):
    """A live table on the terminal, or one line per finished job if stderr is not a terminal.

    Args:
        stats: Counters of the run.
        console: Console to write to; stderr by default.
    """

    def __init__(self, stats: ProgressStats, console: Console | None = None) -> None:
        super().__init__(stats)
        from rich.console import Console
        from rich.live import Live

        self._console = console or Console(stderr=True)
        self._live = Live(
            console=self._console,
            get_renderable=self._table,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
        )
        if self._console.is_terminal:
            self._live.start()

    def job_finished(self, job: Job, event: JobFinished) -> None:
        """Print a line; see ProgressView.

        Args:
            job: The job as it was before the attempt.
            event: The outcome.
        """
        super().job_finished(job, event)
        name = Path(job.task.output or job.task.identity).name
        details = event.result.get(NOTES, ()) if event.status == DONE else [event.reason]
        self._print(": ".join([f"{event.status:<9} {name}", *filter(None, details)]))

    def job_delayed(self, job: Job, event: JobFinished) -> None:
        """Print a line if the job failed; see ProgressView.

        Args:
            job: The job as it was before the attempt.
            event: The outcome.
        """
        if event.reason:
            self._print(f"retry in {_wait_s(event):.0f} s: {job.id}: {event.reason}")

    def close(self) -> None:
        """Remove the table from the terminal."""
        if self._live.is_started:
            self._live.stop()

    def _print(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        stats = self.stats
        table = Table.grid(padding=(0, 2))
        for event in list(stats.running.values())[:MAX_SHOWN]:
            bar = ProgressBar(event.total or 1, event.done, width=24)
            names = (Text(printable(name)) for name in (event.job_id, event.stage))
            table.add_row(*names, bar, f"{event.done}/{event.total}")
        n_done = stats.n_earlier + stats.ended[DONE]
        whole = ProgressBar(stats.n_jobs or 1, n_done, width=24)
        table.add_row("[bold]all jobs", _summary(stats), whole, f"{n_done}/{stats.n_jobs}")
        return table


def _summary(stats: ProgressStats) -> str:
    left = "" if stats.left_s is None else f", {clock(stats.left_s)} left"
    failed = f", {stats.ended[FAILED]} failed" if stats.ended[FAILED] else ""
    return f"{stats.frames_per_s:.0f} frames/s{left}{failed}"


def clock(seconds: float) -> str:
    """Format a duration.

    Args:
        seconds: The duration.

    Returns:
        "M:SS" or "H:MM:SS".
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _wait_s(event: JobFinished) -> float:
    return round(max(0.0, event.retry_at - time.time()), 1)


def make_progress_view(style: Style, stats: ProgressStats) -> ProgressView:
    """Make the display of a style.

    Args:
        style: "bars", "json" or "silent".
        stats: Counters of the run.

    Returns:
        The display.
    """
    if style == "bars":
        return LiveProgressView(stats)
    return JsonProgressView(stats) if style == "json" else ProgressView(stats)
