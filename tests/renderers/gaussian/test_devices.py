"""Nothing mixes tensors of two devices. Torch's "meta" device, which stores no values, takes the
place of a GPU.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_head import with_clothes
from torch import Tensor

from talkhead.dataset import IdentityDataset
from talkhead.renderers.base import TrainBatch
from talkhead.renderers.batches import make_batch
from talkhead.renderers.code_projection import CodeProjector
from talkhead.renderers.gaussian import model
from talkhead.renderers.gaussian.model import Frames, GaussianRenderer
from talkhead.renderers.gaussian.rasterizer.cameras import Cameras
from talkhead.renderers.optimizer import Blendshapes

META = torch.device("meta")


def rasterize_nothing(
    means: Tensor, covars: Tensor, opacities: Tensor, colors: Tensor, cameras: Cameras
) -> tuple[Tensor, Tensor]:
    """Images in the place of gsplat's, which depend on all inputs."""
    everything = (means, covars, opacities, colors, cameras.viewmats, cameras.Ks)
    value = torch.stack([tensor.sum() for tensor in everything]).sum()
    size = (len(cameras.viewmats), cameras.height, cameras.width)
    return value.expand(*size, 3), value.expand(*size, 1)


@pytest.fixture
def clothed(head_dataset: IdentityDataset) -> IdentityDataset:
    """A dataset with two components of the clothes."""
    made = np.random.default_rng(0).normal(size=(len(head_dataset), 2)).astype(np.float32)
    return with_clothes(head_dataset, made)


@pytest.fixture
def batch(clothed: IdentityDataset) -> TrainBatch:
    return make_batch(clothed, clothed.crop_landmarks(), np.array([0, 1])).to(META)


@pytest.fixture
def head(clothed: IdentityDataset, monkeypatch: pytest.MonkeyPatch) -> GaussianRenderer:
    """A renderer, moved after it was made: making it reads values, which "meta" does not have."""
    monkeypatch.setattr(model, "rasterize", rasterize_nothing)
    head = GaussianRenderer.from_dataset(clothed, GaussianRenderer.test_config, seed=0)
    assert head.has_clothes
    for name, value in vars(head).items():
        if isinstance(value, Tensor):
            moved = value.detach().to(META).requires_grad_(value.requires_grad)
            setattr(head, name, moved)
    head.frames = Frames(**{name: one.to(META) for name, one in vars(head.frames).items()})
    head.projector = CodeProjector(head.projector.codes.to(META), head.projector.reach.to(META))
    head.blendshapes = Blendshapes(head.deltas)
    head.clothes_blendshapes = Blendshapes(head.clothes_deltas)
    return head


def test_training(head: GaussianRenderer, batch: TrainBatch) -> None:
    torch.stack(list(head.losses(batch, step=0).values())).sum().backward()
    trained = [tensor for group in head.param_groups() for tensor in group["params"]]
    assert all(tensor.grad is not None and tensor.grad.is_meta for tensor in trained)


def test_rendering(head: GaussianRenderer, batch: TrainBatch) -> None:
    place, size = (batch.motion, batch.viewmats, batch.ks), (96, 128)
    moved = head.render_raw(*place, size, twist=torch.zeros(6, device=META))
    for rendering in (head.render(*place, *size), moved):
        assert rendering.rgb.is_meta and rendering.alpha.is_meta
