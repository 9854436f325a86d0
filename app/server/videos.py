"""/v1/videos: render videos, follow them, download and delete them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, File, Form, Query, Response, UploadFile
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, StreamingResponse

from talkhead.app.checks import check_identity
from talkhead.app.choices import REFUSE
from talkhead.app.composer.expression_track import check_track
from talkhead.app.dubbing.job import SPEAK, Task
from talkhead.app.dubbing.progress_view import NOTES
from talkhead.app.dubbing.table import build_options
from talkhead.app.home.footage import (
    ROUGHLY_LONGER_S,
    check_duration,
    locate_footage,
    timeline_seconds,
)
from talkhead.app.request import OutputOptions, check_options, srt_path
from talkhead.app.server import events, voice
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
from talkhead.app.server.forms import (
    file_free_options,
    known_fields_only,
    single_file_codec,
    with_output_fields,
)
from talkhead.app.server.models import Video, VideoList
from talkhead.app.server.problems import Problem, public_message
from talkhead.app.server.records import ID, Origin, VideoRecord, new_id
from talkhead.app.server.service import Service
from talkhead.app.server.uploads import (
    check_key,
    check_sound,
    new_folder,
    request_checksum,
    save,
    title_of,
)
from talkhead.errors import MediaError, TalkheadError
from talkhead.media import probe
from talkhead.terminal import printable
from talkhead.types import MediaInfo

router = APIRouter(prefix="/v1", tags=["videos"])
MAX_LISTED = 100
TITLE_CHARS = 60
_ANY_FILE: dict[str, Any] = {"content": {"*/*": {}}}

VideoId = Annotated[str, PathParameter(alias="id", pattern=f"^{ID.pattern}$")]
Mode = Annotated[
    Literal["paste", "head"],
    Form(description="paste: into the person's own footage; head: the head alone"),
]
IdentityName = Annotated[str, Form(description="Name of a fitted person. (default: the last one)")]


@router.post(
    "/videos",
    status_code=202,
    responses=PROBLEMS,
    dependencies=[Depends(known_fields_only)],
    summary="Render a video",
)
@with_output_fields
def create_video(
    service: ServiceDep,
    response: Response,
    audio: Annotated[UploadFile | None, File(description="Recording of the speech")] = None,
    text: Annotated[str, Form(description="Text to speak, instead of audio")] = "",
    identity: IdentityName = "",
    mode: Mode = "paste",
    renderer: Annotated[str, Form(description="Name of a renderer. (default: the person's)")] = "",
    background_file: Annotated[UploadFile | None, File(description="Image or video")] = None,
    drive_file: Annotated[
        UploadFile | None,
        File(
            description="Mode head: video of anybody, whose expressions and head motion the head takes; "
            "without audio and text, also its sound and mouth"
        ),
    ] = None,
    callback_url: Annotated[str, Form(description="URL that is notified at the end")] = "",
    key: IdempotencyKey = "",
    **values: Any,
) -> Video:
    """Queue a video. The response has its ID, and the header `Location` its URL."""
    if callback_url:
        check_url(callback_url, service.settings.callbacks)
    name = check_person(service, identity, renderer)
    fields = {**values, "text": text, "identity": name, "mode": mode, "renderer": renderer}
    uploads = (audio, background_file, drive_file)
    checksum = request_checksum(fields, *uploads) if check_key(key) else ""
    with service.once(service.videos, key, checksum) as known:
        if known is None:
            video_id = new_id("video")
            with new_folder(service.videos.folder(video_id)) as folder:
                if audio is None and not text.strip():
                    audio = drive_file
                sound, title = save_speech(service, folder, audio, text)
                options = file_free_options(
                    values, _saved(background_file, folder, "background"), folder
                )
                if drive_file is not None:
                    options["drive"] = str(_driver(drive_file, folder))
                chosen = build_options(options)
                output = folder / f"video{single_file_codec(chosen).suffixes[0]}"
                check_options(chosen, output, mode)
                if chosen.expression is not None:
                    check_track(chosen.expression, mode)
                seconds = check_sound(sound, title, service.settings.limits.audio_s)
                source = _source(service, name, title, seconds, chosen)
                task = Task(
                    SPEAK,
                    name,
                    audio=str(sound),
                    output=str(output),
                    video="" if source is None else str(source),
                    renderer=renderer,
                    mode=mode,
                    options=options,
                )
                origin = Origin(time.time(), key, checksum, callback_url)
                known = VideoRecord(video_id, task, title, seconds, origin)
                add_videos(service, [known], [])
    response.headers["Location"] = f"/v1/videos/{known.id}"
    return show_video(service, known)


def check_person(service: Service, identity: str, renderer: str) -> str:
    """Check that a person is fitted. Only names are accepted, no folders.

    Args:
        service: The service.
        identity: The name, or "" for the person who was fitted last.
        renderer: Name of a renderer, or "" for the person's own.

    Returns:
        The name.

    Raises:
        TalkheadError: There is no such person or renderer.
    """
    name = identity or service.home.resolve(None).name
    names = service.home.names()
    if name not in names:
        shown = ", ".join(names) or "(none yet, fit one with POST /v1/identities)"
        raise TalkheadError(
            f"identity {printable(name[:100])!r}: not found. Choose one of: {shown}"
        )
    check_identity(name, renderer or None, service.home.path)
    return name


def _source(
    service: Service, name: str, title: str, seconds: float, options: OutputOptions
) -> Path | None:
    """Return the footage of a person, if it is re-lipped, with audio of a title and duration.

    Raises TalkheadError if it is missing or too short.
    """
    if not options.keeps_footage:
        return None
    manifest = check_identity(name, None, service.home.path)
    if options.footage_end == REFUSE:
        check_duration(title, seconds, timeline_seconds(manifest), ROUGHLY_LONGER_S)
    remedy = "Choose timeline idle, or fit the person again"
    return locate_footage(service.home, manifest, remedy)


def _saved(upload: UploadFile | None, folder: Path, stem: str) -> Path | None:
    """Write an upload to a file of this stem, if there is one."""
    return None if upload is None else save(upload, folder, stem)


def _driver(upload: UploadFile, folder: Path) -> Path:
    """Write a driving video to a file. Raise TalkheadError if it has no picture."""
    path = save(upload, folder, "drive")
    if not probe(path).has_video:
        raise TalkheadError(f"{title_of(upload.filename)} has no picture. Upload a video of a face")
    return path


def save_speech(
    service: Service, folder: Path, audio: UploadFile | None, text: str
) -> tuple[Path, str]:
    """Write what a request says to a file.

    Args:
        service: The service.
        folder: Folder for the file.
        audio: Recording of the speech; None if there is a text.
        text: Text to speak.

    Returns:
        File with audio, and a title.

    Raises:
        TalkheadError: Both or neither are given, or the text cannot be spoken.
    """
    if (audio is None) == (not text.strip()):
        raise TalkheadError("audio or text is needed. Pass one of them")
    if audio is not None:
        return save(audio, folder, "audio"), title_of(audio.filename)
    sound = voice.synthesize(text, folder, service.settings.voice_url)
    return sound, printable(" ".join(text.split()))[:TITLE_CHARS]


def add_videos(service: Service, records: list[VideoRecord], fits: list[Task]) -> None:
    """Write records of new videos and queue their tasks.

    Args:
        service: The service.
        records: The records.
        fits: Tasks of the fits that they need.

    Raises:
        Problem: The queue is full, or a person was deleted meanwhile.
        TalkheadError: The disk is full.
    """
    with service.lock:
        service.admit(0)
        fitting = {task.identity for task in fits}
        for record in records:
            for name in record.task.identities:
                if name not in fitting and name not in service.home.names():
                    raise Problem(409, f"{name} was deleted meanwhile")
        for record in records:
            service.videos.write(record)
        service.add([*fits, *(record.task for record in records)])


@router.get("/videos", summary="List the videos, the newest first")
def list_videos(
    service: ServiceDep,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 20,
    after: Annotated[str, Query(description="ID of the last video of the page before")] = "",
    identity: Annotated[str, Query(description="Only videos of this person")] = "",
) -> VideoList:
    """List the videos of this server. The jobs of `talkhead dub` are not included."""
    records = [one for one in reversed(service.videos.all()) if not one.is_deleted]
    if identity:
        records = [one for one in records if identity in one.task.identities]
    if after:
        ids = [one.id for one in records]
        records = records[ids.index(after) + 1 :] if after in ids else []
    shown = tuple(show_video(service, record) for record in records[:limit])
    return VideoList(shown, len(records) > limit)


@router.get("/videos/{id}", responses=NOT_FOUND, summary="Show a video")
def get_video(service: ServiceDep, video_id: VideoId) -> Video:
    """Show the state of a video."""
    return show_video(service, find_video(service, video_id))


@router.get(
    "/videos/{id}/events",
    responses={**NOT_FOUND, 200: events.DESCRIPTION},
    response_class=StreamingResponse,
    summary="Follow a video",
)
def follow_video(service: ServiceDep, video_id: VideoId) -> StreamingResponse:
    """Send the video as server-sent events: `progress`, then `completed`, `failed` or `deleted`."""
    find_video(service, video_id)
    return events.stream(service, lambda: get_video(service, video_id))


@router.get(
    "/videos/{id}/content",
    responses={**NOT_FOUND, **NOT_NOW, 200: _ANY_FILE},
    response_class=FileResponse,
    summary="Download a video",
)
def get_content(service: ServiceDep, video_id: VideoId) -> FileResponse:
    """Return the finished file. Ranges and ETags are supported."""
    record = find_video(service, video_id)
    status = status_of(service.store.find(record.task.id))
    path = Path(record.task.output)
    if status != "completed":
        raise Problem(409, f"the video is not finished: its status is {status}. Ask again later")
    return _file(path, f"{record.task.identity}-{Path(record.title).stem}{path.suffix}")


@router.get(
    "/videos/{id}/subtitles",
    responses={**NOT_FOUND, 200: _ANY_FILE},
    response_class=FileResponse,
    summary="Download subtitles",
)
def get_subtitles(service: ServiceDep, video_id: VideoId) -> FileResponse:
    """Return the .srt file of a video that was made with subtitles."""
    record = find_video(service, video_id)
    path = srt_path(Path(record.task.output))
    return _file(path, f"{record.task.identity}-{Path(record.title).stem}.srt")


def _file(path: Path, name: str) -> FileResponse:
    if not path.is_file():
        raise Problem(404, "the video has no such file")
    return FileResponse(path, filename=name, headers={"Cache-Control": "private, max-age=3600"})


@router.delete(
    "/videos/{id}", status_code=204, responses=NOT_FOUND, summary="Cancel and delete a video"
)
def delete_video(service: ServiceDep, video_id: VideoId) -> None:
    """Delete a video with its audio. If it is waiting or being rendered, it is cancelled."""
    service.delete_video(find_video(service, video_id))


def find_video(service: Service, video_id: str) -> VideoRecord:
    """Find a video.

    Args:
        service: The service.
        video_id: Its ID.

    Returns:
        Its record.

    Raises:
        Problem: There is none.
    """
    record = service.videos.find(video_id)
    if record is None or record.is_deleted:
        raise Problem(404, f"there is no video {printable(video_id)}. GET /v1/videos lists them")
    return record


def _probed(path: Path) -> MediaInfo | None:
    """Probe a finished video; None if it was damaged since."""
    try:
        return probe(path)
    except MediaError:
        return None


def show_video(service: Service, record: VideoRecord) -> Video:
    """Describe a video.

    Args:
        service: The service.
        record: Its record.

    Returns:
        The object of the API.
    """
    job = service.store.find(record.task.id)
    status, output = status_of(job), Path(record.task.output)
    if status == "completed" and not output.is_file():
        status = "failed"
    advance = service.runner.view.of(record.task.id)
    is_running, is_done = status == "in_progress", status == "completed"
    result = job.result if job is not None else {}
    home = service.home.path
    options = {
        name: Path(value).name if str(value).startswith(str(home)) else value
        for name, value in record.task.options.items()
    }
    info = _probed(output) if is_done else None
    has_subtitles = is_done and srt_path(output).is_file()
    address = f"/v1/videos/{record.id}"
    return Video(
        id=record.id,
        status=status,
        progress=100 if is_done else advance.percent if is_running else 0,
        created_at=round(record.origin.created_at, 3),
        identity=record.task.identity,
        title=record.title,
        mode=record.task.mode,
        seconds=round(float(result.get("duration_s", record.seconds)), 3),
        format=output.suffix.removeprefix("."),
        stage=advance.stage if is_running else "",
        options=options,
        size=f"{info.width}x{info.height}" if info else "",
        bytes=output.stat().st_size if is_done else 0,
        error=error_of(service, job) if status == "failed" else "",
        notes=tuple(public_message(str(n), home) for n in result.get(NOTES, ())),
        dub=record.dub,
        content_url=service.tickets.link(f"{address}/content") if is_done else "",
        subtitles_url=service.tickets.link(f"{address}/subtitles") if has_subtitles else "",
    )
