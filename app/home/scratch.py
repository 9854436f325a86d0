"""Folders that last as long as their process: what a killed one has left goes with the next command.

HOME/scratch/
  <token>/        pictures of a line that is being made, say
  <token>.lock    held by the process whose folder it is
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
    """A block with a fresh folder in the home folder, which is removed at its end; or, by
    `clear_scratch`, after a kill. Where the home can't be written it is in the system's own folder
    for temporary files."""
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
    """The home folder at path (see `Home.locate`), rid of what killed processes have left there."""
    home = Home.locate(path)
    clear_scratch(home)
    return home


def clear_scratch(home: Home) -> None:
    """Remove the folders of processes that are gone."""
    root = _folder(home)
    if not root.is_dir():
        return
    with suppress(OSError, TalkheadError):  # another user's home, say; it is no one's command
        for entry in root.iterdir():
            if entry.suffix == LOCK_SUFFIX:
                is_locked(entry)  # removes it where it isn't
            elif (lock := FileLock.take(_lock_of(entry))) is not None:
                remove(entry)
                lock.release()


def _folder(home: Home) -> Path:
    return home.path / "scratch"


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + LOCK_SUFFIX)
