"""Takes of renderers whose quality is known, on a small made-up dataset."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from playback import (
    HEIGHT,
    LEFT,
    SOURCE,
    TOP,
    WIDTH,
    KnownTracker,
    PlaybackRenderer,
    make_dataset,
)  # fmt: skip

from talkhead.app.evaluation.measures import image as metrics
from talkhead.app.evaluation.reference import (
    BATCH,
    CropReference,
    encoded,
    held_out_frames,
    rendered_crops,
)
from talkhead.app.evaluation.results import Summary, Variant
from talkhead.app.evaluation.variant import (
    AudioContext,
    MeasurementTools,
    VisualMeasurement,
    look,
    make_variant,
    track,
)
from talkhead.dataset import IdentityDataset
from talkhead.encoder.phones import Phone
from talkhead.errors import TalkheadError
from talkhead.face import INNER_LIPS, OUTER_LIPS
from talkhead.progress import SilentProgress
from talkhead.types import Float32, UInt8

NOTHING = np.zeros(0)


@pytest.fixture
def dataset(tmp_path: Path) -> IdentityDataset:
    return make_dataset(tmp_path)


def scene_of(dataset: IdentityDataset) -> CropReference:
    return CropReference(dataset, held_out_frames(dataset))


def true_points(scene: CropReference) -> Float32:
    """The true landmarks [N, 478, 3] as the tracker would find them."""
    tracks, info = scene.dataset.tracks, scene.dataset.info
    points = tracks.landmarks[scene.numbers].copy()
    if info.scale != 1:
        points[..., :2] = scene.dataset.crop_landmarks()[scene.numbers]
    return points


def seen(
    scene: CropReference,
    images: Iterable[UInt8],
    points: Float32 | None = None,
    whole: bool = False,
) -> VisualMeasurement:
    """What a tracker that finds these points sees of images."""
    points = true_points(scene) if points is None else points
    instruments = MeasurementTools(tracker=lambda: KnownTracker(points))
    with SilentProgress().step("looking") as bar:
        return look(scene, images, instruments, bar, whole=whole)


def rendered(renderer: PlaybackRenderer, scene: CropReference, shift: int = 0) -> VisualMeasurement:
    motion = scene.dataset.tracks.codes[scene.numbers - shift]
    return seen(scene, rendered_crops(renderer, scene.dataset, scene.numbers, motion))


def take_of(
    scene: CropReference, sight: VisualMeasurement, sound: AudioContext | None = None
) -> Variant:
    real = true_points(scene)[..., :2]
    return make_variant("made", "made", "a test", sight, real, scene.numbers, sound, None)


# ------------------------------------------------------------------------------ images


def test_a_perfect_renderer_scores_the_most_that_there_is(dataset: IdentityDataset) -> None:
    renderer, scene = PlaybackRenderer(dataset), scene_of(dataset)
    best = rendered(renderer, scene)
    assert best.images is not None and best.images.n_frames == 6
    for psnr in (best.images.psnr_face, best.images.psnr_head, best.images.psnr_mouth):
        assert psnr == Summary(metrics.MAX_PSNR, metrics.MAX_PSNR, metrics.MAX_PSNR)
    for one in ("ssim_face", "ssim_head", "ssim_mouth", "sharpness", "gradient_correlation"):
        assert getattr(best.images, one).mean == pytest.approx(1.0, abs=1e-5)
    assert best.images.psnr_frame is None and best.images.lpips_face is None
    assert renderer.largest_batch == BATCH


def test_a_constant_error_has_its_known_psnr(dataset: IdentityDataset) -> None:
    scene = scene_of(dataset)
    off = rendered(PlaybackRenderer(dataset, error=5), scene).images
    assert off is not None
    assert off.psnr_mouth.mean == pytest.approx(20 * np.log10(255 / 5), abs=0.05)
    assert off.ssim_mouth.mean < 1.0 - 1e-4
    assert off.sharpness.mean == pytest.approx(1.0, abs=0.01)


def test_the_whole_image_counts_when_asked_for(dataset: IdentityDataset) -> None:
    scene = scene_of(dataset)
    images = []
    for real in scene.real():
        made = real.copy()
        made[:2] = made[:2] // 2 + 60
        images.append(made)
    figures = seen(scene, images, whole=True).images
    assert figures is not None and figures.psnr_frame is not None
    gaps = [a.astype(float) - b for a, b in zip(images, scene.real(), strict=True)]
    psnr = [-10 * np.log10(np.square(gap / 255).mean()) for gap in gaps]
    assert figures.psnr_frame.mean == pytest.approx(np.mean(psnr), abs=1e-3)
    assert figures.psnr_mouth.mean == metrics.MAX_PSNR


def test_what_is_transparent_shows_the_plate(dataset: IdentityDataset) -> None:
    frames = held_out_frames(dataset)[:2]
    codes = dataset.tracks.codes[frames]
    images = list(rendered_crops(PlaybackRenderer(dataset, cover=0.0), dataset, frames, codes))
    np.testing.assert_array_equal(images[1], dataset.plate_crop(int(frames[1])))
    half = next(rendered_crops(PlaybackRenderer(dataset, cover=0.5), dataset, frames, codes))
    mixed = (dataset.frames[frames[0]].astype(float) + dataset.plate_crop(int(frames[0]))) / 2
    assert np.abs(half - mixed).max() <= 0.51


def test_given_codes_are_rendered(dataset: IdentityDataset) -> None:
    wrong = rendered(PlaybackRenderer(dataset), scene_of(dataset), shift=1)
    assert wrong.images is not None and wrong.images.psnr_face.mean < 30


def test_frames_that_cannot_be_judged_are_left_out(dataset: IdentityDataset) -> None:
    frames = held_out_frames(dataset)
    dataset.tracks.landmarks[frames[1]] = 0
    dataset.tracks.usable[frames[2]] = False
    assert held_out_frames(dataset).tolist() == np.delete(frames, [1, 2]).tolist()
    dataset.tracks.usable[:] = False
    with pytest.raises(TalkheadError, match="no face"):
        held_out_frames(dataset)
    dataset.tracks.train[:] = True
    with pytest.raises(TalkheadError, match="use-all-frames"):
        held_out_frames(dataset)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_floor_is_what_encoding_leaves(tmp_path: Path, scale: float) -> None:
    (tmp_path / "dataset").mkdir()
    dataset = make_dataset(tmp_path / "dataset", scale)
    if scale == 1.0:  # a crop inside the image, since what lies outside can't be encoded
        dataset.tracks.origins[:] = [LEFT, 20]
        dataset.tracks.landmarks[..., 1] -= TOP - 20
    scene = scene_of(dataset)
    floor = seen(scene, encoded(scene, tmp_path)).images
    assert floor is not None and floor.n_frames == 6
    assert 25 < floor.psnr_face.mean < 60
    assert floor.ssim_mouth.mean > 0.7


# -------------------------------------------------------------------------------- lips


def larger(points: Float32) -> Float32:
    """Landmarks whose lips are larger by 10 %."""
    centre = points[:, list(OUTER_LIPS)].mean(1, keepdims=True)
    return (points - centre) * np.float32(1.1) + centre


def test_lips_are_compared_as_the_tracker_sees_both(dataset: IdentityDataset) -> None:
    scene = scene_of(dataset)
    true = true_points(scene)
    made = track(scene, scene.real(), lambda: KnownTracker(larger(true), frozenset({5})))
    take = take_of(scene, VisualMeasurement(made, None, NOTHING))
    assert take.lips is not None and take.images is None
    assert (take.lips.n_tracked, take.lips.n_lost) == (5, 1)
    expected = metrics.lmd(true[:5] * np.float32(1.1), true[:5])
    assert take.lips.lmd_px.mean == pytest.approx(expected.mean(), rel=1e-3)
    assert take.lips.lmd_eyes == pytest.approx(expected.mean() / 34, rel=1e-3)
    assert take.lips.aperture_correlation == pytest.approx(1.0)
    np.testing.assert_allclose(take.lmd_px[:5], expected, rtol=1e-3)
    assert np.isnan(take.lmd_px[5]) and np.isnan(take.aperture[5])


def test_the_tracker_sees_crops_in_their_place(dataset: IdentityDataset) -> None:
    scene = scene_of(dataset)
    tracker = KnownTracker(true_points(scene))
    track(scene, scene.real(), lambda: tracker)
    assert tracker.shapes == {(SOURCE, SOURCE, 3)}
    shown = scene.shown(0, next(scene.real()))
    np.testing.assert_array_equal(
        shown[TOP:, LEFT : LEFT + WIDTH], next(scene.real())[: SOURCE - TOP]
    )
    np.testing.assert_array_equal(shown[:TOP], dataset.plate[:TOP])


def test_scaled_crops_are_tracked_alone_and_measured_in_source_pixels(tmp_path: Path) -> None:
    scene = scene_of(make_dataset(tmp_path, scale=0.5))
    crop = true_points(scene)
    longer = crop.copy()
    longer[:, list(OUTER_LIPS), 0] += 1
    longer[:, list(INNER_LIPS), 0] -= 1
    tracker = KnownTracker(longer)
    made = track(scene, scene.real(), lambda: tracker)
    real = track(scene, scene.real(), lambda: KnownTracker(crop))
    sight = VisualMeasurement(made, None, NOTHING)
    take = make_variant("made", "made", "", sight, real, scene.numbers, None, None)
    assert take.lips is not None
    assert take.lips.lmd_px.median == pytest.approx(2.0, abs=1e-3)
    assert tracker.shapes == {(HEIGHT, WIDTH, 3)}


def test_gaps_between_frames_stay_gaps(dataset: IdentityDataset) -> None:
    dataset.tracks.usable[62] = False
    scene = scene_of(dataset)
    points = true_points(scene)[..., :2]
    silent = np.array([True, True, False, False, False, False])
    phones = [Phone("P", 0.0, 0.08), Phone("AA", 0.08, 0.24)]
    sound = AudioContext(np.zeros(6 * 640, np.float32), silent, phones)
    take = take_of(scene, VisualMeasurement(points, None, NOTHING), sound)
    assert len(take.aperture) == len(take.lmd_px) == 6
    assert np.isnan(take.aperture).tolist() == [False, False, True, False, False, False]
    assert take.phonemes is not None
    assert (take.phonemes.n_vowels, take.phonemes.n_bilabials) == (1, 1)


def test_a_take_without_real_frames_has_no_distances(dataset: IdentityDataset) -> None:
    scene = scene_of(dataset)
    points = true_points(scene)[..., :2]
    sound = AudioContext(np.zeros(6 * 640, np.float32), np.zeros(6, bool), None)
    sight = VisualMeasurement(points, None, NOTHING)
    take = make_variant("made", "made", "", sight, None, scene.numbers, sound, None)
    assert take.lips is not None and np.isnan(take.lips.lmd_px.mean)
    assert take.lmd_px == () and len(take.aperture) == 6 and take.visemes == ()


def test_a_take_that_nobody_sees(dataset: IdentityDataset) -> None:
    scene = scene_of(dataset)
    lost = np.full((6, 478, 2), np.nan, np.float32)
    take = take_of(scene, VisualMeasurement(lost, None, NOTHING))
    assert take.lips is None and np.isnan(take.aperture).all()
