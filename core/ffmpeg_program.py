"""Finding, starting and stopping the ffmpeg program, for `talkhead.media` and its parts.

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
from collections import deque
from collections.abc import Iterable
from typing import IO, Any

import ffmpeg
import imageio_ffmpeg

from talkhead.errors import MediaError

if sys.platform == "linux":
    import fcntl

QUEUED_FRAMES = 8
"""Frames that wait for the video encoder at most."""
PIPE_BYTES = 1 << 20
"""What a pipe may hold, the most that Linux lets anybody have; its default of 64 KiB is a twelfth of
a picture of 512x512."""

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

    def __init__(self, graph: Any, *, fed: bool = False, read: bool = False) -> None:
        command = [ffmpeg_path(), "-hide_banner", "-nostdin", "-v", "error", "-y"]
        # Both time options: streams keep their distance, and the earliest of them begins at 0.
        command += ["-copyts", "-start_at_zero"]
        try:
            self.popen = subprocess.Popen(
                ffmpeg.compile(graph, cmd=command),
                stdin=subprocess.PIPE if fed else subprocess.DEVNULL,
                stdout=subprocess.PIPE if read else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_environment(),
                # Ctrl-C is ours to handle: we end ffmpeg, and tidy up.
                start_new_session=True,
                creationflags=_NEW_GROUP,
            )
        except OSError as error:
            raise MediaError(f"{command[0]}: could not be started ({error.strerror}).") from error
        for pipe in (self.popen.stdin, self.popen.stdout):
            _widen(pipe)
        self._complaints: deque[str] = deque(maxlen=50)
        self._drain = threading.Thread(target=self._collect, daemon=True)
        self._drain.start()

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

    @property
    def stdout(self) -> IO[bytes]:
        assert self.popen.stdout is not None
        return self.popen.stdout

    def wait(self) -> int:
        """The exit status, after everything that was said has been collected."""
        status = self.popen.wait()
        self._drain.join()
        return status

    def words(self) -> str:
        """What ffmpeg said, in one line."""
        return telling_lines(self._complaints)

    def stop(self) -> None:
        """End the program at once, if it still runs, and free what it held."""
        self.popen.kill()
        self.wait()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # of what was buffered for a program now gone
                    stream.close()


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


_UNTELLING = ("Error opening input file", "Error opening output file", "Conversion failed")


def telling_lines(lines: Iterable[str]) -> str:
    """The last two telling lines, without repetitions and ffmpeg's addresses in brackets."""
    kept: list[str] = []
    for line in lines:
        text = re.sub(r"^(\s*\[[^\]]*\])+\s*", "", line).strip().rstrip(".")
        if text and text not in kept and not text.startswith(_UNTELLING):
            kept.append(text)
    return "; ".join(kept[-2:])


def report(*arguments: str) -> str:
    """What ffmpeg reports of these arguments, which need not be a complete command.

    Raises MediaError if the program can't be started.
    """
    command = [ffmpeg_path(), "-hide_banner", "-nostdin", *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env=_environment(),
        )
    except OSError as error:
        raise MediaError(f"{command[0]}: could not be started ({error.strerror}).") from error
    crash = f"\nit crashed (signal {-done.returncode})" if done.returncode < 0 else ""
    return done.stderr.decode("utf-8", "replace") + crash


def run(graph: Any) -> tuple[int, bytes, str]:
    """Exit status, output and words of an ffmpeg run to its end."""
    process = Process(graph, read=True)
    try:
        output = process.stdout.read()
        return process.wait(), output, process.words()
    finally:
        process.stop()
