"""Read the frames and the audio of video files with ffmpeg.

Times are those of the file: second 0 is the earliest moment of any of its streams, for both picture and
audio. Whatever the frame rate of the file is, constant or not, frames are read at exactly FRAME_RATE (or
another given rate) by time stamps: frame i shows the last picture that begins at most half a frame after
second i / FRAME_RATE. A stream that begins late is padded: the picture with its first frame, the audio
with silence.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talkhead.errors import MediaError
from talkhead.media.inputs import media_input
from talkhead.media.probing import (
    MAX_DURATION_S,
    Description,
    check_duration,
    describe,
    exact_rate,
)
from talkhead.media.process import PathLike, Process
from talkhead.media.writer import SCALER_FLAGS
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32, MediaInfo, UInt8

_log = logging.getLogger(__name__)

_SEEK_MARGIN_S = 1.0  # seek to a key frame at least this long before the wanted moment
_LARGE_PIXELS = 4096 * 2304
_LARGE_THREADS = 2  # threads that decode larger pictures: each holds several, of 50 MB or more
_BEYOND_S = 60.0  # read beyond the longest duration, to detect files that are too long
_STRETCH_LEAD_S = (
    0.1  # silence before audio whose tempo is changed, longer than the filter's window
)
_SHORTFALL_S = 0.5  # a stream with errors may end this much before the stated end


def read_frames(
    path: PathLike,
    *,
    start_s: float = 0.0,
    n_frames: int | None = None,
    size: tuple[int, int] | None = None,
    frame_rate: float | Fraction = FRAME_RATE,
    step: int = 1,
) -> Generator[UInt8, None, None]:
    """Read the pictures of a video at exactly frame_rate, one at a time.

    Each array is new and owned by the caller. Closing the generator ends ffmpeg.

    Args:
        path: The video.
        start_s: First moment, rounded to a whole frame k. The result is the same as when reading from the
            beginning and skipping k frames.
        n_frames: Largest number of frames. There are fewer if the picture ends earlier, and none if it
            ends before start_s.
        size: Width and height to scale to; by default the displayed size.
        frame_rate: Frames per second.
        step: Read only each step-th frame from the first one on. Those between are decoded, too, but this
            is faster than reading the frames one by one unless they are far apart.

    Returns:
        A generator of [H, W, 3] uint8 RGB, upright.

    Raises:
        MediaError: At once if the file cannot be read or has no picture; while iterating if the picture
            cannot be decoded or, being damaged, ends more than 0.5 s too early.
        ValueError: start_s or n_frames is negative, or step is not positive.
    """
    about = describe(Path(path))
    if not about.info.has_video:
        raise MediaError(f"{path}: has no picture. Pass a video of the person.")
    if start_s < 0 or (n_frames is not None and n_frames < 0):
        raise ValueError("start_s and n_frames must not be negative")
    if step < 1:
        raise ValueError(f"step {step}: at least 1 is needed")
    rate = exact_rate(frame_rate)
    shape = size or (about.info.width, about.info.height)
    return _frames(about, round(start_s * rate), n_frames, shape, rate, step)


def _frames(
    about: Description,
    first: int,
    n_frames: int | None,
    size: tuple[int, int],
    rate: Fraction,
    step: int,
) -> Generator[UInt8, None, None]:
    """Yield each step-th frame [H, W, 3] uint8, of a size (width, height)."""
    if n_frames == 0:
        return
    graph = _frames_graph(about, first, n_frames, size, rate, step)
    process = Process(graph, read=True, skipped_s=float(first / rate))
    n_read = 0  # with the frames between
    planes = np.empty((3, size[1], size[0]), np.uint8)
    try:
        while process.fill(planes.data.cast("B")) == planes.size:
            n_read += step if n_read else 1
            check_duration(about.info.path, float((first + n_read) / rate))
            green, blue, red = planes
            yield np.asarray(cv2.merge((red, green, blue)), np.uint8)
        expected = round(about.info.duration_s * rate) - first
        expected = expected if n_frames is None else min(expected, (n_frames - 1) * step + 1)
        _check_end(process, about.info, "picture", first, n_read, expected, float(rate))
    finally:
        process.stop()


def _frames_graph(
    about: Description,
    first: int,
    n_frames: int | None,
    size: tuple[int, int],
    rate: Fraction,
    step: int,
) -> Any:
    """Seek to a key frame well before the start, and let the fps filter select frames by time stamps.

    The picture of the key frame is at or before the start, so that the picture shown at the start is
    always among those decoded, however long it lasts. Where seeking is unreliable, decode from second 0.
    """
    start_s = float(first / rate)
    options: dict[str, Any] = {"noaccurate_seek": None}
    if about.seeks and start_s > _SEEK_MARGIN_S:
        options["ss"] = start_s - _SEEK_MARGIN_S
    if about.info.width * about.info.height > _LARGE_PIXELS:
        options["threads"] = _LARGE_THREADS
    scaling: dict[str, Any] = {"w": size[0], "h": size[1], "flags": SCALER_FLAGS}
    if about.guessed_matrix:
        scaling["in_color_matrix"] = about.guessed_matrix
    picture = media_input(about.info.path, **options)["V:0"]
    picture = picture.filter("fps", fps=str(rate), start_time=start_s)
    if step > 1:
        picture = picture.filter("select", f"not(mod(n,{step}))")
    picture = picture.filter("scale", **scaling)
    limit = {} if n_frames is None else {"frames:v": n_frames}
    # ffmpeg converts to planes at twice the speed of rgb24, to the same values.
    return picture.output("pipe:", f="rawvideo", pix_fmt="gbrp", fps_mode="passthrough", **limit)


def _check_end(
    process: Process,
    info: MediaInfo,
    what: str,
    first: int,
    n_read: int,
    expected: int,
    rate: float,
) -> None:
    """Raise MediaError if ffmpeg failed, or reported errors and delivered too little."""
    status, words = process.wait(), process.words()
    missing = expected - n_read
    cut = missing > 0 and (n_read == 0 or (words and missing > _SHORTFALL_S * rate))
    if status == 0 and not cut:
        if words:
            _log.warning("%s: ffmpeg says: %s", info.path, words)
        return
    reached = (first + n_read) / rate
    raise MediaError(
        f"{info.path}: its {what} can't be read beyond {reached:.2f} s of {info.duration_s:.2f} s. "
        f"Copy or export the file again. ffmpeg says: {words or f'nothing (status {status})'}"
    )


def read_audio(path: PathLike, sample_rate: int = SAMPLE_RATE, *, tempo: float = 1.0) -> Float32:
    """Read the audio of a file as one channel.

    Channels are averaged; samples beyond full scale are clipped.

    Args:
        path: The file.
        sample_rate: Hz.
        tempo: Speed relative to normal, 1 to 2; the pitch is kept.

    Returns:
        [n_samples] float32 in [-1, 1], sample 0 at second 0.

    Raises:
        MediaError: The file cannot be read, it has no audio or only empty audio, or a sample is not a
            number.
    """
    chunks = deque(read_audio_chunks(path, sample_rate, tempo=tempo))
    samples, n_done = np.empty(sum(map(len, chunks)), np.float32), 0
    while chunks:  # each is freed when copied: audio is only in memory once
        chunk = chunks.popleft()
        samples[n_done : n_done + len(chunk)] = chunk
        n_done += len(chunk)
    return samples


def read_audio_chunks(
    path: PathLike,
    sample_rate: int = SAMPLE_RATE,
    chunk_s: float = 30.0,
    *,
    stereo: bool = False,
    tempo: float = 1.0,
) -> Generator[Float32, None, None]:
    """Read the audio of a file in pieces.

    Args:
        path: The file.
        sample_rate: Hz.
        chunk_s: Length of a piece, seconds; the last one may be shorter.
        stereo: Read two channels. Those of a file with one are equal; more are mixed.
        tempo: Speed relative to normal, 1 to 2; the pitch is kept.

    Returns:
        A generator of [n] float32 in [-1, 1], of [n, 2] if `stereo`; without `stereo`, they are,
        concatenated, what `read_audio` returns.

    Raises:
        MediaError: As for `read_audio`, at once or while iterating.
        ValueError: A piece would be shorter than a sample, or the tempo is not between 1 and 2.
    """
    about = describe(Path(path)).info
    if not about.has_audio:
        raise MediaError(f"{path}: has no sound. Pass a file with speech.")
    chunk = round(chunk_s * sample_rate)
    if chunk < 1:
        raise ValueError("chunk_s must hold a sample or more")
    if not 1.0 <= tempo <= 2.0:
        raise ValueError(f"a tempo is between 1 and 2, not {tempo}")
    return _chunks(about, _SoundFormat(sample_rate, 2 if stereo else 1, tempo), chunk)


def audio_duration(path: PathLike, sample_rate: int = SAMPLE_RATE) -> float:
    """Measure how long audio is, by decoding it: what a file states may be an estimate.

    Args:
        path: The file.
        sample_rate: Hz.

    Returns:
        Seconds, a whole number of samples.

    Raises:
        MediaError: As for `read_audio`.
    """
    return sum(map(len, read_audio_chunks(path, sample_rate))) / sample_rate


@dataclass(frozen=True)
class _SoundFormat:
    """Format in which audio is read: samples per second, number of channels, and tempo."""

    rate: int
    n_channels: int = 1
    tempo: float = 1.0


def _chunks(info: MediaInfo, form: _SoundFormat, chunk: int) -> Generator[Float32, None, None]:
    """Yield audio in pieces [n] or [n, 2] float32; the last one may be shorter."""
    n_read = 0
    process = Process(_sound_graph(info, form), read=True)
    try:
        for samples in _samples(process, chunk, form.n_channels):
            if not np.isfinite(samples).all():
                raise _not_a_number(info)
            n_read += len(samples)
            check_duration(info.path, n_read / form.rate)
            yield np.clip(samples, -1.0, 1.0)
        expected = round(info.duration_s * form.rate / form.tempo)
        _check_end(process, info, "sound", 0, n_read, expected, form.rate)
        if n_read == 0:
            raise MediaError(f"{info.path}: its sound is empty. Pass a file with speech.")
    finally:
        process.stop()


def _samples(process: Process, chunk: int, n_channels: int = 1) -> Iterator[Float32]:
    """Yield the output of a process of _sound_graph in pieces [chunk] or [chunk, n_channels]; the last
    one may be shorter."""
    shape, n_bytes_each = (-1, n_channels)[: 1 + (n_channels > 1)], 4 * n_channels
    while True:
        samples = np.empty(chunk * n_channels, "<f4")
        n_bytes = process.fill(samples.data.cast("B"))
        if n_bytes >= n_bytes_each:
            whole = samples[: n_bytes // n_bytes_each * n_channels].reshape(shape)
            yield whole.astype(np.float32, copy=False)
        if n_bytes < n_bytes_each * chunk:
            return


def _sound_graph(info: MediaInfo, form: _SoundFormat) -> Any:
    """Read audio, beginning at second 0: gaps and a late start become silence; a mono mix never clips.

    A gap is filled at once, in memory, so audio beyond the longest duration that can be read is cut off.
    """
    sound = media_input(info.path)["a:0"].filter("atrim", end=MAX_DURATION_S + _BEYOND_S)
    sound = mix_channels(sound, info, form.n_channels, form.rate)
    sound = sound.filter("aformat", sample_fmts="flt")
    if form.tempo != 1.0:
        sound = _stretched(sound, form)
    return sound.output("pipe:", f="f32le")


def mix_channels(sound: Any, info: MediaInfo, n_channels: int, rate: int) -> Any:
    """Mix the channels of a file's audio so that they never clip, and resample it from second 0 on.

    Args:
        sound: Stream of ffmpeg with the file's audio.
        info: The file.
        n_channels: 1 or 2. One channel becomes two equal ones at the same level.
        rate: Hz.

    Returns:
        Stream of ffmpeg.
    """
    if info.audio_channels == 1 and n_channels == 2:
        sound = sound.filter("channelmap", map="0|0", channel_layout="stereo")
    sound = sound.filter("aresample", rate, **{"async": 1, "first_pts": 0, "rematrix_maxval": 1})
    return sound.filter("aformat", channel_layouts="stereo" if n_channels == 2 else "mono")


def _stretched(sound: Any, form: _SoundFormat) -> Any:
    """Change the tempo. What is said at second t is at t / tempo, within about 10 ms.

    The first window of ffmpeg's atempo (WSOLA), 1/24 s or a little more, is faded in. So silence precedes
    the audio and is removed afterwards.
    """
    n_silent = round(_STRETCH_LEAD_S * form.rate)
    sound = sound.filter("adelay", delays=f"{n_silent}S", all=1)
    sound = sound.filter("atempo", f"{form.tempo:.9f}")
    return sound.filter("atrim", start_sample=round(n_silent / form.tempo))


def _not_a_number(info: MediaInfo) -> MediaError:
    """Make the error that names the first bad sample, counted at the file's own rate."""
    process = Process(_sound_graph(info, _SoundFormat(info.audio_rate)), read=True)
    n_good = 0
    try:
        for samples in _samples(process, 1 << 18):
            good = np.isfinite(samples)
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
