"""One job from its claim to its end, by whoever works on it: a worker process, a cluster's driver."""

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
from talkhead.errors import PackageError, TalkheadError, one_line
from talkhead.progress import Progress, Step
from talkhead.storage import (
    ContentError,
    make_folder,
    remove,
    shown,
    write_json,
)

FINISHED, MARKER = "finished", "finished.json"
PROGRESS_INTERVAL_S = 0.5
MIN_FREE_BYTES = 16 * 2**20
"""A job that fails with less than this free has failed for want of space, whatever it said."""


class RunTask(Protocol):
    """Does a task. products: an empty folder for its finished files, the one named like the output
    among them. work: keeps what an interrupted call has made. Returns what is to be remembered."""

    def __call__(
        self, task: Task, work: Path, products: Path, progress: Progress
    ) -> Mapping[str, Any]: ...


class JobCancelledError(Exception):
    """Somebody wants the job stopped."""


class HaltError(TalkheadError):
    """No job can go on: what was wrong is not the job's."""


def run_job(
    store: JobStore,
    job_id: str,
    perform: RunTask,
    max_tries: int,
    tell: Callable[[Event], None],
) -> JobFinished:
    """Claim a job, do it, put its files where they belong, and say so in its file.

    At whatever moment the process is killed, the next call for this job goes on from there. Raises
    TalkheadError when not even the job's file can be written.
    """
    with store.claim(job_id) as claim:
        if claim is None:
            return JobFinished(job_id)
        tell(JobStarted(job_id))
        progress = _ToldProgress(store, job_id, tell)
        halt = ""
        try:
            claim.complete(_done(claim.job, store.work_path(job_id), perform, progress))
        except JobCancelledError:
            claim.cancel()
        except Exception as error:  # whatever is wrong with one job, the others go on
            if isinstance(error, HaltError) or _is_disk_full(error, store, claim.job):
                claim.requeue()
                halt = one_line(error)
            else:
                claim.fail(one_line(error), max_tries)
        job = claim.job
        return JobFinished(job_id, job.status, job.reason, job.retry_at, job.result, halt)


def _done(job: Job, work: Path, perform: RunTask, progress: Progress) -> Mapping[str, Any]:
    """The result of a job whose files are now in place.

    The marker is written when all files are finished: from then on nothing is made again, and what
    has not been moved to its place yet is moved.
    """
    output = Path(job.task.output)
    if not _is_made(work, output.parent):
        if output.name:
            check_subtitles_free(output, build_options(job.task.options))
        _make(job.task, work, perform, progress)
    made = read_object(work / MARKER, _Made, "Remove it, and run the same command again")
    for name in made.files:
        publish(work / FINISHED / name, output.parent / name)
    if output.name:
        settle(output, made.files)
    return dict(made.result)


@dataclass(frozen=True)
class _Made:
    """What a marker says: the finished files, plain names, and what is to be remembered of the job."""

    files: tuple[str, ...]
    result: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name in self.files:
            if name in ("", ".", "..") or Path(name).name != name:
                raise ContentError(f"{shown(name)} is no name of a finished file")


def _is_made(work: Path, folder: Path) -> bool:
    """Whether all files are finished, and each of them is here still or in its place, the folder."""
    if not (work / MARKER).exists():
        return False
    try:
        names = read_object(work / MARKER, _Made, "").files
    except PackageError:
        return False
    return all((work / FINISHED / name).exists() or (folder / name).exists() for name in names)


def _make(task: Task, work: Path, perform: RunTask, progress: Progress) -> None:
    """Do the task; its marker says which files that made, and what is to be remembered."""
    start = time.perf_counter()
    products, marker = work / FINISHED, work / MARKER
    remove(marker)  # before the files that it speaks of
    remove(products)
    make_folder(products)
    result = dict(perform(task, work, products, progress))
    result["seconds"] = round(time.perf_counter() - start, 3)
    write_json(marker, {"files": product_names(products, Path(task.output)), "result": result})


def _is_disk_full(error: BaseException, store: JobStore, job: Job) -> bool:
    """Whether a job failed because there is no space where it works or where its output goes."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        cause = cause.__cause__
    folders = [store.path, *([Path(job.task.output).parent] if job.task.output else [])]
    return any(f.is_dir() and shutil.disk_usage(f).free < MIN_FREE_BYTES for f in folders)


class _ToldProgress:
    """Tells a coordinator now and then, and stops a job that was cancelled."""

    def __init__(self, store: JobStore, job_id: str, tell: Callable[[Event], None]) -> None:
        self._store, self._job_id, self._tell = store, job_id, tell
        self._told = 0.0

    @contextmanager
    def step(self, name: str, total: int | None = None, done: int = 0) -> Iterator[Step]:
        """See Progress."""
        self._told = 0.0
        yield _ToldStep(self, name, total or 0, done)

    def message(self, text: str) -> None:
        """See Progress."""

    def update(self, stage: str, done: int, total: int) -> None:
        """Tell, unless that was done just now."""
        now = time.monotonic()
        if now - self._told < PROGRESS_INTERVAL_S and done != total:
            return
        self._told = now
        if self._store.is_cancelling(self._job_id):
            raise JobCancelledError
        self._tell(JobProgressed(self._job_id, stage, done, total))


class _ToldStep:
    def __init__(self, progress: _ToldProgress, name: str, total: int, done: int) -> None:
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
    """What has become of a job that somebody else has, or had until it died."""
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
