"""Selection of frames of long footage: two runs without a gap, and new mouth shapes."""

from __future__ import annotations

import numpy as np
import pytest

from talkhead.frame_selection import train_frames
from talkhead.preprocess.image_selection import (
    HELD_OUT_FRACTION,
    IDLE_FRACTION,
    choose_stored_frames,
    frame_places,
)
from talkhead.types import Bool, Float32

N, MOST = 2200, 400
IDLE, HELD_OUT = MOST // IDLE_FRACTION, MOST // HELD_OUT_FRACTION
ODD, HIDDEN = 1500, 700


@pytest.fixture(scope="module")
def places() -> Float32:
    """A few mouth shapes that recur, and one frame unlike all others."""
    rng = np.random.default_rng(0)
    mouths = rng.normal(size=(30, 8))[rng.integers(30, size=N)]
    mouths += 0.01 * rng.normal(size=mouths.shape)
    mouths[ODD] += 5.0
    return mouths.astype(np.float32)


def flags() -> tuple[Bool, Bool, Bool]:
    """Unoccluded, train and occluded flags; the longest run without occlusion begins after HIDDEN."""
    occluded = np.zeros(N, dtype=bool)
    occluded[HIDDEN] = occluded[:HIDDEN:50] = True
    unoccluded = ~occluded
    unoccluded[1600:1603] = False  # badly tracked, in the middle of the run: too short to end it
    unoccluded[2000:2050] = False
    return unoccluded, train_frames(N), occluded


def test_short_footage_keeps_all(places: Float32) -> None:
    unoccluded, train, occluded = flags()
    assert choose_stored_frames(
        places[:MOST], unoccluded[:MOST], train[:MOST], occluded[:MOST], MOST
    ).all()


def test_new_frames_are_kept_up_to_the_limit(places: Float32) -> None:
    unoccluded, train, occluded = flags()
    unoccluded[ODD + 1] = False
    places = places.copy()
    places[ODD + 1] += 9.0  # even more unusual, but not for training
    kept = choose_stored_frames(places, unoccluded, train, occluded, MOST)
    assert kept.sum() == MOST and kept[ODD]
    run = slice(HIDDEN + 1, HIDDEN + 1 + IDLE)
    assert kept[run].all(), "the idle clip's run"
    rest = kept & train
    rest[run] = False
    assert unoccluded[rest].all() and not kept[ODD + 1]


def test_every_mouth_shape_is_kept_if_there_is_room(places: Float32) -> None:
    unoccluded, train, occluded = flags()
    kept = choose_stored_frames(places, unoccluded, train, occluded, MOST)
    apart = np.linalg.norm(places[:, None] - places[None, kept & train], axis=-1).min(1)
    assert apart[unoccluded & train].max() < 0.1


def test_the_clearest_part_of_the_held_out_end(places: Float32) -> None:
    unoccluded, train, occluded = flags()
    kept = np.flatnonzero(choose_stored_frames(places, unoccluded, train, occluded, MOST) & ~train)
    assert len(kept) == HELD_OUT and np.ptp(kept) == HELD_OUT - 1, "without a gap"
    assert kept[0] == 2050, "after the frames that cannot be evaluated"
    every = np.ones(N, dtype=bool)
    assert choose_stored_frames(places, unoccluded, every, occluded, MOST).sum() == MOST


def test_places_distinguish_mouths_and_poses() -> None:
    codes, viewmats = np.zeros((3, 5), np.float32), np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
    viewmats[:, 2, 3] = 5.0
    codes[1, 0], viewmats[2, 0, 3] = 1.0, 1.0
    places = frame_places(codes, viewmats, np.ones(3, dtype=bool))
    assert places.dtype == np.float32 and places.shape == (3, 11)
    assert np.linalg.norm(places[0] - places[1]) == pytest.approx(1.0)
    assert np.linalg.norm(places[0] - places[2]) == pytest.approx(0.8)
