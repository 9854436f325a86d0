"""How a renderer's colors appear in other footage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from playback import PlaybackRenderer, make_dataset
from scipy.spatial import Delaunay

from talkhead.dataset import FRAMES, IdentityDataset
from talkhead.face import (
    FACE_OVAL,
    INNER_LIPS,
    LEFT_EYE,
    N_SURFACE,
    OUTER_LIPS,
    RIGHT_EYE,
    FaceModel,
)
from talkhead.renderers.color_match import (
    DARK,
    MAX_ANCHORS,
    SPACING,
    Anchors,
    ColorMatch,
    fit_color_match,
)

GAIN = np.array([0.8, 0.6, 0.9], np.float32)


def with_face(dataset: IdentityDataset) -> IdentityDataset:
    """Put a face into the dataset's landmarks, and the mesh that is projected to them."""
    tracks, origin = dataset.tracks, dataset.tracks.origins[0]
    landmarks, rng = tracks.landmarks.copy(), np.random.default_rng(2)
    radius, turn = np.sqrt(rng.uniform(0.0, 0.8, 478)), rng.uniform(0.0, 2.0 * np.pi, 478)
    inside = (radius * np.stack([np.cos(turn), np.sin(turn)])).T
    landmarks[..., :2] = inside * (28, 36) + (32, 40) + origin
    for part, center, size in (
        (FACE_OVAL, (32, 40), (28, 36)),
        (LEFT_EYE, (20, 30), (3, 2)),
        (RIGHT_EYE, (44, 30), (3, 2)),
        (OUTER_LIPS, (32, 58), (8, 4)),
        (INNER_LIPS, (32, 58), (6, 2)),
    ):
        turn = np.linspace(0.0, 2.0 * np.pi, len(part), endpoint=False)
        around = np.stack([np.cos(turn), np.sin(turn)], axis=1) * size + center
        landmarks[:, list(part), :2] = around + origin
    # The template in the plane of the head's center, which the pose does not turn.
    position, k = tracks.viewmats[0, :3, 3], dataset.intrinsics
    template = np.zeros((478, 3), np.float32)
    rays = (landmarks[0, :, :2] - k[:2, 2]) / k[0, 0]
    template[:, :2] = rays * position[2] - position[:2]
    triangles = Delaunay(template[:N_SURFACE, :2]).simplices.astype(np.int64)
    return replace(
        dataset,
        face=replace(dataset.face, template=template, triangles=triangles),
        tracks=replace(
            tracks, landmarks=landmarks, occluded=np.zeros((len(dataset), len(triangles)), bool)
        ),
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


def test_fine_differences_are_found(dataset: IdentityDataset, tmp_path: Path) -> None:
    """A mole in the footage, which the renderer lacks, appears where it is, and nowhere else."""
    filmed = with_face(make_dataset(tmp_path))
    images = np.full_like(np.stack(list(filmed.frames)), 150)
    flat = tmp_path / "flat"
    flat.mkdir()
    plain = with_face(make_dataset(flat))
    images.tofile(flat / FRAMES)
    for image in images:
        cv2.circle(image, (22, 50), 3, (75, 75, 75), -1)
    images.tofile(tmp_path / FRAMES)
    match = fit_color_match(PlaybackRenderer(plain), filmed)  # type: ignore[arg-type]
    (points,) = filmed.crop_landmarks()[:1]
    field = match.field(points, filmed.info.crop_size)
    expected = (75 / 255 + DARK) / (150 / 255 + DARK)
    assert field[50, 22] == pytest.approx(expected, abs=0.06)
    away = np.hypot(*(np.indices(field.shape[:2]) - np.array([50, 22])[:, None, None])) > 7
    assert np.abs(field[away] - 1.0).max() < 0.04


def test_anchors_are_a_grid_of_the_template(dataset: IdentityDataset) -> None:
    face = dataset.face
    anchors = Anchors.of(face)
    width = float(np.ptp(face.template[:N_SURFACE, 0]))
    assert (anchors.weights >= 0.0).all() and np.allclose(anchors.weights.sum(1), 1.0, atol=1e-5)
    found = anchors.on(face.template)
    grid = face.template[:N_SURFACE, :2].min(0) + SPACING * width * anchors.cells
    assert np.quantile(np.abs(found - grid), 0.99) < SPACING * width  # but in slivers
    assert 0.9 < len(anchors) * (SPACING * width) ** 2 / area(face) < 1.1
    assert len(np.unique(anchors.cells, axis=0)) == len(anchors)


@pytest.mark.parametrize("scale", [(0.0, 0.0), (1.0, 0.0), (1e-4, 1.0), (1.0, 1e-4)])
def test_any_template_has_anchors(dataset: IdentityDataset, scale: tuple[float, float]) -> None:
    """Also one that a damaged file made flat; their number is limited."""
    template = dataset.face.template * np.array([*scale, 1.0], np.float32)
    anchors = Anchors.of(replace(dataset.face, template=template))
    assert 0 < len(anchors) <= MAX_ANCHORS and np.isfinite(anchors.weights).all()


def area(face: FaceModel) -> float:
    """Return the area of a flat face."""
    a, b, c = (face.template[face.triangles[:, i], :2] for i in range(3))
    first, second = b - a, c - a
    return float(np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).sum() / 2.0)


def test_equal_gains_fill_the_image(dataset: IdentityDataset) -> None:
    """Also far from the face, and in a window that shows none of it."""
    anchors = Anchors.of(dataset.face)
    match = ColorMatch(
        np.full((len(anchors), 3), 1.7, np.float32), anchors, np.full(3, 1.7, np.float32)
    )
    rng = np.random.default_rng(0)
    for shift in (0.0, 900.0):
        points = rng.uniform(20.0, 60.0, (478, 2)).astype(np.float32) + np.float32(shift)
        field = match.field(points, (83, 101))
        assert field.shape == (83, 101, 3) and np.allclose(field, 1.7, atol=1e-4)


def test_gains_follow_the_mesh(dataset: IdentityDataset) -> None:
    """Gains that rise with x and y are interpolated where the landmarks are."""
    anchors = Anchors.of(dataset.face)
    (points,) = dataset.crop_landmarks()[:1]
    turned = np.stack([80.0 - points[:, 1], 1.5 * points[:, 0] + 5.0], axis=1)
    steady = anchors.on(points)
    gains = 1.0 + np.stack([steady[:, 0], steady[:, 1], 0 * steady[:, 0]], axis=1) / 64.0
    field = ColorMatch(gains.astype(np.float32), anchors, np.ones(3, np.float32)).field(
        turned.astype(np.float32), (110, 90)
    )
    # Pixel (x, y) shows the point (u, v) = ((y - 5) / 1.5, 80 - x) of the first landmarks.
    for u, v in ((32.0, 40.0), (24.0, 60.0), (42.0, 22.0)):
        x, y = round(80.0 - v - 0.5), round(1.5 * u + 5.0 - 0.5)
        assert field[y, x] == pytest.approx([1 + u / 64, 1 + v / 64, 1.0], abs=0.03)


def test_teeth_have_gains_of_their_own(dataset: IdentityDataset) -> None:
    anchors = Anchors.of(dataset.face)
    points = 4.0 * dataset.crop_landmarks()[0]
    match = ColorMatch(np.full((len(anchors), 3), 2.0, np.float32), anchors, np.ones(3, np.float32))
    field = match.field(points.astype(np.float32), (320, 256))
    x, y = points[list(INNER_LIPS)].mean(0)
    assert field[round(y), round(x)] == pytest.approx([1.0] * 3, abs=0.05)
    assert field[round(y) - 40, round(x)] == pytest.approx([2.0] * 3, abs=1e-3)
