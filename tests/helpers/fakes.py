"""Fakes of slow parts: a task runner that writes a file, a worker pool without processes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from talkhead.app.dubbing.events import Event
from talkhead.app.dubbing.job import FIT, Job, Task
from talkhead.app.dubbing.job_runner import RunTask, run_job
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.home.identities import Home
from talkhead.errors import TalkheadError
from talkhead.identity import FittedPart, IdentityPackage, PackageWriter
from talkhead.progress import Progress


class SlowTaskRunner:
    """Takes half a second to write an output that contains the audio, and records the process."""

    def __init__(self, home: Path, device: str) -> None:
        self._home = home

    def __call__(
        self, task: Task, work: Path, products: Path, progress: Progress
    ) -> Mapping[str, Any]:
        """See RunTask."""
        time.sleep(0.5)
        if task.kind == FIT:
            return fit_one_more(Home(self._home).identity_dir(task.identity), task.renderer)
        if task.mode == "fail":
            raise TalkheadError("this job fails")
        audio = Path(task.audio).read_bytes()
        (products / Path(task.output).name).write_bytes(b"audio: " + audio)
        return {"n_frames": 10, "home": str(self._home), "process": os.getpid()}


def fit_one_more(path: Path, renderer: str) -> Mapping[str, Any]:
    """Add a renderer to a package, as a fit does."""
    old = IdentityPackage.load(path)
    with PackageWriter(path) as writer:
        for name in old.manifest.files:
            writer.add_file(name, old.file(name))
        part = FittedPart(f"{renderer}.safetensors")
        writer.path(part.file).write_bytes(b"a head")
        renderers = {**old.manifest.renderers, renderer: part}
        writer.finish(replace(old.manifest, renderers=renderers))
    return {"identity": path.name}


class InlineWorkers:
    """A worker pool that runs each job immediately in this process."""

    size = 1

    def __init__(self, store: JobStore, run_task: RunTask, max_tries: int = 3) -> None:
        self._store, self._run_task, self._max_tries = store, run_task, max_tries
        self._events: list[Event] = []
        self.n_started = 0

    def room(self) -> int:
        return 0 if self._events else 1

    def start(self, job: Job, n_threads: int) -> None:
        self.n_started += 1
        emit = self._events.append
        emit(run_job(self._store, job.id, self._run_task, self._max_tries, emit))

    def wait(self, timeout_s: float) -> list[Event]:
        if not self._events:
            time.sleep(timeout_s)
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        pass
