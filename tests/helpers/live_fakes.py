"""A fake person for live speech: pictures that show the code, and codes that follow the
loudness."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from paths import ROOT

from talkhead.app.live.engine import LiveEngine
from talkhead.app.live.options import LiveOptions
from talkhead.app.live.pictures import NoPictures
from talkhead.app.live.session import LiveSession
from talkhead.app.live.worker import WorkerConfig, WorkerEngine
from talkhead.errors import MediaError, PackageError
from talkhead.types import Float32, Int16, UInt8

RATE = 16_000
SIZE = RATE // 25
CONSENT = "Anna B., in writing, 3 May 2026"
REST = np.zeros(2, np.float32)
LIMIT_S = 100.0
"""A test that waits so long has failed."""


async def until(is_there: Callable[[], Any]) -> None:
    """Wait for a condition, for LIMIT_S at most."""
    limit_s = time.monotonic() + LIMIT_S
    while not is_there():
        assert time.monotonic() < limit_s, "what the test waits for does not happen"
        await asyncio.sleep(0.01)


class FakePictures:
    """Pictures whose first value is 10 times the code's first value."""

    size, note = (4, 2), ""

    def __init__(self) -> None:
        self.codes: list[Float32] = []
        self.closed = False

    def next(self, code: Float32) -> UInt8:
        self.codes.append(np.array(code))
        return np.full((2, 4, 3), np.uint8(10 * code[0]), np.uint8)

    def close(self) -> None:
        self.closed = True


class ColoredPictures(FakePictures):
    """Pictures that can be recognized after any encoding: COLOR on the left, white on the right."""

    COLOR = (200, 60, 30)
    size = (64, 48)

    def next(self, code: Float32) -> UInt8:
        super().next(code)
        picture = np.full((48, 64, 3), self.COLOR, np.uint8)
        picture[:, 32:] = 255
        return picture


class FakeSpeech:
    """Returns a code [loudest sample, 1] per frame, with a look-ahead of two frames."""

    ahead = 2

    def __init__(self) -> None:
        self.samples = np.zeros(0, np.float32)

    def push(self, samples: Float32) -> Float32:
        self.samples = np.concatenate([self.samples, samples])
        return self._frames(len(self.samples) // SIZE - self.ahead)

    def finish(self) -> Float32:
        n = -(-len(self.samples) // SIZE)
        self.samples = np.pad(self.samples, (0, n * SIZE - len(self.samples)))
        return self._frames(n)

    def _frames(self, n: int) -> Float32:
        n = max(n, 0)
        used, self.samples = np.split(self.samples, [n * SIZE])
        loudest = np.abs(used.reshape(n, SIZE)).max(1, initial=0.0)
        return np.stack([loudest, np.ones(n)], axis=1).astype(np.float32)


def make_engine(
    pictures: Any = None, speech: Any = None, **options: Any
) -> tuple[LiveEngine, FakePictures]:
    pictures = pictures or (FakePictures() if options.get("rendered", True) else NoPictures())
    avatar: Any = SimpleNamespace(
        name="anna",
        package=SimpleNamespace(manifest=SimpleNamespace(consent=CONSENT)),
        predictor=SimpleNamespace(
            scaling=SimpleNamespace(rest=REST, centre=REST, low=REST - 1, high=REST + 1)
        ),
        renderer=None,
        idle=None,
    )
    speech = speech or (lambda pace: FakeSpeech())
    given = LiveOptions(**({"sample_rate": RATE} | options))
    return LiveEngine(avatar, given, pictures=pictures, speech=speech), pictures


def make_local(
    pictures: Any = None, speech: Any = None, **options: Any
) -> tuple[LiveSession, FakePictures]:
    """Make a session of a fake person in this process; see `make_engine`."""
    engine, pictures = make_engine(pictures, speech, **options)
    return LiveSession(engine=engine), pictures


def load_example(name: str) -> ModuleType:
    """Load a script of examples/ without running it."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / f"examples/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BrokenPictures(FakePictures):
    """Pictures that cannot be rendered after a number of them with an open mouth."""

    def __init__(self, n_good: int, error: Exception) -> None:
        super().__init__()
        self.n_left, self.error = n_good, error

    def next(self, code: Float32) -> UInt8:
        self.n_left -= code[0] > 0
        if self.n_left < 0:
            raise self.error
        return super().next(code)


class DyingPictures(BrokenPictures):
    """Pictures of a process that is killed after a number of them with an open mouth."""

    def next(self, code: Float32) -> UInt8:
        try:
            return super().next(code)
        except MediaError:
            os.kill(os.getpid(), signal.SIGKILL)
            raise


class SlowPictures(FakePictures):
    """Pictures that take longer than a session waits for."""

    def next(self, code: Float32) -> UInt8:
        time.sleep(0.15)
        return super().next(code)


class PrintingPictures(FakePictures):
    """Pictures of a library that prints, in Python and outside it."""

    def next(self, code: Float32) -> UInt8:
        print("rendering", flush=True)
        os.write(1, b"a warning")
        return super().next(code)


class AwaitingPictures(FakePictures):
    """Pictures that are finished once the event loop has made a turn."""

    def __init__(self) -> None:
        super().__init__()
        self._n_turns = self._n_awaited = 0
        self._threads: set[threading.Thread] = set()

    async def count_turns(self) -> None:
        """Count the turns of the event loop, until this is cancelled."""
        while True:
            self._n_turns += 1
            await asyncio.sleep(0.001)

    def next(self, code: Float32) -> UInt8:
        before, limit_s = self._n_turns, time.monotonic() + 5.0
        while self._n_turns == before and time.monotonic() < limit_s:
            time.sleep(0.001)
        self._n_awaited += self._n_turns > before
        self._threads.add(threading.current_thread())
        return super().next(code)

    def check(self) -> None:
        """Check that the event loop ran while pictures were made."""
        assert self._n_awaited >= 10
        assert threading.main_thread() not in self._threads


def refuse_speech(pace: str) -> FakeSpeech:
    """Fail, as a session does that cannot begin."""
    raise MediaError("no weights")


class FakeVoice:
    """Says 20 frames of sound, whatever the text is."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, text: str) -> tuple[Int16, int]:
        self.said.append(text)
        return np.full(20 * SIZE, 20_000, np.int16), RATE


FAILURE = ("where", "identity", "channels", "message")
FAILURES = (
    ("local", "broken", 1, "the footage is gone"),
    ("local", "broken", 2, "the footage is gone"),
    ("worker", "dying", 1, "signal 9"),
)
"""Sessions that fail during a line, the channels of its sound, and what is reported."""
PICTURES: dict[str | None, Callable[[], FakePictures]] = {
    None: FakePictures,
    "broken": lambda: BrokenPictures(5, MediaError("the footage is gone")),
    "dying": lambda: DyingPictures(5, MediaError("killed")),
    "faulty": lambda: BrokenPictures(3, ValueError("a fault")),
    "slow": SlowPictures,
    "printing": PrintingPictures,
}
"""Pictures by the name of the identity."""


def make_engine_of(config: WorkerConfig) -> LiveEngine:
    """Make the engine of a worker."""
    if config.identity == "missing":
        raise PackageError("identity missing: not found")
    if config.identity == "dead":
        os._exit(3)
    pictures = PICTURES[config.identity]() if config.options.rendered else None
    return make_engine(pictures, **asdict(config.options))[0]


def make_session(where: str, identity: str | None = None, **options: Any) -> LiveSession:
    """Make a session of a fake person, in this process ("local") or in a worker ("worker")."""
    given = LiveOptions(**({"sample_rate": RATE} | options))
    config = WorkerConfig(identity, None, given, maker="live_fakes:make_engine_of")
    return LiveSession(engine=WorkerEngine(config) if where == "worker" else make_engine_of(config))
