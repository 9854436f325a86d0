"""Find, start and stop the ffmpeg program, for the other modules of this package.

The program is that of imageio-ffmpeg; `set_ffmpeg` or the environment variable TALKHEAD_FFMPEG selects
another. ffprobe is never needed.
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
"""Largest number of frames that wait for the video encoder."""
PIPE_BYTES = 1 << 20
"""Size of a pipe, the largest that Linux allows every user. The default of 64 KiB is a twelfth of a
512x512 picture.
"""

STALL_S = 60.0
"""Seconds without progress after which a program is ended."""
MIN_BYTES_S = 4 << 20
"""Slowest expected speed of reading and copying whole files, bytes per second."""
MAX_MEMORY_BYTES = 3 << 30
"""Memory limit of a program that reads a file, if the system can enforce it: damaged files can
request any amount. Decoding 4K takes a fifth of it."""
MAX_OUTPUT_BYTES = 256 << 20
"""Largest output for `run`: the times of four hours of pictures, 120 per second."""
MAX_WORDS_BYTES = 16 << 20
"""Largest output for `report`."""
OWN_GROUP: dict[str, Any] = {
    "start_new_session": True,  # ignored on Windows
    "creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # only on Windows
}
"""Keywords of `subprocess.Popen` for a program that Ctrl-C in a terminal does not reach: this process
handles it, by ending the program and cleaning up."""

PathLike = str | os.PathLike[str]

_chosen_ffmpeg: str | None = None


def set_ffmpeg(path: PathLike | None) -> None:
    """Select the ffmpeg program.

    Args:
        path: Its path; None for the default one.

    Raises:
        MediaError: It is not an executable program.
    """
    global _chosen_ffmpeg
    _chosen_ffmpeg = None if path is None else _runnable(os.fspath(path))


def ffmpeg_path() -> str:
    """Return the ffmpeg in use: that of `set_ffmpeg`, TALKHEAD_FFMPEG or imageio-ffmpeg, in this order.

    Returns:
        Path of the program.

    Raises:
        MediaError: There is none, or it is not executable.
    """
    if _chosen_ffmpeg is not None:
        return _chosen_ffmpeg
    if named := os.environ.get("TALKHEAD_FFMPEG"):
        return _runnable(named)
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise MediaError(
            "no ffmpeg was found. Reinstall imageio-ffmpeg, or set TALKHEAD_FFMPEG to the path of one."
        ) from error


def _runnable(path: str) -> str:
    found = shutil.which(path)
    if found is None:
        raise MediaError(f"{path}: not a program that can be run. Pass the path of an ffmpeg.")
    return found


class Process:
    """A running ffmpeg. Its messages are drained while it runs, so that it never blocks on them."""

    def __init__(
        self,
        graph: Any,
        *,
        fed: bool = False,
        read: bool = False,
        reports: bool = False,
        skipped_s: float = 0.0,
        stall_s: float | None = None,
    ) -> None:
        """Start ffmpeg.

        Args:
            graph: A graph of ffmpeg-python.
            fed: It reads pictures from standard input.
            read: Its output is read by `fill`.
            reports: It reports its progress, for `finish`.
            skipped_s: Length of the part that may be decoded before the first output, seconds.
            stall_s: Seconds without progress after which `fill` and `feed` end the program. None:
                STALL_S.

        Raises:
            MediaError: The program cannot be started.
        """
        command = [ffmpeg_path(), "-hide_banner", "-nostdin", "-v", "error", "-y"]
        command += ["-progress", "pipe:1"] if reports else []
        # Together, these keep the offsets between streams, and the earliest stream begins at 0.
        command += ["-copyts", "-start_at_zero"]
        self.popen = _started(
            ffmpeg.compile(graph, cmd=command),
            stdin=subprocess.PIPE if fed else subprocess.DEVNULL,
            stdout=subprocess.PIPE if read or reports else subprocess.DEVNULL,
            **OWN_GROUP,
        )
        for pipe in (self.popen.stdin, self.popen.stdout):
            _widen(pipe)
        if not fed:  # encoding our own pictures is not limited
            _limit_memory(self.popen)
        self._complaints: deque[str] = deque(maxlen=50)
        self._drain = threading.Thread(target=self._collect, daemon=True)
        self._drain.start()
        self._skipped_s = skipped_s
        self._watch = _Watch(self.popen, stall_s) if read or reports else None

    def _collect(self) -> None:
        stream = self.popen.stderr
        assert stream is not None
        for line in stream:
            self._complaints.append(line.decode("utf-8", "replace"))
        stream.close()

    @property
    def stdin(self) -> IO[bytes]:
        """Standard input of a fed program."""
        assert self.popen.stdin is not None
        return self.popen.stdin

    def fill(self, view: memoryview) -> int:
        """Read output into a view. The program is ended when no output arrives for `stall_s`.

        Args:
            view: Writable bytes.

        Returns:
            Number of bytes read: the length of the view, or fewer at the end.
        """
        assert self.popen.stdout is not None and self._watch is not None
        n_read = 0
        while n_read < len(view):
            with self._watch.waiting(self._watch.stall_s + self._skipped_s):
                got: int = self.popen.stdout.readinto1(view[n_read:])  # type: ignore[attr-defined]
            self._skipped_s = 0.0
            if not got:
                break
            n_read += got
        return n_read

    def feed(self, data: bytes) -> None:
        """Write to standard input at once. The program is ended when it does not read for `stall_s`.

        Args:
            data: The bytes.

        Raises:
            OSError: The program has ended.
        """
        assert self._watch is not None
        with self._watch.waiting(self._watch.stall_s):
            self.stdin.write(data)
            self.stdin.flush()

    def finish(self) -> int:
        """Wait for a program that reports its progress; it is ended when it makes none.

        Returns:
            The exit status.
        """
        assert self.popen.stdout is not None and self._watch is not None
        last: dict[bytes, bytes] = {}
        with self._watch.waiting(STALL_S):
            for line in self.popen.stdout:
                name, _, value = line.strip().partition(b"=")
                if name in (b"total_size", b"out_time_us") and last.get(name) != value:
                    last[name] = value
                    n_bytes = last.get(b"total_size", b"")
                    # At the end, the output may be moved within its file.
                    copying_s = int(n_bytes) / MIN_BYTES_S if n_bytes.isdigit() else 0.0
                    self._watch.extend(STALL_S + copying_s)
        return self.wait()

    def wait(self) -> int:
        """Wait until the program has ended and its messages are collected.

        Returns:
            The exit status.
        """
        status = self.popen.wait()
        self._drain.join()
        return status

    def words(self) -> str:
        """Summarize ffmpeg's messages.

        Returns:
            One line.
        """
        fate = []
        if self._watch is not None and self._watch.has_ended:
            fate = [f"it made no progress for {self._watch.stall_s:g} s and was ended"]
        return summarize_errors([*self._complaints, *fate])

    def stop(self) -> None:
        """End the program at once, if it still runs, and release its resources."""
        self.popen.kill()
        if self._watch is not None:
            self._watch.stop()
        self.wait()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # buffered data for a program that has ended
                    stream.close()


class _Watch:
    """A thread that ends a program which makes no progress."""

    def __init__(self, popen: subprocess.Popen[bytes], stall_s: float | None = None) -> None:
        self.has_ended = False
        self.stall_s = STALL_S if stall_s is None else stall_s
        self._popen = popen
        self._until: float | None = None
        self._stopped = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self._stopped.wait(min(1.0, self.stall_s / 4)):
            until = self._until
            if until is not None and time.monotonic() > until:
                self.has_ended = True
                self._popen.kill()
                return

    @contextlib.contextmanager
    def waiting(self, max_s: float) -> Iterator[None]:
        """Limit the duration of the block; time outside of such blocks does not count."""
        self.extend(max_s)
        try:
            yield
        finally:
            self._until = None

    def extend(self, max_s: float) -> None:
        """Restart the limit of the running block."""
        self._until = time.monotonic() + max_s

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()


def _started(command: list[str], **pipes: Any) -> subprocess.Popen[bytes]:
    """Start a program whose standard error is a pipe. Raises MediaError if this fails."""
    try:
        return subprocess.Popen(command, stderr=subprocess.PIPE, env=_environment(), **pipes)
    except OSError as error:
        raise MediaError(f"{command[0]}: could not be started ({error.strerror}).") from error


def _environment() -> dict[str, str]:
    """Return the environment variables for ffmpeg.

    The program of imageio-ffmpeg is linked statically and crashes when it loads the system's character
    converters, as it does for the name of every MPEG-TS service. So it must not find any.
    """
    return {**os.environ, "GCONV_PATH": os.devnull}


def _widen(pipe: IO[bytes] | None) -> None:
    """Enlarge a pipe to hold a picture, if the system allows it: both ends then work in parallel."""
    if sys.platform == "linux" and pipe is not None:
        with contextlib.suppress(OSError):  # not allowed for this user: it keeps its size
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _limit_memory(popen: subprocess.Popen[bytes]) -> None:
    """Limit the memory of a program to MAX_MEMORY_BYTES, if the system can; beyond it, it fails."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):  # it may have ended already
            resource.prlimit(popen.pid, resource.RLIMIT_DATA, (MAX_MEMORY_BYTES,) * 2)


class Feeder:
    """A thread that writes queued frames to a pipe."""

    def __init__(self, pipe: IO[bytes]) -> None:
        """Start the thread.

        Args:
            pipe: Standard input of a program.
        """
        self._pipe = pipe
        self._queue: queue.Queue[bytes | None] = queue.Queue(QUEUED_FRAMES)
        self._broken = False
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def _feed(self) -> None:
        # After a failure it continues to empty the queue, so that `put` never blocks forever.
        while (frame := self._queue.get()) is not None:
            try:
                if not self._broken:
                    self._pipe.write(frame)
            except (OSError, ValueError):  # ValueError: closed by stop()
                self._broken = True

    def put(self, frame: bytes) -> bool:
        """Queue a frame.

        Args:
            frame: Its bytes.

        Returns:
            False if the pipe is broken.
        """
        self._queue.put(frame)
        return not self._broken

    def finish(self) -> bool:
        """Wait until all frames are written, and close the pipe.

        Returns:
            False if that failed.
        """
        self.abandon()
        try:
            self._pipe.close()
        except OSError:
            self._broken = True
        return not self._broken

    def abandon(self) -> None:
        """End the thread."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()


_UNINFORMATIVE = ("Error opening input file", "Error opening output file", "Conversion failed")


def summarize_errors(lines: Iterable[str]) -> str:
    """Return the last two informative lines.

    Repetitions, ffmpeg's addresses in brackets and control characters are removed.

    Args:
        lines: Messages of ffmpeg.

    Returns:
        One line.
    """
    kept: list[str] = []
    for line in lines:
        line = "".join(c if c.isprintable() else " " for c in line)
        text = re.sub(r"^(\s*\[[^\]]*\])+\s*", "", line).strip().rstrip(".")
        if text and text not in kept and not text.startswith(_UNINFORMATIVE):
            kept.append(text)
    return "; ".join(kept[-2:])


def report(*arguments: str, beyond_s: float = 0.0) -> str:
    """Run ffmpeg and return its report. The arguments need not be a complete command.

    It is ended when it takes longer than STALL_S + beyond_s or reports more than MAX_WORDS_BYTES; the
    last line then reports this.

    Args:
        *arguments: Arguments of ffmpeg.
        beyond_s: Additional seconds.

    Returns:
        What it printed to stderr.

    Raises:
        MediaError: The program cannot be started.
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
    """Run ffmpeg until it ends.

    It is ended when it makes no progress or, with status 1, when its output exceeds MAX_OUTPUT_BYTES.

    Args:
        graph: A graph of ffmpeg-python.

    Returns:
        Exit status, output and messages.

    Raises:
        MediaError: The program cannot be started.
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
