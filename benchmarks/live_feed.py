"""Sound that reaches a live session in real time, as from a microphone."""

from __future__ import annotations

import asyncio
import time

from talkhead.app.live.session import LiveSession
from talkhead.types import Float32

CHUNK_S = 0.01


async def push_in_real_time(
    session: LiveSession, sound: Float32, rate: int, seconds: float | None = None
) -> None:
    """Push sound [n] in chunks of CHUNK_S; it is repeated if it is shorter than `seconds`."""
    begun, size = time.monotonic(), round(CHUNK_S * rate)
    n = len(sound) if seconds is None else round(seconds * rate)
    for first in range(0, n, size):
        wait_s = begun + (first + size) / rate - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        at = first % len(sound)
        await session.push_audio(sound[at : at + size], rate)
