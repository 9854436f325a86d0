"""Live sessions that speak at once, one more each time, until they do not keep their pace."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import count
from typing import Any

from benchmarks.live_feed import push_in_real_time
from talkhead.app.avatar import Avatar
from talkhead.app.live.engine import LiveEngine
from talkhead.app.live.frames import LiveFrame
from talkhead.app.live.options import LiveOptions
from talkhead.app.live.pace import FrameCost, keep_pace
from talkhead.app.live.session import LiveSession
from talkhead.app.live.video_encoder import VideoEncoder
from talkhead.processors import n_cores
from talkhead.types import FRAME_RATE, Float32

KEPT = 0.96
"""Share of 25 new pictures a second below which a session does not keep its pace."""


class Session:
    """A session whose frames are encoded as the server does, and counted."""

    def __init__(self, avatar: Avatar, rate: int) -> None:
        self.live = LiveSession(
            engine=LiveEngine(avatar, LiveOptions(sample_rate=rate, pace="arrival"))
        )
        self._encoder = VideoEncoder(self.live.size, "jpeg")
        self._rate = rate
        self._watching: asyncio.Task[None] | None = None

    @property
    def n_new(self) -> int:
        """Frames of speech with a picture of their own."""
        statistics = self.live.statistics
        return statistics.n_speech - statistics.n_repeated

    def begin(self) -> None:
        """Begin to return frames."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def speak(self, sound: Float32) -> Mapping[str, float]:
        """Say something in real time; returns frames per second and the counts of this time."""
        before, n_before, begun = self.live.statistics, self.n_new, time.monotonic()
        await push_in_real_time(self.live, sound, self._rate)
        seconds, after = time.monotonic() - begun, self.live.statistics
        new = self.n_new - n_before
        await self.live.flush()
        return {
            "pictures_per_s": new / seconds,
            "repeated": after.n_repeated - before.n_repeated,
            "dropped": after.n_dropped - before.n_dropped,
        }

    async def end(self) -> None:
        """Free the resources."""
        await self.live.shutdown()
        if self._watching is not None:
            await self._watching
        self._encoder.close()

    async def _watch(self) -> None:
        async for frame in self.live.run():
            await asyncio.to_thread(self._encode, frame)

    def _encode(self, frame: LiveFrame) -> None:
        self._encoder.encode(frame)


async def measure_load(load: Callable[[], Avatar], sound: Float32, rate: int) -> AsyncIterator[Any]:
    """Add sessions until they do not keep their pace.

    Args:
        load: Function that loads the person, as each session of a server does.
        sound: What all sessions say at once, [n].
        rate: Its sample rate.

    Yields:
        For each number of sessions, what the newest one was told and what all of them reached.
    """
    sessions: list[Session] = []
    try:
        for n in count(1):
            new = Session(await asyncio.to_thread(load), rate)
            cost = await new.live.rehearse(lambda: sum(one.n_new for one in sessions))
            new.begin()
            sessions.append(new)
            reached = await asyncio.gather(*(one.speak(sound) for one in sessions))
            yield _row(n, cost, reached)
            if min(one["pictures_per_s"] for one in reached) < KEPT * FRAME_RATE:
                return
    finally:
        for one in sessions:
            await one.end()


def _row(n: int, cost: FrameCost, reached: list[Mapping[str, float]]) -> Mapping[str, Any]:
    is_accepted = n == 1 or keep_pace(n, cost, n_cores())
    return {
        "bench": "load",
        "sessions": n,
        "newest": "accepted" if is_accepted else "refused: 503",
        "frame_ms": round(cost.wall_ms, 1),
        "frame_processor_ms": round(cost.processor_ms, 1),
        "fewest_pictures_per_s": round(min(one["pictures_per_s"] for one in reached), 1),
        "repeated": sum(one["repeated"] for one in reached),
        "dropped": sum(one["dropped"] for one in reached),
        "load": round(os.getloadavg()[0], 2),
    }
