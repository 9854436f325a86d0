"""Run one job: claim it, execute its task, publish its files, record the outcome."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from talkhead.app.dubbing.events import Event, JobFinished, JobProgressed, JobStarted
from talkhead.app.dubbing.job import CANCELLED, DONE, QUEUED, RUNNING, Job, Task
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.dubbing.table import build_options
from talkhead.app.output.finalize import check_subtitles_free
from talkhead.app.output.publish import product_names, publish, settle
from talkhead.config import read_object
from talkhead.errors import InputError, PackageError, TalkheadError, one_line
from talkhead.progress import Progress, Step
from talkhead.storage import (
    ContentError,
    make_folder,
    remove,
    short_repr,
    write_json,
)

FINISHED, MARKER = "finished", "finished.json"
PROGRESS_INTERVAL_S = 0.5
MIN_FREE_BYTES = 16 * 2**20
"""A failure with less free disk space than this is attributed to the full disk."""


class RunTask(Protocol):
    """Function that executes a task."""

    def __call__(
        self, task: Task, work: Path, products: Path, progress: Progress
    ) -> Mapping[str, Any]:
        """Execute a task.

        Args:
            task: The task.
            work: Folder for intermediate files. It is kept if the call is interrupted.
            products: Empty folder for the finished files, one of them named like the output.
            progress: Receiver of the task's progress.

        Returns:
            Values to record for the job.
        """


class JobCancelledError(Exception):
    """The job was cancelled while it was running."""


class HaltError(TalkheadError):
    """No job can run, for a reason that is not specific to one job."""


def run_job(
    store: JobStore,
    job_id: str,
    run_task: RunTask,
    max_tries: int,
    emit: Callable[[Event], None],
) -> JobFinished:
    """Claim a job, execute its task, move the files to their final places and update the job's file.

    If the process is killed at any moment, the next call for this job resumes there.

    Args:
        store: The job store.
        job_id: ID of the job.
        run_task: Function that executes the task.
        max_tries: Number of failures after which the job is marked as failed.
        emit: Function that receives JobStarted and JobProgressed events.

    Returns:
        The outcome. Errors of the task are recorded in it and in the job's file.

    Raises:
        TalkheadError: If the job's file cannot be written.
    """
    with store.claim(job_id) as claim:
        if claim is None:
            return JobFinished(job_id)
        emit(JobStarted(job_id))
        progress = _EventProgress(store, job_id, emit)
        halt = ""
        try:
            result = _complete(claim.job, store.work_path(job_id), run_task, progress)
            claim.complete(result)
        except JobCancelledError:
            claim.cancel()
        except Exception as error:  # an error in one job must not stop the others
            if isinstance(error, HaltError) or _is_disk_full(error, store, claim.job):
                claim.requeue()
                halt = one_line(error)
            else:
                # The same input is refused again, after the same minutes of work.
                claim.fail(one_line(error), 1 if isinstance(error, InputError) else max_tries)
        job = claim.job
        return JobFinished(job_id, job.status, job.reason, job.retry_at, job.result, halt)


def _complete(job: Job, work: Path, run_task: RunTask, progress: Progress) -> Mapping[str, Any]:
    """Produce a job's files, move them to their final places and return the values to record.

    The marker is written once all files are finished. From then on the task is not executed again; only
    files that have not been moved yet are moved.
    """
    output = Path(job.task.output)
    if not _has_products(work, output.parent):
        if output.name:
            check_subtitles_free(output, build_options(job.task.options))
        _execute(job.task, work, run_task, progress)
    marker = read_object(work / MARKER, _Marker, "Remove it, and run the same command again")
    for name in marker.files:
        publish(work / FINISHED / name, output.parent / name)
    if output.name:
        settle(output, marker.files)
    return dict(marker.result)


@dataclass(frozen=True)
class _Marker:
    """Content of a marker: plain names of the finished files, and the values to record for the job."""

    files: tuple[str, ...]
    result: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name in self.files:
            if name in ("", ".", "..") or Path(name).name != name:
                raise ContentError(f"{short_repr(name)} is not a plain file name")


def _has_products(work: Path, folder: Path) -> bool:
    """Check that all files are finished and that each is still in `work` or already in `folder`."""
    if not (work / MARKER).exists():
        return False
    try:
        names = read_object(work / MARKER, _Marker, "").files
    except PackageError:
        return False
    return all((work / FINISHED / name).exists() or (folder / name).exists() for name in names)


def _execute(task: Task, work: Path, run_task: RunTask, progress: Progress) -> None:
    """Execute the task, then write a marker with its files and the values to record."""
    start = time.perf_counter()
    products, marker = work / FINISHED, work / MARKER
    remove(marker)  # before the files that it names
    remove(products)
    make_folder(products)
    result = dict(run_task(task, work, products, progress))
    result["seconds"] = round(time.perf_counter() - start, 3)
    write_json(marker, {"files": product_names(products, Path(task.output)), "result": result})


def _is_disk_full(error: BaseException, store: JobStore, job: Job) -> bool:
    """Check whether a job failed because the disk of the store or of the output is full."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        cause = cause.__cause__
    folders = [store.path, *([Path(job.task.output).parent] if job.task.output else [])]
    return any(f.is_dir() and shutil.disk_usage(f).free < MIN_FREE_BYTES for f in folders)


class _EventProgress:
    """Progress that emits an event at intervals, and stops a job that was cancelled."""

    def __init__(self, store: JobStore, job_id: str, emit: Callable[[Event], None]) -> None:
        self._store, self._job_id, self._emit = store, job_id, emit
        self._emitted = 0.0

    @contextmanager
    def step(self, name: str, total: int | None = None, done: int = 0) -> Iterator[Step]:
        """See Progress."""
        self._emitted = 0.0
        yield _EventStep(self, name, total or 0, done)

    def message(self, text: str) -> None:
        """See Progress."""

    def update(self, stage: str, done: int, total: int) -> None:
        """Emit an event unless the last one is too recent."""
        now = time.monotonic()
        if now - self._emitted < PROGRESS_INTERVAL_S and done != total:
            return
        self._emitted = now
        if self._store.is_cancelling(self._job_id):
            raise JobCancelledError
        self._emit(JobProgressed(self._job_id, stage, done, total))


class _EventStep:
    def __init__(self, progress: _EventProgress, name: str, total: int, done: int) -> None:
        self._progress, self._name, self._total, self._done = progress, name, total, done
        self.advance(0)

    def advance(self, n: int = 1) -> None:
        self._done += n
        self._progress.update(self._name, self._done, self._total)

    def detail(self, text: str) -> None:
        pass

    def skip(self, reason: str) -> None:
        pass


def job_state(store: JobStore, job_id: str) -> JobFinished:
    """Look up the state of a job that another process claimed. Queue it again if that process died.

    Args:
        store: The job store.
        job_id: ID of the job.

    Returns:
        The state; a job whose file was removed counts as cancelled.

    Raises:
        TalkheadError: If the job's file cannot be read or moved.
    """
    store.recover([job_id])
    job = store.find(job_id)
    if job is None:
        return JobFinished(job_id, CANCELLED, "its file was removed")
    retry_at = time.time() + 1.0 if job.status not in (QUEUED,) else job.retry_at
    return JobFinished(job_id, job.status, job.reason, retry_at, job.result)


def fail_orphan(store: JobStore, job_id: str, reason: str, max_tries: int) -> Job | None:
    """Record the failure of a job whose worker process died.

    Args:
        store: The store.
        job_id: ID of the job.
        reason: What happened to the worker.
        max_tries: Number of failures after which the job is marked as failed.

    Returns:
        The job in its new state, or None if it was not left running.

    Raises:
        TalkheadError: If the job's file cannot be read, written or moved.
    """
    job = store.find(job_id)
    if job is None or job.status != RUNNING:
        return None
    with store.hold(job) as claim:
        if claim is None:
            return None
        if claim.job.result:
            claim.move(claim.job, DONE)
        else:
            claim.fail(reason, max_tries)
        return claim.job
