"""Server-sent events: the progress of a job until it has ended."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from talkhead.app.server.problems import Problem
from talkhead.app.server.service import Service

POLL_S = 0.5
KEEP_ALIVE_S = 15.0
MEDIA_TYPE = "text/event-stream"
DESCRIPTION: dict[str, Any] = {"content": {MEDIA_TYPE: {}}}
"""The response in /openapi.json."""


def stream(service: Service, read: Callable[[], Any]) -> StreamingResponse:
    """Make a response that sends an object whenever it changes.

    The events are "progress", and at the end "completed", "failed" or "deleted".

    Args:
        service: The service.
        read: Function that returns the object, which has a `status`; it raises Problem if the
            object no longer exists.

    Returns:
        The response.
    """
    return StreamingResponse(_events(service, read), media_type=MEDIA_TYPE)


async def _events(service: Service, read: Callable[[], Any]) -> AsyncIterator[str]:
    before, quiet_s = "", 0.0
    while not service.is_stopping:
        try:
            found = await run_in_threadpool(read)
        except Problem:
            yield _event("deleted", "{}")
            return
        data = json.dumps(dataclasses.asdict(found), ensure_ascii=False)
        is_ended = found.status in ("completed", "failed")
        if data != before or is_ended:
            yield _event(found.status if is_ended else "progress", data)
            before, quiet_s = data, 0.0
        if is_ended:
            return
        if quiet_s >= KEEP_ALIVE_S:
            yield ": still there\n\n"
            quiet_s = 0.0
        await asyncio.sleep(POLL_S)
        quiet_s += POLL_S


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"
