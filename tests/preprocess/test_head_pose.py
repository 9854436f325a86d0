"""Estimated head poses equal the known ones of a synthetic head whose landmarks are projected with
noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic_head import make_codes, make_face, make_landmarks, make_poses

from talkhead.cameras import default_intrinsics, project
from talkhead.face import CHIN, FOREHEAD, OUTER_EYE_CORNERS
from talkhead.frame_selection import train_frames
from talkhead.preprocess.head_pose import (
    HeadTrack,
    canonicalize,
    fit_poses,
    smooth_poses,
    track_head,
    track_known_head,
)
from talkhead.types import Bool, Float32, Float64

N_FRAMES = 120
INTRINSICS = default_intrinsics(640, 480)


@dataclass(frozen=True)
class Scene:
    """True poses, and those estimated from landmarks with noise of `noise_px`."""

    viewmats: Float64
    landmarks: Float32
    codes: Float32

    def track(self, usable: Bool | None = None, train: Bool | None = None) -> HeadTrack:
        everything = np.ones(N_FRAMES, dtype=bool)
        usable = everything if usable is None else usable
        return track_head(self.landmarks, usable, usable if train is None else train, INTRINSICS)


def make_scene(noise_px: float = 0.5, seed: int = 0) -> Scene:
    face, codes, viewmats = make_face(), make_codes(N_FRAMES, seed), make_poses(N_FRAMES)
    vertices = face.vertices(codes).astype(np.float64)
    landmarks = make_landmarks(vertices, viewmats, INTRINSICS)
    noise = np.random.default_rng(seed).normal(size=landmarks.shape) * noise_px
    noise[..., 2] *= 3.0  # a tracker's depth is several times worse
    return Scene(viewmats, (landmarks + noise).astype(np.float32), codes)


def turn_between(first: Float64, second: Float64) -> Float64:
    """Angles [F] in degrees between the rotations of view matrices."""
    relative = first[:, :3, :3] @ np.swapaxes(second[:, :3, :3], 1, 2)
    return np.degrees(Rotation.from_matrix(relative).magnitude())


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene()


@pytest.fixture(scope="module")
def head(scene: Scene) -> HeadTrack:
    return scene.track()


def test_poses_are_recovered(scene: Scene, head: HeadTrack) -> None:
    """Rotations are accurate to half a degree, up to a common rotation of the template."""
    found = head.poses.viewmats.astype(np.float64)
    offset = Rotation.from_matrix(
        np.swapaxes(scene.viewmats[:, :3, :3], 1, 2) @ found[:, :3, :3]
    ).mean()
    assert np.degrees(offset.magnitude()) < 2.0
    aligned = found.copy()
    aligned[:, :3, :3] = found[:, :3, :3] @ offset.inv().as_matrix()
    assert turn_between(aligned, scene.viewmats).max() < 0.5


def test_motion_of_the_head_is_recovered(scene: Scene, head: HeadTrack) -> None:
    """Image positions are accurate to a quarter pixel, depth to one percent."""
    found, true = head.poses.viewmats[:, :3, 3].astype(np.float64), scene.viewmats[:, :3, 3]
    focal = INTRINSICS[0, 0]
    error = focal * (found[:, :2] / found[:, 2:] - true[:, :2] / true[:, 2:])
    assert np.abs(error - error.mean(0)).max() < 0.35
    assert np.abs(error.mean(0)).max() < 1.5
    depth = found[:, 2] / true[:, 2]
    assert np.abs(depth / depth.mean() - 1.0).max() < 0.01 and abs(depth.mean() - 1.0) < 0.03


def test_template_follows_the_convention(head: HeadTrack) -> None:
    left, right = (head.template[i] for i in OUTER_EYE_CORNERS)
    assert np.allclose(left, [-0.5, 0.0, 0.0], atol=1e-5)
    assert np.allclose(right, [0.5, 0.0, 0.0], atol=1e-5)
    down = head.template[CHIN] - head.template[FOREHEAD]
    assert down[1] > 1.0 and abs(down[2]) < 1e-5
    assert head.template[4, 2] < head.template[:468, 2].mean(), "the nose points to -z"


def test_template_is_the_mean_face(scene: Scene, head: HeadTrack) -> None:
    face = make_face()
    mean = np.median(face.vertices(scene.codes), axis=0)
    assert np.abs(head.template[:468, :2] - mean[:468, :2]).max() < 0.03
    assert np.abs(head.template[:468, 2] - mean[:468, 2]).mean() < 0.03


def test_residual_separates_good_frames_from_bad(scene: Scene, head: HeadTrack) -> None:
    """Noise of 0.5 px per coordinate gives 0.63 px on average; a frame shaken by 4 px far more."""
    assert head.poses.residual_px.mean() == pytest.approx(0.5 * np.sqrt(np.pi / 2), rel=0.15)
    shaken = scene.landmarks.copy()
    shaken[60, :, :2] += np.random.default_rng(1).normal(size=(478, 2)) * 4.0
    again = Scene(scene.viewmats, shaken.astype(np.float32), scene.codes).track()
    assert again.poses.residual_px[60] > 4 * np.median(again.poses.residual_px)


def test_canonical_landmarks_keep_their_pixels(scene: Scene, head: HeadTrack) -> None:
    """Canonical landmarks project exactly to the tracked pixels."""
    viewmats = head.poses.viewmats.astype(np.float64)
    pixels = project(head.canonical.astype(np.float64), viewmats, INTRINSICS)
    assert np.abs(pixels - scene.landmarks[..., :2]).max() < 0.01


def test_canonical_landmarks_show_the_mouth_and_not_the_head(scene: Scene) -> None:
    """The true jaw code explains nearly all variance of the lower lip's canonical height."""
    head = make_scene(noise_px=0.2).track()
    height = head.canonical[:, 14, 1] - head.canonical[:, 13, 1]
    assert np.corrcoef(height, scene.codes[:, 0])[0, 1] > 0.99


def test_frames_without_face_have_interpolated_poses(scene: Scene) -> None:
    usable = np.ones(N_FRAMES, dtype=bool)
    usable[50:70] = False
    broken = scene.landmarks.copy()
    broken[50:70] = 0.0
    head = Scene(scene.viewmats, broken, scene.codes).track(usable)
    assert np.array_equal(head.poses.viewmats[51], head.poses.viewmats[49])
    assert np.array_equal(head.poses.viewmats[68], head.poses.viewmats[70])
    assert np.isfinite(head.canonical).all()


def test_held_out_frames_do_not_affect_training_frames(scene: Scene) -> None:
    """With other held-out frames, template and training frames are bit-identical."""
    train = train_frames(N_FRAMES)
    everything = np.ones(N_FRAMES, dtype=bool)
    other = scene.landmarks.copy()
    other[~train] = make_scene(seed=5).landmarks[~train] + np.float32(20.0)
    first = scene.track(everything, train)
    second = Scene(scene.viewmats, other, scene.codes).track(everything, train)
    assert np.array_equal(first.template, second.template)
    assert np.array_equal(first.canonical[train], second.canonical[train])
    assert np.array_equal(first.poses.viewmats[train], second.poses.viewmats[train])
    assert not np.array_equal(first.canonical[~train], second.canonical[~train])


def test_same_input_same_poses(scene: Scene, head: HeadTrack) -> None:
    again = scene.track()
    assert np.array_equal(again.poses.viewmats, head.poses.viewmats)
    assert np.array_equal(again.canonical, head.canonical)


# ------------------------------------------------------------------------------- pieces


def test_poses_of_a_known_head_do_not_depend_on_other_frames(scene: Scene) -> None:
    face, order = make_face(), np.array([17, 3, 41, 8])
    landmarks = scene.landmarks[order]
    head = track_known_head(landmarks, face.template, INTRINSICS)
    assert turn_between(head.poses.viewmats, scene.viewmats[order]).max() < 1.0
    for i in range(len(order)):
        alone = track_known_head(landmarks[i : i + 1], face.template, INTRINSICS)
        assert np.allclose(alone.poses.viewmats[0], head.poses.viewmats[i], atol=1e-5)
        assert np.allclose(alone.canonical[0], head.canonical[i], atol=1e-4)


def test_fit_poses_is_exact_without_noise() -> None:
    template, viewmats = make_face().template.astype(np.float64), make_poses(10, turn_deg=20.0)
    start = np.repeat(np.eye(4)[None], 10, axis=0)
    start[:, 2, 3] = 4.6
    weights = np.ones(len(template))
    pixels = project(template, viewmats, INTRINSICS)
    found = fit_poses(template, pixels, weights, start, INTRINSICS, n_iterations=30)
    assert np.allclose(found, viewmats, atol=1e-6)


def test_fit_poses_ignores_outliers_and_points_of_weight_zero() -> None:
    template, viewmats = make_face().template.astype(np.float64), make_poses(5)
    pixels = project(template, viewmats, INTRINSICS)
    weights = np.ones(len(template))
    weights[:100] = 0.0
    pixels[:, :100] += 300.0
    pixels[:, 100:130] += 40.0  # 8 % of the other points, far off
    found = fit_poses(template, pixels, weights, make_poses(5, depth=4.7), INTRINSICS, 30)
    assert turn_between(found, viewmats).max() < 0.05


def test_canonicalise_undoes_the_pose() -> None:
    face, codes, viewmats = make_face(), make_codes(8), make_poses(8)
    vertices = face.vertices(codes).astype(np.float64)
    landmarks = make_landmarks(vertices, viewmats, INTRINSICS).astype(np.float64)
    weights = (face.template[:, 1] < 0.1).astype(np.float64)
    template = face.template.astype(np.float64)
    back = canonicalize(landmarks, viewmats, template, weights, INTRINSICS)
    assert np.abs(back - vertices).max() < 0.02


def smooth(viewmats: Float64) -> Float64:
    return smooth_poses(viewmats, np.arange(len(viewmats)), np.ones(len(viewmats), dtype=bool))


def test_smoothing_does_not_lag() -> None:
    """A steady rotation and drift are unchanged, except near the ends."""
    viewmats = np.repeat(np.eye(4)[None], 60, axis=0)
    angles = np.linspace(-10, 10, 60)
    viewmats[:, :3, :3] = Rotation.from_euler("y", angles[:, None], degrees=True).as_matrix()
    viewmats[:, 0, 3], viewmats[:, 2, 3] = np.linspace(-1, 1, 60), 4.0
    inner = slice(15, 45)
    assert np.allclose(smooth(viewmats)[inner], viewmats[inner], atol=1e-6)


def test_smoothing_halves_the_jitter_and_keeps_pixels() -> None:
    rng = np.random.default_rng(0)
    viewmats = make_poses(200)
    noisy = viewmats.copy()
    turns = Rotation.from_rotvec(rng.normal(size=(200, 3)) * 0.005).as_matrix()
    noisy[:, :3, :3] = turns @ viewmats[:, :3, :3]
    noisy[:, 2, 3] += rng.normal(size=200) * 0.02
    noisy[:, :2, 3] *= noisy[:, 2:3, 3] / viewmats[:, 2:3, 3]  # same place in the image
    calm = smooth(noisy)
    assert turn_between(calm, viewmats).mean() < 0.6 * turn_between(noisy, viewmats).mean()
    depth = np.abs(calm[:, 2, 3] - viewmats[:, 2, 3])
    assert depth.mean() < 0.5 * np.abs(noisy[:, 2, 3] - viewmats[:, 2, 3]).mean()
    centre = project(np.zeros((1, 3)), calm, INTRINSICS) - project(
        np.zeros((1, 3)), viewmats, INTRINSICS
    )
    assert np.abs(centre[5:-5]).max() < 0.2


def test_smoothing_stops_at_gaps() -> None:
    """Two runs of frames do not affect each other."""
    viewmats = make_poses(40)
    index = np.concatenate([np.arange(20), np.arange(50, 70)])
    train = np.ones(40, dtype=bool)
    first = smooth_poses(viewmats, index, train)
    changed = viewmats.copy()
    changed[20:, :3, 3] += 1.0
    assert np.array_equal(smooth_poses(changed, index, train)[:20], first[:20])
    assert not np.array_equal(smooth_poses(viewmats, np.arange(40), train)[:20], first[:20])
