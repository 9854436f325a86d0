"""Cue layout: divide timed words into readable subtitles.

The limits are those of broadcasters: two lines of 42 characters, 1 to 7 seconds.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import inf

MIN_S, MAX_S = 1.0, 7.0
LINGER_S = 0.4
"""Seconds that a cue stays after it is spoken, if the next one leaves time."""
GAP_S = 0.08
"""Seconds between cues, so that the change is visible."""
PAUSE_S = 0.6
"""A pause between words, in seconds, after which a new cue should begin."""

# ruff: noqa: RUF001
SENTENCE, CLAUSE = ".?!…。？！;", ",:;–—-，、："
CLOSERS = "\"'”’»)]」』"


@dataclass(frozen=True)
class Cue:
    """A subtitle of one or two lines.

    Attributes:
        start_s: When it appears, seconds.
        end_s: When it disappears, seconds.
        text: Its lines.
    """

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class SpokenWord:
    """A word with its time.

    Attributes:
        text: The word as it is written, with punctuation.
        start_s: Start, seconds.
        end_s: End, seconds.
        spaced: True if a space precedes it.
    """

    text: str
    start_s: float
    end_s: float
    spaced: bool = True


def make_cues(words: Sequence[SpokenWord], max_chars: int) -> tuple[Cue, ...]:
    """Divide words into readable cues of at most two lines.

    Of all ways to divide them, the one with the lowest cost (`_Speech.cost`) is chosen.

    Args:
        words: Words in order.
        max_chars: Characters per line. A longer word is put on a separate line.

    Returns:
        Cues in order; none if there are no words.
    """
    if not words:
        return ()
    speech = _Speech(words, max_chars)
    cheapest, begins = [0.0], [0]
    for end in range(1, len(words) + 1):
        best, begin = inf, end - 1
        for start in range(end - 1, -1, -1):
            if end - start > 1 and not speech.fits(start, end):
                break
            cost = cheapest[start] + speech.cost(start, end)
            if cost < best:
                best, begin = cost, start
        cheapest.append(best)
        begins.append(begin)
    cuts = [len(words)]
    while cuts[-1] > 0:
        cuts.append(begins[cuts[-1]])
    return _timed(speech, list(pairwise(reversed(cuts))))


class _Speech:
    """Words, with cumulative sums from which the width and the cost of any run of them are computed.

    Runs are given by the index of their first word and that of the word after them.
    """

    def __init__(self, words: Sequence[SpokenWord], max_chars: int) -> None:
        self.words, self._max_chars = words, max_chars
        widths = (word.spaced + width_of(word.text) for word in words)
        self._widths = list(accumulate(widths, initial=0))
        inner = (_cost_between(before, after) for before, after in pairwise(words))
        self._costs = list(accumulate(inner, initial=0.0))

    def fits(self, start: int, end: int) -> bool:
        """Return True if a run can be a cue."""
        if self.words[end - 1].end_s - self.words[start].start_s > MAX_S:
            return False
        if self._width(start, end) <= self._max_chars:
            return True
        first = self._widths[start] + self.words[start].spaced
        at = min(bisect_right(self._widths, first + self._max_chars) - 1, end - 1)
        return at > start and self._width(at, end) <= self._max_chars

    def cost(self, start: int, end: int) -> float:
        """Return the cost of a cue: a constant, plus penalties for an end within a sentence,
        brevity and pauses.
        """
        final = self.words[end - 1]
        following = self.words[end] if end < len(self.words) else None
        last = final.text.rstrip(CLOSERS)[-1:]
        pause_s = following.start_s - final.end_s if following else MAX_S
        until_s = following.start_s if following else final.end_s + MIN_S
        cost = 1.0 + self._costs[end - 1] - self._costs[start]
        if last not in SENTENCE and following is not None:
            cost += 0.8 if last in CLAUSE else 2.0 - 1.2 * min(1.0, pause_s / PAUSE_S)
        return cost + 4.0 * max(0.0, MIN_S - (until_s - self.words[start].start_s))

    def lines(self, start: int, end: int) -> str:
        """Return the text of a run: one line if it fits, otherwise two."""
        at = None
        if self._width(start, end) > self._max_chars:
            at = self._break_at(start, end)
        if at is None:
            return self._joined(start, end)
        return f"{self._joined(start, at)}\n{self._joined(at, end)}"

    def _break_at(self, start: int, end: int) -> int | None:
        """Return the word before which the second line begins; None if two lines cannot hold the
        words.

        Lines of similar length are preferred, with the shorter one above, and a break at
        punctuation.
        """
        best, place = inf, None
        for at in range(start + 1, end):
            upper, lower = self._width(start, at), self._width(at, end)
            if max(upper, lower) > self._max_chars:
                continue
            cost = abs(upper - lower) + 0.3 * max(0, upper - lower)
            if self.words[at - 1].text.rstrip(CLOSERS)[-1:] in SENTENCE + CLAUSE:
                cost -= 16
            if cost < best:
                best, place = cost, at
        return place

    def _width(self, start: int, end: int) -> int:
        return self._widths[end] - self._widths[start] - self.words[start].spaced

    def _joined(self, start: int, end: int) -> str:
        part = self.words[start:end]
        return "".join((" " if w.spaced and i else "") + w.text for i, w in enumerate(part))


def _cost_between(before: SpokenWord, after: SpokenWord) -> float:
    """Return the cost of two neighboring words in one cue."""
    pause = 2.0 if after.start_s - before.end_s > PAUSE_S else 0.0
    return pause + (1.5 if before.text.rstrip(CLOSERS)[-1:] in SENTENCE else 0.0)


def _timed(speech: _Speech, parts: Sequence[tuple[int, int]]) -> tuple[Cue, ...]:
    """Set the times of cues. If there is time, they stay a little longer than they are spoken, and
    for at least a second."""
    cues, words = [], speech.words
    for first, after in parts:
        start, spoken = words[first].start_s, words[after - 1].end_s
        end = max(spoken + LINGER_S, start + MIN_S)
        if after < len(words) and end > words[after].start_s - GAP_S:
            # Cues that follow each other closely change without a pause.
            begin = words[after].start_s
            end = max(begin - GAP_S, min(spoken, begin), start + GAP_S)
        shown_until = min(end, start + MAX_S)
        cues.append(Cue(round(start, 3), round(shown_until, 3), speech.lines(first, after)))
    return tuple(cues)


def width_of(text: str) -> int:
    """Return the width of a text.

    Args:
        text: The text.

    Returns:
        Width in Latin letters; Chinese, Japanese and Korean ones count two.
    """
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
