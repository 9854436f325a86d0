"""Reading and writing media, on tiny files that ffmpeg makes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ffmpeg as ffmpeg_graphs
import numpy as np
import pytest
import scipy.io.wavfile

from talkhead import media
from talkhead.errors import MediaError, TalkheadError
from talkhead.media.mux import run_to_end, write_failure
from talkhead.media.process import report
from talkhead.types import Float32, UInt8

RATE = 25


def gray(level: float, width: int = 32, height: int = 32) -> UInt8:
    return np.full((height, width, 3), round(level), np.uint8)


def noise(n_frames: int, width: int = 64, height: int = 48, seed: int = 0) -> list[UInt8]:
    """Moving blurred noise: all frames differ, and B-frames are used."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 80, 3)).astype(np.uint8)
    wide = coarse.repeat(8, axis=0).repeat(8, axis=1)
    return [wide[:height, 2 * i % 500 :][:, :width].copy() for i in range(n_frames)]


def ffmpeg(*arguments: str | Path, fed: bytes = b"") -> None:
    command = [media.ffmpeg_path(), "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, input=fed, check=True)


def encode(
    path: Path, frames: list[UInt8], *options: str, rate: float = RATE, sound: Path | None = None
) -> Path:
    """A video of these frames and audio, made by ffmpeg alone; options precede the output's name."""
    height, width = frames[0].shape[:2]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate)]
    encoder = ["-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv420p", "-preset", "veryfast"]
    fed = b"".join(frame.tobytes() for frame in frames)
    inputs = [*raw, "-i", "pipe:"] + ([] if sound is None else ["-i", str(sound)])
    ffmpeg(*inputs, *encoder, *options, path, fed=fed)
    return path


def wav(path: Path, samples: Any, rate: int) -> Path:
    scipy.io.wavfile.write(path, rate, np.asarray(samples, np.float32))
    return path


def click(duration_s: float, at_s: float, rate: int, channels: int = 1) -> Float32:
    samples = np.zeros((round(duration_s * rate), channels), np.float32)
    samples[round(at_s * rate)] = 0.9
    return samples.squeeze()


def levels(path: Path, **options: Any) -> Float32:
    return np.array([frame.mean() for frame in media.read_frames(path, **options)], np.float32)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 frames with B-frames and rare key frames, and audio of the same length."""
    folder = tmp_path_factory.mktemp("clip")
    sound = wav(folder / "click.wav", click(4.0, 1.0, 48000, 2), 48000)
    options = ["-qp", "20", "-bf", "3", "-g", "40", "-preset", "medium", "-movflags", "+faststart"]
    return encode(folder / "clip.mp4", noise(100), *options, sound=sound)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """All processes that are started during the test."""
    processes: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen.__init__

    def recorded(self: Any, *args: Any, **kwargs: Any) -> None:
        processes.append(self)
        start(self, *args, **kwargs)

    monkeypatch.setattr(subprocess.Popen, "__init__", recorded)
    return processes


# ---------------------------------------------------------------------------- probe


def test_probe_describes_a_video(clip: Path) -> None:
    info = media.probe(clip)
    assert (info.width, info.height, info.rotation) == (64, 48, 0)
    assert info.frame_rate == RATE
    assert info.duration_s == pytest.approx(4.0, abs=0.03)
    assert (info.audio_rate, info.audio_channels) == (48000, 2)


@pytest.mark.parametrize(("channels", "rate"), [(1, 8000), (2, 44100), (3, 48000), (6, 48000)])
def test_probe_describes_audio(tmp_path: Path, channels: int, rate: int) -> None:
    samples = np.zeros((rate // 2, channels), np.float32).squeeze()
    info = media.probe(wav(tmp_path / "sound.wav", samples, rate))
    assert not info.has_video and info.frame_rate == 0
    assert (info.audio_rate, info.audio_channels, info.duration_s) == (rate, channels, 0.5)


def test_duration_is_measured_where_the_file_does_not_state_it(tmp_path: Path) -> None:
    path = encode(tmp_path / "live.mkv", noise(50), "-live", "1", "-f", "matroska")
    assert "Duration: N/A" in report("-i", str(path))
    assert media.probe(path).duration_s == pytest.approx(2.0, abs=0.1)


def test_cover_picture_is_not_a_video(tmp_path: Path) -> None:
    sound = wav(tmp_path / "sound.wav", click(0.5, 0.1, 16000), 16000)
    encode(tmp_path / "cover.png", [gray(100)], "-c:v", "png", "-pix_fmt", "rgb24")
    song = tmp_path / "song.mp3"
    ffmpeg(
        "-i", sound, "-i", tmp_path / "cover.png", "-map", "0", "-map", "1", "-c:v", "copy", song
    )
    assert not media.probe(song).has_video
    with pytest.raises(MediaError, match="no picture"):
        media.read_frames(song)


def test_pixels_that_are_not_square_are_resampled(tmp_path: Path) -> None:
    path = encode(tmp_path / "wide.mp4", [gray(99, 48, 32)] * 3, "-vf", "setsar=4/3")
    info = media.probe(path)
    assert (info.width, info.height) == (64, 32)
    assert next(media.read_frames(path)).shape == (32, 64, 3)


def test_names_that_look_like_options_or_protocols(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-i", "http:x.mp4", "100%d.mp4", "a'b c.mp4"):
        Path(name).write_bytes(clip.read_bytes())
        assert media.probe(name).width == 64
        assert len(list(media.read_frames(name, n_frames=2))) == 2


def assert_one_line(error: pytest.ExceptionInfo[TalkheadError], *wanted: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in wanted:
        assert part in text


@pytest.mark.parametrize(
    "read", [media.probe, media.read_frames, media.read_audio, media.read_tags]
)
def test_other_files_are_refused(tmp_path: Path, clip: Path, read: Any) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    (tmp_path / "text.txt").write_text("not a video\n" * 50)
    unfinished = encode(tmp_path / "unfinished.mp4", noise(20))
    content = unfinished.read_bytes()
    unfinished.write_bytes(content[: content.index(b"moov") - 4])
    cases = {
        "missing.mp4": "no such file",
        ".": "is a folder",
        "empty.mp4": "is empty",
        "text.mp4": "Invalid data found",
        "text.txt": "is not a video or audio file",
        "unfinished.mp4": "moov atom not found",
    }
    for name, words in cases.items():
        with pytest.raises(MediaError) as error:
            read(tmp_path / name)
        assert_one_line(error, str(tmp_path / name), words)


# ---------------------------------------------------------------------------- the program


def test_an_installed_ffmpeg_is_not_needed(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    frames = list(media.read_frames(clip, n_frames=5))
    assert len(media.read_audio(clip)) > 0
    assert media.write_video(tmp_path / "out.mp4", frames, audio_path=clip) == 5
    assert media.probe(tmp_path / "out.mp4").has_audio


def test_a_custom_ffmpeg(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    log = tmp_path / "log"
    own.write_text(f'#!/bin/sh\necho called >> {log}\nexec {media.ffmpeg_path()} "$@"\n')
    own.chmod(0o755)
    monkeypatch.setenv("TALKHEAD_FFMPEG", str(own))
    assert media.probe(clip).width == 64
    assert log.read_text() == "called\n"
    monkeypatch.setenv("TALKHEAD_FFMPEG", str(tmp_path / "nothing"))
    with pytest.raises(MediaError, match="not a program"):
        media.probe(clip)
    media.set_ffmpeg(own)  # takes precedence over the environment's
    try:
        assert media.probe(clip).width == 64
    finally:
        media.set_ffmpeg(None)
    with pytest.raises(MediaError, match="not a program"):
        media.set_ffmpeg(tmp_path / "nothing")


def test_many_messages_of_ffmpeg_do_not_block(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loud = tmp_path / "loud"
    loud.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"if 'error' not in sys.argv: os.execv({media.ffmpeg_path()!r}, sys.argv)\n"
        "for i in range(20000): print('[h264 @ 0x1] bad thing', i, file=sys.stderr)\n"
        "sys.exit(1)\n"
    )
    loud.chmod(0o755)
    monkeypatch.setenv("TALKHEAD_FFMPEG", str(loud))
    with pytest.raises(MediaError) as error:
        list(media.read_frames(clip))
    assert_one_line(error, "beyond 0.00 s", "ffmpeg says: bad thing 19998; bad thing 19999")


# ---------------------------------------------------------------------------- frames


def test_frames_equal_the_encoded_ones(clip: Path) -> None:
    frames = list(media.read_frames(clip))
    assert len(frames) == 100
    assert frames[0].shape == (48, 64, 3) and frames[0].dtype == np.uint8
    for index in (0, 37, 99):
        distances = [np.abs(frames[index].astype(float) - other).mean() for other in noise(100)]
        assert int(np.argmin(distances)) == index


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mpg"])
def test_reading_from_a_later_start_equals_the_full_read(tmp_path: Path, suffix: str) -> None:
    codec = {"avi": ["-c:v", "mpeg4"], "mpg": ["-c:v", "mpeg2video"]}.get(suffix, [])
    options = ["-qp", "20", "-bf", "2", "-g", "40", "-preset", "medium", *codec]
    path = encode(tmp_path / f"clip.{suffix}", noise(100), *options)
    frames = list(media.read_frames(path))
    for first, step in ((1, 1), (39, 1), (40, 3), (66, 1), (66, 10), (97, 1)):
        part = list(media.read_frames(path, start_s=first / RATE, n_frames=5, step=step))
        wanted = frames[first::step][:5]
        assert len(part) == len(wanted)
        assert all(np.array_equal(a, b) for a, b in zip(part, wanted, strict=True))


def test_a_start_beyond_the_end_yields_no_frames(clip: Path) -> None:
    assert list(media.read_frames(clip, start_s=9.0)) == []
    assert list(media.read_frames(clip, n_frames=0)) == []


def test_30_fps_become_25_without_drift(tmp_path: Path) -> None:
    path = encode(tmp_path / "fast.mp4", [gray(20 + 40 * (j % 5)) for j in range(110)], rate=30)
    steps = np.diff(np.rint((levels(path) - 20) / 40)) % 5
    shown = np.concatenate([[0.0], np.cumsum(steps)]) / 30  # second that each frame shows
    wanted = np.arange(len(shown)) / RATE
    assert len(shown) == round(110 / 30 * RATE)
    assert np.abs(shown - wanted).max() <= 0.5 / RATE + 1e-9
    assert abs(float(np.mean(shown - wanted))) < 0.005


def test_variable_frame_rate_uses_time_stamps(tmp_path: Path) -> None:
    gaps_s = np.random.default_rng(3).choice([0.009, 0.033, 0.041, 0.15, 1.63], 40)
    times_s = np.concatenate([[0.0], np.cumsum(gaps_s)])
    stamps = "+".join(f"eq(N,{j})*{round(t * 1000)}" for j, t in enumerate(times_s))
    path = encode(
        tmp_path / "vfr.mp4", [gray(20 + 5 * j) for j in range(41)],
        "-vf", f"settb=1/1000,setpts='{stamps}'", "-fps_mode", "passthrough",
        "-enc_time_base", "1/1000", "-video_track_timescale", "1000", "-g", "15",
    )  # fmt: skip
    shown = np.rint((levels(path) - 20) / 5)
    until_ms = np.arange(len(shown)) * 40 + 20  # frame i shows the last picture before this time
    wanted = np.searchsorted(np.rint(times_s * 1000), until_ms, side="left") - 1
    assert len(shown) >= times_s[-1] * RATE - 1
    np.testing.assert_array_equal(shown, wanted)
    for first in (30, len(shown) // 2, len(shown) - 3):  # also within the long gaps
        part = np.rint((levels(path, start_s=first / RATE, n_frames=3) - 20) / 5)
        np.testing.assert_array_equal(part, wanted[first : first + 3])


def test_a_late_picture_keeps_its_time_relative_to_the_sound(tmp_path: Path) -> None:
    sound = wav(tmp_path / "click.wav", click(2.0, 1.0, 48000), 48000)
    silent = encode(tmp_path / "silent.mp4", [gray(20 + 5 * j) for j in range(40)])
    path = tmp_path / "late.mp4"
    ffmpeg("-itsoffset", "0.2", "-i", silent, "-i", sound, "-c:v", "copy", "-c:a", "aac", path)
    shown = np.rint((levels(path) - 20) / 5)
    np.testing.assert_array_equal(shown, [0] * 5 + list(range(40)))
    part = np.rint((levels(path, start_s=0.08, n_frames=6) - 20) / 5)
    np.testing.assert_array_equal(part, [0, 0, 0, 0, 1, 2])
    assert np.argmax(np.abs(media.read_audio(path))) == pytest.approx(16000, abs=2)


def test_audio_that_starts_late_begins_with_silence(tmp_path: Path, clip: Path) -> None:
    sound = wav(tmp_path / "click.wav", click(2.0, 1.0, 48000), 48000)
    path = tmp_path / "late.mkv"
    ffmpeg("-i", clip, "-itsoffset", "0.5", "-i", sound, "-map", "0:v", "-map", "1:a",
           "-c:v", "copy", "-c:a", "flac", path)  # fmt: skip
    waveform = media.read_audio(path)
    assert np.argmax(np.abs(waveform)) == pytest.approx(24000, abs=2)
    assert not waveform[:7900].any()


@pytest.mark.parametrize(("turn", "clockwise"), [(90, 270), (-90, 90), (180, 180)])
def test_rotation_is_applied(tmp_path: Path, turn: int, clockwise: int) -> None:
    picture = gray(30, 64, 48)
    picture[:24, :32] = 220  # a mark at the top left
    flat, turned = encode(tmp_path / "flat.mp4", [picture] * 3), tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", str(turn), "-i", flat, "-c", "copy", turned)
    info, frame = media.probe(turned), next(media.read_frames(turned))
    upright = np.rot90(picture, turn // 90)  # both are counterclockwise
    assert info.rotation == clockwise
    assert (info.height, info.width) == upright.shape[:2] == frame.shape[:2]
    assert np.abs(frame.astype(int) - upright).mean() < 4


def test_size_scales(clip: Path) -> None:
    frame = next(media.read_frames(clip, size=(33, 21)))
    assert frame.shape == (21, 33, 3)


@pytest.mark.parametrize(("size", "tag", "matrix"), [
    ((64, 48), None, "bt601"), ((64, 48), "bt709", "bt709"), ((64, 48), "smpte170m", "bt601"),
    ((1280, 720), None, "bt709"), ((1280, 720), "smpte170m", "bt601"),
])  # fmt: skip
def test_the_color_matrix_depends_on_the_tag_or_the_size(
    tmp_path: Path, size: tuple[int, int], tag: str | None, matrix: str
) -> None:
    red = np.empty((size[1], size[0], 3), np.uint8)
    red[:] = (200, 60, 50)
    tagging = f"scale=out_color_matrix={matrix}:out_range=tv,format=yuv420p"
    untag = "setparams=colorspace=" + (tag or "unknown")
    path = encode(tmp_path / "red.mp4", [red], "-vf", f"{tagging},{untag}")
    frame = next(media.read_frames(path))
    assert np.abs(frame.astype(int) - red).max() <= 3


def test_a_truncated_video_is_an_error_at_its_end(tmp_path: Path, clip: Path) -> None:
    cut, content = tmp_path / "cut.mp4", clip.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    frames: list[UInt8] = []
    with pytest.raises(MediaError) as error:
        frames.extend(media.read_frames(cut))
    assert_one_line(error, "picture can't be read beyond", "ffmpeg says:")
    with pytest.raises(MediaError, match="sound can't be read beyond"):
        media.read_audio(cut)


def test_a_crash_of_ffmpeg_is_an_error(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    path = encode(tmp_path / "long.mp4", noise(60, 200, 96))
    frames = media.read_frames(path)
    next(frames)
    os.kill(started[-1].pid, signal.SIGKILL)
    with pytest.raises(MediaError, match="status -9"):
        list(frames)


def test_closing_early_ends_ffmpeg(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    path = encode(tmp_path / "long.mp4", noise(60, 200, 96))
    frames, chunks = media.read_frames(path), None
    next(frames)
    reader = started[-1]
    assert reader.poll() is None  # waiting until the next frames are read
    frames.close()
    assert reader.poll() is not None
    sound = wav(tmp_path / "long.wav", np.zeros(16000 * 60), 16000)
    chunks = media.read_audio_chunks(sound, chunk_s=0.1)
    next(chunks)
    reader = started[-1]
    assert reader.poll() is None
    chunks.close()
    assert reader.poll() is not None


# ---------------------------------------------------------------------------- sound


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_sound_keeps_its_length_and_moment(tmp_path: Path, rate: int) -> None:
    path = wav(tmp_path / "click.wav", click(2.5, 1.0, rate, 2), rate)
    waveform = media.read_audio(path)
    assert waveform.dtype == np.float32 and waveform.ndim == 1
    assert abs(len(waveform) - 40000) <= 1
    assert np.argmax(np.abs(waveform)) == 16000


@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4a", "flac", "ogg", "opus", "mp4"])
def test_sound_formats(tmp_path: Path, suffix: str) -> None:
    sound = wav(tmp_path / "click.wav", click(2.0, 0.5, 48000, 2), 48000)
    path = tmp_path / f"sound.{suffix}"
    ffmpeg(
        "-i",
        sound,
        "-c:a" if suffix == "wav" else "-b:a",
        "pcm_s24le" if suffix == "wav" else "128k",
        path,
    )
    waveform = media.read_audio(path)
    assert np.argmax(np.abs(waveform)) == pytest.approx(8000, abs=2)
    assert 32000 <= len(waveform) <= 32000 + 1024


def test_channels_are_averaged_and_never_overdriven(tmp_path: Path) -> None:
    both = np.full((8000, 2), 0.9, np.float32)
    left = both * [1, 0]
    loud = both * 2
    for samples, level in ((both, 0.9), (left, 0.45), (loud, 1.0)):
        waveform = media.read_audio(wav(tmp_path / "sound.wav", samples, 16000))
        np.testing.assert_allclose(waveform, level, atol=1e-4)


def test_chunks_equal_the_whole(clip: Path) -> None:
    chunks = list(media.read_audio_chunks(clip, chunk_s=0.3))
    assert {len(chunk) for chunk in chunks[:-1]} == {4800}
    np.testing.assert_array_equal(np.concatenate(chunks), media.read_audio(clip))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_a_number_is_named(tmp_path: Path, bad: float) -> None:
    samples = np.zeros(48000, np.float32)
    samples[[1234, 40000]] = bad
    with pytest.raises(MediaError, match=r"line.wav: sample 1234 \(0\.028 s\) is not a number"):
        media.read_audio(wav(tmp_path / "line.wav", samples, 44100))


def test_no_sound_and_empty_sound(tmp_path: Path) -> None:
    silent = encode(tmp_path / "silent.mp4", noise(3))
    with pytest.raises(MediaError, match="has no sound"):
        media.read_audio(silent)
    with pytest.raises(MediaError, match="its sound is empty"):
        media.read_audio(wav(tmp_path / "empty.wav", [], 16000))


# ---------------------------------------------------------------------------- writing


def test_colors_survive_writing(tmp_path: Path) -> None:
    colors = [
        (200, 40, 40),
        (40, 200, 40),
        (40, 40, 200),
        (250, 250, 250),
        (5, 5, 5),
        (220, 170, 140),
    ]
    bars = np.repeat(np.array(colors, np.uint8), 16, axis=0)[None].repeat(64, axis=0)
    media.write_video(tmp_path / "bars.mp4", [bars] * 4, crf=10)
    back = list(media.read_frames(tmp_path / "bars.mp4"))
    assert len(back) == 4
    inner = back[2][:, 8::16].astype(int)  # the middle of each bar: chroma is coarse at the edges
    assert np.abs(inner - bars[:, 8::16]).max() <= 6
    assert "yuv420p(tv, bt709, progressive)" in report("-i", str(tmp_path / "bars.mp4"))


def test_odd_sizes_repeat_their_edge(tmp_path: Path) -> None:
    frame = noise(1, 45, 31)[0]
    media.write_video(tmp_path / "odd.mp4", [frame] * 2, crf=1)
    even = next(media.read_frames(tmp_path / "odd.mp4"))
    assert even.shape == (32, 46, 3)
    assert np.abs(even[:31, :45].astype(int) - frame).mean() < 8
    assert np.abs(even[31].astype(int) - even[30]).mean() < 8
    media.write_video(tmp_path / "full.mp4", [frame] * 2, crf=1, pixel_format="yuv444p")
    full = list(media.read_frames(tmp_path / "full.mp4"))
    assert full[0].shape == (31, 45, 3)
    assert np.abs(full[0].astype(int) - frame).max() < 10


@pytest.mark.parametrize(("rate", "channels", "kept"), [
    (16000, 1, 16000), (44100, 2, 44100), (48000, 2, 48000), (22000, 1, 22050), (192000, 2, 96000),
])  # fmt: skip
@pytest.mark.parametrize("n_frames", [30, 63])
def test_the_sound_ends_with_the_frames(
    tmp_path: Path, rate: int, channels: int, kept: int, n_frames: int
) -> None:
    """2 s of audio are cut to 1.2 s, or padded to 2.52 s."""
    sound = wav(tmp_path / "click.wav", click(2.0, 1.0, rate, channels), rate)
    path = tmp_path / "out.mp4"
    assert media.write_video(path, noise(n_frames), audio_path=sound) == n_frames
    info = media.probe(path)
    assert (info.audio_rate, info.audio_channels) == (kept, channels)
    assert info.duration_s == pytest.approx(n_frames / RATE, abs=0.011)
    assert len(list(media.read_frames(path))) == n_frames
    waveform = media.read_audio(path, 48000)
    assert np.argmax(np.abs(waveform)) == pytest.approx(48000, abs=3)
    packet = 1024 / kept * 48000  # AAC can't end within one; players stop at the stated end
    assert -1 <= len(waveform) - n_frames * 1920 <= packet + 1


def test_tags_and_key_frames(tmp_path: Path) -> None:
    tags = {"comment": "synthetic: talkhead = yes; #1\n[x]\nend \\", "title": "Zeile ü"}
    media.write_video(tmp_path / "out.mp4", noise(30), tags=tags, keyframe_every=10)
    found = media.read_tags(tmp_path / "out.mp4")
    assert {key: found[key] for key in tags} == tags
    keys = report("-skip_frame", "nokey", "-i", str(tmp_path / "out.mp4"), "-f", "null", "-")
    assert "frame=    3 " in keys
    with pytest.raises(ValueError, match="no tag 'mood'"):
        media.write_video(tmp_path / "x.mp4", noise(1), tags={"mood": "good"})


def test_a_frame_may_be_reused_at_once(tmp_path: Path) -> None:
    with media.VideoWriter(tmp_path / "out.mp4", crf=5) as writer:
        frame = gray(0, 256, 256)
        for level in range(20, 220, 10):
            frame[:] = level
            writer.write(frame)
    np.testing.assert_allclose(levels(tmp_path / "out.mp4"), np.arange(20, 220, 10), atol=2)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, clip: Path, kind: type[BaseException], started: list[subprocess.Popen[bytes]]
) -> None:
    target = tmp_path / "out.mp4"
    target.write_text("what was there before")

    def frames() -> Iterator[UInt8]:
        yield from noise(5)
        assert len(list(tmp_path.glob(".out.tmp-*.mp4"))) == 1
        raise kind

    with pytest.raises(kind):
        media.write_video(target, frames(), audio_path=clip)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert target.read_text() == "what was there before"
    assert all(process.poll() is not None for process in started)


def test_wrong_frames_are_refused(tmp_path: Path) -> None:
    cases: list[list[Any]]
    cases = [[gray(9), gray(9, 34)], [gray(9).astype(np.float32)], [gray(9)[..., 0]]]
    for frames in cases:
        with pytest.raises(ValueError, match="frame"):
            media.write_video(tmp_path / "out.mp4", frames)
    assert not list(tmp_path.iterdir())


def test_write_errors_are_one_line(tmp_path: Path, clip: Path) -> None:
    silent = encode(tmp_path / "silent.mp4", noise(3))
    (tmp_path / "taken.mp4").mkdir()
    cases: list[tuple[str, list[UInt8], Path | None, str]] = [
        ("missing/out.mp4", noise(2), None, "missing does not exist. Create it first"),
        ("silent.mp4/out.mp4", noise(2), None, "is a file, not a folder"),
        ("out.mp4", [], None, "no frame"),
        ("out.mp4", noise(2), silent, "has no sound"),
        ("out.mp4", noise(2), tmp_path / "nothing.wav", "no such file"),
        ("taken.mp4", noise(2), None, "this is a folder"),
    ]
    for name, frames, sound, words in cases:
        with pytest.raises(TalkheadError) as error:
            media.write_video(tmp_path / name, frames, audio_path=sound)
        assert_one_line(error, words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["silent.mp4", "taken.mp4"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_is_distinguished_from_other_failures(tmp_path: Path, clip: Path) -> None:
    graph = ffmpeg_graphs.input(str(clip)).output("/dev/full", f="rawvideo")
    with pytest.raises(MediaError) as error:
        run_to_end(graph, tmp_path / "out.mp4")
    assert_one_line(error, "out.mp4: the disk is full. Free some space")
    assert isinstance(error.value.__cause__, OSError)
    assert error.value.__cause__.errno == errno.ENOSPC
    with pytest.raises(MediaError) as error:
        run_to_end(ffmpeg_graphs.input(str(clip)).output(str(tmp_path), f="mp4"), tmp_path / "x")
    assert_one_line(error, "could not be written. ffmpeg says: ", "Is a directory")
    assert error.value.__cause__ is None


@pytest.mark.parametrize(("words", "message"), [
    ("out.mp4: Permission denied", "no permission. Choose a place that you may write to"),
    ("", "could not be written. ffmpeg says: nothing (status 9)"),
])  # fmt: skip
def test_messages_of_ffmpeg_in_failures(words: str, message: str) -> None:
    process: Any = SimpleNamespace(wait=lambda: 9, words=lambda: words)
    assert str(write_failure(Path("out.mp4"), process)) == f"out.mp4: {message}"


def test_a_killed_ffmpeg_is_one_line(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    speckles = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3)).astype(np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(MediaError) as error:
            media.write_video(tmp_path / "out.mp4", speckles)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_one_line(error, "could not be written. ffmpeg says:")
    assert not list(tmp_path.iterdir())
