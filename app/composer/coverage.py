"""Warn when predicted mouth shapes are out of distribution for the idle clip, where renderers fail.

The limit comes from the clip itself: the distances of its own mouth shapes to the nearest one of
another moment.
"""

from __future__ import annotations

import numpy as np

from talkhead.app.composer.idle_clip import IdleClip
from talkhead.types import FRAME_RATE, Bool, Float32, Int

NEIGHBORS = 12
"""Frames within this distance, half a second, count as the same moment."""
MIN_FRAMES = 4 * FRAME_RATE
"""Shorter clips do not give a reliable limit."""
USUAL_PERCENT, MARGIN = 99.5, 1.5
WARNING_FRACTION = 0.02
"""Share of the frames at or above which a warning is given."""
BLOCK = 1024
"""Frames that are compared at once; 6 MB for a one-minute clip."""


def coverage_warning(codes: Float32, clip: IdleClip) -> str:
    """Warn if many mouth shapes are far from those of the idle clip.

    Args:
        codes: Motion codes [F, K].
        clip: The idle clip.

    Returns:
        A sentence; "" if there are few.
    """
    unseen = uncovered_mouths(codes, clip)
    if unseen.mean() <= WARNING_FRACTION:
        return ""
    return (
        f"{100 * unseen.mean():.0f} % of the frames need mouth shapes far from any in the idle clip "
        f"(first at {unseen.argmax() / FRAME_RATE:.1f} s): they may look wrong"
    )


def uncovered_mouths(codes: Float32, clip: IdleClip) -> Bool:
    """Find mouth shapes that are far from all those of a clip.

    Args:
        codes: Motion codes [F, K].
        clip: The clip. The limit is derived from the distances between its own mouth shapes at
            different moments.

    Returns:
        Flags [F]; none is set for clips shorter than MIN_FRAMES.
    """
    if len(clip) < MIN_FRAMES:
        return np.zeros(len(codes), bool)
    n_moving = int(clip.face.basis[: clip.face.n_mouth].any(axis=(1, 2)).sum())
    seen = clip.codes[:, :n_moving]
    apart = _distances(seen, seen, moments=np.arange(len(seen)))
    limit = MARGIN * np.percentile(apart, USUAL_PERCENT)
    return _distances(codes[:, :n_moving], seen) > limit


def _distances(mouths: Float32, seen: Float32, moments: Int | None = None) -> Float32:
    """Return the distance of each of mouths [F, n] to the nearest of seen [S, n], shape [F].

    If moments [F], the indices of mouths in seen, is given, neighbors in time are not counted.
    """
    nearest = np.empty(len(mouths), np.float32)
    lengths = (seen * seen).sum(1)
    for first in range(0, len(mouths), BLOCK):
        part = mouths[first : first + BLOCK]
        squares = (part * part).sum(1)[:, None] + lengths - 2.0 * (part @ seen.T)
        if moments is not None:
            away = np.abs(moments[first : first + BLOCK, None] - np.arange(len(seen)))
            squares[away <= NEIGHBORS] = np.inf
        nearest[first : first + BLOCK] = squares.min(1)
    return np.asarray(np.sqrt(np.maximum(nearest, 0.0)), np.float32)
