"""A live session: an asynchronous front of a live engine, in this process or in a worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from talkhead.app.home.identities import Home
from talkhead.app.live.frames import LiveFacts, LiveFrame, LiveStatistics
from talkhead.app.live.options import LiveKeywords, LiveOptions, Pace, live_options
from talkhead.app.live.pace import FrameCost, measure
from talkhead.app.live.worker import WorkerEngine, worker_engine
from talkhead.errors import TalkheadError
from talkhead.types import Float32

if TYPE_CHECKING:  # with a worker, this process does not import PyTorch
    from typing_extensions import Unpack

    from talkhead.app.avatar import Avatar

MAX_IDLE_WAIT_S = 0.25
"""Longest wait between two looks at the clock."""


class Engine(Protocol):
    """Speaks live: `LiveEngine`, or `WorkerEngine` with the same interface.

    Attributes:
        pace: Pace of the lines that begin from now on.
    """

    pace: Pace

    @property
    def sample_rate(self) -> int:
        """Samples per second of the sound that is given out."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures."""

    @property
    def options(self) -> LiveOptions:
        """Options of the session."""

    @property
    def facts(self) -> LiveFacts:
        """Facts about the person and the pictures."""

    @property
    def statistics(self) -> LiveStatistics:
        """What has been done so far."""

    def prepare_thread(self) -> None:
        """Prepare the thread that calls `step`."""

    def push(self, samples: Float32, sample_rate: int, now_s: float) -> None:
        """Add sound to the line that is being spoken."""

    def flush(self) -> None:
        """End the line."""

    def interrupt(self) -> int:
        """Drop everything that was not given out yet; returns the new epoch."""

    def step(self, now_s: float) -> LiveFrame | None:
        """Make the next frame, or return None if it is too early."""

    def wait_s(self, now_s: float) -> float:
        """Compute how long nothing is to be done, unless sound arrives."""

    def close(self) -> None:
        """Free what the engine uses."""


@runtime_checkable
class Rehearsing(Protocol):
    """An engine of this process, whose cost can be measured."""

    def rehearse(self, n_frames: int) -> None:
        """Render frames of speech that are not given out."""


class LiveSession:
    """A person who speaks live.

    Push sound as it comes, from a microphone or a speech synthesizer, and show the frames of `run`
    with their sound:

        session = LiveSession("anna")
        await session.push_audio(pcm, 24_000)
        await session.flush()
        async for frame in session.run():
            show(frame.image, frame.audio)

    Pictures carry a badge that they are made by a machine, and `manifest` is a signed statement of it.
    With `worker=True`, pictures are made in a separate process, and this one does not import PyTorch.
    """

    def __init__(
        self,
        identity: str | Path | Avatar | None = None,
        *,
        options: LiveOptions | None = None,
        home: Path | str | None = None,
        worker: bool = False,
        engine: Engine | None = None,
        **settings: Unpack[LiveKeywords],
    ) -> None:
        """Load the person.

        Args:
            identity: Name of an identity, folder of a package, or the result of `load_identity`.
                None: the identity fitted last.
            options: Options of the session. None: the defaults.
            home: Folder of the identities. None: `TALKHEAD_HOME`, or the user's data folder.
            worker: True to encode and render in a separate process, so that this one, which may run
                an event loop for much else, is not held up. It ends with the session or this process.
                The identity must then be a name or a folder.
            engine: An engine of one's own, with its own person and options. None: one is made.
            settings: Fields of `LiveOptions`, which replace those of `options`, such as
                `mode="head"` or `pace="arrival"`.

        Raises:
            PackageError: There is no such identity, or it is damaged.
            TalkheadError: The value of an option is not allowed, or the worker cannot be started.
        """
        chosen = live_options(options, settings)
        if engine is None:
            make = worker_engine if worker else _local_engine
            engine = make(identity, chosen, home)
        self._engine: Engine = engine
        self._home = Home.locate(home).path
        self._started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._work = ThreadPoolExecutor(
            1, "talkhead-live", initializer=getattr(self._engine, "prepare_thread", None)
        )
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def sample_rate(self) -> int:
        """Samples per second of the sound that frames carry."""
        return self._engine.sample_rate

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures."""
        return self._engine.size

    @property
    def options(self) -> LiveOptions:
        """Options of the session."""
        return self._engine.options

    @property
    def facts(self) -> LiveFacts:
        """Facts about the person and the pictures."""
        return self._engine.facts

    @property
    def note(self) -> str:
        """What the pictures cannot show as requested, such as a turn of the head; "" if nothing."""
        return self._engine.facts.note

    @property
    def pace(self) -> Pace:
        """Pace of the lines that begin from now on."""
        return self._engine.pace

    @pace.setter
    def pace(self, pace: Pace) -> None:
        self._engine.pace = pace

    @property
    def statistics(self) -> LiveStatistics:
        """Counts and times so far."""
        return self._engine.statistics

    def manifest(
        self,
        session: str = "",
        *,
        consent: str | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
    ) -> dict[str, str]:
        """Sign the manifest of the session, which states that its pictures are synthetic.

        It is a JSON Web Signature (RFC 7515, flattened JSON), made with the key that signs files. Give it
        to those who see the pictures; `talkhead verify` verifies it.

        Args:
            session: An ID of the session that the manifest states.
            consent: A statement of consent to this session. None: that of the identity.
            certificate: PEM file with the certificate to sign with. None: a local one, made on first
                use.
            key: PEM file with the certificate's private key.

        Returns:
            The manifest, an object of JSON.

        Raises:
            TalkheadError: Certificate and key are not usable, or only one of them is given.
        """
        from talkhead.app.output.live_manifest import LiveStatement, sign_live
        from talkhead.app.output.signing_keys import credentials

        if (certificate is None) != (key is None):
            raise TalkheadError("certificate and key belong together. Pass both, or neither")
        facts, options = self._engine.facts, self._engine.options
        agreed = consent or facts.consent
        statement = LiveStatement(
            facts.identity, options.mode, agreed, self._started, options.badge, session
        )
        return sign_live(statement, credentials(self._home, certificate, key))

    async def push_audio(
        self, pcm: bytes | np.ndarray[Any, Any], sample_rate: int, last_chunk: bool = False
    ) -> None:
        """Add sound to the line that is being spoken; the first sound begins a line.

        Args:
            pcm: 16-bit little-endian samples of one channel, as bytes or int16 [n]; or floats [n] in
                [-1, 1].
            sample_rate: Samples per second, 8000 to 192000.
            last_chunk: True to end the line with it, as `flush` does.

        Raises:
            TalkheadError: The sound cannot be used, too much of it is waiting, or the session is
                closed.
        """
        if self._closed:
            raise TalkheadError("the session is closed. Begin a new one")
        self._engine.push(decode_pcm(pcm), sample_rate, time.monotonic())
        if last_chunk:
            self._engine.flush()
        self._changed.set()

    async def flush(self) -> None:
        """End the line: what was pushed is spoken to its end, then the mouth rests."""
        self._engine.flush()
        self._changed.set()

    def interrupt(self) -> int:
        """Stop speaking at once: sound that was not given out is dropped, and the mouth closes.

        Returns:
            The epoch of all frames from now on. Drop frames of older ones that were not shown yet.
        """
        epoch = self._engine.interrupt()
        self._changed.set()
        return epoch

    async def rehearse(self, n_others: Callable[[], int] = lambda: 0) -> FrameCost:
        """Render a second of speech that is not given out, before `run`.

        Args:
            n_others: Function that returns how many frames of speech other sessions of this process have
                rendered so far.

        Returns:
            What a frame costs on this machine now; of a worker that does not render, when it started.

        Raises:
            MediaError: The footage cannot be read.
            PackageError: The weights that a line needs are missing or damaged.
            TalkheadError: The session is that of a worker.
        """
        if isinstance(self._engine, WorkerEngine) and self._engine.cost is not None:
            return self._engine.cost
        if not isinstance(self._engine, Rehearsing):
            raise TalkheadError("a session with worker=True cannot be measured from here")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._work, measure, self._engine.rehearse, n_others)

    async def run(self) -> AsyncIterator[LiveFrame]:
        """Give out frames without end, 25 a second, until `shutdown`.

        Yields:
            Frames with their sound; the footage plays on while nothing is said.

        Raises:
            MediaError: The footage can no longer be read.
            PackageError: The weights that a line needs are missing or damaged.
            TalkheadError: The worker has ended.
        """
        loop = asyncio.get_running_loop()
        while not self._closed:
            self._changed.clear()
            frame = await loop.run_in_executor(self._work, self._engine.step, time.monotonic())
            if frame is not None:
                if not self._closed:
                    yield frame
                continue
            wait_s = min(self._engine.wait_s(time.monotonic()), MAX_IDLE_WAIT_S)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), max(wait_s, 0.001))

    async def shutdown(self) -> None:
        """End the session; `run` ends, too."""
        if self._closed:
            return
        self._closed = True
        self._changed.set()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._work, self._engine.close)
        self._work.shutdown(wait=False)


def _local_engine(
    identity: str | Path | Avatar | None, options: LiveOptions, home: Path | str | None
) -> Engine:
    """Make an engine in this process."""
    from talkhead.app.avatar import Avatar, load_identity
    from talkhead.app.live.engine import LiveEngine

    if not isinstance(identity, Avatar):
        identity = load_identity(identity, home=home)
    return LiveEngine(identity, options)


def check_opaque(session: LiveSession) -> None:
    """Check that a session has pictures without transparency, for receivers that take RGB.

    Args:
        session: The session.

    Raises:
        TalkheadError: Its background is transparent, or it does not render.
    """
    if not session.options.rendered:
        raise TalkheadError("a voice agent needs pictures. Leave out rendered=False")
    if session.options.has_alpha:
        raise TalkheadError(
            "a voice agent can't send a transparent background. Choose own, an image, or a color, such "
            "as chroma-green, which the receiver can make transparent"
        )


def decode_pcm(pcm: bytes | np.ndarray[Any, Any]) -> Float32:
    """Convert sound of one channel to floats.

    Args:
        pcm: 16-bit little-endian samples as bytes or int16 [n], or floats [n].

    Returns:
        [n] in [-1, 1].

    Raises:
        TalkheadError: For an odd number of bytes, another type, or several channels.
    """
    if isinstance(pcm, (bytes, bytearray, memoryview)):
        if len(pcm) % 2:
            raise TalkheadError(f"{len(pcm)} bytes of sound: 16-bit samples have 2 bytes each")
        return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768.0)
    if pcm.ndim != 1:
        raise TalkheadError(f"sound of shape {pcm.shape}: pass one channel, [n]")
    if pcm.dtype == np.int16:
        return pcm.astype(np.float32) / np.float32(32768.0)
    if pcm.dtype.kind != "f":
        raise TalkheadError(f"sound of type {pcm.dtype}: pass int16, or floats in [-1, 1]")
    return pcm.astype(np.float32)


def mix_channels(pcm: bytes | memoryview, n_channels: int) -> Float32:
    """Convert sound of several channels to floats of one, their mean.

    Args:
        pcm: 16-bit little-endian samples, one of each channel in turn.
        n_channels: Number of channels.

    Returns:
        [n] in [-1, 1].

    Raises:
        TalkheadError: The last samples are not complete.
    """
    samples = decode_pcm(bytes(pcm))
    if len(samples) % n_channels:
        raise TalkheadError(f"{len(samples)} samples of sound in {n_channels} channels: some lack")
    return samples.reshape(-1, n_channels).mean(1, dtype=np.float32)
