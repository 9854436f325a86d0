"""HTTP connections that are closed if no request arrives in time."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 15.0
"""A connection without a complete head of a request is closed after one to two times this duration."""


class TimedProtocol(H11Protocol):
    """The HTTP protocol of uvicorn, which itself waits for ever while a request's head is incomplete.

    Otherwise a few hundred connections that send nothing, or a byte now and then, would occupy all
    places. The time of a request's body is limited by `talkhead.app.server.bodies`.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch a connection.

        Args:
            transport: The connection.
        """
        super().connection_made(transport)
        self._last: Any = None
        self._watch()

    def _watch(self) -> None:
        self.loop.call_later(REQUEST_S, self._check)

    def _check(self) -> None:
        """Close the connection if no request has arrived since the last check, or ever."""
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return  # closed, or a WebSocket now
        is_waiting = self.cycle is None or self.cycle.response_complete
        if is_waiting and self.cycle is self._last:
            self.transport.close()
            return
        self._last = self.cycle if is_waiting else None
        self._watch()
