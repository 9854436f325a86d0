"""Who is who: the sample person and another one, whose skin differs, in frames of both."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch
from paths import PERSON
from scipy.interpolate import LinearNDInterpolator
from synthetic_head import make_clip, make_face
from torch import Tensor

from talkhead import media
from talkhead.app.avatar import Avatar
from talkhead.app.dubbing.face_likeness import CROP_SIZE, FaceCrop, PersonLikeness, crop_face
from talkhead.app.dubbing.speaker_matching import (
    MIN_LIKENESS,
    assign_speakers,
    link_faces,
    match_faces,
)
from talkhead.app.dubbing.timeline import Shot
from talkhead.cameras import default_intrinsics, project
from talkhead.face import N_SURFACE, FaceModel
from talkhead.preprocess.head_pose import track_head
from talkhead.preprocess.landmarks import FaceDetector, mesh_triangles
from talkhead.preprocess.motion_codes import encode_motion, fit_face_model
from talkhead.progress import SilentProgress
from talkhead.types import Float32, Float64, Rendering, UInt8


def mapped(picture: Float32, points: Any, to: Any, size: tuple[int, int]) -> Float32:
    """Map a picture of a face with landmarks at points to an image of another size, where they are
    elsewhere; NaN outside the face."""
    pixels = np.stack(np.meshgrid(np.arange(size[1]), np.arange(size[0])), axis=-1)
    at = LinearNDInterpolator(to[:N_SURFACE, :2], points[:N_SURFACE, :2])(pixels)
    image = cv2.remap(picture, np.nan_to_num(at).astype(np.float32), None, cv2.INTER_LINEAR)
    image[np.isnan(at[..., 0])] = np.nan
    return np.asarray(image)


class PictureRenderer:
    """Renders a face by mapping one picture of it to the mesh."""

    def __init__(self, face: FaceModel, picture: UInt8, landmarks: Float32) -> None:
        self.face, self.landmarks = face, landmarks
        self.picture = picture.astype(np.float32) / np.float32(255.0)

    def tensors(self) -> dict[str, Tensor]:
        return {"picture": torch.zeros(1)}

    def render(
        self, codes: Tensor, views: Tensor, ks: Tensor, height: int, width: int
    ) -> Rendering:
        vertices = self.face.vertices(codes.numpy()).astype(np.float64)
        places = project(vertices, views.double().numpy(), ks.double().numpy())
        images = [mapped(self.picture, self.landmarks, to, (height, width)) for to in places]
        rgb = torch.from_numpy(np.stack(images))
        return Rendering(rgb.nan_to_num(), rgb[..., :1].isfinite().float())


class Sample(SimpleNamespace):
    """Frames of the sample person, their landmarks, and the frames of another person."""

    frames: list[UInt8]
    others: list[UInt8]
    landmarks: Float32
    people: Mapping[str, Avatar]


def other_skins(frames: list[UInt8], landmarks: Float32) -> list[UInt8]:
    """Change the structure of the skin."""
    pattern = cv2.GaussianBlur(np.random.default_rng(4).normal(size=(384, 384)), (0, 0), 2.5)
    factor = (1.0 + 0.2 * pattern / pattern.std()).astype(np.float32)
    factors = [
        np.nan_to_num(mapped(factor, landmarks[0], to, (384, 384)), nan=1.0) for to in landmarks
    ]
    changed = [frame * one[..., None] for frame, one in zip(frames, factors, strict=True)]
    return [one.clip(0, 255).astype(np.uint8) for one in changed]


@pytest.fixture(scope="module")
def sample() -> Sample:
    with closing(media.read_frames(PERSON, n_frames=96)) as read:
        frames = list(read)[::4]
    with closing(FaceDetector()) as detector:
        landmarks = np.stack([detector.detect(frame)[0].landmarks for frame in frames])
    every = np.ones(len(frames), dtype=bool)
    head = track_head(landmarks, every, every, default_intrinsics(384, 384))
    face = fit_face_model(head.template, head.canonical, every, ~every, mesh_triangles())
    idle = replace(make_clip(encode_motion(face, head.canonical)), face=face)
    others = other_skins(frames, landmarks)

    def avatar(picture: UInt8) -> Avatar:
        renderer = PictureRenderer(face, picture, landmarks[0])
        return cast(Avatar, SimpleNamespace(renderer=renderer, idle=idle))

    people = {"mine": avatar(frames[0]), "other": avatar(others[0])}
    return Sample(frames=frames, others=others, landmarks=landmarks, people=people)


def crops(frames: list[UInt8], landmarks: Float32) -> list[FaceCrop]:
    return [crop_face(i, *pair) for i, pair in enumerate(zip(frames, landmarks, strict=True))]


@pytest.mark.parametrize("shown", ["mine", "other"])
def test_a_face_is_like_its_person_alone(sample: Sample, shown: str) -> None:
    frames = (sample.frames if shown == "mine" else sample.others)[1::4]
    faces = crops(frames, sample.landmarks[1::4])
    likeness = {name: PersonLikeness(one).compare(faces) for name, one in sample.people.items()}
    assert likeness.pop(shown).min() > MIN_LIKENESS + 0.1
    assert max(wrong.max() for wrong in likeness.values()) < MIN_LIKENESS - 0.1


def test_light_and_size_count_little(sample: Sample) -> None:
    person = PersonLikeness(sample.people["mine"])
    frames, landmarks = sample.frames[2::5], sample.landmarks[2::5]
    across = np.linspace(0.3, 1.1, 384)[None, :, None]
    lit = [(255 * (f / 255.0 * across) ** 0.8 * (1, 0.8, 0.6)).astype(np.uint8) for f in frames]
    small = [cv2.resize(f, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA) for f in frames]
    plain = person.compare(crops(frames, landmarks))
    assert (person.compare(crops(lit, landmarks)) > plain - 0.15).all()
    assert (person.compare(crops(small, landmarks * np.float32(0.7))) > plain - 0.15).all()


def test_nothing_to_compare_is_no_likeness(sample: Sample) -> None:
    person = PersonLikeness(sample.people["mine"])
    gray = [np.full((384, 384, 3), 120, np.uint8)]
    assert person.compare(crops(gray, sample.landmarks[:1]))[0] == 0.0
    outside = sample.landmarks[:1] - np.float32(5000.0)
    assert abs(person.compare(crops(sample.frames[:1], outside))[0]) < MIN_LIKENESS


def test_speakers_of_a_video_are_found_in_each_shot(sample: Sample, tmp_path: Path) -> None:
    """Both, in one order and then in the other; one of them; nobody."""
    pairs = list(zip(sample.frames, sample.others, strict=True))[1:6]
    empty = np.full((384, 768, 3), 90, np.uint8)
    both = [np.concatenate(pair, axis=1) for pair in pairs]
    swapped = [np.concatenate(pair[::-1], axis=1) for pair in pairs]
    alone = [empty.copy() for _ in pairs]
    for frame, (_, other) in zip(alone[2:], pairs[2:], strict=True):
        frame[:, 384:] = other
    video = tmp_path / "two.mp4"
    media.write_video(video, iter([*both, *swapped, *alone, *[empty] * 5]), crf=8)
    shots = [Shot(first, first + 5) for first in range(0, 20, 5)]
    first, second, third, last = assign_speakers(video, shots, sample.people, SilentProgress())
    assert first.keys() == second.keys() == {"mine", "other"}
    assert third.keys() == {"other"} and not last
    sides = [
        {name: one.landmarks[1, 0] < 384 for name, one in shot.items()} for shot in (first, second)
    ]
    assert sides == [{"mine": True, "other": False}, {"mine": False, "other": True}]
    assert [one.frame for one in first.values()] == [0, 0], "the first frame"
    assert third["other"].frame == 12, "the first one in which they are seen"
    only = assign_speakers(video, shots[2:], {"mine": sample.people["mine"]}, SilentProgress())
    assert only == [{}, {}], "nobody is taken for another"


# ------------------------------------------------------------------------------- linking, assignment


def face_at(frame: int, x: float, size: float = 60.0) -> FaceCrop:
    landmarks = make_face().template * size + np.array([x, 100.0, 0.0])
    return crop_face(frame, np.zeros((200, 600, 3), np.uint8), landmarks.astype(np.float32))


def place_of(landmarks: Float32) -> int:
    return round(float(landmarks[:, 0].mean()))


def places(person: list[FaceCrop]) -> list[tuple[int, int]]:
    return [(face.frame, place_of(face.landmarks)) for face in person]


def test_faces_are_linked_by_position_whatever_their_order() -> None:
    samples = [
        [face_at(i, 150 + 5 * i), face_at(i, 400 - 5 * i)][:: 1 if i % 2 else -1] for i in range(6)
    ]
    samples[3] = [face for face in samples[3] if places([face])[0][1] < 300]  # one is not found
    right, left = link_faces(samples)
    assert [frame for frame, _ in places(left)] == [0, 1, 2, 3, 4, 5]
    assert [frame for frame, _ in places(right)] == [0, 1, 2, 4, 5]
    assert np.ptp([x for _, x in places(left)]) < 40 and np.ptp([x for _, x in places(right)]) < 40


def test_a_face_elsewhere_is_another_one() -> None:
    people = link_faces([[face_at(0, 100)], [face_at(1, 330)], [], [face_at(3, 105)]])
    assert [[frame for frame, _ in places(person)] for person in people] == [[0, 3], [1]]
    assert link_faces([[], []]) == []


class Figures:
    """Likenesses by the place of a face."""

    def __init__(self, by_place: Mapping[int, float]) -> None:
        self.by_place = by_place

    def compare(self, faces: list[FaceCrop]) -> Float64:
        return np.array([self.by_place[place_of(face.landmarks)] for face in faces])


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"a": (0.9, 0.7), "b": (0.8, 0.3)}, {"a": 1, "b": 0}),  # the sum decides
        ({"a": (0.9, 0.5), "b": (0.8, 0.5)}, {"a": 0}),  # a face belongs to one speaker
        ({"a": (0.9, 0.8)}, {"a": 0}),  # a speaker has one face
        ({"a": (0.5, 0.54)}, {}),
    ],
)
def test_faces_are_assigned_once(
    figures: Mapping[str, tuple[float, float]], expected: Mapping[str, int]
) -> None:
    seen = [[face_at(2, x), face_at(5, x)] for x in (100, 400)]
    at = [place_of(faces[0].landmarks) for faces in seen]
    likeness: Any = {
        name: Figures(dict(zip(at, values, strict=True))) for name, values in figures.items()
    }
    found = match_faces(seen, likeness)
    assert {name: (one.frame, place_of(one.landmarks)) for name, one in found.items()} == {
        name: (2, place_of(seen[place][0].landmarks)) for name, place in expected.items()
    }
    assert all(one.likeness == figures[name][expected[name]] for name, one in found.items())
    assert match_faces([], likeness) == {}


def test_a_crop_holds_the_whole_face(sample: Sample) -> None:
    for scale in (1.0, 0.3):
        face = crop_face(0, sample.frames[0], sample.landmarks[0] * np.float32(scale))
        assert face.image.shape[:2] == CROP_SIZE
        assert (face.points >= 0).all() and (face.points < CROP_SIZE[::-1]).all()
