"""An avatar for LiveKit Agents: the head speaks what the agent says.

In the entry point of an agent, before its session is started (`RoomOptions` is in
`livekit.agents.voice.room_io`):

    avatar = TalkheadAvatar(LiveSession("anna"))
    await avatar.start(session, ctx.room)
    await session.start(agent, room=ctx.room, room_options=RoomOptions(audio_output=False))
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import TypeAlias

from talkhead.app.live.backlog import Backlog
from talkhead.app.live.frames import LiveFrame
from talkhead.app.live.session import LiveSession, check_opaque, mix_channels
from talkhead.errors import TalkheadError, one_line
from talkhead.types import FRAME_RATE

try:
    from livekit import rtc
    from livekit.agents import AgentSession
    from livekit.agents.voice.avatar import (
        AudioSegmentEnd,
        AvatarOptions,
        AvatarRunner,
        AvatarSession,
        QueueAudioOutput,
        VideoGenerator,
    )
except ImportError as error:
    raise ImportError(
        f"{__name__} needs the package livekit-agents. Run: pip install 'talkhead[livekit]'"
    ) from error

Item: TypeAlias = "rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd"
logger = logging.getLogger(__name__)
TAKE_S = 0.5
"""Longest wait, after an interruption, until the frame that is being sent was sent."""


class TalkheadVideo(VideoGenerator):
    """Turns the audio of an agent into pictures with their audio.

    The end of a segment is yielded once, after its last audio, or never after `clear_buffer`. If the
    session fails, the error is logged, and the audio continues without pictures.
    """

    def __init__(self, session: LiveSession) -> None:
        """Prepare the generator.

        Args:
            session: The person.

        Raises:
            TalkheadError: The background of the pictures is transparent.
        """
        check_opaque(session)
        self._session = session
        self._epoch = session.statistics.n_interruptions
        self._backlog: Backlog[rtc.AudioFrame | AudioSegmentEnd] = Backlog()
        self._taken = asyncio.Event()  # set while nothing is being sent
        self._taken.set()
        self._error: Exception | None = None
        self._plain: asyncio.Queue[rtc.AudioFrame | AudioSegmentEnd] = asyncio.Queue()

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Receive audio, or the end of a segment.

        Args:
            frame: The audio or the end.
        """
        if self._error is not None:
            self._plain.put_nowait(frame)
        elif isinstance(frame, AudioSegmentEnd):
            if self._backlog.is_open:  # otherwise the segment was interrupted
                self._backlog.end_line(frame)
                await self._session.flush()
        else:
            self._backlog.add_sound(frame, frame.duration)
            try:
                samples = mix_channels(frame.data.cast("B"), frame.num_channels)
                await self._session.push_audio(samples, frame.sample_rate)
            except Exception as error:
                self._fail(error)

    async def clear_buffer(self) -> None:
        """Drop all audio that has not been yielded; the mouth closes."""
        self._epoch = self._session.interrupt()
        self._backlog.clear()
        while not self._plain.empty():
            self._plain.get_nowait()
        # The runner counts the audio of a frame once it has been sent, and restarts the count after this.
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._taken.wait(), TAKE_S)

    async def __aiter__(self) -> AsyncIterator[Item]:
        """Yield pictures endlessly, each followed by its audio during speech.

        Yields:
            Pictures, audio and ends of segments.
        """
        try:
            async for frame in self._session.run():
                for item in self._items(frame):
                    self._taken.clear()
                    yield item
                    self._taken.set()
                if self._error is not None:
                    break
            else:
                return
        except Exception as error:
            self._fail(error)
        while True:
            yield await self._plain.get()

    def _items(self, frame: LiveFrame) -> Iterator[Item]:
        """Yield the picture of a frame, its audio and ends; an interruption drops the rest."""
        if frame.epoch != self._epoch or self._error is not None:
            return
        width, height = self._session.size
        kind = rtc.VideoBufferType.RGB24
        yield rtc.VideoFrame(width, height, kind, frame.image.tobytes())
        if frame.epoch != self._epoch or self._error is not None:
            return
        following = self._backlog.advance(frame)
        if frame.is_speech:
            sound = frame.audio.astype("<i2").tobytes()
            yield rtc.AudioFrame(sound, frame.sample_rate, 1, len(frame.audio))
        for item in following:
            if frame.epoch == self._epoch:
                yield item

    def _fail(self, error: Exception) -> None:
        """Log the error and queue the pending audio; from now on audio is passed through."""
        if self._error is not None:
            return
        self._error = error
        message = "the head has failed, and the voice goes on without it: %s"
        logger.error(message, one_line(error), exc_info=error)
        for item, done_s in self._backlog.rest():
            if isinstance(item, rtc.AudioFrame) and done_s:
                item = _without_beginning(item, done_s)
            self._plain.put_nowait(item)


class TalkheadAvatar(AvatarSession):
    """An avatar that runs in the process of the agent, and publishes as the agent's participant."""

    def __init__(self, session: LiveSession) -> None:
        """Prepare the avatar.

        Args:
            session: The person. The avatar shuts it down in the end.
        """
        super().__init__()
        self._room: rtc.Room | None = None
        self._session = session
        self._runner: AvatarRunner | None = None
        self._clearing: set[asyncio.Task[None]] = set()

    @property
    def avatar_identity(self) -> str:
        """Identity of the participant that publishes the avatar: the agent's own.

        Raises:
            TalkheadError: The avatar has not been started.
        """
        if self._room is None:
            raise TalkheadError("the avatar is not running. Start it first")
        return str(self._room.local_participant.identity)

    @property
    def provider(self) -> str:
        """The provider of the avatar."""
        return "talkhead"

    async def start(self, agent_session: AgentSession, room: rtc.Room) -> None:
        """Publish the avatar, and route the agent's audio through it.

        Args:
            agent_session: The session of the agent, not started yet.
            room: The room. Tracks are published once it is connected.
        """
        await super().start(agent_session, room)
        sound = QueueAudioOutput(sample_rate=self._session.sample_rate, wait_playback_start=True)
        width, height = self._session.size
        options = AvatarOptions(
            video_width=width,
            video_height=height,
            video_fps=FRAME_RATE,
            audio_sample_rate=self._session.sample_rate,
            audio_channels=1,
        )
        video = TalkheadVideo(self._session)
        self._runner = AvatarRunner(room, audio_recv=sound, video_gen=video, options=options)
        await self._runner.start()
        sound.on("clear_buffer", self._clear_queues)
        agent_session.output.replace_audio_tail(sound)

    async def aclose(self) -> None:
        """Stop publishing and shut the session down. The agent stays in the room."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.aclose()
        await self._session.shutdown()
        # With a room, the base class would remove the avatar's participant, which is the agent's.
        room, self._room = self._room, None
        if room is not None:
            room.off("connection_state_changed", self._on_connection_state_changed)
        await super().aclose()

    def _clear_queues(self) -> None:
        """Drop the audio and pictures that the runner has queued; it does not do so itself."""
        if self._runner is not None:
            task = asyncio.create_task(self._runner.av_sync.clear_queue())
            self._clearing.add(task)
            task.add_done_callback(self._clearing.discard)


def _without_beginning(frame: rtc.AudioFrame, done_s: float) -> rtc.AudioFrame:
    """Return audio without its first seconds."""
    n = min(round(done_s * frame.sample_rate), frame.samples_per_channel)
    data = frame.data[n * frame.num_channels :].tobytes()
    n_left = frame.samples_per_channel - n
    return rtc.AudioFrame(data, frame.sample_rate, frame.num_channels, n_left)
