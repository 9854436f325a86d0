"""The avatar of LiveKit Agents, with the real package, a fake room and a fake person."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from types import SimpleNamespace
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
    FakeVoice,
    load_example,
    make_local,
    make_session,
    refuse_speech,
    until,
)

from talkhead.app.live.session import LiveSession
from talkhead.errors import TalkheadError

pytest.importorskip("livekit.agents", reason="these tests run with `make test-agents`")

from livekit import rtc
from livekit.agents import Agent, AgentSession
from livekit.agents.voice.avatar import (
    AudioSegmentEnd,
    AvatarOptions,
    AvatarRunner,
    QueueAudioOutput,
)

from talkhead.app.live.livekit import TalkheadAvatar, TalkheadVideo


class FakeRoom(rtc.EventEmitter[str]):
    """A room that is connected and takes tracks."""

    name = "fake"

    def __init__(self) -> None:
        super().__init__()
        self.tracks: list[Any] = []
        self.remote_participants: dict[str, Any] = {}
        self.local_participant = SimpleNamespace(
            identity="agent",
            kind=rtc.ParticipantKind.PARTICIPANT_KIND_AGENT,
            track_publications={},
            publish_track=self.publish_track,
        )

    def isconnected(self) -> bool:
        return True

    async def publish_track(self, track: Any, options: Any) -> Any:
        self.tracks.append(track)
        publication = SimpleNamespace(kind=track.kind, wait_for_subscription=self._subscribed)
        self.local_participant.track_publications[track.name] = publication
        self.emit("local_track_published", publication, track)
        return publication

    async def _subscribed(self) -> None:
        pass


def sound(n_frames: float, level: int = 1000, channels: int = 1) -> rtc.AudioFrame:
    n = round(n_frames * SIZE)
    data = np.full(n * channels, level, np.int16).tobytes()
    return rtc.AudioFrame(data, RATE, channels, n)


def level_of(frame: rtc.AudioFrame) -> int:
    return int(np.frombuffer(frame.data, np.int16).max())


def run(test: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(test(), LIMIT_S))


async def take(video: TalkheadVideo, is_last: Callable[[list[Any]], bool]) -> list[Any]:
    """Items of a generator up to the last one needed."""
    items: list[Any] = []
    async for item in video:
        items.append(item)
        if is_last(items):
            break
    return items


def ends(items: list[Any]) -> int:
    return sum(isinstance(one, AudioSegmentEnd) for one in items)


@pytest.mark.parametrize("where", ["local", "worker"])
def test_a_segment_comes_back_with_pictures_and_one_end(where: str) -> None:
    async def test() -> tuple[list[Any], list[Any]]:
        live = make_session(where)
        video = TalkheadVideo(live)
        idle = await take(video, lambda items: len(items) == 3)
        for i in range(10):
            await video.push_audio(sound(1, 2000 * (i + 1)))
        await video.push_audio(AudioSegmentEnd())
        items = await take(video, lambda items: ends(items) == 1)
        items += await take(video, lambda items: len(items) == 10)
        await live.shutdown()
        return idle, items

    idle, items = run(test)
    assert all(isinstance(one, rtc.VideoFrame) for one in idle)
    pictures = [one for one in items if isinstance(one, rtc.VideoFrame)]
    assert {(p.width, p.height, p.type) for p in pictures} == {(4, 2, rtc.VideoBufferType.RGB24)}
    pairs = [
        (before.data[0], level_of(one))
        for before, one in pairwise(items)
        if isinstance(one, rtc.AudioFrame) and isinstance(before, rtc.VideoFrame)
    ]
    assert [level for _, level in pairs] == pytest.approx(
        [2000 * (i + 1) for i in range(10)], abs=1
    )
    assert all(value == 10 * (level + 1) // 32768 for value, level in pairs[3:])
    at = next(i for i, one in enumerate(items) if isinstance(one, AudioSegmentEnd))
    assert isinstance(items[at - 1], rtc.AudioFrame)
    assert ends(items) == 1 and len(items) - at == 11


def test_each_of_two_segments_has_its_end() -> None:
    async def test() -> list[Any]:
        live, _ = make_local()
        video = TalkheadVideo(live)
        for level in (300, 600):
            await video.push_audio(sound(3.5, level, channels=2))
            await video.push_audio(AudioSegmentEnd())
        await video.push_audio(rtc.AudioFrame(b"", RATE, 1, 0))  # no sound at all
        await video.push_audio(AudioSegmentEnd())
        items = await take(video, lambda items: ends(items) == 3)
        await live.shutdown()
        return items

    spoken = [one for one in run(test) if not isinstance(one, rtc.VideoFrame)]
    found = ["end" if isinstance(one, AudioSegmentEnd) else level_of(one) for one in spoken]
    assert found == [300] * 4 + ["end"] + [600] * 4 + ["end", "end"]


def test_after_clearing_there_is_no_end_and_no_old_sound() -> None:
    async def test() -> list[Any]:
        live, _ = make_local()
        video = TalkheadVideo(live)
        await video.push_audio(sound(100))
        await take(video, lambda items: len(items) == 6)
        await video.clear_buffer()
        await video.push_audio(AudioSegmentEnd())  # of the segment that was dropped
        items = await take(video, lambda items: len(items) == 8)
        await video.push_audio(sound(2, 500))
        await video.push_audio(AudioSegmentEnd())
        items += await take(video, lambda items: ends(items) == 1)
        items += await take(video, lambda items: len(items) == 5)
        await live.shutdown()
        return items

    items = run(test)
    assert ends(items) == 1
    levels = [level_of(one) for one in items if isinstance(one, rtc.AudioFrame)]
    assert levels == [500] * 2


@pytest.mark.parametrize(FAILURE, FAILURES)
def test_the_voice_goes_on_without_the_picture(
    where: str, identity: str, channels: int, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    ramp = np.arange(1, 20 * SIZE + 1, dtype=np.int16)

    async def test() -> list[Any]:
        live = make_session(where, identity)
        video = TalkheadVideo(live)
        for part in np.split(ramp, [12 * SIZE]):
            data = np.repeat(part, channels).tobytes()
            await video.push_audio(rtc.AudioFrame(data, RATE, channels, len(part)))
        await video.push_audio(AudioSegmentEnd())
        items = await take(video, lambda items: ends(items) == 1)
        await video.push_audio(sound(2, 7))
        await video.push_audio(AudioSegmentEnd())
        items += await take(video, lambda items: ends(items) == 1)
        await live.shutdown()
        return items

    spoken = [one for one in run(test) if isinstance(one, rtc.AudioFrame)]
    parts = [np.frombuffer(one.data, np.int16)[:: one.num_channels] for one in spoken]
    expected = np.concatenate([ramp, np.full(2 * SIZE, 7)])
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1)  # once, and whole
    assert caplog.text.count(message) >= 1


def test_the_audio_is_passed_through_if_the_session_cannot_begin() -> None:
    async def test() -> list[Any]:
        live, _ = make_local(speech=refuse_speech)
        video = TalkheadVideo(live)
        await video.push_audio(sound(3))
        await video.push_audio(AudioSegmentEnd())
        items = await take(video, lambda items: ends(items) == 1)
        await live.shutdown()
        return items

    levels = [level_of(one) for one in run(test) if isinstance(one, rtc.AudioFrame)]
    assert levels == [1000]


def test_the_event_loop_runs_while_a_picture_is_made() -> None:
    pictures = AwaitingPictures()

    async def test() -> None:
        turning = asyncio.create_task(pictures.count_turns())
        live, _ = make_local(pictures=pictures)
        video = TalkheadVideo(live)
        await video.push_audio(sound(20))
        await video.push_audio(AudioSegmentEnd())
        await take(video, lambda items: ends(items) == 1)
        turning.cancel()
        await live.shutdown()

    run(test)
    pictures.check()


# ------------------------------------------------------------------------ with LiveKit's runner


class Playback:
    """An AvatarRunner on a fake room, with what it reports of the playback."""

    def __init__(self, live: LiveSession) -> None:
        self.room = FakeRoom()
        self.output = QueueAudioOutput(sample_rate=RATE, wait_playback_start=True)
        options = AvatarOptions(
            video_width=4, video_height=2, video_fps=25, audio_sample_rate=RATE, audio_channels=1
        )
        self.runner = AvatarRunner(
            self.room, audio_recv=self.output, video_gen=TalkheadVideo(live), options=options
        )
        self.n_started = 0
        self.finished: list[Any] = []
        self.output.on("playback_started", self._start)
        self.output.on("playback_finished", self.finished.append)

    def _start(self, event: Any) -> None:
        self.n_started += 1


def test_the_runner_reports_each_line_and_interruption() -> None:
    async def test() -> Playback:
        live, _ = make_local()
        playback = Playback(live)
        await playback.runner.start()
        for n in (10, 15):
            await playback.output.capture_frame(sound(n))
            playback.output.flush()
            event = await playback.output.wait_for_playout()
            assert not event.interrupted
            assert event.playback_position == pytest.approx(n / 25)
        await playback.output.capture_frame(sound(250))
        playback.output.flush()
        await until(lambda: playback.n_started == 3 and live.statistics.n_speech >= 10 + 15 + 10)
        playback.output.clear_buffer()
        event = await playback.output.wait_for_playout()
        assert event.interrupted and 0.1 < event.playback_position < 5.0
        for _ in range(2):  # the count of the next begins anew
            await playback.output.capture_frame(sound(5))
            playback.output.flush()
            event = await playback.output.wait_for_playout()
            assert not event.interrupted and event.playback_position == pytest.approx(0.2)
        await playback.runner.aclose()
        await live.shutdown()
        return playback

    playback = run(test)
    assert [track.kind for track in playback.room.tracks] == [
        rtc.TrackKind.KIND_AUDIO,
        rtc.TrackKind.KIND_VIDEO,
    ]
    assert playback.n_started == len(playback.finished) == 5


async def line(n_frames: int) -> AsyncIterator[rtc.AudioFrame]:
    for _ in range(n_frames):
        yield sound(1)


def test_an_agent_speaks_through_the_avatar() -> None:
    async def test() -> None:
        live, pictures = make_local()
        room: Any = FakeRoom()
        agent_session = AgentSession()
        avatar = TalkheadAvatar(live)
        with pytest.raises(TalkheadError, match="not running"):
            _ = avatar.avatar_identity
        await avatar.start(agent_session, room)
        await agent_session.start(Agent(instructions="Speak."))
        await avatar.wait_for_join(timeout=10)
        assert (avatar.avatar_identity, avatar.provider) == ("agent", "talkhead")
        speech = agent_session.say("Hello.", audio=line(20))
        await speech.wait_for_playout()
        assert live.statistics.n_speech == 20
        speech = agent_session.say("A long story.", audio=line(1000))
        await until(lambda: live.statistics.n_speech >= 30)
        await agent_session.interrupt(force=True)
        await speech.wait_for_playout()
        assert speech.interrupted
        assert live.statistics.n_interruptions == 1
        assert live.statistics.n_speech < 200
        await agent_session.aclose()
        await avatar.aclose()
        await avatar.aclose()
        assert pictures.closed

    run(test)


def test_the_example_greets_with_its_mouth(monkeypatch: pytest.MonkeyPatch) -> None:
    example = load_example("livekit_agent")
    voice = FakeVoice()
    monkeypatch.setattr(example, "synthesize", voice)

    async def test() -> None:
        live, pictures = make_local()
        agent_session = AgentSession()
        avatar = await example.run_agent(agent_session, FakeRoom(), live)
        await avatar.wait_for_join(timeout=10)
        await until(lambda: live.statistics.n_speech >= 20)
        assert max(code[0] for code in pictures.codes) == pytest.approx(20_000 / 32768)
        await agent_session.aclose()
        await avatar.aclose()
        assert pictures.closed

    run(test)
    assert voice.said == [example.GREETING]
