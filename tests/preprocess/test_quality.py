"""Refusals of footage with their messages, and the quality report."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic_head import make_codes, make_face, make_landmarks, make_poses

from talkhead.blendshapes import N_BLENDSHAPES
from talkhead.cameras import default_intrinsics
from talkhead.errors import FootageError
from talkhead.preprocess.quality import (
    check_footage,
    check_trainable,
    eye_distance,
    head_turn,
    report_quality,
    well_tracked,
)
from talkhead.types import HeadPoses, Tracking


def make_tracking(n_frames: int = 200, n_found: int | None = None, size: float = 1.0) -> Tracking:
    """A face in the first n_found frames, with an eye distance of about 166 px times `size`."""
    intrinsics = default_intrinsics(640, 480)
    vertices = make_face().vertices(make_codes(n_frames)).astype(np.float64)
    landmarks = make_landmarks(vertices, make_poses(n_frames), intrinsics) * size
    found = np.arange(n_frames) < (n_frames if n_found is None else n_found)
    landmarks[~found] = 0.0
    blendshapes = np.zeros((len(found), N_BLENDSHAPES), np.float32)
    return Tracking(landmarks.astype(np.float32), blendshapes, found)


def make_head_poses(n_frames: int = 200) -> HeadPoses:
    return HeadPoses(make_poses(n_frames).astype(np.float32), np.full(n_frames, 0.5, np.float32))


def refusal(tracking: Tracking, min_face: float = 0.8) -> str:
    with pytest.raises(FootageError) as caught:
        check_footage(tracking, min_face, "person.mp4")
    message = str(caught.value)
    assert message.startswith("person.mp4: ") and "\n" not in message
    return message


def test_good_footage_passes() -> None:
    check_footage(make_tracking(), 0.8, "person.mp4")
    check_footage(make_tracking(200, 160), 0.8, "person.mp4")


def test_no_face() -> None:
    assert "no face was found in any of 200 frames" in refusal(make_tracking(200, 0))


def test_a_face_in_too_few_frames() -> None:
    """The message gives the numbers and a setting that would accept the footage."""
    message = refusal(make_tracking(1500, 212))
    assert "a face was found in 212 of 1500 frames (80% needed)" in message
    assert "--min-face 0.1" in message
    check_footage(make_tracking(1500, 212), 0.1, "person.mp4")


@pytest.mark.parametrize("n_found", [110, 130, 215, 399, 591])
def test_the_suggested_setting_is_sufficient(n_found: int) -> None:
    tracking = make_tracking(1000, n_found)
    advised = float(refusal(tracking).rsplit(" ", 1)[1])
    check_footage(tracking, advised, "person.mp4")


def test_too_short() -> None:
    message = refusal(make_tracking(80))
    assert "visible for 3.2 s, at least 4 s are needed" in message
    check_footage(make_tracking(100), 0.8, "person.mp4")


def test_too_small_a_face() -> None:
    message = refusal(make_tracking(size=0.12))
    assert "too small" in message and "(at least 30 needed)" in message
    check_footage(make_tracking(size=0.2), 0.8, "person.mp4")


def test_too_few_frames_to_learn_from() -> None:
    """A face that is always turned away is refused early."""
    tracking, poses = make_tracking(300), make_head_poses(300)
    aside = Rotation.from_euler("y", 60, degrees=True).as_matrix()
    poses.viewmats[80:, :3, :3] = aside
    usable = well_tracked(tracking, np.ones(300, dtype=bool), poses)
    with pytest.raises(FootageError, match=r"^person.mp4: only 80 of 300 frames .* turned away"):
        check_trainable(usable, "person.mp4")
    usable[:100] = True
    check_trainable(usable, "person.mp4")


def test_eye_distance() -> None:
    tracking = make_tracking(50)
    assert eye_distance(tracking.landmarks) == pytest.approx(768 / 4.6, rel=0.05)
    assert eye_distance(0.5 * tracking.landmarks) == pytest.approx(0.5 * 768 / 4.6, rel=0.05)


def test_head_turn() -> None:
    viewmats = np.repeat(np.eye(4, dtype=np.float32)[None], 4, axis=0)
    turns = [("y", 0), ("y", 30), ("x", -50), ("z", 40)]
    for i, (axis, angle) in enumerate(turns):
        viewmats[i, :3, :3] = Rotation.from_euler(axis, angle, degrees=True).as_matrix()
    found = head_turn(HeadPoses(viewmats, np.zeros(4, np.float32)))
    assert found.tolist() == pytest.approx([0, 30, 50, 0], abs=0.1)


def test_well_tracked_frames_and_their_ranges() -> None:
    tracking, poses = make_tracking(300), make_head_poses(300)
    covered = np.ones(300, dtype=bool)
    covered[20:30] = False
    poses.residual_px[100:105] = 40.0
    poses.residual_px[299] = 40.0
    aside = Rotation.from_euler("y", 60, degrees=True).as_matrix()
    poses.viewmats[200:221, :3, :3] = aside
    usable = well_tracked(tracking, covered, poses)
    assert int(usable.sum()) == 300 - 10 - 6 - 21
    assert not usable[[20, 29, 100, 104, 200, 220, 299]].any()
    hidden = np.isin(np.arange(300), [50, 51, 52, 250])
    usable[50:53] = False
    report = report_quality(tracking, covered, poses, usable, hidden, 1, [])
    assert report.no_face == [[20, 29]]
    assert report.hidden == [[50, 52], [250, 250]]
    assert "covers the face in 4 of 300 frames" in report.warnings[0]
    assert "3 of the frames are left out" in report.warnings[0]
    assert report.badly_tracked == [[100, 104], [299, 299]]
    assert report.turned_away == [[200, 220]]
    assert (report.n_frames, report.n_usable) == (300, 260)


def test_the_report_warns_only_when_needed() -> None:
    tracking, poses, covered = make_tracking(600), make_head_poses(600), np.ones(600, dtype=bool)
    calm = report_quality(tracking, covered, poses, covered, ~covered, 1, [])
    assert calm.warnings == [] and calm.no_face == []
    assert calm.eye_distance_px == pytest.approx(768 / 4.6, rel=0.05)
    loud = report_quality(tracking, covered, poses, covered, ~covered, 3, ["the camera moves"])
    assert loud.warnings[0] == "the camera moves"
    assert any("3 faces were found" in warning for warning in loud.warnings)


def test_a_still_mouth_and_little_footage_are_reported() -> None:
    still = (
        make_face().vertices(np.zeros((200, make_face().n_codes), np.float32)).astype(np.float64)
    )
    landmarks = make_landmarks(still, make_poses(200), default_intrinsics(640, 480))
    covered = np.ones(200, dtype=bool)
    tracking = Tracking(landmarks, np.zeros((200, N_BLENDSHAPES), np.float32), covered)
    report = report_quality(tracking, covered, make_head_poses(), covered, ~covered, 1, [])
    notes = " ".join(report.warnings)
    assert "hardly moves" in notes and "under 20 s" in notes
