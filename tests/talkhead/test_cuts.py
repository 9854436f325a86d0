"""Cuts of edited footage, found in the motion of the face."""

from __future__ import annotations

import numpy as np
import pytest

from talkhead.face import N_LANDMARKS, OUTER_EYE_CORNERS
from talkhead.frame_selection import find_cuts
from talkhead.types import Float32

N, EYES = 300, 80.0
"""Frames, and the distance of the eyes in pixels."""


def faces(places: np.ndarray) -> Float32:
    """Landmarks [F, 478, 3] of a face at places [F, 2], in eye distances."""
    shape = np.random.default_rng(0).uniform(-1, 1, (N_LANDMARKS, 3))
    shape[list(OUTER_EYE_CORNERS)] = [[-0.5, 0, 0], [0.5, 0, 0]]
    moved = np.pad(places, ((0, 0), (0, 1)))[:, None]
    return (EYES * (shape + moved)).astype(np.float32)


def sway(rate: float = 25.0) -> np.ndarray:
    """A head that moves at most 1.6 eye distances a second, seen at a rate, [N, 2]."""
    times = np.floor(np.arange(N) / 25.0 * rate) / rate
    return np.stack([0.4 * np.sin(4.0 * times), 0.2 * np.cos(2.5 * times)], axis=1)


@pytest.mark.parametrize("rate", [25.0, 15.0, 10.0])
def test_quick_movements_are_no_cuts(rate: float) -> None:
    assert not find_cuts(faces(sway(rate)), np.ones(N, bool)).any()


def test_jumps_are_cuts() -> None:
    places = 0.1 * sway()
    places[100:] += 0.12
    places[220:] -= 0.3
    assert np.flatnonzero(find_cuts(faces(places), np.ones(N, bool))).tolist() == [100, 220]


def test_frames_without_a_face_are_not_considered() -> None:
    places, good = 0.1 * sway(), np.ones(N, bool)
    good[50:60] = good[200] = False
    landmarks = faces(places)
    landmarks[~good] = 0.0
    assert not find_cuts(landmarks, good).any()
    assert not find_cuts(landmarks, np.zeros(N, bool)).any()
    assert not find_cuts(landmarks[:1], np.ones(1, bool)).any()
