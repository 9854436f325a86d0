"""Scratch folders: removed at the end of a command, or by the next command after a kill.

HOME/scratch/
  <token>/        unfinished work, such as the frames of a video
  <token>.lock    locked by the process that uses the folder
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from talkhead.app.home.identities import Home
from talkhead.errors import TalkheadError
from talkhead.locks import FileLock, is_locked
from talkhead.storage import make_folder, remove

LOCK_SUFFIX = ".lock"


@contextmanager
def scratch_folder(home: Home) -> Iterator[Path]:
    """Make a folder that is removed at the end of the block, or by `clear_scratch` after a kill.

    Args:
        home: Folder of the identities. If it cannot be written, the system's temporary folder is
            used.

    Yields:
        The new folder.
    """
    folder = _folder(home) / secrets.token_hex(8)
    try:
        make_folder(folder.parent)
        lock = FileLock.take(_lock_of(folder))
    except TalkheadError:
        with tempfile.TemporaryDirectory(prefix="talkhead-") as elsewhere:
            yield Path(elsewhere)
        return
    assert lock is not None, "the name is new"
    try:
        yield make_folder(folder)
    finally:
        remove(folder)
        lock.release()


def open_home(path: Path | str | None) -> Home:
    """Find the home folder, and remove what killed processes have left in it.

    Args:
        path: See `Home.locate`.

    Returns:
        The home folder.
    """
    home = Home.locate(path)
    clear_scratch(home)
    return home


def clear_scratch(home: Home) -> None:
    """Remove the scratch folders of processes that have ended.

    Args:
        home: Folder of the identities.
    """
    root = _folder(home)
    if not root.is_dir():
        return
    with suppress(OSError, TalkheadError):  # another user's home, for example
        for entry in root.iterdir():
            if entry.suffix == LOCK_SUFFIX:
                is_locked(entry)  # removes the file if it is not locked
            elif (lock := FileLock.take(_lock_of(entry))) is not None:
                remove(entry)
                lock.release()


def _folder(home: Home) -> Path:
    return home.path / "scratch"


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + LOCK_SUFFIX)
