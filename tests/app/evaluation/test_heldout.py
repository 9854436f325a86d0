"""Held-out figures of renderers whose quality is known, on a small made-up dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from talkhead.app.evaluation import heldout, metrics
from talkhead.app.evaluation.heldout import (
    evaluate_images,
    evaluate_pairs,
    evaluate_renderer,
    held_out_frames,
    real_crops,
    rendered_crops,
    summarise,
)
from talkhead.dataset import FRAMES, MASKS, DatasetInfo, IdentityDataset, Tracks, train_frames
from talkhead.errors import TalkheadError
from talkhead.face import INNER_LIPS, OUTER_EYE_CORNERS, OUTER_LIPS, FaceModel
from talkhead.progress import SilentProgress
from talkhead.types import Float32, Rendering, UInt8

N_FRAMES, HEIGHT, WIDTH, SOURCE = 66, 80, 64, 120
LEFT, TOP = 30, 70  # the crop reaches 30 px below the source image
N_CODES = 2


def make_landmarks() -> Float32:
    """Faces [F, 478, 3] in source pixels that fill most of the crop and open the mouth."""
    rng = np.random.default_rng(0)
    points = np.zeros((N_FRAMES, 478, 3), np.float32)
    points[:, :, 0] = LEFT + rng.uniform(12, 52, 478)
    points[:, :, 1] = TOP + rng.uniform(10, 60, 478)
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    opening = 3 + 2 * np.sin(np.arange(N_FRAMES))[:, None]
    for lips, width, extra in ((OUTER_LIPS, 10.0, 3.0), (INNER_LIPS, 8.0, 0.0)):
        points[:, list(lips), 0] = LEFT + 32 + width * np.cos(turn)
        points[:, list(lips), 1] = TOP + 45 + (opening + extra) * np.sin(turn)
    points[:, list(OUTER_EYE_CORNERS), 1] = TOP + 20
    points[:, list(OUTER_EYE_CORNERS), 0] = [LEFT + 15, LEFT + 49]
    return points


def make_dataset(folder: Path, scale: float = 1.0) -> IdentityDataset:
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (N_FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    np.stack([cv2.GaussianBlur(f, (0, 0), 2) for f in frames]).tofile(folder / FRAMES)
    np.full((N_FRAMES, HEIGHT, WIDTH), 255, np.uint8).tofile(folder / MASKS)
    plate = rng.integers(0, 256, (SOURCE, SOURCE, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "plate.png"), plate)
    landmarks = make_landmarks()
    origins = np.tile(np.float32([LEFT, TOP]), (N_FRAMES, 1))
    landmarks[..., :2] = (landmarks[..., :2] - origins[:, None]) / scale + origins[:, None]
    yes = np.ones(N_FRAMES, bool)
    tracks = Tracks(
        landmarks=landmarks,
        found=yes,
        usable=yes.copy(),
        train=train_frames(N_FRAMES),
        silent=~yes,
        viewmats=np.tile(np.eye(4, dtype=np.float32), (N_FRAMES, 1, 1)),
        residual_px=np.zeros(N_FRAMES, np.float32),
        codes=np.stack([np.arange(N_FRAMES), np.zeros(N_FRAMES)], 1).astype(np.float32),
        origins=origins,
    )
    size = (SOURCE, SOURCE, WIDTH, HEIGHT)
    info = DatasetInfo("clip.mp4", N_FRAMES, *size, scale, None, 1, False, False)
    face = FaceModel(
        template=np.zeros((478, 3), np.float32),
        basis=np.zeros((N_CODES, 478, 3), np.float32),
        n_mouth=1,
        triangles=np.array([[0, 1, 2]], dtype=np.int64),
        silence=np.zeros(N_CODES, np.float32),
    )
    IdentityDataset.save(folder, info, face, tracks)
    return IdentityDataset.load(folder)


class PlaybackRenderer:
    """Shows the frame that the code's first component names, off by `error`, `cover` opaque."""

    name: ClassVar[str] = "playback"
    config: Any = None

    def __init__(self, dataset: IdentityDataset, error: int = 0, cover: float = 1.0) -> None:
        self.dataset, self.error, self.cover = dataset, error, cover
        self.largest_batch = 0

    @classmethod
    def from_dataset(cls, dataset: IdentityDataset, config: Any, seed: int) -> PlaybackRenderer:
        return cls(dataset)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], config: Any) -> PlaybackRenderer:
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def render(
        self, motion: Tensor, viewmats: Tensor, ks: Tensor, height: int, width: int
    ) -> Rendering:
        assert viewmats.shape == (len(motion), 4, 4) and ks.shape == (len(motion), 3, 3)
        self.largest_batch = max(self.largest_batch, len(motion))
        numbers = motion[:, 0].long().tolist()
        shown = np.stack([self.dataset.frames[i] for i in numbers]).astype(np.float32)
        rgb = torch.from_numpy((shown + self.error) / 255.0) * self.cover
        return Rendering(rgb, torch.full((len(motion), height, width, 1), self.cover))

    def losses(self, batch: Any, step: int) -> dict[str, Tensor]:
        return {}

    def param_groups(self) -> list[dict[str, Any]]:
        return []

    def after_step(self, step: int) -> None:
        pass


class KnownTracker:
    """Finds the true landmarks of the test frames in their order, made larger by 10 % in the
    images of `worse`; sees no face in the frames of `blind`."""

    def __init__(self, points: Float32, blind: frozenset[int] = frozenset()) -> None:
        self.points, self.blind = iter(enumerate(points)), blind
        self.shapes: set[tuple[int, ...]] = set()

    def track(self, frame: UInt8) -> Float32 | None:
        self.shapes.add(frame.shape)
        i, points = next(self.points)
        return None if i in self.blind else points

    def close(self) -> None:
        pass


@pytest.fixture
def dataset(tmp_path: Path) -> IdentityDataset:
    return make_dataset(tmp_path)


def figures(dataset: IdentityDataset, renderer: PlaybackRenderer) -> heldout.HeldOutFigures:
    frames = held_out_frames(dataset)
    return evaluate_renderer(renderer, dataset, frames, SilentProgress(), tracker=None)


def test_a_perfect_renderer_scores_the_most_that_there_is(dataset: IdentityDataset) -> None:
    renderer = PlaybackRenderer(dataset)
    best = figures(dataset, renderer)
    assert best.n_frames == 6 and best.n_skipped == 0
    for psnr in (best.psnr_face, best.psnr_mouth):
        assert psnr == heldout.Summary(metrics.MAX_PSNR, metrics.MAX_PSNR, metrics.MAX_PSNR)
    for ratio in (best.ssim_face, best.ssim_mouth, best.sharpness, best.gradient_correlation):
        assert ratio.mean == pytest.approx(1.0, abs=1e-5)
    assert best.lips is None and best.floor is None
    assert renderer.largest_batch == heldout.BATCH


def test_a_constant_error_has_its_known_psnr(dataset: IdentityDataset) -> None:
    off = figures(dataset, PlaybackRenderer(dataset, error=5))
    assert off.psnr_mouth.mean == pytest.approx(20 * np.log10(255 / 5), abs=0.05)
    assert off.ssim_mouth.mean < 1.0 - 1e-4
    assert off.sharpness.mean == pytest.approx(1.0, abs=0.01)


def test_what_is_transparent_shows_the_plate(dataset: IdentityDataset) -> None:
    frames = held_out_frames(dataset)[:2]
    images = list(rendered_crops(PlaybackRenderer(dataset, cover=0.0), dataset, frames))
    np.testing.assert_array_equal(images[1], dataset.plate_crop(int(frames[1])))
    half = next(rendered_crops(PlaybackRenderer(dataset, cover=0.5), dataset, frames))
    mixed = (dataset.frames[frames[0]].astype(float) + dataset.plate_crop(int(frames[0]))) / 2
    assert np.abs(half - mixed).max() <= 0.51


def test_given_codes_are_rendered_instead_of_the_tracked_ones(dataset: IdentityDataset) -> None:
    frames = held_out_frames(dataset)
    motion = dataset.tracks.codes[frames - 1]
    renderer = PlaybackRenderer(dataset)
    wrong = evaluate_renderer(renderer, dataset, frames, SilentProgress(), motion, tracker=None)
    assert wrong.psnr_face.mean < 30
    with pytest.raises(ValueError, match="one row"):
        evaluate_renderer(renderer, dataset, frames, SilentProgress(), motion[1:], tracker=None)


def test_frames_without_landmarks_are_skipped_with_their_codes(dataset: IdentityDataset) -> None:
    frames = held_out_frames(dataset)
    dataset.tracks.landmarks[frames[1]] = 0
    motion = dataset.tracks.codes[frames]
    part = evaluate_renderer(
        PlaybackRenderer(dataset), dataset, frames, SilentProgress(), motion, tracker=None
    )
    assert (part.n_frames, part.n_skipped) == (5, 1)
    assert part.psnr_face.mean == metrics.MAX_PSNR


def trackers(*seen: KnownTracker) -> Iterator[KnownTracker]:
    yield from seen


def test_lips_are_compared_as_the_tracker_sees_both(dataset: IdentityDataset) -> None:
    frames = held_out_frames(dataset)
    true = dataset.tracks.landmarks[frames]
    centre = true[:, list(OUTER_LIPS)].mean(1, keepdims=True)
    real = KnownTracker(true)
    rendered = KnownTracker((true - centre) * np.float32(1.1) + centre, frozenset({5}))
    order = trackers(real, rendered)
    result = evaluate_renderer(
        PlaybackRenderer(dataset), dataset, frames, SilentProgress(), tracker=lambda: next(order)
    )
    assert result.lips is not None
    assert (result.lips.n_tracked, result.lips.n_lost) == (5, 1)
    expected = metrics.lmd(true[:5] * np.float32(1.1), true[:5])
    assert result.lips.lmd_px.mean == pytest.approx(expected.mean(), rel=1e-3)
    assert result.lips.lmd_eyes == pytest.approx(expected.mean() / 34, rel=1e-3)
    assert result.lips.aperture_correlation == pytest.approx(1.0)
    assert result.lips.jitter_ratio == pytest.approx(1.21, rel=1e-2)
    assert real.shapes == rendered.shapes == {(SOURCE, SOURCE, 3)}  # in place, on the plate


def test_scaled_crops_are_tracked_alone_and_measured_in_source_pixels(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, scale=0.5)
    frames = held_out_frames(dataset)
    crop = np.concatenate([dataset.crop_landmarks()[frames], np.zeros((6, 478, 1))], -1)
    longer = crop.copy()
    longer[:, list(OUTER_LIPS), 0] += 1
    longer[:, list(INNER_LIPS), 0] -= 1
    real, rendered = KnownTracker(crop), KnownTracker(longer)
    order = trackers(real, rendered)
    result = evaluate_renderer(
        PlaybackRenderer(dataset), dataset, frames, SilentProgress(), tracker=lambda: next(order)
    )
    assert result.lips is not None
    assert result.lips.lmd_px.median == pytest.approx(2.0, abs=1e-3)
    assert real.shapes == {(HEIGHT, WIDTH, 3)}


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_floor_is_what_encoding_leaves(tmp_path: Path, scale: float) -> None:
    dataset = make_dataset(tmp_path, scale)
    if scale == 1.0:  # a crop inside the image, since what lies outside can't be encoded
        dataset.tracks.origins[:] = [LEFT, 20]
        dataset.tracks.landmarks[..., 1] -= TOP - 20
    frames = held_out_frames(dataset)
    result = evaluate_renderer(
        PlaybackRenderer(dataset), dataset, frames, SilentProgress(), tracker=None, floor=True
    )
    assert result.floor is not None and result.floor.n_frames == 6
    assert 25 < result.floor.psnr_face.mean < 60
    assert result.floor.ssim_mouth.mean > 0.7


def test_images_from_elsewhere(dataset: IdentityDataset) -> None:
    frames = held_out_frames(dataset)
    same = evaluate_images(
        dataset, frames, real_crops(dataset, frames), SilentProgress(), tracker=None
    )
    assert same.psnr_face.median == metrics.MAX_PSNR


def test_figures_are_json(dataset: IdentityDataset) -> None:
    result = figures(dataset, PlaybackRenderer(dataset))
    empty = replace(result, sharpness=summarise([]))
    stored = json.loads(json.dumps(empty.to_json(), allow_nan=False))
    assert stored["psnr_face"]["mean"] == metrics.MAX_PSNR
    assert stored["sharpness"]["mean"] is None


def test_no_held_out_frames_is_a_clear_error(dataset: IdentityDataset) -> None:
    dataset.tracks.train[:] = True
    with pytest.raises(TalkheadError, match="use-all-frames"):
        held_out_frames(dataset)
    with pytest.raises(ValueError, match="empty"):
        evaluate_renderer(
            PlaybackRenderer(dataset), dataset, np.zeros(0, np.int64), SilentProgress()
        )


def test_pairs_over_the_frame_and_over_boxes(dataset: IdentityDataset) -> None:
    real = [np.full((30, 30, 3), 100, np.uint8) for _ in range(3)]
    made = [image.copy() for image in real]
    for image in made:
        image[:10] += 10
    full = evaluate_pairs(zip(real, made, strict=True))
    mse = (10 / 255) ** 2 / 3
    assert full.n_frames == 3
    assert full.psnr.mean == pytest.approx(-10 * np.log10(mse), abs=1e-4)
    boxes = [metrics.Box(0, 16, 30, 30)] * 3
    below = evaluate_pairs(zip(real, made, strict=True), boxes)
    assert below.psnr.median == metrics.MAX_PSNR and below.ssim.mean == pytest.approx(1.0)


def test_summaries_put_the_tail_where_it_is_worst() -> None:
    values = np.arange(101.0)
    assert summarise(values).tail == 5
    assert summarise(values, less_is_better=True).tail == 95
    assert summarise([1.0, np.nan, 3.0]).mean == 2
