"""A voice agent with a talking head, in LiveKit Agents: it greets whoever joins its room.

pip install 'talkhead[livekit,voice]'
livekit-server --dev        # a server on this machine; for another one, change the variables below
export LIVEKIT_URL=ws://localhost:7880 LIVEKIT_API_KEY=devkey LIVEKIT_API_SECRET=secret
TALKHEAD_IDENTITY=anna python examples/livekit_agent.py dev

To converse with it, pass speech recognition and a language model to AgentSession.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from livekit import rtc
from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli
from livekit.agents.voice.room_io import RoomOptions

from talkhead.app.live.livekit import TalkheadAvatar
from talkhead.app.live.session import LiveSession
from talkhead.app.text_to_speech import synthesize

GREETING = "Hello. I run on this computer, and nothing that you say leaves it."
server = AgentServer()


async def voice(text: str) -> AsyncIterator[rtc.AudioFrame]:
    """Speak a text with the voice of `talkhead[voice]`.

    Args:
        text: The text.

    Yields:
        Its audio.
    """
    sound, rate = await asyncio.to_thread(synthesize, text)
    yield rtc.AudioFrame(sound.tobytes(), rate, 1, len(sound))


async def run_agent(
    agent_session: AgentSession, room: rtc.Room, live: LiveSession, **options: Any
) -> TalkheadAvatar:
    """Show the head in a room and speak the greeting.

    Args:
        agent_session: The session of the agent.
        room: The room.
        live: The head.
        options: Arguments of `AgentSession.start`.

    Returns:
        The avatar, which is speaking.
    """
    avatar = TalkheadAvatar(live)
    await avatar.start(agent_session, room)
    await agent_session.start(Agent(instructions="Be kind."), **options)
    agent_session.say(GREETING, audio=voice(GREETING))
    return avatar


@server.rtc_session()
async def entrypoint(context: JobContext) -> None:
    """Serve a room; LiveKit calls this.

    Args:
        context: The job.
    """
    identity = os.environ.get("TALKHEAD_IDENTITY")
    live = await asyncio.to_thread(LiveSession, identity, worker=True)
    await context.connect()
    options = {"room": context.room, "room_options": RoomOptions(audio_output=False)}
    await run_agent(AgentSession(), context.room, live, **options)


if __name__ == "__main__":
    cli.run_app(server)
