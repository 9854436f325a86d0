"""Supervisor of the worker: time, memory, signals, connections.

A worker is replaced after a fault that ended it.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.fuzz.traps import Listener
from benchmarks.fuzz.worker import CASE, Case, JobFinished, JobStarted, Place, work

MAX_S = 60.0
"""Seconds that a case may take."""
MAX_MIB = 3 * 1024
"""Memory that a case may use."""
START_S = 600.0
"""Seconds that a worker may take to start: on a new machine the kernels are compiled first."""
REST_MIB = 1600
"""A worker that uses more than this between cases is replaced."""
_POLL_S = 0.05


class Supervisor:
    """Runs cases in a worker. kept: folder for copies of faulty cases' folders; None for no copies."""

    def __init__(
        self,
        place: Place,
        listener: Listener,
        kept: Path | None = None,
        max_s: float = MAX_S,
        max_mib: float = MAX_MIB,
    ) -> None:
        self._place, self._listener, self._kept = place, listener, kept
        self._max_s, self._max_mib = max_s, max_mib
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self.n_workers = 0

    def start(self) -> None:
        """Make sure that a worker is ready; the first one makes the base files."""
        if self._process is not None:
            return
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, self._place), daemon=False)
        process.start()
        theirs.close()
        self._process, self._pipe = process, ours
        self.n_workers += 1
        try:
            ready = ours.poll(START_S) and ours.recv() == "ready"
        except EOFError:
            ready = False
        if not ready:
            self.stop()
            raise RuntimeError("the worker did not start: see its output above")

    def run(self, case: Case, again: bool = True) -> JobFinished:
        """Run a case. again: True to repeat a case that hangs, because the machine may be busy."""
        self.start()
        assert self._pipe is not None
        self._listener.take()
        self._pipe.send(case)
        ended = self._watched(case)
        requests = self._listener.take()
        if requests:
            ended = replace(ended, outcome="network", message=f"{requests[:3]} | {ended.message}")
        if ended.outcome == "hang" and again:
            return self.run(case, again=False)
        return ended

    def keep(self, case: Case) -> Path | None:
        """Copy the folder of the last case."""
        source = self._place.root / CASE
        if self._kept is None or not source.exists():
            return None
        target = self._kept / f"{case.seed}-{case.number}"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, symlinks=True, ignore=_special)
        return target

    def _watched(self, case: Case) -> JobFinished:
        assert self._pipe is not None and self._process is not None
        begun, start, peak = JobStarted("", ""), time.monotonic(), 0.0
        while True:
            with suppress(EOFError, OSError):
                if self._pipe.poll(_POLL_S):
                    event = self._pipe.recv()
                    if isinstance(event, JobFinished):
                        return self._closed(event, peak)
                    begun, start = event, time.monotonic()
                    continue
            seconds = time.monotonic() - start
            own, largest_child = memory_of(self._process.pid or 0)
            peak = max(peak, largest_child)
            if max(own, largest_child) > self._max_mib:
                return self._broken(begun, "memory", seconds, max(own, largest_child))
            if seconds > self._max_s:
                return self._broken(begun, "hang", seconds, max(own, peak))
            if not self._process.is_alive():
                return self._broken(begun, "signal", seconds, max(own, peak))

    def _closed(self, ended: JobFinished, peak: float) -> JobFinished:
        """Result of a case that the worker has judged; it may also have used too much memory."""
        assert self._process is not None
        most = max(peak, ended.peak_mib)
        if most > self._max_mib:
            ended = replace(ended, outcome="memory", message=f"{most:.0f} MiB | {ended.message}")
        if memory_of(self._process.pid or 0)[0] > REST_MIB:
            self.stop()
        return replace(ended, peak_mib=round(most, 1))

    def _broken(self, begun: JobStarted, outcome: str, seconds: float, peak: float) -> JobFinished:
        """Result of a case that ended the worker, or for which the worker has to be ended."""
        assert self._process is not None
        message = {"memory": f"{peak:.0f} MiB", "hang": f"more than {self._max_s:g} s"}.get(outcome)
        if message is None:
            self._process.join(5.0)
            code = self._process.exitcode or 0
            message = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        self.stop()
        kind, mutation = begun.kind, begun.mutation
        return JobFinished(kind, mutation, outcome, round(seconds, 3), 0.0, round(peak, 1), message)

    def stop(self) -> None:
        """End the worker and its child processes."""
        if self._process is None:
            return
        family = [*descendants(self._process.pid or 0)]
        self._process.kill()
        for pid in family:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _special(folder: str, names: list[str]) -> list[str]:
    """Names of files that cannot be copied: pipes, sockets."""
    paths = {name: Path(folder) / name for name in names}
    return [
        name
        for name, path in paths.items()
        if not (path.is_symlink() or path.is_file() or path.is_dir())
    ]


@contextmanager
def supervised(suite: str, kept: Path | None = None, **limits: float) -> Iterator[Supervisor]:
    """A supervisor whose worker runs a suite, "module:name", in a temporary folder."""
    listener = Listener()
    with tempfile.TemporaryDirectory(prefix="talkhead-fuzz-", ignore_cleanup_errors=True) as root:
        place = Place(Path(root).resolve(), listener.port, suite)
        supervisor = Supervisor(place, listener, kept, **limits)
        try:
            yield supervisor
        finally:
            supervisor.stop()
            listener.close()


# ------------------------------------------------------------------------------- memory


def memory_of(pid: int) -> tuple[float, float]:
    """MiB that a process uses, and the maximum over its descendants; 0 on systems other than Linux."""
    if sys.platform != "linux":
        return 0.0, 0.0
    return _resident(pid), max(map(_resident, descendants(pid)), default=0.0)


def _resident(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def descendants(pid: int) -> Iterator[int]:
    """The descendants of a process."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return
    for task in tasks:
        with suppress(OSError):
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from descendants(child)
