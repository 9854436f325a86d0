"""What ffmpeg is given to read, and what it may open for that.

A playlist (HLS, DASH, a list of files, SDP) names other files and addresses, and ffmpeg follows it
whatever the playlist itself is called. So every input carries the kinds of file that may be found in
it and the protocols that may be used for it. No other module makes an input of ffmpeg.
"""

from __future__ import annotations

import os
import re
from fractions import Fraction
from typing import Any

import ffmpeg

from talkhead.errors import MediaError
from talkhead.media.process import PathLike

PICTURE_FORMATS = (
    "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts", "mpeg", "flv",
    "asf", "mxf", "dv", "ivf", "nut", "gif", "apng", "h264", "hevc", "obu", "m4v", "mpegvideo",
    "mjpeg", "yuv4mpegpipe",
)  # fmt: skip
SOUND_FORMATS = (
    "wav", "w64", "mp3", "aac", "flac", "ogg", "aiff", "caf", "amr", "amrnb", "amrwb", "ac3", "eac3",
    "dts", "au", "wv", "ape", "tta", "mpc", "mpc8", "dsf", "voc",
)  # fmt: skip
MEDIA_FORMATS = (*PICTURE_FORMATS, *SOUND_FORMATS)
"""ffmpeg's names of the kinds of file that a person may bring. None of them makes ffmpeg open
another file: hls, dash, concat, sdp, image2 and the like are left out for that."""
MAX_PIXELS = 8192 * 4320
"""Of a picture: 8K in both of its formats."""
SEGMENT_FORMATS = ("mov", "mp4", "matroska", "webm")
"""Formats of the segments that `writer` writes and `mux` joins."""


def file_url(path: PathLike) -> str:
    """The path such that ffmpeg takes it for a file whatever it is called (`-x`, `a:b.mp4`).

    Raises MediaError for a name that is no UTF-8: ffmpeg's graphs of filters can't hold it.
    """
    url = "file:" + os.path.abspath(path)
    try:
        url.encode()
    except UnicodeEncodeError as error:
        raise MediaError(f"{path}: the path is no UTF-8. Rename the file or its folder") from error
    return url


def media_input(path: PathLike, **options: Any) -> Any:
    """A video or sound file that somebody brought, as ffmpeg's input."""
    return ffmpeg.input(file_url(path), **_MEDIA, **options)


def media_arguments(path: PathLike) -> list[str]:
    """The same input as arguments of a command that has no output."""
    options = [word for name, value in _MEDIA.items() for word in (f"-{name}", str(value))]
    return [*options, "-i", file_url(path)]


def list_input(path: PathLike) -> Any:
    """A list of segments that we wrote, joined in order, as ffmpeg's input."""
    allowed = _allowed("file", "concat", *SEGMENT_FORMATS)
    return ffmpeg.input(file_url(path), f="concat", safe=0, **allowed)


def subtitle_input(path: PathLike) -> Any:
    """An .srt file that we wrote, as ffmpeg's input."""
    return ffmpeg.input(file_url(path), f="srt", **_allowed("file", "srt"))


def fed_input(size: tuple[int, int], frame_rate: Fraction, pixel_format: str) -> Any:
    """Pictures of a size (width, height) that come through standard input, as ffmpeg's input."""
    return ffmpeg.input(
        "pipe:", f="rawvideo", pix_fmt=pixel_format, framerate=str(frame_rate),
        s=f"{size[0]}x{size[1]}", **_allowed("pipe", "rawvideo"),
    )  # fmt: skip


def refused_format(words: str) -> str | None:
    """ffmpeg's name of the kind of file that it says it may not read; None if it read what it found."""
    found = re.search(r"^\[(\w+)[^\]]*\] Format not on whitelist", words, re.MULTILINE)
    return found[1] if found else None


def _allowed(protocol: str, *formats: str) -> dict[str, str]:
    return {"protocol_whitelist": protocol, "format_whitelist": ",".join(formats)}


# The limit of pixels holds for pictures whose size changes on the way, too.
_MEDIA: dict[str, Any] = {**_allowed("file", *MEDIA_FORMATS), "max_pixels": MAX_PIXELS}
