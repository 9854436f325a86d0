"""A video of a person, which is probed and hashed only once per command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from talkhead.media.probing import probe_footage
from talkhead.storage import sha256_of
from talkhead.types import MediaInfo


@dataclass(frozen=True)
class Footage:
    """A video that was checked when a command started.

    Attributes:
        path: The video file.
        sha256: Checksum of its content, 64 hex digits.
        info: Its duration, displayed size, frame rate and audio.
    """

    path: Path
    sha256: str
    info: MediaInfo

    @classmethod
    def open(cls, path: Path) -> Footage:
        """Probe and hash a video.

        Args:
            path: The video file.

        Returns:
            The footage.

        Raises:
            MediaError: The file cannot be read.
            FootageError: It has no picture or audio, is too long or has too few frames per second.
            TalkheadError: The file cannot be hashed.
        """
        info = probe_footage(path)
        return cls(path, sha256_of(path), info)
