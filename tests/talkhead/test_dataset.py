"""Datasets on disk, and crops that may reach beyond the image."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from synthetic_head import make_dataset, make_face, with_clothes

from talkhead.cameras import project
from talkhead.crops import OCCLUSION_MARGIN_PX, cut_crop, occluded_area, shrunk_mask
from talkhead.dataset import IdentityDataset, ImageFile
from talkhead.errors import PackageError
from talkhead.face import CHIN, OUTER_EYE_CORNERS
from talkhead.frame_selection import farthest_first, spread_frames, train_frames
from talkhead.storage import read_tensors
from talkhead.types import UInt8


@pytest.fixture
def picture() -> UInt8:
    """A smooth image [40, 60, 3] in which all pixels differ from their neighbors."""
    y, x = np.mgrid[:40, :60]
    return np.stack([4 * x, 6 * y, 2 * (x + y)], axis=-1).astype(np.uint8)


def test_spread_frames_are_allowed_and_reach_both_ends() -> None:
    allowed = np.arange(50) % 3 == 1
    assert spread_frames(allowed, 3).tolist() == [1, 25, 49]
    assert spread_frames(allowed, 100).tolist() == np.flatnonzero(allowed).tolist()
    assert spread_frames(~np.ones(5, bool), 4).tolist() == []


def test_crop_inside_is_the_slice(picture: UInt8) -> None:
    crop = cut_crop(picture, np.array([7, 3], np.float32), (20, 30), 1.0)
    assert np.array_equal(crop, picture[3:23, 7:37])
    crop[:] = 0
    assert picture.any(), "a crop is a copy"


@pytest.mark.parametrize("origin", [(-5, -4), (45, 30), (-5, 30), (45, -4), (-10, -10)])
def test_crop_beyond_the_edge_repeats_it(picture: UInt8, origin: tuple[int, int]) -> None:
    height, width = 20, 30
    crop = cut_crop(picture, np.array(origin, np.float32), (height, width), 1.0)
    rows = np.clip(np.arange(origin[1], origin[1] + height), 0, 39)
    columns = np.clip(np.arange(origin[0], origin[0] + width), 0, 59)
    assert np.array_equal(crop, picture[np.ix_(rows, columns)])


def test_crop_beyond_the_edge_with_zeros(picture: UInt8) -> None:
    crop = cut_crop(picture[..., 0] + 1, np.array([-5, -4], np.float32), (20, 30), 1.0, pad="zero")
    assert not crop[:4].any() and not crop[:, :5].any() and crop[4:, 5:].all()


def test_scaled_crop_averages(picture: UInt8) -> None:
    crop = cut_crop(picture, np.array([2, 4], np.float32), (10, 15), 0.5)
    blocks = picture[4:24, 2:32].reshape(10, 2, 15, 2, 3).mean((1, 3))
    assert np.abs(crop.astype(float) - blocks).max() <= 0.51


def test_scaled_crop_with_padding_and_odd_scale(picture: UInt8) -> None:
    crop = cut_crop(picture, np.array([-8, 20], np.float32), (16, 16), 0.6)
    assert crop.shape == (16, 16, 3)
    assert np.abs(crop[:, :4].astype(int) - crop[:, :1].astype(int)).max() <= 1  # repeated edge


@pytest.mark.parametrize("n_frames", [11, 40, 250, 1773])
def test_the_last_eleventh_is_held_out(n_frames: int) -> None:
    train = train_frames(n_frames)
    n_test = int((~train).sum())
    assert n_test == pytest.approx(n_frames / 11, abs=0.5)
    assert not train[-n_test:].any() and train[:-n_test].all()
    assert train_frames(n_frames, use_all=True).all()


def test_round_trip(head_dataset: IdentityDataset, tmp_path: Path) -> None:
    IdentityDataset.save(tmp_path, head_dataset.info, head_dataset.face, head_dataset.tracks)
    back = IdentityDataset.load(tmp_path)
    assert back.info == head_dataset.info and len(back) == 40
    stored = read_tensors(tmp_path / "tracks.safetensors")
    assert {"found", "kept", "hidden"} < set(stored)  # as in datasets of earlier versions
    for name, value in vars(head_dataset.tracks).items():
        kept = getattr(back.tracks, name)
        assert kept.dtype == value.dtype and np.array_equal(kept, value), name
    assert np.array_equal(back.face.basis, head_dataset.face.basis)


def test_another_version(head_dataset: IdentityDataset, tmp_path: Path) -> None:
    shutil.copytree(head_dataset.path, tmp_path / "copy")
    stored = json.loads((tmp_path / "copy" / "dataset.json").read_text())
    known = stored["format"]
    for version, advice in (
        (known + 1, "Upgrade talkhead"),
        (known - 1, "Remove this folder and run the same talkhead fit again"),
        (None, "Remove this folder"),
        ("4", "Remove this folder"),
        (True, "Remove this folder"),
    ):
        (tmp_path / "copy" / "dataset.json").write_text(json.dumps({**stored, "format": version}))
        message = rf"a dataset of format version {version!r}; this .* version {known}\. {advice}"
        with pytest.raises(PackageError, match=message):
            IdentityDataset.load(tmp_path / "copy")


def test_images_are_read_one_by_one(head_dataset: IdentityDataset) -> None:
    frames, masks = head_dataset.frames, head_dataset.masks
    assert len(frames) == len(masks) == 40
    assert frames[7].shape == (128, 96, 3) and masks[np.int64(7)].shape == (128, 96)
    assert frames[7].dtype == np.uint8 and np.array_equal(list(frames)[7], frames[7])
    for index in (40, -1):
        with pytest.raises(IndexError):
            frames[index]


def test_image_file_grows_and_is_truncated(tmp_path: Path) -> None:
    """Images are appended in pieces, and truncated to whole ones after a partial write."""
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    file = ImageFile(tmp_path / "images.u8", (4, 6, 3))
    assert len(file) == 0
    file.append(images[:2])
    file.append(image[:, ::-1] for image in images[2:4, :, ::-1])
    assert len(file) == 4 and np.array_equal(list(file), images[:4])
    with file.path.open("ab") as stream:
        stream.write(b"torn off")
    assert len(file) == 4
    file.truncate(3)
    file.append([images[4]])
    assert np.array_equal(list(file), images[[0, 1, 2, 4]])


def test_damaged_background(head_dataset: IdentityDataset, tmp_path: Path) -> None:
    shutil.copytree(head_dataset.path, tmp_path / "copy")
    (tmp_path / "copy" / "plate.png").write_bytes(b"no picture")
    with pytest.raises(PackageError, match=r"plate\.png"):
        _ = IdentityDataset.load(tmp_path / "copy").background


def test_landmarks_cameras_and_crops_agree(head_dataset: IdentityDataset) -> None:
    """The mesh of the true code, projected with a crop's K, matches the crop's landmarks."""
    tracks = head_dataset.tracks
    vertices = head_dataset.face.vertices(tracks.codes).astype(np.float64)
    ks = head_dataset.crop_ks.astype(np.float64)
    pixels = project(vertices, tracks.viewmats.astype(np.float64), ks)
    assert np.abs(pixels - head_dataset.crop_landmarks()).max() < 0.01


def test_background_crop_is_the_background_of_the_frame(head_dataset: IdentityDataset) -> None:
    for frame in (0, 17, 39):
        outside = cv2.dilate(head_dataset.masks[frame], np.ones((9, 9), np.uint8)) == 0
        background, image = head_dataset.background_crop(frame), head_dataset.frames[frame]
        assert outside.sum() > 50
        assert (
            np.abs(background[outside].astype(int) - image[outside]).max() <= 6
        )  # the head is drawn with a blur


def with_hidden(dataset: IdentityDataset, frame: int, triangles: list[int]) -> IdentityDataset:
    occluded = dataset.tracks.occluded.copy()
    occluded[frame, triangles] = True
    return replace(dataset, tracks=replace(dataset.tracks, occluded=occluded))


def test_clear_frames_are_usable_with_nothing_in_front_of_the_face(
    head_dataset: IdentityDataset,
) -> None:
    dataset = with_hidden(head_dataset, 5, [3])
    dataset.tracks.usable[:] = True
    assert np.flatnonzero(~dataset.tracks.unoccluded).tolist() == [5]
    usable = np.arange(len(dataset)) != 7
    tracks = replace(dataset.tracks, usable=usable)
    assert np.flatnonzero(~tracks.unoccluded).tolist() == [5, 7]


def test_an_occluder_of_the_chin_covers_the_neck_below(head_dataset: IdentityDataset) -> None:
    face = head_dataset.face
    chin = np.flatnonzero((face.triangles == CHIN).any(1)).tolist()
    dataset = with_hidden(head_dataset, 5, chin)
    assert not dataset.occluded_area(4).any()
    area, points = dataset.occluded_area(5), dataset.crop_landmarks()[5]
    for corners in points[face.triangles[chin]]:
        column, row = corners.mean(0).astype(int)
        assert area[row - OCCLUSION_MARGIN_PX : row + OCCLUSION_MARGIN_PX + 1, column].all()
    column, row = points[CHIN].astype(int)
    assert area[row:, column].all(), "down to the edge"
    eyes = points[list(OUTER_EYE_CORNERS)].astype(int)
    assert not area[eyes[:, 1], eyes[:, 0]].any() and not area[0].any()


def test_an_empty_mesh_hides_nothing_and_faces_may_be_outside(
    head_dataset: IdentityDataset,
) -> None:
    points, triangles = head_dataset.crop_landmarks()[0], head_dataset.face.triangles
    assert not occluded_area(points, triangles[:0], (128, 96)).any()
    assert occluded_area(points, triangles, (128, 96)).all()
    assert occluded_area(points + 1000.0, triangles, (128, 96)).shape == (128, 96)


def test_farthest_first_chooses_the_farthest_frames() -> None:
    places = np.array([[0.0], [1.0], [10.0], [6.0], [10.0]], np.float32)
    known = np.array([True, False, False, False, False])
    assert farthest_first(places, known, 2).tolist() == [2, 3]
    assert farthest_first(places, known, 9).tolist() == [2, 3, 1], "nothing twice"


def test_reading_images_that_were_not_kept_is_an_error(tmp_path: Path) -> None:
    file = ImageFile(tmp_path / "images.u8", (2, 3), np.array([4, 7, 9]))
    images = [np.full((2, 3), value, np.uint8) for value in (40, 70, 90)]
    file.append(images)
    assert len(file) == 3 and [int(image[0, 0]) for image in file] == [40, 70, 90]
    assert np.array_equal(file[7], images[1]) and np.array_equal(file[np.int64(9)], images[2])
    for missing in (0, 5, 10, -1):
        with pytest.raises(IndexError, match=f"frame {missing} was not kept"):
            file[missing]


def test_small_masks_replace_those_not_kept(tmp_path: Path) -> None:
    """All frames of long footage have a mask; selected ones also have an image."""
    dataset = make_dataset(tmp_path / "short", 12)
    masks = [mask.copy() for mask in dataset.masks]
    assert np.array_equal(dataset.person(5), masks[5].astype(np.float32) / np.float32(255))
    kept = np.arange(12) % 2 == 0
    long = replace(dataset, tracks=replace(dataset.tracks, has_image=kept))
    long.small_masks.append([shrunk_mask(mask) for mask in masks])
    for frame in (4, 5):
        assert np.abs(long.person(frame) - masks[frame] / 255.0).mean() < 0.05  # hard edges
    assert long.tracks.trainable.sum() == (dataset.tracks.train & kept).sum()


def test_packages_without_clothes_get_codes_without_them(tmp_path: Path) -> None:
    plain = make_dataset(tmp_path, n_frames=8)
    clothes = np.arange(16, dtype=np.float32).reshape(8, 2)
    dressed = with_clothes(plain, clothes)
    assert np.array_equal(dressed.tracks.codes[:, dressed.face.clothes], clothes)
    assert dressed.matched(dressed.face) is dressed
    matched = dressed.matched(make_face())
    for name in ("basis", "silence"):
        assert np.array_equal(getattr(matched.face, name), getattr(plain.face, name))
    assert np.array_equal(matched.tracks.codes, plain.tracks.codes)
