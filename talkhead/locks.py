"""File locks, which the operating system releases when the process ends for any reason."""

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
"""Seconds between attempts to take a lock that another process holds."""
LOCKED_BYTE = 1 << 30
"""On Windows, no process can read a locked byte, so this one is far past the content."""
MAX_NOTE_BYTES = 1024
HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        pid: Its ID; 0 if unknown.
        host: Name of its machine.
        since: Unix time.
    """

    pid: int = 0
    host: str = ""
    since: float = bounded(0.0, 0.0, 1e11)

    def __str__(self) -> str:
        """Format as part of a sentence: process 123 since 14:03 on 2 May."""
        if not self.pid:
            return "another process"
        elsewhere = f" on {self.host}" if self.host != platform.node() else ""
        start = time.localtime(self.since)
        return f"process {self.pid}{elsewhere} since {time.strftime('%H:%M on %d %B', start)}"


class FileLock:
    """A lock on a file, held until `release` or the end of the process, even by kill -9 or power failure.

    The file is made and removed with the lock. Its content describes the process that holds the lock
    (`holder_of`); the system determines whether it is held.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        """Wrap a file that is already locked.

        Args:
            path: The file.
            descriptor: Its open descriptor.
        """
        self._path, self._descriptor = path, descriptor

    @classmethod
    def take(cls, path: Path) -> FileLock | None:
        """Try to take a lock.

        Args:
            path: The file.

        Returns:
            The lock, None if another process holds it.

        Raises:
            TalkheadError: The file cannot be made.
        """
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
                # Its holder has just removed the file, so the lock has no effect.

    def release(self) -> None:
        """Release the lock."""
        with suppress(OSError):  # Windows can't remove open files; a leftover one is harmless
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


@contextmanager
def hold_lock(path: Path, busy: Callable[[Holder], None]) -> Iterator[None]:
    """Hold a lock inside the block, waiting until it is free.

    Args:
        path: The file.
        busy: Called before each wait with the holder; it may raise to stop waiting.

    Yields:
        None.

    Raises:
        TalkheadError: The file cannot be made.
    """
    while (lock := FileLock.take(path)) is None:
        busy(holder_of(path))
        time.sleep(POLL_S)
    try:
        yield
    finally:
        lock.release()


def holder_of(path: Path) -> Holder:
    """Return the process that holds a lock, as recorded in its file.

    Args:
        path: The file.

    Returns:
        The holder; unknown if the file has not been written yet.
    """
    try:
        with path.open("rb") as file:
            return from_json(Holder, decode_json(file.read(MAX_NOTE_BYTES)))
    except (OSError, ValueError, ContentError):  # not written yet, or the lock is free by now
        return Holder()


def is_locked(path: Path) -> bool:
    """Check whether a lock is held.

    Args:
        path: The file.

    Returns:
        True if a process holds it.

    Raises:
        TalkheadError: The file cannot be opened.
    """
    if not path.exists():
        return False
    lock = FileLock.take(path)
    if lock is not None:
        lock.release()
    return lock is None


def _write_note(descriptor: int) -> None:
    """Write the holder to the locked file; a full disk does not affect the lock."""
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
    """Return True if path still names the opened file."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (named.st_ino, named.st_dev) == (opened.st_ino, opened.st_dev)
