"""Plan when the lines of a video are spoken. Speech is rarely exactly as long as its place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf

from talkhead.app.dubbing.timeline import (
    FITS,
    LATE,
    MOVED,
    STRETCHED,
    UNPLACED,
    Line,
    Placement,
    Timeline,
)
from talkhead.config import bounded, one_of

REFUSE, OVERRUN = "refuse", "overrun"
"""What happens to lines without a place: they are reported, or delay the lines after them."""
_ROUNDING_S = 1e-9


@dataclass(frozen=True)
class PlacementLimits:
    """How far speech may depart from its place.

    Attributes:
        max_speed: Highest speed of the speech, relative to its recording.
        max_early_s: How much before its place it may begin, seconds.
        gap_s: Shortest pause to another line when free room is used, seconds.
        overflow: REFUSE or OVERRUN.
        overlaps: Lines of different speakers may be spoken at the same time.
    """

    max_speed: float = bounded(1.15, 1.0, 2.0)
    max_early_s: float = bounded(0.5, 0.0, 60.0)
    gap_s: float = bounded(0.1, 0.0, 10.0)
    overflow: str = one_of(REFUSE, REFUSE, OVERRUN)
    overlaps: bool = False


def plan_lines(
    lines: Sequence[Line],
    durations: Sequence[float],
    length_s: float,
    limits: PlacementLimits | None = None,
) -> Timeline:
    """Place lines on the timeline of a video.

    A line that fits into its place begins at its start. A longer one first uses the free room up to the
    next line, then begins earlier if there is room before it, and then is sped up. If that is not enough,
    it is UNPLACED, or with OVERRUN delays the lines after it, at the highest speed. Nothing is spoken
    before 0 or after the end of the video, and the order of the lines is kept.

    Args:
        lines: Lines in any order.
        durations: Duration of the speech of each, seconds.
        length_s: Length of the video, seconds.
        limits: Limits; None for the defaults.

    Returns:
        The timeline. See `Timeline.check`.

    Raises:
        ValueError: There is not one duration for each line.
    """
    limits = limits or PlacementLimits()
    groups: dict[str | None, list[tuple[Line, float]]] = {}
    for line, duration in sorted(zip(lines, durations, strict=True), key=lambda one: one[0].order):
        groups.setdefault(line.speaker if limits.overlaps else None, []).append((line, duration))
    placements = [one for group in groups.values() for one in _place_all(group, length_s, limits)]
    return Timeline(length_s, tuple(sorted(placements, key=lambda one: one.line.order)))


def _place_all(
    lines: Sequence[tuple[Line, float]], length_s: float, limits: PlacementLimits
) -> Iterable[Placement]:
    """Yield the placements of lines, with durations, that may not overlap; they are in order."""
    spoken_until = -inf
    for (line, duration), after in zip(lines, [*lines[1:], None], strict=True):
        begins = inf if after is None else after[0].start_s
        room_end = min(length_s, max(min(line.end_s, begins), begins - limits.gap_s))
        placed = _place(line, duration, (spoken_until, room_end), limits)
        may_end = room_end if limits.overflow == REFUSE else length_s
        if placed.end_s > may_end:
            placed = replace(placed, status=UNPLACED)
        yield placed
        spoken_until = max(spoken_until, room_end if placed.status == UNPLACED else placed.end_s)


def _place(
    line: Line, duration: float, free: tuple[float, float], limits: PlacementLimits
) -> Placement:
    """Place a line after the end of the speech before it, and before the end of its room if possible."""
    spoken_until, room_end = free
    earliest = spoken_until + limits.gap_s
    start = line.start_s if line.start_s >= spoken_until else earliest
    status = FITS if start == line.start_s else LATE
    if start + duration > room_end + _ROUNDING_S:
        early = max(room_end - duration, line.start_s - limits.max_early_s, earliest, 0.0)
        if early < start:
            start, status = early, MOVED
    room = max(0.0, room_end - start)
    if duration <= room + _ROUNDING_S:
        return Placement(line, start, min(start + duration, room_end), 1.0, status, room)
    status = LATE if status == LATE else STRETCHED
    if duration <= room * limits.max_speed:
        return Placement(line, start, room_end, duration / room, status, room)
    speed = limits.max_speed
    return Placement(line, start, start + duration / speed, speed, status, room)
