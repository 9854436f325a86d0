"""Motion refinement: codes and poses converge to those of the images; everything else is unchanged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from synthetic_head import make_dataset
from threads import using_threads

from talkhead.dataset import IdentityDataset
from talkhead.face import N_BODY
from talkhead.progress import SilentProgress
from talkhead.renderers.gaussian import motion_refinement
from talkhead.renderers.gaussian.model import GaussianConfig, GaussianRenderer, twist_matrix
from talkhead.renderers.gaussian.motion_refinement import refine_motion
from talkhead.types import Float32, UInt8

CONFIG = GaussianConfig(n_surface=1500, n_cap=60, n_teeth=30, n_rest=200)
NOISE = 0.3
JAW, WIDTH = 0, 1


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> IdentityDataset:
    """The synthetic head, large enough for a fraction of a pixel to be visible."""
    return make_dataset(tmp_path_factory.mktemp("large"), n_frames=22, size=(256, 192))


@pytest.fixture(scope="module")
def head(footage: IdentityDataset) -> GaussianRenderer:
    """The synthetic head with freckles, because motion is hardly visible on uniform skin."""
    head = GaussianRenderer.from_dataset(footage, CONFIG, seed=0)
    freckles = torch.randn(len(head.base), 1, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        head.base[:, 3:6] += 0.25 * freckles / head.units[3:6]
    return head


def drawn(head: GaussianRenderer, dataset: IdentityDataset) -> list[UInt8]:
    """The head rendered at the dataset's codes, on black."""
    info, tracks = dataset.info, dataset.tracks
    images = []
    for i in range(len(dataset)):
        arrays = (tracks.codes[[i]], tracks.viewmats[[i]], dataset.crop_ks[[i]])
        with torch.no_grad():
            made = head.render_raw(
                *map(torch.from_numpy, arrays), (info.crop_height, info.crop_width)
            )
        images.append((made.rgb[0].clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy())
    return images


@pytest.fixture(scope="module")
def true_codes(footage: IdentityDataset) -> Float32:
    return footage.tracks.codes


@pytest.fixture()
def noisy_dataset(head: GaussianRenderer, footage: IdentityDataset) -> IdentityDataset:
    """The head's own images, with noise in the codes of the mouths."""
    noise = np.random.default_rng(1).normal(0.0, NOISE, footage.tracks.codes.shape)
    noise[:, footage.face.n_mouth :] = 0.0
    codes = (footage.tracks.codes + noise).astype(np.float32)
    dataset = replace(footage, tracks=replace(footage.tracks, codes=codes))
    dataset.__dict__["frames"] = drawn(head, footage)
    dataset.__dict__["masks"] = [
        np.full(frame.shape[:2], 255, np.uint8) for frame in dataset.frames
    ]
    return dataset


def with_tracks(dataset: IdentityDataset, **tracks: Any) -> IdentityDataset:
    """The same images with other tracks."""
    other = replace(dataset, tracks=replace(dataset.tracks, **tracks))
    other.__dict__.update(frames=list(dataset.frames), masks=dataset.masks)
    return other


def refined(head: GaussianRenderer, dataset: IdentityDataset) -> Float32:
    """Return the refined codes."""
    return refine_motion(head, dataset, SilentProgress()).tracks.codes


def error(codes: Float32, true: Float32) -> Float32:
    """Root mean square of jaw and width, [2]."""
    return np.asarray(np.sqrt(np.square(codes - true)[:, [JAW, WIDTH]].mean(0)))


def test_codes_are_refined(
    head: GaussianRenderer, noisy_dataset: IdentityDataset, true_codes: Float32
) -> None:
    before, after = (
        error(codes, true_codes)
        for codes in (noisy_dataset.tracks.codes, refined(head, noisy_dataset))
    )
    assert (after < 0.5 * before).all(), (before, after)


def test_the_number_of_threads_does_not_matter(
    head: GaussianRenderer, noisy_dataset: IdentityDataset
) -> None:
    found = []
    for n in (1, 3):
        with using_threads(n):
            found.append(refined(head, noisy_dataset))
    assert np.array_equal(*found)


def test_poses_are_refined(
    head: GaussianRenderer, noisy_dataset: IdentityDataset, true_codes: Float32
) -> None:
    """The error is one pixel at the middle of the face."""
    true = noisy_dataset.tracks.viewmats
    off = true.copy()
    off[:, 0, 3] += np.where(np.arange(len(off)) % 2, 0.01, -0.01)
    dataset = with_tracks(noisy_dataset, codes=true_codes, viewmats=off)
    found = refine_motion(head, dataset, SilentProgress()).tracks.viewmats
    middle = np.array([0.0, 0.2, -0.5, 1.0])
    before, after = (np.abs((views - true) @ middle)[:, 0].mean() for views in (off, found))
    assert after < 0.6 * before, (before, after)
    assert np.allclose(found[:, :3, :3] @ found[:, :3, :3].transpose(0, 2, 1), np.eye(3), atol=1e-5)


def test_bodies_are_refined(
    head: GaussianRenderer, noisy_dataset: IdentityDataset, true_codes: Float32
) -> None:
    """The error is half a pixel sideways. Only a part of it is corrected, because a bare neck has
    little texture.
    """
    off = true_codes.copy()
    off[:, -N_BODY + 2] += np.where(np.arange(len(off)) % 2, 0.002, -0.002)
    found = refined(head, with_tracks(noisy_dataset, codes=off))
    before, after = (np.abs(c - true_codes)[:, -N_BODY + 2].mean() for c in (off, found))
    assert after < 0.9 * before, (before, after)


@pytest.mark.parametrize(("trusted", "n_losses"), [(0.0, 6), (10.0, 4)])
def test_losses_are_compared_after_long_steps(
    head: GaussianRenderer,
    noisy_dataset: IdentityDataset,
    monkeypatch: pytest.MonkeyPatch,
    trusted: float,
    n_losses: int,
) -> None:
    """Each part needs one loss, and a second one unless its step is trusted; the mouth's never is."""
    calls = []
    loss = motion_refinement._loss
    monkeypatch.setattr(motion_refinement, "_loss", lambda *a: calls.append(0) or loss(*a))
    for part in (motion_refinement._Face, motion_refinement._Body):
        monkeypatch.setattr(part, "trusted", trusted)
    refined(head, noisy_dataset)
    assert len(calls) == n_losses * len(noisy_dataset)


def test_correct_motion_is_unchanged(
    head: GaussianRenderer, noisy_dataset: IdentityDataset, true_codes: Float32
) -> None:
    right = with_tracks(noisy_dataset, codes=true_codes)
    made = refine_motion(head, right, SilentProgress()).tracks
    assert error(made.codes, true_codes).max() < 0.05
    assert np.abs(made.viewmats - right.tracks.viewmats).max() < 0.01


def test_frames_that_are_not_tracked_are_unchanged(
    head: GaussianRenderer, noisy_dataset: IdentityDataset
) -> None:
    tracked = noisy_dataset.tracks
    usable = tracked.usable.copy()
    usable[[3, 7]] = False
    made = refine_motion(head, with_tracks(noisy_dataset, usable=usable), SilentProgress()).tracks
    for name in ("codes", "viewmats"):
        new, old = getattr(made, name), getattr(tracked, name)
        assert np.array_equal(new[[3, 7]], old[[3, 7]])
        assert (new[usable] != old[usable]).reshape(usable.sum(), -1).any(1).mean() > 0.9


def test_occluders_have_no_effect(head: GaussianRenderer, noisy_dataset: IdentityDataset) -> None:
    frame = int(np.flatnonzero(noisy_dataset.tracks.unoccluded)[5])
    occluded = noisy_dataset.tracks.occluded.copy()
    occluded[frame] = True
    dataset = with_tracks(noisy_dataset, occluded=occluded)
    results = []
    for shade in (0, 255):
        image = noisy_dataset.frames[frame].copy()
        image[dataset.occluded_area(frame)] = shade
        dataset.frames[frame] = image
        results.append(refined(head, dataset)[frame])
    assert np.allclose(results[0], results[1], atol=1e-6)


def test_a_twist_equals_another_view(head: GaussianRenderer, footage: IdentityDataset) -> None:
    """The head has no deltas, so poses differ only in its frames. The body stays in place in both."""
    info, tracks = footage.info, footage.tracks
    codes = tracks.codes[[4]].copy()
    codes[:, -N_BODY:] = 0.03
    motion, view, k = map(torch.from_numpy, (codes, tracks.viewmats[[4]], footage.crop_ks[[4]]))
    twist, size = (
        torch.tensor([0.02, -0.03, 0.01, 0.02, -0.01, 0.05]),
        (info.crop_height, info.crop_width),
    )
    with torch.no_grad():
        still = head.render_raw(motion, view, k, size).rgb
        twisted = head.render_raw(motion, view, k, size, twist).rgb
        seen = head.render_raw(motion, view @ twist_matrix(twist), k, size).rgb
    assert (twisted - seen).abs().mean() < 1e-4 < 0.01 < (twisted - still).abs().mean()


def test_a_face_outside_the_crop_is_unchanged(
    head: GaussianRenderer, noisy_dataset: IdentityDataset
) -> None:
    landmarks = noisy_dataset.tracks.landmarks.copy()
    landmarks[5] += 1000.0
    landmarks[6, :, 0] -= 0.4 * np.ptp(landmarks[6, :, 0]) + landmarks[6, :, 0].min()  # cut
    made = refine_motion(head, with_tracks(noisy_dataset, landmarks=landmarks), SilentProgress())
    assert np.array_equal(made.tracks.codes[5], noisy_dataset.tracks.codes[5])
    assert np.array_equal(made.tracks.viewmats[5], noisy_dataset.tracks.viewmats[5])
    assert np.isfinite(made.tracks.codes).all() and np.isfinite(made.tracks.viewmats).all()


def test_same_input_same_bits(head: GaussianRenderer, noisy_dataset: IdentityDataset) -> None:
    first, second = (refined(head, noisy_dataset) for _ in range(2))
    assert np.array_equal(first, second)


def test_twists_are_rigid_motions() -> None:
    turn, shift = [0.3, -0.5, 0.2], [1.0, 2.0, 3.0]
    matrix = twist_matrix(torch.tensor([*turn, *shift])).numpy()
    assert np.allclose(matrix[:3, :3], Rotation.from_rotvec(turn).as_matrix(), atol=1e-6)
    assert np.allclose(matrix[:, 3], [*shift, 1.0]) and np.allclose(matrix[3, :3], 0.0)
