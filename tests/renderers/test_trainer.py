"""The training loop: the loss falls, interrupted fits resume, held-out frames are not read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from talkhead.dataset import FRAMES, MASKS, IdentityDataset
from talkhead.progress import SilentProgress
from talkhead.renderers import trainer as loop
from talkhead.renderers.base import Renderer
from talkhead.renderers.batches import draw_frames, make_batch
from talkhead.renderers.gaussian.model import GaussianConfig, GaussianRenderer
from talkhead.renderers.nerf.config import NerfConfig
from talkhead.renderers.registry import get_renderer
from talkhead.renderers.trainer import fit_renderer
from talkhead.storage import read_tensors

RENDERER = get_renderer("gaussian")
CONFIG = GaussianConfig(n_surface=300, n_cap=30, n_teeth=10, n_rest=100, n_steps=40)
SMALL: dict[str, Any] = {
    "gaussian": CONFIG,
    "nerf": NerfConfig(
        fine_unit=0.08,
        blend_unit=0.08,
        pose_unit=0.2,
        n_steps=40,
        n_patches=32,
        net_rate=0.01,
        base_rate=0.03,
    ),
}


class Stop(Exception):
    """Raised to interrupt training."""


class Watch(SilentProgress):
    """Counts steps and records at which step a fit began; interrupts it at `stop_at`."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.done, self.n_steps = stop_at, -1, 0

    @contextmanager
    def _bar(self, done: int) -> Any:
        self.done = done
        yield SimpleNamespace(advance=self._advance, detail=lambda text: None)

    def _advance(self, n: int = 1) -> None:
        self.n_steps += n
        if self.done + self.n_steps == self.stop_at:
            raise Stop

    def step(
        self, name: str, total: int | None = None, done: int = 0
    ) -> AbstractContextManager[Any]:
        return self._bar(done)


def fit(
    dataset: IdentityDataset,
    checkpoint: Path,
    seed: int = 0,
    stop_at: int | None = None,
    name: str = "gaussian",
) -> dict[str, Tensor]:
    watch = Watch(stop_at)
    return fit_renderer(
        get_renderer(name), dataset, SMALL[name], checkpoint, watch, seed=seed
    ).tensors()


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


class Fitted(NamedTuple):
    """The tensors of an uninterrupted run with seed 0."""

    name: str
    tensors: dict[str, Tensor]


@pytest.fixture(scope="module", params=list(SMALL))
def fitted(
    request: pytest.FixtureRequest,
    head_dataset: IdentityDataset,
    tmp_path_factory: pytest.TempPathFactory,
) -> Fitted:
    checkpoint = tmp_path_factory.mktemp("fit") / "state.safetensors"
    return Fitted(request.param, fit(head_dataset, checkpoint, name=request.param))


def error(renderer: Renderer, dataset: IdentityDataset, frames: list[int]) -> float:
    """The loss of frames with a fixed step's noise."""
    batch = make_batch(dataset, dataset.crop_landmarks(), np.array(frames))
    with torch.no_grad():
        return float(sum(renderer.losses(batch, 0).values()))


def test_the_loss_decreases_on_training_and_other_frames(
    head_dataset: IdentityDataset, fitted: Fitted
) -> None:
    config, renderer = SMALL[fitted.name], get_renderer(fitted.name)
    before = renderer.from_dataset(head_dataset, config, 0)
    after = renderer.from_tensors(fitted.tensors, config)
    for frames in ([1, 9, 25], [37, 38, 39]):
        start = error(before, head_dataset, frames)
        assert error(after, head_dataset, frames) < 0.75 * start


def test_same_seed_same_bits(head_dataset: IdentityDataset, fitted: Fitted, tmp_path: Path) -> None:
    name, tensors = fitted
    assert same(fit(head_dataset, tmp_path / "state.safetensors", name=name), tensors)
    assert not same(fit(head_dataset, tmp_path / "other.safetensors", 1, name=name), tensors)


@pytest.mark.parametrize("stop_at", [1, 23, 40])
def test_an_interrupted_run_ends_in_the_same_renderer(
    head_dataset: IdentityDataset,
    fitted: Fitted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_at: int,
) -> None:
    """The run is interrupted before a checkpoint's step is complete: repeated steps give the same
    result.
    """
    checkpoint = tmp_path / "state.safetensors"
    monkeypatch.setattr(loop, "CHECKPOINT_S", -1.0)  # after every step
    with pytest.raises(Stop):
        fit(head_dataset, checkpoint, stop_at=stop_at, name=fitted.name)
    assert checkpoint.exists() == (stop_at > 1)
    assert same(fit(head_dataset, checkpoint, name=fitted.name), fitted.tensors)


def test_it_resumes_where_it_stopped(
    head_dataset: IdentityDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "state.safetensors"
    monkeypatch.setattr(loop, "CHECKPOINT_S", -1.0)
    with pytest.raises(Stop):
        fit(head_dataset, checkpoint, stop_at=11)
    monkeypatch.setattr(loop, "CHECKPOINT_S", 1e9)
    watch = Watch()
    fit_renderer(RENDERER, head_dataset, CONFIG, checkpoint, watch)
    assert (watch.done, watch.n_steps) == (10, CONFIG.n_steps - 10)
    again = Watch()  # finished: nothing is done twice
    fit_renderer(RENDERER, head_dataset, CONFIG, checkpoint, again)
    assert again.n_steps == 0 and int(read_tensors(checkpoint)["step"]) == CONFIG.n_steps


def test_no_held_out_frame_is_read(
    head_dataset: IdentityDataset, fitted: Fitted, tmp_path: Path
) -> None:
    """With all data of the held-out frames corrupted, the renderer is the same, bit for bit."""
    corrupted = tmp_path / "dataset"
    shutil.copytree(head_dataset.path, corrupted)
    held_out = np.flatnonzero(~head_dataset.tracks.train)
    for name in (FRAMES, MASKS):
        images = np.fromfile(corrupted / name, np.uint8).reshape(len(head_dataset), -1)
        images[held_out] = np.random.default_rng(0).integers(0, 256, images[held_out].shape)
        images.tofile(corrupted / name)
    tracks = head_dataset.tracks
    changed = {
        name: np.array(getattr(tracks, name))
        for name in ("landmarks", "codes", "viewmats", "residual_px")
    }
    for array in changed.values():
        array[held_out] = np.nan
    origins = tracks.origins.copy()
    origins[held_out] = -1000.0
    corrupted_tracks = type(tracks)(**{**vars(tracks), **changed, "origins": origins})
    dataset = replace(head_dataset, path=corrupted, tracks=corrupted_tracks)
    again = fit(dataset, tmp_path / "state.safetensors", name=fitted.name)
    assert same(again, fitted.tensors)


def test_factors_of_products_are_aligned_to_64_bytes(
    head_dataset: IdentityDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are copied if needed: the last bit of a product can depend on the alignment of arrays."""
    places: list[int] = []
    kept: Callable[..., Any] = GaussianRenderer.losses

    def note(renderer: GaussianRenderer, batch: Any, step: int) -> Any:
        factors = [batch.motion, batch.viewmats, renderer.deltas]
        factors += renderer.frames.tensors().values()
        places.extend(tensor.data_ptr() % 64 for tensor in factors)
        return kept(renderer, batch, step)

    monkeypatch.setattr(GaussianRenderer, "losses", note)
    monkeypatch.setattr(loop, "CHECKPOINT_S", -1.0)
    with pytest.raises(Stop):
        fit(head_dataset, tmp_path / "state.safetensors", stop_at=3)
    fit(head_dataset, tmp_path / "state.safetensors")
    assert len(places) > CONFIG.n_steps and not any(places)


def test_frames_that_are_not_usable_are_never_drawn(
    head_dataset: IdentityDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[int] = []
    kept: Callable[..., Any] = loop.make_batch

    def note(dataset: IdentityDataset, landmarks: Any, frames: Any) -> Any:
        drawn.extend(frames.tolist())
        return kept(dataset, landmarks, frames)

    monkeypatch.setattr(loop, "make_batch", note)
    usable = head_dataset.tracks.usable.copy()
    usable[[0, 7, 20]] = False
    tracks = type(head_dataset.tracks)(**{**vars(head_dataset.tracks), "usable": usable})
    dataset = IdentityDataset(head_dataset.path, head_dataset.info, head_dataset.face, tracks)
    fit(dataset, tmp_path / "state.safetensors")
    assert set(drawn) == set(np.flatnonzero(usable & tracks.train).tolist())


def test_draws_are_shuffled_epochs() -> None:
    usable = np.array([3, 5, 8, 13, 21, 34, 55])
    draws = np.concatenate([draw_frames(usable, 3, 7, step) for step in range(14)])
    epochs = draws.reshape(-1, len(usable))
    assert (np.sort(epochs, axis=1) == usable).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == len(epochs)
    assert np.array_equal(draw_frames(usable, 3, 7, 5), draws[15:18])
    other = np.concatenate([draw_frames(usable, 3, 8, step) for step in range(14)])
    assert not np.array_equal(other, draws)
    assert len(draw_frames(usable, 20, 0, 0)) == 20, "a batch may be longer than an epoch"


def test_nothing_to_fit_leaves_no_checkpoint(head_dataset: IdentityDataset, tmp_path: Path) -> None:
    renderer_class = get_renderer("warp")
    config = renderer_class.presets["preview"]
    fit_renderer(
        renderer_class, head_dataset, config, tmp_path / "state.safetensors", SilentProgress()
    )
    assert not list(tmp_path.iterdir())


def test_a_trained_renderer_needs_a_train_config(
    head_dataset: IdentityDataset, tmp_path: Path
) -> None:
    config = SimpleNamespace(**vars(CONFIG))
    checkpoint = tmp_path / "state.safetensors"
    with pytest.raises(TypeError, match="SimpleNamespace must derive from TrainConfig"):
        fit_renderer(GaussianRenderer, head_dataset, config, checkpoint, SilentProgress())


def test_batches_contain_the_data_of_the_dataset(head_dataset: IdentityDataset) -> None:
    frames = np.array([4, 30])
    batch = make_batch(head_dataset, head_dataset.crop_landmarks(), frames)
    for i, frame in enumerate(frames):
        image, solid = torch.from_numpy(head_dataset.frames[frame]) / 255.0, batch.masks[i] == 1
        torch.testing.assert_close(batch.images[i] * solid, image * solid)
        assert 0.3 < solid.float().mean() < 1
        assert torch.equal(batch.motion[i], torch.from_numpy(head_dataset.tracks.codes[frame]))
    for image in (batch.images, batch.masks):
        assert image.dtype == torch.float32 and image.min() >= 0 and image.max() <= 1
    assert (batch.images <= batch.masks + 1e-6).all(), "premultiplied"
    assert ((batch.masks > 0.05) & (batch.masks < 0.95)).any()
    lips = head_dataset.crop_landmarks()[4, [13, 14]].mean(0).astype(int)
    chin = head_dataset.crop_landmarks()[4, 199].astype(int)
    weights = batch.weights[0, ..., 0]
    assert weights[lips[1], lips[0]] > weights[chin[1], chin[0]] > weights[2, 2] > 0


@pytest.mark.parametrize("name", list(SMALL))
def test_occluders_have_no_effect(head_dataset: IdentityDataset, name: str) -> None:
    """Loss and gradient do not depend on the pixels of an occluder."""
    tracks, face = head_dataset.tracks, head_dataset.face
    lower = face.template[face.triangles].mean(1)[:, 1] > 0.6
    occluded = tracks.occluded.copy()
    occluded[4] = lower
    dataset = replace(head_dataset, tracks=replace(tracks, occluded=occluded))
    batch = make_batch(dataset, dataset.crop_landmarks(), np.array([4]))
    area = dataset.occluded_area(4)
    assert area.any() and not batch.weights[0, ..., 0][area].any()
    assert (batch.weights[0, ..., 0][~area] > 0).all()
    behind = cv2.erode(area.astype(np.uint8), np.ones((17, 17), np.uint8)) > 0
    assert behind.sum() > 500
    other = replace(batch, images=batch.images.clone())
    other.images[0][torch.from_numpy(behind)] = torch.tensor([0.9, 0.1, 0.9])
    results = []
    for shown in (batch, other):
        renderer = get_renderer(name).from_dataset(dataset, SMALL[name], 0)
        torch.stack(list(renderer.losses(shown, 0).values())).sum().backward()
        results.append([p.grad for group in renderer.param_groups() for p in group["params"]])
    assert any(gradient is not None and gradient.any() for gradient in results[0])
    for first, second in zip(*results, strict=True):
        assert (first is None and second is None) or torch.allclose(first, second, atol=1e-7)


@pytest.mark.parametrize("overlap", [False, True])
def test_batches_are_those_of_the_steps_in_order(
    head_dataset: IdentityDataset, overlap: bool
) -> None:
    usable = np.flatnonzero(head_dataset.tracks.trainable)
    steps = range(3, 3 + 2 * loop.BATCHES_AT_ONCE + 1)
    found = list(loop._batches(head_dataset, 2, 5, steps, overlap))
    assert len(found) == len(steps)
    for step, batch in zip(steps, found, strict=True):
        frames = draw_frames(usable, 2, 5, step)
        np.testing.assert_array_equal(batch.motion.numpy(), head_dataset.tracks.codes[frames])
    assert not list(loop._batches(head_dataset, 2, 5, range(7, 7), overlap))
