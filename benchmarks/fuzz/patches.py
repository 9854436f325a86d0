"""Patches of the worker's talkhead, so that a case takes a second instead of a day.

Segments are short, so that short audio has several. Legitimately long inputs (an hour of audio,
minutes of footage) are cut off after a few frames. `dub` runs its jobs immediately, in the worker
itself.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.fuzz.trial import EnoughError

MAX_TRACKED, MAX_SPOKEN, MAX_SOUND_S, MAX_FRAMES = 40, 60, 300.0, 400
"""Limits of a case: frames tracked and written, seconds of audio and frames read."""
SEGMENT_FRAMES = 5
"""Frames of a segment of speak."""


class _Counter:
    """Counts the frames and seconds of a case."""

    def __init__(self) -> None:
        self.done: dict[str, float] | None = None  # before the first case

    def add(self, what: str, n: float, most: float) -> None:
        """Count n more. Raises EnoughError beyond the limit."""
        if self.done is None:
            return
        self.done[what] = self.done.get(what, 0.0) + n
        if self.done[what] > most:
            raise EnoughError(f"{what}: far enough")


COUNTER = _Counter()


def begin_case() -> None:
    """Reset the counter."""
    COUNTER.done = {}


def patch() -> None:
    """Patch this process."""
    from talkhead import media
    from talkhead.app import dub, resume
    from talkhead.media import reader
    from talkhead.preprocess.landmarks import FaceTracker

    resume.SEGMENT_FRAMES = SEGMENT_FRAMES
    _count_calls(FaceTracker, "track", "frames tracked", MAX_TRACKED)
    _count_items(reader, "_frames", "pictures read", lambda picture: 1, MAX_FRAMES)
    _count_items(reader, "_chunks", "seconds of sound", _seconds, MAX_SOUND_S)
    _count_calls(media.VideoWriter, "write", "pictures written", MAX_SPOKEN)
    dub.make_pool = _start_worker
    FaceTracker().close()  # loading it starts programs, which must not be attributed to a case


def _seconds(chunk: Any) -> float:
    return len(chunk) / 16_000


def _count_calls(owner: Any, name: str, what: str, most: float) -> None:
    """Count each call of a method."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def counted(*given: Any, **named: Any) -> Any:
        COUNTER.add(what, 1, most)
        return method(*given, **named)

    setattr(owner, name, counted)


def _count_items(
    owner: Any, name: str, what: str, size: Callable[[Any], float], most: float
) -> None:
    """Count the items that a generator function yields."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def counted(*given: Any, **named: Any) -> Generator[Any, None, None]:
        source = function(*given, **named)
        try:
            for item in source:
                COUNTER.add(what, size(item), most)
                yield item
        finally:
            source.close()

    setattr(owner, name, counted)


# --------------------------------------------------------------------------------- dub


def _start_worker(jobs: Any, home: Any, *others: object) -> Any:
    from talkhead.app.dubbing.job_store import JobStore

    return InlineWorkers(JobStore(home.path / "jobs"))


class InlineWorkers:
    """A worker pool that runs each job immediately."""

    size = 1

    def __init__(self, store: Any) -> None:
        self._store = store
        self._events: list[Any] = []

    def room(self) -> int:
        """Number of jobs that can be started."""
        return 0 if self._events else 1

    def start(self, job: Any, n_threads: int) -> None:
        """Run a job."""
        from talkhead.app.dubbing.job_runner import run_job

        emit = self._events.append
        emit(run_job(self._store, job.id, _perform, 1, emit))

    def wait(self, timeout_s: float) -> list[Any]:
        """Events since the last call."""
        if not self._events:
            time.sleep(min(timeout_s, 0.05))
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Do nothing: there are no processes."""


def _perform(task: Any, work: Path, products: Path, progress: Any) -> Mapping[str, Any]:
    """Write an output as a task runner would."""
    if task.output:
        (products / Path(task.output).name).write_bytes(b"said")
    return {"n_frames": 10}
