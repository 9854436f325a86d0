"""A live session with a microphone in real time, for an hour: drift, lost frames and memory."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.live_feed import push_in_real_time
from talkhead.app.avatar import Avatar
from talkhead.app.live.engine import LiveEngine
from talkhead.app.live.options import LiveOptions
from talkhead.app.live.session import LiveSession
from talkhead.types import FRAME_RATE, Float32

MINUTE_S = 60.0


class Hour:
    """Pushes sound in real time, and counts and times the frames that come back."""

    def __init__(self, avatar: Avatar, sound: Float32, rate: int, minutes: float) -> None:
        """Prepare a run.

        Args:
            avatar: The person.
            sound: Speech [n], which is repeated.
            rate: Its samples per second.
            minutes: Length of the run.
        """
        self._session = LiveSession(
            engine=LiveEngine(avatar, LiveOptions(sample_rate=rate, pace="arrival"))
        )
        self._sound, self._rate, self._seconds = sound, rate, MINUTE_S * minutes
        self._begun = 0.0
        self._latencies_ms: list[float] = []
        self._n_frames, self._n_gaps, self._next = 0, 0, 0

    async def _talk(self) -> None:
        self._begun = time.monotonic()
        await push_in_real_time(self._session, self._sound, self._rate, self._seconds)
        await self._session.shutdown()

    async def run(self) -> AsyncIterator[Mapping[str, Any]]:
        """Yield one row for each minute, when it ends: latency, memory, and what was counted so far."""
        talking, minute = asyncio.create_task(self._talk()), 1
        try:
            async for frame in self._session.run():
                now = time.monotonic()
                self._n_frames += 1
                self._n_gaps += frame.index != self._next
                self._next = frame.index + 1
                if frame.is_speech:
                    sound_s = frame.sound_index / FRAME_RATE
                    self._latencies_ms.append(1000.0 * (now - self._begun - sound_s))
                if self._begun and now - self._begun > MINUTE_S * minute:
                    yield self._row(minute)
                    minute += 1
            await talking
        finally:
            talking.cancel()

    def _row(self, minute: int) -> Mapping[str, Any]:
        p50, p95 = np.percentile(self._latencies_ms or [np.nan], [50, 95])
        self._latencies_ms.clear()
        return {
            "bench": "hour",
            "minute": minute,
            "p50_ms": round(float(p50), 1),
            "p95_ms": round(float(p95), 1),
            "frames": self._n_frames,
            "gaps": self._n_gaps,
            "repeated": self._session.statistics.n_repeated,
            "memory_mib": round(memory_mib(), 1),
            "load": round(os.getloadavg()[0], 2),
        }


def memory_mib() -> float:
    """Memory of this process, MiB; Linux only."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
