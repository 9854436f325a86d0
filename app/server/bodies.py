"""Limits of request bodies: size, speed, and whether there is room for their jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from talkhead.app.server.problems import Problem
from talkhead.app.server.settings import GIB, MIB, Limits

Admit = Callable[[int], None]
"""Function of the size of an upload, 0 if unknown, that raises Problem if there is no room for it."""


class BodyLimits:
    """Middleware that ends requests whose body is too large or too slow.

    Args:
        app: The application.
        limits: The limits.
        admit: See Admit. It is called before the body of an upload is read.
    """

    def __init__(self, app: ASGIApp, limits: Limits, admit: Admit) -> None:
        self._app, self._limits, self._admit = app, limits, admit
        self._sizes = {
            "/v1/identities": limits.footage_bytes,
            "/v1/videos": limits.audio_bytes,
            "/v1/dubs": limits.table_bytes,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with a `receive` that enforces the limits."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].rstrip("/")
        is_upload = scope["method"] == "POST" and path in self._sizes
        largest = self._sizes[path] if is_upload else self._limits.form_bytes
        if path in ("/v1/previews", "/v1/live"):
            largest = self._limits.audio_bytes
        elif path.startswith("/v1/identities/") and path.endswith("/lines"):
            largest = self._limits.line_bytes
        body = _Body(receive, largest, self._limits)
        is_started = False

        async def send_unless_refused(message: Message) -> None:
            nonlocal is_started
            if body.problem is None or is_started:
                is_started = True
                await send(message)

        problem = None
        try:
            declared = _declared_size(Headers(scope=scope), largest)
            if is_upload:
                self._admit(declared)
            await self._app(scope, body.receive, send_unless_refused)
        except Problem as error:
            problem = error
        problem = body.problem or problem
        if problem is not None and not is_started:
            problem.headers["Connection"] = "close"  # the rest of the body is not read
            await problem.response()(scope, receive, send)


def _declared_size(headers: Headers, largest: int) -> int:
    """Return the size that a request declares, 0 for none. Raises Problem if it is too large."""
    text = headers.get("content-length", "0")
    size = int(text) if text.isascii() and text.isdecimal() else 0
    if size > largest:
        raise too_large(largest)
    return size


def too_large(largest: int) -> Problem:
    """Make the problem for a body that is too large.

    Args:
        largest: Largest size in bytes.

    Returns:
        The problem.
    """
    size = f"{largest / GIB:g} GiB" if largest >= GIB else f"{largest / MIB:g} MiB"
    return Problem(413, f"the request is too large: at most {size} are accepted. Send less")


class _Body:
    """A request body whose parts must each arrive in time.

    Attributes:
        problem: Why the body was refused. The application then receives the end of the connection.
    """

    def __init__(self, receive: Receive, largest: int, limits: Limits) -> None:
        self._receive, self._largest, self._limits = receive, largest, limits
        self._n_bytes, self._started, self._is_complete = 0, 0.0, False
        self.problem: Problem | None = None

    async def receive(self) -> Message:
        """Receive the next message, or the end of the connection if data is too late or too
        large."""
        if self._is_complete:  # next comes the end of the connection, maybe much later
            return await self._receive()
        self._started = self._started or time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), self._left_s())
        except asyncio.TimeoutError:
            detail = "the request arrives too slowly. Check the connection, and send it again"
            return self._refuse(Problem(408, detail))
        if message["type"] == "http.request":
            self._n_bytes += len(message.get("body", b""))
            self._is_complete = not message.get("more_body", False)
            if self._n_bytes > self._largest:
                return self._refuse(too_large(self._largest))
        return message

    def _refuse(self, problem: Problem) -> Message:
        self.problem, self._is_complete = problem, True
        return {"type": "http.disconnect"}

    def _left_s(self) -> float:
        """Return how long to wait: the usual time, but not beyond what the slowest rate allows."""
        passed = time.monotonic() - self._started
        allowed = 2 * self._limits.idle_s + self._n_bytes / self._limits.bytes_per_s
        return max(0.0, min(self._limits.idle_s, allowed - passed))
