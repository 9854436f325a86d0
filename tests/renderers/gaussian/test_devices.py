"""Nothing mixes tensors of two devices. Torch's "meta" device, which stores no values, takes the
place of a GPU.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from talkhead.dataset import IdentityDataset
from talkhead.renderers.base import TrainBatch
from talkhead.renderers.batches import make_batch
from talkhead.renderers.gaussian import model
from talkhead.renderers.gaussian.model import Frames, GaussianRenderer
from talkhead.renderers.gaussian.rasterizer.cameras import Cameras
from talkhead.tensors import strip_prefix

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
def batch(head_dataset: IdentityDataset) -> TrainBatch:
    frames = np.array([0, 1])
    return make_batch(head_dataset, head_dataset.crop_landmarks(), frames).to(META)


@pytest.fixture
def head(head_dataset: IdentityDataset, monkeypatch: pytest.MonkeyPatch) -> GaussianRenderer:
    monkeypatch.setattr(model, "rasterize", rasterize_nothing)
    # It reads values, which tensors of the device "meta" do not have. This head has no clothes: to find
    # the Gaussians of the body, values are read as well.
    monkeypatch.setattr(model, "clothes_components", lambda _: head_dataset.face.clothes)
    config = GaussianRenderer.test_config
    made = GaussianRenderer.from_dataset(head_dataset, config, seed=0).tensors()
    state = {name: tensor.to(META) for name, tensor in made.items()}
    others = {name: tensor for name, tensor in state.items() if "." not in name}
    return GaussianRenderer(Frames(**strip_prefix(state, "frames.")), others, config)


def test_training(head: GaussianRenderer, batch: TrainBatch) -> None:
    torch.stack(list(head.losses(batch, step=0).values())).sum().backward()
    trained = [tensor for group in head.param_groups() for tensor in group["params"]]
    assert all(tensor.grad is not None and tensor.grad.is_meta for tensor in trained)


def test_rendering(head: GaussianRenderer, batch: TrainBatch) -> None:
    place, size = (batch.motion, batch.viewmats, batch.ks), (96, 128)
    moved = head.render_raw(*place, size, twist=torch.zeros(6, device=META))
    for rendering in (head.render(*place, *size), moved):
        assert rendering.rgb.is_meta and rendering.alpha.is_meta
