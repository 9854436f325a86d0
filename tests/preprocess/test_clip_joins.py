"""Nothing that is computed over time mixes the frames of two clips."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_head import make_codes, make_face, make_landmarks, make_poses

from talkhead.cameras import default_intrinsics
from talkhead.frame_selection import (
    MUCH_LONGER,
    clip_slices,
    longest_run_of_clips,
    train_frames,
)
from talkhead.preprocess.body_motion import smoothed
from talkhead.preprocess.head_pose import smooth_poses
from talkhead.preprocess.image_selection import HELD_OUT_FRACTION, choose_stored_frames
from talkhead.preprocess.inner_mouth import N_PLACES, inner_mouth_codes
from talkhead.preprocess.landmarks import bridge_gaps
from talkhead.preprocess.person_mask import plan_crops
from talkhead.types import Float32, Tracking

N, JOIN = 120, 70
PARTS = clip_slices(N, (JOIN,))
EVERY = np.ones(N, dtype=bool)


def landmarks_of_two_places(shift: float) -> Float32:
    """A face [N, 478, 3] that is elsewhere in the second clip, pixels of 640x480."""
    vertices = make_face().vertices(make_codes(N)).astype(np.float64)
    whole = make_landmarks(vertices, make_poses(N), default_intrinsics(640, 480))
    points = (0.4 * whole + np.array([120.0, 150.0, 0.0])).astype(np.float32)
    points[JOIN:, :, 0] += np.float32(shift)
    return points


def test_the_end_of_the_first_clip_is_held_out() -> None:
    train = train_frames(N, joins=(JOIN,))
    assert np.array_equal(train[:JOIN], train_frames(JOIN)) and train[JOIN:].all()
    assert train_frames(N, use_all=True, joins=(JOIN,)).all()
    assert clip_slices(N, ()) == (slice(0, N),)


def test_poses_are_smoothed_clip_by_clip() -> None:
    viewmats, index = make_poses(N), np.arange(N)
    joined = smooth_poses(viewmats, index, EVERY, (JOIN,))
    for part in PARTS:
        alone = smooth_poses(viewmats[part], index[part], EVERY[part])
        assert np.array_equal(joined[part], alone)
    assert not np.array_equal(joined, smooth_poses(viewmats, index, EVERY))


def test_codes_are_smoothed_clip_by_clip() -> None:
    codes = np.random.default_rng(0).normal(size=(N, 3))
    joined = smoothed(codes, EVERY, PARTS)
    for part in PARTS:
        assert np.array_equal(joined[part], smoothed(codes[part], EVERY[part]))
    assert np.array_equal(smoothed(codes, EVERY), smoothed(codes, EVERY, (slice(0, N),)))


@pytest.mark.parametrize(("join", "is_bridged"), [(9, True), (10, False), (12, False), (13, True)])
def test_a_gap_over_a_join_is_not_bridged(join: int, is_bridged: bool) -> None:
    """Frames 10 and 11 are missing."""
    found = np.ones(30, dtype=bool)
    found[10:12] = False
    tracking = Tracking(np.zeros((30, 478, 3), np.float32), np.zeros((30, 52), np.float32), found)
    assert bridge_gaps(tracking, (join,))[1][10:12].all() == is_bridged


def test_crops_are_no_larger_where_the_face_is_elsewhere_in_the_next_clip() -> None:
    size, near, far = (480, 640), landmarks_of_two_places(0), landmarks_of_two_places(150)
    plain = plan_crops(near, EVERY, size, 10_000, PARTS)
    moved = plan_crops(far, EVERY, size, 10_000, PARTS)
    assert (moved.width, moved.height) == (plain.width, plain.height)
    assert np.array_equal(
        moved.origins - plain.origins, np.where(np.arange(N) < JOIN, 0, 150)[:, None] * [[1, 0]]
    )
    assert plan_crops(far, EVERY, size, 10_000).width > plain.width


def test_clips_that_look_different_do_not_change_the_size_of_crops() -> None:
    points, depicted = landmarks_of_two_places(0), np.arange(N) < JOIN
    points[JOIN:] = 2.0 * points[JOIN:] - 300.0
    alone = plan_crops(points[:JOIN], EVERY[:JOIN], (480, 640), 10_000)
    plan = plan_crops(points, EVERY, (480, 640), 10_000, PARTS, depicted)
    assert (plan.width, plan.height) == (alone.width, alone.height)
    assert np.array_equal(plan.origins[:JOIN], alone.origins)


def test_the_inner_mouth_does_not_depend_on_the_light_of_its_clip() -> None:
    rng = np.random.default_rng(0)
    points = landmarks_of_two_places(0)[..., :2]
    points[:, [14, 87, 317], 1] += 12.0  # an open mouth
    seen = rng.uniform(size=(N, N_PLACES))
    seen[JOIN:] = seen[: N - JOIN]
    points[JOIN:] = points[: N - JOIN]
    same = inner_mouth_codes(seen, points, EVERY, EVERY, PARTS)
    darker = seen - np.where(np.arange(N) < JOIN, 0.0, 0.3)[:, None]
    assert np.abs(same).max() > 0.5
    assert np.allclose(inner_mouth_codes(darker, points, EVERY, EVERY, PARTS), same, atol=1e-5)


def test_the_idle_clip_is_in_one_clip_and_rather_in_the_first_one() -> None:
    never = ~EVERY
    assert longest_run_of_clips(EVERY, never, (JOIN,), N) == (0, JOIN)
    n_first = int((N - JOIN) / MUCH_LONGER)
    for n_good, run in ((n_first + 1, (0, n_first + 1)), (n_first - 1, (JOIN, N))):
        good = EVERY.copy()
        good[n_good:JOIN] = False
        assert longest_run_of_clips(good, never, (JOIN,), N) == run
    nowhere = np.arange(N) >= JOIN  # as in a first clip in which something is always in front
    assert longest_run_of_clips(nowhere, never, (JOIN,), N) == (JOIN, N)


def test_stored_images_of_long_footage_are_of_clips_that_look_alike() -> None:
    places = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
    depicted, train = np.arange(N) < JOIN, train_frames(N, joins=(JOIN,))
    kept = choose_stored_frames(places, EVERY & depicted, train, ~depicted, 40, (JOIN,))
    assert kept.sum() == 40 and not kept[JOIN:].any()
    held_out = np.flatnonzero(~train)
    assert kept[held_out].sum() == 40 // HELD_OUT_FRACTION, "not the last frames of all"
