"""Give the frames of one live session to several receivers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # they import PyTorch, which takes seconds
    from talkhead.app.live.frames import LiveFrame
    from talkhead.app.live.session import LiveSession

N_QUEUED = 5
"""Frames that wait for a slow receiver before the oldest are dropped. Large pictures have 6 MB and more,
and each viewer has two queues."""


class Broadcast:
    """Runs a session while anyone receives its frames."""

    def __init__(
        self, session: LiveSession, failed: Callable[[Exception], None] = lambda error: None
    ) -> None:
        """Prepare the broadcast.

        Args:
            session: The session. Its `run` must not be used elsewhere.
            failed: Called with the error if the session fails, after its receivers have got it.
        """
        self._session = session
        self._failed = failed
        self._is_over = False
        self._error: Exception | None = None  # with which the session has ended
        self._receivers: list[_Receiver] = []
        self._joined = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def frames(self, *, is_awaited: bool = False) -> AsyncGenerator[LiveFrame, None]:
        """Receive frames from now on, until the session ends; none if it has ended.

        Args:
            is_awaited: True if the session waits for this receiver; otherwise it misses frames if it is
                slow.

        Yields:
            The frames.

        Raises:
            MediaError: The footage can no longer be read.
            PackageError: The weights that a line needs are missing or damaged.
        """
        if self._is_over:  # nothing would end the queue of a receiver that joins now
            if self._error is not None:
                raise self._error
            return
        receiver = _Receiver(is_awaited)
        self._receivers.append(receiver)
        self._joined.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            while (item := await receiver.queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self._receivers.remove(receiver)
            receiver.leave()

    async def close(self) -> None:
        """Stop; all receivers end, and later ones receive nothing."""
        self._is_over = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        """Give out frames until the session ends; it pauses while there is no receiver."""
        try:
            async for frame in self._session.run():
                for receiver in list(self._receivers):
                    await receiver.put(frame)
                while not self._receivers:
                    self._joined.clear()
                    await self._joined.wait()
        except Exception as error:  # passed on to all receivers
            self._error = error
        finally:
            self._is_over = True
            for receiver in list(self._receivers):
                receiver.finish(self._error)
        if self._error is not None:
            self._failed(self._error)


class _Receiver:
    """A queue of frames. None, or an error, is the last item."""

    def __init__(self, is_awaited: bool) -> None:
        self._is_awaited = is_awaited
        self._has_left = False
        self.queue: asyncio.Queue[LiveFrame | Exception | None] = asyncio.Queue(
            1 if is_awaited else N_QUEUED
        )

    async def put(self, frame: LiveFrame) -> None:
        """Add a frame."""
        if self._has_left:
            return
        if self._is_awaited:
            await self.queue.put(frame)
            return
        if self.queue.full():
            self.queue.get_nowait()
        self.queue.put_nowait(frame)

    def finish(self, end: Exception | None) -> None:
        """End the queue; a frame that waits in a full one is dropped."""
        if self.queue.full():
            self.queue.get_nowait()
        self.queue.put_nowait(end)

    def leave(self) -> None:
        """Receive no more; a `put` that waits returns."""
        self._has_left = True
        while not self.queue.empty():
            self.queue.get_nowait()
