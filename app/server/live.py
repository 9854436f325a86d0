"""Live sessions over a WebSocket: clients send audio and commands, and receive pictures with audio.

Packets to the client are binary (`talkhead.app.server.live_packets`), messages are JSON text. Both are
described in docs/live.md.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from talkhead.app.home.identities import Home
from talkhead.app.live.code_encoder import CODES, CodeEncoder
from talkhead.app.output.live_manifest import MEDIA_TYPE
from talkhead.app.server.dependencies import NOT_FOUND, Responses, ServiceDep, problem
from talkhead.app.server.live_packets import pack
from talkhead.app.server.live_requests import (
    BODY,
    LiveInfo,
    LiveRequest,
    ParsedRequest,
    SayRequest,
    read_request,
)
from talkhead.app.server.live_sessions import Entry, LiveSessions
from talkhead.app.server.logs import log
from talkhead.app.server.problems import Problem, public_message
from talkhead.app.server.security import WATCH_FOLDER
from talkhead.app.server.service import Service
from talkhead.app.server.settings import ServerSettings
from talkhead.app.text_to_speech import synthesize
from talkhead.encoder.extract import RATES
from talkhead.errors import TalkheadError, one_line
from talkhead.types import FRAME_RATE

if TYPE_CHECKING:
    from talkhead.app.live.session import LiveSession

PROTOCOL = "talkhead.live"
"""WebSocket subprotocol. The token travels as another one (`talkhead.app.server.security`)."""
FILE_NAME = "talkhead-live.json"
"""Of the signed manifest of a session."""
MAX_MESSAGE_BYTES = 1 << 20
MAX_DETAIL_CHARS = 400
MAX_TEXTS = 16
"""Texts of a connection that wait for their sound."""
MAX_TIME = 2**53
"""Numbers that browsers represent exactly are smaller."""
SEND_S = 10.0
"""A client that does not read for so long is disconnected."""
STATISTICS_EVERY = FRAME_RATE
"""Frames between two messages with statistics."""
GOING_AWAY, POLICY_VIOLATION, NORMAL, FAILED = 1001, 1008, 1000, 1011


class Signed(JSONResponse):
    """A signed manifest."""

    media_type = MEDIA_TYPE


def session_maker(
    home: Home, settings: ServerSettings
) -> Callable[[LiveRequest], tuple[str, LiveSession]]:
    """Make the function that begins sessions of the people of a home folder.

    Args:
        home: The folder.
        settings: Device and badge.

    Returns:
        A function of a request that returns the person's name and the session.
    """

    def make(request: LiveRequest) -> tuple[str, LiveSession]:
        from talkhead.app.live.session import LiveSession
        from talkhead.app.live.worker import worker_engine

        _check_name(home, request.identity)
        options = request.options(settings.live_badge)
        if request.codec == CODES:
            # In a process of its own, whose computing does not hold up the sending to viewers.
            engine = worker_engine(request.identity, options, home.path, settings.device)
            session = LiveSession(engine=engine, home=home.path)
            return session.facts.identity, session
        from talkhead.app.avatar import load_identity  # imports PyTorch, which takes seconds

        avatar = load_identity(request.identity, device=settings.device, home=home.path)
        return avatar.name, LiveSession(avatar, options=options, home=home.path)

    return make


def _check_name(home: Home, identity: str | None) -> None:
    """Raise TalkheadError unless it is the name of a person: clients must not choose folders."""
    if identity is not None and identity not in home.names():
        shown = ", ".join(home.names()) or "(none yet)"
        raise TalkheadError(f"identity {identity!r}: not found. Choose one of: {shown}")


def _with_head(service: Service, request: LiveRequest) -> LiveRequest:
    """Write the head that viewers of a broadcast draw, which may take a minute.

    Returns the request, with the name of the person.
    """
    _check_name(service.home, request.identity)
    request.options(service.settings.live_badge)  # raises before the minute if they are not allowed
    name = request.identity or service.home.latest()
    if name is not None:
        service.web_heads.folder(name)
    return request.model_copy(update={"identity": name})


def sessions_of(request: Request) -> LiveSessions:
    """Return the sessions of the application."""
    sessions: LiveSessions = request.app.state.live
    return sessions


Sessions = Annotated[LiveSessions, Depends(sessions_of)]
Parsed = Annotated[ParsedRequest, Depends(read_request)]
router = APIRouter(prefix="/v1/live", tags=["live"])
BAD_BODY: Responses = {
    400: problem("The body is not JSON"),
    408: problem("The body is sent too slowly"),
    413: problem("The body is too large"),
}
NO_ROOM: Responses = {
    503: problem("No further session can be kept up; try again after `Retry-After` seconds")
}
NOT_READY: Responses = {
    409: problem("The person is being deleted"),
    507: problem("The disk is nearly full"),
}


@router.post(
    "",
    status_code=201,
    responses={**BAD_BODY, **NO_ROOM, **NOT_READY},
    summary="Begin a live session",
    openapi_extra={"requestBody": BODY},
)
async def begin_session(
    parsed: Parsed, sessions: Sessions, service: ServiceDep, response: Response
) -> LiveInfo:
    """Load a person for live speech. Connect to the WebSocket at `url` within a minute.

    The body is JSON, or a form if an image or video is uploaded as `background_file`.
    """
    request = parsed.request
    if request.codec == CODES:  # before `begin`, which lets other sessions wait
        request = await run_in_threadpool(_with_head, service, request)
    entry = await sessions.begin(request, parsed.files)
    response.headers["Location"] = f"/v1/live/{entry.id}"
    return _info(entry)


@router.get("", summary="List live sessions")
async def list_sessions(sessions: Sessions) -> list[LiveInfo]:
    """List the sessions that are running."""
    return [_info(entry) for entry in sessions.all()]


@router.get("/{session_id}", responses=NOT_FOUND, summary="Show a live session")
async def show_session(session_id: str, sessions: Sessions) -> LiveInfo:
    """Show a session and its statistics."""
    return _info(sessions.find(session_id))


@router.get(
    "/{session_id}/manifest",
    responses={**NOT_FOUND, 200: {"content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}},
    response_class=Signed,
    summary="Show the signed manifest of a live session",
)
async def show_manifest(session_id: str, sessions: Sessions) -> Response:
    """Return a signed statement that the session is synthetic: a JSON Web Signature.

    `talkhead verify` verifies it, saved as a file.
    """
    name = f'attachment; filename="{FILE_NAME}"'
    headers = {"Content-Disposition": name, "Cache-Control": "private"}
    return Signed(sessions.find(session_id).manifest, headers=headers)


@router.post("/{session_id}/interrupt", responses=NOT_FOUND, summary="Interrupt a live session")
async def interrupt_session(session_id: str, sessions: Sessions) -> LiveInfo:
    """Drop everything that has not been returned yet; the mouth closes."""
    entry = sessions.find(session_id)
    entry.session.interrupt()
    return _info(entry)


@router.post(
    "/{session_id}/say",
    status_code=202,
    responses={**NOT_FOUND, **BAD_BODY},
    summary="Speak a text in a live session",
)
async def say(
    session_id: str, body: SayRequest, sessions: Sessions, service: ServiceDep
) -> LiveInfo:
    """Speak a text, with the installed voice or that of the server's `--voice-url`."""
    entry = sessions.find(session_id)
    await _say(entry.session, body.text, service.settings.voice_url)
    return _info(entry)


@router.delete("/{session_id}", status_code=204, responses=NOT_FOUND, summary="End a live session")
async def end_session(session_id: str, sessions: Sessions) -> None:
    """End a session; its client is disconnected."""
    sessions.find(session_id)
    sessions.end(session_id)


@router.websocket("/{session_id}")
async def connect(websocket: WebSocket, session_id: str) -> None:
    """Exchange audio and pictures of a session; it ends with the connection."""
    sessions: LiveSessions = websocket.app.state.live
    offered = websocket.scope.get("subprotocols", ())
    await websocket.accept(PROTOCOL if PROTOCOL in offered else None)
    try:
        entry = sessions.find(session_id)
        if entry.is_connected:
            raise Problem(409, "another client is connected to this session")
    except Problem as problem:
        await websocket.close(POLICY_VIOLATION, problem.detail)
        return
    entry.is_connected = True
    with suppress(RuntimeError, WebSocketDisconnect):
        await websocket.send_json(greeting(entry))
    tasks = [
        asyncio.create_task(_receive(websocket, entry)),
        asyncio.create_task(_send(websocket, entry)),
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        code = max((task.result() for task in done), default=NORMAL)
    except TalkheadError as error:
        code = FAILED
        with suppress(RuntimeError, WebSocketDisconnect):
            await websocket.send_text(_error(websocket, error))
    finally:
        for task in tasks:
            task.cancel()
        sessions.end(session_id)
    with suppress(RuntimeError, WebSocketDisconnect):
        await websocket.close(code)


def greeting(entry: Entry) -> dict[str, Any]:
    """Make the first message to a client.

    Args:
        entry: The session.

    Returns:
        The message: what the session states, and for a broadcast what its packets need.
    """
    session, encoder, audience = entry.session, entry.encoder, entry.audience
    about = {
        "type": "session",
        "synthetic": True,
        "badge": session.options.badge,
        "manifest": entry.manifest,
    }
    if audience is None or not isinstance(encoder, CodeEncoder):
        return about
    return {
        **about,
        "identity": entry.identity,
        "consent": audience.consent,
        "frame_rate": FRAME_RATE,
        "sample_rate": session.sample_rate,
        "scale": encoder.scale,
        "rest": session.facts.rest,
    }


async def _receive(websocket: WebSocket, entry: Entry) -> int:
    """Process audio and commands until the client disconnects; return the close code."""
    session = entry.session
    rate = session.sample_rate
    with closing(_Texts(websocket, session)) as texts:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return NORMAL
            sound, text = message.get("bytes"), message.get("text")
            if len(sound or text or b"") > MAX_MESSAGE_BYTES:
                return POLICY_VIOLATION
            try:
                if sound is not None:
                    await session.push_audio(sound, rate)
                else:
                    rate = await _obey(websocket, entry, texts, text or "", rate)
            except TalkheadError as error:
                await _tell(websocket, _error(websocket, error))


class _Texts:
    """Texts of one connection, which are spoken in turn while its other messages are read."""

    def __init__(self, websocket: WebSocket, session: LiveSession) -> None:
        self._websocket, self._session = websocket, session
        self._url = websocket.app.state.service.settings.voice_url
        self._tasks: deque[asyncio.Task[None]] = deque()

    def say(self, text: str) -> None:
        """Speak a text after those before it. Raises TalkheadError if too many wait."""
        while self._tasks and self._tasks[0].done():
            self._tasks.popleft()
        if len(self._tasks) >= MAX_TEXTS:
            raise TalkheadError(f"{MAX_TEXTS} texts wait to be spoken: wait for some, or interrupt")
        n, before = self._session.statistics.n_interruptions, tuple(self._tasks)
        self._tasks.append(asyncio.create_task(self._speak(text, n, before)))

    async def _speak(
        self, text: str, n_interruptions: int, before: tuple[asyncio.Task[None], ...]
    ) -> None:
        if before:
            await asyncio.wait(before)
        if self._session.statistics.n_interruptions != n_interruptions:
            return
        try:
            await _say(self._session, text, self._url)
        except TalkheadError as error:
            await _tell(self._websocket, _error(self._websocket, error))

    def close(self) -> None:
        """Drop the texts that are still waiting."""
        for task in self._tasks:
            task.cancel()


async def _tell(websocket: WebSocket, message: str) -> None:
    """Send a message, unless the client has vanished: the next call of `receive` then reports it."""
    with suppress(RuntimeError, WebSocketDisconnect):
        await websocket.send_text(message)


def _error(websocket: WebSocket, error: TalkheadError) -> str:
    """Make the message that reports an error, without paths of the server."""
    detail = public_message(one_line(error), websocket.app.state.service.home.path)
    return json.dumps({"type": "error", "detail": detail[:MAX_DETAIL_CHARS]})


async def _obey(websocket: WebSocket, entry: Entry, texts: _Texts, text: str, rate: int) -> int:
    """Carry out a command; returns the sample rate of the audio that follows.

    Raises:
        TalkheadError: It is not one, or cannot be carried out.
    """
    try:
        command = json.loads(text)
        kind = command["type"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise TalkheadError('a command is JSON such as {"type": "flush"}') from error
    session = entry.session
    if kind == "start":
        given = command.get("sample_rate", rate)
        if not isinstance(given, int) or not RATES[0] <= given <= RATES[1]:
            raise TalkheadError(
                f"a sample rate of {repr(given)[:40]}: from {RATES[0]} to {RATES[1]} is needed"
            )
        session.pace = "arrival" if command.get("source") == "microphone" else "playback"
        return given
    if kind == "flush":
        await session.flush()
    elif kind == "interrupt":
        session.interrupt()
    elif kind == "say":
        text = command.get("text")
        if not isinstance(text, str):
            raise TalkheadError("text: is needed, the words to be spoken")
        texts.say(text)
    elif kind == "keyframe":
        entry.encoder.request_key_frame()
    elif kind == "codec":
        if command.get("codec") != "jpeg":
            raise TalkheadError("the codec can only be changed to jpeg")
        await asyncio.to_thread(entry.encoder.use_jpeg)
    elif kind == "ping":
        sent = command.get("time")
        if not (isinstance(sent, int | float) and abs(sent) < MAX_TIME) and sent is not None:
            raise TalkheadError("time: a number is needed, which is returned")
        await _tell(websocket, json.dumps({"type": "pong", "time": sent}))
    else:
        raise TalkheadError(f"there is no command {str(kind)[:40]!r}. Send flush, interrupt or say")
    return rate


async def _say(session: LiveSession, text: str, voice_url: str | None) -> None:
    """Speak a text as a line of its own, with the voice that videos have, too.

    If the session is interrupted before its sound is there, it is not spoken.
    """
    n_interruptions = session.statistics.n_interruptions
    sound, rate = await asyncio.to_thread(synthesize, text, url=voice_url)
    if session.statistics.n_interruptions != n_interruptions:
        return
    await session.flush()
    session.pace = "playback"
    await session.push_audio(sound, rate, last_chunk=True)


async def _send(websocket: WebSocket, entry: Entry) -> int:
    """Send frames until the session ends; returns the code to close with."""
    session, problem = entry.session, None
    # Viewers of a broadcast do not wait for this client.
    async for frame in entry.broadcast.frames(is_awaited=entry.audience is None):
        packet = pack(frame, await asyncio.to_thread(entry.encoder.encode, frame))
        if entry.encoder.problem != problem:
            problem = entry.encoder.problem
            log("live pictures are sent as jpeg", session=entry.id, reason=problem)
        try:
            await asyncio.wait_for(websocket.send_bytes(packet), SEND_S)
            if frame.index % STATISTICS_EVERY == 0:
                statistics = {"type": "statistics", **asdict(session.statistics)}
                await asyncio.wait_for(websocket.send_json(statistics), SEND_S)
        except asyncio.TimeoutError:
            return POLICY_VIOLATION
        except (WebSocketDisconnect, RuntimeError):
            return NORMAL
    return GOING_AWAY


def _info(entry: Entry) -> LiveInfo:
    width, height = entry.session.size
    return LiveInfo(
        id=entry.id,
        identity=entry.identity,
        url=f"/v1/live/{entry.id}",
        manifest_url=f"/v1/live/{entry.id}/manifest",
        badge=entry.session.options.badge,
        mode=entry.session.options.mode,
        note=entry.session.note,
        width=width,
        height=height,
        frame_rate=FRAME_RATE,
        sample_rate=entry.session.sample_rate,
        codec=entry.encoder.codec,
        is_connected=entry.is_connected,
        watch_url=None if entry.audience is None else f"{WATCH_FOLDER}{entry.audience.key}/",
        n_viewers=0 if entry.audience is None else len(entry.audience),
        statistics=asdict(entry.session.statistics),
    )
