"""The live engine in a worker: a separate process that encodes and renders, without PyTorch in this one.

`WorkerEngine` is used in place of a `LiveEngine`. Commands and sound go to the worker's standard input,
frames come back from its standard output (`talkhead.app.live.worker_process`). Pipes are used rather than
shared memory because they limit the frames that wait, report the end of either process, and leave nothing
behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from queue import Empty, Full, Queue, SimpleQueue
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from talkhead import errors
from talkhead.app.live.frames import (
    FRAME_S,
    NO_PICTURE,
    LiveFacts,
    LiveFrame,
    LiveStatistics,
    check_sound,
    check_waiting,
)
from talkhead.app.live.messages import read_message, write_message
from talkhead.app.live.options import LiveOptions, Pace
from talkhead.app.live.pace import FrameCost
from talkhead.errors import TalkheadError, one_line
from talkhead.media.process import OWN_GROUP
from talkhead.types import Float32, UInt8

if TYPE_CHECKING:
    from talkhead.app.avatar import Avatar

ENGINE_MAKER = "talkhead.app.live.worker_process:make_engine"
START = (
    "import sys; sys.path[:] = sys.argv[1:]\n"
    "from talkhead.app.live.worker_process import main; main()"
)
"""Program of the worker. It finds modules where this process finds them, and does not run this process's
main module again, as `multiprocessing` would."""
MAX_QUEUED = 2
"""Frames that are read from the worker before they are asked for."""
STEP_S = 0.25
"""Longest wait of a step."""
CLOSE_S = 5.0
"""Time for the worker to end by itself. It is killed after that."""


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker makes its engine from.

    Attributes:
        identity: Name of an identity, or folder of a package. None: the identity fitted last.
        home: Folder of the identities. None: `TALKHEAD_HOME`, or the user's data folder.
        options: Options of the session.
        maker: "module:name" of a function that makes an engine from this configuration.
        is_measured: Measure what a frame costs before the worker is ready.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """

    identity: str | None = None
    home: str | None = None
    options: LiveOptions = field(default_factory=LiveOptions)
    maker: str = ENGINE_MAKER
    is_measured: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class _Arrival:
    """A frame from the worker.

    Attributes:
        frame: The frame.
        statistics: The worker's, after it.
        received_s: Seconds of sound that the worker had received.
    """

    frame: LiveFrame
    statistics: LiveStatistics
    received_s: float


class WorkerEngine:
    """Speaks live in a worker; the interface of `LiveEngine`.

    All methods return at once, except `step` and `close`.

    Attributes:
        cost: What a frame costs in the worker. None: it was not measured.
    """

    def __init__(self, config: WorkerConfig) -> None:
        """Start the worker and wait until it has loaded the person.

        Args:
            config: What the worker makes its engine from.

        Raises:
            PackageError: There is no such identity, or it is damaged.
            TalkheadError: The worker cannot be started, or ended before it was ready.
        """
        self.options = config.options
        self.sample_rate = config.options.sample_rate
        self._pace: Pace = config.options.pace
        self._lock = threading.Lock()
        self._epoch = 0
        self._sent_s = self._received_s = 0.0
        self._statistics = LiveStatistics()
        self._image: UInt8 | None = None if config.options.rendered else NO_PICTURE
        self._failure: tuple[type[TalkheadError], str] | None = None
        self._closed = threading.Event()
        self._arrivals: Queue[_Arrival | None] = Queue(MAX_QUEUED)  # None: the worker has failed
        self._outgoing: SimpleQueue[tuple[dict[str, Any], tuple[memoryview, ...]] | None] = (
            SimpleQueue()
        )
        self._process = _start()
        try:
            self._configure(config)
            self.size, self.facts, self.cost = self._wait_until_ready()
        except BaseException:  # KeyboardInterrupt, too: Ctrl-C does not reach the worker
            self._abandon()
            raise
        for work in (self._read, self._write):
            threading.Thread(target=work, name="talkhead-live-worker", daemon=True).start()

    @property
    def pace(self) -> Pace:
        """Pace of the lines that begin from now on."""
        return self._pace

    @pace.setter
    def pace(self, pace: Pace) -> None:
        self._pace = pace
        self._send({"type": "pace", "pace": pace})

    @property
    def statistics(self) -> LiveStatistics:
        """What has been done so far, after the last frame that was returned."""
        with self._lock:
            waiting_s = self._statistics.waiting_s + self._sent_s - self._received_s
            return replace(
                self._statistics, waiting_s=max(0.0, waiting_s), n_interruptions=self._epoch
            )

    def prepare_thread(self) -> None:
        """Do nothing: the calling thread only waits for the worker."""

    def push(self, samples: Float32, sample_rate: int, now_s: float) -> None:
        """Add sound to the line that is being spoken; the first sound begins one.

        Args:
            samples: [n] in [-1, 1], one channel.
            sample_rate: Samples per second.
            now_s: Not used: the worker has a clock of its own.

        Raises:
            TalkheadError: For an impossible sample rate, samples that are not numbers, if too much
                sound is waiting, or if the worker has failed.
        """
        check_sound(samples, sample_rate)
        if self._failure is not None:
            raise self._error()
        if len(samples) == 0:
            return
        seconds = len(samples) / sample_rate
        # A frame less than the worker allows, for the delay and the rounding of its resampler: a
        # refusal there would end the session.
        check_waiting(self.statistics.waiting_s + seconds + FRAME_S)
        with self._lock:
            self._sent_s += seconds
        content = np.array(samples, np.float32).data.cast("B")
        self._send({"type": "push", "sample_rate": sample_rate}, content)

    def flush(self) -> None:
        """End the line: what was pushed is spoken to its end."""
        self._send({"type": "flush"})

    def interrupt(self) -> int:
        """Drop everything that was not returned yet, frames on their way included; the mouth closes.

        Returns:
            The new epoch.
        """
        with self._lock:
            self._epoch += 1
            self._received_s = self._sent_s
            self._statistics = replace(self._statistics, waiting_s=0.0)
            self._send({"type": "interrupt"})
            return self._epoch

    def step(self, now_s: float) -> LiveFrame | None:
        """Wait for the next frame.

        Args:
            now_s: Not used: the worker has a clock of its own.

        Returns:
            The frame; None if there was none for STEP_S.

        Raises:
            MediaError: The footage can no longer be read.
            PackageError: The weights that a line needs are missing or damaged.
            TalkheadError: The worker has ended.
        """
        while not self._closed.is_set():
            try:
                arrival = self._arrivals.get(timeout=0.0 if self._failure else STEP_S)
            except Empty:
                arrival = None
            if arrival is None and self._failure is not None:
                raise self._error()
            if arrival is None:
                return None
            with self._lock:
                if arrival.frame.epoch == self._epoch:
                    self._statistics = arrival.statistics
                    self._received_s = arrival.received_s
                    return arrival.frame
        return None

    def wait_s(self, now_s: float) -> float:
        """Return 0: it is `step` that waits.

        Args:
            now_s: Not used.

        Returns:
            Seconds.
        """
        return 0.0

    def close(self) -> None:
        """End the worker."""
        self._closed.set()
        self._outgoing.put(None)
        self._wait()

    # ------------------------------------------------------------------------------ inside

    def _configure(self, config: WorkerConfig) -> None:
        """Send the worker its configuration."""
        header = {
            "parent": os.getpid(),
            "maker": config.maker,
            "identity": config.identity,
            "home": config.home,
            "options": asdict(config.options),
            "is_measured": config.is_measured,
            "device": config.device,
        }
        with suppress(OSError):  # if it has died, reading finds out
            write_message(_pipe(self._process.stdin), header)

    def _abandon(self) -> None:
        """End a worker that has not become ready, and close its pipes."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # buffered data for a worker that has ended
                _pipe(stream).close()

    def _wait(self) -> int:
        """Wait until the worker has ended, and kill it if that takes long; returns its exit code."""
        try:
            return self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _send(self, header: dict[str, Any], *content: memoryview) -> None:
        """Queue a message to the worker.

        MAX_WAITING_S limits the sound that is queued between two interruptions. The number of messages
        without sound, which are short, is not limited.
        """
        self._outgoing.put((header, content))

    def _write(self) -> None:
        """Write the queued messages, in a thread; closing the pipe ends the worker."""
        pipe = _pipe(self._process.stdin)
        try:
            while (message := self._outgoing.get()) is not None:
                write_message(pipe, message[0], *message[1])
            pipe.close()
        except OSError:
            pass  # the worker has ended; the reading thread finds out why

    def _read(self) -> None:
        """Read frames, in a thread, until the worker ends."""
        pipe = _pipe(self._process.stdout)
        try:
            while (message := read_message(pipe)) is not None and message[0]["type"] == "frame":
                self._put(self._arrival(*message))
            self._failure = self._failure_of(None if message is None else message[0])
        except Exception as error:  # passed on to the thread that calls `step`
            self._failure = TalkheadError, one_line(error)
        self._put(None)
        pipe.close()

    def _put(self, item: _Arrival | None) -> None:
        """Queue a frame for `step`, which may not be called for a long time."""
        while not self._closed.is_set():
            try:
                self._arrivals.put(item, timeout=STEP_S)
                return
            except Full:
                if item is None:  # `step` sees the failure without it
                    return

    def _arrival(self, header: dict[str, Any], content: UInt8) -> _Arrival:
        """Convert a message to the frame that it contains."""
        n_audio = header["n_audio"]
        if n_audio < len(content):
            width, height = self.size
            self._image = content[n_audio:].reshape(height, width, -1)
        assert self._image is not None
        audio = content[:n_audio].view(np.int16)
        code = np.array(header["code"], np.float32)
        frame = LiveFrame(self._image, audio, self.sample_rate, **header["frame"], code=code)
        return _Arrival(frame, LiveStatistics(**header["statistics"]), header["received_s"])

    def _wait_until_ready(self) -> tuple[tuple[int, int], LiveFacts, FrameCost | None]:
        """Wait until the worker has loaded the person; returns size of the pictures, facts and cost."""
        message = read_message(_pipe(self._process.stdout))
        header = None if message is None else message[0]
        if header is None or header["type"] != "ready":
            self._failure = self._failure_of(header)
            raise self._error()
        width, height = header["size"]
        facts, cost = header["facts"], header["cost"]
        facts["reach"], facts["rest"] = tuple(facts["reach"]), tuple(facts["rest"])
        return (width, height), LiveFacts(**facts), cost and FrameCost(**cost)

    def _failure_of(self, header: dict[str, Any] | None) -> tuple[type[TalkheadError], str]:
        """Return why the worker has ended: its own message, or the way in which it died."""
        if header is None:
            code = self._wait()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            return TalkheadError, (
                f"the worker of the live session died ({how}), possibly out of memory. Begin a new "
                "session"
            )
        kind = getattr(errors, header["kind"], TalkheadError)
        return kind, header["message"]

    def _error(self) -> TalkheadError:
        """Make the error that tells why the worker has failed."""
        assert self._failure is not None
        kind, message = self._failure
        return kind(message)


def worker_engine(
    identity: str | Path | Avatar | None,
    options: LiveOptions,
    home: Path | str | None,
    device: str = "auto",
) -> WorkerEngine:
    """Start a worker for an identity.

    Args:
        identity: Name of an identity, or folder of a package. None: the identity fitted last.
        options: Options of the session.
        home: Folder of the identities. None: `TALKHEAD_HOME`, or the user's data folder.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        Its engine.

    Raises:
        PackageError: There is no such identity, or it is damaged.
        TalkheadError: The identity is a loaded one, or the worker ended before it was ready.
    """
    if identity is not None and not isinstance(identity, (str, os.PathLike)):
        raise TalkheadError(
            "an identity that is loaded in this process cannot be used in a worker. Pass its name"
        )
    name = None if identity is None else os.fspath(identity)
    folder = None if home is None else os.fspath(home)
    # A server decides by the cost whether it accepts the session. Voice agents have one session each.
    is_measured = not options.rendered
    return WorkerEngine(WorkerConfig(name, folder, options, is_measured=is_measured, device=device))


def _start() -> subprocess.Popen[bytes]:
    """Start a worker, which waits for its configuration."""
    command = [sys.executable, "-c", START, *sys.path]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **OWN_GROUP)


def _pipe(stream: IO[bytes] | None) -> Any:
    """Return a pipe of a process that has one."""
    assert stream is not None
    return stream
