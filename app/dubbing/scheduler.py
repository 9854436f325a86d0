"""Gives jobs to whoever works, in order, until all have ended."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable
from typing import Protocol

from talkhead.app.dubbing.events import Event, JobFinished
from talkhead.app.dubbing.job import CANCELLED, DONE, FAILED, FIT, QUEUED, RUNNING, Job
from talkhead.app.dubbing.job_runner import job_state
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.dubbing.progress_view import ProgressView
from talkhead.errors import TalkheadError
from talkhead.processors import n_cores

LONGEST_NAP_S = 0.5
LOOK_AGAIN_S = 1.0
"""How often a job is looked at that somebody else works on."""


class WorkerPool(Protocol):
    """Whoever does jobs: processes of this machine, or a cluster."""

    @property
    def size(self) -> int:
        """How many jobs can be done at once."""

    def room(self) -> int:
        """How many more jobs can be started now."""

    def start(self, job: Job, n_threads: int) -> None:
        """Begin a job; there must be room."""

    def wait(self, timeout_s: float) -> list[Event]:
        """What has happened since, after at most so many seconds. Raises TalkheadError when nothing
        can be done any more."""

    def close(self) -> None:
        """End everything that goes on; jobs that were under way are queued again."""


class Scheduler:
    """Works off jobs of a store. A job that another coordinator has is waited for.

    A fit replaces the package that lines are made with: so a person's fits come first, one after the
    other, and their lines after them, whichever renderer it is.
    """

    def __init__(self, store: JobStore, workforce: WorkerPool, board: ProgressView) -> None:
        self._store, self._workforce, self._board = store, workforce, board
        self._ready: list[tuple[bool, int, str]] = []  # fits first, then in order
        self._later: list[tuple[float, str]] = []  # when to look again
        self._blocked: dict[str, list[str]] = {}  # open job -> those that wait for its end
        self._open: dict[str, Job] = {}
        self._fits: dict[str, list[str]] = {}  # person -> their open fits, in order

    def run(self, jobs: Iterable[Job]) -> None:
        """Have all the jobs end: done, set aside or cancelled. Raises TalkheadError on a full disk and
        whatever else stops them all; the next call goes on."""
        known = {job.id: job for job in jobs}
        self._open = {k: job for k, job in known.items() if job.status in (QUEUED, RUNNING)}
        for job in self._open.values():
            if job.task.kind == FIT:
                self._fits.setdefault(job.task.identity, []).append(job.id)
        doomed = {
            job.id: needed
            for job in self._open.values()
            if (needed := known.get(job.task.needs)) and needed.status in (FAILED, CANCELLED)
        }
        for job in self._open.values():
            if job.id not in doomed:
                self._sort_in(job)
        for job_id, needed in doomed.items():
            self._give_up(self._open[job_id], JobFinished(needed.id, needed.status, needed.reason))
        try:
            while self._open:
                self._hand_out()
                for event in self._workforce.wait(self._nap_s()):
                    self._board.see(event)
                    if isinstance(event, JobFinished):
                        self._settle(event)
                self._board.refresh()
        finally:
            self._workforce.close()
            self._store.recover()

    def _sort_in(self, job: Job) -> None:
        """Put an open job where it waits: for another one, for its time, or for a worker."""
        blocker = self._blocker(job)
        if blocker:
            self._blocked.setdefault(blocker, []).append(job.id)
        elif job.retry_at > time.time():
            heapq.heappush(self._later, (job.retry_at, job.id))
        else:
            heapq.heappush(self._ready, (job.task.kind != FIT, job.order, job.id))

    def _blocker(self, job: Job) -> str:
        """The open job that must end before: the one that this needs, else its person's first fit."""
        if job.task.needs in self._open:
            return job.task.needs
        first = next(iter(self._fits.get(job.task.identity, ())), job.id)
        return "" if first == job.id else first

    def _hand_out(self) -> None:
        """Start as many jobs as there is room for."""
        now = time.time()
        while self._later and self._later[0][0] <= now:
            job = self._open[heapq.heappop(self._later)[1]]
            heapq.heappush(self._ready, (job.task.kind != FIT, job.order, job.id))
        while self._ready and (room := self._workforce.room()):
            job = self._open[heapq.heappop(self._ready)[2]]
            n_busy = self._workforce.size - room
            n_wanted = min(self._workforce.size, n_busy + 1 + len(self._ready))
            self._workforce.start(job, max(1, n_cores() // n_wanted))

    def _nap_s(self) -> float:
        if not self._later:
            return LONGEST_NAP_S
        return min(LONGEST_NAP_S, max(0.01, self._later[0][0] - time.time()))

    def _settle(self, ended: JobFinished) -> None:
        """Take note of what became of a job."""
        if ended.halt:
            raise TalkheadError(_goes_on(ended.halt))
        if not ended.status:
            ended = job_state(self._store, ended.job_id)
        job = self._open[ended.job_id]
        if ended.status in (QUEUED, RUNNING):
            heapq.heappush(self._later, (ended.retry_at, job.id))
            self._board.delayed(job, ended)
            return
        self._end(job, ended)

    def _end(self, job: Job, ended: JobFinished) -> None:
        """A job is open no more: what waited for it goes on, unless it needed what was not done."""
        del self._open[job.id]
        if job.task.kind == FIT:
            self._fits[job.task.identity].remove(job.id)
        self._board.ended(job, ended)
        for waiting in self._blocked.pop(job.id, []):
            blocked = self._open[waiting]
            if ended.status != DONE and blocked.task.needs == job.id:
                self._give_up(blocked, ended)
            else:
                self._sort_in(blocked)

    def _give_up(self, job: Job, ended: JobFinished) -> None:
        """A job that needed another one, which ended otherwise than done, can never go on."""
        reason = f"{ended.job_id} {ended.status}: {ended.reason}"
        with self._store.hold(job) as claim:
            if claim is not None:
                claim.fail(reason, max_tries=1)
        self._end(job, JobFinished(job.id, FAILED, reason))


def _goes_on(reason: str) -> str:
    again = "run the same command again"
    return reason if again in reason else f"{reason}. Then {again}: it goes on where it stopped"
