"""What a person sees of many jobs: a live table, a line for each end, JSON lines, or nothing."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkhead.app.dubbing.events import Event, JobFinished, JobProgressed, JobStarted
from talkhead.app.dubbing.job import DONE, FAILED, Job
from talkhead.progress import JsonProgress, Style
from talkhead.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

SPEAKING = "Speaking"
"""The stage whose units are pictures."""
ON_CLUSTER = "on the cluster"
"""The stage of a job whose pictures nobody tells of before it has ended."""
NOTES = "notes"
"""Key of a job's result: what there is to tell of a line that was made all the same."""
MAX_SHOWN = 16
"""Jobs under way that the table shows."""


@dataclass
class ProgressStats:
    """What has become of n_jobs so far; n_earlier were done before this run, n_open were still to do."""

    n_jobs: int
    n_earlier: int
    n_open: int
    ended: Counter[str] = field(default_factory=Counter)
    n_frames: int = 0
    running: dict[str, JobProgressed] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def see(self, event: Event) -> None:
        """Take note of an event."""
        if isinstance(event, JobStarted):
            self.running[event.job_id] = JobProgressed(event.job_id, "starting", 0, 0)
        elif isinstance(event, JobProgressed):
            before = self.running.get(event.job_id)
            if event.stage == SPEAKING and before is not None:
                known = before.done if before.stage == SPEAKING else event.done
                self.n_frames += max(0, event.done - known)
            self.running[event.job_id] = event
        else:
            before = self.running.pop(event.job_id, None)
            if before is not None and before.stage == ON_CLUSTER:
                self.n_frames += int(event.result.get("n_frames", 0))

    @property
    def elapsed_s(self) -> float:
        return max(1e-6, time.monotonic() - self.started)

    @property
    def frames_per_s(self) -> float:
        return self.n_frames / self.elapsed_s

    @property
    def left_s(self) -> float | None:
        """Seconds until the end if all goes on like this; None before the first job has ended."""
        n_ended = sum(self.ended.values())
        if not n_ended:
            return None
        n_begun = sum(
            e.done / e.total for e in self.running.values() if e.stage == SPEAKING and e.total
        )
        n_left = self.n_open - n_ended - n_begun
        return max(0.0, n_left) * self.elapsed_s / (n_ended + n_begun)


class ProgressView:
    """Shows nothing, and keeps the tally."""

    def __init__(self, tally: ProgressStats) -> None:
        self.tally = tally

    def see(self, event: Event) -> None:
        """Something happened."""
        self.tally.see(event)

    def ended(self, job: Job, ended: JobFinished) -> None:
        """A job is done, set aside or cancelled."""
        self.tally.ended[ended.status] += 1

    def delayed(self, job: Job, ended: JobFinished) -> None:
        """A job failed, and is tried again later."""

    def refresh(self) -> None:
        """Show what is known now."""

    def close(self) -> None:
        """Leave the screen as it is."""


class JsonProgressView(ProgressView):
    """JSON lines on stderr: one for each end, one a second for the whole."""

    def __init__(self, tally: ProgressStats) -> None:
        super().__init__(tally)
        self._told = 0.0

    def ended(self, job: Job, ended: JobFinished) -> None:
        """See Board."""
        super().ended(job, ended)
        notes = {NOTES: ended.result[NOTES]} if NOTES in ended.result else {}
        said = {"output": job.task.output, "reason": ended.reason, **notes}
        self._emit("job", id=job.id, status=ended.status, **said)

    def delayed(self, job: Job, ended: JobFinished) -> None:
        """See Board."""
        self._emit("retry", id=job.id, reason=ended.reason, wait_s=_wait_s(ended))

    def refresh(self) -> None:
        """See Board."""
        now = time.monotonic()
        if now - self._told >= 1.0:
            self._told = now
            tally = self.tally
            self._emit(
                "progress",
                jobs=tally.n_jobs,
                done=tally.n_earlier + tally.ended[DONE],
                failed=tally.ended[FAILED],
                running=len(tally.running),
                frames_per_s=round(tally.frames_per_s, 1),
                left_s=None if tally.left_s is None else round(tally.left_s, 1),
            )

    def _emit(self, event: str, **values: Any) -> None:
        JsonProgress(sys.stderr).emit(event, **values)


class LiveProgressView(ProgressView):
    """A table on the terminal; where stderr is none, a line for each job that ends."""

    def __init__(self, tally: ProgressStats, console: Console | None = None) -> None:
        super().__init__(tally)
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

    def ended(self, job: Job, ended: JobFinished) -> None:
        """See Board."""
        super().ended(job, ended)
        goal = Path(job.task.output or job.task.identity).name
        told = ended.result.get(NOTES, ()) if ended.status == DONE else [ended.reason]
        self._say(": ".join([f"{ended.status:<9} {goal}", *filter(None, told)]))

    def delayed(self, job: Job, ended: JobFinished) -> None:
        """See Board."""
        if ended.reason:
            self._say(f"again in {_wait_s(ended):.0f} s: {job.id}: {ended.reason}")

    def close(self) -> None:
        """See Board."""
        if self._live.is_started:
            self._live.stop()

    def _say(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        tally = self.tally
        table = Table.grid(padding=(0, 2))
        for event in list(tally.running.values())[:MAX_SHOWN]:
            bar = ProgressBar(event.total or 1, event.done, width=24)
            names = (Text(printable(name)) for name in (event.job_id, event.stage))
            table.add_row(*names, bar, f"{event.done}/{event.total}")
        n_done = tally.n_earlier + tally.ended[DONE]
        whole = ProgressBar(tally.n_jobs or 1, n_done, width=24)
        table.add_row("[bold]all jobs", _about(tally), whole, f"{n_done}/{tally.n_jobs}")
        return table


def _about(tally: ProgressStats) -> str:
    left = "" if tally.left_s is None else f", {clock(tally.left_s)} left"
    failed = f", {tally.ended[FAILED]} set aside" if tally.ended[FAILED] else ""
    return f"{tally.frames_per_s:.0f} frames/s{left}{failed}"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds as people write them."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _wait_s(ended: JobFinished) -> float:
    return round(max(0.0, ended.retry_at - time.time()), 1)


def make_progress_view(style: Style, tally: ProgressStats) -> ProgressView:
    """The board of that style."""
    if style == "bars":
        return LiveProgressView(tally)
    return JsonProgressView(tally) if style == "json" else ProgressView(tally)
