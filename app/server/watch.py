"""/watch/KEY: the page of a broadcast, the files of its head, and the WebSocket with its packets.

Whoever has the address may watch: its key takes the place of the token.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from fastapi import APIRouter, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, RedirectResponse

from talkhead.app.server import web
from talkhead.app.server.connections import WRITER
from talkhead.app.server.dependencies import ServiceDep
from talkhead.app.server.live import POLICY_VIOLATION, Sessions, greeting
from talkhead.app.server.live_sessions import LiveSessions
from talkhead.app.server.logs import log
from talkhead.app.server.problems import Problem
from talkhead.app.server.security import WATCH_FOLDER, WEB_EXPORT_POLICY

PAGE = Path(__file__).parent / "watch_page"
TRY_AGAIN_LATER = 1013
router = APIRouter(prefix=f"{WATCH_FOLDER}{{key}}", include_in_schema=False)
_CLOSE = {"Connection": "close"}
"""The page loads its files over up to six connections. Those of all viewers must not stay open."""
_HEADERS = {"Content-Security-Policy": WEB_EXPORT_POLICY, "Cache-Control": "no-cache", **_CLOSE}


@router.get("")
def add_slash(key: str, sessions: Sessions) -> Response:
    """Lead to the page, whose files have relative addresses."""
    sessions.watched(key)
    return RedirectResponse(f"{WATCH_FOLDER}{key}/", headers={"Cache-Control": "no-store"})


@router.get("/")
def show_page(key: str, sessions: Sessions) -> Response:
    """Return the page."""
    sessions.watched(key)
    return FileResponse(PAGE / "watch.html", headers=_HEADERS)


@router.get("/watch.js")
def show_script(key: str, sessions: Sessions) -> Response:
    """Return the script of the page."""
    sessions.watched(key)
    return FileResponse(PAGE / "watch.js", media_type="text/javascript", headers=_HEADERS)


@router.get("/web/{file}")
def show_file(
    key: str, file: str, sessions: Sessions, service: ServiceDep, request: Request
) -> Response:
    """Return a file of the person's web export."""
    answer = web.get_web_file(service, request, sessions.watched(key)[0].identity, file)
    answer.headers.update(_CLOSE)
    return answer


@router.websocket("/live")
async def watch(websocket: WebSocket, key: str) -> None:
    """Send the packets of a broadcast until the viewer leaves, or it ends."""
    sessions: LiveSessions = websocket.app.state.live
    await websocket.accept()
    try:
        entry, audience = sessions.watched(key)
    except Problem as problem:
        await websocket.close(POLICY_VIOLATION, problem.detail)
        return
    limit = websocket.app.state.service.settings.limits.n_viewers
    if sessions.n_viewers >= limit:
        log("viewer refused", session=entry.id, viewers=sessions.n_viewers)
        await websocket.close(TRY_AGAIN_LATER, f"{limit} viewers are watching, the most")
        return
    with suppress(RuntimeError, WebSocketDisconnect):
        await websocket.send_json(greeting(entry))
        writer = websocket.scope["extensions"][WRITER]
        writer.limit_buffers()
        with audience.joined(websocket, writer):
            while (await websocket.receive())["type"] != "websocket.disconnect":
                pass  # viewers have nothing to say
