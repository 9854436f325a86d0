"""The server's own state: records, jobs, and what happens when a job has ended."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from talkhead.app.dub import DubOptions, make_pool
from talkhead.app.dubbing.events import JobFinished
from talkhead.app.dubbing.job import DONE, QUEUED, RUNNING, STATUSES, Job, Task
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.dubbing.planner import package_finder
from talkhead.app.dubbing.scheduler import WorkerPool
from talkhead.app.home.identities import Home
from talkhead.app.home.scratch import open_home
from talkhead.app.server.avatars import Avatars
from talkhead.app.server.callbacks import CallbackSender
from talkhead.app.server.logs import log
from talkhead.app.server.metrics import Metrics
from talkhead.app.server.previews import Previews
from talkhead.app.server.problems import Problem
from talkhead.app.server.records import DubRecord, FitRecord, Origin, Records, VideoRecord
from talkhead.app.server.runner import JobRunner
from talkhead.app.server.settings import GIB, ServerSettings
from talkhead.app.server.tickets import Tickets
from talkhead.app.server.web_heads import WebHeads
from talkhead.app.server.web_lines import WebLines
from talkhead.errors import TalkheadError
from talkhead.locks import FileLock
from talkhead.storage import make_folder

RETRY_AFTER_S = 30
STOP_S = 60.0
"""How long a deletion waits for a running job to stop."""
POLL_S = 0.1

MakePool = Callable[[], WorkerPool]


class Service:
    """State that the routes share. One process at a time serves a home folder.

    Args:
        settings: Settings of the server.
        make_workers: Function that makes the workers. None: processes of this machine.

    Attributes:
        settings: Settings of the server.
        home: The home folder.
        store: The job store, that of `dub`.
        videos: Records of videos.
        fits: Records of fits.
        dubs: Records of tables.
        runner: Runs the jobs.
        tickets: Tickets of files.
        metrics: Counters.
        avatars: The loaded people.
        previews: Renders stills.
        web_heads: Writes web exports.
        web_lines: Prepares lines for web exports.
        callbacks: Reports finished jobs.
        lock: Held while records and jobs are added or removed.
        is_stopping: True once the server has begun to stop.
    """

    def __init__(self, settings: ServerSettings, make_workers: MakePool | None = None) -> None:
        self.settings = settings
        self.home = Home(settings.home)
        self.path = settings.home / "server"
        self.store = JobStore(settings.home / "jobs")
        self.videos = Records(self.path / "videos", VideoRecord)
        self.fits = Records(self.path / "fits", FitRecord)
        self.dubs = Records(self.path / "dubs", DubRecord)
        self.tickets = Tickets()
        self.metrics = Metrics(self._gauges)
        self.avatars = Avatars(self.home, settings.device)
        self.previews = Previews(self.home, self.avatars)
        self.web_heads = WebHeads(self.home, settings.device)
        self.web_lines = WebLines(self.avatars)
        self.callbacks = CallbackSender(settings.callbacks)
        self.lock = threading.RLock()
        self.is_stopping = False
        self._keys: set[str] = set()
        self._names: set[str] = set()
        self._process_lock: FileLock | None = None
        self.runner = JobRunner(
            self.store,
            make_workers or self._make_workers,
            self._open_jobs,
            self._handle_finished,
            lambda problem: log("jobs stopped", reason=problem),
        )

    # ------------------------------------------------------------------- start and stop

    def start(self) -> None:
        """Read the records, and run the jobs that an earlier server has left unfinished.

        Raises:
            TalkheadError: Another server uses the home folder, or it cannot be written.
        """
        make_folder(self.path)
        self._process_lock = FileLock.take(self.path / "lock")
        if self._process_lock is None:
            raise TalkheadError(
                f"{self.home.path}: another talkhead serve uses this folder. Stop it, or pass another "
                "--home"
            )
        open_home(self.home.path)
        self.store.prepare()
        self.store.recover()
        self.store.tidy()
        shutil.rmtree(self.incoming, ignore_errors=True)
        make_folder(self.incoming)
        for records in (self.videos, self.fits, self.dubs):
            for problem in records.load():
                log("damaged record", reason=problem)
        self._resume()
        self.callbacks.start(self._mark_notified)
        self.runner.start()

    def stop(self) -> None:
        """Stop the workers. Their jobs resume at the next start."""
        self.is_stopping = True
        self.web_heads.stop()
        self.runner.stop()
        self.callbacks.stop()
        if self._process_lock is not None:
            self._process_lock.release()
            self._process_lock = None

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Make a folder for the duration of a `with` block.

        Yields:
            The folder.
        """
        folder = make_folder(self.incoming / secrets.token_hex(8))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def incoming(self) -> Path:
        """Folder for uploads that have not arrived completely."""
        return self.path / "incoming"

    def _make_workers(self) -> WorkerPool:
        """Make as many workers as `dub` would for a long table."""
        options = DubOptions(
            workers=self.settings.workers, device=self.settings.device, tries=self.settings.tries
        )
        return make_pool(None, self.home, options)

    def _resume(self) -> None:
        """Add jobs that a killed server had not added yet, and finish deletions."""
        finished = []
        for record in self.videos.all():
            if record.is_deleted:
                self._remove_video(record)
            elif self.store.find(record.task.id) is None:
                finished.append(record.task)
        fits = [one.task for one in self.fits.all() if self.store.find(one.task.id) is None]
        fits = [task for task in fits if task.identity not in self.home.names()]
        self.store.add([*fits, *finished])
        for one in self._with_jobs():
            job = self.store.find(one.task.id)
            if job is not None and job.status not in (QUEUED, RUNNING):
                self._notify(one, job.status, job.reason)

    def _open_jobs(self) -> list[Job]:
        """List the server's jobs that are not finished, with the fits that they need."""
        own = {one.task.id for one in self._with_jobs()}
        own |= {task.id for dub in self.dubs.all() for task in dub.fits}
        return [job for job in self.store.jobs() if job.id in own]

    def _with_jobs(self) -> list[VideoRecord | FitRecord]:
        """List the records that each have a job."""
        return [*self.videos.all(), *self.fits.all()]

    def _gauges(self) -> Mapping[str, float | Mapping[str, float]]:
        free = shutil.disk_usage(self.home.path).free if self.home.path.is_dir() else 0
        return {
            "jobs": self.count_jobs(),
            "videos": len(self.videos.all()),
            "identities": len(self.home.names()),
            "disk_free_bytes": free,
        }

    def count_jobs(self) -> dict[str, float]:
        """Count the jobs of the home folder.

        Returns:
            Numbers by status.
        """
        return {
            status: sum(1 for _ in (self.store.path / status).glob("*.json")) for status in STATUSES
        }

    # ------------------------------------------------------------------------- adding

    def admit(self, n_bytes: int) -> None:
        """Check that there is room for another job and its upload.

        Args:
            n_bytes: Size of the upload; 0 if unknown.

        Raises:
            Problem: There is none; the caller may try again later.
        """
        limits = self.settings.limits
        if self.is_stopping:
            raise Problem(503, "the server is stopping. Try again later", _RETRY)
        counts = self.count_jobs()
        n_open = int(counts[QUEUED] + counts[RUNNING])
        if n_open >= limits.n_queued:
            raise Problem(
                503,
                f"{n_open} jobs are waiting, and no more are accepted. Try again later",
                _RETRY,
            )
        self.check_disk(n_bytes)

    def check_disk(self, n_bytes: int) -> None:
        """Check that there is room for an upload.

        Args:
            n_bytes: Its size; 0 if unknown.

        Raises:
            Problem: The disk is nearly full.
        """
        free = shutil.disk_usage(self.path).free
        if (
            free - 2 * n_bytes < self.settings.limits.free_bytes
        ):  # the upload, and its copy in place
            raise Problem(
                507,
                f"the disk of the server is nearly full ({free / GIB:.1f} GiB free). Delete videos "
                "that are no longer needed",
            )

    @contextmanager
    def once(self, records: Records[Any], key: str, request: str) -> Iterator[Any]:
        """Hold an Idempotency-Key for the duration of a `with` block.

        Args:
            records: Records of the kind that the request makes.
            key: The key; "" for none.
            request: Checksum of the request.

        Yields:
            The record that an earlier request with this key has made, or None.

        Raises:
            Problem: The key belongs to another request, or a request with it is being processed.
        """
        if not key:
            yield None
            return
        with self.lock:
            if key in self._keys:
                raise Problem(409, "a request with this Idempotency-Key is being processed")
            found = next((one for one in records.all() if one.origin.key == key), None)
            if found is not None and found.origin.request != request:
                raise Problem(
                    422, "this Idempotency-Key belongs to another request. Choose a new one"
                )
            self._keys.add(key)
        try:
            yield found
        finally:
            with self.lock:
                self._keys.discard(key)

    @contextmanager
    def reserved(self, name: str) -> Iterator[None]:
        """Reserve the name of a person for the duration of a `with` block.

        Args:
            name: The name.

        Yields:
            None.

        Raises:
            Problem: Another request is adding or deleting the person.
        """
        with self.lock:
            if name in self._names:
                raise Problem(
                    409, f"another request is adding or deleting {name}. Try again", _RETRY
                )
            self._names.add(name)
        try:
            yield
        finally:
            with self.lock:
                self._names.discard(name)

    def add(self, tasks: Sequence[Task]) -> None:
        """Queue tasks whose records were written.

        Args:
            tasks: The tasks, fits first.

        Raises:
            TalkheadError: The disk is full.
        """
        self.store.add(tasks, package_finder(self.home))
        jobs = [self.store.find(task.id) for task in tasks]
        self.runner.submit(job for job in jobs if job is not None)

    # ----------------------------------------------------------------------- deleting

    def delete_video(self, record: VideoRecord) -> None:
        """Delete a video. If it is being rendered, it is stopped first.

        Args:
            record: Its record.

        Raises:
            TalkheadError: A file cannot be removed.
        """
        with self.lock:
            self.videos.write(replace(record, is_deleted=True))
        self.store.cancel([record.task.id])
        self._remove_video(record)

    def stop_jobs(self, job_ids: Sequence[str]) -> None:
        """Cancel jobs and wait until none is running.

        Args:
            job_ids: Their IDs.

        Raises:
            Problem: One is still running after a minute.
        """
        self.store.cancel(job_ids)
        end = time.monotonic() + STOP_S
        while not all(self._has_stopped(job_id) for job_id in job_ids):
            if time.monotonic() > end:
                raise Problem(
                    409, "a job of this person is being stopped. Try again in a minute", _RETRY
                )
            time.sleep(POLL_S)

    def _has_stopped(self, job_id: str) -> bool:
        """Check that no process works on a job that was cancelled."""
        job = self.store.find(job_id)
        with self.store.hold(job) as claim:  # a process holds it until shortly after its end
            if claim is not None and claim.job.status in (
                QUEUED,
                RUNNING,
            ):  # its process was killed
                claim.cancel()
            return job is None or claim is not None

    def _remove_video(self, record: VideoRecord) -> bool:
        """Remove a video and its job, unless the job is still running."""
        job = self.store.find(record.task.id)
        if job is not None:
            try:
                with self.store.removing([job]):
                    self.videos.remove(record.id)
            except TalkheadError:  # it is running, and is removed when it has stopped
                return False
        self.videos.remove(record.id)
        return True

    # ------------------------------------------------------------------------- finished

    def _handle_finished(self, job: Job, event: JobFinished) -> None:
        """Handle the end of a job: metrics, log, callback, and a deletion that has waited for
        it."""
        kind = "video" if job.task.output else "fit"
        frames = int(event.result.get("n_frames", 0)) if event.status == DONE else 0
        self.metrics.count_job(kind, event.status, frames, float(event.result.get("seconds", 0.0)))
        log("job ended", job=job.id, kind=kind, status=event.status)
        for record in self._with_jobs():
            if record.task.id != job.id:
                continue
            if isinstance(record, VideoRecord) and record.is_deleted:
                self._remove_video(record)
            else:
                self._notify(record, event.status, event.reason)

    def _notify(self, record: VideoRecord | FitRecord, status: str, reason: str) -> None:
        origin = record.origin
        if origin.callback_url and not origin.is_notified:
            is_video = isinstance(record, VideoRecord)
            kind = f"{'video' if is_video else 'identity'}.{'completed' if status == DONE else 'failed'}"
            data = {"id": record.id, "error": reason if status != DONE else ""}
            self.callbacks.send(record.id, origin.callback_url, kind, data)

    def _mark_notified(self, record_id: str) -> None:
        """Record that the URL of a record was notified, so that it is not notified again."""
        with self.lock:
            video, fit = self.videos.find(record_id), self.fits.find(record_id)
            if video is not None:
                self.videos.write(replace(video, origin=notified(video.origin)))
            elif fit is not None:
                self.fits.write(replace(fit, origin=notified(fit.origin)))


def notified(origin: Origin) -> Origin:
    """Mark an origin as notified.

    Args:
        origin: Origin of a record.

    Returns:
        The origin with `is_notified` set.
    """
    return replace(origin, is_notified=True)


_RETRY = {"Retry-After": str(RETRY_AFTER_S)}
