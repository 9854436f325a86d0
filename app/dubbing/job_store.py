"""Jobs on disk: each a small JSON file in the folder of its status. No daemon, no database.

HOME/jobs/
  queued/ running/ done/ failed/ cancelled/     ID.json each; a job is in exactly one of them
  work/ID/                what a job that isn't done has made so far
  locks/ID                held by whoever works on the job, gone with that process
  cancelling/ID           somebody wants the running job stopped

A job changes its status by one rename. Whoever works on it holds its lock, and the system ends the lock
with the process: so a job in running/ whose lock is free belongs to nobody, and goes back to the queue.
One output, one job: a job's id is made of where its output goes.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from talkhead import storage
from talkhead.app.home.identities import name_from_video
from talkhead.app.request import named_files
from talkhead.config import bounded, from_json
from talkhead.errors import PackageError, TalkheadError
from talkhead.locks import FileLock, is_locked
from talkhead.terminal import printable_json

STATUSES = ("queued", "running", "done", "failed", "cancelled")
QUEUED, RUNNING, DONE, FAILED, CANCELLED = STATUSES
FORMAT = 1
OLDER_ADVICE = "Remove it, and run the same talkhead dub again"
MAX_JOB_BYTES = 1 << 20
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 300.0
"""How long a job that failed waits before it is tried again: at first, doubled each time, at most."""
FIT = "fit"
PACKAGE = "package"
"""Key of a result: the `package_fingerprint` of the identity package that the job used."""
ADDING = "adding"
"""The lock of whoever adds jobs."""


@dataclass(frozen=True)
class Task:
    """What a job is to do. Paths are absolute.

    kind: "line", a line said, or "fit", a person learnt. identity: who, as a name or a package's
    folder. output: the finished file; "" for a fit. video: the footage to fit, or the one whose
    timeline a line keeps. digest: SHA-256 of the footage to fit. preset: of a fit. options: of
    OutputOptions, those given. needs: the id of the job that must be done before.
    """

    kind: str
    identity: str
    audio: str = ""
    output: str = ""
    video: str = ""
    digest: str = ""
    renderer: str = ""
    mode: str = "paste"
    preset: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: str = ""

    @property
    def id(self) -> str:
        """Of the output, readable: the same for every task with this output; of a fit, of who, by their
        footage, and how."""
        is_fit = self.kind == FIT
        goal = Path(self.identity if is_fit else self.output)
        what = f"{FIT} {self.renderer} {self.digest}" if is_fit else self.kind
        digest = _digest(f"{what} {goal}")[:10]
        return f"{_FIT_PREFIX if is_fit else ''}{name_from_video(goal)[:40]}-{digest}"

    @property
    def files(self) -> list[Path]:
        """The files that it reads: sound, footage, and what its options name."""
        return [
            *(Path(path) for path in (self.audio, self.video) if path),
            *named_files(self.options),
        ]

    def fingerprint(self) -> str:
        """Another one for another task, or when a file that it reads was replaced."""
        files = [_file_state(path) for path in self.files]
        what = {name: value for name, value in asdict(self).items() if name != "needs"}
        text = json.dumps([what, files], sort_keys=True, ensure_ascii=False)
        return _digest(text)[:16]


def _digest(text: str) -> str:
    """SHA-256 of a text; names of files that are no UTF-8 have lone surrogates."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


_FIT_PREFIX = f"{FIT}-"


def _file_state(path: Path) -> list[int]:
    """Size and time of change; nothing for a file that isn't there."""
    try:
        state = os.stat(path)
    except OSError:
        return []
    return [state.st_size, state.st_mtime_ns]


@dataclass(frozen=True)
class Job:
    """A task and how far it is. status: the folder it is in.

    order: its place among others. made_of: the task's fingerprint. tries: how often it has failed.
    retry_at: not to be tried again before, Unix time. reason: why it failed last. result: of a job
    that is done, else empty.
    """

    id: str
    status: str
    task: Task
    order: int
    made_of: str
    tries: int = bounded(0, 0, 1_000_000)
    retry_at: float = bounded(0.0, 0.0, 1e12)
    reason: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What the job's file holds; the status is where it lies."""
        return {"format": FORMAT, **{k: v for k, v in asdict(self).items() if k != "status"}}


class JobStore:
    """The jobs of one home folder. Any number of processes may work on them at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Make the folders. Raises TalkheadError where that can't be done."""
        for name in (*STATUSES, "work", "locks", "cancelling", "temporary"):
            storage.make_folder(self.path / name)

    def work_path(self, job_id: str) -> Path:
        """The folder of what a job has made so far."""
        return self.path / "work" / job_id

    # ------------------------------------------------------------------------ looking

    def find(self, job_id: str) -> Job | None:
        """The job of that id, if there is one and it can be read."""
        for _ in range(2):  # it may move on while we look
            for status in STATUSES:
                job = self._read(status, job_id)
                if job is not None:
                    return job
        return None

    def jobs(self, statuses: Collection[str] = STATUSES) -> list[Job]:
        """All jobs of those statuses in their order. Damaged files are left out."""
        found: dict[str, Job] = {}
        for status in STATUSES:  # the order in which a job moves on: a later one is the newer
            if status in statuses:
                for job_id in self._ids(status):
                    job = self._read(status, job_id)
                    if job is not None:
                        found[job_id] = job
        return sorted(found.values(), key=lambda job: (job.order, job.id))

    def open_fits(self) -> list[Task]:
        """The fits that are still to be made, whichever table asked for them."""
        found = (
            self._read(status, job_id)
            for status in (QUEUED, RUNNING)
            for job_id in self._ids(status)
            if job_id.startswith(_FIT_PREFIX)
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
        """The job in a file, None where it has gone on, or was torn by a power cut: whoever adds it again
        writes it anew. Raises PackageError for one of another version."""
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
        """Files that hold no job, and that nothing is done with."""
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
        """Queue tasks that aren't there yet, and those whose job was of another task, has lost its
        output, or was done with another package than it would be now.

        package_of: the state of the package that a task would be done with now, "" where there is
        none yet. Jobs that are running, done with their output, set aside or cancelled stay as they
        are. Raises TalkheadError.
        """
        self.prepare()
        with self._adding():
            known = {job.id: job for job in self.jobs()}
            order = 1 + max((job.order for job in known.values()), default=0)
            fresh: list[Job] = []
            for place, task in enumerate(tasks):
                job = Job(task.id, QUEUED, task, order + place, task.fingerprint())
                old = known.get(job.id)
                if old is None:
                    fresh.append(job)
                elif not _is_settled(old, job, package_of(task)):
                    self._replace(old, job)
            self._write_all(fresh)

    @contextmanager
    def _adding(self) -> Iterator[None]:
        """A block for one process at a time: two that add the same job at once would write it twice."""
        while (lock := FileLock.take(self.path / "locks" / ADDING)) is None:
            time.sleep(0.02)
        try:
            yield
        finally:
            lock.release()

    def _replace(self, old: Job, job: Job) -> None:
        """Queue a job in place of an old one; not if that is being worked on just now."""
        with self.hold(old) as claim:
            if claim is not None:
                storage.remove(self.work_path(old.id))
                claim.queue(job)

    def _write_all(self, jobs: list[Job]) -> None:
        """Write the files of new jobs: many of them, so the disk is waited for once, not for each."""
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
        """Have the job's file say what job says, whole or as before, where its status is."""
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
        """Whether the job moved from one status to another; not if it wasn't there any more."""
        target = self._file(new, job_id)
        with storage.translate_os_errors(target):
            try:
                os.replace(self._file(old, job_id), target)
            except FileNotFoundError:
                return False
            storage.sync(target.parent)
        return True

    # ------------------------------------------------------------------------ working

    @contextmanager
    def claim(self, job_id: str) -> Iterator[Claim | None]:
        """A block in which a queued job runs and is ours; None if it isn't to be had."""
        job = self._read(QUEUED, job_id)
        with self.hold(job) as claim:
            if claim is not None:
                claim.move(claim.job, RUNNING)
            yield claim

    @contextmanager
    def hold(self, job: Job | None) -> Iterator[Claim | None]:
        """A block in which nobody else changes a job; None while somebody works on it, or if it has
        another status by now."""
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
        """Queue the running jobs that nobody works on any more, all or of those ids; their ids."""
        recovered = []
        for job_id in self._ids(RUNNING) if ids is None else ids:
            with self.hold(self._read(RUNNING, job_id)) as claim:
                if claim is not None:
                    claim.move(claim.job, DONE if claim.job.result else QUEUED)
                    recovered.append(job_id)
        return recovered

    def tidy(self) -> None:
        """Remove what is left of jobs that are done, and of processes that were killed."""
        storage.remove_stale(self.path / "temporary", "")
        for entry in self._entries("locks"):
            is_locked(entry)  # removes it where it isn't
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
        """Queue set aside or cancelled jobs again, their failures forgotten; the ids of those queued."""
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
        """Cancel queued, running and set-aside jobs; a running one stops within a second. Their ids."""
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
        """A block at whose end jobs are gone with all that they left. Raises TalkheadError, before the
        block, for one that somebody works on."""
        with ExitStack() as stack:
            for job in jobs:
                if stack.enter_context(self.hold(job)) is None:
                    raise TalkheadError(
                        f"job {job.id}: somebody works on it. Wait for it, or stop it: talkhead jobs "
                        f"cancel {job.id}"
                    )
            yield
            for job in jobs:
                self._file(job.status, job.id).unlink(missing_ok=True)
                storage.remove(self.work_path(job.id))
                storage.remove(self.path / "cancelling" / job.id)

    def is_cancelling(self, job_id: str) -> bool:
        """Whether somebody wants the job stopped."""
        return (self.path / "cancelling" / job_id).exists()


def _is_settled(old: Job, new: Job, package: str) -> bool:
    """Whether an old job needs nothing done for the new one with the same output."""
    if old.status == RUNNING:
        return True
    if old.made_of != new.made_of:
        return False
    if old.status != DONE:
        return True
    is_made = old.task.output != "" and Path(old.task.output).exists() and bool(old.result)
    return is_made and package in ("", old.result.get(PACKAGE, package))


def _encoded(job: Job) -> bytes:
    text = json.dumps(job.to_json(), ensure_ascii=False, indent=1)
    return f"{printable_json(text)}\n".encode()


class Claim:
    """A job that this process holds the lock of, and what may be done with it."""

    def __init__(self, store: JobStore, job: Job) -> None:
        self.store, self.job = store, job

    def move(self, job: Job, status: str) -> None:
        """Have the file say what job says, then move it to a status.

        Killed between the two, the job is still where it was, and still whole.
        """
        unmoved = replace(job, status=self.job.status)
        if unmoved != self.job:
            self.store.write(unmoved)
        if self.job.status != status:
            self.store.rename(job.id, self.job.status, status)
        self.job = replace(job, status=status)

    def queue(self, job: Job) -> None:
        """Have job done, as if nobody had ever wanted it stopped."""
        self._unmark()
        self.move(job, QUEUED)

    def complete(self, result: Mapping[str, Any]) -> None:
        """The job is done; what it worked with goes. result must not be empty."""
        self.move(replace(self.job, result=result, reason=""), DONE)
        self._clear()

    def fail(self, reason: str, most_tries: int) -> None:
        """The job failed: it is tried again later, or set aside after most_tries."""
        tries = self.job.tries + 1
        wait_s = min(FIRST_WAIT_S * 2.0 ** (tries - 1), LONGEST_WAIT_S)
        job = replace(self.job, tries=tries, reason=reason, retry_at=time.time() + wait_s)
        self.move(job, FAILED if tries >= most_tries else QUEUED)

    def requeue(self) -> None:
        """Queue the job as if it had not been claimed."""
        self.move(self.job, QUEUED)

    def cancel(self) -> None:
        """The job is not wanted any more."""
        self.move(replace(self.job, reason="cancelled"), CANCELLED)
        self._clear()

    def _clear(self) -> None:
        storage.remove(self.store.work_path(self.job.id))
        self._unmark()

    def _unmark(self) -> None:
        storage.remove(self.store.path / "cancelling" / self.job.id)


def choose_jobs(store: JobStore, ids: Collection[str], statuses: Collection[str]) -> list[Job]:
    """The jobs of those ids, or beginnings of ids; without any, all of the statuses.

    Raises PackageError naming an id that there is none of, or more than one.
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
            several = f"there are {len(found)} whose ids begin so" if found else "there is none"
            raise PackageError(f"job {wanted}: {several}. `talkhead jobs list` shows their ids")
        chosen += found
    return chosen


def release_orphans(store: JobStore, job_id: str, reason: str, most_tries: int) -> Job | None:
    """The job of a worker that died, queued again or set aside; None if it wasn't left running."""
    job = store.find(job_id)
    if job is None or job.status != RUNNING:
        return None
    with store.hold(job) as claim:
        if claim is None:
            return None
        if claim.job.result:
            claim.move(claim.job, DONE)
        else:
            claim.fail(reason, most_tries)
        return claim.job
