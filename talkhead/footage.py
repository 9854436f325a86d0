"""A video of a person, which is probed and hashed only once per command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from talkhead.config import limits, read_object
from talkhead.errors import TalkheadError
from talkhead.media.probing import probe_footage
from talkhead.storage import sha256_of
from talkhead.types import MediaInfo

MAX_CLIPS = 32
"""Largest number of clips that are joined to one video."""
CLIPS_SUFFIX = ".clips.json"
"""Suffix of the record beside a joined video."""


@dataclass(frozen=True)
class Clip:
    """One of the clips that a video was joined from.

    Attributes:
        path: The file that it was read from.
        sha256: Checksum of its content, 64 hex digits.
        n_frames: Number of its frames in the joined video.
        has_images: It looks like the first clip, so that its images are used.
    """

    path: str
    sha256: str
    n_frames: int = field(metadata=limits(1, 1 << 24))
    has_images: bool


@dataclass(frozen=True)
class JoinedClips:
    """The record of a joined video.

    Attributes:
        sha256: Checksum of the joined video.
        clips: The clips in order; the first one determines how the person looks.
    """

    sha256: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class Footage:
    """A video that was checked when a command started.

    Attributes:
        path: The video file.
        sha256: Checksum of its content, 64 hex digits.
        info: Its duration, displayed size, frame rate and audio.
        clips: The clips that it was joined from; empty for an ordinary video.
    """

    path: Path
    sha256: str
    info: MediaInfo
    clips: tuple[Clip, ...] = ()

    @classmethod
    def open(cls, path: Path, needs_sound: bool = True) -> Footage:
        """Probe and hash a video, and read the record of its clips if it was joined.

        Args:
            path: The video file.
            needs_sound: Refuse a video without sound.

        Returns:
            The footage.

        Raises:
            MediaError: The file cannot be read.
            FootageError: It has no picture or audio, is too long or has too few frames per second.
            TalkheadError: The file cannot be hashed.
        """
        info = probe_footage(path, needs_sound)
        sha256 = sha256_of(path)
        return cls(path, sha256, info, recorded_clips(path, sha256))

    @property
    def name(self) -> str:
        """Name of the file, or of the first of several clips."""
        if not self.clips:
            return self.path.name
        return f"{Path(self.clips[0].path).name} (+{len(self.clips) - 1} more)"

    @property
    def title(self) -> str:
        """Path of the file, for messages; the name if it was joined from clips."""
        return self.name if self.clips else str(self.path)


def clips_record(video: Path) -> Path:
    """Return where the record of a joined video is stored.

    Args:
        video: The joined video.

    Returns:
        A path beside it.
    """
    return video.with_name(video.name + CLIPS_SUFFIX)


def recorded_clips(video: Path, sha256: str) -> tuple[Clip, ...]:
    """Read the record of the clips that a video was joined from.

    Args:
        video: The video.
        sha256: Its checksum; the record of another content does not count.

    Returns:
        The clips; () for an ordinary video.
    """
    record = clips_record(video)
    if not record.is_file():
        return ()
    try:
        joined = read_object(record, JoinedClips, "")
    except TalkheadError:  # damaged, or not a record
        return ()
    return joined.clips if joined.sha256 == sha256 else ()


def first_frames(clips: Sequence[Clip]) -> tuple[int, ...]:
    """Return the first frame of each clip but the first one, at which two clips are joined.

    Args:
        clips: The clips of a joined video.

    Returns:
        Frame numbers, ascending; none for fewer than two clips.
    """
    return tuple(accumulate(clip.n_frames for clip in clips[:-1]))
