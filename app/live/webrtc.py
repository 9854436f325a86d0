"""Pictures and audio of a live session over WebRTC, for viewers: VP8 and Opus.

The time stamps of both tracks count the samples of the audio, so that they cannot drift apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, suppress
from fractions import Fraction

import numpy as np

from talkhead.app.live.frames import LiveFrame
from talkhead.app.live.resampler import Resampler
from talkhead.audio import as_int16
from talkhead.errors import TalkheadError, one_line
from talkhead.types import FRAME_RATE, Float32, Int16

try:
    from aiortc import (
        MediaStreamTrack,
        RTCConfiguration,
        RTCPeerConnection,
        RTCRtpSender,
        RTCSessionDescription,
    )
    from aiortc.exceptions import InvalidStateError, OperationError
    from aiortc.mediastreams import MediaStreamError
    from aiortc.sdp import SessionDescription
    from av import AudioFrame, VideoFrame
except ImportError as error:
    raise ImportError(
        f"{__name__} needs the package aiortc. Run: pip install 'talkhead[webrtc]'"
    ) from error

VIDEO_RATE, AUDIO_RATE = 90_000, 48_000
"""Time stamps in a second."""
AUDIO_SAMPLES = AUDIO_RATE // 50
"""Samples of a packet of audio: 20 ms."""
MIME_TYPES = {"video": ("video/vp8", "video/rtx"), "audio": ("audio/opus",)}
"""Formats that are offered: media, and its retransmission."""
GATHER_S = 15.0
"""Longest time to find the addresses of the server."""
CONNECT_S = 30.0
"""A viewer that has not connected so long after its answer is closed: aioice would wait for ever."""
UNUSABLE = (ValueError, LookupError, AttributeError, TypeError, AssertionError, InvalidStateError)
"""What aiortc raises for offers that are damaged."""
ENDED = "the live session ended before the viewer was connected. Begin a new one"
Frames = AsyncGenerator[LiveFrame, None]


class VideoTrack(MediaStreamTrack):
    """The pictures of frames."""

    kind = "video"

    def __init__(self, frames: Frames) -> None:
        """Begin the track.

        Args:
            frames: The frames.
        """
        super().__init__()
        self._frames = frames

    async def recv(self) -> VideoFrame:
        """Return the next picture.

        Raises:
            MediaStreamError: The track has ended.
        """
        frame = await _next(self, self._frames)
        picture = VideoFrame.from_ndarray(np.ascontiguousarray(frame.image), format="rgb24")
        picture.pts = frame.index * (VIDEO_RATE // FRAME_RATE)
        picture.time_base = Fraction(1, VIDEO_RATE)
        return picture


class AudioTrack(MediaStreamTrack):
    """The audio of frames, as 48 kHz. Frames that were missed are silent."""

    kind = "audio"

    def __init__(self, frames: Frames) -> None:
        """Begin the track.

        Args:
            frames: The frames.
        """
        super().__init__()
        self._frames = frames
        self._resampler: Resampler | None = None
        self._next = 0  # number of the next frame
        self._waiting: Float32 = np.zeros(0, np.float32)
        self._pts = 0  # of the first sample that waits

    async def recv(self) -> AudioFrame:
        """Return the next 20 ms.

        Raises:
            MediaStreamError: The track has ended.
        """
        while len(self._waiting) < AUDIO_SAMPLES:
            self._add(await _next(self, self._frames))
        part = as_int16(self._waiting[:AUDIO_SAMPLES])
        self._waiting = self._waiting[AUDIO_SAMPLES:]
        sound = AudioFrame.from_ndarray(part[None], format="s16", layout="mono")
        sound.sample_rate = AUDIO_RATE
        sound.pts = self._pts
        sound.time_base = Fraction(1, AUDIO_RATE)
        self._pts += AUDIO_SAMPLES
        return sound

    def _add(self, frame: LiveFrame) -> None:
        """Add the samples of a frame."""
        if self._resampler is None:
            self._resampler = Resampler(frame.sample_rate, AUDIO_RATE)
            self._next = frame.index
            self._pts = frame.index * (AUDIO_RATE // FRAME_RATE)
        n_missed = (frame.index - self._next) * len(frame.audio)
        sound = np.concatenate([np.zeros(n_missed, np.float32), _floats(frame.audio)])
        self._waiting = np.concatenate([self._waiting, self._resampler.push(sound)])
        self._next = frame.index + 1


async def _next(track: MediaStreamTrack, frames: Frames) -> LiveFrame:
    """Return the next frame for a track; at the end, or on an error, the track ends."""
    if track.readyState != "live":
        raise MediaStreamError
    try:
        return await anext(frames)
    except (StopAsyncIteration, TalkheadError) as error:
        track.stop()
        raise MediaStreamError(one_line(error)) from error


def _check_sections(offer: str, answer: str) -> None:
    """Raise ValueError if an answer does not have the sections of the offer, each with another name.

    aiortc would notice it only when the answer is used, if at all.
    """
    wanted, found = (
        [(media.kind, media.rtp.muxId) for media in SessionDescription.parse(one).media]
        for one in (offer, answer)
    )
    if found != wanted or len({name for _, name in wanted}) < len(wanted):
        raise ValueError(f"sections with unusable names: {wanted}")


def _floats(samples: Int16) -> Float32:
    """Convert samples [n] to [-1, 1]."""
    return samples.astype(np.float32) / np.float32(32768.0)


class Viewer:
    """A connection to one viewer."""

    def __init__(self, video: Frames, audio: Frames, ended: Callable[[], None]) -> None:
        """Prepare the connection.

        Args:
            video: Frames for the pictures.
            audio: The same frames for the audio.
            ended: Called once, when the viewer has left or `close` was called.
        """
        self._frames = (video, audio)
        self._tracks = (VideoTrack(video), AudioTrack(audio))
        # Without servers: aiortc would otherwise ask one on the internet for the address of this machine.
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._ended = ended
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._connection.on("connectionstatechange", self._changed)

    async def answer(self, offer: str) -> str:
        """Accept the offer of a viewer.

        Args:
            offer: A session description (SDP) that receives video or audio.

        Returns:
            The answer, with all addresses under which the server can be reached.

        Raises:
            TalkheadError: The offer is damaged, or receives neither VP8 nor Opus; the addresses of the
                server were not found in time; or the session ended meanwhile.
        """
        try:
            answer = await self._accept(offer)
            await self._gather(answer)
        except Exception as error:
            if self._closed:  # whatever it was came from that
                raise TalkheadError(ENDED) from error
            raise
        if self._closed:
            raise TalkheadError(ENDED)
        self._timer = asyncio.get_running_loop().call_later(CONNECT_S, self._give_up)
        description: str = self._connection.localDescription.sdp
        return description

    async def _accept(self, offer: str) -> RTCSessionDescription:
        """Make the answer to an offer, without addresses."""
        connection = self._connection
        for track in self._tracks:
            if any(line.startswith(f"m={track.kind} ") for line in offer.splitlines()):
                self._send(track)  # aiortc can only answer if each track was offered to be received
        try:
            await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            if all(one.mid is None for one in connection.getTransceivers()):
                raise TalkheadError("the offer must receive video or audio")
            answer = await connection.createAnswer()  # some damages are noticed only here
            _check_sections(offer, answer.sdp)
            return answer
        except OperationError as error:
            raise TalkheadError("the offer must allow VP8 for video and Opus for audio") from error
        except (*UNUSABLE, RuntimeError) as error:  # a generator in aiortc ends early
            raise TalkheadError(
                "the offer is not a session description (SDP) of WebRTC. Send that of createOffer"
            ) from error

    def _send(self, track: MediaStreamTrack) -> None:
        """Prepare to send a track in the formats that are offered."""
        transceiver = self._connection.addTransceiver(track, direction="sendonly")
        known = RTCRtpSender.getCapabilities(track.kind).codecs
        wanted = MIME_TYPES[track.kind]
        transceiver.setCodecPreferences([c for c in known if c.mimeType.lower() in wanted])

    async def _gather(self, answer: RTCSessionDescription) -> None:
        """Add the addresses of the server to an answer. Other errors than time are the server's own."""
        try:
            await asyncio.wait_for(self._connection.setLocalDescription(answer), GATHER_S)
        except asyncio.TimeoutError as error:
            raise TalkheadError(
                "the server's addresses were not found in time. Try again"
            ) from error

    async def close(self) -> None:
        """End the connection."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for track in self._tracks:
            track.stop()
        async with AsyncExitStack() as stack:  # each is done even if those before fail
            stack.callback(self._ended)
            for frames in self._frames:
                stack.push_async_callback(frames.aclose)
            with suppress(*UNUSABLE):  # aiortc cannot close connections with certain damaged offers
                await self._connection.close()

    def _give_up(self) -> None:
        """Close the connection if the viewer has not connected."""
        if self._connection.connectionState != "connected":
            self._close_soon()

    def _changed(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            self._close_soon()

    def _close_soon(self) -> None:
        if not self._closed:
            self._closing = asyncio.get_running_loop().create_task(self.close())
