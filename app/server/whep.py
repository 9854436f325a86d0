"""Viewers of live sessions over WebRTC, by WHEP: a player posts its offer and gets the answer.

The media need the extra `webrtc`. WHEP is draft-ietf-wish-whep of the IETF.
"""

from __future__ import annotations

import asyncio
import importlib
import secrets
import time
from typing import Any

from fastapi import APIRouter, Request, Response

from talkhead.app.server.dependencies import NOT_FOUND, PROBLEMS, problem
from talkhead.app.server.live import Sessions
from talkhead.app.server.live_sessions import Entry
from talkhead.app.server.logs import log
from talkhead.app.server.problems import Problem
from talkhead.errors import TalkheadError, one_line

SDP = "application/sdp"
MAX_VIEWERS = 4
"""Most viewers of a session: each has an encoder of its own."""
MAX_OFFER_BYTES = 100_000
_TEXT = {"schema": {"type": "string"}}
_OFFER = {"requestBody": {"required": True, "content": {SDP: _TEXT}}}
_ANSWER: dict[str, Any] = {
    "description": "The answer; `Location` is the address of the viewer",
    "content": {SDP: _TEXT},
}

router = APIRouter(prefix="/v1/live", tags=["live"], responses=PROBLEMS | NOT_FOUND)


@router.post(
    "/{session_id}/whep",
    status_code=201,
    summary="Watch a live session over WebRTC",
    response_class=Response,
    responses={
        201: _ANSWER,
        409: problem("The session is a broadcast, which has no pictures"),
        415: problem("The request is not application/sdp"),
        501: problem("The extra webrtc is not installed"),
    },
    openapi_extra=_OFFER,
)
async def watch(session_id: str, request: Request, sessions: Sessions) -> Response:
    """Send the pictures of a session as VP8 and its audio as Opus to the sender of an offer (WHEP)."""
    if sessions.find(session_id).audience is not None:
        raise Problem(
            409, "a broadcast has no pictures for WebRTC. Open its watch_url in a browser"
        )
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != SDP:
        raise Problem(415, f"the offer of a viewer is sent with Content-Type: {SDP}")
    offer = (await request.body())[: MAX_OFFER_BYTES + 1]
    if len(offer) > MAX_OFFER_BYTES:
        raise Problem(413, f"an offer has at most {MAX_OFFER_BYTES} bytes")
    try:
        webrtc = await asyncio.to_thread(importlib.import_module, "talkhead.app.live.webrtc")
    except ImportError as error:
        raise Problem(
            501,
            "this server cannot send WebRTC, because aiortc is missing. On the server, run: "
            "pip install 'talkhead[webrtc]'",
        ) from error
    entry = sessions.find(session_id)  # it may have ended since: it would never close this viewer
    return await _admit_viewer(entry, offer.decode("utf-8", "replace"), webrtc.Viewer)


@router.delete("/{session_id}/whep/{viewer_id}", status_code=204, summary="Stop watching")
async def stop_watching(session_id: str, viewer_id: str, sessions: Sessions) -> None:
    """End the connection of a viewer. The session goes on."""
    viewer = sessions.find(session_id).viewers.get(viewer_id)
    if viewer is None:
        raise Problem(404, "there is no such viewer; the connection may have ended")
    await viewer.close()


async def _admit_viewer(entry: Entry, offer: str, make_viewer: Any) -> Response:
    """Connect a viewer to a session."""
    if len(entry.viewers) >= MAX_VIEWERS:
        detail = f"{MAX_VIEWERS} viewers watch this session, the most that are accepted"
        raise Problem(503, detail, {"Retry-After": "10"})
    viewer_id = secrets.token_urlsafe(12)

    def ended() -> None:
        entry.viewers.pop(viewer_id, None)
        entry.used_s = time.monotonic()
        log("viewer left", session=entry.id, viewers=len(entry.viewers))

    frames = entry.broadcast.frames
    viewer = entry.viewers[viewer_id] = make_viewer(frames(), frames(), ended)
    try:
        answer = await viewer.answer(offer)
    except BaseException as error:
        await viewer.close()
        if isinstance(error, TalkheadError):
            cause = one_line(error.__cause__ or error)
            log("viewer refused", session=entry.id, reason=one_line(error), cause=cause)
        raise
    log("viewer joined", session=entry.id, viewers=len(entry.viewers))
    location = {"Location": f"/v1/live/{entry.id}/whep/{viewer_id}"}
    return Response(answer, 201, location, SDP)
