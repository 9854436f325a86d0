"""A server whose jobs are fakes: they write a small video, and wait if a test requires it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import InlineWorkers
from fastapi.testclient import TestClient
from paths import SAMPLES

from talkhead import media
from talkhead.app.dubbing.events import Event
from talkhead.app.dubbing.job import FIT, Task
from talkhead.app.server.application import make_application
from talkhead.app.server.service import Service
from talkhead.app.server.settings import Limits, ServerSettings
from talkhead.errors import FootageError, TalkheadError
from talkhead.identity import IdentityPackage
from talkhead.progress import Progress

TOKEN = "a-token-of-the-tests"
LINE = SAMPLES / "line.wav"


class Quick(InlineWorkers):
    """Looks for new jobs continuously."""

    def wait(self, timeout_s: float) -> list[Event]:
        return super().wait(min(timeout_s, 0.01))


class Work:
    """What the fake jobs do.

    Attributes:
        clip: Content of each video.
        tasks: The tasks that were begun.
        go: Jobs wait until it is set. They notice within milliseconds when they are cancelled.
        error: The exception that jobs raise.
    """

    def __init__(self, clip: bytes, fit: Callable[[str], None]) -> None:
        self.clip, self._fit = clip, fit
        self.tasks: list[Task] = []
        self.go = threading.Event()
        self.go.set()
        self.error: Exception | None = None

    def __call__(
        self, task: Task, work: Path, products: Path, progress: Progress
    ) -> Mapping[str, Any]:
        """See RunTask."""
        self.tasks.append(task)
        with progress.step("Rendering", total=4) as step:
            step.advance(2)
            while not self.go.wait(0.01):
                step.advance(2)  # shown immediately, because it is the last unit
                step.advance(-2)
        if self.error is not None:
            raise self.error
        if task.kind == FIT:
            self._fit(task.identity)
            return {"identity": task.identity}
        (products / Path(task.output).name).write_bytes(self.clip)
        return {"n_frames": 5, "duration_s": 0.2}


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Content of a video of 64x48 pixels."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    media.write_video(path, np.zeros((5, 48, 64, 3), np.uint8))
    return path.read_bytes()


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A home folder."""
    return tmp_path / "people"


@pytest.fixture
def work(clip: bytes, people: Path, add: Callable[[Path], IdentityPackage]) -> Work:
    """What the fake jobs do; anna is already fitted."""
    add(people / "identities" / "anna")
    return Work(clip, lambda name: add(people / "identities" / name) and None)


Serve = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture
def serve(people: Path, work: Work) -> Serve:
    """A function that starts a server, with limits and settings as keywords."""

    @contextmanager
    def started(limits: Limits | None = None, **settings: Any) -> Iterator[TestClient]:
        options = {"free_bytes": 0}
        chosen = ServerSettings(people, token=TOKEN, limits=replace(limits or Limits(), **options))
        chosen = replace(chosen, **settings)
        service = Service(chosen, lambda: Quick(service.store, work, chosen.tries))
        app = make_application(service)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with TestClient(app, "http://127.0.0.1:8730", headers=headers) as client:
            try:
                yield client
            finally:
                work.go.set()

    return started


@pytest.fixture
def client(serve: Serve) -> Iterator[TestClient]:
    """A server with the usual settings."""
    with serve() as client:
        yield client


def speak(client: TestClient, **fields: Any) -> dict[str, Any]:
    """Request a video of anna."""
    data = {"identity": "anna", **fields}
    files = {"audio": ("line.wav", LINE.read_bytes())}
    answer = client.post("/v1/videos", data=data, files=files)
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()
    return made


def until(client: TestClient, path: str, *statuses: str) -> dict[str, Any]:
    """Wait until an object has one of some states, and return it."""
    for _ in range(1000):
        found: dict[str, Any] = client.get(path).json()
        if found.get("status") in statuses:
            return found
        time.sleep(0.01)
    raise AssertionError(f"still {found}")


def detail(answer: Any, status: int) -> str:
    """Check that a response is a problem with a status, and return its detail."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status and problem["title"]
    text: str = problem["detail"]
    assert text and "\n" not in text
    return text


REFUSED: tuple[Exception, ...] = (
    TalkheadError("it cannot be done. Do something else"),
    FootageError("footage.mp4: no face was found. Record one"),
)
