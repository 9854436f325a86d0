"""Refined motion: codes go back to where the images have the mouth, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from talkhead.dataset import IdentityDataset
from talkhead.progress import SilentProgress
from talkhead.renderers.gaussian.model import GaussianConfig, GaussianRenderer
from talkhead.renderers.gaussian.refine import refine_motion
from talkhead.types import Float32, UInt8

CONFIG = GaussianConfig(n_surface=1500, n_cap=60, n_teeth=30, n_rest=200)
NOISE = 0.3
JAW, WIDTH = 0, 1


@pytest.fixture(scope="module")
def head(head_dataset: IdentityDataset) -> GaussianRenderer:
    return GaussianRenderer.from_dataset(head_dataset, CONFIG, seed=0)


def drawn(head: GaussianRenderer, dataset: IdentityDataset) -> list[UInt8]:
    """What the head shows at the dataset's codes, in black surroundings."""
    info, tracks = dataset.info, dataset.tracks
    images = []
    for i in range(len(dataset)):
        arrays = (tracks.codes[[i]], tracks.viewmats[[i]], dataset.crop_ks[[i]])
        with torch.no_grad():
            made = head.draw(*map(torch.from_numpy, arrays), (info.crop_height, info.crop_width))
        images.append((made.rgb[0].clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy())
    return images


@pytest.fixture(scope="module")
def true_codes(head_dataset: IdentityDataset) -> Float32:
    return head_dataset.tracks.codes


@pytest.fixture()
def mistracked(head: GaussianRenderer, head_dataset: IdentityDataset) -> IdentityDataset:
    """The head's own images, with codes of which mouths are off."""
    noise = np.random.default_rng(1).normal(0.0, NOISE, head_dataset.tracks.codes.shape)
    noise[:, head_dataset.face.n_mouth :] = 0.0
    codes = (head_dataset.tracks.codes + noise).astype(np.float32)
    dataset = replace(head_dataset, tracks=replace(head_dataset.tracks, codes=codes))
    dataset.__dict__["frames"] = drawn(head, head_dataset)
    dataset.__dict__["masks"] = [
        np.full(frame.shape[:2], 255, np.uint8) for frame in dataset.frames
    ]
    return dataset


def error(codes: Float32, true: Float32) -> Float32:
    """Root mean square of jaw and width, [2]."""
    return np.asarray(np.sqrt(np.square(codes - true)[:, [JAW, WIDTH]].mean(0)))


def test_codes_go_where_the_images_have_the_mouth(
    head: GaussianRenderer, mistracked: IdentityDataset, true_codes: Float32
) -> None:
    refined = refine_motion(head, mistracked, SilentProgress())
    before, after = (error(codes, true_codes) for codes in (mistracked.tracks.codes, refined))
    assert (after < 0.5 * before).all(), (before, after)


def test_right_codes_stay(
    head: GaussianRenderer, mistracked: IdentityDataset, true_codes: Float32
) -> None:
    right = replace(mistracked, tracks=replace(mistracked.tracks, codes=true_codes))
    right.__dict__.update(frames=mistracked.frames, masks=mistracked.masks)
    refined = refine_motion(head, right, SilentProgress())
    assert error(refined, true_codes).max() < 0.05


def test_only_mouths_of_tracked_frames_change(
    head: GaussianRenderer, mistracked: IdentityDataset
) -> None:
    tracked = mistracked.tracks
    usable = tracked.usable.copy()
    usable[[3, 7]] = False
    dataset = replace(mistracked, tracks=replace(tracked, usable=usable))
    dataset.__dict__.update(frames=mistracked.frames, masks=mistracked.masks)
    refined = refine_motion(head, dataset, SilentProgress())
    n_mouth = mistracked.face.n_mouth
    assert np.array_equal(refined[:, n_mouth:], tracked.codes[:, n_mouth:])
    assert np.array_equal(refined[[3, 7]], tracked.codes[[3, 7]])
    assert (refined[usable, :n_mouth] != tracked.codes[usable, :n_mouth]).any(1).mean() > 0.9


def test_what_stands_before_the_mouth_is_not_followed(
    head: GaussianRenderer, mistracked: IdentityDataset
) -> None:
    frame = int(np.flatnonzero(mistracked.tracks.clear)[5])
    hidden = mistracked.tracks.hidden.copy()
    hidden[frame] = True
    images = list(mistracked.frames)
    results = []
    for shade in (0, 255):
        dataset = replace(mistracked, tracks=replace(mistracked.tracks, hidden=hidden))
        area = dataset.hidden_area(frame)
        images[frame] = images[frame].copy()
        images[frame][area] = shade
        dataset.__dict__.update(frames=list(images), masks=mistracked.masks)
        results.append(refine_motion(head, dataset, SilentProgress())[frame])
    assert np.allclose(results[0], results[1], atol=1e-6)


def test_same_input_same_bits(head: GaussianRenderer, mistracked: IdentityDataset) -> None:
    first, second = (refine_motion(head, mistracked, SilentProgress()) for _ in range(2))
    assert np.array_equal(first, second)
