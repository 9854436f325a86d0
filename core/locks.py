"""Locks that a process holds on a file: they end with the process, however it ends."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from talkhead.storage import file_errors

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class FileLock:
    """A lock held on a file until `release` or the end of the process, kill -9 and power cut included.

    The file is made and removed with the lock; what is in it says nothing.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    @classmethod
    def take(cls, path: Path) -> FileLock | None:
        """The lock on path, or None when somebody holds it. Raises TalkheadError like any file."""
        with file_errors(path):
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
                if not _try_lock(descriptor):
                    os.close(descriptor)
                    return None
                if _is_still(path, descriptor):
                    return cls(path, descriptor)
                os.close(
                    descriptor
                )  # its holder removed the file just now: that lock is worth nothing

    def release(self) -> None:
        """Let others take it."""
        with suppress(OSError):  # Windows removes no open file; one that is left does no harm
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock on path. Raises TalkheadError like any file."""
    if not path.exists():
        return False
    lock = FileLock.take(path)
    if lock is not None:
        lock.release()
    return lock is None


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether path still names the opened file."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (named.st_ino, named.st_dev) == (held.st_ino, held.st_dev)
