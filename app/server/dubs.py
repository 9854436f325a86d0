"""/v1/dubs: tables of videos, uploaded together with the files that they name."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Response, UploadFile
from fastapi import Path as PathParameter

from talkhead.app.dubbing.job import Task
from talkhead.app.dubbing.planner import plan
from talkhead.app.dubbing.table import Row, Table, build_options, check_files, read_table
from talkhead.app.server.dependencies import NOT_FOUND, PROBLEMS, IdempotencyKey, ServiceDep
from talkhead.app.server.forms import known_fields_only, single_file_codec
from talkhead.app.server.identities import MAX_CONSENT_CHARS
from talkhead.app.server.models import Deleted, Dub, DubList, Status, Video
from talkhead.app.server.problems import Problem, public_message
from talkhead.app.server.records import ID, DubRecord, FitRecord, Origin, VideoRecord, new_id
from talkhead.app.server.service import Service
from talkhead.app.server.uploads import (
    check_key,
    check_length,
    check_sound,
    new_folder,
    request_checksum,
    title_of,
)
from talkhead.app.server.videos import add_videos, show_video
from talkhead.errors import TalkheadError
from talkhead.media import probe
from talkhead.storage import make_folder, remove, translate_os_errors
from talkhead.terminal import printable

router = APIRouter(prefix="/v1", tags=["dubs"])
FILES = "files"
_FILE_NAME = re.compile(r"[\w][\w .()+-]{0,150}")
SHOWN = 20

DubId = Annotated[str, PathParameter(alias="id", pattern=f"^{ID.pattern}$")]


@router.post(
    "/dubs",
    status_code=202,
    responses=PROBLEMS,
    dependencies=[Depends(known_fields_only)],
    summary="Render the videos of a table",
)
def create_dub(
    service: ServiceDep,
    response: Response,
    table: Annotated[UploadFile, File(description="Table: .csv, .jsonl or .yaml")],
    files: Annotated[list[UploadFile], File(description="The files that the table names")],
    consent: Annotated[
        str,
        Form(
            max_length=MAX_CONSENT_CHARS,
            description="Who is shown in footage of the table, and how they have consented",
        ),
    ] = "",
    key: IdempotencyKey = "",
) -> Dub:
    """Queue the videos of a table. Its paths are names of the uploaded files, without folders."""
    checksum = request_checksum({"consent": consent}, table, *files) if check_key(key) else ""
    with service.once(service.dubs, key, checksum) as known:
        if known is None:
            with new_folder(service.dubs.folder(new_id("dub"))) as folder:
                rows = _read(service, table, files, folder).rows
                origin = Origin(time.time(), key, checksum)
                known = _add(service, rows, folder, title_of(table.filename), origin, consent)
    response.headers["Location"] = f"/v1/dubs/{known.id}"
    return show_dub(service, known)


def _read(service: Service, table: UploadFile, files: Sequence[UploadFile], folder: Path) -> Table:
    """Store a table with its files and read it. Raise TalkheadError if a row is invalid."""
    inside = make_folder(folder / FILES)
    for upload in files:
        _store(upload, inside, _plain_name(upload))
    name = _plain_name(table)
    if (inside / name).exists():
        raise TalkheadError(f"{name}: the table and a file have the same name. Rename one")
    path = _store(table, inside, name)
    try:
        found = read_table(path, lambda text, _: _known_name(service, text))
        if found.bad:
            raise found.refuse()
        for row in found.rows:
            _check_row(row, inside)
    except TalkheadError as error:
        message = public_message(str(error), service.home.path)
        raise TalkheadError(message.replace(", or pass skip_bad to dub the others", "")) from error
    return found


def _plain_name(upload: UploadFile) -> str:
    name = upload.filename or ""
    if not _FILE_NAME.fullmatch(name):
        raise TalkheadError(
            f"file {printable(name[:100])!r}: not a name that can be used. Choose letters, digits, "
            "spaces and . ( ) + - _, without folders"
        )
    return name


def _store(upload: UploadFile, folder: Path, name: str) -> Path:
    path = folder / name
    if path.exists():
        raise TalkheadError(f"{name}: two files have this name. Rename one")
    with translate_os_errors(path), path.open("wb") as target:
        while block := upload.file.read(1 << 20):
            target.write(block)
    return path


def _known_name(service: Service, text: str) -> str:
    """Return the name of a fitted person. Folders, which tables of `dub` may give, are refused."""
    if text not in service.home.names():
        shown = printable(text[:100])
        raise TalkheadError(f"identity {shown!r}: not found. GET /v1/identities lists the people")
    return text


def _check_row(row: Row, folder: Path) -> None:
    """Raise TalkheadError if a row names a file that was not uploaded, or a folder."""
    named = {"certificate", "drive", "key"} & set(row.options)
    if named:
        raise TalkheadError(f"line {row.line}: {named.pop()} is not accepted here. Leave it out")
    single_file_codec(build_options(row.options))
    for path in (*row.inputs, row.output):
        if path.parent != folder or path.is_symlink():
            raise TalkheadError(
                f"line {row.line}: {printable(path.name)} is outside of the table's folder. Pass names "
                "of uploaded files, without folders"
            )
    check_files(row)


def _add(
    service: Service, rows: Sequence[Row], folder: Path, title: str, origin: Origin, consent: str
) -> DubRecord:
    """Write the records of a table and queue its tasks."""
    ids = [new_id("video") for _ in rows]
    made: list[Path] = []
    try:
        records = []
        moved = []
        for row, video_id in zip(rows, ids, strict=True):
            seconds = _check_length(service, row)
            made.append(make_folder(service.videos.folder(video_id)))
            moved.append(replace(row, output=made[-1] / row.output.name))
            name = printable(row.output.name)
            placeholder = Task("line", row.identity)
            records.append(VideoRecord(video_id, placeholder, name, seconds, origin, folder.name))
        with service.lock:
            tasks = plan(moved, service.home, service.store.open_fits())
            fits = [_with_consent(task, consent) for task in tasks[: len(tasks) - len(rows)]]
            lines = tasks[len(fits) :]
            records = [replace(r, task=task) for r, task in zip(records, lines, strict=True)]
            dub = DubRecord(folder.name, title, tuple(ids), tuple(fits), origin)
            for fit in fits:
                _record_fit(service, fit, origin)
            add_videos(service, records, fits)
            service.dubs.write(dub)
    except BaseException:
        for path in made:
            remove(path)
        raise
    return dub


def _check_length(service: Service, row: Row) -> float:
    """Return the duration of a row's audio, or of its video if it has timed lines. Raise TalkheadError if
    it is too long."""
    longest_s = service.settings.limits.audio_s
    if row.audio is not None:
        return check_sound(row.audio, row.audio.name, longest_s)
    assert row.video is not None
    return check_length(probe(row.video).duration_s, row.video.name, longest_s)


def _record_fit(service: Service, task: Task, origin: Origin) -> None:
    """Write the record of a fit that a table asks for, unless there is one."""
    if service.fits.find(task.identity) is None:
        make_folder(service.fits.folder(task.identity))
        path = Path(task.video)
        service.fits.write(FitRecord(task.identity, task, path.name, 0.0, origin))


def _with_consent(task: Task, consent: str) -> Task:
    """Add the statement of consent to a fit that the table asks for."""
    if task.options:  # a fit that is queued already
        return task
    if not consent.strip():
        raise TalkheadError(
            "consent: is needed, because the table has footage of a person who is not fitted yet. "
            "State who is shown and how they have consented"
        )
    return replace(task, options={"consent": printable(consent.strip())})


@router.get("/dubs", summary="List the tables, the newest first")
def list_dubs(service: ServiceDep) -> DubList:
    """List the tables."""
    newest = list(reversed(service.dubs.all()))[:SHOWN]
    return DubList(tuple(show_dub(service, record) for record in newest))


@router.get("/dubs/{id}", responses=NOT_FOUND, summary="Show a table")
def get_dub(service: ServiceDep, dub_id: DubId) -> Dub:
    """Show the state of a table and of each of its videos."""
    return show_dub(service, find_dub(service, dub_id))


@router.delete("/dubs/{id}", responses=NOT_FOUND, summary="Delete a table and its videos")
def delete_dub(service: ServiceDep, dub_id: DubId) -> Deleted:
    """Cancel and delete the videos of a table, and the uploaded files."""
    record = find_dub(service, dub_id)
    removed = []
    for video_id in record.videos:
        video = service.videos.find(video_id)
        if video is not None:
            service.delete_video(video)
            removed.append(f"removed video {video_id}")
    service.store.cancel(fit.id for fit in record.fits)
    service.dubs.remove(record.id)
    return Deleted(record.id, (*removed, "removed the uploaded files"))


def find_dub(service: Service, dub_id: str) -> DubRecord:
    """Find a table.

    Args:
        service: The service.
        dub_id: Its ID.

    Returns:
        Its record.

    Raises:
        Problem: There is none.
    """
    record = service.dubs.find(dub_id)
    if record is None:
        raise Problem(404, f"there is no table {printable(dub_id)}. GET /v1/dubs lists them")
    return record


def show_dub(service: Service, record: DubRecord) -> Dub:
    """Describe a table.

    Args:
        service: The service.
        record: Its record.

    Returns:
        The object of the API.
    """
    found = (service.videos.find(video_id) for video_id in record.videos)
    videos = tuple(show_video(service, one) for one in found if one and not one.is_deleted)
    return Dub(
        id=record.id,
        status=combined_status(videos),
        progress=sum(one.progress for one in videos) // max(len(videos), 1),
        created_at=round(record.origin.created_at, 3),
        title=record.title,
        videos=videos,
        identities=tuple(dict.fromkeys(fit.identity for fit in record.fits)),
    )


def combined_status(videos: Sequence[Video]) -> Status:
    """Combine the states of videos.

    Args:
        videos: The videos.

    Returns:
        See `talkhead.app.server.models.Dub`.
    """
    states = {video.status for video in videos}
    if (
        "in_progress" in states
        or {"queued", "completed"} <= states
        or {"queued", "failed"} <= states
    ):
        return "in_progress"
    if "queued" in states:
        return "queued"
    return "failed" if "failed" in states else "completed"
