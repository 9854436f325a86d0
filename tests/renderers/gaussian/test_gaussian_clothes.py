"""Components of the clothes move the Gaussians of the body only, and are refined by image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from synthetic_head import make_dataset, with_clothes

from talkhead.dataset import IdentityDataset
from talkhead.progress import SilentProgress
from talkhead.renderers.gaussian.model import (
    N_CHANNELS,
    GaussianConfig,
    GaussianRenderer,
    without_body,
)
from talkhead.renderers.gaussian.motion_refinement import refine_motion
from talkhead.renderers.trainer import fit_renderer
from talkhead.types import Float32

N, N_CLOTHES = 22, 2


def waves() -> Float32:
    times = np.arange(N)
    return np.stack([np.sin(times), np.cos(1.7 * times)], axis=1).astype(np.float32)


def dressed(folder: Path, size: tuple[int, int] = (128, 96)) -> IdentityDataset:
    """The synthetic head with components of the clothes."""
    return with_clothes(make_dataset(folder, n_frames=N, size=size), waves())


def clothes_deltas(head: GaussianRenderer) -> torch.Tensor:
    """Deltas of the clothes, [N_CLOTHES, N, 7]."""
    return head.tensors()["deltas"][head.clothes].view(N_CLOTHES, -1, N_CHANNELS)


def test_only_the_body_learns_from_clothes(tmp_path: Path) -> None:
    dataset = dressed(tmp_path / "data")
    checkpoint = tmp_path / "head.safetensors"
    head = fit_renderer(
        GaussianRenderer, dataset, GaussianRenderer.test_config, checkpoint, SilentProgress()
    )
    assert isinstance(head, GaussianRenderer)
    on_body = head.index == head.frames.body
    assert 0 < on_body.sum() < len(on_body)
    deltas = clothes_deltas(head)
    assert not deltas[:, ~on_body].any() and deltas[:, on_body].any()
    others = head.tensors()["deltas"][: head.clothes.start].view(-1, len(on_body), N_CHANNELS)
    assert others[:, ~on_body].any()
    again = GaussianRenderer.from_tensors(head.tensors(), head.config).tensors()
    assert all(torch.equal(again[name], tensor) for name, tensor in head.tensors().items())


def test_clothes_are_refined_by_image(tmp_path: Path) -> None:
    """A head whose body changes its color with the clothes finds them in its own images."""
    dataset = dressed(tmp_path, size=(256, 192))
    config = GaussianConfig(n_surface=1500, n_cap=60, n_teeth=30, n_rest=400)
    head = GaussianRenderer.from_dataset(dataset, config, seed=0)
    on_body = (head.index == head.frames.body).nonzero()[:, 0]
    colors = torch.randn(N_CLOTHES, len(on_body), generator=torch.Generator().manual_seed(1))
    state = head.tensors()
    clothes = state["deltas"][head.clothes].view(N_CLOTHES, -1, N_CHANNELS)
    clothes[:, on_body, 3:6] += 0.2 * colors[..., None] / head.units[3:6]
    head = GaussianRenderer.from_tensors(state, config)
    tracks, info = dataset.tracks, dataset.info
    frames = []
    for i in range(N):
        arrays = (tracks.codes[[i]], tracks.viewmats[[i]], dataset.crop_ks[[i]])
        with torch.no_grad():
            made = head.render_raw(*map(torch.from_numpy, arrays), info.crop_size)
        frames.append((made.rgb[0].clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy())
    noise = np.random.default_rng(2).normal(0.0, 0.3, (N, N_CLOTHES)).astype(np.float32)
    codes, columns = tracks.codes.copy(), dataset.face.clothes
    codes[:, columns] += noise
    noisy = replace(dataset, tracks=replace(tracks, codes=codes))
    noisy.__dict__["frames"] = frames
    noisy.__dict__["masks"] = [np.full(info.crop_size, 255, np.uint8)] * N
    found = refine_motion(head, noisy, SilentProgress()).tracks.codes
    after = found[:, columns] - tracks.codes[:, columns]
    assert np.square(after).mean() < 0.25 * np.square(noise).mean()


def test_a_renderer_without_its_body(tmp_path: Path) -> None:
    """It draws the same face, and nothing where only the body was."""
    dataset = dressed(tmp_path, size=(256, 192))
    config = GaussianConfig(n_surface=1500, n_cap=60, n_teeth=30, n_rest=400)
    head = GaussianRenderer.from_dataset(dataset, config, seed=0)
    bare = without_body(head)
    assert isinstance(bare, GaussianRenderer)
    assert len(bare.index) == len(head.index) - len(head.on_body) and not len(bare.on_body)
    arrays = (dataset.tracks.codes[[0]], dataset.tracks.viewmats[[0]], dataset.crop_ks[[0]])
    motion = [torch.from_numpy(array) for array in arrays]
    with torch.no_grad():
        whole, face = (
            one.render(*motion, *dataset.info.crop_size).alpha[0, ..., 0] for one in (head, bare)
        )
    assert (face <= whole + 1e-4).all() and face.sum() < 0.95 * whole.sum()
    top = whole[: len(whole) // 3]
    assert torch.allclose(face[: len(whole) // 3], top, atol=0.02)
