"""The video service of Pipecat, in pipelines of the real package, with a fake person."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from live_fakes import (
    FAILURE,
    FAILURES,
    LIMIT_S,
    RATE,
    SIZE,
    AwaitingPictures,
    FakePictures,
    FakeVoice,
    load_example,
    make_local,
    make_session,
    refuse_speech,
    until,
)

pytest.importorskip("pipecat", reason="these tests run with `make test-agents`")

from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FunctionCallResultFrame,
    InterruptionFrame,
    MetricsFrame,
    OutputAudioRawFrame,
    OutputImageRawFrame,
    StartFrame,
    TextFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.metrics.metrics import TTFBMetricsData
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams
from pipecat.processors.filters.identity_filter import IdentityFilter
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.tests.utils import SleepFrame, run_test
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import BaseTransport, TransportParams

from talkhead.app.live.pipecat import TalkheadVideoService


def make_service(**given: Any) -> tuple[TalkheadVideoService, FakePictures]:
    session, pictures = make_local(**given)
    return TalkheadVideoService(session), pictures


def tts(
    n_frames: float, level: int = 1000, context: str | None = "a", channels: int = 1
) -> TTSAudioRawFrame:
    sound = np.full(round(n_frames * SIZE) * channels, level, "<i2").tobytes()
    return TTSAudioRawFrame(sound, RATE, channels, context)


Condition = Callable[[list[Frame]], Any]
"""Of the frames that were sent downstream."""


class Seen(FrameProcessor):
    """Passes everything on, and keeps what goes downstream."""

    def __init__(self) -> None:
        super().__init__(enable_direct_mode=True)
        self.frames: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is FrameDirection.DOWNSTREAM:
            self.frames.append(frame)
        await self.push_frame(frame, direction)


def steps(given: Sequence[Frame | Condition], seen: list[Frame]) -> Iterator[Frame]:
    """Frames for `run_test`, which sleeps until each condition among them is fulfilled."""
    for one in given:
        if isinstance(one, Frame):
            yield one
            continue
        limit_s = time.monotonic() + LIMIT_S
        while not one(seen):
            assert time.monotonic() < limit_s, f"not fulfilled after {kinds(seen)}"
            yield SleepFrame(0.01)


def run(
    service: FrameProcessor | None, given: Sequence[Frame | Condition], **more: Any
) -> tuple[list[Frame], list[Frame]]:
    """Send frames through a service, and wait for conditions on the way; returns the frames that it
    sent downstream and upstream.
    """

    async def test() -> Any:
        seen = Seen()
        frames: Any = steps(given, seen.frames)
        pipeline = Pipeline([service or make_service()[0], seen])
        return await run_test(pipeline, frames_to_send=frames, **more)

    down, up = asyncio.run(test())
    return list(down), list(up)


def has(frame: Frame) -> Condition:
    """A condition: the frame was sent downstream."""
    return lambda seen: frame in seen


def pictures_of(frames: Sequence[Frame]) -> list[OutputImageRawFrame]:
    return [one for one in frames if isinstance(one, OutputImageRawFrame)]


def sound_of(frames: Sequence[Frame]) -> Any:
    parts = [f.audio for f in frames if isinstance(f, OutputAudioRawFrame)]
    return np.frombuffer(b"".join(parts), "<i2")


def kinds(frames: Sequence[Frame]) -> list[str]:
    """The kinds of frames, without pictures, and with sound in succession as one."""
    names: list[str] = []
    for frame in frames:
        name = type(frame).__name__
        if isinstance(frame, OutputImageRawFrame):
            continue
        if name != "TTSAudioRawFrame" or not names or names[-1] != name:
            names.append(name)
    return names


@pytest.mark.parametrize("where", ["local", "worker"])
def test_a_line_comes_back_with_pictures_in_its_order(where: str) -> None:
    text, stop = TextFrame("half"), TTSStoppedFrame("a")
    sent = [TTSStartedFrame("a"), tts(5, 8000), text, tts(5.5, 16000), stop, has(stop)]
    service = TalkheadVideoService(make_session(where))
    down, up = run(service, sent, ignore_start=False)
    assert isinstance(down[0], StartFrame)
    assert kinds(down[1:]) == [
        "TTSStartedFrame",
        "TTSAudioRawFrame",
        "TextFrame",
        "TTSAudioRawFrame",
        "TTSStoppedFrame",
    ]
    sound = sound_of(down)
    expected = np.concatenate([np.full(5 * SIZE, 8000), np.full(round(5.5 * SIZE), 16000)])
    assert len(sound) == 11 * SIZE  # whole frames
    np.testing.assert_allclose(sound[: len(expected)], expected, atol=1)
    assert not sound[len(expected) :].any()
    assert {f.context_id for f in down if isinstance(f, TTSAudioRawFrame)} == {"a"}
    assert down.index(stop) > down.index(text)
    assert not any(isinstance(f, ErrorFrame) for f in up)


def test_the_sound_of_a_picture_follows_it() -> None:
    levels = [2000 * (i + 1) for i in range(12)]
    frames = [tts(1, level) for level in levels]
    stop = TTSStoppedFrame("a")

    def is_at_rest(seen: list[Frame]) -> bool:
        shown = pictures_of(seen)
        return stop in seen and len(shown) > 15 and shown[-1].image[0] == 0

    down, _ = run(None, [*frames, stop, is_at_rest])
    pictures = pictures_of(down)
    assert all(f.size == (4, 2) and f.format == "RGB" for f in pictures)
    assert all(f.sync_with_audio and len(f.image) == 24 for f in pictures)
    pairs = [
        (picture.image[0], sound.audio)
        for picture, sound in pairwise(down)
        if isinstance(picture, OutputImageRawFrame) and isinstance(sound, OutputAudioRawFrame)
    ]
    assert len(pairs) == 12
    for value, audio in pairs[3:]:  # the first are blended from rest
        assert value == int(10 * int(np.frombuffer(audio, "<i2").max()) / 32768)
    assert pictures[-1].image[0] == 0  # the picture goes on after the line


def test_two_lines_and_an_empty_one_end_in_order() -> None:
    stops = [TTSStoppedFrame(name) for name in "abc"]
    frames = [tts(3, context="a"), stops[0], stops[1], tts(3, 500, "c"), stops[2], has(stops[2])]
    down, _ = run(None, frames)
    assert [f for f in down if isinstance(f, TTSStoppedFrame)] == stops
    assert kinds(down) == [
        "TTSAudioRawFrame",
        "TTSStoppedFrame",
        "TTSStoppedFrame",
        "TTSAudioRawFrame",
        "TTSStoppedFrame",
    ]
    sounds = [f for f in down if isinstance(f, TTSAudioRawFrame)]
    assert [f.context_id for f in sounds] == ["a"] * 3 + ["c"] * 3


def test_the_end_waits_until_everything_was_said() -> None:
    down, _ = run(None, [tts(20), TextFrame("said")])  # without TTSStoppedFrame
    assert len(sound_of(down)) == 20 * SIZE
    assert kinds(down) == ["TTSAudioRawFrame", "TextFrame"]


def test_pictures_end_with_the_pipeline() -> None:
    service, pictures = make_service()
    down, _ = run(service, [pictures_of, EndFrame()], send_end_frame=False)
    assert isinstance(down[-1], EndFrame)
    assert pictures.closed


def test_interruption_drops_what_waits() -> None:
    result = FunctionCallResultFrame("f", "1", {}, "done")
    interruption, stop = InterruptionFrame(), TTSStoppedFrame("b")

    def is_at_rest(seen: list[Frame]) -> bool:
        return stop in seen and len(pictures_of(seen[seen.index(interruption) :])) > 10

    frames = [
        tts(200, 8000),
        TextFrame("never heard"),
        result,
        TTSStoppedFrame("a"),
        lambda seen: len(sound_of(seen)),
        interruption,
        tts(4, 500, "b"),
        stop,
        is_at_rest,
    ]
    down, _ = run(None, frames)
    at = down.index(interruption)
    assert 0 < len(sound_of(down[:at])) < 200 * SIZE
    assert kinds(down[at:]) == [
        "InterruptionFrame",
        "FunctionCallResultFrame",
        "TTSAudioRawFrame",
        "TTSStoppedFrame",
    ]
    np.testing.assert_allclose(sound_of(down[at:]), 500, atol=1)
    assert len(sound_of(down[at:])) == 4 * SIZE
    after = [f.image[0] for f in down[at:] if isinstance(f, OutputImageRawFrame)]
    assert max(after[4:]) == 0  # the mouth has closed


def test_interruption_while_the_end_is_waited_for() -> None:
    async def test() -> None:
        service, pictures = make_service()

        async def interrupt() -> None:
            await until(lambda: sum(code[0] > 0 for code in pictures.codes) >= 10)
            await service.queue_frame(InterruptionFrame())

        interruption = asyncio.create_task(interrupt())
        await asyncio.wait_for(run_test(service, frames_to_send=[tts(1000)]), LIMIT_S)
        await interruption

    asyncio.run(test())


@pytest.mark.parametrize(FAILURE, FAILURES)
def test_the_voice_goes_on_without_the_picture(
    where: str, identity: str, channels: int, message: str
) -> None:
    ramp = np.repeat(np.arange(1, 30 * SIZE + 1) % 20_000, channels).astype("<i2")
    first, second = np.split(ramp, [17 * SIZE * channels])
    frames = [TTSAudioRawFrame(part.tobytes(), RATE, channels, "a") for part in (first, second)]
    ends = [TTSStoppedFrame(name) for name in "ab"]
    sent = [*frames, ends[0], has(ends[0]), tts(2, 7), ends[1], has(ends[1])]
    service = TalkheadVideoService(make_session(where, identity))
    down, up = run(service, sent)
    heard = []
    for frame in down:
        if isinstance(frame, OutputAudioRawFrame):
            heard.append(np.frombuffer(frame.audio, "<i2")[:: frame.num_channels])
    expected = np.concatenate([ramp[::channels], np.full(2 * SIZE, 7)])
    np.testing.assert_allclose(np.concatenate(heard), expected, atol=1)  # once, and whole
    assert kinds(down) == ["TTSAudioRawFrame", "TTSStoppedFrame"] * 2
    errors = [f for f in up if isinstance(f, ErrorFrame)]
    assert len(errors) == 1 and message in errors[0].error


def test_the_audio_is_passed_through_if_the_session_cannot_begin() -> None:
    service, _ = make_service(speech=refuse_speech)
    down, up = run(service, [tts(3), TTSStoppedFrame("a"), tts(2), TTSStoppedFrame("b")])
    assert len(sound_of(down)) == 5 * SIZE
    assert kinds(down) == ["TTSAudioRawFrame", "TTSStoppedFrame"] * 2
    assert len([f for f in up if isinstance(f, ErrorFrame)]) == 1


def test_the_time_to_the_first_frame_is_measured() -> None:
    service, _ = make_service()
    params = PipelineParams(enable_metrics=True)
    stop = TTSStoppedFrame("a")
    frames = [tts(5), stop, has(stop)]
    down, up = run(service, frames, pipeline_params=params)
    data = [one for f in down + up if isinstance(f, MetricsFrame) for one in f.data]
    times = [one for one in data if isinstance(one, TTFBMetricsData) and one.value > 0]
    assert [one.processor for one in times] == [service.name]


def test_the_event_loop_runs_while_a_picture_is_made() -> None:
    pictures = AwaitingPictures()

    async def test() -> None:
        turning = asyncio.create_task(pictures.count_turns())
        service, _ = make_service(pictures=pictures)
        await run_test(service, frames_to_send=[tts(20)])
        turning.cancel()

    asyncio.run(test())
    pictures.check()


class Player(BaseOutputTransport):
    """An output that plays sound in its time, and records what it plays."""

    def __init__(self) -> None:
        params = TransportParams(
            audio_out_enabled=True,
            audio_out_sample_rate=RATE,
            audio_out_end_silence_secs=0,
            video_out_enabled=True,
            video_out_width=4,
            video_out_height=2,
            video_out_framerate=25,
        )
        super().__init__(params)
        self.played: list[int] = []
        self.shown: list[int] = []

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        sound = np.frombuffer(frame.audio, "<i2")
        self.played.append(int(sound.max()))
        await asyncio.sleep(len(sound) / RATE)
        return True

    async def write_video_frame(self, frame: OutputImageRawFrame) -> bool:
        self.shown.append(frame.image[0])
        return True


def test_an_output_plays_and_shows_a_line() -> None:
    player = Player()
    service, _ = make_service()

    def is_at_rest(seen: list[Frame]) -> bool:
        has_stopped = any(isinstance(one, BotStoppedSpeakingFrame) for one in seen)
        return has_stopped and player.shown[-1] == 0

    frames = [lambda seen: player.shown, tts(15, 20_000), TTSStoppedFrame("a"), is_at_rest]
    down, _ = run(Pipeline([service, player]), frames)
    assert player.played == [19_999] * 15  # of 20,000: 32768 levels become 32767
    speaking = int(10 * 20_000 / 32768)
    assert player.shown[0] == 0 and player.shown[-1] == 0
    assert player.shown.count(speaking) >= 8
    names = [type(f) for f in down]
    assert names.count(BotStartedSpeakingFrame) == names.count(BotStoppedSpeakingFrame) == 1


class Connection(BaseTransport):
    """A transport whose client joins when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.player = Player()
        for name in ("on_client_connected", "on_client_disconnected"):
            self._register_event_handler(name)

    def input(self) -> FrameProcessor:
        return IdentityFilter()

    def output(self) -> FrameProcessor:
        return self.player

    async def tell(self, event: str) -> None:
        await self._call_event_handler(event, None)


def test_the_example_greets_with_its_mouth(monkeypatch: pytest.MonkeyPatch) -> None:
    example = load_example("pipecat_agent")
    voice = FakeVoice()
    monkeypatch.setattr(example, "synthesize", voice)
    connection = Connection()
    session, pictures = make_local()

    async def test() -> None:
        running = asyncio.create_task(example.run_agent(connection, session, example.Voice()))
        await until(lambda: connection.player.shown)
        await connection.tell("on_client_connected")
        await until(lambda: len(connection.player.played) >= 20)
        await connection.tell("on_client_disconnected")
        await running

    asyncio.run(asyncio.wait_for(test(), LIMIT_S))
    assert voice.said == [example.GREETING]
    assert connection.player.played[:20] == [19_999] * 20
    assert int(10 * 20_000 / 32768) in connection.player.shown
    assert pictures.closed
