"""/v1/identities: fit people to uploaded footage, show them, delete them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, File, Form, Request, Response, UploadFile
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from talkhead.app.choices import DEFAULT_RENDERER
from talkhead.app.dubbing.job import FIT, QUEUED, RUNNING, Job, Task
from talkhead.app.home.identities import QUALITY, IdentitySummary, check_name, name_from_video
from talkhead.app.home.removal import remove_identity
from talkhead.app.options import FitOptions
from talkhead.app.server import events
from talkhead.app.server.callbacks import check_url
from talkhead.app.server.dependencies import (
    NOT_FOUND,
    NOT_NOW,
    PROBLEMS,
    IdempotencyKey,
    ServiceDep,
    error_of,
    status_of,
)
from talkhead.app.server.forms import known_fields_only
from talkhead.app.server.models import Deleted, Identity, IdentityList
from talkhead.app.server.problems import Problem, public_message
from talkhead.app.server.records import FitRecord, Origin
from talkhead.app.server.service import Service
from talkhead.app.server.uploads import (
    check_footage,
    check_key,
    new_folder,
    request_checksum,
    save,
    title_of,
)
from talkhead.errors import TalkheadError, one_line
from talkhead.identity import MANIFEST_NAME, Manifest, read_manifest
from talkhead.storage import read_json, sha256_of
from talkhead.terminal import printable

router = APIRouter(prefix="/v1", tags=["identities"])
MAX_CONSENT_CHARS = 500
REPORT = "report.html"
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; sandbox"
)

Name = Annotated[str, PathParameter(alias="name", max_length=64)]


@router.post(
    "/identities",
    status_code=202,
    responses=PROBLEMS,
    dependencies=[Depends(known_fields_only)],
    summary="Fit a person",
)
def create_identity(
    service: ServiceDep,
    response: Response,
    video: Annotated[UploadFile, File(description="Footage of the person, with sound")],
    consent: Annotated[
        str,
        Form(
            min_length=1,
            max_length=MAX_CONSENT_CHARS,
            description="Who is shown, and how they have consented. It is stated in their videos.",
        ),
    ],
    name: Annotated[str, Form(description="Name. (default: that of the footage)")] = "",
    preset: Annotated[
        Literal["preview", "standard", "high"], Form(description="How long to train")
    ] = "standard",
    renderer: Annotated[str, Form(description="Name of a renderer")] = DEFAULT_RENDERER,
    use_all_frames: Annotated[bool, Form(description="Train on all frames")] = False,
    min_face: Annotated[float, Form(description="Share of frames that must show a face")] = 0.8,
    check_speech: Annotated[bool, Form(description="Refuse footage without speech")] = True,
    callback_url: Annotated[str, Form(description="URL that is notified at the end")] = "",
    key: IdempotencyKey = "",
) -> Identity:
    """Queue a fit. The header `Location` of the response has the URL of the person."""
    if not consent.strip():
        raise TalkheadError("consent: is empty. State who is shown and how they have consented")
    if callback_url:
        check_url(callback_url, service.settings.callbacks)
    person = check_name(name or name_from_video(Path(title_of(video.filename))))
    options = {
        "consent": printable(consent.strip()),
        "use_all_frames": use_all_frames,
        "min_face": min_face,
        "check_speech": check_speech,
    }
    FitOptions(preset=preset, renderer=renderer, **options)  # type: ignore[arg-type]
    fields = {**options, "name": person, "preset": preset, "renderer": renderer}
    checksum = request_checksum(fields, video) if check_key(key) else ""
    with service.once(service.fits, key, checksum) as known:
        if known is None:
            task = Task(FIT, person, renderer=renderer, preset=preset, options=options)
            origin = Origin(time.time(), key, checksum, callback_url)
            known = _add_fit(service, video, task, origin)
    response.headers["Location"] = f"/v1/identities/{known.id}"
    return show_identity(service, known.id)


def _add_fit(service: Service, video: UploadFile, task: Task, origin: Origin) -> FitRecord:
    """Store footage and queue its fit."""
    name, title = task.identity, title_of(video.filename)
    with service.reserved(name):
        check_free(service, name)
        service.fits.remove(name)  # of a fit that failed
        with new_folder(service.fits.folder(name)) as folder:
            path = save(video, folder, "footage")
            seconds = check_footage(path, title, service.settings.limits.footage_s)
            task = replace(task, video=str(path), digest=sha256_of(path))
            record = FitRecord(name, task, title, seconds, origin)
            with service.lock:
                service.admit(0)
                service.fits.write(record)
                service.add([task])
            return record


def check_free(service: Service, name: str) -> None:
    """Check that a name can be given to a new person.

    Args:
        service: The service.
        name: The name.

    Raises:
        Problem: It is taken.
    """
    record = service.fits.find(name)
    job = service.store.find(record.task.id) if record is not None else None
    is_open = job is not None and job.status in (QUEUED, RUNNING)
    if name in service.home.names() or is_open:
        raise Problem(
            409,
            f"there is a person called {name} already. Choose another name, or delete them first",
        )


@router.get("/identities", summary="List the people")
def list_identities(service: ServiceDep) -> IdentityList:
    """List all people in the home folder, including those that are being fitted."""
    summaries = {one.name: one for one in service.home.summaries()}
    names = sorted({*summaries, *(one.id for one in service.fits.all())})
    return IdentityList(tuple(_show(service, name, summaries.get(name)) for name in names))


@router.get("/identities/{name}", responses=NOT_FOUND, summary="Show a person")
def get_identity(service: ServiceDep, name: Name) -> Identity:
    """Show a person, with the quality of the footage and the metrics of the fit."""
    return show_identity(service, name)


@router.get(
    "/identities/{name}/events",
    responses={**NOT_FOUND, 200: events.DESCRIPTION},
    response_class=StreamingResponse,
    summary="Follow a fit",
)
def follow_identity(service: ServiceDep, name: Name) -> StreamingResponse:
    """Send the person as server-sent events: `progress`, then `completed`, `failed` or `deleted`."""
    show_identity(service, name)
    return events.stream(service, lambda: show_identity(service, name))


@router.get(
    "/identities/{name}/portrait",
    responses={**NOT_FOUND, 200: {"content": {"image/jpeg": {}}}},
    response_class=Response,
    summary="Show a portrait",
)
def get_portrait(service: ServiceDep, name: Name) -> Response:
    """Return the first frame of a person's own footage as JPEG."""
    if name not in service.home.names():
        raise Problem(404, f"{printable(name)} is not fitted, so there is no portrait")
    still = service.previews.portrait(name)
    return Response(still.data, media_type=still.media_type, headers=_CACHED)


@router.get(
    "/identities/{name}/report",
    responses={**NOT_FOUND, 200: {"content": {"text/html": {}}}},
    response_class=FileResponse,
    summary="Show the report of a fit",
)
def get_report(service: ServiceDep, name: Name) -> FileResponse:
    """Return the report of a fit as HTML."""
    show_identity(service, name)  # raises if there is none
    path = service.home.report_path(name) / REPORT
    if not path.is_file():
        raise Problem(404, f"there is no report on {printable(name)}")
    headers = {"Content-Security-Policy": REPORT_POLICY}
    return FileResponse(path, media_type="text/html", headers=headers)


@router.delete(
    "/identities/{name}",
    responses={**NOT_FOUND, **NOT_NOW},
    summary="Delete a person",
)
async def delete_identity(service: ServiceDep, request: Request, name: Name) -> Deleted:
    """Delete all data of a person: package, work, report, footage, videos, jobs and results.

    The response lists what was deleted. Work on the person, including live sessions, is stopped
    first.
    """
    show_identity(service, name)  # raises if there is none
    async with request.app.state.live.barred(name):
        return await run_in_threadpool(_delete_person, service, name)


def _delete_person(service: Service, name: str) -> Deleted:
    """Delete a person, and list what was deleted."""
    with service.reserved(name):
        return Deleted(name, tuple(_delete(service, name)))


def _delete(service: Service, name: str) -> list[str]:
    """Delete all data of a person, and list it."""
    home = service.home
    jobs = [job for job in service.store.jobs((QUEUED, RUNNING)) if _concerns(service, job, name)]
    service.stop_jobs([job.id for job in jobs])
    service.web_heads.forget(name)
    removed = []
    with service.lock:
        videos = [one for one in service.videos.all() if name in one.task.identities]
        for video in videos:
            removed.append(_relative(service, service.videos.remove(video.id)))
        if home.has(name) or any(_concerns(service, job, name) for job in service.store.jobs()):
            removed += _remove_from_home(service, name)
        if service.fits.find(name) is not None:
            removed.append(_relative(service, service.fits.remove(name)))
        removed += _delete_tables(service)
    service.previews.forget(name)  # without the lock: they wait while a person is loaded
    service.avatars.forget(name)
    return [f"removed {one.removeprefix('removed ')}" for one in removed]


def _remove_from_home(service: Service, name: str) -> list[str]:
    """Delete what `talkhead identities remove` deletes, and list it."""
    try:
        return [_relative(service, one) for one in remove_identity(service.home, name).lines()]
    except TalkheadError as error:  # another program works on the person
        raise Problem(409, public_message(one_line(error), service.home.path)) from error


def _delete_tables(service: Service) -> list[str]:
    """Delete tables that have no videos left, with their uploads."""
    removed = []
    for dub in service.dubs.all():
        if not any(service.videos.find(video) for video in dub.videos):
            removed.append(_relative(service, service.dubs.remove(dub.id)))
    return removed


def _concerns(service: Service, job: Job, name: str) -> bool:
    return bool({name, str(service.home.identities_dir / name)} & {*job.task.identities})


def _relative(service: Service, what: Path | str) -> str:
    """Leave out the home folder from a text or path."""
    return str(what).replace(f"{service.home.path}/", "")


# -------------------------------------------------------------------------------- shown


def show_identity(service: Service, name: str) -> Identity:
    """Describe a person.

    Args:
        service: The service.
        name: The name.

    Returns:
        The object of the API.

    Raises:
        Problem: There is no person with this name.
    """
    known = service.fits.find(name) is not None or service.home.has(name)
    if not known:
        shown = printable(name[:100])
        raise Problem(404, f"there is no person called {shown}. GET /v1/identities lists them")
    summary = next((one for one in service.home.summaries() if one.name == name), None)
    return _show(service, name, summary)


def _show(service: Service, name: str, summary: IdentitySummary | None) -> Identity:
    record = service.fits.find(name)
    job = service.store.find(record.task.id) if record is not None else None
    if record is not None and (job is None or job.status in (QUEUED, RUNNING)):
        is_fitted = summary is not None and summary.is_finished
        if not is_fitted or job is not None:
            return _unfinished(service, record, job)
    if summary is not None and summary.is_finished:
        return _finished(service, name, summary)
    if record is not None:
        return _unfinished(service, record, job)
    problem = summary.problem if summary is not None else "not finished"
    return Identity(name, "failed", 0, 0.0, error=public_message(problem, service.home.path))


def _unfinished(service: Service, record: FitRecord, job: Job | None) -> Identity:
    """Describe a person whose fit has not been successful yet."""
    status, advance = status_of(job), service.runner.view.of(record.task.id)
    is_running = status == "in_progress"
    if status == "completed":  # and the package is gone
        status = "failed"
    return Identity(
        name=record.id,
        status=status,
        progress=advance.percent if is_running else 0,
        created_at=round(record.origin.created_at, 3),
        preset=record.task.preset,
        stage=advance.stage if is_running else "",
        consent=str(record.task.options.get("consent", "")),
        error=_reason(service, record, job) if status == "failed" else "",
        seconds=round(record.seconds, 3),
    )


def _reason(service: Service, record: FitRecord, job: Job | None) -> str:
    """Return why a fit has failed, with the name under which the footage was uploaded."""
    return error_of(service, job).replace(Path(record.task.video).name, record.title)


def _finished(service: Service, name: str, summary: IdentitySummary) -> Identity:
    """Describe a fitted person."""
    if summary.problem:
        problem = public_message(summary.problem, service.home.path)
        return Identity(name, "failed", 0, 0.0, is_default=summary.is_latest, error=problem)
    manifest = read_manifest(read_json(summary.path / MANIFEST_NAME), summary.path)
    has_report = (service.home.report_path(name) / REPORT).is_file()
    address = f"/v1/identities/{name}"
    return Identity(
        name=name,
        status="completed",
        progress=100,
        created_at=_unix_time(manifest.created),
        preset=manifest.preset,
        renderers=tuple(sorted(manifest.renderers)),
        consent=manifest.consent or "",
        is_default=summary.is_latest,
        size=f"{manifest.frame_width}x{manifest.frame_height}",
        seconds=manifest.source.duration_s,
        quality=_quality(manifest, summary.path),
        figures=manifest.figures,
        portrait_url=service.tickets.link(f"{address}/portrait"),
        report_url=service.tickets.link(f"{address}/report") if has_report else "",
    )


def _quality(manifest: Manifest, path: Path) -> Mapping[str, Any]:
    if QUALITY not in manifest.files:
        return {}
    try:
        quality = read_json(path / QUALITY)
    except TalkheadError:  # only shown to people, so errors are ignored
        return {}
    return quality if isinstance(quality, dict) else {}


def _unix_time(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


_CACHED = {"Cache-Control": "private, max-age=3600"}
