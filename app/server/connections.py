"""HTTP connections that are closed if no request arrives in time, and WebSockets that share frames."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

REQUEST_S = 15.0
"""A connection without a complete head of a request is closed after one to two times this duration."""
WRITER = "talkhead.writer"
"""Extension of the scope of a WebSocket: its `SharingProtocol`."""
MAX_WAITING_BYTES, SEND_BUFFER_BYTES = 16 << 10, 32 << 10
"""Bytes that wait in this process, and in the system, for a client that shares frames with others."""


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


class SharingProtocol(WebSocketsSansIOProtocol):
    """The WebSocket protocol of uvicorn, to which an application can also write whole frames.

    A frame for many clients is then made once. Messages of ASGI take twice the time.
    """

    def handle_connect(self, event: Request) -> None:
        """Accept a WebSocket, and pass itself on to the application.

        Args:
            event: The request.
        """
        super().handle_connect(event)
        if not self.close_sent:
            scope: Any = self.scope
            scope["extensions"][WRITER] = self

    def write_frame(self, frame: bytes) -> bool:
        """Write a frame, unless frames are waiting to be sent.

        Args:
            frame: A whole frame of the WebSocket protocol, without a mask.

        Returns:
            True if it was written; False if the connection is full or closed.
        """
        transport = self.transport
        is_full = transport.get_write_buffer_size() > MAX_WAITING_BYTES
        if is_full or self.close_sent or transport.is_closing():
            return False
        transport.write(frame)
        return True

    def limit_buffers(self) -> None:
        """Let the system keep few frames, so that a slow client gets new ones."""
        found = self.transport.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()
