"""Files that are too long, too large, endless or damaged are refused in one line, and nothing hangs."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.io.wavfile

from talkhead import media
from talkhead.errors import MediaError, TalkheadError
from talkhead.media import probing
from talkhead.media import process as ffmpeg_program
from talkhead.media.inputs import MAX_PIXELS, media_input
from talkhead.media.mux import run_to_end, sound_source
from talkhead.media.probing import MAX_CHANNELS, MAX_SIDE_PX, frame_times, own_rate
from talkhead.media.process import _Watch, report, run, summarize_errors
from talkhead.storage import sha256_of

READERS: list[Callable[[Path], Any]] = [
    media.probe,
    media.read_tags,
    lambda path: list(media.read_frames(path)),
    media.read_audio,
    frame_times,
    sound_source,
]


def wav(path: Path, samples: Any, rate: int) -> Path:
    scipy.io.wavfile.write(path, rate, samples)
    return path


def make(path: Path, *options: object, picture: str = "size=64x48", seconds: float = 0.6) -> Path:
    """A video with audio, made by ffmpeg alone."""
    command: list[object] = [media.ffmpeg_path(), "-v", "error", "-y"]
    command += ["-f", "lavfi", "-i", f"testsrc={picture}:rate=25:duration={seconds}"]
    command += ["-f", "lavfi", "-i", f"sine=sample_rate=8000:duration={seconds}"]
    subprocess.run([*map(str, command), *map(str, options), str(path)], check=True)
    return path


def refused(path: Path, *words: str, read: Callable[[Path], Any] = media.probe) -> None:
    with pytest.raises(TalkheadError) as error:
        read(path)
    text = str(error.value)
    assert "\n" not in text and text.startswith(f"{path}: ")
    for word in words:
        assert word in text


# ---------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("rate", [1, 3_999, 800_000])
def test_unusual_sample_rates_are_refused(tmp_path: Path, rate: int) -> None:
    """At one sample per second, 16 kB would be hours of audio."""
    path = wav(tmp_path / "line.wav", np.zeros(16_000, np.uint8), rate)
    refused(path, f"{rate:,} samples a second", "Export it", read=media.read_audio)


def test_too_many_channels_are_refused(tmp_path: Path) -> None:
    path = wav(tmp_path / "line.wav", np.zeros((80, MAX_CHANNELS + 1), np.int16), 8000)
    refused(path, "channels")


def test_an_hour_of_speech_is_read(tmp_path: Path) -> None:
    path = make(tmp_path / "line.flac", "-vn", seconds=3600)
    assert media.probe(path).duration_s == pytest.approx(3600, abs=0.1)
    assert sum(map(len, media.read_audio_chunks(path))) == 3600 * 16_000


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_too_long_a_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path / f"film.{suffix}", "-vf", "setpts=N*2000/TB", "-fps_mode", "vfr")
    refused(path, "lasts longer than 4 hours (", "Cut it into parts")


@pytest.mark.parametrize("read", [media.read_audio, lambda path: list(media.read_frames(path))])
def test_a_file_longer_than_it_states_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], Any]
) -> None:
    path = make(tmp_path / "film.mp4")
    media.probe(path)  # the stated length is read, and is within the limit
    monkeypatch.setattr(probing, "MAX_DURATION_S", 0.4)
    refused(path, "lasts longer than", read=read)


def test_too_large_pictures_are_refused(tmp_path: Path) -> None:
    wide = make(tmp_path / "wide.mp4", "-an", picture=f"size={MAX_SIDE_PX + 2}x16")
    refused(wide, f"{MAX_SIDE_PX + 2}x16 are too large", "Scale them down")
    stretched = make(tmp_path / "stretched.mkv", "-an", "-vf", "setsar=sar=200/1:max=999")
    refused(stretched, "12800x48 are too large")
    flat = make(tmp_path / "flat.mkv", "-an", "-vf", "setsar=sar=1/200:max=999")
    refused(flat, "0x48 pixels")
    gif = make(tmp_path / "large.gif", "-an")
    content = bytearray(gif.read_bytes())
    content[6:10] = (30_000).to_bytes(2, "little") * 2
    gif.write_bytes(content)
    refused(gif, "no size, or one of more than 35 million pixels")


def test_4k_and_8k_are_not_too_large() -> None:
    for width, height in ((3840, 2160), (4096, 2160), (7680, 4320), (8192, 4320)):
        assert width * height <= MAX_PIXELS and max(width, height) <= MAX_SIDE_PX


def test_a_frame_rate_that_cannot_be_kept(tmp_path: Path) -> None:
    path = make(tmp_path / "fast.mkv", "-an", "-vf", "setpts=N/1000/TB", "-r", "1000")
    refused(path, "1000 frames per second can't be kept", read=own_rate)
    assert own_rate(make(tmp_path / "film.mp4", "-r", "30000/1001")).denominator == 1001


# ---------------------------------------------------------------------------- endless files


@pytest.fixture(params=["fifo", "socket", "folder", "/dev/zero"])
def no_file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A path that is not a regular file."""
    path = tmp_path / "line.wav"
    if request.param == "folder":
        path.mkdir()
    elif request.param == "fifo":
        if not hasattr(os, "mkfifo"):
            pytest.skip("this system has no named pipes")
        os.mkfifo(path)
    elif request.param == "socket":
        if not hasattr(socket, "AF_UNIX"):
            pytest.skip("this system has no such sockets")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            yield path
        return
    else:
        path = Path(request.param)
        if not path.exists():
            pytest.skip("this system has no such device")
    yield path


@pytest.mark.parametrize("read", [*READERS, sha256_of])
def test_pipes_devices_and_folders_are_refused_at_once(
    no_file: Path, read: Callable[[Path], Any]
) -> None:
    refused(no_file, "folder" if no_file.is_dir() else "is a pipe or a device", read=read)


def test_impossible_file_names(tmp_path: Path) -> None:
    for name in ("a" * 5000, "a\0b"):
        with pytest.raises(TalkheadError):
            media.probe(tmp_path / name)


# ---------------------------------------------------------------------------- the program


def instead(path: Path, monkeypatch: pytest.MonkeyPatch, code: str, when: str) -> None:
    """Run Python code instead of ffmpeg if the expression `when` is true for its arguments."""
    path.write_text(
        f"#!{sys.executable}\nimport os, sys, time\n"
        f"if not ({when}): os.execv({media.ffmpeg_path()!r}, sys.argv)\n{code}\n"
    )
    path.chmod(0o755)
    monkeypatch.setenv("TALKHEAD_FFMPEG", str(path))


SLEEP = "time.sleep(600)"
WORKS = "'error' in sys.argv"
"""True for commands that read or write: unlike those that describe a file, they set a log level."""


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script")
@pytest.mark.parametrize("read", READERS[1:4])
def test_a_program_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], Any]
) -> None:
    path = make(tmp_path / "film.mp4")
    media.probe(path)
    instead(tmp_path / "slow", monkeypatch, SLEEP, WORKS)
    media.probe(path)
    monkeypatch.setattr(ffmpeg_program, "STALL_S", 0.5)
    refused(path, "it made no progress for 0.5 s and was ended", read=read)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script")
def test_a_program_with_endless_messages_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "film.mp4")
    instead(tmp_path / "slow", monkeypatch, SLEEP, "True")
    monkeypatch.setattr(ffmpeg_program, "STALL_S", 0.5)
    refused(path, "it took longer than 0.5 s and was ended")
    instead(tmp_path / "loud", monkeypatch, "while True: os.write(2, b'x' * 999 + b'\\n')", "True")
    monkeypatch.setattr(ffmpeg_program, "STALL_S", 600.0)
    monkeypatch.setattr(ffmpeg_program, "MAX_WORDS_BYTES", 1 << 16)
    assert report("-i", "x").endswith("it reported too much and was ended")


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script")
@pytest.mark.parametrize("output", ["", "total_size=10\\nout_time_us=5\\n"])
def test_a_program_with_endless_output_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    """The program has no output, or repeats the same output."""
    graph = media_input(make(tmp_path / "film.mp4")).output(str(tmp_path / "out.mp4"))
    repeat = f"while True: sys.stdout.write('{output}'); sys.stdout.flush(); time.sleep(0.1)"
    instead(tmp_path / "slow", monkeypatch, repeat, "True")
    monkeypatch.setattr(ffmpeg_program, "STALL_S", 0.5)
    with pytest.raises(MediaError, match=r"out\.mp4: .*made no progress"):
        run_to_end(graph, tmp_path / "out.mp4")


def test_endless_output_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg_program, "MAX_OUTPUT_BYTES", 1000)
    path = make(tmp_path / "film.mp4")
    status, _, _ = run(media_input(path)["V:0"].output("pipe:", f="rawvideo"))
    assert status != 0


def test_only_waiting_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow reader does not count as a stalled program."""
    monkeypatch.setattr(ffmpeg_program, "STALL_S", 0.04)
    killed: list[bool] = []
    program: Any = SimpleNamespace(kill=lambda: killed.append(True))
    watch = _Watch(program)
    with watch.waiting(0.001):
        watch.extend(600.0)
    time.sleep(0.2)
    assert not killed and not watch.has_ended
    with watch.waiting(0.001):
        while not killed:
            time.sleep(0.01)
    assert watch.has_ended


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can limit another process")
def test_memory_of_the_program_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "film.mp4", picture="size=1280x720", seconds=3)
    media.probe(path)
    monkeypatch.setattr(ffmpeg_program, "MAX_MEMORY_BYTES", 30 << 20)
    refused(path, "can't be read", read=lambda path: list(media.read_frames(path)))


def test_control_characters_of_a_file_are_not_repeated() -> None:
    words = summarize_errors(["[mov @ 0x1] bad \x1b[31mtag\x9b\r\x07"])
    assert words.isprintable() and "bad" in words and "tag" in words


# ---------------------------------------------------------------------------- damage


@pytest.mark.parametrize("suffix", ["wav", "mp4", "mkv", "mp3", "flac", "ts"])
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    chance = random.Random(suffix)
    options = [] if suffix in ("mp4", "mkv", "ts") else ["-vn"]
    good = make(tmp_path / f"good.{suffix}", *options).read_bytes()
    for number in range(5):
        content = bytearray(good)
        for _ in range(chance.choice([1, 3, 20])):
            place = chance.randrange(min(len(content), chance.choice([60, 400, 1 << 20])))
            content[place : place + 4] = chance.choice(
                [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", chance.randbytes(4), b""]
            )
        path = tmp_path / f"bad{number}.{suffix}"
        path.write_bytes(content)
        for read in READERS:
            try:
                read(path)
            except MediaError as error:
                assert "\n" not in str(error)
