"""Encoding of a session's pictures: codecs, key frames, repeated pictures, and failures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from vp8 import decode, psnr

from talkhead.app.live import video_encoder
from talkhead.app.live.frames import LiveFrame
from talkhead.app.live.video_encoder import VideoEncoder
from talkhead.errors import MediaError
from talkhead.images import decode_image
from talkhead.types import UInt8

SIZE = (64, 48)


def image(value: int) -> UInt8:
    return np.full((48, 64, 3), value, np.uint8)


def frame(index: int, picture: UInt8, epoch: int = 0) -> LiveFrame:
    sound = np.zeros(640, np.int16)
    return LiveFrame(picture, sound, 16_000, index, epoch, 0, False, False)


@pytest.fixture
def vp8() -> Iterator[VideoEncoder]:
    made = VideoEncoder(SIZE, "vp8")
    assert made.codec == "vp8"
    yield made
    made.close()


def test_repeated_pictures_are_not_encoded(vp8: VideoEncoder, tmp_path: Path) -> None:
    first, second = image(50), image(180)
    found = [vp8.encode(frame(i, one)) for i, one in enumerate((first, first, second, second))]
    assert [one.is_repeated for one in found] == [False, True, False, True]
    assert [one.is_key for one in found] == [True, False, False, False]
    decoded = decode([one.content for one in found if one.content], SIZE, tmp_path)
    assert [psnr(a, b) > 40 for a, b in zip(decoded, (first, second), strict=True)] == [True, True]


def test_key_frames_follow_interruptions_and_requests(vp8: VideoEncoder) -> None:
    same = image(50)
    epochs = (0, 0, 1, 1, 1, 1)
    found = []
    for i, epoch in enumerate(epochs):
        if i == 4:
            vp8.request_key_frame()
        found.append(vp8.encode(frame(i, same, epoch)))
    assert [one.is_key for one in found] == [True, False, True, False, True, False]


def test_jpeg_follows_the_failure_of_vp8(vp8: VideoEncoder) -> None:
    vp8.encode(frame(0, image(50)))
    assert vp8._vp8 is not None
    vp8._vp8._process.popen.kill()
    found = vp8.encode(frame(1, image(180)))
    assert (found.codec, found.is_key) == ("jpeg", True)
    assert np.abs(decode_image(found.content, "frame").astype(int) - 180).max() < 4
    assert vp8.codec == "jpeg" and "failed" in str(vp8.problem)
    assert vp8.encode(frame(2, image(70))).codec == "jpeg"


def test_a_receiver_can_ask_for_jpeg(vp8: VideoEncoder) -> None:
    same = image(50)
    vp8.encode(frame(0, same))
    vp8.use_jpeg()
    found = vp8.encode(frame(1, same))
    assert found.codec == "jpeg" and found.content
    assert vp8.problem is None
    assert vp8.encode(frame(2, same)).is_repeated


def test_jpeg_is_used_if_the_program_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(size: tuple[int, int]) -> None:
        raise MediaError("no program")

    monkeypatch.setattr(video_encoder, "LiveEncoder", fail)
    encoder = VideoEncoder(SIZE, "vp8")
    assert (encoder.codec, encoder.problem) == ("jpeg", "no program")
    assert encoder.encode(frame(0, image(9))).codec == "jpeg"
