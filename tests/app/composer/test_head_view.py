"""Turning and zooming the head within the range of the footage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic_head import make_codes, make_face

from talkhead.app.composer.expression_track import EASE_S, read_track
from talkhead.app.composer.head_view import (
    EAR_LANDMARKS,
    TOLERANCE_DEG,
    Span,
    View,
    head_camera,
    head_origin,
    min_zoom,
    moved_by_track,
    out_of_range_message,
    turned_clip,
    yaw_and_pitch,
)
from talkhead.app.composer.idle_clip import IdleClip
from talkhead.cameras import project
from talkhead.face import N_BODY
from talkhead.types import Float64

N, HEIGHT, WIDTH = 200, 300, 200
NOSE = 4


@pytest.fixture(scope="module")
def clip() -> IdleClip:
    """A head that looks -4 to 4 degrees to the right and 0 to 6 up, rolled, in a crop that follows
    it.
    """
    phase = np.linspace(0.0, 6 * np.pi, N)
    angles = np.stack([-4 * np.sin(phase), -3 + 3 * np.cos(0.7 * phase), np.full(N, 5.0)], axis=1)
    views = np.tile(np.eye(4), (N, 1, 1))
    views[:, :3, :3] = Rotation.from_euler("YXZ", angles, degrees=True).as_matrix()
    views[:, :3, 3] = np.stack([0.1 * np.sin(phase), np.zeros(N), np.full(N, 4.0)], axis=1)
    return IdleClip(
        path=Path("idle.mp4"),
        face=make_face(),
        codes=make_codes(N),
        viewmats=views.astype(np.float32),
        origins=np.stack([100 + np.round(9 * np.sin(phase)), np.full(N, 50)], 1).astype(np.float32),
        masks=np.zeros((N, HEIGHT // 4, WIDTH // 4), np.uint8),
        background=np.zeros((400, 400, 3), np.uint8),
        crop_height=HEIGHT,
        crop_width=WIDTH,
        scale=1.0,
    )


def places(clip: IdleClip, indices: list[int], zoom: float = 1.0) -> Float64:
    """Positions [F, n, 2] of the resting face's vertices in head shots."""
    points = clip.face.template[indices].mean(0, keepdims=True).astype(np.float64)
    return project(points, clip.viewmats.astype(np.float64), head_camera(clip, zoom)[0])


def test_yaw_looks_right_and_pitch_looks_up(clip: IdleClip) -> None:
    before = places(clip, [NOSE])
    right = places(turned_clip(clip, View(yaw=2.0)), [NOSE]) - before
    up = places(turned_clip(clip, View(pitch=2.0)), [NOSE]) - before
    assert (right[..., 0] > 0).all() and (up[..., 1] < 0).all()


def test_the_head_turns_about_its_own_middle(clip: IdleClip) -> None:
    turned = turned_clip(clip, View(yaw=2.0, pitch=-1.0))
    assert np.allclose(
        places(turned, list(EAR_LANDMARKS)), places(clip, list(EAR_LANDMARKS)), atol=1e-3
    )
    assert not np.allclose(turned.viewmats[:, :3, :3], clip.viewmats[:, :3, :3], atol=1e-2)


def test_in_the_middle_of_the_range_the_turn_is_as_requested(clip: IdleClip) -> None:
    yaw, pitch = yaw_and_pitch(clip.viewmats)
    turned_yaw, turned_pitch = yaw_and_pitch(turned_clip(clip, View(yaw=1.5)).viewmats)
    middle = np.abs(yaw) < 2.0
    assert np.allclose(turned_yaw[middle] - yaw[middle], 1.5, atol=0.02)
    assert np.allclose(turned_pitch, pitch, atol=1e-4)


@pytest.mark.parametrize("turn", [-40.0, -6.0, 0.5, 6.0, 40.0])
def test_turns_stay_in_the_seen_range_and_motion_continues(turn: float) -> None:
    angles = np.linspace(-4.0, 5.0, 500)
    span = Span.of(angles)
    turned = span.turned(angles, turn)
    low, high = min(span.low, angles.min()), max(span.high, angles.max())
    assert low - TOLERANCE_DEG <= turned.min() and turned.max() <= high + TOLERANCE_DEG
    assert (np.diff(turned) > 0).all(), "motion continues in the same order"
    assert (np.sign(turned - angles) == np.sign(turn)).all()


def test_without_a_turn_nothing_changes(clip: IdleClip) -> None:
    assert turned_clip(clip, View(zoom=1.2)) is clip
    slight = turned_clip(clip, View(yaw=1e-6))
    assert np.allclose(slight.viewmats, clip.viewmats, atol=1e-5)


def test_motion_is_scaled_about_the_usual_pose_and_place(clip: IdleClip) -> None:
    ears, body = list(EAR_LANDMARKS), slice(-N_BODY, None)
    kept = {motion: turned_clip(clip, View(motion=motion)) for motion in (1.0 - 1e-7, 0.5, 0.0)}
    whole, half, still = kept.values()
    assert np.allclose(whole.viewmats, clip.viewmats, atol=1e-4)
    for of in (
        lambda one: yaw_and_pitch(one.viewmats).T,
        lambda one: (one.viewmats @ np.append(clip.face.template[ears].mean(0), 1.0))[:, :3],
        lambda one: one.codes[:, body],
    ):
        filmed = of(clip)
        usual = np.median(filmed, axis=0)
        np.testing.assert_allclose(of(half) - usual, 0.5 * (filmed - usual), atol=1e-4)
        np.testing.assert_allclose(of(still), np.broadcast_to(usual, filmed.shape), atol=1e-4)
    for one in kept.values():  # mouth, eyes and brows
        np.testing.assert_array_equal(one.codes[:, :-N_BODY], clip.codes[:, :-N_BODY])


def test_clothes_are_calmed_with_the_body(clip: IdleClip) -> None:
    at, clothes = clip.face.clothes.start, np.sin(np.arange(N, dtype=np.float32))[:, None]
    face = replace(clip.face, basis=np.insert(clip.face.basis, at, 0.0, axis=0))
    dressed = replace(clip, face=face, codes=np.insert(clip.codes, [at], clothes, axis=1))
    still = turned_clip(dressed, View(motion=0.0)).codes
    np.testing.assert_allclose(still[:, at], np.median(clothes), atol=1e-6)
    np.testing.assert_array_equal(still[:, :at], clip.codes[:, :at])


def test_a_still_head_can_be_turned(clip: IdleClip) -> None:
    yaw, pitch = yaw_and_pitch(turned_clip(clip, View(yaw=1.5, motion=0.0)).viewmats)
    usual = np.median(yaw_and_pitch(clip.viewmats), axis=1)
    np.testing.assert_allclose(yaw - usual[0], 1.5, atol=0.02)
    np.testing.assert_allclose(pitch, usual[1], atol=1e-4)


def test_a_constant_track_turns_as_far_as_the_footage_shows(clip: IdleClip) -> None:
    """Half of the range from the usual angle to its end is the same as that angle as an option."""
    yaw, pitch = map(Span.of, yaw_and_pitch(clip.viewmats))
    for text, view in (
        ("turn_right=0.5", View(yaw=0.5 * (yaw.high - yaw.usual))),
        ("turn_left=1", View(yaw=yaw.low - yaw.usual)),
        (
            "turn_up=0.4, head_motion=0.3",
            View(pitch=0.4 * (pitch.high - pitch.usual), motion=0.3),
        ),
    ):
        moved, turned = moved_by_track(clip, read_track(text), 25.0, clip), turned_clip(clip, view)
        assert np.allclose(moved.viewmats, turned.viewmats, atol=1e-6)
        assert np.allclose(moved.codes, turned.codes, atol=1e-6)


def test_a_track_turns_the_head_by_time(clip: IdleClip) -> None:
    track = read_track("2: turn_right=1; 4: turn_right=-")
    moved = yaw_and_pitch(moved_by_track(clip, track, 25.0, clip).viewmats)[0]
    own = yaw_and_pitch(clip.viewmats)[0]
    span = Span.of(own)
    times = np.arange(N) / 25.0
    away = (times < 2.0 - EASE_S) | (times > 4.0 + EASE_S)
    assert np.allclose(moved[away], own[away], atol=1e-3)
    during = (times > 2.0) & (times < 4.0)
    assert (moved[during] > own[during]).all()
    assert moved.max() <= span.high + TOLERANCE_DEG
    steps = np.abs(np.diff(moved - own))
    assert steps.max() < (span.high - span.usual) * 2.0 / (25.0 * EASE_S)  # eased


def test_zooming_in_keeps_the_head_and_zooming_out_the_lower_edge(clip: IdleClip) -> None:
    near, usual = head_camera(clip, 1.5)[0], head_camera(clip)[0]
    assert near[0, 0] == pytest.approx(1.5 * usual[0, 0])
    middle = np.median(places(clip, list(EAR_LANDMARKS)), axis=0)
    assert np.allclose(np.median(places(clip, list(EAR_LANDMARKS), 1.5), axis=0), middle, atol=1e-3)
    out = head_camera(clip, 0.98)[0].astype(np.float64)
    lowest = np.array([[0.0, (HEIGHT - usual[1, 2]) / usual[1, 1], 1.0]])
    seen = project(lowest, np.eye(4)[None], out)
    assert seen[0, 0, 1] == pytest.approx(HEIGHT, abs=1e-3)


def test_zooming_out_ends_where_the_body_does(clip: IdleClip) -> None:
    """The sides of the picture then show the edges of the outermost crops."""
    least = min_zoom(clip)
    assert 0.85 < least < 1.0
    assert np.array_equal(head_camera(clip, 0.5), head_camera(clip, least))
    ks, shot = head_camera(clip, 0.5)[0].astype(np.float64), head_camera(clip)[0]
    left, right = (np.array([x, 0.0, 1.0]) for x in (0.0, WIDTH))
    shown = [(shot @ np.linalg.solve(ks, side))[0] + head_origin(clip)[0] for side in (left, right)]
    assert clip.origins[:, 0].min() - 0.01 <= shown[0] < 93.0
    assert 307.0 < shown[1] <= clip.origins[:, 0].max() + WIDTH + 0.01
    assert min_zoom(replace(clip, origins=np.full_like(clip.origins, 7.0))) == 1.0


def test_unseen_angles_are_reported_with_the_seen_range(clip: IdleClip) -> None:
    assert out_of_range_message(clip, View(3.0, -2.0, 1.5)) == ""
    assert out_of_range_message(clip, View(20.0)) == (
        "the footage shows yaw -4 to +4 degrees (20 was requested): the head stays within that range"
    )
    messages = out_of_range_message(clip, View(pitch=-9.0, zoom=0.5))
    assert (
        "pitch -3 to +3 degrees (-9 was requested), zoom" in messages
        and "(0.5 was requested)" in messages
    )
