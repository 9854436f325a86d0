"""Items that a voice agent has sent and the live session has not returned yet, in their order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from talkhead.app.live.frames import FRAME_S, LiveFrame

Item = TypeVar("Item")
TOLERANCE_S = 1e-6


@dataclass(frozen=True)
class _Entry(Generic[Item]):
    """An item, and the duration of its audio.

    Attributes:
        item: The item.
        duration_s: Seconds of its audio. None: it is not audio.
        ends_line: True if it follows the last frame of a line.
    """

    item: Item
    duration_s: float | None = None
    ends_line: bool = False


class Backlog(Generic[Item]):
    """Queues audio, and returns other items once the audio before them has been returned.

    An agent's framework sends audio faster than it is played, with marks and texts in between. They
    must reach what follows in the same order as the audio.
    """

    def __init__(self) -> None:
        """Create an empty backlog."""
        self._entries: deque[_Entry[Item]] = deque()
        self._done_s = 0.0  # of the audio that was returned, since the first entry's beginning
        self._open_s: float | None = None  # audio of the line that has not ended

    @property
    def is_empty(self) -> bool:
        """True if no items are queued."""
        return not self._entries

    @property
    def is_open(self) -> bool:
        """True if audio was added since the end of the last line."""
        return self._open_s is not None

    @property
    def current(self) -> Item | None:
        """The item whose audio is returned next, if any."""
        return next((one.item for one in self._entries if one.duration_s is not None), None)

    def add_sound(self, item: Item, duration_s: float) -> None:
        """Add an item with audio that was also passed to the session.

        Args:
            item: The item.
            duration_s: Seconds of its audio.
        """
        self._entries.append(_Entry(item, duration_s))
        self._open_s = (self._open_s or 0.0) + duration_s

    def add(self, item: Item) -> None:
        """Add an item that is returned once the audio before it has been returned.

        Args:
            item: The item.
        """
        self._entries.append(_Entry(item))

    def end_line(self, item: Item) -> None:
        """Add an item that comes back with the last frame of the line, which was flushed.

        Args:
            item: The item.
        """
        self._entries.append(_Entry(item, ends_line=bool(self._open_s)))
        self._open_s = None

    def due(self) -> list[Item]:
        """Remove and return the items with no audio before them.

        Returns:
            The items, in order.
        """
        return self._take(to_end=False)

    def advance(self, frame: LiveFrame) -> list[Item]:
        """Count a frame that was returned.

        Args:
            frame: The frame.

        Returns:
            The items that follow it, in order.
        """
        if frame.is_speech:
            self._done_s += FRAME_S
        return self._take(frame.end_of_speech)

    def clear(self) -> list[Item]:
        """Drop everything, after an interruption.

        Returns:
            The items among it that are not audio, in order.
        """
        dropped = [one.item for one in self._entries if one.duration_s is None]
        self._entries.clear()
        self._done_s, self._open_s = 0.0, None
        return dropped

    def rest(self) -> list[tuple[Item, float]]:
        """Take everything, after the session has failed.

        Returns:
            All items, in order, each with the seconds of its audio that have already been returned.
        """
        taken = [(one.item, 0.0) for one in self._entries]
        if taken and self._entries[0].duration_s is not None:
            taken[0] = (taken[0][0], self._done_s)
        self.clear()
        return taken

    def _take(self, to_end: bool) -> list[Item]:
        """Take what has been returned; with `to_end` everything up to the end of the line."""
        taken = []
        while self._entries:
            first = self._entries[0]
            if first.duration_s is not None:
                if not to_end and self._done_s < first.duration_s - TOLERANCE_S:
                    break
                self._done_s = max(0.0, self._done_s - first.duration_s)
            elif first.ends_line:
                if not to_end:
                    break
                to_end, self._done_s = False, 0.0
            self._entries.popleft()
            if first.duration_s is None:
                taken.append(first.item)
        return taken
