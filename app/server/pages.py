"""The studio page, and routes for the state of the server, metrics and previews."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Response, UploadFile
from fastapi.responses import FileResponse, PlainTextResponse

from talkhead import __version__
from talkhead.app.dubbing.table import build_options
from talkhead.app.server import metrics, voice
from talkhead.app.server.dependencies import PROBLEMS, ServiceDep
from talkhead.app.server.forms import (
    file_free_options,
    known_fields_only,
    single_file_codec,
    with_output_fields,
)
from talkhead.app.server.models import Health
from talkhead.app.server.problems import Problem
from talkhead.app.server.service import RETRY_AFTER_S
from talkhead.app.server.uploads import save
from talkhead.app.server.videos import IdentityName, Mode, check_person

PAGE = Path(__file__).parent / "page"
router = APIRouter(tags=["server"])


@router.get("/", include_in_schema=False)
def show_page() -> FileResponse:
    """Return the studio page."""
    return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})


@router.get("/favicon.ico", include_in_schema=False)
def show_icon() -> FileResponse:
    """Return the icon of the page."""
    return FileResponse(PAGE / "icon.svg", media_type="image/svg+xml")


@router.get("/v1/health", summary="Check the server")
def get_health(service: ServiceDep, response: Response) -> Health:
    """Report whether the server works. No token is needed."""
    problem = service.runner.problem
    features = [
        name
        for name, is_there in (
            ("text", voice.is_available(service.settings.voice_url)),
            ("callbacks", bool(service.settings.callbacks.secret)),
        )
        if is_there
    ]
    if problem:
        response.status_code = 503
    reason = "no job can run: see the log of the server" if problem else ""
    return Health("degraded" if problem else "ok", __version__, reason, tuple(features))


@router.get(
    "/v1/metrics",
    response_class=PlainTextResponse,
    summary="Metrics in the text format of Prometheus",
)
def get_metrics(service: ServiceDep) -> Response:
    """Return counters of requests, jobs and frames, and the space on the disk."""
    return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)


@router.post(
    "/v1/previews",
    responses={**PROBLEMS, 200: {"content": {"image/jpeg": {}, "image/png": {}}}},
    response_class=Response,
    dependencies=[Depends(known_fields_only)],
    summary="Render one frame",
)
@with_output_fields
def create_preview(
    service: ServiceDep,
    identity: IdentityName = "",
    mode: Mode = "paste",
    renderer: Annotated[str, Form(description="Name of a renderer. (default: the person's)")] = "",
    background_file: Annotated[UploadFile | None, File(description="Image or video")] = None,
    **values: object,
) -> Response:
    """Render the first frame of a video with these options, before the video is rendered."""
    name = check_person(service, identity, renderer)
    with service.scratch() as folder:
        background = None
        if background_file is not None:
            background = save(background_file, folder, "background")
        options = build_options(file_free_options(values, background, folder))
        single_file_codec(options)
        still = service.previews.still(
            name, renderer or None, mode, options, service.settings.limits.preview_s
        )
    if still is None:
        retry = {"Retry-After": str(RETRY_AFTER_S)}
        raise Problem(503, "other previews are being rendered. Try again later", retry)
    return Response(still.data, media_type=still.media_type)
