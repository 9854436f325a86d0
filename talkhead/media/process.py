"""Finding, starting and stopping the ffmpeg program, for `talkhead.media.reader` and its parts.

The program is the one that comes with imageio-ffmpeg; `set_ffmpeg` or the environment variable
TALKHEAD_FFMPEG names another. ffprobe is never needed.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import IO, Any

import ffmpeg
import imageio_ffmpeg

from talkhead.errors import MediaError

if sys.platform == "linux":
    import fcntl
    import resource

QUEUED_FRAMES = 8
"""Frames that wait for the video encoder at most."""
PIPE_BYTES = 1 << 20
"""What a pipe may hold, the most that Linux lets anybody have; its default of 64 KiB is a twelfth of
a picture of 512x512."""

STALL_S = 60.0
"""Seconds after which a program that shows no progress is ended."""
MIN_BYTES_S = 4 << 20
"""How fast whole files are read and copied at the least, bytes a second."""
MAX_MEMORY_BYTES = 3 << 30
"""What a program that reads a file may hold, where the system can limit it: damaged files ask for
any amount. Decoding 4K takes a fifth of it."""
MAX_OUTPUT_BYTES = 256 << 20
"""What `run` takes from a program at most: the times of four hours of pictures, 120 a second."""
MAX_WORDS_BYTES = 16 << 20
"""What `report` takes from a program at most."""
_NEW_GROUP: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # Windows has it alone

PathLike = str | os.PathLike[str]

_chosen_ffmpeg: str | None = None


def set_ffmpeg(path: PathLike | None) -> None:
    """Use this ffmpeg from now on (None: again the default one).

    Raises MediaError if it is not a program that can be run.
    """
    global _chosen_ffmpeg
    _chosen_ffmpeg = None if path is None else _runnable(os.fspath(path))


def ffmpeg_path() -> str:
    """The ffmpeg in use: `set_ffmpeg`'s, else TALKHEAD_FFMPEG's, else imageio-ffmpeg's.

    Raises MediaError if there is none or it can't be run.
    """
    if _chosen_ffmpeg is not None:
        return _chosen_ffmpeg
    if named := os.environ.get("TALKHEAD_FFMPEG"):
        return _runnable(named)
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise MediaError(
            "no ffmpeg was found. Reinstall imageio-ffmpeg, or name a program by TALKHEAD_FFMPEG."
        ) from error


def _runnable(path: str) -> str:
    found = shutil.which(path)
    if found is None:
        raise MediaError(f"{path}: not a program that can be run. Give the path of an ffmpeg.")
    return found


class Process:
    """A running ffmpeg whose complaints are drained while it runs, so that it never blocks on them.

    Raises MediaError if the program can't be started.
    """

    def __init__(
        self,
        graph: Any,
        *,
        fed: bool = False,
        read: bool = False,
        told: bool = False,
        skipped_s: float = 0.0,
    ) -> None:
        """fed, read: whether it is given pictures, and whether what it makes is read, by `fill`.

        told: whether it tells its progress, for `finish`. skipped_s: what it may have to decode
        before the first output, in seconds of the file.
        """
        command = [ffmpeg_path(), "-hide_banner", "-nostdin", "-v", "error", "-y"]
        command += ["-progress", "pipe:1"] if told else []
        # Both time options: streams keep their distance, and the earliest of them begins at 0.
        command += ["-copyts", "-start_at_zero"]
        self.popen = _started(
            ffmpeg.compile(graph, cmd=command),
            stdin=subprocess.PIPE if fed else subprocess.DEVNULL,
            stdout=subprocess.PIPE if read or told else subprocess.DEVNULL,
            # Ctrl-C is ours to handle: we end ffmpeg, and tidy up.
            start_new_session=True,
            creationflags=_NEW_GROUP,
        )
        for pipe in (self.popen.stdin, self.popen.stdout):
            _widen(pipe)
        if not fed:  # what encodes our own pictures takes what it takes
            _limit_memory(self.popen)
        self._complaints: deque[str] = deque(maxlen=50)
        self._drain = threading.Thread(target=self._collect, daemon=True)
        self._drain.start()
        self._skipped_s = skipped_s
        self._watch = _Watch(self.popen) if read or told else None

    def _collect(self) -> None:
        stream = self.popen.stderr
        assert stream is not None
        for line in stream:
            self._complaints.append(line.decode("utf-8", "replace"))
        stream.close()

    @property
    def stdin(self) -> IO[bytes]:
        assert self.popen.stdin is not None
        return self.popen.stdin

    def fill(self, view: memoryview) -> int:
        """Bytes of what it makes, read into the view: the view's length, or fewer at the end.

        The program is ended when nothing comes for STALL_S.
        """
        assert self.popen.stdout is not None and self._watch is not None
        n_read = 0
        while n_read < len(view):
            with self._watch.waiting(STALL_S + self._skipped_s):
                got: int = self.popen.stdout.readinto1(view[n_read:])  # type: ignore[attr-defined]
            self._skipped_s = 0.0
            if not got:
                break
            n_read += got
        return n_read

    def finish(self) -> int:
        """The exit status of a program that tells its progress; it is ended when it makes none."""
        assert self.popen.stdout is not None and self._watch is not None
        last: dict[bytes, bytes] = {}
        with self._watch.waiting(STALL_S):
            for line in self.popen.stdout:
                name, _, value = line.strip().partition(b"=")
                if name in (b"total_size", b"out_time_us") and last.get(name) != value:
                    last[name] = value
                    n_bytes = last.get(b"total_size", b"")
                    # At the end what has been written may be moved within its file.
                    copying_s = int(n_bytes) / MIN_BYTES_S if n_bytes.isdigit() else 0.0
                    self._watch.extend(STALL_S + copying_s)
        return self.wait()

    def wait(self) -> int:
        """The exit status, after everything that was said has been collected."""
        status = self.popen.wait()
        self._drain.join()
        return status

    def words(self) -> str:
        """What ffmpeg said, in one line."""
        stalled = self._watch is not None and self._watch.has_ended
        fate = [f"it made no progress for {STALL_S:g} s and was ended"] if stalled else []
        return summarize_errors([*self._complaints, *fate])

    def stop(self) -> None:
        """End the program at once, if it still runs, and free what it held."""
        self.popen.kill()
        if self._watch is not None:
            self._watch.stop()
        self.wait()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # of what was buffered for a program now gone
                    stream.close()


class _Watch:
    """A thread that ends a program for which somebody waits in vain."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.has_ended = False
        self._popen = popen
        self._until: float | None = None
        self._stopped = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self._stopped.wait(min(1.0, STALL_S / 4)):
            until = self._until
            if until is not None and time.monotonic() > until:
                self.has_ended = True
                self._popen.kill()
                return

    @contextlib.contextmanager
    def waiting(self, most_s: float) -> Iterator[None]:
        """A block that may last so long; the time outside of such blocks doesn't count."""
        self.extend(most_s)
        try:
            yield
        finally:
            self._until = None

    def extend(self, most_s: float) -> None:
        """Let the block that is running last so long from now on."""
        self._until = time.monotonic() + most_s

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped.set()


def _started(command: list[str], **pipes: Any) -> subprocess.Popen[bytes]:
    """The program, whose standard error is a pipe. Raises MediaError if it can't be started."""
    try:
        return subprocess.Popen(command, stderr=subprocess.PIPE, env=_environment(), **pipes)
    except OSError as error:
        raise MediaError(f"{command[0]}: could not be started ({error.strerror}).") from error


def _environment() -> dict[str, str]:
    """The variables that ffmpeg is started with.

    The program of imageio-ffmpeg is linked statically and crashes when it loads the system's
    character converters, as it does for the name of every MPEG-TS service: it shall find none.
    """
    return {**os.environ, "GCONV_PATH": os.devnull}


def _widen(pipe: IO[bytes] | None) -> None:
    """Let a pipe hold a picture, where the system can: both ends then work at the same time."""
    if sys.platform == "linux" and pipe is not None:
        with contextlib.suppress(OSError):  # beyond what this user may have: it stays as it is
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _limit_memory(popen: subprocess.Popen[bytes]) -> None:
    """Let a program hold no more than MAX_MEMORY_BYTES, where the system can: it then fails."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):  # it may be gone already
            resource.prlimit(popen.pid, resource.RLIMIT_DATA, (MAX_MEMORY_BYTES,) * 2)


class Feeder:
    """A thread that hands queued frames to a pipe."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._queue: queue.Queue[bytes | None] = queue.Queue(QUEUED_FRAMES)
        self._broken = False
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def _feed(self) -> None:
        # After a failure it goes on emptying the queue, so that nobody waits for it in vain.
        while (frame := self._queue.get()) is not None:
            try:
                if not self._broken:
                    self._pipe.write(frame)
            except (OSError, ValueError):  # ValueError: closed under us, by stop()
                self._broken = True

    def put(self, frame: bytes) -> bool:
        """Queue a frame; False if the pipe is broken."""
        self._queue.put(frame)
        return not self._broken

    def finish(self) -> bool:
        """Wait until all is written and close the pipe; False if that failed."""
        self.abandon()
        try:
            self._pipe.close()
        except OSError:
            self._broken = True
        return not self._broken

    def abandon(self) -> None:
        """Let the thread end."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()


_UNINFORMATIVE = ("Error opening input file", "Error opening output file", "Conversion failed")


def summarize_errors(lines: Iterable[str]) -> str:
    """The last two telling lines, without repetitions and ffmpeg's addresses in brackets.

    What a file says in control characters is not repeated.
    """
    kept: list[str] = []
    for line in lines:
        line = "".join(c if c.isprintable() else " " for c in line)
        text = re.sub(r"^(\s*\[[^\]]*\])+\s*", "", line).strip().rstrip(".")
        if text and text not in kept and not text.startswith(_UNINFORMATIVE):
            kept.append(text)
    return "; ".join(kept[-2:])


def report(*arguments: str, beyond_s: float = 0.0) -> str:
    """What ffmpeg reports of these arguments, which need not be a complete command.

    It is ended when that takes longer than STALL_S + beyond_s, or when it reports more than
    MAX_WORDS_BYTES; the last line then says so. Raises MediaError if the program can't be started.
    """
    within_s = STALL_S + beyond_s
    command = [ffmpeg_path(), "-hide_banner", "-nostdin", *arguments]
    popen = _started(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _limit_memory(popen)
    fate: list[str] = []

    def end(words: str) -> None:
        fate.append(f"\n{words}")
        popen.kill()

    limit = threading.Timer(within_s, end, [f"it took longer than {within_s:g} s and was ended"])
    limit.start()
    try:
        assert popen.stderr is not None
        words = popen.stderr.read(MAX_WORDS_BYTES)
        if len(words) == MAX_WORDS_BYTES:
            end("it reported too much and was ended")
        status = popen.wait()
    finally:
        limit.cancel()
        popen.kill()
        popen.communicate()
    if status < 0 and not fate:
        fate.append(f"\nit crashed (signal {-status})")
    return words.decode("utf-8", "replace") + "".join(fate[:1])


def run(graph: Any) -> tuple[int, bytes, str]:
    """Exit status, output and words of an ffmpeg run to its end.

    It is ended when it makes no progress or, with status 1, more than MAX_OUTPUT_BYTES.
    """
    process = Process(graph, read=True)
    output, block = bytearray(), memoryview(bytearray(PIPE_BYTES))
    try:
        while n_read := process.fill(block):
            output += block[:n_read]
            if len(output) > MAX_OUTPUT_BYTES:
                return 1, b"", "more than can be used"
        return process.wait(), bytes(output), process.words()
    finally:
        process.stop()
