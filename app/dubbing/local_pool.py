"""Run jobs in worker processes on this machine. They are spawned: mediapipe hangs after a fork."""

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
from talkhead.app.dubbing.job import Job
from talkhead.app.dubbing.job_runner import RunTask, fail_orphan, run_job
from talkhead.app.dubbing.job_store import JobStore
from talkhead.errors import TalkheadError

TASK_RUNNER = "talkhead.app.dubbing.task_runner:TaskRunner"
MAX_EARLY_DEATHS = 3
"""Number of workers in a row that may die before their first event; more indicate a common cause."""


@dataclass(frozen=True)
class WorkerConfig:
    """Configuration of the workers of a pool.

    Attributes:
        store: Folder of the job store.
        home: The home folder.
        max_tries: Number of failures after which a job is marked as failed.
        task_runner: "module:name" of a function or class that makes a RunTask from a home folder
            and a device.
    """

    store: Path
    home: Path
    max_tries: int = 3
    task_runner: str = TASK_RUNNER


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    device: str
    job_id: str = ""
    was_useful: bool = False


@dataclass
class LocalPool:
    """A worker pool with one process per entry of `devices`; see WorkerPool.

    Attributes:
        config: Configuration of the workers.
        devices: The device of each worker; a device can occur several times.
    """

    config: WorkerConfig
    devices: list[str]
    _workers: list[_Worker] = field(default_factory=list)
    _early_deaths: int = 0

    @property
    def size(self) -> int:
        """Number of jobs that can run at once."""
        return len(self.devices)

    def room(self) -> int:
        """Return how many more jobs can be started; see WorkerPool."""
        return self.size - sum(1 for worker in self._workers if worker.job_id)

    def start(self, job: Job, n_threads: int) -> None:
        """Start a job in an idle worker; see WorkerPool.

        Args:
            job: The job.
            n_threads: Number of threads for the job.
        """
        idle = next((worker for worker in self._workers if not worker.job_id), None)
        worker = idle or self._start_worker()
        worker.job_id = job.id
        with suppress(OSError):  # it has just died; wait() handles that
            worker.pipe.send((job.id, n_threads))

    def _start_worker(self) -> _Worker:
        taken = [worker.device for worker in self._workers]
        free = list(self.devices)
        for device in taken:
            free.remove(device)
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_run_worker,
            args=(theirs, self.config, free[0]),
            name="talkhead worker",
            daemon=True,
        )
        process.start()
        theirs.close()
        worker = _Worker(process, ours, free[0])
        self._workers.append(worker)
        return worker

    def wait(self, timeout_s: float) -> list[Event]:
        """Wait for events; see WorkerPool.

        Args:
            timeout_s: Maximum time to wait in seconds.

        Returns:
            The events.

        Raises:
            TalkheadError: If workers repeatedly die right after their start.
        """
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
        """Remove a worker that died and record the failure of its job."""
        worker.process.join()
        self._workers.remove(worker)
        worker.pipe.close()
        code = worker.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        if not worker.was_useful:
            self._early_deaths += 1
        if self._early_deaths >= MAX_EARLY_DEATHS:
            raise TalkheadError(
                f"{self._early_deaths} workers died on startup ({how}). Run `talkhead doctor` to check "
                "this machine; if memory is short, pass a smaller --workers"
            )
        if not worker.job_id:
            return []
        store = JobStore(self.config.store)
        reason = f"its worker died ({how}), possibly out of memory"
        job = fail_orphan(store, worker.job_id, reason, self.config.max_tries)
        if job is None:
            return [JobFinished(worker.job_id)]
        return [JobFinished(job.id, job.status, job.reason, job.retry_at, job.result)]

    def close(self) -> None:
        """Kill all workers; their jobs are resumed by the next run."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()


# ---------------------------------------------------------------- in the worker process


def _run_worker(pipe: Connection, config: WorkerConfig, device: str) -> None:
    """Run jobs until the coordinator is gone."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # the coordinator handles Ctrl-C and ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: waiting threads sleep
    LineHandler.install()
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def emit(event: Event) -> None:
        try:
            pipe.send(event)
        except OSError:  # the coordinator is gone; the next run resumes the job
            os._exit(1)

    store = JobStore(config.store)
    run_task = make_task_runner(config.task_runner, config.home, device)
    while True:
        try:
            job_id, n_threads = pipe.recv()
        except (EOFError, OSError):
            return
        os.environ["OMP_NUM_THREADS"] = str(n_threads)  # read by set_threads()
        emit(_run_reporting(store, job_id, run_task, config.max_tries, emit))


def _run_reporting(
    store: JobStore,
    job_id: str,
    run_task: RunTask,
    max_tries: int,
    emit: Callable[[Event], None],
) -> JobFinished:
    try:
        return run_job(store, job_id, run_task, max_tries, emit)
    except TalkheadError as error:  # the job's own file cannot be written: no job can run
        return JobFinished(job_id, halt=str(error))


def _end_with_parent() -> None:
    """End this process as soon as the coordinator has ended for any reason."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def make_task_runner(name: str, home: Path, device: str) -> RunTask:
    """Make the task runner of a worker.

    Args:
        name: "module:name" of a function or class that makes a RunTask.
        home: The home folder.
        device: Device that the runner uses.

    Returns:
        The task runner.
    """
    module, _, attribute = name.partition(":")
    factory: Any = getattr(importlib.import_module(module), attribute)
    run_task: RunTask = factory(home, device)
    return run_task
