"""Run the jobs of the server in the background, with the scheduler and the workers of `dub`."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from talkhead.app.dubbing.events import Event, JobFinished, JobProgressed, JobStarted
from talkhead.app.dubbing.job import Job
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.dubbing.progress_view import RENDERING, ProgressStats, ProgressView
from talkhead.app.dubbing.scheduler import Scheduler, WorkerPool
from talkhead.errors import TalkheadError, one_line

RESTART_S = 30.0
"""Delay before jobs are run again after none could run, for example on a full disk."""
_NUMBERED = re.compile(r"(\d+) of (\d+): (.*)", re.DOTALL)

Finished = Callable[[Job, JobFinished], None]
"""Function that is called when a job is done, failed or cancelled."""


@dataclass(frozen=True)
class Advance:
    """Progress of a running job.

    Attributes:
        percent: Estimated share of the work, 0 to 99.
        stage: What is being done.
    """

    percent: int = 0
    stage: str = ""


class AdvanceView(ProgressView):
    """Keeps the progress of each running job.

    Args:
        finished: See Finished.
    """

    def __init__(self, finished: Finished) -> None:
        super().__init__(ProgressStats(0, 0, 0))
        self._finished = finished
        self._advances: dict[str, Advance] = {}

    def of(self, job_id: str) -> Advance:
        """Return the progress of a job.

        Args:
            job_id: ID of the job.

        Returns:
            Its progress; zero if it is not running.
        """
        return self._advances.get(job_id, Advance())

    def handle(self, event: Event) -> None:
        """Update the progress of a job.

        Args:
            event: An event of a worker.
        """
        super().handle(event)
        if isinstance(event, JobStarted):
            self._advances[event.job_id] = Advance(0, "Starting")
        elif isinstance(event, JobProgressed):
            self._advances[event.job_id] = advance_after(self.of(event.job_id), event)
        else:
            self._advances.pop(event.job_id, None)

    def job_finished(self, job: Job, event: JobFinished) -> None:
        """Report a job that has ended.

        Args:
            job: The job as it was before the attempt.
            event: The outcome.
        """
        super().job_finished(job, event)
        self._advances.pop(job.id, None)
        self._finished(job, event)


def advance_after(before: Advance, event: JobProgressed) -> Advance:
    """Estimate the progress of a job. The estimate never decreases.

    Args:
        before: Its progress before the event.
        event: The event. Numbered stages have equal shares; for a video, only its frames count.

    Returns:
        Its progress after the event.
    """
    within = min(1.0, event.done / event.total) if event.total else 0.0
    numbered = _NUMBERED.fullmatch(event.stage)
    if numbered:
        number, n_stages, stage = int(numbered[1]), int(numbered[2]), numbered[3]
        percent = 100.0 * (number - 1 + within) / max(n_stages, 1)
    elif event.stage == RENDERING:
        stage, percent = event.stage, 5.0 + 93.0 * within
    else:
        stage, percent = event.stage, 0.0
    return Advance(max(before.percent, min(99, int(percent))), stage)


class JobRunner:
    """Runs jobs of a store in a thread, until it is stopped. Its workers are processes.

    Args:
        store: The job store.
        make_pool: Function that makes the workers.
        open_jobs: Function that returns the server's unfinished jobs, with which a run starts.
        finished: See Finished. It is called in the runner's thread.
        report: Function that receives the reason if no job can run.
    """

    def __init__(
        self,
        store: JobStore,
        make_pool: Callable[[], WorkerPool],
        open_jobs: Callable[[], Iterable[Job]],
        finished: Finished,
        report: Callable[[str], None],
    ) -> None:
        self._store, self._make_pool, self._open_jobs = store, make_pool, open_jobs
        self._report = report
        self._arrived: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="talkhead jobs", daemon=True)
        self.view = AdvanceView(finished)
        self.problem = ""

    def start(self) -> None:
        """Start running jobs."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the workers. Jobs that are running are queued, and resumed by the next start."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, jobs: Iterable[Job]) -> None:
        """Run jobs that were added to the store.

        Args:
            jobs: The jobs, with the fits that they need.
        """
        for job in jobs:
            self._arrived.put(job)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                scheduler = Scheduler(self._store, self._make_pool(), self.view)
                self.problem = ""
                scheduler.run_until(self._open_jobs(), self._stopping.is_set, self._arrivals)
            except TalkheadError as error:
                self.problem = one_line(error)
                self._report(self.problem)
                self._stopping.wait(RESTART_S)

    def _arrivals(self) -> list[Job]:
        arrived = []
        while True:
            try:
                arrived.append(self._arrived.get_nowait())
            except queue.Empty:
                return arrived
