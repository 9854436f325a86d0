"""Live encoding: packets come one by one, decode to the pictures, and are key frames on request."""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from marks import needs_posix
from vp8 import decode, psnr

from talkhead.errors import MediaError
from talkhead.media import live_encoder, set_ffmpeg
from talkhead.media.live_encoder import LiveEncoder
from talkhead.types import UInt8

SIZE = (96, 64)


def picture(i: int, size: tuple[int, int] = SIZE) -> UInt8:
    """A smooth picture that moves."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    planes = [127 + 100 * np.sin((x + y * k + 2 * i) / 15) for k in (0.2, 0.5, 1.0)]
    return np.stack(planes, 2).astype(np.uint8)


@pytest.fixture
def encoder() -> Iterator[LiveEncoder]:
    made = LiveEncoder(SIZE)
    yield made
    made.close()


def test_each_packet_comes_before_the_next_picture_is_given(
    encoder: LiveEncoder, tmp_path: Path
) -> None:
    found = [encoder.encode(picture(i), as_key=i == 7) for i in range(12)]
    assert [i for i, (_, is_key) in enumerate(found) if is_key] == [0, 7]
    decoded = decode([packet for packet, _ in found], SIZE, tmp_path)
    assert len(decoded) == 12
    for i, one in enumerate(decoded):
        assert psnr(one, picture(i)) > max(32.0, psnr(one, picture(i + 1)) + 3.0)


def test_a_key_frame_can_be_decoded_alone(encoder: LiveEncoder, tmp_path: Path) -> None:
    found = [encoder.encode(picture(i), as_key=i == 3)[0] for i in range(6)]
    decoded = decode(found[3:], SIZE, tmp_path)
    assert [psnr(one, picture(3 + i)) > 32.0 for i, one in enumerate(decoded)] == [True] * 3


def test_a_request_for_the_first_key_frame_changes_no_other(encoder: LiveEncoder) -> None:
    found = [encoder.encode(picture(i), as_key=i in (0, 3))[1] for i in range(6)]
    assert found == [True, False, False, True, False, False]


@pytest.mark.parametrize("size", [(33, 17), (2, 2), (4, 3)])
def test_any_size(size: tuple[int, int], tmp_path: Path) -> None:
    gray = np.full((size[1], size[0], 3), 90, np.uint8)
    encoder = LiveEncoder(size)
    packet, _ = encoder.encode(gray)
    encoder.close()
    decoded = decode([packet], size, tmp_path)[0]
    assert decoded.shape == (size[1] + size[1] % 2, size[0] + size[0] % 2, 3)
    assert np.abs(decoded.astype(int) - 90).max() < 6


def test_it_uses_fewer_bytes_than_jpeg_at_a_similar_quality(tmp_path: Path) -> None:
    size = (320, 240)
    encoder = LiveEncoder(size)
    pictures = [picture(i, size) for i in range(25)]
    packets = [encoder.encode(one)[0] for one in pictures]
    encoder.close()
    jpegs = [cv2.imencode(".jpg", one, [cv2.IMWRITE_JPEG_QUALITY, 85])[1] for one in pictures]
    assert sum(map(len, packets)) < 0.7 * sum(map(len, jpegs))
    assert psnr(decode(packets, size, tmp_path), np.stack(pictures)) > 35.0


def test_pictures_of_another_size_are_refused(encoder: LiveEncoder) -> None:
    with pytest.raises(ValueError, match="the size is"):
        encoder.encode(picture(0, (64, 96)))


def test_the_program_ends_with_the_encoder_and_its_end_is_reported(encoder: LiveEncoder) -> None:
    encoder.encode(picture(0))
    encoder._process.popen.kill()
    with pytest.raises(MediaError, match="encoder of live pictures failed"):
        encoder.encode(picture(1))
    encoder.close()
    assert encoder._process.popen.returncode is not None


@needs_posix
def test_closing_ends_an_encode_that_waits(encoder: LiveEncoder) -> None:
    encoder.encode(picture(0))
    os.kill(encoder._process.popen.pid, signal.SIGSTOP)
    failed = threading.Event()

    def encode() -> None:
        with pytest.raises(MediaError):
            encoder.encode(picture(1))
        failed.set()

    thread = threading.Thread(target=encode)
    thread.start()
    time.sleep(0.1)
    encoder.close()
    assert failed.wait(30.0)
    thread.join()


@needs_posix
def test_a_program_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_encoder, "STALL_S", 0.5)
    encoder = LiveEncoder(SIZE)
    os.kill(encoder._process.popen.pid, signal.SIGSTOP)
    with pytest.raises(MediaError, match=r"made no progress for 0\.5 s"):
        encoder.encode(picture(0))
    encoder.close()


@needs_posix
def test_a_program_without_the_codec(tmp_path: Path) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho \"Unknown encoder 'libvpx'\" >&2\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    set_ffmpeg(program)
    try:
        encoder = LiveEncoder(SIZE)
        with pytest.raises(MediaError, match="Unknown encoder 'libvpx'"):
            encoder.encode(picture(0))
        encoder.close()
    finally:
        set_ffmpeg(None)
