"""Schedule jobs on a worker pool until all have finished."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from talkhead.app.dubbing.events import Event, JobFinished
from talkhead.app.dubbing.job import CANCELLED, DONE, FAILED, FIT, QUEUED, RUNNING, Job
from talkhead.app.dubbing.job_runner import job_state
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.dubbing.progress_view import ProgressView
from talkhead.errors import TalkheadError
from talkhead.processors import n_cores

MAX_WAIT_S = 0.5
"""Maximum time to wait for events before the progress view is refreshed."""


class WorkerPool(Protocol):
    """A set of workers that run jobs: processes on this machine, or a cluster."""

    @property
    def size(self) -> int:
        """Number of jobs that can run at once."""

    def room(self) -> int:
        """Return how many more jobs can be started now."""

    def start(self, job: Job, n_threads: int) -> None:
        """Start a job. There must be room for it.

        Args:
            job: The job.
            n_threads: Number of threads that the job should use.
        """

    def wait(self, timeout_s: float) -> list[Event]:
        """Wait for events.

        Args:
            timeout_s: Maximum time to wait in seconds.

        Returns:
            The events since the last call.

        Raises:
            TalkheadError: If no more jobs can run.
        """

    def close(self) -> None:
        """Stop all workers. Jobs that were running are queued again."""


class Scheduler:
    """Runs jobs of a store on a worker pool. It waits for jobs that another call of `dub` runs.

    A fit replaces the package that videos are rendered with. So the fits of an identity run first, one at
    a time, and its videos after them, whichever renderer they use.

    Args:
        store: The job store.
        pool: The workers.
        view: Display of the progress.
    """

    def __init__(self, store: JobStore, pool: WorkerPool, view: ProgressView) -> None:
        self._store, self._pool, self._view = store, pool, view
        self._ready: list[tuple[bool, int, str]] = []  # heap: fits first, then in queue order
        self._delayed: list[tuple[float, str]] = []  # heap: time of the next attempt, job ID
        self._blocked: dict[str, list[str]] = {}  # ID of an open job -> jobs that wait for it
        self._open: dict[str, Job] = {}
        self._fits: dict[str, list[str]] = {}  # identity -> its open fits, in order

    def run(self, jobs: Iterable[Job]) -> None:
        """Run jobs until each is done, failed or cancelled.

        Args:
            jobs: The jobs. Those that are not queued or running are left as they are.

        Raises:
            TalkheadError: If no more jobs can run, for example on a full disk. The next call resumes.
        """
        self._admit(jobs)
        self._work(lambda: not self._open, lambda: ())

    def run_until(
        self,
        jobs: Iterable[Job],
        is_stopped: Callable[[], bool],
        arrivals: Callable[[], Iterable[Job]],
    ) -> None:
        """Run jobs, including those that arrive later, until stopped. A server runs jobs this way.

        Args:
            jobs: The jobs to begin with.
            is_stopped: Function that returns True when to stop; jobs that are running then are queued
                again.
            arrivals: Function that returns the jobs that were added to the store since its last call,
                together with the fits that they need.

        Raises:
            TalkheadError: If no more jobs can run, for example on a full disk. The next call
                resumes.
        """
        self._admit(jobs)
        self._work(is_stopped, arrivals)

    def _work(self, is_finished: Callable[[], bool], arrivals: Callable[[], Iterable[Job]]) -> None:
        """Start jobs and handle what they report until finished."""
        try:
            while not is_finished():
                self._admit(arrivals())
                self._start_jobs()
                for event in self._pool.wait(self._wait_time_s()):
                    self._view.handle(event)
                    if isinstance(event, JobFinished):
                        self._handle_finished(event)
                self._view.refresh()
        finally:
            self._pool.close()
            self._store.recover()

    def _admit(self, jobs: Iterable[Job]) -> None:
        """Schedule jobs that are queued or running and not known yet."""
        given = {job.id: job for job in jobs}
        new = {
            job_id: job
            for job_id, job in given.items()
            if job.status in (QUEUED, RUNNING) and job_id not in self._open
        }
        self._open.update(new)
        for job in new.values():
            if job.task.kind == FIT:
                self._fits.setdefault(job.task.identity, []).append(job.id)
        unreachable = {
            job.id: needed
            for job in new.values()
            if (needed := given.get(job.task.needs)) and needed.status in (FAILED, CANCELLED)
        }
        for job in new.values():
            if job.id not in unreachable:
                self._schedule(job)
        for job_id, needed in unreachable.items():
            self._fail_dependent(
                self._open[job_id], JobFinished(needed.id, needed.status, needed.reason)
            )

    def _schedule(self, job: Job) -> None:
        """Put an open job where it waits: for another job, for its retry time, or for a worker."""
        blocker = self._blocker(job)
        if blocker:
            self._blocked.setdefault(blocker, []).append(job.id)
        elif job.retry_at > time.time():
            heapq.heappush(self._delayed, (job.retry_at, job.id))
        else:
            heapq.heappush(self._ready, (job.task.kind != FIT, job.order, job.id))

    def _blocker(self, job: Job) -> str:
        """Return the open job that must finish first: the needed one, or an identity's first fit."""
        if job.task.needs in self._open:
            return job.task.needs
        fits = (self._fits.get(identity, []) for identity in job.task.identities)
        first = next((one[0] for one in fits if one), job.id)
        return "" if first == job.id else first

    def _start_jobs(self) -> None:
        """Start as many jobs as the pool has room for."""
        now = time.time()
        while self._delayed and self._delayed[0][0] <= now:
            job = self._open[heapq.heappop(self._delayed)[1]]
            heapq.heappush(self._ready, (job.task.kind != FIT, job.order, job.id))
        while self._ready and (room := self._pool.room()):
            job = self._open[heapq.heappop(self._ready)[2]]
            n_busy = self._pool.size - room
            n_wanted = min(self._pool.size, n_busy + 1 + len(self._ready))
            self._pool.start(job, max(1, n_cores() // n_wanted))

    def _wait_time_s(self) -> float:
        if not self._delayed:
            return MAX_WAIT_S
        return min(MAX_WAIT_S, max(0.01, self._delayed[0][0] - time.time()))

    def _handle_finished(self, event: JobFinished) -> None:
        """Close, delay or reschedule a job whose attempt has finished."""
        if event.halt:
            raise TalkheadError(_with_resume_hint(event.halt))
        if not event.status:
            event = job_state(self._store, event.job_id)
        job = self._open[event.job_id]
        if event.status in (QUEUED, RUNNING):
            heapq.heappush(self._delayed, (event.retry_at, job.id))
            self._view.job_delayed(job, event)
            return
        self._close(job, event)

    def _close(self, job: Job, event: JobFinished) -> None:
        """Close a job. Jobs that waited for it are scheduled, or fail if they needed its result."""
        del self._open[job.id]
        if job.task.kind == FIT:
            self._fits[job.task.identity].remove(job.id)
        self._view.job_finished(job, event)
        for waiting in self._blocked.pop(job.id, []):
            blocked = self._open[waiting]
            if event.status != DONE and blocked.task.needs == job.id:
                self._fail_dependent(blocked, event)
            else:
                self._schedule(blocked)

    def _fail_dependent(self, job: Job, event: JobFinished) -> None:
        """Fail a job that depends on one that was not done."""
        reason = f"{event.job_id} {event.status}: {event.reason}"
        with self._store.hold(job) as claim:
            if claim is not None:
                claim.fail(reason, max_tries=1)
        self._close(job, JobFinished(job.id, FAILED, reason))


def _with_resume_hint(reason: str) -> str:
    hint = "run the same command again"
    return reason if hint in reason else f"{reason}. Then {hint} to resume"
