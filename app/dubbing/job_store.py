"""Jobs on disk: one small JSON file per job, in the folder of its status. No daemon, no database.

HOME/jobs/
  queued/ running/ done/ failed/ cancelled/     ID.json; a job is in exactly one of these folders
  work/ID/                intermediate files of a job that is not done
  locks/ID                lock of the process that runs the job; released when that process ends
  cancelling/ID           request to stop the running job

A job changes status with a single rename. The process that runs it holds its lock, which the operating
system releases when the process ends: a job in running/ whose lock is free has no owner and is queued
again. Each output has one job: the job's ID is derived from the output path.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from talkhead import storage
from talkhead.app.dubbing.job import (
    CANCELLED,
    DONE,
    FAILED,
    FIT,
    FIT_PREFIX,
    FORMAT,
    PACKAGE,
    QUEUED,
    RUNNING,
    STATUSES,
    Job,
    Task,
)
from talkhead.config import from_json
from talkhead.errors import PackageError, TalkheadError
from talkhead.locks import FileLock, is_locked
from talkhead.terminal import printable_json

OLDER_ADVICE = "Remove it, and run the same talkhead dub again"
MAX_JOB_BYTES = 1 << 20
INITIAL_BACKOFF_S, MAX_BACKOFF_S = 2.0, 300.0
"""Delay before a job is retried after its first failure. It doubles with each failure, up to a
maximum."""
ADDING = "adding"
"""Name of the lock held while jobs are added."""


class JobStore:
    """The jobs of one home folder. Any number of processes can use it at once.

    Args:
        path: The folder of the jobs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Create the folders.

        Raises:
            TalkheadError: If a folder cannot be created.
        """
        for name in (*STATUSES, "work", "locks", "cancelling", "temporary"):
            storage.make_folder(self.path / name)

    def work_path(self, job_id: str) -> Path:
        """Return the folder of a job's intermediate files.

        Args:
            job_id: ID of the job.

        Returns:
            The folder, which need not exist.
        """
        return self.path / "work" / job_id

    # ------------------------------------------------------------------------ reading

    def find(self, job_id: str) -> Job | None:
        """Find a job by its ID.

        Args:
            job_id: ID of the job.

        Returns:
            The job, or None if there is none that can be read.

        Raises:
            PackageError: If the job's file has a different format version.
        """
        for _ in range(2):  # its status may change during the search
            for status in STATUSES:
                job = self._read(status, job_id)
                if job is not None:
                    return job
        return None

    def jobs(self, statuses: Collection[str] = STATUSES) -> list[Job]:
        """List jobs in queue order. Damaged files are skipped.

        Args:
            statuses: The statuses to include.

        Returns:
            The jobs.

        Raises:
            PackageError: If a job's file has a different format version.
        """
        found: dict[str, Job] = {}
        for status in STATUSES:  # in the order of a job's progress: a later one is newer
            if status in statuses:
                for job_id in self._ids(status):
                    job = self._read(status, job_id)
                    if job is not None:
                        found[job_id] = job
        return sorted(found.values(), key=lambda job: (job.order, job.id))

    def open_fits(self) -> list[Task]:
        """List the tasks of the queued and running fits of all tables.

        Returns:
            The tasks.

        Raises:
            PackageError: If a job's file has a different format version.
        """
        found = (
            self._read(status, job_id)
            for status in (QUEUED, RUNNING)
            for job_id in self._ids(status)
            if job_id.startswith(FIT_PREFIX)
        )
        return [job.task for job in found if job is not None and job.task.kind == FIT]

    def _ids(self, status: str) -> Iterator[str]:
        folder = self.path / status
        if folder.is_dir():
            with storage.translate_os_errors(folder), os.scandir(folder) as entries:
                names = [entry.name for entry in entries]
            yield from (name.removesuffix(".json") for name in names if name.endswith(".json"))

    def _file(self, status: str, job_id: str) -> Path:
        return self.path / status / f"{job_id}.json"

    def _read(self, status: str, job_id: str) -> Job | None:
        """Read a job's file. Return None if it is missing or damaged; adding the job again rewrites it.
        Raise PackageError for a different format version."""
        path = self._file(status, job_id)
        try:
            data = storage.decode_json(storage.read_bytes(path, MAX_JOB_BYTES))
        except (TalkheadError, ValueError):
            return None
        if not isinstance(data, dict) or type(version := data.pop("format", None)) is not int:
            return None
        storage.check_format(path, "a job", version, FORMAT, OLDER_ADVICE)
        try:
            job = from_json(Job, {**data, "status": status})
        except storage.ContentError:
            return None
        return job if job.id == job_id else None

    def damaged(self) -> list[Path]:
        """List the files that contain no valid job. They are ignored everywhere else.

        Returns:
            Their paths.
        """
        files = [self._file(status, job_id) for status in STATUSES for job_id in self._ids(status)]
        return [
            path
            for path in files
            if self._read(path.parent.name, path.stem) is None and path.exists()
        ]

    # ------------------------------------------------------------------------ adding

    def add(
        self, tasks: Iterable[Task], package_of: Callable[[Task], str] = lambda task: ""
    ) -> None:
        """Queue new tasks, and tasks whose existing job is out of date.

        A job is out of date if its task or an input file has changed, if it is done and its output is
        missing, or if it used a different package from the one that it would use now. Other jobs
        are left as they are, whether running, done, failed or cancelled.

        Args:
            tasks: The tasks.
            package_of: Function from a task to the fingerprint of the package that it would use now;
                "" if there is none yet.

        Raises:
            TalkheadError: If the files cannot be written.
        """
        self.prepare()
        with self._adding():
            known = {job.id: job for job in self.jobs()}
            order = 1 + max((job.order for job in known.values()), default=0)
            new: list[Job] = []
            for position, task in enumerate(tasks):
                job = Job(task.id, QUEUED, task, order + position, task.fingerprint())
                old = known.get(job.id)
                if old is None:
                    new.append(job)
                elif not _is_current(old, job, package_of(task)):
                    self._replace(old, job)
            self._write_all(new)

    @contextmanager
    def _adding(self) -> Iterator[None]:
        """Hold the lock for adding: two processes that add the same job at once would write it twice."""
        while (lock := FileLock.take(self.path / "locks" / ADDING)) is None:
            time.sleep(0.02)
        try:
            yield
        finally:
            lock.release()

    def _replace(self, old: Job, job: Job) -> None:
        """Replace an old job by a queued one, unless the old one is running at this moment."""
        with self.hold(old) as claim:
            if claim is not None:
                storage.remove(self.work_path(old.id))
                claim.queue(job)

    def _write_all(self, jobs: list[Job]) -> None:
        """Write the files of new jobs. They can be many, so they share one sync to disk."""
        token = secrets.token_hex(4)
        named = [(self.path / "temporary" / f"{job.id}-{token}.json", job) for job in jobs]
        with storage.translate_os_errors(self.path):
            for temporary, job in named:
                temporary.write_bytes(_encoded(job))
            if jobs and hasattr(os, "sync"):
                os.sync()
            for temporary, job in named:
                os.replace(temporary, self._file(QUEUED, job.id))
            storage.sync(self.path / QUEUED)

    def write(self, job: Job) -> None:
        """Write a job's file atomically into the folder of its status.

        Args:
            job: The job.

        Raises:
            TalkheadError: If the file cannot be written.
        """
        temporary = self.path / "temporary" / f"{job.id}-{secrets.token_hex(4)}.json"
        target = self._file(job.status, job.id)
        with storage.translate_os_errors(target):
            try:
                temporary.write_bytes(_encoded(job))
                storage.sync(temporary)
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    def rename(self, job_id: str, old: str, new: str) -> bool:
        """Move a job's file from one status to another.

        Args:
            job_id: ID of the job.
            old: Its present status.
            new: Its new status.

        Returns:
            False if the job no longer had the old status.

        Raises:
            TalkheadError: If the file cannot be moved.
        """
        target = self._file(new, job_id)
        with storage.translate_os_errors(target):
            try:
                os.replace(self._file(old, job_id), target)
            except FileNotFoundError:
                return False
            storage.sync(target.parent)
        return True

    # ----------------------------------------------------------------------- claiming

    @contextmanager
    def claim(self, job_id: str) -> Iterator[Claim | None]:
        """Claim a queued job for the duration of a `with` block and mark it as running.

        Args:
            job_id: ID of the job.

        Yields:
            The claim, or None if the job is not available.

        Raises:
            TalkheadError: If the job's file cannot be read or moved.
        """
        job = self._read(QUEUED, job_id)
        with self.hold(job) as claim:
            if claim is not None:
                claim.move(claim.job, RUNNING)
            yield claim

    @contextmanager
    def hold(self, job: Job | None) -> Iterator[Claim | None]:
        """Lock a job for the duration of a `with` block.

        Args:
            job: The job. None is treated as a job that is not available.

        Yields:
            The claim, or None if another process holds the job or its status has changed.

        Raises:
            TalkheadError: If the lock cannot be created.
        """
        lock = None if job is None else FileLock.take(self.path / "locks" / job.id)
        if job is None or lock is None:
            yield None
            return
        try:
            now = self._read(job.status, job.id)
            yield None if now is None else Claim(self, now)
        finally:
            lock.release()

    def recover(self, ids: Collection[str] | None = None) -> list[str]:
        """Queue running jobs whose process has ended.

        Args:
            ids: IDs of the jobs to check; None checks all.

        Returns:
            The IDs of the jobs that were moved.

        Raises:
            TalkheadError: If a job's file cannot be read or moved.
        """
        recovered = []
        for job_id in self._ids(RUNNING) if ids is None else ids:
            with self.hold(self._read(RUNNING, job_id)) as claim:
                if claim is not None:
                    claim.move(claim.job, DONE if claim.job.result else QUEUED)
                    recovered.append(job_id)
        return recovered

    def tidy(self) -> None:
        """Remove leftovers of finished jobs and of killed processes."""
        storage.remove_stale(self.path / "temporary", "")
        for entry in self._entries("locks"):
            is_locked(entry)  # removes the file of a lock that is free
        for entry in self._entries("work"):
            job = self.find(entry.name)
            if job is not None and job.status in (DONE, CANCELLED):
                with self.hold(job) as claim:
                    if claim is not None:
                        storage.remove(entry)

    def _entries(self, name: str) -> list[Path]:
        folder = self.path / name
        return list(folder.iterdir()) if folder.is_dir() else []

    def retry(self, ids: Iterable[str]) -> list[str]:
        """Queue failed or cancelled jobs again and reset their failures.

        Args:
            ids: IDs of jobs.

        Returns:
            The IDs of the jobs that were queued.

        Raises:
            TalkheadError: If a job's file cannot be read or moved.
        """
        moved = []
        for job_id in ids:
            job = self.find(job_id)
            if job is None or job.status not in (FAILED, CANCELLED):
                continue
            with self.hold(job) as claim:
                if claim is not None:
                    claim.queue(replace(job, tries=0, retry_at=0.0))
                    moved.append(job_id)
        return moved

    def cancel(self, ids: Iterable[str]) -> list[str]:
        """Cancel queued, running and failed jobs. A running job stops within a second.

        Args:
            ids: IDs of jobs.

        Returns:
            The IDs of the jobs that were cancelled or will be.

        Raises:
            TalkheadError: If a job's file cannot be read or moved.
        """
        moved = []
        for job_id in ids:
            job = self.find(job_id)
            if job is None or job.status in (DONE, CANCELLED):
                continue
            (self.path / "cancelling" / job_id).touch()
            with self.hold(job) as claim:
                if claim is not None:
                    claim.cancel()
            moved.append(job_id)
        return moved

    @contextmanager
    def removing(self, jobs: Collection[Job]) -> Iterator[None]:
        """Lock jobs for the duration of a `with` block and remove them and their files at its end.

        Args:
            jobs: The jobs.

        Yields:
            None.

        Raises:
            TalkheadError: Before the block, if one of the jobs is running.
        """
        with ExitStack() as stack:
            for job in jobs:
                if stack.enter_context(self.hold(job)) is None:
                    raise TalkheadError(
                        f"job {job.id}: is running. Wait until it ends, or stop it: talkhead jobs "
                        f"cancel {job.id}"
                    )
            yield
            for job in jobs:
                self._file(job.status, job.id).unlink(missing_ok=True)
                storage.remove(self.work_path(job.id))
                storage.remove(self.path / "cancelling" / job.id)

    def is_cancelling(self, job_id: str) -> bool:
        """Check whether a running job was asked to stop.

        Args:
            job_id: ID of the job.

        Returns:
            True if it was.
        """
        return (self.path / "cancelling" / job_id).exists()


def _is_current(old: Job, new: Job, package: str) -> bool:
    """Check whether an existing job already covers a new one with the same output."""
    if old.status == RUNNING:
        return True
    if old.made_of != new.made_of:
        return False
    if old.status != DONE:
        return True
    has_output = old.task.output != "" and Path(old.task.output).exists() and bool(old.result)
    return has_output and package in ("", old.result.get(PACKAGE, package))


def _encoded(job: Job) -> bytes:
    text = json.dumps(job.to_json(), ensure_ascii=False, indent=1)
    return f"{printable_json(text)}\n".encode()


class Claim:
    """A job whose lock this process holds, with the operations that change it.

    Args:
        store: The job's store.
        job: The job.
    """

    def __init__(self, store: JobStore, job: Job) -> None:
        self.store, self.job = store, job

    def move(self, job: Job, status: str) -> None:
        """Write the job's file, then move it to a status.

        If the process is killed between the two, the job keeps its status and its file is complete.

        Args:
            job: The job with its new values.
            status: Its new status.

        Raises:
            TalkheadError: If the file cannot be written or moved.
        """
        unmoved = replace(job, status=self.job.status)
        if unmoved != self.job:
            self.store.write(unmoved)
        if self.job.status != status:
            self.store.rename(job.id, self.job.status, status)
        self.job = replace(job, status=status)

    def queue(self, job: Job) -> None:
        """Queue the job and withdraw any request to stop it.

        Args:
            job: The job with its new values.

        Raises:
            TalkheadError: If the file cannot be written or moved.
        """
        self._clear_stop_request()
        self.move(job, QUEUED)

    def complete(self, result: Mapping[str, Any]) -> None:
        """Mark the job as done and remove its intermediate files.

        Args:
            result: The values to record. They must not be empty.

        Raises:
            TalkheadError: If the file cannot be written or moved.
        """
        self.move(replace(self.job, result=result, reason=""), DONE)
        self._clear()

    def fail(self, reason: str, max_tries: int) -> None:
        """Record a failure: queue the job for a retry, or mark it as failed.

        Args:
            reason: What went wrong, in one line.
            max_tries: Number of failures after which the job is marked as failed.

        Raises:
            TalkheadError: If the file cannot be written or moved.
        """
        tries = self.job.tries + 1
        wait_s = min(INITIAL_BACKOFF_S * 2.0 ** (tries - 1), MAX_BACKOFF_S)
        job = replace(self.job, tries=tries, reason=reason, retry_at=time.time() + wait_s)
        self.move(job, FAILED if tries >= max_tries else QUEUED)

    def requeue(self) -> None:
        """Queue the job again without counting a failure.

        Raises:
            TalkheadError: If the file cannot be moved.
        """
        self.move(self.job, QUEUED)

    def cancel(self) -> None:
        """Mark the job as cancelled and remove its intermediate files.

        Raises:
            TalkheadError: If the file cannot be written or moved.
        """
        self.move(replace(self.job, reason="cancelled"), CANCELLED)
        self._clear()

    def _clear(self) -> None:
        storage.remove(self.store.work_path(self.job.id))
        self._clear_stop_request()

    def _clear_stop_request(self) -> None:
        storage.remove(self.store.path / "cancelling" / self.job.id)


def choose_jobs(store: JobStore, ids: Collection[str], statuses: Collection[str]) -> list[Job]:
    """Select jobs by ID or unique prefix.

    Args:
        store: The store.
        ids: IDs or prefixes; if empty, all jobs of the statuses are selected.
        statuses: Statuses that apply if no IDs are given.

    Returns:
        The jobs.

    Raises:
        PackageError: If an ID or prefix matches no job, or more than one.
    """
    everything = store.jobs()
    if not ids:
        return [job for job in everything if job.status in statuses]
    chosen = []
    for wanted in ids:
        found = [job for job in everything if job.id == wanted] or [
            job for job in everything if job.id.startswith(wanted)
        ]
        if len(found) != 1:
            problem = f"matches {len(found)} jobs" if found else "matches no job"
            raise PackageError(f"job {wanted}: {problem}. `talkhead jobs list` shows the IDs")
        chosen += found
    return chosen
