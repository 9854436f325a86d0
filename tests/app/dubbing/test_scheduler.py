"""The scheduler with jobs that arrive while others run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fakes import InlineWorkers

from talkhead.app.dubbing.job import CANCELLED, DONE, FIT, SPEAK, Job, Task
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.dubbing.progress_view import ProgressStats, ProgressView
from talkhead.app.dubbing.scheduler import Scheduler
from talkhead.progress import Progress


def test_jobs_that_arrive_meanwhile(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs")
    done: list[str] = []

    def run_task(task: Task, work: Path, products: Path, progress: Progress) -> Mapping[str, Any]:
        done.append(task.identity)
        if task.output:
            (products / Path(task.output).name).write_bytes(b"video")
        return {"n_frames": 1}

    def added(*tasks: Task) -> list[Job]:
        store.add(tasks)
        found = [store.find(task.id) for task in tasks]
        return [job for job in found if job is not None]

    def line(name: str, needs: str = "") -> Task:
        return Task(SPEAK, name, output=str(tmp_path / f"{name}.mp4"), needs=needs)

    fit = Task(FIT, "berta", digest="0")
    cancelled = line("carl")
    batches = [
        added(line("anna")),
        [],
        added(line("berta", needs=fit.id), fit),
        added(line("dora"), cancelled),
    ]
    store.cancel([cancelled.id])
    batches.append(batches[-1])  # jobs that are already known change nothing

    def arrivals() -> list[Job]:
        return batches.pop(0) if batches else []

    def is_stopped() -> bool:
        return not batches and len(done) == 4 and not store.jobs(("queued", "running"))

    view = ProgressView(ProgressStats(0, 0, 0))
    scheduler = Scheduler(store, InlineWorkers(store, run_task), view)
    scheduler.run_until([], is_stopped, arrivals)
    assert done == ["anna", "berta", "berta", "dora"]
    states = {job.id: job.status for job in store.jobs()}
    assert states.pop(cancelled.id) == CANCELLED and set(states.values()) == {DONE}
