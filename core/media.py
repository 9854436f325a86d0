"""Video and sound files in and out: the only caller of ffmpeg (which `ffmpeg_program` runs).

Time is the file's own: second 0 is the earliest moment of any of its streams, for picture and sound
alike. Reading turns whatever frame rate there is, constant or not, into exactly FRAME_RATE by time
stamps: frame i shows the picture that is nearest to second i / FRAME_RATE from before (up to half a
frame from after it). A stream that begins late is filled: the picture with its first frame, the
sound with silence.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import ffmpeg
import numpy as np

from talkhead.errors import MediaError
from talkhead.ffmpeg_program import (
    Feeder,
    PathLike,
    Process,
    ffmpeg_path,
    file_url,
    one_line,
    report,
    run,
    set_ffmpeg,
)
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32, MediaInfo, UInt8

__all__ = [
    "VideoWriter",
    "ffmpeg_path",
    "probe",
    "read_audio",
    "read_audio_chunks",
    "read_frames",
    "read_tags",
    "set_ffmpeg",
    "write_video",
]

_log = logging.getLogger(__name__)

_SEEK_MARGIN_S = 1.0  # seek to a key frame at least this long before the wanted moment
_SHORTFALL_S = 0.5  # a stream that ffmpeg complained of may end this much before the stated end
_SCALER_FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_MP4_TAGS = (
    "album", "album_artist", "artist", "comment", "composer", "copyright", "date", "description",
    "genre", "grouping", "lyrics", "network", "show", "synopsis", "title", "track",
)  # fmt: skip


# ---------------------------------------------------------------------------- what a file holds


@dataclass(frozen=True)
class _Description:
    info: MediaInfo
    guessed_matrix: str | None  # of an untagged picture: what players take it for
    seeks: bool  # reliably to the key frame before a given time; not so e.g. MPEG program streams


def probe(path: PathLike) -> MediaInfo:
    """What a media file holds, by ffmpeg's own description of it.

    The size is as displayed: after rotation, with square pixels. The duration is the longest
    stream's, exact to 0.01 s (0.1 s if the file doesn't state it). Cover pictures of sound files
    don't count as picture.

    Raises MediaError if the path is missing, a folder, empty, damaged or no media file.
    """
    return _describe(Path(path)).info


_TAG = re.compile(r"^((?:\\.|[^\\=\n;])+)=((?:\\.|[^\\\n])*)$", re.MULTILINE | re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def read_tags(path: PathLike) -> dict[str, str]:
    """The file's global metadata: tag name -> text.

    Raises MediaError as `probe` does.
    """
    probe(path)
    status, output, words = run(ffmpeg.input(file_url(path)).output("pipe:", f="ffmetadata"))
    if status:
        raise MediaError(f"{path}: its tags can't be read. ffmpeg says: {words}")
    tags: dict[str, str] = {}
    text = re.split(r"\n\[[A-Z]+\]\n", output.decode("utf-8", "replace"))[0]
    for key, value in _TAG.findall(text):
        tags[_ESCAPED.sub(r"\1", key)] = _ESCAPED.sub(r"\1", value)
    return tags


def _describe(path: Path) -> _Description:
    if not path.exists():
        raise MediaError(f"{path}: there is no such file. Check the path.")
    if path.is_dir():
        raise MediaError(f"{path}: is a folder. Give one video or sound file.")
    if path.is_file() and path.stat().st_size == 0:
        raise MediaError(f"{path}: is empty (0 bytes). Copy or record it again.")
    return _parse_description(path, report("-i", file_url(path)))


def _parse_description(path: Path, text: str) -> _Description:
    if "\nInput #0" not in "\n" + text or "\nInput #0, tty" in "\n" + text:
        raise MediaError(
            f"{path}: is no video or sound, or a damaged one. Check that it plays, or export it "
            f"again. ffmpeg says: {one_line(text.splitlines())}"
        )
    streams = _stream_blocks(text)
    video = next((s for s in streams if ": Video:" in s and "(attached pic)" not in s), "")
    audio = next((s for s in streams if ": Audio:" in s), "")
    if not video and not audio:
        raise MediaError(f"{path}: has neither picture nor sound. Give a video or sound file.")
    rotation = _rotation(video)
    width, height = _displayed_size(path, video, rotation) if video else (0, 0)
    rate, channels = _sound_format(path, audio) if audio else (0, 0)
    frame_rate = _frame_rate(video)
    duration_s = _duration_s(path, text)
    info = MediaInfo(path, duration_s, width, height, frame_rate, rotation, rate, channels)
    seeks = re.search(r"^Input #0, (mov|matroska)", text, flags=re.MULTILINE) is not None
    return _Description(info, _guessed_matrix(video), seeks)


def _stream_blocks(text: str) -> list[str]:
    """One text per stream: its line and the lines of detail under it."""
    blocks = re.split(r"^(?=  Stream #\d+:\d+)", text, flags=re.MULTILINE)
    return [block for block in blocks if block.startswith("  Stream #")]


def _rotation(video: str) -> int:
    turn = re.search(r"displaymatrix: rotation of (-?[\d.]+) degrees", video)
    # ffmpeg counts anticlockwise.
    return round(-float(turn[1]) / 90) * 90 % 360 if turn else 0


def _displayed_size(path: Path, video: str, rotation: int) -> tuple[int, int]:
    size = re.search(r", (\d+)x(\d+)\b", video)
    if not size:
        raise MediaError(f"{path}: its picture has no size. ffmpeg says: {video.splitlines()[0]}")
    width, height = int(size[1]), int(size[2])
    aspects = re.findall(r"\bSAR (\d+):(\d+)", video.splitlines()[0])
    if aspects and all(map(int, aspects[-1])):
        width = round(width * int(aspects[-1][0]) / int(aspects[-1][1]))
    return (height, width) if rotation in (90, 270) else (width, height)


def _frame_rate(video: str) -> float:
    rate = re.search(r", ([\d.]+)(k?) fps\b", video) or re.search(r", ([\d.]+)(k?) tbr\b", video)
    return float(rate[1]) * (1000 if rate[2] else 1) if rate else 0.0


def _guessed_matrix(video: str) -> str | None:
    """Untagged pictures: BT.709 from 1280 x 577 on, else BT.601, as players do."""
    size = re.search(r", (\d+)x(\d+)\b", video)
    if not size or re.search(r"\b(bt709|bt470bg|smpte170m|smpte240m|bt2020\w*|fcc|gbr)\b", video):
        return None
    return "bt709" if int(size[1]) >= 1280 or int(size[2]) > 576 else "bt601"


_LAYOUTS = {"mono": 1, "stereo": 2, "downmix": 2, "quad": 4, "hexagonal": 6, "octagonal": 8}


def _sound_format(path: Path, audio: str) -> tuple[int, int]:
    """Sample rate and number of channels out of `..., 48000 Hz, 5.1(side), fltp, ...`."""
    found = re.search(r", (\d+) Hz, (?:([a-z]+)|(\d+) channels|(\d)\.(\d)(?:\.(\d))?)", audio)
    if not found or int(found[1]) == 0:
        raise MediaError(f"{path}: its sound is unclear. ffmpeg says: {audio.splitlines()[0]}")
    name, count, *parts = found.groups()[1:]
    if name:
        return int(found[1]), _LAYOUTS.get(name, 2)
    return int(found[1]), int(count) if count else sum(int(part) for part in parts if part)


def _duration_s(path: Path, text: str) -> float:
    stated = re.search(r"Duration: (\d+):(\d\d):(\d\d\.\d+)", text)
    if not stated:  # browsers' recordings don't say: walk through the packets
        graph = ffmpeg.input(file_url(path)).output("pipe:", f="null", c="copy", map=0)
        times = re.findall(r"time=(\d+):(\d\d):(\d\d\.\d+)", report(*ffmpeg.get_args(graph)))
        hours, minutes, seconds = times[-1] if times else ("0", "0", "0")
    else:
        hours, minutes, seconds = stated.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


# ---------------------------------------------------------------------------- reading


def read_frames(
    path: PathLike,
    *,
    start_s: float = 0.0,
    n_frames: int | None = None,
    size: tuple[int, int] | None = None,
    frame_rate: Fraction | int = FRAME_RATE,
) -> Generator[UInt8, None, None]:
    """The pictures of a video at exactly frame_rate, one at a time: [H, W, 3] uint8 RGB, upright.

    start_s is rounded to a whole frame k; the frames are then those that a read from the beginning
    yields from its k-th on. n_frames limits their number; fewer come when the picture ends (none
    from a start beyond its end). size (width, height) scales; without it, the displayed size.
    Each array is new and the caller's own. Closing the generator ends ffmpeg.

    Raises MediaError at once if the file can't be read or has no picture, and while iterating if
    the picture can't be decoded or, being damaged, ends more than 0.5 s too early.
    """
    about = _describe(Path(path))
    if not about.info.has_video:
        raise MediaError(f"{path}: has no picture. Give a video of the person.")
    if start_s < 0 or (n_frames is not None and n_frames < 0):
        raise ValueError("start_s and n_frames must not be negative")
    first = round(start_s * frame_rate)
    shape = size or (about.info.width, about.info.height)
    return _frames(about, first, n_frames, shape, frame_rate)


def _frames(
    about: _Description,
    first: int,
    n_frames: int | None,
    size: tuple[int, int],
    rate: Fraction | int,
) -> Generator[UInt8, None, None]:
    if n_frames == 0:
        return
    process = Process(_frames_graph(about, first, n_frames, size, rate), read=True)
    n_read = 0
    try:
        while True:
            frame = np.empty((size[1], size[0], 3), np.uint8)
            if _fill(process.stdout, frame.data.cast("B")) < frame.size:
                break
            n_read += 1
            yield frame
        expected = round(about.info.duration_s * rate) - first
        expected = expected if n_frames is None else min(expected, n_frames)
        _check_end(process, about.info, "picture", first, n_read, expected, rate)
    finally:
        process.stop()


def _frames_graph(
    about: _Description,
    first: int,
    n_frames: int | None,
    size: tuple[int, int],
    rate: Fraction | int,
) -> Any:
    """Seek to a key frame well before the start, and let the fps filter pick by time stamps.

    The key frame's picture is at or before the start, so that the picture shown at the start is
    always among those decoded, however long it lasts. Where seeking is vague, decode from second 0.
    """
    start_s = float(first / rate)
    options: dict[str, Any] = {"noaccurate_seek": None}
    if about.seeks and start_s > _SEEK_MARGIN_S:
        options["ss"] = start_s - _SEEK_MARGIN_S
    scaling: dict[str, Any] = {"w": size[0], "h": size[1], "flags": _SCALER_FLAGS}
    if about.guessed_matrix:
        scaling["in_color_matrix"] = about.guessed_matrix
    picture = ffmpeg.input(file_url(about.info.path), **options)["V:0"]
    picture = picture.filter("fps", fps=rate, start_time=start_s).filter("scale", **scaling)
    limit = {} if n_frames is None else {"frames:v": n_frames}
    return picture.output("pipe:", f="rawvideo", pix_fmt="rgb24", fps_mode="passthrough", **limit)


def _fill(stream: IO[bytes], view: memoryview) -> int:
    """Bytes read into the view: its length, or fewer at the stream's end."""
    n_read = 0
    while n_read < len(view):
        got = stream.readinto(view[n_read:])  # type: ignore[attr-defined]
        if not got:
            break
        n_read += got
    return n_read


def _check_end(
    process: Process,
    info: MediaInfo,
    what: str,
    first: int,
    n_read: int,
    expected: int,
    rate: Fraction | int,
) -> None:
    """Raise MediaError if ffmpeg failed, or complained and came out short."""
    status, words = process.wait(), process.words()
    missing = expected - n_read
    cut = missing > 0 and (n_read == 0 or (words and missing > _SHORTFALL_S * rate))
    if status == 0 and not cut:
        if words:
            _log.warning("%s: ffmpeg says: %s", info.path, words)
        return
    reached = float((first + n_read) / rate)
    raise MediaError(
        f"{info.path}: its {what} can't be read beyond {reached:.2f} s of {info.duration_s:.2f} s. "
        f"Copy or export the file again. ffmpeg says: {words or f'nothing (status {status})'}"
    )


def read_audio(path: PathLike, sample_rate: int = SAMPLE_RATE) -> Float32:
    """The sound of a file as one channel: [n_samples] float32 in [-1, 1], sample 0 at second 0.

    Channels are averaged; samples beyond full scale are clipped.

    Raises MediaError if the file can't be read, has no sound or an empty one, or holds a sample
    that is not a number.
    """
    return np.concatenate(list(read_audio_chunks(path, sample_rate)))


def read_audio_chunks(
    path: PathLike, sample_rate: int = SAMPLE_RATE, chunk_s: float = 30.0
) -> Generator[Float32, None, None]:
    """What `read_audio` yields, in pieces of chunk_s seconds (the last one shorter).

    Raises MediaError as `read_audio` does, at once or while iterating.
    """
    about = _describe(Path(path)).info
    if not about.has_audio:
        raise MediaError(f"{path}: has no sound. Give a file with speech.")
    chunk = round(chunk_s * sample_rate)
    if chunk < 1:
        raise ValueError("chunk_s must hold a sample or more")
    return _chunks(about, sample_rate, chunk)


def _chunks(info: MediaInfo, rate: int, chunk: int) -> Generator[Float32, None, None]:
    process = Process(_sound_graph(info, rate), read=True)
    n_read = 0
    try:
        while raw := process.stdout.read(4 * chunk):
            samples = np.frombuffer(raw[: len(raw) // 4 * 4], "<f4").astype(np.float32)
            if not np.isfinite(samples).all():
                raise _not_a_number(info)
            n_read += len(samples)
            yield np.clip(samples, -1.0, 1.0)
        expected = round(info.duration_s * rate)
        _check_end(process, info, "sound", 0, n_read, expected, rate)
        if n_read == 0:
            raise MediaError(f"{info.path}: its sound is empty. Give a file with speech.")
    finally:
        process.stop()


def _sound_graph(info: MediaInfo, rate: int) -> Any:
    """Sound from second 0 on: gaps and a late start become silence; a mono mix never overdrives."""
    sound = ffmpeg.input(file_url(info.path))["a:0"]
    sound = sound.filter("aresample", rate, **{"async": 1, "first_pts": 0, "rematrix_maxval": 1})
    sound = sound.filter("aformat", sample_fmts="flt", channel_layouts="mono")
    return sound.output("pipe:", f="f32le")


def _not_a_number(info: MediaInfo) -> MediaError:
    """The error that names the first bad sample, counted at the file's own rate."""
    process = Process(_sound_graph(info, info.audio_rate), read=True)
    n_good = 0
    try:
        while raw := process.stdout.read(1 << 20):
            good = np.isfinite(np.frombuffer(raw[: len(raw) // 4 * 4], "<f4"))
            if not good.all():
                n_good += int(np.argmin(good))
                break
            n_good += len(good)
    finally:
        process.stop()
    moment = n_good / info.audio_rate
    return MediaError(
        f"{info.path}: sample {n_good} ({moment:.3f} s) is not a number. Export the sound again."
    )


# ---------------------------------------------------------------------------- writing


class VideoWriter:
    """Writes an mp4 (H.264, AAC) frame by frame; the file appears only when it is complete.

        with VideoWriter("line.mp4", audio_path="line.wav", tags={"comment": "synthetic"}) as video:
            for frame in frames:
                video.write(frame)

    Frames come at frame_rate, and their number decides the length: the sound of audio_path (any
    file that has some) begins at 0, is padded with silence or cut, and keeps its channels and its
    rate (or the next one that AAC knows, 96 kHz at most). Colours are tagged BT.709, limited
    range. An odd width or height gets its last column or row twice, as 4:2:0 needs even ones
    (yuv444p doesn't). tags are those that mp4 knows: comment, title, artist, description, copyright
    and the like. keyframe_every: frames between key frames (x264's own choice is up to 250).

    Everything is written to NAME.part-<random>.mp4 in the same folder and renamed at the end;
    leaving the block by an exception of any kind removes it. Encoding goes on in ffmpeg's own
    process, fed from a thread, so that `write` waits only while 8 frames are queued.

    Raises MediaError if the folder is missing or can't be written, the sound can't be read, the
    disk is full or no frame came; ValueError if frames aren't uint8 [H, W, 3] of one size, or for
    an unknown tag.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        audio_path: PathLike | None = None,
        crf: float = 18,
        preset: str = "veryfast",
        keyframe_every: int | None = None,
        pixel_format: str = "yuv420p",
        tags: Mapping[str, str] | None = None,
        frame_rate: Fraction | int = FRAME_RATE,
    ) -> None:
        self.path = Path(path)
        self._rate = frame_rate
        self.n_frames = 0
        self._tags = _tag_options(tags or {})
        self._sound = None if audio_path is None else _sound_source(Path(audio_path))
        self._video_options: dict[str, Any] = {
            "c:v": "libx264", "crf": crf, "preset": preset, "pix_fmt": pixel_format,
            "colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709",
            "color_range": "tv",
            # Else x264 now and then writes other bytes for the same pictures.
            "x264-params": "sync-lookahead=0",
        }  # fmt: skip
        if keyframe_every is not None:
            self._video_options["g"] = keyframe_every
        self._even = pixel_format != "yuv444p"
        self._shape: tuple[int, ...] | None = None
        self._process: Process | None = None
        self._feeder: Feeder | None = None
        self._parts: list[Path] = []

    def __enter__(self) -> VideoWriter:
        self._part = self._new_part()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._clean_up()

    def write(self, frame: UInt8) -> None:
        """Queue one picture, [H, W, 3] uint8 RGB; it is copied and may be reused at once."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"frames must be uint8 [H, W, 3], not {frame.dtype} {frame.shape}")
        if self._shape is None:
            self._start(frame.shape)
        if frame.shape != self._shape:
            raise ValueError(f"frame {self.n_frames} is {frame.shape}, those before {self._shape}")
        assert self._feeder is not None
        if not self._feeder.put(self._padded(frame)):
            raise self._failure()
        self.n_frames += 1

    def _padded(self, frame: UInt8) -> bytes:
        rows, columns = (frame.shape[0] % 2, frame.shape[1] % 2) if self._even else (0, 0)
        if rows or columns:
            frame = np.pad(frame, ((0, rows), (0, columns), (0, 0)), mode="edge")
        return frame.tobytes()

    def _new_part(self) -> Path:
        part = self.path.with_name(f"{self.path.stem}.part-{secrets.token_hex(4)}.mp4")
        self._parts.append(part)
        try:
            part.open("xb").close()
        except OSError as error:
            raise MediaError(
                f"{self.path}: can't be written ({error.strerror}). Choose a folder that exists "
                "and may be written."
            ) from error
        return part

    def _start(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        odd_height, odd_width = (shape[0] % 2, shape[1] % 2) if self._even else (0, 0)
        picture = ffmpeg.input(
            "pipe:", f="rawvideo", pix_fmt="rgb24", framerate=self._rate,
            s=f"{shape[1] + odd_width}x{shape[0] + odd_height}",
        )  # fmt: skip
        picture = picture.filter(
            "scale", out_color_matrix="bt709", out_range="tv", flags=_SCALER_FLAGS
        )
        options = dict(self._video_options)
        if self._sound is None:
            options |= {"movflags": "+faststart", **self._tags}
        graph = picture.output(file_url(self._part), f="mp4", **options)
        self._process = Process(graph, fed=True)
        self._feeder = Feeder(self._process.stdin)

    def _finish(self) -> None:
        if self._process is None or self._feeder is None:
            raise MediaError(f"{self.path}: there was no frame to write. Give one or more.")
        if not self._feeder.finish() or self._process.wait():
            raise self._failure()
        if self._sound is not None:
            self._part = self._with_sound(self._sound)
        try:
            _flush(self._part)
            os.replace(self._part, self.path)
        except OSError as error:
            raise MediaError(f"{self.path}: can't be written ({error.strerror}).") from error

    def _with_sound(self, sound: MediaInfo) -> Path:
        """A second part: the picture as encoded, and the sound of just its length.

        (One run can't do it: ffmpeg's -shortest overshoots by up to ten seconds.)
        """
        silent, part = self._part, self._new_part()
        length_s = float(self.n_frames / self._rate)
        rate = next((r for r in _AAC_RATES if r >= sound.audio_rate), _AAC_RATES[-1])
        track = ffmpeg.input(file_url(sound.path))["a:0"]
        track = track.filter("aresample", rate, **{"async": 1, "first_pts": 0})
        track = track.filter("apad", whole_dur=length_s).filter("atrim", end=length_s)
        options = {"c:v": "copy", "c:a": "aac", "b:a": "192k", "movflags": "+faststart"}
        picture = ffmpeg.input(file_url(silent))["v:0"]
        graph = ffmpeg.output(picture, track, file_url(part), f="mp4", **options, **self._tags)
        self._process = Process(graph)
        try:
            if self._process.wait():
                raise self._failure()
        finally:
            self._process.stop()
        return part

    def _failure(self) -> MediaError:
        assert self._process is not None
        status = self._process.wait()
        words = self._process.words() or f"nothing (status {status})"
        return MediaError(
            f"{self.path}: could not be written. Check the space on the disk. ffmpeg says: {words}"
        )

    def _clean_up(self) -> None:
        if self._process is not None:
            self._process.stop()
        if self._feeder is not None:
            self._feeder.abandon()
        for part in self._parts:
            part.unlink(missing_ok=True)


def write_video(
    path: PathLike,
    frames: Iterable[UInt8],
    *,
    audio_path: PathLike | None = None,
    tags: Mapping[str, str] | None = None,
    **encoding: Any,
) -> int:
    """The number of frames written to an mp4: `VideoWriter` (see there) for an iterable of frames.

    frames: [H, W, 3] uint8 RGB each; encoding: crf, preset, keyframe_every, pixel_format,
    frame_rate.

    Raises what `VideoWriter` raises.
    """
    with VideoWriter(path, audio_path=audio_path, tags=tags, **encoding) as writer:
        for frame in frames:
            writer.write(frame)
    return writer.n_frames


def _sound_source(path: Path) -> MediaInfo:
    info = probe(path)
    if not info.has_audio:
        raise MediaError(f"{path}: has no sound. Give a file with speech.")
    return info


def _tag_options(tags: Mapping[str, str]) -> dict[str, str]:
    if unknown := sorted(set(tags).difference(_MP4_TAGS)):
        raise ValueError(f"mp4 has no tag {unknown[0]!r}; it has {', '.join(_MP4_TAGS)}")
    return {f"metadata:g:{i}": f"{key}={text}" for i, (key, text) in enumerate(tags.items())}


def _flush(path: Path) -> None:
    """Have the file's content on the disk before its name."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
