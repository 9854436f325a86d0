"""Progress of long commands, always on stderr: bars, JSON lines or nothing.

    with progress.step("Tracking faces", total=n_frames) as step:
        for frame in frames:
            ...
            step.advance()

A step without work calls `step.skip("up to date")`. A step may be opened inside another. Exceptions
pass through, after the display is closed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

from talkhead.terminal import printable, printable_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID

Style = Literal["bars", "silent", "json"]


class Step(Protocol):
    """A step in progress."""

    def advance(self, n: int = 1) -> None:
        """Report finished work.

        Args:
            n: How many more of the step's units are done.
        """

    def detail(self, text: str) -> None:
        """Show a text next to the bar.

        Args:
            text: The text, such as a loss or a file name.
        """

    def skip(self, reason: str) -> None:
        """Report that there was nothing to do.

        Args:
            reason: The reason.
        """


class Progress(Protocol):
    """Where steps and messages are shown."""

    def step(
        self, name: str, total: int | None = None, done: int = 0
    ) -> AbstractContextManager[Step]:
        """Open a step.

        Args:
            name: Its name.
            total: Its number of units, None if unknown.
            done: Number of units that an earlier run has done.

        Returns:
            A context manager that yields the step.
        """

    def message(self, text: str) -> None:
        """Show a line that remains on the screen.

        Args:
            text: The line.
        """


def make_progress(style: Style) -> Progress:
    """Make a progress display of a style.

    Args:
        style: "bars", "silent" or "json".

    Returns:
        The progress display.
    """
    if style == "bars":
        return BarProgress()
    return JsonProgress() if style == "json" else SilentProgress()


class NumberedProgress:
    """Adds numbers to the names of steps and passes them to another progress: "4 of 10: Cutting ..."."""

    def __init__(self, progress: Progress, names: Sequence[str]) -> None:
        """Wrap a progress.

        Args:
            progress: Where steps are shown.
            names: Names of the steps to come, in order. A step of another name gets no number.
        """
        self._progress, self._names = progress, names

    def step(
        self, name: str, total: int | None = None, done: int = 0
    ) -> AbstractContextManager[Step]:
        """Open a step, see `Progress.step`.

        Args:
            name: Its name.
            total: Its number of units, None if unknown.
            done: Number of units that an earlier run has done.

        Returns:
            A context manager that yields the step.
        """
        if name in self._names:
            name = f"{self._names.index(name) + 1} of {len(self._names)}: {name}"
        return self._progress.step(name, total, done)

    def message(self, text: str) -> None:
        """Show a line, see `Progress.message`.

        Args:
            text: The line.
        """
        self._progress.message(text)


class SilentProgress:
    """Shows nothing."""

    @contextmanager
    def step(self, name: str, total: int | None = None, done: int = 0) -> Iterator[Step]:
        """Open a step that shows nothing, see `Progress.step`.

        Args:
            name: Its name.
            total: Its number of units, None if unknown.
            done: Number of units that an earlier run has done.

        Yields:
            The step.
        """
        yield _SilentStep()

    def message(self, text: str) -> None:
        """Show nothing.

        Args:
            text: The line.
        """
        pass


class _SilentStep:
    def advance(self, n: int = 1) -> None:
        pass

    def detail(self, text: str) -> None:
        pass

    def skip(self, reason: str) -> None:
        pass


class JsonProgress:
    """Writes one JSON object per line: start, advance (once a second), finish, skip, fail, message.

    `dub` adds the events job, retry and progress. docs/dubbing.md lists the keys of each event.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        interval_s: float = 1.0,
    ) -> None:
        """Configure the output.

        Args:
            stream: Where lines are written; by default stderr.
            clock: Returns the time in seconds.
            interval_s: Seconds between advance events of a step.
        """
        self._stream = stream
        self.clock = clock
        self.interval_s = interval_s

    def emit(self, event: str, **values: Any) -> None:
        """Write one line.

        Args:
            event: Kind of event.
            **values: Its further keys.
        """
        stream = self._stream or sys.stderr
        line = json.dumps({"event": event, **values}, ensure_ascii=False)
        stream.write(printable_json(line) + "\n")
        stream.flush()

    @contextmanager
    def step(self, name: str, total: int | None = None, done: int = 0) -> Iterator[Step]:
        """Open a step, see `Progress.step`.

        Args:
            name: Its name.
            total: Its number of units, None if unknown.
            done: Number of units that an earlier run has done.

        Yields:
            The step.
        """
        self.emit("start", step=name, total=total, done=done)
        step = _JsonStep(self, name, total, done)
        try:
            yield step
        except BaseException as error:
            self.emit("fail", step=name, error=type(error).__name__)
            raise
        step.finish()

    def message(self, text: str) -> None:
        """Write a message event.

        Args:
            text: The line.
        """
        self.emit("message", text=text)


class _JsonStep:
    def __init__(self, progress: JsonProgress, name: str, total: int | None, done: int) -> None:
        self._progress, self._name, self._total = progress, name, total
        self._first = self._done = done
        self._detail: str | None = None
        self._skipped: str | None = None
        self._started = self._emitted = progress.clock()

    def advance(self, n: int = 1) -> None:
        self._done += n
        now = self._progress.clock()
        if now - self._emitted >= self._progress.interval_s:
            self._emitted = now
            self._progress.emit("advance", **self._state(now))

    def detail(self, text: str) -> None:
        self._detail = text

    def skip(self, reason: str) -> None:
        self._skipped = reason

    def finish(self) -> None:
        """Report how the step ended."""
        if self._skipped is not None:
            self._progress.emit("skip", step=self._name, reason=self._skipped)
        else:
            self._progress.emit("finish", **self._state(self._progress.clock()))

    def _state(self, now: float) -> dict[str, Any]:
        elapsed, fresh = now - self._started, self._done - self._first
        state: dict[str, Any] = {"step": self._name, "done": self._done, "total": self._total}
        state["elapsed_s"] = round(elapsed, 2)
        if self._total is not None and fresh > 0:
            state["left_s"] = round(max(0, self._total - self._done) * elapsed / fresh, 2)
        if self._detail is not None:
            state["detail"] = self._detail
        return state


class BarProgress:
    """Shows bars with the time left; where stderr is not a terminal, one line for each finished step."""

    def __init__(self, console: Console | None = None) -> None:
        """Configure the output.

        Args:
            console: Where bars are drawn; by default stderr.
        """
        from rich.console import Console

        self._console = console or Console(stderr=True)
        self._bars: RichBars | None = None
        self._depth = 0

    @contextmanager
    def step(self, name: str, total: int | None = None, done: int = 0) -> Iterator[Step]:
        """Open a step, see `Progress.step`.

        Args:
            name: Its name.
            total: Its number of units, None if unknown.
            done: Number of units that an earlier run has done.

        Yields:
            The step.
        """
        bars = self._open()
        task = bars.add_task(_plain(name), total=total, completed=done, detail="")
        step = _BarStep(bars, task)
        try:
            yield step
            step.finish()
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            step.show("[yellow]interrupted" if interrupted else "[red]failed")
            raise
        finally:
            self._close()

    def message(self, text: str) -> None:
        """Print a line above the bars.

        Args:
            text: The line.
        """
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def _open(self) -> RichBars:
        """Return the bars on the screen; finished steps remain above them as text."""
        if self._bars is None:
            self._bars = _make_bars(self._console)
            self._bars.start()
        self._depth += 1
        return self._bars

    def _close(self) -> None:
        self._depth -= 1
        if self._depth == 0 and self._bars is not None:
            self._bars.stop()
            self._bars = None


class _BarStep:
    def __init__(self, bars: RichBars, task: TaskID) -> None:
        self._bars, self._task = bars, task
        self._done = False

    def advance(self, n: int = 1) -> None:
        self._bars.advance(self._task, n)

    def detail(self, text: str) -> None:
        self.show(_plain(text))

    def show(self, markup: str) -> None:
        """Show a text next to the bar, with rich's markup."""
        self._bars.update(self._task, detail=markup)

    def skip(self, reason: str) -> None:
        self.detail(reason)

    def finish(self) -> None:
        """Fill the bar."""
        task = self._bars.tasks[self._bars.task_ids.index(self._task)]
        total = task.total if task.total is not None else max(task.completed, 1)
        self._bars.update(self._task, total=total, completed=total)


def _plain(text: str) -> str:
    """Escape a text, so that nothing in it is markup."""
    from rich.markup import escape

    return escape(printable(text))


def _make_bars(console: Console) -> RichBars:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<36}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("[dim]{task.fields[detail]}"),
    )
    return Progress(*columns, console=console, refresh_per_second=4, redirect_stdout=False)
