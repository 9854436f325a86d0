"""Locks that a process holds on a file: they end with the process, however it ends."""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from talkhead.config import bounded, from_json
from talkhead.errors import TalkheadError
from talkhead.storage import ContentError, decode_json, translate_os_errors

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

POLL_S = 0.2
"""How often a lock that another process holds is tried again."""
LOCKED_BYTE = 1 << 30
"""Windows lets nobody read a byte that is locked: it lies far behind what the file says."""
MAX_NOTE_BYTES = 1024
HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True)
class Holder:
    """Who holds a lock. since: Unix time. pid 0: a process that did not say."""

    pid: int = 0
    host: str = ""
    since: float = bounded(0.0, 0.0, 1e11)

    def __str__(self) -> str:
        """As part of a sentence: "process 123 since 14:03 on 2 May"."""
        if not self.pid:
            return "another process"
        elsewhere = f" on {self.host}" if self.host != platform.node() else ""
        start = time.localtime(self.since)
        return f"process {self.pid}{elsewhere} since {time.strftime('%H:%M on %d %B', start)}"


class FileLock:
    """A lock held on a file until `release` or the end of the process, kill -9 and power cut included.

    The file is made and removed with the lock. What is in it says who holds the lock (`holder_of`);
    it is the system that decides whether somebody does.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    @classmethod
    def take(cls, path: Path) -> FileLock | None:
        """The lock on path, or None when somebody holds it. Raises TalkheadError like any file."""
        with translate_os_errors(path):
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    is_ours = _try_lock(descriptor, path)
                    if is_ours and _is_still(path, descriptor):
                        _write_note(descriptor)
                        return cls(path, descriptor)
                except BaseException:
                    os.close(descriptor)
                    raise
                os.close(descriptor)
                if not is_ours:
                    return None
                # Its holder removed the file just now: that lock is worth nothing.

    def release(self) -> None:
        """Let others take it."""
        with suppress(OSError):  # Windows removes no open file; one that is left does no harm
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


@contextmanager
def held(path: Path, busy: Callable[[Holder], None]) -> Iterator[None]:
    """A block in which this process holds the lock on path; it waits for another one to let go.

    busy: called before each wait with who holds the lock; it may raise, to wait no longer. Raises
    TalkheadError like any file.
    """
    while (lock := FileLock.take(path)) is None:
        busy(holder_of(path))
        time.sleep(POLL_S)
    try:
        yield
    finally:
        lock.release()


def holder_of(path: Path) -> Holder:
    """Who holds the lock on path, by their own words."""
    try:
        with path.open("rb") as file:
            return from_json(Holder, decode_json(file.read(MAX_NOTE_BYTES)))
    except (
        OSError,
        ValueError,
        ContentError,
    ):  # it has not said so yet, or the lock is free by now
        return Holder()


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock on path. Raises TalkheadError like any file."""
    if not path.exists():
        return False
    lock = FileLock.take(path)
    if lock is not None:
        lock.release()
    return lock is None


def _write_note(descriptor: int) -> None:
    """Say in the locked file who holds it; a full disk takes nobody's lock away."""
    note = json.dumps(asdict(Holder(os.getpid(), platform.node(), time.time()))).encode()
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, note)


def _try_lock(descriptor: int, path: Path) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise TalkheadError(
                f"{path}: this file system has no locks. Choose a folder on another disk with --home"
            ) from error
        if error.errno not in HELD_BY_ANOTHER:
            raise
        return False
    return True


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether path still names the opened file."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (named.st_ino, named.st_dev) == (opened.st_ino, opened.st_dev)
