"""A voice agent with a talking head, in Pipecat: it greets whoever opens its page.

pip install 'talkhead[pipecat,voice]' aiortc pipecat-ai-prebuilt
TALKHEAD_IDENTITY=anna python examples/pipecat_agent.py -t webrtc    # then open the address it prints

To converse with it, insert speech recognition and a language model between the transport's input
and the voice.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from typing import Any

from pipecat.frames.frames import Frame, TTSAudioRawFrame, TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService
from pipecat.transports.base_transport import BaseTransport, TransportParams
from pipecat.workers.runner import WorkerRunner

from talkhead.app.live.pipecat import TalkheadVideoService
from talkhead.app.live.session import LiveSession
from talkhead.app.text_to_speech import synthesize

GREETING = "Hello. I run on this computer, and nothing that you say leaves it."


class Voice(TTSService):
    """The voice of `talkhead[voice]` as a service of Pipecat."""

    def __init__(self) -> None:
        """Prepare the voice."""
        settings = TTSSettings(model=None, voice=None, language=None)
        super().__init__(push_start_frame=True, push_stop_frames=True, settings=settings)

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """Speak a text.

        Args:
            text: The text.
            context_id: Pipecat's name for this reply.

        Yields:
            Its audio.
        """
        sound, rate = await asyncio.to_thread(synthesize, text)
        yield TTSAudioRawFrame(sound.tobytes(), rate, 1, context_id)


async def run_agent(transport: BaseTransport, session: LiveSession, voice: TTSService) -> None:
    """Talk to one person.

    Args:
        transport: The connection.
        session: The head.
        voice: The voice.
    """
    head = TalkheadVideoService(session)
    worker = PipelineWorker(Pipeline([transport.input(), voice, head, transport.output()]))

    @transport.event_handler("on_client_connected")
    async def greet(_: BaseTransport, client: Any) -> None:
        await worker.queue_frame(TTSSpeakFrame(GREETING))

    @transport.event_handler("on_client_disconnected")
    async def leave(_: BaseTransport, client: Any) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


async def bot(arguments: Any) -> None:
    """Serve a connection; Pipecat's runner calls this.

    Args:
        arguments: The runner's description of the connection.
    """
    from pipecat.runner.utils import create_transport

    identity = os.environ.get("TALKHEAD_IDENTITY")
    session = await asyncio.to_thread(LiveSession, identity, worker=True)
    width, height = session.size
    params = TransportParams(
        audio_in_enabled=True,
        audio_out_enabled=True,
        audio_out_10ms_chunks=2,
        video_out_enabled=True,
        video_out_width=width,
        video_out_height=height,
        video_out_framerate=25,
    )
    transport = await create_transport(arguments, {"webrtc": lambda: params})
    await run_agent(transport, session, Voice())


if __name__ == "__main__":
    from pipecat.runner.run import main

    main()
