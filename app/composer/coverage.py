"""Whether a line asks for mouths that the idle clip doesn't show: far from all, heads break.

What is far is measured by the clip itself: how far its own mouths lie from the nearest one of
another moment.
"""

from __future__ import annotations

import numpy as np

from talkhead.app.composer.idle_clip import IdleClip
from talkhead.types import FRAME_RATE, Bool, Float32, Int

NEIGHBOURS = 12
"""Frames around one that are the same moment, half a second."""
MIN_FRAMES = 4 * FRAME_RATE
"""Shorter clips don't tell what is usual."""
USUAL_PERCENT, MARGIN = 99.5, 1.5
TOLD_FRACTION = 0.02
BLOCK = 1024
"""Frames that are compared at once: with a clip of a minute, 6 MB."""


def coverage_warning(codes: Float32, clip: IdleClip) -> str:
    """A line for whoever made codes [F, K]: how many mouths are far from the clip's; empty for few."""
    unseen = uncovered_mouths(codes, clip)
    if unseen.mean() <= TOLD_FRACTION:
        return ""
    return (
        f"{100 * unseen.mean():.0f} % of the line asks for mouths far from any in the idle clip "
        f"(first at {unseen.argmax() / FRAME_RATE:.1f} s): they may look wrong"
    )


def uncovered_mouths(codes: Float32, clip: IdleClip) -> Bool:
    """Which of codes [F, K] have a mouth that lies far from every one of the clip's, [F]."""
    if len(clip) < MIN_FRAMES:
        return np.zeros(len(codes), bool)
    n_moving = int(clip.face.basis[: clip.face.n_mouth].any(axis=(1, 2)).sum())
    seen = clip.codes[:, :n_moving]
    apart = _distances(seen, seen, moments=np.arange(len(seen)))
    limit = MARGIN * np.percentile(apart, USUAL_PERCENT)
    return _distances(codes[:, :n_moving], seen) > limit


def _distances(mouths: Float32, seen: Float32, moments: Int | None = None) -> Float32:
    """How far each of mouths [F, n] is from the nearest of seen [S, n], [F].

    moments: [F] the numbers that mouths have in seen; those around them don't count.
    """
    nearest = np.empty(len(mouths), np.float32)
    lengths = (seen * seen).sum(1)
    for first in range(0, len(mouths), BLOCK):
        part = mouths[first : first + BLOCK]
        squares = (part * part).sum(1)[:, None] + lengths - 2.0 * (part @ seen.T)
        if moments is not None:
            away = np.abs(moments[first : first + BLOCK, None] - np.arange(len(seen)))
            squares[away <= NEIGHBOURS] = np.inf
        nearest[first : first + BLOCK] = squares.min(1)
    return np.asarray(np.sqrt(np.maximum(nearest, 0.0)), np.float32)
