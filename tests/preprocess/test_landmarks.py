"""Selection of the face, bridging of gaps, and calls of mediapipe."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from paths import PERSON
from synthetic_head import make_face

from talkhead.blendshapes import BLENDSHAPES, N_BLENDSHAPES
from talkhead.face import N_LANDMARKS, lip_aperture
from talkhead.media import read_frames
from talkhead.preprocess.landmarks import (
    BRIDGE_FRAMES,
    FORGET_FRAMES,
    FaceDetector,
    FaceTracker,
    ThreadModels,
    as_tracking,
    bridge_gaps,
    mesh_triangles,
    track_frames,
)
from talkhead.preprocess.person_mask import PersonSegmenter
from talkhead.types import Float32, Tracking

WIDTH, HEIGHT = 640, 360
FRAME = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
SCORES = np.linspace(0, 1, N_BLENDSHAPES, dtype=np.float32)


class FakeLandmarker:
    """Returns prescribed faces, one list per frame, in mediapipe's format."""

    def __init__(self, script: Sequence[Sequence[Float32]]) -> None:
        self.script = iter(script)

    def detect(self, image: Any) -> Any:
        faces = [_normalised(face) for face in next(self.script)]
        scores = [[SimpleNamespace(score=score) for score in SCORES] for _ in faces]
        return SimpleNamespace(face_landmarks=faces, face_blendshapes=scores)

    def close(self) -> None:
        """Do nothing."""


def _normalised(face: Float32) -> Any:
    size = np.array([WIDTH, HEIGHT, WIDTH])
    return [SimpleNamespace(x=x, y=y, z=z) for x, y, z in face / size]


def face_at(x: float, y: float, eye_distance: float) -> Float32:
    """Landmarks [478, 3] of a face whose eyes are around a pixel."""
    template = make_face().template
    return (template * eye_distance + np.array([x, y, 0.0])).astype(np.float32)


def follow(*script: Sequence[Float32]) -> tuple[Tracking, FaceTracker]:
    detector = FaceDetector.__new__(FaceDetector)  # without mediapipe
    detector._models = ThreadModels(lambda: FakeLandmarker(script))
    tracker = FaceTracker(detector=detector)
    return track_frames(tracker, [FRAME] * len(script)), tracker


def test_pixels_and_found() -> None:
    face = face_at(300, 150, 80)
    tracking, tracker = follow([face], [], [face + 1])
    assert tracking.detected.tolist() == [True, False, True] and tracker.max_faces == 1
    assert np.allclose(tracking.landmarks[0], face, atol=1e-2)
    assert not tracking.landmarks[1].any()
    assert tracking.landmarks.dtype == tracking.blendshapes.dtype == np.float32
    assert np.array_equal(tracking.blendshapes[0], SCORES) and not tracking.blendshapes[1].any()


def test_the_largest_is_chosen() -> None:
    small, large = face_at(320, 120, 40), face_at(150, 120, 90)
    for order in ([small, large], [large, small]):
        tracking, tracker = follow(order)
        assert np.allclose(tracking.landmarks[0], large, atol=1e-2)
        assert tracker.max_faces == 2


def test_of_two_equal_faces_the_more_central_is_chosen() -> None:
    side, middle = face_at(90, 120, 60), face_at(330, 120, 60)
    for order in ([side, middle], [middle, side]):
        tracking, _ = follow(order)
        assert np.allclose(tracking.landmarks[0], middle, atol=1e-2)


def test_the_chosen_face_is_followed_even_if_another_becomes_larger() -> None:
    script = []
    for i in range(20):
        followed, other = face_at(200 + 4 * i, 120, 60), face_at(500 - 4 * i, 120, 40 + 5 * i)
        script.append([other, followed] if i % 2 else [followed, other])
    tracking, _ = follow(*script)
    middle = tracking.landmarks[:, [33, 263], 0].mean(1)
    assert tracking.detected.all() and np.allclose(middle, 200 + 4 * np.arange(20), atol=0.1)


def test_when_the_followed_face_is_hidden_no_other_takes_its_place() -> None:
    mine, other = face_at(200, 120, 60), face_at(460, 120, 90)
    tracking, _ = follow([mine, face_at(460, 120, 40)], [other], [other, mine])
    assert tracking.detected.tolist() == [True, False, True]
    assert np.allclose(tracking.landmarks[2], mine, atol=1e-2)


def test_no_face_from_the_start() -> None:
    tracking, tracker = follow([], [], [])
    assert not tracking.detected.any() and tracking.landmarks.shape == (3, N_LANDMARKS, 3)
    assert tracker.max_faces == 0
    assert len(follow()[0]) == 0


# --------------------------------------------------------------------------------- gaps


def tracking_with_gap(n_missing: int) -> Tracking:
    """A face with uniform motion that is missing for n_missing frames from frame 10 on."""
    n_frames = 20 + n_missing
    steps = np.arange(n_frames, dtype=np.float32)[:, None, None] * np.array([2, 1, 0.5], np.float32)
    landmarks = face_at(100, 100, 50)[None] + steps
    found = np.ones(n_frames, dtype=bool)
    found[10 : 10 + n_missing] = False
    landmarks[~found] = 0.0
    blendshapes = np.repeat(np.linspace(0, 1, n_frames, dtype=np.float32)[:, None], 52, axis=1)
    blendshapes[~found] = 0.0
    return Tracking(landmarks.astype(np.float32), blendshapes, found)


@pytest.mark.parametrize("n_missing", [1, 2, BRIDGE_FRAMES])
def test_short_gaps_are_bridged(n_missing: int) -> None:
    tracking = tracking_with_gap(n_missing)
    bridged, covered = bridge_gaps(tracking)
    assert covered.all()
    steps = np.diff(bridged.landmarks, axis=0)
    assert np.allclose(steps, np.array([2, 1, 0.5]), atol=1e-3), "evenly, like the motion"
    assert np.array_equal(bridged.detected, tracking.detected), (
        "detected and bridged frames remain distinguishable"
    )
    assert bridged.landmarks.dtype == np.float32
    assert np.allclose(bridged.blendshapes[:, 7], np.linspace(0, 1, len(bridged)), atol=1e-6)


def test_long_gaps_and_ends_are_not_bridged() -> None:
    tracking = tracking_with_gap(BRIDGE_FRAMES + 1)
    tracking.detected[:2] = tracking.detected[-2:] = False
    tracking.landmarks[~tracking.detected] = 0.0
    bridged, covered = bridge_gaps(tracking)
    assert np.array_equal(covered, tracking.detected)
    assert np.array_equal(bridged.landmarks, tracking.landmarks)


def test_bridging_does_not_change_its_input() -> None:
    tracking = tracking_with_gap(2)
    before = tracking.landmarks.copy()
    bridge_gaps(tracking)
    assert np.array_equal(tracking.landmarks, before)


def test_no_face_at_all_has_no_gaps() -> None:
    nothing = as_tracking([None] * 5)
    assert not bridge_gaps(nothing)[1].any()


# ---------------------------------------------------------------------------- mediapipe


def test_a_frame_s_landmarks_do_not_depend_on_the_frames_before() -> None:
    """A landmarker that smooths over time flattens fast lip motion."""
    frames = list(read_frames(PERSON, n_frames=40))[::4]
    in_order = track_frames(FaceTracker(), frames)
    alone = [FaceTracker().track(frame) for frame in frames]
    assert in_order.detected.all()
    assert np.array_equal(in_order.landmarks, np.array(alone))


def test_several_threads_find_the_same_faces_and_people() -> None:
    frames = list(read_frames(PERSON, n_frames=40))[::5]
    detector, segmenter = FaceDetector(), PersonSegmenter()
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(detector.detect, frames))
        masks = list(pool.map(segmenter.mask, frames))
    for frame, faces, mask in zip(frames, together, masks, strict=True):
        alone = detector.detect(frame)
        assert len(faces) == len(alone) == 1
        assert np.array_equal(faces[0].landmarks, alone[0].landmarks)
        assert np.array_equal(faces[0].blendshapes, alone[0].blendshapes)
        assert np.array_equal(mask, segmenter.mask(frame))


def test_the_models_of_all_threads_are_closed() -> None:
    made: list[MagicMock] = []
    models = ThreadModels(lambda: made.append(MagicMock()) or made[-1])
    barrier = threading.Barrier(2, timeout=30.0)

    def own(_: int) -> Any:
        barrier.wait()
        return models.own(), models.own()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(own, range(2))
    assert first[0] is first[1] is not second[0] is second[1]
    assert models.own() is made[0] and len(made) == 3
    models.close()
    assert all(model.close.call_count == 1 for model in made)


def test_blendshapes_follow_the_mouth() -> None:
    """Names match values: jawOpen correlates with the tracked opening."""
    frames = list(read_frames(PERSON, n_frames=100))[::2]
    tracking = track_frames(FaceTracker(), frames)
    opening = lip_aperture(tracking.landmarks)
    follows = [np.corrcoef(opening, values)[0, 1] for values in tracking.blendshapes.T[1:]]
    assert follows[BLENDSHAPES.index("jawOpen") - 1] > 0.7
    assert tracking.blendshapes.min() >= 0 and tracking.blendshapes.max() <= 1


def test_mediapipe_s_log_does_not_reach_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    tracker, segmenter = FaceTracker(), PersonSegmenter()
    tracker.track(FRAME)
    segmenter.mask(FRAME)
    tracker.close()
    segmenter.close()
    assert capfd.readouterr() == ("", "")


def test_mesh_triangles_cover_the_surface() -> None:
    triangles = mesh_triangles()
    assert triangles.shape == (852, 3) and triangles.dtype == np.int64
    assert set(triangles.ravel()) == set(range(468))
    assert all(len(set(triangle)) == 3 for triangle in triangles.tolist())
    edges = np.sort(
        np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    )
    shared = np.unique(edges, axis=0, return_counts=True)[1]
    assert shared.max() <= 2, "an edge belongs to one triangle or two"


def test_after_a_long_gap_the_face_may_reappear_anywhere() -> None:
    gone = [[]] * (FORGET_FRAMES + 1)
    tracking, _ = follow([face_at(100, 150, 80)], *gone, [face_at(500, 150, 80)])
    assert tracking.detected[-1]
    tracking, _ = follow([face_at(100, 150, 80)], [], [face_at(500, 150, 80)])
    assert not tracking.detected[-1]
