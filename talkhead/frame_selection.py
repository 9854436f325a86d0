"""Select frames for training and evaluation, or frames that are evenly spread."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from talkhead.face import FACE_OVAL, OUTER_EYE_CORNERS
from talkhead.types import Bool, Float32, Int

MAX_GAP = 5
"""Largest number of consecutive frames whose pose can be interpolated from their neighbors."""


TEST_FRACTION = 1 / 11
MIN_CUT = 0.08
"""Least jump of the face at a cut, eye distances. In four clips, one of them edited, cuts are 0.09 to
0.21; other steps of that size have neighbors of at least a quarter.
"""
NEARBY = 3
"""Steps before and after a cut that are compared: with fewer than 25 pictures a second, some are 0."""
CUT_RATIO, MIN_AROUND = 6.0, 0.01
"""How many times larger a cut is than the steps around it, and the least size of these."""
MUCH_LONGER = 2.0
"""A run of a later clip is preferred to one of an earlier clip if it is this many times as long."""


def train_frames(n_frames: int, use_all: bool = False, joins: Sequence[int] = ()) -> Bool:
    """Return the training frames: all but the last 1/11, or the last 1/11 of the first of several clips.

    Args:
        n_frames: Number of frames F.
        use_all: Train on all of them.
        joins: First frame of each clip but the first one.

    Returns:
        [F] bool.
    """
    train = np.ones(n_frames, dtype=bool)
    if not use_all:
        n_first = joins[0] if joins else n_frames
        train[round(n_first * (1 - TEST_FRACTION)) : n_first] = False
    return train


def clip_slices(n_frames: int, joins: Sequence[int]) -> tuple[slice, ...]:
    """Return the frames of each clip of a joined video.

    Args:
        n_frames: Number of frames of all clips.
        joins: First frame of each clip but the first one; none for an ordinary video.

    Returns:
        One slice per clip.
    """
    return tuple(slice(first, after) for first, after in pairwise((0, *joins, n_frames)))


def spread_frames(allowed: Bool, n: int) -> Int:
    """Choose n of the allowed frames, evenly spread, or all if there are fewer.

    Args:
        allowed: [F] bool.
        n: Number of frames at most.

    Returns:
        [n] frame numbers, ascending.
    """
    frames = np.flatnonzero(allowed)
    places = np.linspace(0, len(frames) - 1, min(n, len(frames))).round().astype(int)
    return np.asarray(frames[places], np.int64)


def farthest_first(places: Float32, known: Bool, n: int) -> Int:
    """Choose rows by farthest-point sampling (Gonzalez 1985).

    Args:
        places: [N, D].
        known: [N] rows that are already chosen, at least one.
        n: Number of rows to add at most.

    Returns:
        [n] or fewer row numbers, each the farthest from all before it, in this order.
    """
    nearest = np.full(len(places), np.inf, np.float32)
    apart = np.empty_like(places)

    def see(row: int | np.integer[Any]) -> None:
        np.square(np.subtract(places, places[row], out=apart), out=apart)
        np.minimum(nearest, apart.sum(1), out=nearest)

    for row in np.flatnonzero(known):
        see(row)
    found: list[int] = []
    while len(found) < n and nearest.any():
        found.append(int(nearest.argmax()))
        see(found[-1])
    return np.array(found, np.int64)


def longest_run(good: Bool, never: Bool, max_frames: int) -> tuple[int, int]:
    """Find the longest run of good frames.

    Gaps of a few frames do not end a run, since they are interpolated; frames in `never` end it.

    Args:
        good: [F] bool.
        never: [F] bool, frames that end a run.
        max_frames: Longer runs are cut to this number of frames.

    Returns:
        The first frame and the one after the last.
    """
    closed = good.copy()
    for before, after in pairwise(np.flatnonzero(good)):
        if after - before <= MAX_GAP + 1:
            closed[before:after] = True
    inside = np.concatenate([[False], closed & ~never, [False]])
    runs = np.flatnonzero(np.diff(inside.astype(np.int8))).reshape(-1, 2)
    first, after = runs[np.argmax(runs[:, 1] - runs[:, 0])]
    return int(first), int(min(after, first + max_frames))


def longest_run_of_clips(
    good: Bool, never: Bool, joins: Sequence[int], max_frames: int
) -> tuple[int, int]:
    """Find the longest run of good frames within one clip, of the first one unless another is better.

    Args:
        good: See `longest_run`.
        never: See `longest_run`.
        joins: First frame of each clip but the first one.
        max_frames: See `longest_run`.

    Returns:
        The first frame and the one after the last. It is in a later clip only if it is MUCH_LONGER there.
    """
    best: tuple[int, int] | None = None
    for part in clip_slices(len(good), joins):
        if (good & ~never)[part].any():
            first, after = longest_run(good[part], never[part], max_frames)
            if best is None or after - first >= MUCH_LONGER * (best[1] - best[0]):
                best = (part.start + first, part.start + after)
    return best or longest_run(good, never, max_frames)


def find_cuts(landmarks: Float32, good: Bool) -> Bool:
    """Find cuts of edited footage, at which the face jumps from one frame to the next.

    A quick movement takes several frames, so a cut is a step that is much larger than the ones before
    and after it.

    Args:
        landmarks: [F, 478, 3], pixels.
        good: [F] bool, frames in which the face was detected. Steps from and to others do not count.

    Returns:
        [F] bool, the frames after a cut.
    """
    left, right = (landmarks[:, i, :2] for i in OUTER_EYE_CORNERS)
    distances = np.linalg.norm(left - right, axis=1)[good]
    cuts = np.zeros(len(good), bool)
    if len(distances) < 2:
        return cuts
    oval = landmarks[:, list(FACE_OVAL), :2]
    moved = np.linalg.norm(np.diff(oval, axis=0), axis=2).mean(1)  # [F - 1]
    steps = np.where(good[:-1] & good[1:], moved / np.median(distances), 0.0)
    padded = np.pad(steps, NEARBY)
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, 2 * NEARBY + 1
    )  # [F - 1, 2 NEARBY + 1]
    around = np.delete(windows, NEARBY, axis=1).max(axis=1)
    cuts[1:] = (steps > MIN_CUT) & (steps > CUT_RATIO * np.maximum(around, MIN_AROUND))
    return cuts
