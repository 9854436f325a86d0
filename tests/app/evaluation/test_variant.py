"""Variants of renderers of known quality, on a small synthetic dataset."""

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

from talkhead.app.evaluation.measures import image as image_measures
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
    make_variant,
    measure_images,
    track,
)
from talkhead.dataset import IdentityDataset
from talkhead.encoder.phones import Phone
from talkhead.errors import TalkheadError
from talkhead.face import INNER_LIPS, OUTER_LIPS
from talkhead.progress import SilentProgress
from talkhead.types import Float32, UInt8


@pytest.fixture
def dataset(tmp_path: Path) -> IdentityDataset:
    return make_dataset(tmp_path)


def reference_of(dataset: IdentityDataset) -> CropReference:
    return CropReference(dataset, held_out_frames(dataset))


def true_points(reference: CropReference) -> Float32:
    """The true landmarks [N, 478, 3] as the tracker would find them."""
    tracks, info = reference.dataset.tracks, reference.dataset.info
    points = tracks.landmarks[reference.frames].copy()
    if info.scale != 1:
        points[..., :2] = reference.dataset.crop_landmarks()[reference.frames]
    return points


def measured(
    reference: CropReference,
    images: Iterable[UInt8],
    points: Float32 | None = None,
    full_frames: bool = False,
) -> VisualMeasurement:
    """Measure images with a tracker that finds these points."""
    points = true_points(reference) if points is None else points
    tools = MeasurementTools(tracker=lambda: KnownTracker(points))
    with SilentProgress().step("measuring") as bar:
        return measure_images(reference, images, tools, bar, full_frames=full_frames)


def rendered(
    renderer: PlaybackRenderer, reference: CropReference, shift: int = 0
) -> VisualMeasurement:
    motion = reference.dataset.tracks.codes[reference.frames - shift]
    return measured(
        reference, rendered_crops(renderer, reference.dataset, reference.frames, motion)
    )


def variant_of(
    reference: CropReference, visual: VisualMeasurement, audio: AudioContext | None = None
) -> Variant:
    real = true_points(reference)[..., :2]
    return make_variant("made", "made", "a test", visual, real, reference.frames, audio, None)


# ------------------------------------------------------------------------------ images


def test_a_perfect_renderer_has_the_highest_scores(dataset: IdentityDataset) -> None:
    renderer, reference = PlaybackRenderer(dataset), reference_of(dataset)
    best = rendered(renderer, reference)
    assert best.images is not None and best.images.n_frames == 6
    for psnr in (best.images.psnr_face, best.images.psnr_head, best.images.psnr_mouth):
        assert psnr == Summary(
            image_measures.MAX_PSNR, image_measures.MAX_PSNR, image_measures.MAX_PSNR
        )
    for one in ("ssim_face", "ssim_head", "ssim_mouth", "sharpness", "gradient_correlation"):
        assert getattr(best.images, one).mean == pytest.approx(1.0, abs=1e-5)
    assert best.images.psnr_frame is None and best.images.lpips_face is None
    assert renderer.largest_batch == BATCH


def test_a_constant_error_has_its_known_psnr(dataset: IdentityDataset) -> None:
    reference = reference_of(dataset)
    off = rendered(PlaybackRenderer(dataset, error=5), reference).images
    assert off is not None
    assert off.psnr_mouth.mean == pytest.approx(20 * np.log10(255 / 5), abs=0.05)
    assert off.ssim_mouth.mean < 1.0 - 1e-4
    assert off.sharpness.mean == pytest.approx(1.0, abs=0.01)


def test_measures_of_full_frames(dataset: IdentityDataset) -> None:
    reference = reference_of(dataset)
    images = []
    for real in reference.real():
        made = real.copy()
        made[:2] = made[:2] // 2 + 60
        images.append(made)
    results = measured(reference, images, full_frames=True).images
    assert results is not None and results.psnr_frame is not None
    gaps = [a.astype(float) - b for a, b in zip(images, reference.real(), strict=True)]
    psnr = [-10 * np.log10(np.square(gap / 255).mean()) for gap in gaps]
    assert results.psnr_frame.mean == pytest.approx(np.mean(psnr), abs=1e-3)
    assert results.psnr_mouth.mean == image_measures.MAX_PSNR


def test_transparency_shows_the_background(dataset: IdentityDataset) -> None:
    frames = held_out_frames(dataset)[:2]
    codes = dataset.tracks.codes[frames]
    images = list(rendered_crops(PlaybackRenderer(dataset, cover=0.0), dataset, frames, codes))
    np.testing.assert_array_equal(images[1], dataset.background_crop(int(frames[1])))
    half = next(rendered_crops(PlaybackRenderer(dataset, cover=0.5), dataset, frames, codes))
    mixed = (dataset.frames[frames[0]].astype(float) + dataset.background_crop(int(frames[0]))) / 2
    assert np.abs(half - mixed).max() <= 0.51


def test_given_codes_are_rendered(dataset: IdentityDataset) -> None:
    wrong = rendered(PlaybackRenderer(dataset), reference_of(dataset), shift=1)
    assert wrong.images is not None and wrong.images.psnr_face.mean < 30


def test_frames_that_cannot_be_evaluated_are_left_out(dataset: IdentityDataset) -> None:
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
def test_the_codec_floor(tmp_path: Path, scale: float) -> None:
    (tmp_path / "dataset").mkdir()
    dataset = make_dataset(tmp_path / "dataset", scale)
    if scale == 1.0:  # a crop inside the image, since pixels outside cannot be encoded
        dataset.tracks.origins[:] = [LEFT, 20]
        dataset.tracks.landmarks[..., 1] -= TOP - 20
    reference = reference_of(dataset)
    floor = measured(reference, encoded(reference, tmp_path)).images
    assert floor is not None and floor.n_frames == 6
    assert 25 < floor.psnr_face.mean < 60
    assert floor.ssim_mouth.mean > 0.7


# -------------------------------------------------------------------------------- lips


def larger(points: Float32) -> Float32:
    """Scale the lips up by 10 %."""
    center = points[:, list(OUTER_LIPS)].mean(1, keepdims=True)
    return (points - center) * np.float32(1.1) + center


def test_lips_are_compared_by_one_tracker(dataset: IdentityDataset) -> None:
    reference = reference_of(dataset)
    true = true_points(reference)
    made = track(reference, reference.real(), lambda: KnownTracker(larger(true), frozenset({5})))
    variant = variant_of(reference, VisualMeasurement(made))
    assert variant.lips is not None and variant.images is None
    assert (variant.lips.n_tracked, variant.lips.n_lost) == (5, 1)
    expected = image_measures.lmd(true[:5] * np.float32(1.1), true[:5])
    assert variant.lips.lmd_px.mean == pytest.approx(expected.mean(), rel=1e-3)
    assert variant.lips.lmd_eyes == pytest.approx(expected.mean() / 34, rel=1e-3)
    assert variant.lips.aperture_correlation == pytest.approx(1.0)
    np.testing.assert_allclose(variant.lmd_px[:5], expected, rtol=1e-3)
    assert np.isnan(variant.lmd_px[5]) and np.isnan(variant.aperture[5])


def test_the_tracker_gets_crops_in_their_place(dataset: IdentityDataset) -> None:
    reference = reference_of(dataset)
    tracker = KnownTracker(true_points(reference))
    track(reference, reference.real(), lambda: tracker)
    assert tracker.shapes == {(SOURCE, SOURCE, 3)}
    shown = reference.to_canvas(0, next(reference.real()))
    np.testing.assert_array_equal(
        shown[TOP:, LEFT : LEFT + WIDTH], next(reference.real())[: SOURCE - TOP]
    )
    np.testing.assert_array_equal(shown[:TOP], dataset.background[:TOP])


def test_scaled_crops_are_tracked_alone_and_measured_in_source_pixels(tmp_path: Path) -> None:
    reference = reference_of(make_dataset(tmp_path, scale=0.5))
    crop = true_points(reference)
    longer = crop.copy()
    longer[:, list(OUTER_LIPS), 0] += 1
    longer[:, list(INNER_LIPS), 0] -= 1
    tracker = KnownTracker(longer)
    made = track(reference, reference.real(), lambda: tracker)
    real = track(reference, reference.real(), lambda: KnownTracker(crop))
    visual = VisualMeasurement(made)
    variant = make_variant("made", "made", "", visual, real, reference.frames, None, None)
    assert variant.lips is not None
    assert variant.lips.lmd_px.median == pytest.approx(2.0, abs=1e-3)
    assert tracker.shapes == {(HEIGHT, WIDTH, 3)}


def test_gaps_between_frames_are_kept(dataset: IdentityDataset) -> None:
    dataset.tracks.usable[62] = False
    reference = reference_of(dataset)
    points = true_points(reference)[..., :2]
    silent = np.array([True, True, False, False, False, False])
    phones = [Phone("P", 0.0, 0.08), Phone("AA", 0.08, 0.24)]
    audio = AudioContext(np.zeros(6 * 640, np.float32), silent, phones)
    variant = variant_of(reference, VisualMeasurement(points), audio)
    assert len(variant.aperture) == len(variant.lmd_px) == 6
    assert np.isnan(variant.aperture).tolist() == [False, False, True, False, False, False]
    assert variant.phonemes is not None
    assert (variant.phonemes.n_vowels, variant.phonemes.n_bilabials) == (1, 1)


def test_a_variant_without_real_frames_has_no_distances(dataset: IdentityDataset) -> None:
    reference = reference_of(dataset)
    points = true_points(reference)[..., :2]
    audio = AudioContext(np.zeros(6 * 640, np.float32), np.zeros(6, bool), None)
    visual = VisualMeasurement(points)
    variant = make_variant("made", "made", "", visual, None, reference.frames, audio, None)
    assert variant.lips is not None and np.isnan(variant.lips.lmd_px.mean)
    assert variant.lmd_px == () and len(variant.aperture) == 6 and variant.visemes == ()


def test_a_variant_without_a_face(dataset: IdentityDataset) -> None:
    reference = reference_of(dataset)
    lost = np.full((6, 478, 2), np.nan, np.float32)
    variant = variant_of(reference, VisualMeasurement(lost))
    assert variant.lips is None and np.isnan(variant.aperture).all()
