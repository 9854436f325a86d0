"""LiveSession: the asynchronous interface of the engine, in real time but without real speech.

The first tests are a contract: they run with an engine in this process and with one in a worker.
"""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from live_fakes import CONSENT, RATE, SIZE, FakePictures, FakeSpeech, make_engine, make_session

from talkhead.app.live import frames as frames_module
from talkhead.app.live.frames import LiveFrame, LiveStatistics
from talkhead.app.live.options import LiveOptions
from talkhead.app.live.session import LiveSession, check_opaque, decode_pcm, mix_channels
from talkhead.app.output.verification import verify
from talkhead.errors import MediaError, TalkheadError
from talkhead.types import Float32, UInt8

both = pytest.mark.parametrize("where", ["local", "worker"])


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


# ------------------------------------------------------------------------------------ contract


@both
def test_a_line_comes_back_with_its_sound(where: str) -> None:
    async def speak() -> list[LiveFrame]:
        session = make_session(where)
        assert (session.size, session.sample_rate) == ((4, 2), RATE)
        await session.push_audio(sound(5), RATE)
        await session.push_audio(np.full(5 * SIZE, 0.5, np.float32), RATE, last_chunk=True)
        frames = await take(session, 10)
        await session.shutdown()
        return frames

    frames = asyncio.run(speak())
    spoken = [frame for frame in frames if frame.is_speech]
    levels = [int(frame.audio.max()) for frame in spoken]
    assert levels == [1000] * 5 + [16384] * 5
    assert [frame.end_of_speech for frame in spoken] == [False] * 9 + [True]
    assert [frame.sound_index for frame in spoken] == list(range(10))
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert {(frame.image.shape, frame.image.dtype.name) for frame in frames} == {
        ((2, 4, 3), "uint8")
    }
    assert {(len(frame.audio), frame.audio.dtype.name) for frame in frames} == {(SIZE, "int16")}
    assert [int(frame.image.max()) for frame in spoken[-2:]] == [5, 5]  # 10 times the level


def test_options_are_given_as_one_object_or_as_keywords(monkeypatch: pytest.MonkeyPatch) -> None:
    def engine(identity: str, options: LiveOptions, home: None) -> Any:
        return make_engine(**asdict(options))[0]

    monkeypatch.setattr("talkhead.app.live.session._local_engine", engine)
    given = LiveOptions(mode="head", intensity=0.5)
    assert LiveSession("anna", options=given).options == given
    session = LiveSession("anna", options=given, pace="arrival", intensity=1.0)
    assert session.options == LiveOptions(mode="head", pace="arrival")
    assert (LiveSession("anna", pace="arrival").pace, session.pace) == ("arrival", "arrival")
    with pytest.raises(
        TypeError, match=r"LiveSession\(\) got an unexpected keyword argument 'pase'"
    ):
        LiveSession("anna", pase="arrival")  # type: ignore[call-arg]
    with pytest.raises(TalkheadError, match="an intensity of 9"):
        LiveSession("anna", intensity=9.0)


@both
def test_voice_agents_need_opaque_pictures(where: str) -> None:
    opaque = make_session(where, mode="head", background="red")
    clear = make_session(where, mode="head", background="alpha")
    check_opaque(opaque)
    with pytest.raises(TalkheadError, match="chroma-green"):
        check_opaque(clear)
    for session in (opaque, clear):
        asyncio.run(session.shutdown())


@both
def test_the_manifest_of_either_engine(where: str, tmp_path: Path) -> None:
    session = make_session(where, mode="head", badge=False)
    try:
        path = tmp_path / "live.json"
        path.write_text(json.dumps(session.manifest("s1")))
        with pytest.raises(TalkheadError, match="certificate and key belong together"):
            session.manifest(certificate=tmp_path / "chain.pem")
    finally:
        asyncio.run(session.shutdown())
    claims = verify(path).claims
    assert (claims["identity"], claims["consent"]) == ("anna", CONSENT)
    assert (claims["mode"], claims["badge"], claims["session"]) == ("head", False, "s1")


@both
def test_interruption_and_a_new_line(where: str) -> None:
    async def speak() -> tuple[list[LiveFrame], int]:
        session = make_session(where, lead_s=float("inf"))  # frames are made as fast as possible
        await session.push_audio(sound(500), RATE)
        await take(session, 3)
        epoch = session.interrupt()
        await session.push_audio(sound(2, 500), RATE)
        await session.flush()
        frames = await take(session, 2)
        assert session.statistics.n_interruptions == 1
        await session.shutdown()
        return frames, epoch

    frames, epoch = asyncio.run(speak())
    assert epoch == 1
    assert {frame.epoch for frame in frames} == {1}
    assert {int(frame.audio.max()) for frame in frames if frame.is_speech} == {500}


@both
def test_shutdown_ends_the_run_and_refuses_sound(where: str) -> None:
    async def speak() -> int:
        session, running, n = make_session(where), asyncio.Event(), 0

        async def stop() -> None:
            await running.wait()
            await session.shutdown()
            await session.shutdown()

        stopping = asyncio.create_task(stop())
        async for _ in session.run():
            n += 1
            if n == 2:
                running.set()
        await stopping
        with pytest.raises(TalkheadError, match="closed"):
            await session.push_audio(sound(1), RATE)
        return n

    assert asyncio.run(speak()) >= 2


@both
def test_statistics_count_frames_and_what_waits(where: str) -> None:
    async def speak() -> list[LiveStatistics]:
        session = make_session(where)
        found = [session.statistics]
        await session.push_audio(sound(50), RATE)
        found.append(session.statistics)
        await take(session, 10)
        found.append(session.statistics)
        session.interrupt()
        found.append(session.statistics)
        await session.shutdown()
        return found

    before, pushed, spoken, interrupted = asyncio.run(speak())
    assert before == LiveStatistics()
    assert pushed.waiting_s == pytest.approx(50 / 25)
    assert spoken.waiting_s == pytest.approx(40 / 25)
    assert spoken.n_speech == 10 and spoken.n_frames >= 10 and spoken.first_frame_ms is not None
    assert (interrupted.waiting_s, interrupted.n_interruptions) == (0.0, 1)


@both
def test_sound_that_cannot_be_spoken_is_refused(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames_module, "MAX_WAITING_S", 1.0)

    async def speak() -> None:
        session = make_session(where)
        with pytest.raises(TalkheadError, match="100 Hz"):
            await session.push_audio(sound(1), 100)
        with pytest.raises(TalkheadError, match="not numbers"):
            await session.push_audio(np.full(SIZE, np.nan), RATE)
        with pytest.raises(TalkheadError, match="in real time"):
            await session.push_audio(sound(30), RATE)
        session.interrupt()
        await session.push_audio(b"", RATE)
        await session.push_audio(sound(3), RATE, last_chunk=True)
        assert len(await take(session, 3)) >= 3  # the session goes on
        await session.shutdown()

    asyncio.run(speak())


@both
@pytest.mark.parametrize(
    ("identity", "error", "message"),
    [("broken", MediaError, "the footage is gone"), ("faulty", Exception, "a fault")],
)
def test_an_engine_that_fails_ends_the_run_with_its_error(
    where: str, identity: str, error: type[Exception], message: str
) -> None:
    async def speak() -> None:
        session = make_session(where, identity)
        await session.push_audio(sound(10), RATE)
        for _ in range(2):
            with pytest.raises(error, match=message):
                await take(session, 10)
        session.interrupt()
        await session.flush()
        await session.shutdown()

    asyncio.run(speak())


@both
def test_the_pace_can_be_changed(where: str) -> None:
    async def speak() -> None:
        session = make_session(where)
        session.pace = "arrival"
        assert session.pace == "arrival"
        await session.push_audio(sound(20), RATE, last_chunk=True)
        frames = [frame for frame in await take(session, 20) if frame.is_speech]
        assert session.statistics.behind_ms >= 0.0
        assert [frame.end_of_speech for frame in frames] == [False] * 19 + [True]
        await session.shutdown()

    asyncio.run(speak())


@both
def test_a_picture_that_is_repeated_is_the_same_object(where: str) -> None:
    async def speak() -> tuple[list[LiveFrame], int]:
        session = make_session(where, "slow")
        await session.push_audio(sound(20), RATE, last_chunk=True)
        frames = await take(session, 20)
        n_repeated = session.statistics.n_repeated
        await session.shutdown()
        return frames, n_repeated

    frames, n_repeated = asyncio.run(speak())
    same = [one.image is other.image for one, other in pairwise(frames)]
    assert sum(same) == n_repeated > 0


# --------------------------------------------------------------------------------- this process


def test_shutdown_frees_the_pictures() -> None:
    engine, pictures = make_engine()
    asyncio.run(LiveSession(engine=engine).shutdown())
    assert pictures.closed


def test_lines_begin_and_pictures_are_made_in_another_thread() -> None:
    threads, counts = set(), set()
    n_own = torch.get_num_threads(), numba.get_num_threads()

    class Pictures(FakePictures):
        def next(self, code: Float32) -> UInt8:
            threads.add(threading.current_thread())
            counts.add((torch.get_num_threads(), numba.get_num_threads()))
            return super().next(code)

    def begin(pace: str) -> FakeSpeech:
        threads.add(threading.current_thread())
        return FakeSpeech()

    async def speak() -> None:
        session = LiveSession(engine=make_engine(pictures=Pictures(), speech=begin)[0])
        await session.push_audio(sound(5), RATE, last_chunk=True)
        await take(session, 5)
        await session.shutdown()

    asyncio.run(speak())
    assert len(threads) == 1 and threading.main_thread() not in threads
    assert counts == {(1, 1)} and n_own == (torch.get_num_threads(), numba.get_num_threads())
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == n_own[0]


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
