"""/v1/identities/NAME/web and lines: people in web pages, rendered by the browser."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Request, Response, UploadFile
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

from talkhead.app.server.dependencies import NOT_FOUND, PROBLEMS, Responses, ServiceDep, problem
from talkhead.app.server.forms import known_fields_only
from talkhead.app.server.identities import Name
from talkhead.app.server.models import WebExport, WebLine
from talkhead.app.server.problems import Problem, public_message
from talkhead.app.server.security import WEB_EXPORT_POLICY
from talkhead.app.server.service import RETRY_AFTER_S, Service
from talkhead.app.server.uploads import check_sound
from talkhead.app.server.videos import save_speech
from talkhead.app.web_export.request import exported_files
from talkhead.terminal import printable

router = APIRouter(prefix="/v1/identities/{name}", tags=["web"])
MEDIA_TYPES = {
    ".bin": "application/octet-stream",
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mp4": "video/mp4",
    ".wasm": "application/wasm",
}
"""Media types of the files, which do not depend on the settings of this machine."""
FULL: Responses = {507: problem("The disk is nearly full")}
FILE: Responses = {
    **NOT_FOUND,
    200: {"content": {"*/*": {}}},
    304: {"description": "The browser has this file"},
}
_HEADERS = {"Cache-Control": "private, no-cache", "Content-Security-Policy": WEB_EXPORT_POLICY}


@router.post(
    "/web", status_code=202, responses={**NOT_FOUND, **FULL}, summary="Write a person's web export"
)
def write_web_export(service: ServiceDep, name: Name) -> WebExport:
    """Begin to write the files that <talking-head> needs, unless they are there already.

    It takes up to a minute; `GET` tells when they are there.
    """
    _check_fitted(service, name)
    service.check_disk(0)
    service.web_heads.start(name)
    return show_web_export(service, name)


@router.get("/web", responses=NOT_FOUND, summary="Show a person's web export")
def get_web_export(service: ServiceDep, name: Name) -> WebExport:
    """Show whether the files are there, and their address."""
    _check_fitted(service, name)
    return show_web_export(service, name)


@router.get(
    "/web/{file}", responses=FILE, response_class=Response, summary="Read a file of a web export"
)
@router.get("/web/{ticket}/{file}", include_in_schema=False)
def get_web_file(
    service: ServiceDep,
    request: Request,
    name: Name,
    file: Annotated[str, PathParameter(max_length=100)],
) -> Response:
    """Return a file. In place of a token, its address may have a ticket: see `url` of the export."""
    _check_fitted(service, name)
    folder = service.web_heads.find(name)
    if folder is None or file not in exported_files(folder):
        raise Problem(404, f"the web export of {name} has no file {printable(file)}")
    path = folder / file
    content_type = MEDIA_TYPES[path.suffix]
    answer = FileResponse(path, media_type=content_type, headers=_HEADERS, stat_result=path.stat())
    if StaticFiles().is_not_modified(answer.headers, request.headers):
        return Response(status_code=304, headers={**_HEADERS, "ETag": answer.headers["etag"]})
    return answer


@router.post(
    "/lines",
    responses={**NOT_FOUND, **PROBLEMS},
    dependencies=[Depends(known_fields_only)],
    summary="Prepare a line for a web page",
)
def create_line(
    service: ServiceDep,
    name: Name,
    audio: Annotated[UploadFile | None, File(description="Recording of the speech")] = None,
    text: Annotated[str, Form(description="Text to speak, instead of audio")] = "",
) -> WebLine:
    """Compute the sound and the motion codes of a line, which <talking-head> says.

    Nothing is rendered or stored.
    """
    _check_fitted(service, name)
    service.check_disk(0)
    limits = service.settings.limits
    with service.scratch() as folder:
        sound, title = save_speech(service, folder, audio, text)
        check_sound(sound, title, limits.line_s)
        line = service.web_lines.prepare(name, sound, title, folder, limits.preview_s)
    if line is None:
        retry = {"Retry-After": str(RETRY_AFTER_S)}
        raise Problem(503, "other lines are being prepared. Try again later", retry)
    return line


def show_web_export(service: Service, name: str) -> WebExport:
    """Describe the web export of a person.

    Args:
        service: The service.
        name: Name of a fitted identity.

    Returns:
        The object of the API.

    Raises:
        Problem: There is none, and none is being written.
    """
    build, folder = service.web_heads.build(name), service.web_heads.find(name)
    if folder is not None:
        url = service.tickets.folder_link(f"/v1/identities/{name}/web")
        return WebExport(name, "completed", 100, id=folder.name, url=url)
    if build is None:
        raise Problem(404, f"there is no web export of {name} yet. Send POST to this address")
    return WebExport(
        identity=name,
        status=build.status,
        progress=build.advance.percent,
        stage=build.advance.stage if build.status == "in_progress" else "",
        error=public_message(build.error, service.home.path),
    )


def _check_fitted(service: Service, name: str) -> None:
    if name not in service.home.names():
        raise Problem(404, f"{printable(name)} is not fitted. GET /v1/identities lists the people")
