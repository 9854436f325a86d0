"""Combine encoded pictures with audio and subtitles; pictures are copied as they are."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ffmpeg

from talkhead.errors import MediaError
from talkhead.media.codecs import Codec
from talkhead.media.inputs import file_url, list_input, media_input, subtitle_input
from talkhead.media.probing import probe
from talkhead.media.process import Process, report, summarize_errors
from talkhead.storage import atomic_path, explain_os_error
from talkhead.types import MediaInfo

_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_OPUS_RATES = (48000,)
_MP4_TAGS = (
    "album", "album_artist", "artist", "comment", "composer", "copyright", "date", "description",
    "genre", "grouping", "lyrics", "network", "show", "synopsis", "title", "track",
)  # fmt: skip
_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".webm": "webm"}
_SOUND_OPTIONS: dict[str, dict[str, Any]] = {
    ".wav": {"f": "wav", "c:a": "pcm_s24le"},
    # Nothing that the source says about itself: the sound of a web page is public.
    ".flac": {"f": "flac", "c:a": "flac", "sample_fmt": "s16", "map_metadata": -1},
}
_SUBTITLE_CODECS = {"mp4": "mov_text", "mov": "mov_text", "webm": "webvtt"}
_TRUE_PEAK_DB = -1.5
_LOUDNESS_RANGE = 11


@dataclass(frozen=True)
class SubtitleTrack:
    """Subtitles that a player can switch on.

    Attributes:
        path: An .srt file.
        language: ISO 639-2 code such as "eng".
    """

    path: Path
    language: str


def sound_source(path: Path) -> MediaInfo:
    """Probe a file with audio.

    Args:
        path: The file.

    Returns:
        Its properties.

    Raises:
        MediaError: It has no audio or cannot be read.
    """
    info = probe(path)
    if not info.has_audio:
        raise MediaError(f"{path}: has no sound. Pass a file with speech.")
    return info


def mux(
    picture: Path,
    part: Path,
    codec: Codec,
    length_s: float,
    *,
    sound: MediaInfo | None = None,
    subtitles: SubtitleTrack | None = None,
    tags: Mapping[str, str] | None = None,
    loudness: float | None = None,
) -> None:
    """Write the encoded pictures of a picture-only file with audio of a given length.

    The audio begins at 0, is padded with silence or cut, and keeps its channels and its rate (or the next
    one that the codec supports).

    Args:
        picture: The picture-only file.
        part: The file to write; its suffix determines the container.
        codec: Codec of the pictures.
        length_s: Length of the audio, seconds.
        sound: The file with the audio; None for no audio.
        subtitles: A subtitle track.
        tags: Metadata that mp4 supports.
        loudness: LUFS to which the audio is normalized; None leaves it unchanged.

    Raises:
        MediaError: ffmpeg fails.
        ValueError: mp4 does not support a tag.
    """
    container = container_of(part)
    streams, options = [media_input(picture)["v:0"]], {"c:v": "copy"}
    if sound is not None:
        streams.append(sound_track(sound, codec, length_s, loudness))
        options |= dict(codec.sound)
    if subtitles is not None:
        streams.append(subtitle_input(subtitles.path)["s:0"])
        options |= {
            "c:s": _SUBTITLE_CODECS[container],
            "metadata:s:s:0": f"language={subtitles.language}",
        }
    options |= container_options(container) | tag_options(tags or {})
    run_to_end(ffmpeg.output(*streams, file_url(part), f=container, **options), part)


def write_sound(part: Path, sound: MediaInfo, length_s: float, loudness: float | None) -> None:
    """Write the audio alone, as `mux` would, to a .wav or .flac file.

    Args:
        part: The file to write: 24 bits in .wav, 16 bits without metadata in .flac.
        sound: The file with the audio.
        length_s: Length, seconds.
        loudness: LUFS to which it is normalized; None leaves it unchanged.

    Raises:
        MediaError: ffmpeg fails.
    """
    track = _fitted(sound, sound.audio_rate, length_s, loudness)
    run_to_end(ffmpeg.output(track, file_url(part), **_SOUND_OPTIONS[part.suffix]), part)


def unpack_images(picture: Path, folder: Path) -> None:
    """Write the PNG images of a picture-only file of the codec png to folder/000001.png and so on.

    Args:
        picture: The picture-only file.
        folder: Where the images go.

    Raises:
        MediaError: ffmpeg fails.
    """
    pattern = file_url(folder).replace("%", "%%") + "/%06d.png"
    stream = media_input(picture)["v:0"]
    run_to_end(stream.output(pattern, f="image2", **{"c:v": "copy"}), folder)


def container_of(path: Path) -> str:
    """Return the container format of a suffix.

    Args:
        path: A file name.

    Returns:
        ffmpeg's name of the format.

    Raises:
        MediaError: The suffix is unknown.
    """
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        raise MediaError(
            f"{path}: unsupported file extension. End the name with .mp4, .mov or .webm"
        ) from None


def container_options(container: str) -> dict[str, Any]:
    """Return options that let playback start before the whole file is loaded.

    Args:
        container: ffmpeg's name of the format.

    Returns:
        Options of ffmpeg.
    """
    return {"movflags": "+faststart"} if container in ("mp4", "mov") else {}


def tag_options(tags: Mapping[str, str]) -> dict[str, str]:
    """Return options that write metadata.

    Args:
        tags: Texts by tag.

    Returns:
        Options of ffmpeg.

    Raises:
        ValueError: mp4 does not support a tag.
    """
    if unknown := sorted(set(tags).difference(_MP4_TAGS)):
        raise ValueError(f"mp4 has no tag {unknown[0]!r}; it has {', '.join(_MP4_TAGS)}")
    return {f"metadata:g:{i}": f"{key}={text}" for i, (key, text) in enumerate(tags.items())}


def sound_track(sound: MediaInfo, codec: Codec, length_s: float, loudness: float | None) -> Any:
    """Return a file's audio as a stream of a given length, at a rate that the codec supports.

    Args:
        sound: The file.
        codec: Codec of the video, which determines the supported rates.
        length_s: Length, seconds.
        loudness: LUFS to which it is normalized; None leaves it unchanged.

    Returns:
        An ffmpeg stream.

    Raises:
        MediaError: The loudness cannot be measured.
    """
    rates = {"aac": _AAC_RATES, "libopus": _OPUS_RATES}.get(codec.sound["c:a"], (sound.audio_rate,))
    rate = next((r for r in rates if r >= sound.audio_rate), rates[-1])
    return _fitted(sound, rate, length_s, loudness)


def _fitted(sound: MediaInfo, rate: int, length_s: float, loudness: float | None) -> Any:
    track = media_input(sound.path)["a:0"]
    if loudness is not None:
        track = track.filter("loudnorm", **_loudness_settings(sound, loudness))
    track = track.filter("aresample", rate, **{"async": 1, "first_pts": 0})
    return track.filter("apad", whole_dur=length_s).filter("atrim", end=length_s)


def _loudness_settings(sound: MediaInfo, loudness: float) -> dict[str, Any]:
    """Return the settings of a second pass from measurements of a first one: one gain for the whole file.

    Where one gain would clip, ffmpeg changes the gain over time instead.
    """
    wanted = {"I": loudness, "TP": _TRUE_PEAK_DB, "LRA": _LOUDNESS_RANGE}
    track = media_input(sound.path)["a:0"]
    graph = track.filter("loudnorm", print_format="json", **wanted).output("pipe:", f="null")
    text = report(*ffmpeg.get_args(graph), beyond_s=sound.duration_s)
    found = re.search(r"\{[^{}]*\"input_i\"[^{}]*\}", text)
    if not found:
        raise MediaError(
            f"{sound.path}: its loudness can't be measured. ffmpeg says: "
            f"{summarize_errors(text.splitlines())}"
        )
    measured = json.loads(found[0])
    if measured["input_i"] == "-inf":
        raise MediaError(
            f"{sound.path}: is silent, so its loudness can't be set. Leave it as it is"
        )
    return {
        **wanted, "linear": "true", "measured_I": measured["input_i"],
        "measured_TP": measured["input_tp"], "measured_LRA": measured["input_lra"],
        "measured_thresh": measured["input_thresh"], "offset": measured["target_offset"],
    }  # fmt: skip


def run_to_end(graph: Any, target: Path, *, strict: bool = False) -> None:
    """Run ffmpeg until it ends.

    Args:
        graph: A graph of ffmpeg-python.
        target: The file that it writes, for messages.
        strict: Treat messages of ffmpeg as failure.

    Raises:
        MediaError: It failed.
    """
    process = Process(graph, reports=True)
    try:
        if process.finish() or (strict and process.words()):
            raise write_failure(target, process)
    finally:
        process.stop()


def write_failure(path: Path, process: Process) -> MediaError:
    """Make the error of a process that could not write a file.

    Args:
        path: The file.
        process: The process.

    Returns:
        An error with the operating system's reason if ffmpeg reports one, which is then its cause;
        otherwise an error with ffmpeg's messages.
    """
    status = process.wait()
    words = process.words() or f"nothing (status {status})"
    for number in _REASONS:
        if os.strerror(number) in words:
            reason = OSError(number, os.strerror(number))
            failure = MediaError(f"{path}: {explain_os_error(reason, path)}")
            failure.__cause__ = reason
            return failure
    return MediaError(f"{path}: could not be written. ffmpeg says: {words}")


_REASONS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


def join_segments(paths: Sequence[Path], output: Path) -> None:
    """Join the pictures of files in order, as they were encoded.

    Args:
        paths: Files of `VideoWriter`, with the same codec, size, frame rate and alpha, without audio.
        output: The file to write.

    Raises:
        MediaError: ffmpeg fails or a file is damaged, or there is none.
        TalkheadError: The output cannot be written.
    """
    if not paths:
        raise MediaError(f"{output}: there are no segments to join")
    container = container_of(output)
    with atomic_path(output) as part:
        listing = part.with_suffix(".txt")
        try:
            names = [_quoted(os.path.relpath(path, listing.parent)) for path in paths]
            listing.write_text("".join(f"file '{name}'\n" for name in names), "utf-8")
            source = list_input(listing)["v:0"]
            options = {"c": "copy", **container_options(container)}
            # Strict: ffmpeg reports a segment that it cannot read, leaves it out and succeeds.
            run_to_end(source.output(file_url(part), f=container, **options), part, strict=True)
        finally:
            listing.unlink(missing_ok=True)


def _quoted(path: str) -> str:
    """Quote a relative path for ffmpeg's lists.

    Lists cannot contain line breaks, but the names of folders can, so paths are relative to the folder of
    the list.
    """
    return f"./{path}".replace("'", "'\\''")
