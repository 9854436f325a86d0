"""Frames of a session for several receivers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from live_fakes import make_local

from talkhead.app.live import broadcast as broadcasts
from talkhead.app.live.broadcast import Broadcast
from talkhead.errors import MediaError

LIMIT_S = 20.0
"""A test that waits so long has failed."""


class Numbers:
    """A session that gives out numbers as fast as they are received."""

    def __init__(self, n: int, end: Exception | None = None) -> None:
        self.n, self.end, self.n_given = n, end, 0

    async def run(self) -> AsyncIterator[int]:
        while self.n_given < self.n:
            await asyncio.sleep(0)
            self.n_given += 1
            yield self.n_given - 1
        if self.end is not None:
            raise self.end


async def collect(made: Broadcast, n: int, **options: Any) -> list[Any]:
    found: list[Any] = []
    frames = made.frames(**options)
    async for frame in frames:
        found.append(frame)
        if len(found) == n:
            break
    await frames.aclose()
    return found


def test_all_receivers_get_the_same_frames() -> None:
    async def run() -> None:
        session, _ = make_local()
        made = Broadcast(session)
        first, second = await asyncio.gather(
            collect(made, 10, is_awaited=True), collect(made, 10, is_awaited=False)
        )
        assert [frame.index for frame in first] == list(range(10))
        assert all(a is b for a, b in zip(first, second, strict=True))
        await session.shutdown()
        await made.close()

    asyncio.run(run())


def test_it_pauses_without_receivers() -> None:
    async def run() -> None:
        session: Any = Numbers(1000)
        made = Broadcast(session)
        assert await collect(made, 3, is_awaited=True) == [0, 1, 2]
        for _ in range(50):
            await asyncio.sleep(0)
        given = session.n_given
        assert given < 10
        later = await collect(made, 2)
        assert later == [given, given + 1]
        await made.close()

    asyncio.run(run())


def test_a_slow_receiver_misses_the_oldest_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcasts, "N_QUEUED", 4)

    async def run() -> None:
        session: Any = Numbers(20)
        made = Broadcast(session)
        slow = made.frames()
        assert await anext(slow) == 0
        assert await collect(made, -1, is_awaited=True)  # to the end
        assert [frame async for frame in slow] == [17, 18, 19]  # the end took the place of 16

    asyncio.run(run())


def test_errors_reach_all_receivers() -> None:
    async def run() -> None:
        session: Any = Numbers(2, MediaError("the footage is gone"))
        made = Broadcast(session)
        ends = await asyncio.gather(
            collect(made, -1, is_awaited=True), collect(made, -1), return_exceptions=True
        )
        assert [str(end) for end in ends] == ["the footage is gone"] * 2

    asyncio.run(run())


def test_closing_ends_receivers_that_wait() -> None:
    async def run() -> None:
        session: Any = Numbers(3)

        async def run_without_end() -> AsyncIterator[int]:
            yield 0
            await asyncio.Event().wait()

        session.run = run_without_end
        made = Broadcast(session)
        receiving = asyncio.create_task(collect(made, -1, is_awaited=True))
        for _ in range(50):
            await asyncio.sleep(0)
        await made.close()
        assert await receiving == [0]

    asyncio.run(run())


def test_receivers_that_join_a_failed_session_get_its_error() -> None:
    async def run() -> None:
        session: Any = Numbers(2, MediaError("the footage is gone"))
        failures: list[Exception] = []
        made = Broadcast(session, failures.append)
        for _ in range(2):  # the second one joins when the session has ended
            with pytest.raises(MediaError, match="the footage is gone"):
                await asyncio.wait_for(collect(made, -1), LIMIT_S)
        assert failures == [session.end]

    asyncio.run(run())


@pytest.mark.parametrize("n_received", [0, 1])
def test_receivers_that_join_a_closed_session_end(n_received: int) -> None:
    async def run() -> None:
        session: Any = Numbers(10**9)
        made = Broadcast(session)
        if n_received:
            await collect(made, n_received)
        await made.close()
        assert await asyncio.wait_for(collect(made, -1), LIMIT_S) == []

    asyncio.run(run())
