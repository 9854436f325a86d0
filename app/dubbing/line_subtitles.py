"""Subtitles of the lines of a dubbed video, shown when they are spoken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf

import numpy as np

from talkhead.app.dubbing.timeline import Placement, Timeline
from talkhead.app.output.cue_layout import GAP_S, LINGER_S, MIN_S, Cue, make_cues, width_of
from talkhead.app.output.subtitle_files import MAX_CHARS
from talkhead.app.output.word_timing import spread_over, tokens_of
from talkhead.types import FRAME_RATE

MAX_LINES = 2


def line_cues(timeline: Timeline, max_chars: int = MAX_CHARS) -> tuple[Cue, ...]:
    """Make the subtitles of lines at the times at which they are spoken, for `write_srt`.

    A text that fits into one subtitle is shown as it was written, a longer one is divided. If there is
    time until the next line, a subtitle stays a little longer than the speech.

    Args:
        timeline: The lines; those without text have no subtitles.
        max_chars: Characters per line.

    Returns:
        Cues in order.
    """
    placements = sorted(timeline.placements, key=lambda one: one.start_s)
    cues: list[Cue] = []
    for number, one in enumerate(placements):
        later = (other.start_s for other in placements[number + 1 :] if other.start_s >= one.end_s)
        free_until = min(next(later, inf) - GAP_S, timeline.length_s)
        wanted = max(one.end_s + LINGER_S, one.start_s + MIN_S)
        until = max(one.end_s, min(wanted, free_until))
        cues += _cues(one, until, max_chars)
    return tuple(sorted(cues, key=lambda cue: cue.start_s))


def _cues(placement: Placement, until: float, max_chars: int) -> Iterator[Cue]:
    """Yield the subtitles of a line, the last of which is shown until a given time."""
    text, start_s = placement.line.text, placement.start_s
    if not text:
        return
    lines, tokens = text.split("\n"), tokens_of(text)
    if not tokens or (len(lines) <= MAX_LINES and max(map(width_of, lines)) <= max_chars):
        yield Cue(start_s, until, text)
        return
    n_frames = max(1, round((placement.end_s - start_s) * FRAME_RATE))
    words = spread_over(tokens, np.zeros(n_frames, np.bool_))
    parts = make_cues(words, max_chars)
    for number, part in enumerate(parts, 1):
        end_s = until if number == len(parts) else min(start_s + part.end_s, until)
        yield replace(part, start_s=start_s + part.start_s, end_s=end_s)
