"""The live sessions of a server: how they begin, how many there are, and how they end."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from talkhead.app.live.broadcast import Broadcast
from talkhead.app.live.code_encoder import CODES, CodeEncoder
from talkhead.app.live.pace import FrameCost, keep_pace
from talkhead.app.live.video_encoder import Codec, VideoEncoder
from talkhead.app.server.audience import Audience
from talkhead.app.server.live_requests import LiveRequest
from talkhead.app.server.logs import log, log_error
from talkhead.app.server.problems import Problem
from talkhead.processors import n_cores as count_cores
from talkhead.terminal import printable

if TYPE_CHECKING:
    from talkhead.app.live.session import LiveSession
    from talkhead.app.live.webrtc import Viewer

CONNECT_S = 60.0
"""A session without a client is ended after this time, or up to CHECK_S later."""
CHECK_S = 5.0
"""Time between two searches for sessions without a client."""
RETRY_AFTER_S = 30


@dataclass
class Entry:
    """A session, and the server's data on it.

    Attributes:
        id: ID of the session.
        identity: Name of the person.
        session: The session.
        encoder: Encodes the pictures of the WebSocket.
        broadcast: Gives out the frames of the session.
        cost: What a frame of it cost when it was begun.
        manifest: The signed manifest of the session.
        files: Removes files that the session reads, when it has ended.
        audience: Viewers of a broadcast. None: the session is none.
        viewers: Connections of WebRTC, by ID.
        used_s: When the session was begun, or its last viewer has left.
        is_connected: True while a client is connected to the WebSocket.
    """

    id: str
    identity: str
    session: LiveSession
    encoder: VideoEncoder | CodeEncoder
    broadcast: Broadcast
    cost: FrameCost
    manifest: dict[str, str]
    files: ExitStack
    audience: Audience | None = None
    viewers: dict[str, Viewer] = field(default_factory=dict)
    used_s: float = field(default_factory=time.monotonic)
    is_connected: bool = False

    async def end(self) -> None:
        """Free the resources of the session, all of them even if one cannot be freed."""
        with self.files:
            if self.audience is not None:
                await self.audience.close()
            found = await asyncio.gather(
                *[viewer.close() for viewer in list(self.viewers.values())], return_exceptions=True
            )
            ends = self.session.shutdown(), asyncio.to_thread(self.encoder.close)
            found += await asyncio.gather(*ends, return_exceptions=True)
            found += await asyncio.gather(self.broadcast.close(), return_exceptions=True)
        for error in found:
            if isinstance(error, Exception):
                log("live session not freed", session=self.id, reason=repr(error))


class LiveSessions:
    """The sessions of a server.

    Args:
        make: Function that makes a session for a request, and returns the person's name with it.
        n_most: Most sessions at a time, because of their memory. None: two for every core.
        n_cores: Number of processor cores.
    """

    def __init__(
        self,
        make: Callable[[LiveRequest], tuple[str, LiveSession]],
        n_most: int | None = None,
        n_cores: int | None = None,
    ) -> None:
        self._make = make
        self._n_cores = count_cores() if n_cores is None else n_cores
        self._n_most = 2 * self._n_cores if n_most is None else n_most
        self._entries: dict[str, Entry] = {}
        self._lock = asyncio.Lock()  # held while a session is begun
        self._ending: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._is_closed = False
        self._barred: list[str] = []  # people who are being deleted, some of them twice
        self._counting = threading.Lock()  # frames are counted in the threads of sessions
        self._n_ended = 0  # frames of speech that sessions have rendered before they ended

    def all(self) -> list[Entry]:
        """List the sessions."""
        return list(self._entries.values())

    def find(self, session_id: str) -> Entry:
        """Return a session.

        Args:
            session_id: Its ID.

        Returns:
            The session.

        Raises:
            Problem: There is none with this ID.
        """
        entry = self._entries.get(session_id)
        if entry is None:
            raise Problem(404, "there is no such live session; it may have ended. Begin a new one")
        return entry

    def watched(self, key: str) -> tuple[Entry, Audience]:
        """Return the session of a broadcast.

        Args:
            key: Secret part of the address of the broadcast.

        Returns:
            The session and its viewers.

        Raises:
            Problem: There is none with this key.
        """
        for entry in self.all():
            known = entry.audience
            if known is not None and hmac.compare_digest(
                known.key.encode(), key.encode("utf-8", "replace")
            ):
                return entry, known
        raise Problem(404, "there is no such broadcast; it may have ended")

    @property
    def n_viewers(self) -> int:
        """Number of viewers of all broadcasts."""
        return sum(len(entry.audience) for entry in self.all() if entry.audience is not None)

    async def begin(self, request: LiveRequest, files: ExitStack) -> Entry:
        """Begin a session.

        Args:
            request: Settings of the session.
            files: Closed when the session ends; it then removes files that the session reads.

        Returns:
            The session.

        Raises:
            Problem: There are too many, or the machine is too slow for another one.
            TalkheadError: There is no such person, or it is damaged.
        """
        # A task of its own: if the caller is cancelled, what is being loaded must not be lost.
        task = asyncio.get_running_loop().create_task(self._begin(request, files.pop_all()))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._end_unwanted)
            raise

    async def _begin(self, request: LiveRequest, files: ExitStack) -> Entry:
        """Begin a session; see `begin`."""
        with files:
            async with self._lock, AsyncExitStack() as undo:
                self._end_abandoned()
                self._check_wanted(request.identity)
                self._check_room()  # before loading, which takes processor time from those that speak
                name, session = await asyncio.to_thread(self._make, request)
                undo.push_async_callback(session.shutdown)
                self._check_wanted(name)
                session_id = secrets.token_urlsafe(12)
                cost = await session.rehearse(self._count_rendered)
                self._check_pace(cost)
                sign = partial(session.manifest, session_id, consent=request.consent)
                manifest = await asyncio.to_thread(sign)
                encoder = await asyncio.to_thread(_make_encoder, session, request.codec)
                undo.push_async_callback(asyncio.to_thread, encoder.close)
                self._check_wanted(name)
                undo.pop_all()
                broadcast = Broadcast(session, partial(self._end_failed, session_id))
                kept = files.pop_all()
                entry = Entry(session_id, name, session, encoder, broadcast, cost, manifest, kept)
                if isinstance(encoder, CodeEncoder):
                    entry.audience = Audience(secrets.token_urlsafe(24), request.consent or "")
                    entry.audience.start(session_id, broadcast, encoder)
                self._entries[entry.id] = entry
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._watch())
        log(
            "live session begun",
            session=entry.id,
            identity=name,
            frame_ms=round(cost.wall_ms, 1),
            frame_processor_ms=round(cost.processor_ms, 1),
        )
        return entry

    def end(self, session_id: str) -> None:
        """End a session; nothing happens if it has ended.

        Its resources are freed by a task of its own, so that this works while the caller is cancelled.

        Args:
            session_id: Its ID.
        """
        with self._counting:
            entry = self._entries.pop(session_id, None)
            if entry is not None:
                self._n_ended += _n_rendered(entry)
        if entry is not None:
            statistics = entry.session.statistics
            log("live session ended", session=session_id, frames=statistics.n_frames)
            task = asyncio.get_running_loop().create_task(entry.end())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    @asynccontextmanager
    async def barred(self, identity: str) -> AsyncIterator[None]:
        """End the sessions of a person, and accept none for the duration of an `async with` block.

        Args:
            identity: Name of the person.

        Yields:
            None, once all sessions of the person have ended.
        """
        self._barred.append(identity)
        try:
            await self._end_all(identity)
            yield
        finally:
            self._barred.remove(identity)

    async def close(self) -> None:
        """End all sessions, and accept no more."""
        self._is_closed = True
        if self._watching is not None:
            self._watching.cancel()
        await self._end_all()

    async def _end_all(self, identity: str | None = None) -> None:
        """End all sessions, or those of a person, also those that are being begun."""
        async with self._lock:
            for entry in self.all():
                if identity is None or entry.identity == identity:
                    self.end(entry.id)
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _end_unwanted(self, task: asyncio.Task[Entry]) -> None:
        """End a session that has begun after its request was cancelled."""
        if not task.cancelled() and task.exception() is None:
            self.end(task.result().id)

    def _check_wanted(self, identity: str | None) -> None:
        """Raise Problem if no session of a person may begin now."""
        if self._is_closed:
            detail = "the server is stopping. Try again later"
            raise Problem(503, detail, {"Retry-After": str(RETRY_AFTER_S)})
        if identity in self._barred:
            raise Problem(409, f"{printable(identity)} is being deleted. Choose another identity")

    def _end_failed(self, session_id: str, error: Exception) -> None:
        """End a session whose frames can no longer be made; its viewers would otherwise keep it."""
        log_error("live session failed", error, session=session_id)
        self.end(session_id)

    def _check_room(self) -> None:
        """Raise Problem if a further session need not be tried."""
        n = len(self._entries)
        if n >= self._n_most:
            raise _no_room(f"{n} live sessions are running, the most that are accepted")
        busy_ms = max((one.session.statistics.busy_ms for one in self.all()), default=0.0)
        processor_ms = max((one.cost.processor_ms for one in self.all()), default=0.0)
        self._check_pace(FrameCost(busy_ms, processor_ms))

    def _check_pace(self, cost: FrameCost) -> None:
        """Raise Problem if the sessions would not keep 25 frames a second with a further one.

        The first one is always accepted: on a slow machine it repeats pictures.
        """
        n = len(self._entries) + 1
        if n > 1 and not keep_pace(n, cost, self._n_cores):
            log("live session refused", sessions=n - 1, frame_ms=round(cost.wall_ms, 1))
            raise _no_room(
                f"this machine is too busy for {n} live sessions at 25 frames a second. End one, or try "
                "again later"
            )

    def _count_rendered(self) -> int:
        """Count the frames of speech that all sessions have rendered, also those that have ended."""
        with self._counting:
            return self._n_ended + sum(_n_rendered(entry) for entry in self._entries.values())

    async def _watch(self) -> None:
        """End sessions that no client is connected to, until there are no sessions."""
        while self._entries:
            await asyncio.sleep(CHECK_S)
            self._end_abandoned()

    def _end_abandoned(self) -> None:
        """End the sessions that no client is connected to."""
        limit = time.monotonic() - CONNECT_S
        for entry in self.all():
            audience, used_s = entry.audience, entry.used_s
            if audience is not None:
                used_s = max(used_s, audience.used_s)
            is_used = entry.is_connected or entry.viewers or audience
            if not is_used and used_s < limit:
                self.end(entry.id)


def _make_encoder(session: LiveSession, codec: Codec) -> VideoEncoder | CodeEncoder:
    """Make the encoder of a session's pictures."""
    return CodeEncoder(session.facts.reach) if codec == CODES else VideoEncoder(session.size, codec)


def _n_rendered(entry: Entry) -> int:
    """Count the frames of speech that a session has rendered in this process."""
    statistics = entry.session.statistics
    is_rendered = entry.session.options.rendered
    return statistics.n_speech - statistics.n_repeated if is_rendered else 0


def _no_room(detail: str) -> Problem:
    return Problem(503, detail, {"Retry-After": str(RETRY_AFTER_S)})
