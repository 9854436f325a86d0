"""Describe media files, from ffmpeg's own report."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import ffmpeg

from talkhead.errors import FootageError, MediaError
from talkhead.media.inputs import MAX_PIXELS, media_arguments, media_input, refused_format
from talkhead.media.process import MIN_BYTES_S, PathLike, ffmpeg_path, report, run, summarize_errors
from talkhead.storage import translate_os_errors
from talkhead.types import MediaInfo

MAX_FOOTAGE_S = 2 * 3600.0
MIN_FRAME_RATE = 5.0
"""Smallest average frame rate that shows lip motion."""
PROBE_CACHE_SIZE = 64
"""Number of files whose description is cached: the audio of one request is probed four times."""
MAX_DURATION_S = 4 * 3600.0
MAX_SIDE_PX = 8192
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 4_000, 768_000
MAX_CHANNELS = 64
MAX_FRAME_RATE = 240
"""Largest frame rate of a video that is kept in outputs; faster videos can be read, too."""


@dataclass(frozen=True)
class Description:
    """Description of a file, and how to read its picture.

    Attributes:
        info: Its properties.
        guessed_matrix: Color matrix that players assume for an untagged picture; None if it is tagged.
        seeks: Seeking to the key frame before a given time is reliable; it is not in MPEG program
            streams, for example.
    """

    info: MediaInfo
    guessed_matrix: str | None
    seeks: bool


def probe(path: PathLike) -> MediaInfo:
    """Describe a media file.

    The size is as displayed: after rotation, with square pixels. The duration is that of the longest
    stream, exact to 0.01 s (0.1 s if the file does not state it). Cover pictures of audio files do not
    count as a picture.

    Args:
        path: The file.

    Returns:
        Its properties.

    Raises:
        MediaError: The path is missing, a folder, empty, damaged or not a media file.
    """
    return describe(Path(path)).info


def probe_footage(video: Path, needs_sound: bool = True) -> MediaInfo:
    """Describe a video of a person, and refuse an unsuitable one.

    Args:
        video: The video.
        needs_sound: Refuse a video without sound.

    Returns:
        Its properties.

    Raises:
        MediaError: The file cannot be read.
        FootageError: It has no picture or audio, is too long, or has too few frames per second.
    """
    info = probe(video)
    if not info.has_video:
        raise FootageError(f"{video}: has no picture. Pass a video of the person")
    if needs_sound and not info.has_audio:
        raise FootageError(
            f"{video}: has no sound. Lips are learned from speech: record with sound"
        )
    if info.duration_s > MAX_FOOTAGE_S:
        raise FootageError(
            f"{video}: lasts {info.duration_s / 3600:.1f} hours; at most {MAX_FOOTAGE_S / 3600:.0f} "
            "are used. Cut out a part: a few minutes are enough"
        )
    if 0.0 < info.frame_rate < MIN_FRAME_RATE:
        raise FootageError(
            f"{video}: has {info.frame_rate:g} frames per second; {MIN_FRAME_RATE:g} are needed to "
            "see lips move. Record it with 25 or more"
        )
    return info


_TAG = re.compile(r"^((?:\\.|[^\\=\n;])+)=((?:\\.|[^\\\n])*)$", re.MULTILINE | re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def read_tags(path: PathLike) -> dict[str, str]:
    """Read the global metadata of a file.

    Args:
        path: The file.

    Returns:
        Texts by tag.

    Raises:
        MediaError: The file or its metadata cannot be read.
    """
    probe(path)
    status, output, words = run(media_input(path).output("pipe:", f="ffmetadata"))
    if status:
        raise MediaError(f"{path}: its tags can't be read. ffmpeg says: {words}")
    tags: dict[str, str] = {}
    text = re.split(r"\n\[[A-Z]+\]\n", output.decode("utf-8", "replace"))[0]
    for key, value in _TAG.findall(text):
        tags[_ESCAPED.sub(r"\1", key)] = _ESCAPED.sub(r"\1", value)
    return tags


_PACKET = re.compile(
    r"^0, *-?\d+, *(-?\d+), *\d+, *\d+, *0x[0-9a-f]+(?:, F=0x([0-9a-fA-F]+))?", re.M
)
_DISCARDED = 0x4


def frame_times(path: PathLike) -> list[Fraction]:
    """List the times at which the pictures of a video begin. Nothing is decoded.

    Args:
        path: The video.

    Returns:
        Seconds as in `talkhead.media.reader`, ascending.

    Raises:
        MediaError: The file cannot be read, or states no times.
    """
    probe(path)
    source = media_input(path)["V:0"]
    status, output, words = run(source.output("pipe:", f="framecrc", c="copy"))
    text = output.decode("ascii", "replace")
    base = re.search(r"^#tb 0: (\d+)/(\d+)", text, re.MULTILINE)
    found = [
        int(pts) for pts, flags in _PACKET.findall(text) if not int(flags or "0", 16) & _DISCARDED
    ]
    if status or not base or not found:
        raise MediaError(f"{path}: the times of its frames can't be read. ffmpeg says: {words}")
    unit = Fraction(int(base[1]), int(base[2]))
    return [pts * unit for pts in sorted(found)]


def count_frames(video: Path, frame_rate: Fraction) -> int:
    """Count the frames of a video at a constant rate. Nothing is decoded.

    Args:
        video: The video.
        frame_rate: Frames per second.

    Returns:
        Number of frames.

    Raises:
        MediaError: The file cannot be read, or states no times.
    """
    return 1 + frame_at(frame_times(video)[-1], frame_rate)


def frame_at(time: Fraction, rate: Fraction) -> int:
    """Return the frame at which a picture appears.

    Args:
        time: Time of the picture, seconds.
        rate: Frames per second.

    Returns:
        Number of the frame.
    """
    return int(time * rate + Fraction(1, 2))


def describe(path: Path) -> Description:
    """Describe a file and how to read its picture.

    Args:
        path: The file.

    Returns:
        The description, cached until the file changes.

    Raises:
        MediaError: As for `probe`.
    """
    with translate_os_errors(path):
        if not path.exists():
            raise MediaError(f"{path}: there is no such file. Check the path.")
        state = path.stat()
    if stat.S_ISDIR(state.st_mode):
        raise MediaError(f"{path}: is a folder. Pass one video or audio file.")
    if not stat.S_ISREG(state.st_mode):
        raise MediaError(f"{path}: is a pipe or a device. Save its output to a file first.")
    if state.st_size == 0:
        raise MediaError(f"{path}: is empty (0 bytes). Copy or record it again.")
    return _described(
        path, ffmpeg_path(), state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
    )


@lru_cache(PROBE_CACHE_SIZE)
def _described(path: Path, *state: object) -> Description:
    """Describe a file in a given state with a given ffmpeg."""
    return _parse_description(path, report(*media_arguments(path)))


def _parse_description(path: Path, text: str) -> Description:
    if (found := refused_format(text)) is not None:
        raise MediaError(
            f"{path}: is not a video or audio file that can be used, but of type {found}. "
            "Convert it to MP4 or WAV"
        )
    if "\nInput #0" not in "\n" + text:
        raise MediaError(
            f"{path}: is not a video or audio file, or is damaged. Check that it plays, or export it "
            f"again. ffmpeg says: {summarize_errors(text.splitlines())}"
        )
    streams = _stream_blocks(text)
    video = next((s for s in streams if ": Video:" in s and "(attached pic)" not in s), "")
    audio = next((s for s in streams if ": Audio:" in s), "")
    if not video and not audio:
        raise MediaError(f"{path}: has neither picture nor sound. Pass a video or audio file.")
    rotation = _rotation(video)
    width, height = _displayed_size(path, video, rotation) if video else (0, 0)
    rate, channels = _sound_format(path, audio) if audio else (0, 0)
    frame_rate = _frame_rate(video)
    duration_s = _duration_s(path, text)
    info = MediaInfo(path, duration_s, width, height, frame_rate, rotation, rate, channels)
    _check_limits(info)
    seeks = re.search(r"^Input #0, (mov|matroska)", text, flags=re.MULTILINE) is not None
    return Description(info, _guessed_matrix(video), seeks)


def _check_limits(info: MediaInfo) -> None:
    """Raise MediaError if a file exceeds the supported limits."""
    width, height = info.width, info.height
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise MediaError(
            f"{info.path}: pictures of {width}x{height} are too large: at most {MAX_SIDE_PX} pixels "
            f"a side and {MAX_PIXELS / 1e6:.0f} million in all are read. Scale them down"
        )
    rate, channels = info.audio_rate, info.audio_channels
    if rate and not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise MediaError(
            f"{info.path}: its sound has {rate:,} samples a second; {MIN_SAMPLE_RATE:,} to "
            f"{MAX_SAMPLE_RATE:,} can be read. Export it with 48,000"
        )
    if channels > MAX_CHANNELS:
        raise MediaError(
            f"{info.path}: its sound has {channels} channels; at most {MAX_CHANNELS} are read. "
            "Export it with one or two"
        )
    check_duration(info.path, info.duration_s)


def check_duration(path: Path, duration_s: float) -> None:
    """Refuse a file that is too long.

    Args:
        path: The file, for messages.
        duration_s: Its duration, seconds.

    Raises:
        MediaError: It is longer than MAX_DURATION_S.
    """
    if duration_s > MAX_DURATION_S:
        raise MediaError(
            f"{path}: lasts longer than {MAX_DURATION_S / 3600:.0f} hours ({duration_s / 3600:,.1f}); "
            "longer ones are not read. Cut it into parts"
        )


def _stream_blocks(text: str) -> list[str]:
    """Return one text per stream: its line and the detail lines below it."""
    blocks = re.split(r"^(?=  Stream #\d+:\d+)", text, flags=re.MULTILINE)
    return [block for block in blocks if block.startswith("  Stream #")]


def _rotation(video: str) -> int:
    turn = re.search(r"displaymatrix: rotation of (-?[\d.]+) degrees", video)
    # ffmpeg measures counterclockwise.
    return round(-float(turn[1]) / 90) * 90 % 360 if turn else 0


def _displayed_size(path: Path, video: str, rotation: int) -> tuple[int, int]:
    line = video.splitlines()[0].strip()
    size = re.search(r", (\d+)x(\d+)\b", video)
    if not size:
        raise MediaError(
            f"{path}: its picture has no size, or one of more than {MAX_PIXELS / 1e6:.0f} million "
            f"pixels. ffmpeg says: {line}"
        )
    width, height = int(size[1]), int(size[2])
    aspects = re.findall(r"\bSAR (\d+):(\d+)", line)
    if aspects and all(map(int, aspects[-1])):
        width = round(width * int(aspects[-1][0]) / int(aspects[-1][1]))
    if not width or not height:
        raise MediaError(f"{path}: its picture is {width}x{height} pixels. ffmpeg says: {line}")
    return (height, width) if rotation in (90, 270) else (width, height)


def _frame_rate(video: str) -> float:
    rate = re.search(r", ([\d.]+)(k?) fps\b", video) or re.search(r", ([\d.]+)(k?) tbr\b", video)
    return float(rate[1]) * (1000 if rate[2] else 1) if rate else 0.0


def _guessed_matrix(video: str) -> str | None:
    """Return the matrix that players assume for an untagged picture.

    BT.709 if it is at least 1280 wide or more than 576 high, otherwise BT.601.
    """
    size = re.search(r", (\d+)x(\d+)\b", video)
    if not size or re.search(r"\b(bt709|bt470bg|smpte170m|smpte240m|bt2020\w*|fcc|gbr)\b", video):
        return None
    return "bt709" if int(size[1]) >= 1280 or int(size[2]) > 576 else "bt601"


_LAYOUTS = {"mono": 1, "stereo": 2, "downmix": 2, "quad": 4, "hexagonal": 6, "octagonal": 8}


def _sound_format(path: Path, audio: str) -> tuple[int, int]:
    """Extract sample rate and number of channels from `..., 48000 Hz, 5.1(side), fltp, ...`."""
    found = re.search(r", (\d+) Hz, (?:([a-z]+)|(\d+) channels|(\d)\.(\d)(?:\.(\d))?)", audio)
    if not found or int(found[1]) == 0:
        raise MediaError(
            f"{path}: the format of its audio is unclear. ffmpeg says: {audio.splitlines()[0]}"
        )
    name, count, *parts = found.groups()[1:]
    if name:
        return int(found[1]), _LAYOUTS.get(name, 2)
    return int(found[1]), int(count) if count else sum(int(part) for part in parts if part)


def _duration_s(path: Path, text: str) -> float:
    stated = re.search(r"^  Duration: (\d+):(\d\d):(\d\d\.\d+)", text, re.MULTILINE)
    if not stated:  # as in recordings of browsers: go through all packets
        beyond_s = path.stat().st_size / MIN_BYTES_S
        graph = media_input(path).output("pipe:", f="null", c="copy", map=0)
        times = re.findall(
            r"time=(\d+):(\d\d):(\d\d\.\d+)", report(*ffmpeg.get_args(graph), beyond_s=beyond_s)
        )
        hours, minutes, seconds = times[-1] if times else ("0", "0", "0")
    else:
        hours, minutes, seconds = stated.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def own_rate(path: PathLike) -> Fraction:
    """Return a video's own frame rate, to be kept in an output.

    Args:
        path: The video.

    Returns:
        Frames per second.

    Raises:
        MediaError: The file cannot be read, or the rate is not supported.
    """
    rate = probe(path).frame_rate
    if not 1.0 <= rate <= MAX_FRAME_RATE:
        raise MediaError(
            f"{path}: {rate:g} frames per second can't be kept; 1 to {MAX_FRAME_RATE} can. "
            "Convert it to a usual frame rate"
        )
    return exact_rate(rate)


def exact_rate(frame_rate: float | Fraction) -> Fraction:
    """Return the frame rate that a rounded one represents: 30000/1001 for 29.97, 25 for 25.0.

    Args:
        frame_rate: Frames per second.

    Returns:
        The exact rate.
    """
    if isinstance(frame_rate, Fraction):
        return frame_rate
    for exact in (Fraction(round(frame_rate)), Fraction(round(frame_rate) * 1000, 1001)):
        if abs(float(exact) - frame_rate) < 0.006:
            return exact
    return Fraction(frame_rate).limit_denominator(1001)
