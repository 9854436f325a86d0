"""Timed lines of a video and their places on its timeline. Times are seconds of the video."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

from talkhead.app.dubbing.row_checks import BadRow, list_bad
from talkhead.errors import InputError

STATUSES = ("fits", "moved", "stretched", "late", "does not fit")
FITS, MOVED, STRETCHED, LATE, UNPLACED = STATUSES
"""A line is spoken at its start and at its own speed, begins earlier, is sped up as far as necessary and
allowed (and may begin earlier), begins later because of the line before (and may be sped up), or has no
place."""


@dataclass(frozen=True)
class Line:
    """Speech at a place of a video.

    Attributes:
        number: Position in the file, from 1.
        start_s: Start of its place.
        end_s: End of its place.
        speaker: Who speaks; None if the video has one speaker.
        audio: File with the speech; None if the text is to be spoken.
        text: The words; None if unknown.
        voice: Voice that speaks the text; None for the default.
        source: Line of the file on which it begins, for messages.
    """

    number: int
    start_s: float
    end_s: float
    speaker: str | None = None
    audio: Path | None = None
    text: str | None = None
    voice: str | None = None
    source: int = 0

    @property
    def order(self) -> tuple[float, float, int]:
        """Key by which lines are sorted: by time, then by position in the file."""
        return self.start_s, self.end_s, self.number


@dataclass(frozen=True)
class Placement:
    """The time at which a line is spoken.

    Attributes:
        line: The line.
        start_s: Start of the speech.
        end_s: End of the speech.
        speed: Speed relative to its recording, 1 or more.
        status: One of STATUSES. With UNPLACED, the times are those at which it would be spoken if it had
            room.
        room_s: Time that was free for it.
    """

    line: Line
    start_s: float
    end_s: float
    speed: float
    status: str
    room_s: float


@dataclass(frozen=True)
class Shot:
    """Frames of a video between two cuts.

    Attributes:
        first: Index of the first frame.
        after: Index of the frame after the last one.
    """

    first: int
    after: int

    def frames_of(self, placement: Placement, frame_rate: Fraction) -> range:
        """Find the frames of the shot that are shown while a line is spoken.

        Args:
            placement: The line.
            frame_rate: Frames per second of the video.

        Returns:
            Indices of frames; none if the line is not spoken in this shot.
        """
        first = int(placement.start_s * frame_rate)
        after = ceil(placement.end_s * frame_rate)
        return range(max(first, self.first), min(after, self.after))


@dataclass(frozen=True)
class Timeline:
    """Where the lines of a video are spoken.

    Attributes:
        length_s: Length of the video.
        placements: The lines by the start of their places.
    """

    length_s: float
    placements: tuple[Placement, ...]

    def check(self) -> None:
        """Check that every line has a place.

        Raises:
            InputError: Lines do not fit; the message names each.
        """
        unplaced = [one for one in self.placements if one.status == UNPLACED]
        if not unplaced:
            return
        rows = [
            BadRow(
                one.line.source,
                f"lasts {(one.end_s - one.start_s) * one.speed:.2f} s, but {one.room_s:.2f} s are free",
            )
            for one in unplaced
        ]
        raise InputError(
            f"{len(rows)} of {len(self.placements)} lines do not fit, even at {unplaced[0].speed:g} "
            f"times their speed. {list_bad(rows)}. Shorten them, allow a higher speed, or let them "
            "delay the lines after them"
        )
