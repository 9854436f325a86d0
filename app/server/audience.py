"""The viewers of a broadcast: each packet is framed once, and written to all of them.

Nothing waits for a viewer. Packets are left out for one whose connection is full, and one that takes none
for STALL_S is disconnected.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.frames import Frame, Opcode

from talkhead.app.live.broadcast import Broadcast
from talkhead.app.live.code_encoder import CodeEncoder
from talkhead.app.server.live_packets import pack
from talkhead.app.server.logs import log, log_error

STALL_S = 10.0
"""A viewer that takes no packet for so long is disconnected."""
CLOSE_S = 2.0
"""Time for the messages that end the connections."""
NORMAL, ENDED = 1000, "the broadcast has ended"


class Writer(Protocol):
    """A connection that whole frames of the WebSocket protocol are written to."""

    def write_frame(self, frame: bytes) -> bool:
        """Write a frame; return False if the connection is full or closed."""

    def abort(self) -> None:
        """Close the connection at once."""


@dataclass(eq=False)
class _Viewer:
    """A viewer.

    Attributes:
        websocket: The WebSocket.
        writer: Its connection.
        written_s: When a packet was written last.
        n_missed: Packets that were left out.
    """

    websocket: WebSocket
    writer: Writer
    written_s: float = field(default_factory=time.monotonic)
    n_missed: int = 0


class Audience:
    """The viewers of a session. It is used in the event loop.

    Attributes:
        key: Secret part of the address of the broadcast.
        consent: The person's statement of consent to it.
        used_s: When the last viewer has left, or the audience was made.
    """

    def __init__(self, key: str, consent: str) -> None:
        """Prepare an audience without viewers.

        Args:
            key: Secret part of the address of the broadcast.
            consent: The person's statement of consent to it.
        """
        self.key, self.consent = key, consent
        self.used_s = time.monotonic()
        self._viewers: set[_Viewer] = set()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Return the number of viewers."""
        return len(self._viewers)

    def start(self, session_id: str, broadcast: Broadcast, encoder: CodeEncoder) -> None:
        """Send the frames of a session from now on, until it ends.

        Args:
            session_id: ID of the session, for the log.
            broadcast: Gives out the frames.
            encoder: Encodes their codes.
        """

        async def run() -> None:
            try:
                async for frame in broadcast.frames(is_awaited=True):
                    self.send(pack(frame, encoder.encode(frame)))
            except Exception as error:
                log_error("broadcast failed", error, session=session_id)

        self._task = asyncio.get_running_loop().create_task(run())

    def send(self, packet: bytes) -> None:
        """Write a packet to all viewers whose connections are not full.

        Args:
            packet: Header, codes and audio.
        """
        frame = bytes(Frame(Opcode.BINARY, packet).serialize(mask=False))
        now_s = time.monotonic()
        for viewer in self._viewers:
            if viewer.writer.write_frame(frame):
                viewer.written_s = now_s
            else:
                viewer.n_missed += 1
                if now_s - viewer.written_s > STALL_S:
                    viewer.writer.abort()

    @contextmanager
    def joined(self, websocket: WebSocket, writer: Writer) -> Iterator[None]:
        """Send packets to a viewer for the duration of a `with` block.

        Args:
            websocket: Its WebSocket.
            writer: The connection of the WebSocket.

        Yields:
            None.
        """
        viewer = _Viewer(websocket, writer)
        self._viewers.add(viewer)
        try:
            yield
        finally:
            self._viewers.discard(viewer)
            self.used_s = time.monotonic()
            log("viewer left", missed=viewer.n_missed, viewers=len(self._viewers))

    async def close(self) -> None:
        """Send no more, and disconnect all viewers."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        viewers = list(self._viewers)
        closing = [asyncio.create_task(_close(viewer.websocket)) for viewer in viewers]
        if closing:
            _, late = await asyncio.wait(closing, timeout=CLOSE_S)
            for task in late:
                task.cancel()
        for viewer in self._viewers:  # those that do not read
            viewer.writer.abort()


async def _close(websocket: WebSocket) -> None:
    with suppress(RuntimeError, WebSocketDisconnect):
        await websocket.close(NORMAL, ENDED)
