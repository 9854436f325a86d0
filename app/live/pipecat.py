"""A video service for Pipecat: the head speaks what the pipeline's text-to-speech says.

Place it after the text-to-speech service and before the transport's output:

    session = LiveSession("anna")
    video = TalkheadVideoService(session)
    pipeline = Pipeline([transport.input(), ..., tts, video, transport.output()])
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Any

from talkhead.app.live.backlog import Backlog
from talkhead.app.live.frames import LiveFrame
from talkhead.app.live.session import LiveSession, check_opaque, mix_channels
from talkhead.errors import one_line

try:
    from pipecat.frames.frames import (
        CancelFrame,
        EndFrame,
        Frame,
        InterruptionFrame,
        OutputImageRawFrame,
        StartFrame,
        SystemFrame,
        TTSAudioRawFrame,
        TTSStoppedFrame,
    )
    from pipecat.processors.frame_processor import FrameDirection
    from pipecat.services.ai_service import AIService
    from pipecat.services.settings import ServiceSettings
except ImportError as error:
    raise ImportError(
        f"{__name__} needs the package pipecat-ai, which needs Python 3.11 or newer; this is Python "
        f"{sys.version_info[0]}.{sys.version_info[1]}. Run there: pip install 'talkhead[pipecat]'"
    ) from error

DRAIN_S = 5.0
"""Longest wait when the pipeline ends, in addition to the duration of the queued audio."""


class TalkheadVideoService(AIService):
    """Receives audio of text-to-speech, and sends pictures together with their audio.

    Frames are sent in the order in which they arrive: those that follow audio, such as
    `TTSStoppedFrame`, are held until that audio has been sent. An interruption drops all queued
    frames. If the session fails, the error is reported once, and the audio continues without pictures.
    """

    def __init__(self, session: LiveSession, **kwargs: Any) -> None:
        """Prepare the service.

        Args:
            session: The person. The service shuts it down in the end.
            kwargs: Arguments of `pipecat.processors.frame_processor.FrameProcessor`.

        Raises:
            TalkheadError: The background of the pictures is transparent.
        """
        check_opaque(session)
        super().__init__(settings=ServiceSettings(model=None), **kwargs)
        self._session = session
        self._epoch = session.statistics.n_interruptions
        self._backlog: Backlog[Frame] = Backlog()
        self._order = asyncio.Lock()  # held while frames are pushed that must stay in order
        self._drained = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failed = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures, for `TransportParams`."""
        return self._session.size

    def can_generate_metrics(self) -> bool:
        """Return True: the time from a line's first audio to its first frame is measured."""
        return True

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Process a frame of the pipeline.

        Args:
            frame: The frame.
            direction: Where it is going.
        """
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame):
            await self.push_frame(frame, direction)
            self._task = self.create_task(self._run())
        elif isinstance(frame, InterruptionFrame):
            await self._interrupt(frame, direction)
        elif (
            direction is FrameDirection.UPSTREAM
            or isinstance(frame, (SystemFrame, EndFrame))
            or frame.pts  # the transport waits for its time
        ):
            await self.push_frame(frame, direction)
        else:
            async with self._order:
                await self._take(frame)

    async def stop(self, frame: EndFrame) -> None:
        """Speak what waits to its end, then shut the session down.

        Args:
            frame: The frame that ends the pipeline.
        """
        await super().stop(frame)
        await self._session.flush()
        if self._task is not None and not self._failed and not self._backlog.is_empty:
            self._drained.clear()
            limit_s = self._session.statistics.waiting_s + DRAIN_S
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._drained.wait(), limit_s)
        await self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        """Shut the session down at once.

        Args:
            frame: The frame that cancels the pipeline.
        """
        await super().cancel(frame)
        await self._close()

    async def cleanup(self) -> None:
        """Shut the session down, if it is still running."""
        await super().cleanup()
        await self._close()

    # ------------------------------------------------------------------------------ inside

    async def _take(self, frame: Frame) -> None:
        """Take a frame that goes downstream, in order."""
        if self._failed:
            await self.push_frame(frame)
            return
        if isinstance(frame, TTSStoppedFrame):
            self._backlog.end_line(frame)
            await self._session.flush()
        elif isinstance(frame, TTSAudioRawFrame):
            if not self._backlog.is_open:
                await self.start_ttfb_metrics()
            self._backlog.add_sound(frame, frame.num_frames / frame.sample_rate)
            try:
                samples = mix_channels(frame.audio, frame.num_channels)
                await self._session.push_audio(samples, frame.sample_rate)
            except Exception as error:
                await self._fail(error)
        else:
            self._backlog.add(frame)
        await self._push_all(self._backlog.due())

    async def _run(self) -> None:
        """Send pictures and audio until the session ends or fails."""
        try:
            async for frame in self._session.run():
                async with self._order:
                    if self._failed:
                        return
                    if frame.epoch == self._epoch:
                        await self._send(frame)
        except Exception as error:
            async with self._order:
                await self._fail(error)

    async def _send(self, frame: LiveFrame) -> None:
        """Send a picture, its audio, and what follows them."""
        picture = OutputImageRawFrame(frame.image.tobytes(), self._session.size, "RGB")
        picture.sync_with_audio = True
        await self.push_frame(picture)
        if frame.is_speech:
            await self.stop_ttfb_metrics()
            context = getattr(self._backlog.current, "context_id", None)
            sound = frame.audio.astype("<i2").tobytes()
            await self.push_frame(TTSAudioRawFrame(sound, frame.sample_rate, 1, context))
        await self._push_all(self._backlog.advance(frame))
        if self._backlog.is_empty:
            self._drained.set()

    async def _interrupt(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        """Drop what waits, but for frames that must arrive; the mouth closes."""
        async with self._order:
            self._epoch = self._session.interrupt()
            dropped = self._backlog.clear()
            await self.push_frame(frame, direction)
            await self._push_all([one for one in dropped if not one.interruptible])
            self._drained.set()

    async def _fail(self, error: Exception) -> None:
        """Report the error and send the queued audio; from now on audio is passed through."""
        if self._failed:
            return
        self._failed = True
        for frame, done_s in self._backlog.rest():
            if isinstance(frame, TTSAudioRawFrame) and done_s:
                done = 2 * frame.num_channels * round(done_s * frame.sample_rate)
                channels, context = frame.num_channels, frame.context_id
                frame = TTSAudioRawFrame(frame.audio[done:], frame.sample_rate, channels, context)
            await self.push_frame(frame)
        self._drained.set()
        message = f"the head has failed, and the voice goes on without it: {one_line(error)}"
        await self.push_error(message, exception=error)

    async def _push_all(self, frames: list[Frame]) -> None:
        """Push frames downstream."""
        for frame in frames:
            await self.push_frame(frame)

    async def _close(self) -> None:
        """Stop sending and free the session; a second call does nothing."""
        task, self._task = self._task, None
        if task is not None:
            await self.cancel_task(task)
        await self._session.shutdown()
