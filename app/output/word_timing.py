"""A text's words spread over the stretches in which somebody speaks, where they can't be aligned.

People pause where sentences and clauses end, and speak at about one pace. So each stretch of speech
gets as many words as fit its length, cut where the text's punctuation is if possible: of all ways to
deal the words out the cheapest is taken (dynamic programming over stretches).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from talkhead.app.output.cue_layout import CLAUSE, CLOSERS, SENTENCE, SpokenWord
from talkhead.errors import TalkheadError
from talkhead.types import FRAME_RATE, Bool, Float64, Int

DIGIT_LETTERS = 5
MAX_LETTERS, MAX_LETTERS_PER_S = 300, 60
"""So much of a text at least, and per second of its sound, is taken for what is said: the fastest
speakers reach half of that."""
MIN_PAUSE_S = 0.12
"""A shorter silence is a closed mouth within a word."""
WINDOW_S = 20.0
"""How far from where an even pace would put it a stretch's end is looked for."""
PACE_S, PACE_FRACTION = 0.3, 0.15
"""How far the length of a stretch is off what its letters make expect, apart and per second."""
CLAUSE_COST, WORD_COST, UNHEARD_COST = 0.4, 5.0, 0.5
"""Of a pause after a clause, of one amid it, and of the end of a sentence without a pause."""


@dataclass(frozen=True)
class Token:
    """A piece of a text that is kept whole, with its punctuation. spaced: a space is before it."""

    text: str
    spaced: bool = True

    def said(self, start_s: float, end_s: float) -> SpokenWord:
        """The token at its time."""
        return SpokenWord(self.text, start_s, end_s, self.spaced)


_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\u0e00-\u0e7f"
_TOKEN = re.compile(rf"\s*([{_UNSPACED}][^\w\s]*|[^\s{_UNSPACED}]+)")


def tokens_of(text: str) -> list[Token]:
    """The words of a text with their punctuation; in Chinese, Japanese and Thai its letters."""
    if not any(c.isalnum() for c in text):
        return []
    tokens: list[tuple[list[str], bool]] = []
    for match in _TOKEN.finditer(
        text.rstrip()
    ):  # else the spaces at its end are gone through often
        spaced = match[0] != match[1] or not tokens
        if not any(c.isalnum() for c in match[1]) and tokens:  # a dash on its own, say
            tokens[-1][0].append(f"{' ' if spaced else ''}{match[1]}")
        else:
            tokens.append(([match[1]], spaced))
    return [Token("".join(pieces), spaced) for pieces, spaced in tokens]


def weight_of(token: Token) -> float:
    """How long a token is to say: its letters; a digit is a word."""
    return float(max(1, sum(DIGIT_LETTERS if c.isdigit() else c.isalnum() for c in token.text)))


def check_pace(tokens: Sequence[Token], length_s: float) -> None:
    """Raises TalkheadError where nobody can say so much in that time: it is not the sound's text."""
    letters = sum(map(weight_of, tokens))
    if letters > MAX_LETTERS + MAX_LETTERS_PER_S * length_s:
        raise TalkheadError(
            f"the transcript has {len(tokens)} words, which nobody says in {length_s:.1f} s. Give what "
            "is said in this sound alone"
        )


def spread_over(tokens: Sequence[Token], silent: Bool) -> list[SpokenWord]:
    """Tokens over the frames that are not silent; over all where all are. silent: [F] at FRAME_RATE.

    Its memory grows with the square of what is said in 40 s: see `check_pace`.
    """
    stretches = _stretches(silent)
    ends = _dealt(tokens, stretches)
    words: list[SpokenWord] = []
    for (start_s, end_s), (first, after) in zip(stretches, pairwise([0, *ends]), strict=True):
        part = tokens[first:after]
        total, done = sum(map(weight_of, part)), 0.0
        for token in part:
            begin = start_s + (end_s - start_s) * done / total
            done += weight_of(token)
            words.append(token.said(begin, start_s + (end_s - start_s) * done / total))
    return words


def _stretches(silent: Bool) -> list[tuple[float, float]]:
    """Start and end in seconds of speech without a pause."""
    if silent.all():
        return [(0.0, len(silent) / FRAME_RATE)]
    edges = np.flatnonzero(np.diff(np.concatenate([[True], silent, [True]]).astype(np.int8)))
    runs: list[tuple[float, float]] = []
    for first, after in edges.reshape(-1, 2) / FRAME_RATE:
        if runs and first - runs[-1][1] < MIN_PAUSE_S:
            runs[-1] = (runs[-1][0], float(after))
        else:
            runs.append((float(first), float(after)))
    return runs


def _dealt(tokens: Sequence[Token], stretches: Sequence[tuple[float, float]]) -> list[int]:
    """The number of tokens said by the end of each stretch, in order; all of them by the last."""
    said = np.concatenate([[0.0], np.cumsum([weight_of(token) for token in tokens])])
    lengths = np.array([end - start for start, end in stretches])
    said *= lengths.sum() / said[-1]  # seconds at an even pace
    marks = np.array([_mark(token) for token in tokens])
    unheard = np.concatenate([[0.0], np.cumsum(marks == 2)])  # sentences that ended so far
    pauses = [after[0] - before[1] for before, after in pairwise(stretches)]
    cost: Float64 = np.zeros(1)
    before: Int = np.zeros(1, np.int64)
    choices: list[tuple[Int, Float64]] = []
    for number, (length, even) in enumerate(zip(lengths, np.cumsum(lengths), strict=True)):
        last = number == len(lengths) - 1
        ends = np.array([len(tokens)]) if last else _near(said, even)
        spoken = said[ends][None] - said[before][:, None]
        spread = PACE_S**2 + (PACE_FRACTION * length) ** 2
        total = cost[:, None] + (spoken - length) ** 2 / spread
        within = unheard[np.maximum(ends - 1, 0)][None] - unheard[before][:, None]
        total += UNHEARD_COST * np.maximum(within, 0)
        if not last:
            total += _pause_cost(marks, ends, pauses[number])[None]
        total[ends[None] < before[:, None]] = np.inf
        choices.append((before, total.argmin(0).astype(float)))
        cost, before = total.min(0), ends
    return _traced(choices, before)


def _near(said: Float64, even: float) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The numbers of tokens that may have been said where an even pace has said `even` seconds."""
    first = int(np.searchsorted(said, even - WINDOW_S))
    after = int(np.searchsorted(said, even + WINDOW_S, side="right"))
    return np.arange(min(first, len(said) - 1), max(after, first + 1))


def _pause_cost(
    marks: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    ends: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    pause_s: float,
) -> Float64:
    """What a pause costs after each of so many tokens; long ones cost more, but at sentences' ends."""
    prices = np.array([WORD_COST, CLAUSE_COST, 0.0])
    return np.asarray(prices[marks[np.maximum(ends - 1, 0)]] * min(1.0, pause_s / 0.4))


def _traced(
    choices: Sequence[tuple[np.ndarray[tuple[int, ...], np.dtype[np.int64]], Float64]],
    ends: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
) -> list[int]:
    """The cheapest way, read from its end."""
    place, way = 0, [int(ends[0])]
    for before, best in reversed(choices[1:]):
        place = int(best[place])
        way.append(int(before[place]))
    return way[::-1]


def _mark(token: Token) -> int:
    """2 where a sentence ends, 1 where a clause does, else 0."""
    last = token.text.rstrip(CLOSERS)[-1:]
    return 2 if last and last in SENTENCE else int(bool(last) and last in CLAUSE)
