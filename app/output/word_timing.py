"""Word timing without alignment: spread the words of a text over the stretches of speech.

People pause at the ends of sentences and clauses, and speak at a steady pace. So each stretch of
speech gets as many words as fit its length, divided at punctuation if possible. The cheapest of all
distributions is found by dynamic programming over the stretches.
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
"""Number of letters that a text may always have, and number per second of audio, which is twice the
pace of fast speakers."""
MIN_PAUSE_S = 0.12
"""A shorter silence, in seconds, is taken for a closed mouth within a word."""
WINDOW_S = 20.0
"""Seconds around the even pace within which the end of a stretch is searched for."""
PACE_S, PACE_FRACTION = 0.3, 0.15
"""Standard deviation of a stretch's length from the expected one: a constant part, and a part per
second."""
CLAUSE_COST, WORD_COST, UNPAUSED_COST = 0.4, 5.0, 0.5
"""Costs of a pause after a clause, of one within it, and of a sentence that ends without a pause."""


@dataclass(frozen=True)
class Token:
    """A piece of text that is not divided, with its punctuation.

    Attributes:
        text: The text.
        spaced: True if a space precedes it.
    """

    text: str
    spaced: bool = True

    def said(self, start_s: float, end_s: float) -> SpokenWord:
        """Give the token a time.

        Args:
            start_s: Start, seconds.
            end_s: End, seconds.

        Returns:
            The spoken word.
        """
        return SpokenWord(self.text, start_s, end_s, self.spaced)


_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\u0e00-\u0e7f"
_TOKEN = re.compile(rf"\s*([{_UNSPACED}][^\w\s]*|[^\s{_UNSPACED}]+)")


def tokens_of(text: str) -> list[Token]:
    """Divide a text into words with their punctuation; in Chinese, Japanese and Thai into
    characters.

    Args:
        text: The text.

    Returns:
        Tokens in order; none without letters or digits.
    """
    if not any(c.isalnum() for c in text):
        return []
    tokens: list[tuple[list[str], bool]] = []
    for match in _TOKEN.finditer(text.rstrip()):  # trailing spaces would be scanned repeatedly
        spaced = match[0] != match[1] or not tokens
        if not any(c.isalnum() for c in match[1]) and tokens:  # for example a dash on its own
            tokens[-1][0].append(f"{' ' if spaced else ''}{match[1]}")
        else:
            tokens.append(([match[1]], spaced))
    return [Token("".join(pieces), spaced) for pieces, spaced in tokens]


def weight_of(token: Token) -> float:
    """Estimate how long a token takes to say.

    Args:
        token: The token.

    Returns:
        Number of letters; a digit counts as a word.
    """
    return float(max(1, sum(DIGIT_LETTERS if c.isdigit() else c.isalnum() for c in token.text)))


def check_pace(tokens: Sequence[Token], length_s: float) -> None:
    """Check that a text can be spoken in a given duration.

    Args:
        tokens: Tokens of the text.
        length_s: Seconds of audio.

    Raises:
        TalkheadError: The text is too long, so it is not that of the audio.
    """
    letters = sum(map(weight_of, tokens))
    if letters > MAX_LETTERS + MAX_LETTERS_PER_S * length_s:
        raise TalkheadError(
            f"the transcript has {len(tokens)} words, more than can be spoken in {length_s:.1f} s. Pass "
            "the text of this audio only"
        )


def spread_over(tokens: Sequence[Token], silent: Bool) -> list[SpokenWord]:
    """Spread tokens over the frames with speech; over all frames if there is none.

    Memory grows with the square of the number of tokens spoken in 40 s; see `check_pace`.

    Args:
        tokens: Tokens in order.
        silent: Flags [F] of silent frames, at FRAME_RATE.

    Returns:
        Spoken words.
    """
    stretches = _stretches(silent)
    ends = _distribute(tokens, stretches)
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
    """Return start and end, in seconds, of each stretch without a pause of frames that are not
    silent [F]."""
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


def _distribute(tokens: Sequence[Token], stretches: Sequence[tuple[float, float]]) -> list[int]:
    """Return the number of tokens spoken by the end of each stretch; all are spoken by the last."""
    spoken_s = np.concatenate([[0.0], np.cumsum([weight_of(token) for token in tokens])])
    lengths = np.array([end - start for start, end in stretches])
    spoken_s *= lengths.sum() / spoken_s[-1]  # seconds at an even pace
    marks = np.array([_mark(token) for token in tokens])
    n_sentences = np.concatenate([[0.0], np.cumsum(marks == 2)])  # sentences that ended so far
    pauses = [after[0] - before[1] for before, after in pairwise(stretches)]
    cost: Float64 = np.zeros(1)
    before: Int = np.zeros(1, np.int64)
    choices: list[tuple[Int, Float64]] = []
    for number, (length, even) in enumerate(zip(lengths, np.cumsum(lengths), strict=True)):
        last = number == len(lengths) - 1
        ends = np.array([len(tokens)]) if last else _near(spoken_s, even)
        spoken = spoken_s[ends][None] - spoken_s[before][:, None]
        spread = PACE_S**2 + (PACE_FRACTION * length) ** 2
        total = cost[:, None] + (spoken - length) ** 2 / spread
        within = n_sentences[np.maximum(ends - 1, 0)][None] - n_sentences[before][:, None]
        total += UNPAUSED_COST * np.maximum(within, 0)
        if not last:
            total += _pause_cost(marks, ends, pauses[number])[None]
        total[ends[None] < before[:, None]] = np.inf
        choices.append((before, total.argmin(0).astype(float)))
        cost, before = total.min(0), ends
    return _traced(choices, before)


def _near(spoken_s: Float64, even: float) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return the numbers of tokens [n] that may have been spoken when `even` seconds are spoken at
    an even pace."""
    first = int(np.searchsorted(spoken_s, even - WINDOW_S))
    after = int(np.searchsorted(spoken_s, even + WINDOW_S, side="right"))
    return np.arange(min(first, len(spoken_s) - 1), max(after, first + 1))


def _pause_cost(
    marks: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    ends: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    pause_s: float,
) -> Float64:
    """Return the cost [n] of a pause after each of these numbers of tokens; long pauses cost more,
    except after sentences."""
    prices = np.array([WORD_COST, CLAUSE_COST, 0.0])
    return np.asarray(prices[marks[np.maximum(ends - 1, 0)]] * min(1.0, pause_s / 0.4))


def _traced(
    choices: Sequence[tuple[np.ndarray[tuple[int, ...], np.dtype[np.int64]], Float64]],
    ends: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
) -> list[int]:
    """Trace the cheapest path back from its end; the choices of a stretch are two arrays [n]."""
    place, way = 0, [int(ends[0])]
    for before, best in reversed(choices[1:]):
        place = int(best[place])
        way.append(int(before[place]))
    return way[::-1]


def _mark(token: Token) -> int:
    """Return 2 at the end of a sentence, 1 at the end of a clause, otherwise 0."""
    last = token.text.rstrip(CLOSERS)[-1:]
    return 2 if last and last in SENTENCE else int(bool(last) and last in CLAUSE)
