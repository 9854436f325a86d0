"""The objects that the API returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["queued", "in_progress", "completed", "failed"]


@dataclass(frozen=True)
class Video:
    """A video.

    Attributes:
        id: Its ID.
        object: "video".
        status: "queued", "in_progress", "completed" or "failed".
        progress: Estimated share of the work that is done, 0 to 100.
        stage: What is being done; "" unless in progress.
        created_at: Unix time of the request.
        identity: Name of the person who speaks; of the first one if a video has several speakers.
        title: Name of the uploaded audio, or the beginning of the text; in a table, name of the output.
        mode: "paste" or "head".
        options: The options that were given.
        seconds: Duration of the audio, or of the video once it is finished.
        size: Width and height of a finished video in pixels, such as "1280x720"; "" before.
        bytes: Size of the finished file; 0 before.
        format: Suffix of the file, such as "mp4".
        error: Why it has failed; "" otherwise.
        notes: Messages about a finished video.
        dub: ID of the table that it belongs to; "" for none.
        content_url: Address of the finished file that works without the token for some hours.
        subtitles_url: Such an address for its .srt file; "" if there is none.
    """

    id: str
    status: Status
    progress: int
    created_at: float
    identity: str
    title: str
    mode: str
    seconds: float
    format: str
    stage: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    size: str = ""
    bytes: int = 0
    error: str = ""
    notes: tuple[str, ...] = ()
    dub: str = ""
    content_url: str = ""
    subtitles_url: str = ""
    object: Literal["video"] = "video"


@dataclass(frozen=True)
class Identity:
    """A person: fitted, being fitted, or whose fit has failed.

    Attributes:
        name: Name.
        object: "identity".
        status: "queued", "in_progress", "completed" or "failed".
        progress: Estimated share of the fit that is done, 0 to 100.
        stage: What is being done; "" unless in progress.
        created_at: Unix time of the request, or of the fit; 0 if unknown.
        preset: Preset of the fit.
        renderers: Names of the fitted renderers.
        consent: Statement of the person's consent.
        is_default: True for the person who was fitted last.
        error: Why the fit has failed, or why the person cannot be used; "" otherwise.
        size: Width and height of their videos in pixels, such as "1280x720".
        seconds: Duration of the footage.
        quality: Quality of the footage; docs/server.md lists the values.
        figures: Metrics of held-out frames; docs/measures.md explains them.
        portrait_url: Address of a picture that works without the token for some hours.
        report_url: Such an address for the report of the fit; "" if there is none.
    """

    name: str
    status: Status
    progress: int
    created_at: float
    preset: str = ""
    stage: str = ""
    renderers: tuple[str, ...] = ()
    consent: str = ""
    is_default: bool = False
    error: str = ""
    size: str = ""
    seconds: float = 0.0
    quality: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    portrait_url: str = ""
    report_url: str = ""
    object: Literal["identity"] = "identity"


@dataclass(frozen=True)
class Dub:
    """A table of videos.

    Attributes:
        id: Its ID.
        object: "dub".
        status: "queued" until a video is started, "in_progress", "completed" if all videos are,
            "failed" if all have ended and one has failed.
        progress: Mean progress of its videos, 0 to 100.
        created_at: Unix time of the request.
        title: Name of the table.
        videos: Its videos, in the order of its rows.
        identities: Names of the people who are fitted for it.
    """

    id: str
    status: Status
    progress: int
    created_at: float
    title: str
    videos: tuple[Video, ...]
    identities: tuple[str, ...]
    object: Literal["dub"] = "dub"


@dataclass(frozen=True)
class VideoList:
    """A list of videos, the newest first.

    Attributes:
        data: The videos.
        has_more: True if there are older ones.
        object: "list".
    """

    data: tuple[Video, ...]
    has_more: bool = False
    object: Literal["list"] = "list"


@dataclass(frozen=True)
class IdentityList:
    """A list of people, sorted by name.

    Attributes:
        data: The people.
        object: "list".
    """

    data: tuple[Identity, ...]
    object: Literal["list"] = "list"


@dataclass(frozen=True)
class DubList:
    """A list of tables, the newest first.

    Attributes:
        data: The tables.
        object: "list".
    """

    data: tuple[Dub, ...]
    object: Literal["list"] = "list"


@dataclass(frozen=True)
class WebExport:
    """A person as files for the element <talking-head>.

    Attributes:
        identity: Name of the person.
        status: "queued" while another export is written, "in_progress", "completed" or "failed".
        progress: Estimated share of the work that is done, 0 to 100.
        stage: What is being done; "" unless in progress.
        error: Why it could not be written; "" otherwise.
        id: Changes with the files; "" unless completed.
        url: Address of the folder for the attribute `src`, which works without the token for some
            hours; "" unless completed.
        object: "web_export".
    """

    identity: str
    status: Status
    progress: int
    stage: str = ""
    error: str = ""
    id: str = ""
    url: str = ""
    object: Literal["web_export"] = "web_export"


@dataclass(frozen=True)
class WebLine:
    """A line for `say` of the element <talking-head>.

    Attributes:
        identity: Name of the person.
        name: Name of the uploaded audio, or the beginning of the text.
        sound: FLAC file in base64.
        codes: Motion codes of the mouth, [n_frames, K] int8, in base64.
        scale: Factor of each of the K codes.
        n_frames: Number of frames, 25 per second.
        duration_s: Length of the sound, seconds.
        object: "web_line".
    """

    identity: str
    name: str
    sound: str
    codes: str
    scale: tuple[float, ...]
    n_frames: int
    duration_s: float
    object: Literal["web_line"] = "web_line"


@dataclass(frozen=True)
class Deleted:
    """What was deleted.

    Attributes:
        id: ID or name of what was deleted.
        removed: What was removed with it, one text for each item.
        object: "deleted".
    """

    id: str
    removed: tuple[str, ...]
    object: Literal["deleted"] = "deleted"


@dataclass(frozen=True)
class Health:
    """State of the server.

    Attributes:
        status: "ok", or "degraded" if no job can run.
        version: Version of talkhead.
        problem: Why no job can run; "" otherwise.
        features: What this server offers: "text" if it can speak text, "live", "callbacks".
    """

    status: Literal["ok", "degraded"]
    version: str
    problem: str = ""
    features: tuple[str, ...] = ()
