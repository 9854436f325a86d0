"""How live sessions begin and end while something else happens: deletions, cancellations, errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from live_fakes import RATE, SIZE, FakePictures, make_engine

from talkhead.app.live.code_encoder import CODES
from talkhead.app.live.engine import LiveEngine
from talkhead.app.live.pace import FrameCost
from talkhead.app.live.session import LiveSession
from talkhead.app.live.video_encoder import Codec
from talkhead.app.server.live_requests import LiveRequest
from talkhead.app.server.live_sessions import LiveSessions
from talkhead.app.server.problems import Problem


class Loading:
    """Makes sessions, and waits if a test requires it."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.engines: list[LiveEngine] = []
        self.pictures: list[FakePictures] = []

    def __call__(self, request: LiveRequest) -> tuple[str, LiveSession]:
        engine, pictures = make_engine(lead_s=float("inf"), rendered=request.codec != CODES)
        self.engines.append(engine)
        self.pictures.append(pictures)
        self.begun.set()
        assert self.go.wait(60)
        return request.identity or "anna", LiveSession(engine=engine)

    def speak(self, n_frames: int) -> None:
        """Let the newest session speak."""
        engine = self.engines[-1]
        engine.push(np.full(n_frames * SIZE, 0.5, np.float32), RATE, 0.0)
        engine.flush()
        while engine.statistics.n_speech < n_frames:
            engine.step(0.0)


@pytest.fixture
def loading() -> Loading:
    return Loading()


@pytest.fixture
def sessions(loading: Loading) -> LiveSessions:
    return LiveSessions(loading, n_most=9, n_cores=64)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something, for ten seconds at most."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it has not happened")


def begin(
    sessions: LiveSessions, identity: str | None = "anna", codec: Codec = "jpeg"
) -> Coroutine[Any, Any, Any]:
    consent = "Yes." if codec == CODES else None
    request = LiveRequest(identity=identity, codec=codec, consent=consent)
    return sessions.begin(request, ExitStack())


@pytest.mark.parametrize(("codec", "n_counted"), [("jpeg", 40), (CODES, 0)])
def test_frames_of_sessions_that_have_ended_are_counted(
    loading: Loading,
    sessions: LiveSessions,
    monkeypatch: pytest.MonkeyPatch,
    codec: Codec,
    n_counted: int,
) -> None:
    """A measurement during which another session ends counts no fewer frames than before.

    Those of broadcasts, which take processor time of another process, are never counted.
    """
    counts: list[int] = []

    async def rehearse(session: LiveSession, n_others: Callable[[], int]) -> FrameCost:
        counts.append(n_others())
        for entry in sessions.all():
            sessions.end(entry.id)
        counts.append(n_others())
        return FrameCost(1.0, 1.0)

    async def run() -> None:
        await begin(sessions, codec=codec)
        loading.speak(40)
        monkeypatch.setattr(LiveSession, "rehearse", rehearse)
        await begin(sessions)
        await sessions.close()

    asyncio.run(run())
    assert counts == [n_counted, n_counted]


@pytest.mark.parametrize("identity", ["anna", None])
def test_a_session_that_loads_while_its_person_is_deleted_does_not_begin(
    loading: Loading, sessions: LiveSessions, identity: str | None
) -> None:
    loading.go.clear()

    async def delete() -> None:
        async with sessions.barred("anna"):
            assert loading.pictures[0].closed and sessions.all() == []
            for again in ("anna", None):
                with pytest.raises(Problem, match="anna is being deleted"):
                    await begin(sessions, again)
            await begin(sessions, "berta")

    async def run() -> None:
        beginning = asyncio.create_task(begin(sessions, identity))
        await until(loading.begun.is_set)
        deletion = asyncio.create_task(delete())
        await asyncio.sleep(0)
        loading.go.set()
        await deletion
        with pytest.raises(Problem, match="anna is being deleted"):
            await beginning
        await begin(sessions)
        assert sorted(entry.identity for entry in sessions.all()) == ["anna", "berta"]
        await sessions.close()

    asyncio.run(run())


def test_a_session_that_loads_while_its_request_is_cancelled_ends(
    loading: Loading, sessions: LiveSessions
) -> None:
    loading.go.clear()
    removed: list[bool] = []
    files = ExitStack()
    files.callback(removed.append, True)

    async def run() -> None:
        beginning = asyncio.create_task(sessions.begin(LiveRequest(identity="anna"), files))
        await until(loading.begun.is_set)
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        assert not removed  # it is being read
        loading.go.set()
        await until(lambda: loading.pictures[0].closed and bool(removed))
        assert sessions.all() == []

    asyncio.run(run())


def test_no_session_begins_after_the_end(loading: Loading, sessions: LiveSessions) -> None:
    loading.go.clear()

    async def run() -> None:
        beginning = asyncio.create_task(begin(sessions))
        await until(loading.begun.is_set)
        end = asyncio.create_task(sessions.close())
        await asyncio.sleep(0)
        loading.go.set()
        await end
        assert loading.pictures[0].closed and sessions.all() == []
        for one in (beginning, begin(sessions)):
            with pytest.raises(Problem, match="the server is stopping"):
                await one

    asyncio.run(run())


def test_everything_is_freed_if_a_session_cannot_be_closed(
    loading: Loading, sessions: LiveSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def shutdown(session: LiveSession) -> None:
        raise OSError("the device is gone")

    async def run() -> None:
        entry = await begin(sessions)
        frames = entry.broadcast.frames()
        await anext(frames)
        monkeypatch.setattr(LiveSession, "shutdown", shutdown)
        sessions.end(entry.id)
        async for _ in frames:  # it ends with the broadcast
            pass
        monkeypatch.undo()
        await entry.session.shutdown()

    asyncio.run(asyncio.wait_for(run(), 60))
