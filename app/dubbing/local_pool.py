"""Workers of one machine: spawned processes (mediapipe hangs after a fork), a pipe to each."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from talkhead.app.cli.console import LineHandler
from talkhead.app.dubbing.events import Event, JobFinished
from talkhead.app.dubbing.job_runner import RunTask, run_job
from talkhead.app.dubbing.job_store import Job, JobStore, release_orphans
from talkhead.errors import TalkheadError

STUDIO = "talkhead.app.dubbing.task_runner:Studio"
MAX_EARLY_DEATHS = 3
"""Workers that end one after the other without having done anything: something is wrong for all."""


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker needs to know. studio: "module:name" of what makes a Perform of home and device."""

    store: Path
    home: Path
    most_tries: int = 3
    studio: str = STUDIO


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    device: str
    job_id: str = ""
    was_useful: bool = False


@dataclass
class LocalPool:
    """Processes that do jobs, one for each of the devices."""

    place: WorkerConfig
    devices: list[str]
    _workers: list[_Worker] = field(default_factory=list)
    _early_deaths: int = 0

    @property
    def size(self) -> int:
        """How many jobs can be done at once."""
        return len(self.devices)

    def room(self) -> int:
        """How many more jobs can be started now."""
        return self.size - sum(1 for worker in self._workers if worker.job_id)

    def start(self, job: Job, n_threads: int) -> None:
        """Give a job to a worker that has none; there must be room."""
        idle = next((worker for worker in self._workers if not worker.job_id), None)
        worker = idle or self._start_worker()
        worker.job_id = job.id
        with suppress(OSError):  # it died just now; wait() will see
            worker.pipe.send((job.id, n_threads))

    def _start_worker(self) -> _Worker:
        taken = [worker.device for worker in self._workers]
        free = list(self.devices)
        for device in taken:
            free.remove(device)
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, self.place, free[0]), name="talkhead worker", daemon=True
        )
        process.start()
        theirs.close()
        worker = _Worker(process, ours, free[0])
        self._workers.append(worker)
        return worker

    def wait(self, timeout_s: float) -> list[Event]:
        """What workers have told since, after at most so many seconds. Raises TalkheadError when they
        die as fast as they start."""
        by_pipe = {worker.pipe: worker for worker in self._workers}
        events: list[Event] = []
        for pipe in wait(list(by_pipe), timeout_s):
            worker = by_pipe[pipe]  # type: ignore[index]
            try:
                event = worker.pipe.recv()
            except (EOFError, OSError):
                events += self._handle_death(worker)
                continue
            worker.was_useful, self._early_deaths = True, 0
            if isinstance(event, JobFinished):
                worker.job_id = ""
            events.append(event)
        return events

    def _handle_death(self, worker: _Worker) -> list[Event]:
        """What becomes of the job of a worker that died."""
        worker.process.join()
        self._workers.remove(worker)
        worker.pipe.close()
        code = worker.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        if not worker.was_useful:
            self._early_deaths += 1
        if self._early_deaths >= MAX_EARLY_DEATHS:
            raise TalkheadError(
                f"{self._early_deaths} workers ended before they had begun ({how}). `talkhead doctor` "
                "tells what is wrong here; with too little memory, pass a smaller --workers"
            )
        if not worker.job_id:
            return []
        store = JobStore(self.place.store)
        reason = f"its worker ended ({how}), for want of memory perhaps"
        job = release_orphans(store, worker.job_id, reason, self.place.most_tries)
        if job is None:
            return [JobFinished(worker.job_id)]
        return [JobFinished(job.id, job.status, job.reason, job.retry_at, job.result)]

    def close(self) -> None:
        """End all workers; what they were doing is gone on with the next time."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()


# ------------------------------------------------------------------------ in the worker


def _work(pipe: Connection, place: WorkerConfig, device: str) -> None:
    """Do jobs until the coordinator is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's: it ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: waiting threads must sleep
    LineHandler.install()
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def tell(event: Event) -> None:
        try:
            pipe.send(event)
        except OSError:  # the coordinator is gone: whoever comes next goes on with the job
            os._exit(1)

    store, perform = JobStore(place.store), make_task_runner(place.studio, place.home, device)
    while True:
        try:
            job_id, n_threads = pipe.recv()
        except (EOFError, OSError):
            return
        os.environ["OMP_NUM_THREADS"] = str(n_threads)  # set_threads() keeps to it
        tell(_run_reporting(store, job_id, perform, place.most_tries, tell))


def _run_reporting(
    store: JobStore,
    job_id: str,
    perform: RunTask,
    most_tries: int,
    tell: Callable[[Event], None],
) -> JobFinished:
    try:
        return run_job(store, job_id, perform, most_tries, tell)
    except TalkheadError as error:  # the job's own file can't be written: no job could go on
        return JobFinished(job_id, halt=str(error))


def _end_with_parent() -> None:
    """End at once when the coordinator is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def make_task_runner(name: str, home: Path, device: str) -> RunTask:
    """What "module:name" makes of a home and a device."""
    module, _, attribute = name.partition(":")
    studio: Any = getattr(importlib.import_module(module), attribute)
    perform: RunTask = studio(home, device)
    return perform
