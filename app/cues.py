"""Words and their times into subtitles that can be read: where to break them, how long they stay.

The limits are those that broadcasters use: two lines of 42 characters, 1 to 7 seconds.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

MAX_LINES = 2
LEAST_S, MOST_S = 1.0, 7.0
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


def cues_of(words: Sequence[SpokenWord], max_chars: int) -> tuple[Cue, ...]:
    """Words in readable cues of at most two lines of max_chars (a longer word has a line of its own).

    Of all ways to cut them the cheapest (`_cost`) is taken. Of no words there are no cues.
    """
    if not words:
        return ()
    cheapest, begins = [0.0], [0]
    for end in range(1, len(words) + 1):
        best, begin = np.inf, end - 1
        for start in range(end - 1, -1, -1):
            part = words[start:end]
            if len(part) > 1 and not _fits(part, max_chars):
                break
            cost = cheapest[start] + _cost(part, words[end] if end < len(words) else None)
            if cost < best:
                best, begin = cost, start
        cheapest.append(best)
        begins.append(begin)
    cuts = [len(words)]
    while cuts[-1] > 0:
        cuts.append(begins[cuts[-1]])
    parts = [words[start:end] for start, end in pairwise(reversed(cuts))]
    return _timed(parts, max_chars)


def _fits(words: Sequence[SpokenWord], max_chars: int) -> bool:
    whole = width_of(_joined(words))
    if words[-1].end_s - words[0].start_s > MOST_S or whole > MAX_LINES * max_chars + 1:
        return False
    return whole <= max_chars or _break_at(words, max_chars) is not None


def _cost(words: Sequence[SpokenWord], following: SpokenWord | None) -> float:
    """How bad a cue is: it costs to be one, to end amid a sentence, to be brief, to hold a pause."""
    last = words[-1].text.rstrip(CLOSERS)[-1:]
    pause_s = following.start_s - words[-1].end_s if following else MOST_S
    until_s = following.start_s if following else words[-1].end_s + LEAST_S
    cost = 1.0
    if last not in SENTENCE and following is not None:
        cost += 0.8 if last in CLAUSE else 2.0 - 1.2 * min(1.0, pause_s / PAUSE_S)
    cost += 4.0 * max(0.0, LEAST_S - (until_s - words[0].start_s))
    for before, after in pairwise(words):
        if after.start_s - before.end_s > PAUSE_S:
            cost += 2.0
        if before.text.rstrip(CLOSERS)[-1:] in SENTENCE:
            cost += 1.5
    return cost


def _timed(parts: Sequence[Sequence[SpokenWord]], max_chars: int) -> tuple[Cue, ...]:
    """Cues that stay a little longer than they are spoken, and a second at least where there is time."""
    cues = []
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        start, spoken = part[0].start_s, part[-1].end_s
        end = max(spoken + LINGER_S, start + LEAST_S)
        if following is not None and end > following[0].start_s - GAP_S:
            # Cues that follow each other closely change at once.
            end = max(
                following[0].start_s - GAP_S, min(spoken, following[0].start_s), start + GAP_S
            )
        cues.append(
            Cue(round(start, 3), round(min(end, start + MOST_S), 3), _lines(part, max_chars))
        )
    return tuple(cues)


def _lines(words: Sequence[SpokenWord], max_chars: int) -> str:
    """One line where it fits, else two."""
    whole = _joined(words)
    if width_of(whole) <= max_chars or len(words) < 2:
        return whole
    at = _break_at(words, max_chars)
    return whole if at is None else f"{_joined(words[:at])}\n{_joined(words[at:])}"


def _break_at(words: Sequence[SpokenWord], max_chars: int) -> int | None:
    """Before which word a second line begins: even lines, the upper one rather shorter, cut at
    punctuation if possible; None where two lines don't hold the words."""
    best, place = np.inf, None
    for at in range(1, len(words)):
        upper, lower = width_of(_joined(words[:at])), width_of(_joined(words[at:]))
        if max(upper, lower) > max_chars:
            continue
        cost = abs(upper - lower) + 0.3 * max(0, upper - lower)
        if words[at - 1].text.rstrip(CLOSERS)[-1:] in SENTENCE + CLAUSE:
            cost -= 16
        if cost < best:
            best, place = cost, at
    return place


def _joined(words: Sequence[SpokenWord]) -> str:
    return "".join((" " if w.spaced and i else "") + w.text for i, w in enumerate(words))


def width_of(text: str) -> int:
    """Its width in Latin letters; Chinese, Japanese and Korean ones count two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
