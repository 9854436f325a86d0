"""The server's record of each video, fit and table: a folder with a small JSON file.

HOME/server/
  videos/ID/    record.json, the audio, other uploads, the finished video
  fits/NAME/    record.json, the footage
  dubs/ID/      record.json, the table and its files
  incoming/     uploads that have not arrived completely
  tls/          certificate of --tls

The state of the work itself is that of the job (`talkhead.app.dubbing.job_store`). A folder without a
record was left by an upload that was interrupted, and is removed on startup.
"""

from __future__ import annotations

import re
import secrets
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

from talkhead.app.dubbing.job import Task
from talkhead.config import read_object
from talkhead.errors import PackageError
from talkhead.storage import make_folder, remove, write_json

RECORD = "record.json"
ID = re.compile(r"(?:video|dub)_[0-9a-f]{24}")


@dataclass(frozen=True)
class Origin:
    """Where a record comes from, and who is notified when its job has ended.

    Attributes:
        created_at: Unix time.
        key: The Idempotency-Key of the request; "" if it had none.
        request: Checksum of the request that had the key.
        callback_url: URL that is notified when the job has ended.
        is_notified: True once it was notified.
    """

    created_at: float
    key: str = ""
    request: str = ""
    callback_url: str = ""
    is_notified: bool = False


@dataclass(frozen=True)
class VideoRecord:
    """A video of the server.

    Attributes:
        id: Its ID.
        task: The task of its job.
        title: Name of the uploaded audio, or the beginning of the text.
        seconds: Duration of the audio.
        origin: Where it comes from.
        dub: ID of the table that it belongs to; "" for none.
        is_deleted: True if it is removed as soon as its job has stopped.
    """

    id: str
    task: Task
    title: str
    seconds: float
    origin: Origin
    dub: str = ""
    is_deleted: bool = False


@dataclass(frozen=True)
class FitRecord:
    """A fit of the server.

    Attributes:
        id: Name of the identity.
        task: The task of its job.
        title: Name of the uploaded footage.
        seconds: Duration of the footage.
        origin: Where it comes from.
    """

    id: str
    task: Task
    title: str
    seconds: float
    origin: Origin


@dataclass(frozen=True)
class DubRecord:
    """A table of videos.

    Attributes:
        id: Its ID.
        title: Name of the uploaded table.
        videos: IDs of its videos, in the order of its rows.
        fits: Tasks of the fits that they need.
        origin: Where it comes from.
    """

    id: str
    title: str
    videos: tuple[str, ...]
    fits: tuple[Task, ...]
    origin: Origin


Record = TypeVar("Record", VideoRecord, FitRecord, DubRecord)


class Records(Generic[Record]):
    """The records of one kind, in memory and on disk. Threads may share it.

    Args:
        path: Their folder.
        kind: Their class.
    """

    def __init__(self, path: Path, kind: type[Record]) -> None:
        self.path = path
        self._kind: type[Record] = kind
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}

    def load(self) -> list[str]:
        """Read all records, and remove folders without one.

        Returns:
            A message for each record that cannot be read. Its folder is kept.

        Raises:
            TalkheadError: The folder cannot be created.
        """
        problems = []
        for folder in sorted(make_folder(self.path).iterdir()):
            if not (folder / RECORD).exists():
                remove(folder)
                continue
            try:
                record = read_object(folder / RECORD, self._kind, "Remove its folder")
            except PackageError as error:
                problems.append(str(error))
                continue
            self._records[record.id] = record
        return problems

    def folder(self, record_id: str) -> Path:
        """Return the folder of a record.

        Args:
            record_id: ID of the record, which need not exist.

        Returns:
            The folder.
        """
        return self.path / record_id

    def find(self, record_id: str) -> Record | None:
        """Find a record.

        Args:
            record_id: Any text.

        Returns:
            The record, or None.
        """
        return self._records.get(record_id)

    def all(self) -> list[Record]:
        """List all records.

        Returns:
            The records, the oldest first.
        """
        with self._lock:
            return sorted(self._records.values(), key=lambda one: one.origin.created_at)

    def write(self, record: Record) -> None:
        """Add or replace a record. Its folder must exist.

        Args:
            record: The record.

        Raises:
            TalkheadError: It cannot be written.
        """
        write_json(self.folder(record.id) / RECORD, asdict(record))
        with self._lock:
            self._records[record.id] = record

    def remove(self, record_id: str) -> Path:
        """Remove a record with its folder.

        Args:
            record_id: ID of the record.

        Returns:
            The folder that was removed.
        """
        folder = self.folder(record_id)
        with self._lock:
            self._records.pop(record_id, None)
        (folder / RECORD).unlink(missing_ok=True)  # first: a killed process leaves no record
        remove(folder)
        return folder


def new_id(kind: str) -> str:
    """Make an ID.

    Args:
        kind: "video" or "dub".

    Returns:
        The ID, which cannot be guessed.
    """
    return f"{kind}_{secrets.token_hex(12)}"
