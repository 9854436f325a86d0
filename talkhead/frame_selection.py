"""Which frames are trained on, held out, or picked from many."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from talkhead.types import Bool, Float32, Int

MAX_GAP = 5
"""Frames in a row whose pose their neighbours tell."""


TEST_FRACTION = 1 / 11


def train_frames(n_frames: int, use_all: bool = False) -> Bool:
    """The first 10/11 of the frames, [F] bool; all of them on demand."""
    train = np.ones(n_frames, dtype=bool)
    if not use_all:
        train[round(n_frames * (1 - TEST_FRACTION)) :] = False
    return train


def spread_frames(allowed: Bool, n: int) -> Int:
    """The numbers of n of the allowed frames [F], or of all if they are fewer, evenly spread."""
    frames = np.flatnonzero(allowed)
    places = np.linspace(0, len(frames) - 1, min(n, len(frames))).round().astype(int)
    return np.asarray(frames[places], np.int64)


def farthest_first(places: Float32, known: Bool, n: int) -> Int:
    """Up to n rows of places [N, D], each the farthest from those before it and from all that are
    known [N] already (Gonzalez 1985), in the order they were found. One is known at least."""
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


def longest_run(good: Bool, never: Bool, most: int) -> tuple[int, int]:
    """First and after-last frame of the longest run of good frames [F], cut after `most` of them.

    Gaps of a few frames don't end a run: what they lack is filled in from their neighbours. Frames
    of `never` [F] do.
    """
    closed = good.copy()
    for before, after in pairwise(np.flatnonzero(good)):
        if after - before <= MAX_GAP + 1:
            closed[before:after] = True
    inside = np.concatenate([[False], closed & ~never, [False]])
    runs = np.flatnonzero(np.diff(inside.astype(np.int8))).reshape(-1, 2)
    first, after = runs[np.argmax(runs[:, 1] - runs[:, 0])]
    return int(first), int(min(after, first + most))
