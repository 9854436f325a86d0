"""Which frames of long footage are kept as images: a mouth in a pose that was seen teaches nothing new.

Speech repeats its mouths: of half an hour, a few thousand frames show all that there is to see, and
the others would only fill the disk.
"""

from __future__ import annotations

import numpy as np

from talkhead.frame_selection import farthest_first, longest_run
from talkhead.preprocess.occlusion import head_posture
from talkhead.types import Bool, Float32

MAX_FRAMES = 6000
"""Footage of up to four minutes keeps all its frames."""
BLOCK_FRACTION = 4
"""The idle clip and the held-out end keep such a part of them each, a minute, without a gap."""
POSE_FRACTION = 4.0
"""How much a radian of head turn counts against a unit of code."""


def frame_places(codes: Float32, viewmats: Float32, learnt: Bool) -> Float32:
    """Where frames lie for telling what is new [F, D]: motion code, and how and where the head is.

    codes: [F, K]. viewmats: [F, 4, 4]. learnt: [F] frames whose mean direction others count from.
    """
    nothing = np.zeros((len(codes), 0), np.float32)
    posture = POSE_FRACTION * head_posture(viewmats, nothing, learnt)
    return np.concatenate([codes, posture], axis=1, dtype=np.float32)


def choose_kept(places: Float32, clear: Bool, train: Bool, hidden: Bool, most: int) -> Bool:
    """Up to `most` of the frames [F]: all of short footage; else two runs and what is new.

    The runs are the longest clear one of training frames, for the idle clip, and the part of the
    held-out end with most clear frames. Then come clear training frames, farthest first from all
    before them. places: [F, D] of frame_places. clear, train: [F]. hidden: [F] frames with
    something before the face.
    """
    if len(places) <= most:
        return np.ones(len(places), dtype=bool)
    kept = np.zeros(len(places), dtype=bool)
    for first, after in (
        longest_run(clear & train, hidden, most // BLOCK_FRACTION),
        _clearest_run(clear, ~train, most // BLOCK_FRACTION),
    ):
        kept[first:after] = True
    allowed = np.flatnonzero(clear & train)
    new = farthest_first(places[allowed], kept[allowed], most - int(kept.sum()))
    kept[allowed[new]] = True
    return kept


def _clearest_run(clear: Bool, allowed: Bool, most: int) -> tuple[int, int]:
    """First and after-last frame of the run of at most `most` of the allowed end that has most clear
    frames."""
    start = len(allowed) - int(allowed.sum())
    length = min(most, len(allowed) - start)
    before = np.concatenate([[0], np.cumsum(clear[start:])])
    first = start + int((before[length:] - before[: len(before) - length]).argmax())
    return first, first + length
