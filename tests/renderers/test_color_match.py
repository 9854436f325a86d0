"""How a renderer's colors appear in other footage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playback import PlaybackRenderer, make_dataset

from talkhead.dataset import FRAMES, IdentityDataset
from talkhead.face import FACE_OVAL, LEFT_EYE, OUTER_LIPS, RIGHT_EYE
from talkhead.renderers.color_match import (
    N_ANCHORS,
    ColorMatch,
    fit_color_match,
    unmatched,
)

GAIN = np.array([0.8, 0.6, 0.9], np.float32)


def with_face(dataset: IdentityDataset) -> IdentityDataset:
    """Put the outline of a face, eyes and lips into the dataset's landmarks."""
    landmarks, origin = dataset.tracks.landmarks.copy(), dataset.tracks.origins[0]
    for part, center, size in (
        (FACE_OVAL, (32, 40), (28, 36)),
        (LEFT_EYE, (20, 30), (3, 2)),
        (RIGHT_EYE, (44, 30), (3, 2)),
        (OUTER_LIPS, (32, 58), (8, 4)),
    ):
        turn = np.linspace(0.0, 2.0 * np.pi, len(part), endpoint=False)
        around = np.stack([np.cos(turn), np.sin(turn)], axis=1) * size + center
        landmarks[:, list(part), :2] = around + origin
    template = np.zeros((478, 3), np.float32)
    template[:, :2] = (landmarks[0, :, :2] - origin) / 34.0  # the eyes' distance
    return replace(
        dataset,
        face=replace(dataset.face, template=template),
        tracks=replace(dataset.tracks, landmarks=landmarks),
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> IdentityDataset:
    return with_face(make_dataset(tmp_path_factory.mktemp("rendered")))


def other_light(dataset: IdentityDataset, folder: Path, side: float = 0.0) -> IdentityDataset:
    """The same frames with other colors, and brighter toward the right by `side`."""
    made = with_face(make_dataset(folder))
    images = np.stack(list(dataset.frames)).astype(np.float32) / np.float32(255.0)
    slope = 1.0 + side * np.linspace(-1.0, 1.0, images.shape[2], dtype=np.float32)[:, None]
    (255.0 * np.clip(GAIN * slope * images, 0.0, 1.0) + 0.5).astype(np.uint8).tofile(
        folder / FRAMES
    )
    return made


def test_another_light_is_found(dataset: IdentityDataset, tmp_path: Path) -> None:
    filmed = other_light(dataset, tmp_path)
    match = fit_color_match(PlaybackRenderer(dataset), filmed)  # type: ignore[arg-type]
    assert np.allclose(match.gains, GAIN, atol=0.06)
    (points,) = filmed.crop_landmarks()[3:4]
    rendered = dataset.frames[3].astype(np.float32)
    mapped = rendered * match.field(points, rendered.shape[:2])  # type: ignore[arg-type]
    assert np.abs(mapped - filmed.frames[3]).mean() < 4.0


def test_light_from_the_side_is_found(dataset: IdentityDataset, tmp_path: Path) -> None:
    """The gains rise from one cheek to the other."""
    filmed = other_light(dataset, tmp_path, side=0.3)
    match = fit_color_match(PlaybackRenderer(dataset), filmed)  # type: ignore[arg-type]
    (points,) = filmed.crop_landmarks()[:1]
    field = match.field(points, filmed.info.crop_size)[..., 0]
    left, right = field[30:50, 12].mean(), field[30:50, 52].mean()
    assert left == pytest.approx(0.8 * 0.82, abs=0.1) and right == pytest.approx(
        0.8 * 1.19, abs=0.1
    )


def test_the_same_light_changes_nothing(dataset: IdentityDataset) -> None:
    match = fit_color_match(PlaybackRenderer(dataset), dataset)  # type: ignore[arg-type]
    assert np.allclose(match.gains, 1.0, atol=1e-3)


def test_without_a_visible_face_nothing_changes(dataset: IdentityDataset) -> None:
    tracks = replace(dataset.tracks, usable=np.zeros(len(dataset), bool))
    match = fit_color_match(PlaybackRenderer(dataset), replace(dataset, tracks=tracks))  # type: ignore[arg-type]
    assert (match.gains == 1.0).all()
    thin = PlaybackRenderer(dataset, cover=0.5)
    assert (fit_color_match(thin, dataset).gains == 1.0).all()  # type: ignore[arg-type]


def test_equal_gains_fill_the_image() -> None:
    """Also far from the face, and in a window that shows none of it."""
    match = ColorMatch(np.full((N_ANCHORS, 3), 1.7, np.float32))
    rng = np.random.default_rng(0)
    for shift in (0.0, 900.0):
        points = rng.uniform(20.0, 60.0, (478, 2)).astype(np.float32) + np.float32(shift)
        field = match.field(points, (83, 101))
        assert field.shape == (83, 101, 3) and np.allclose(field, 1.7, atol=1e-4)
    assert np.allclose(unmatched().field(points, (8, 9)), 1.0)
