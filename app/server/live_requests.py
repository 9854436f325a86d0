"""Requests for live sessions, and what the API says of a session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from talkhead.app.choices import ALPHA, DEFAULT_MODE
from talkhead.app.live.code_encoder import CODES
from talkhead.app.live.options import LiveOptions
from talkhead.app.live.video_encoder import Codec
from talkhead.app.options import PictureOptions, read_declarations
from talkhead.app.server.dependencies import ServiceDep
from talkhead.app.server.forms import background_value
from talkhead.app.server.problems import in_words_of_the_api
from talkhead.app.server.service import Service
from talkhead.app.server.uploads import save, title_of
from talkhead.encoder.extract import RATES
from talkhead.errors import MediaError, TalkheadError
from talkhead.media import probe
from talkhead.types import FRAME_RATE

FILE = "background_file"
"""Field of a form with an image or video."""
FORM = "multipart/form-data"
MAX_VIDEO_S = 60.0
MAX_VIDEO_SIZE = (3840, 2160)
"""Limits of a video as the background, upright or not: it is decoded while other sessions speak."""
PICTURE = {name: getattr(LiveOptions, name) for name in read_declarations(PictureOptions)}
"""Options of the picture that are those of videos, with their defaults."""


def _field(name: str) -> Any:
    """Declare a field as the option of that name is declared."""
    text = in_words_of_the_api(read_declarations(PictureOptions)[name].help)
    return Field(default=PICTURE[name], description=text)


class LiveRequest(BaseModel):
    """A live session that is to begin.

    Attributes:
        identity: Name of the person. None: the one fitted last.
        sample_rate: Samples per second of the returned audio, a multiple of 25.
        mode: "paste" or "head".
        codec: Codec of the pictures on the WebSocket: jpeg or vp8; or codes, for a broadcast, whose
            viewers draw the head themselves.
        consent: The person's statement of consent to a broadcast: to live speech, and that every viewer
            gets a copy of the head. A broadcast needs it.
        height: See `OutputOptions`, which describes this and all following ones.
    """

    model_config = ConfigDict(extra="forbid")

    identity: str | None = None
    sample_rate: Annotated[int, Field(ge=RATES[0], le=RATES[1], multiple_of=FRAME_RATE)] = 24_000
    mode: Annotated[
        str, Field(description="paste: into the person's own footage; head: the head alone")
    ] = DEFAULT_MODE
    codec: Codec = "jpeg"
    consent: Annotated[str | None, Field(min_length=1, max_length=1000)] = None
    height: int | None = _field("height")
    background: str | None = _field("background")
    yaw: float = _field("yaw")
    pitch: float = _field("pitch")
    zoom: float = _field("zoom")
    head_motion: float = _field("head_motion")
    intensity: float = _field("intensity")

    def options(self, badge: bool) -> LiveOptions:
        """Make the options of the session.

        Args:
            badge: Mark every picture as made by a machine.

        Returns:
            The options.

        Raises:
            TalkheadError: A value is not allowed.
        """
        picture = {name: getattr(self, name) for name in PICTURE}
        return LiveOptions(
            **picture,
            sample_rate=self.sample_rate,
            mode=self.mode,
            badge=badge,
            rendered=self.codec != CODES,
        )


@dataclass
class ParsedRequest:
    """A request that was read.

    Attributes:
        request: The request. Its background may be the path of an uploaded file.
        files: Removes the uploaded file when it is closed.
    """

    request: LiveRequest
    files: ExitStack


_SCHEMA = LiveRequest.model_json_schema()
_UPLOAD = {FILE: {"type": "string", "format": "binary", "title": "Image or video"}}
BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": _SCHEMA},
        FORM: {"schema": _SCHEMA | {"properties": _SCHEMA["properties"] | _UPLOAD}},
    },
}
"""Description of the body for /openapi.json: JSON, or a form if a file is uploaded."""


async def read_request(request: Request, service: ServiceDep) -> AsyncIterator[ParsedRequest]:
    """Read the body of a request for a live session. A dependency.

    Args:
        request: The request, with JSON or a form.
        service: The service.

    Yields:
        The request. Its files are removed if no session takes them over.

    Raises:
        RequestValidationError: A field is unknown, or has a value of another type.
        Problem: The disk is nearly full, or an upload is empty.
        TalkheadError: A background is not a color, given twice, transparent, or a video that is too
            long or large; or a broadcast has no statement of consent.
    """
    with ExitStack() as files:
        parsed, path = LiveRequest(), None
        try:
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM:
                parsed, path = await _read_form(request, service, files)
            else:
                parsed = LiveRequest.model_validate_json(await request.body(), strict=True)
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from error
        if (parsed.codec == CODES) != (parsed.consent is not None):
            raise TalkheadError(
                "consent belongs to the codec codes: every viewer of a broadcast gets a copy of the "
                "person's head. Send both, with the person's statement that they agree to that and to "
                "live speech, or neither"
            )
        background = background_value(parsed.background, path)
        if background == ALPHA:
            raise TalkheadError(
                "a live session can't send a transparent background: JPEG and VP8 carry none. Choose "
                "own, an image, or a color, such as chroma-green, which the receiver can make transparent"
            )
        yield ParsedRequest(parsed.model_copy(update={"background": background}), files)


async def _read_form(
    request: Request, service: Service, files: ExitStack
) -> tuple[LiveRequest, Path | None]:
    """Read a form, and save the upload that it may have until `files` is closed."""
    declared = request.headers.get("content-length", "")
    service.check_disk(int(declared) if declared.isascii() and declared.isdecimal() else 0)
    async with request.form(max_files=1) as form:
        fields = dict(form)
        upload = fields.pop(FILE, None)
        parsed = LiveRequest.model_validate(fields)
        if not isinstance(upload, UploadFile):
            return parsed, None
        folder = files.enter_context(service.scratch())
        path = await run_in_threadpool(save, upload, folder, "background")
        await run_in_threadpool(_check_size, path, title_of(upload.filename))
        return parsed, path


def _check_size(path: Path, title: str) -> None:
    """Check that an upload is an image, or a video that can be decoded while others speak.

    Raises TalkheadError if it is not.
    """
    from talkhead.app.composer.backgrounds import is_still  # imports OpenCV, which is slow

    if is_still(str(path)):
        return
    info = probe(path)
    shape = sorted((info.width, info.height))
    if shape[1] > MAX_VIDEO_SIZE[0] or shape[0] > MAX_VIDEO_SIZE[1]:
        raise MediaError(
            f"{title}: is a video of {info.width}x{info.height}, at most "
            f"{MAX_VIDEO_SIZE[0]}x{MAX_VIDEO_SIZE[1]} are accepted. Export it smaller"
        )
    if info.duration_s > MAX_VIDEO_S:
        raise MediaError(
            f"{title}: lasts {info.duration_s:.0f} s, at most {MAX_VIDEO_S:g} s are accepted for a "
            "background, which is repeated. Cut it"
        )


class LiveInfo(BaseModel):
    """A live session.

    Attributes:
        id: Its ID.
        identity: Name of the person.
        url: Path of the WebSocket.
        manifest_url: Path of the signed manifest.
        synthetic: True: all pictures are made by a machine.
        badge: True if every picture is marked as made by a machine.
        mode: "paste" or "head".
        note: What the pictures cannot show as requested; "" if nothing.
        width: Width of the pictures; 0 if there are none.
        height: Height of the pictures; 0 if there are none.
        frame_rate: Pictures per second.
        sample_rate: Samples per second of the returned audio.
        codec: Codec of the pictures on the WebSocket: jpeg, also where vp8 was asked for and cannot be
            encoded.
        is_connected: True while a client is connected.
        watch_url: Path of the page of a broadcast, for which no token is needed; None: it is none.
        n_viewers: Number of viewers of a broadcast.
        statistics: Counts and times so far.
    """

    id: str
    identity: str
    url: str
    manifest_url: str
    synthetic: Literal[True] = True
    badge: bool
    mode: str
    note: str
    width: int
    height: int
    frame_rate: int
    sample_rate: int
    codec: Codec
    is_connected: bool
    watch_url: str | None
    n_viewers: int
    statistics: dict[str, Any]


class SayRequest(BaseModel):
    """A text that is to be spoken.

    Attributes:
        text: The text.
    """

    text: Annotated[str, Field(min_length=1, max_length=5000)]
