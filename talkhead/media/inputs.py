"""Inputs of ffmpeg, and what it may open for them.

A playlist (HLS, DASH, a list of files, SDP) refers to other files and addresses, and ffmpeg opens them,
whatever the name of the playlist is. So each input specifies the file formats and protocols that ffmpeg
may use for it. No other module makes an input of ffmpeg.
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
"""ffmpeg's names of the accepted file formats. None of them makes ffmpeg open another file: hls, dash,
concat, sdp, image2 and the like are excluded for this reason."""
MAX_PIXELS = 8192 * 4320
"""Largest picture: 8K in both of its formats."""
SEGMENT_FORMATS = ("mov", "mp4", "matroska", "webm")
"""Formats of the segments that `writer` writes and `mux` joins."""


def file_url(path: PathLike) -> str:
    """Return a path in a form that ffmpeg treats as a file, whatever its name is (`-x`, `a:b.mp4`).

    Args:
        path: The file.

    Returns:
        A file URL.

    Raises:
        MediaError: The name is not UTF-8, which ffmpeg's filter graphs require.
    """
    url = "file:" + os.path.abspath(path)
    try:
        url.encode()
    except UnicodeEncodeError as error:
        raise MediaError(f"{path}: the path is not UTF-8. Rename the file or its folder") from error
    return url


def media_input(path: PathLike, **options: Any) -> Any:
    """Make an input of a user's video or audio file.

    Args:
        path: The file.
        **options: Further options of ffmpeg.

    Returns:
        An ffmpeg input.

    Raises:
        MediaError: The name is not UTF-8.
    """
    return ffmpeg.input(file_url(path), **_MEDIA, **options)


def media_arguments(path: PathLike) -> list[str]:
    """Return the input of `media_input` as command-line arguments, for a command without output.

    Args:
        path: The file.

    Returns:
        Arguments of ffmpeg.

    Raises:
        MediaError: The name is not UTF-8.
    """
    options = [word for name, value in _MEDIA.items() for word in (f"-{name}", str(value))]
    return [*options, "-i", file_url(path)]


def list_input(path: PathLike) -> Any:
    """Make an input of a list of segments that talkhead wrote, joined in order.

    Args:
        path: The list.

    Returns:
        An ffmpeg input.

    Raises:
        MediaError: The name is not UTF-8.
    """
    allowed = _allowed("file", "concat", *SEGMENT_FORMATS)
    return ffmpeg.input(file_url(path), f="concat", safe=0, **allowed)


def subtitle_input(path: PathLike) -> Any:
    """Make an input of an .srt file that talkhead wrote.

    Args:
        path: The file.

    Returns:
        An ffmpeg input.

    Raises:
        MediaError: The name is not UTF-8.
    """
    return ffmpeg.input(file_url(path), f="srt", **_allowed("file", "srt"))


def fed_input(size: tuple[int, int], frame_rate: Fraction, pixel_format: str) -> Any:
    """Make an input of pictures that arrive on standard input.

    Args:
        size: Width and height, pixels.
        frame_rate: Frames per second.
        pixel_format: ffmpeg's name of the format.

    Returns:
        An ffmpeg input.
    """
    return ffmpeg.input(
        "pipe:", f="rawvideo", pix_fmt=pixel_format, framerate=str(frame_rate),
        s=f"{size[0]}x{size[1]}", **_allowed("pipe", "rawvideo"),
    )  # fmt: skip


def fed_sound(sample_rate: int, n_channels: int) -> Any:
    """Make an input of float32 samples that arrive on standard input.

    Args:
        sample_rate: Hz.
        n_channels: Number of channels.

    Returns:
        An ffmpeg input.
    """
    return ffmpeg.input(
        "pipe:", f="f32le", ar=sample_rate, ac=n_channels, **_allowed("pipe", "f32le")
    )


def streamed_input(file_format: str) -> Any:
    """Make an input of a file that arrives on standard input, each frame of which is used at once.

    Args:
        file_format: ffmpeg's name of the file format.

    Returns:
        An ffmpeg input.
    """
    # Without these limits, ffmpeg waits for more frames to guess the frame rate. `nobuffer` would
    # drop the first frame.
    limits = {"probesize": 32, "fpsprobesize": 0, "analyzeduration": 0, "threads": 1}
    return ffmpeg.input("pipe:", f=file_format, **limits, **_allowed("pipe", file_format))


def refused_format(words: str) -> str | None:
    """Find the file format that ffmpeg refused to read.

    Args:
        words: Messages of ffmpeg.

    Returns:
        ffmpeg's name of the format; None if it refused none.
    """
    found = re.search(r"^\[(\w+)[^\]]*\] Format not on whitelist", words, re.MULTILINE)
    return found[1] if found else None


def _allowed(protocol: str, *formats: str) -> dict[str, str]:
    return {"protocol_whitelist": protocol, "format_whitelist": ",".join(formats)}


# The limit also applies to pictures whose size changes within a file.
_MEDIA: dict[str, Any] = {**_allowed("file", *MEDIA_FORMATS), "max_pixels": MAX_PIXELS}
