"""LiveSession: the asynchronous interface of the engine, in real time but without real speech."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from live_fakes import RATE, SIZE, FakePictures, FakeSpeech, make_engine

from talkhead.app.live.engine import LiveFrame
from talkhead.app.live.session import LiveSession, decode_pcm, mix_channels
from talkhead.errors import TalkheadError
from talkhead.types import Float32, UInt8


def make_session(**given: Any) -> tuple[LiveSession, Any]:
    engine, pictures = make_engine(**given)
    return LiveSession(engine=engine), pictures


def sound(n_frames: int, level: int = 1000) -> bytes:
    return np.full(n_frames * SIZE, level, "<i2").tobytes()


async def take(session: LiveSession, n_speech: int) -> list[LiveFrame]:
    """Run a session until a number of frames of speech have arrived."""
    frames = []
    async for frame in session.run():
        frames.append(frame)
        if sum(one.is_speech for one in frames) >= n_speech:
            return frames
    return frames


def test_a_line_comes_back_with_its_sound() -> None:
    async def speak() -> list[LiveFrame]:
        session, pictures = make_session()
        await session.push_audio(sound(5), RATE)
        await session.push_audio(np.full(5 * SIZE, 0.5, np.float32), RATE, last_chunk=True)
        frames = await take(session, 10)
        await session.shutdown()
        assert pictures.closed
        return frames

    spoken = [frame for frame in asyncio.run(speak()) if frame.is_speech]
    levels = [int(frame.audio.max()) for frame in spoken]
    assert levels == [1000] * 5 + [16384] * 5
    assert [frame.end_of_speech for frame in spoken] == [False] * 9 + [True]
    assert [frame.sound_index for frame in spoken] == list(range(10))


def test_interruption_and_a_new_line() -> None:
    async def speak() -> tuple[list[LiveFrame], int]:
        session, _ = make_session()
        await session.push_audio(sound(500), RATE)
        await take(session, 3)
        epoch = session.interrupt()
        await session.push_audio(sound(2, 500), RATE)
        await session.flush()
        frames = await take(session, 2)
        await session.shutdown()
        return frames, epoch

    frames, epoch = asyncio.run(speak())
    assert epoch == 1
    assert {frame.epoch for frame in frames} == {1}
    assert {int(frame.audio.max()) for frame in frames if frame.is_speech} == {500}


def test_shutdown_ends_the_run_and_refuses_sound() -> None:
    async def speak() -> int:
        session, _ = make_session()

        async def stop() -> None:
            await asyncio.sleep(0.2)
            await session.shutdown()
            await session.shutdown()

        stopping = asyncio.create_task(stop())
        n = sum([1 async for _ in session.run()])
        await stopping
        with pytest.raises(TalkheadError, match="closed"):
            await session.push_audio(sound(1), RATE)
        return n

    assert asyncio.run(speak()) >= 2


def test_lines_begin_and_pictures_are_made_in_another_thread() -> None:
    threads = set()

    class Pictures(FakePictures):
        def next(self, code: Float32) -> UInt8:
            threads.add(threading.current_thread())
            return super().next(code)

    def begin(pace: str) -> FakeSpeech:
        threads.add(threading.current_thread())
        return FakeSpeech()

    async def speak() -> None:
        session, _ = make_session(pictures=Pictures(), speech=begin)
        await session.push_audio(sound(5), RATE, last_chunk=True)
        await take(session, 5)
        await session.shutdown()

    asyncio.run(speak())
    assert len(threads) == 1 and threading.main_thread() not in threads


@pytest.mark.parametrize(
    ("pcm", "message"),
    [
        (b"abc", "3 bytes"),
        (np.zeros((4, 2), np.int16), r"shape \(4, 2\)"),
        (np.zeros(4, np.int64), "int64"),
    ],
)
def test_sound_in_another_form_is_refused(pcm: Any, message: str) -> None:
    with pytest.raises(TalkheadError, match=message):
        decode_pcm(pcm)


def test_bytes_and_arrays_are_the_same_sound() -> None:
    words = np.array([-32768, 0, 16384], np.int16)
    expected = [-1.0, 0.0, 0.5]
    for given in (words, words.tobytes(), np.array(expected, np.float64)):
        np.testing.assert_array_equal(decode_pcm(given), np.array(expected, np.float32))


def test_channels_are_mixed() -> None:
    words = np.array([[16384, 0], [-32768, -32768]], np.int16)
    np.testing.assert_array_equal(mix_channels(words.tobytes(), 2), np.float32([0.25, -1.0]))
    with pytest.raises(TalkheadError, match="3 samples of sound in 2 channels"):
        mix_channels(bytes(6), 2)
