"""Words and their times into subtitles that can be read: where to break them, how long they stay.

The limits are those that broadcasters use: two lines of 42 characters, 1 to 7 seconds.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

MIN_S, MAX_S = 1.0, 7.0
LINGER_S = 0.4
"""How much longer a cue stays than it is spoken, where the next one leaves time."""
GAP_S = 0.08
"""Between cues, so that the eye sees a change."""
PAUSE_S = 0.6
"""A silence between words after which a new cue had better begin."""

# ruff: noqa: RUF001
SENTENCE, CLAUSE = ".?!…。？！;", ",:;–—-，、："
CLOSERS = "\"'”’»)]」』"


@dataclass(frozen=True)
class Cue:
    """A subtitle of one or two lines, shown from start_s to end_s."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class SpokenWord:
    """A word as it is written, punctuation and all, and when it is said. spaced: a space is before it."""

    text: str
    start_s: float
    end_s: float
    spaced: bool = True


def make_cues(words: Sequence[SpokenWord], max_chars: int) -> tuple[Cue, ...]:
    """Words in readable cues of at most two lines of max_chars (a longer word has a line of its own).

    Of all ways to cut them the cheapest (`_Speech.cost`) is taken. Of no words there are no cues.
    """
    if not words:
        return ()
    speech = _Speech(words, max_chars)
    cheapest, begins = [0.0], [0]
    for end in range(1, len(words) + 1):
        best, begin = np.inf, end - 1
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
    """Words, with sums that tell the width and the cost of any run of them without going through it.

    Runs are given by the number of their first word and of the first one after them.
    """

    def __init__(self, words: Sequence[SpokenWord], max_chars: int) -> None:
        self.words, self._max_chars = words, max_chars
        widths = (word.spaced + width_of(word.text) for word in words)
        self._widths = list(accumulate(widths, initial=0))
        inner = (_cost_between(before, after) for before, after in pairwise(words))
        self._costs = list(accumulate(inner, initial=0.0))

    def fits(self, start: int, end: int) -> bool:
        """Whether a run can be a cue."""
        if self.words[end - 1].end_s - self.words[start].start_s > MAX_S:
            return False
        if self._width(start, end) <= self._max_chars:
            return True
        first = self._widths[start] + self.words[start].spaced
        at = min(bisect_right(self._widths, first + self._max_chars) - 1, end - 1)
        return at > start and self._width(at, end) <= self._max_chars

    def cost(self, start: int, end: int) -> float:
        """How bad a cue is: it costs to be one, to end amid a sentence, to be brief, to hold a pause."""
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
        """A run's text: one line where it fits, else two."""
        at = None
        if self._width(start, end) > self._max_chars:
            at = self._break_at(start, end)
        if at is None:
            return self._joined(start, end)
        return f"{self._joined(start, at)}\n{self._joined(at, end)}"

    def _break_at(self, start: int, end: int) -> int | None:
        """Before which word a second line begins: even lines, the upper one rather shorter, cut at
        punctuation if possible; None where two lines don't hold the words."""
        best, place = np.inf, None
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
    """What it costs to hold two neighbours in one cue."""
    pause = 2.0 if after.start_s - before.end_s > PAUSE_S else 0.0
    return pause + (1.5 if before.text.rstrip(CLOSERS)[-1:] in SENTENCE else 0.0)


def _timed(speech: _Speech, parts: Sequence[tuple[int, int]]) -> tuple[Cue, ...]:
    """Cues that stay a little longer than they are spoken, and a second at least where there is time."""
    cues, words = [], speech.words
    for first, after in parts:
        start, spoken = words[first].start_s, words[after - 1].end_s
        end = max(spoken + LINGER_S, start + MIN_S)
        if after < len(words) and end > words[after].start_s - GAP_S:
            # Cues that follow each other closely change at once.
            begin = words[after].start_s
            end = max(begin - GAP_S, min(spoken, begin), start + GAP_S)
        shown_until = min(end, start + MAX_S)
        cues.append(Cue(round(start, 3), round(shown_until, 3), speech.lines(first, after)))
    return tuple(cues)


def width_of(text: str) -> int:
    """Its width in Latin letters; Chinese, Japanese and Korean ones count two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
