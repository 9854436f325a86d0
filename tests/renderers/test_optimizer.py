"""Adam's step over blendshapes, whose gradient is never stored, against torch's Adam."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from talkhead.checkpoints import load_optimizer, optimizer_tensors
from talkhead.renderers.optimizer import BETAS, EPSILON, Adam, Blendshapes

K, M = 5, 5000
RATES = (0.1, 0.1, 0.03, 0.02)


def start() -> Tensor:
    return torch.randn(K, M, generator=torch.Generator().manual_seed(0)).requires_grad_()


def loss(change: Tensor, step: int) -> Tensor:
    """A function of the blended values. A third of them has no gradient; after two steps, half of
    them.
    """
    weights = torch.rand(M, generator=torch.Generator().manual_seed(step)) * 1e-3
    weights[::3] = 0.0
    weights[M // 2 :] *= step < 2
    return (change.square() * weights).sum()


def codes(n_images: int, step: int) -> Tensor:
    return torch.randn(n_images, K, generator=torch.Generator().manual_seed(100 + step))


def blended(n_images: int, stop_at: int | None = None) -> Tensor:
    """The deltas after a few steps; from step `stop_at` on, if given, with a new optimizer."""
    deltas = start()

    def make() -> tuple[Blendshapes, Adam]:
        blendshapes = Blendshapes(deltas)
        group = {"params": [deltas], "lr": 1.0, "blendshapes": blendshapes}
        return blendshapes, Adam([group])

    blendshapes, optimizer = make()
    for step, rate in enumerate(RATES):
        if step == stop_at:
            state = {name: t.clone() for name, t in optimizer_tensors(optimizer).items()}
            blendshapes, optimizer = make()
            load_optimizer(optimizer, state)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss(blendshapes(codes(n_images, step)), step).backward()  # type: ignore[no-untyped-call]
        assert deltas.grad is None
        optimizer.step()
    return deltas.detach()


@pytest.mark.parametrize("n_images", [1, 3])
def test_steps_equal_those_of_torch(n_images: int) -> None:
    deltas = start()
    optimizer = torch.optim.Adam([deltas], betas=BETAS, eps=EPSILON)
    for step, rate in enumerate(RATES):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss(codes(n_images, step) @ deltas, step).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.testing.assert_close(blended(n_images), deltas.detach(), rtol=1e-5, atol=2e-6)
    assert (deltas.detach() != start().detach()).any(0).float().mean() > 0.6


def test_it_resumes_from_a_checkpoint() -> None:
    assert torch.equal(blended(1, stop_at=2), blended(1))


def test_the_code_has_its_gradient() -> None:
    """Only the gradient with respect to the deltas is withheld."""
    deltas, code = start(), codes(2, 0).requires_grad_()
    (found,) = torch.autograd.grad(loss(Blendshapes(deltas)(code), 0), code)
    (expected,) = torch.autograd.grad(loss(code @ deltas, 0), code)
    torch.testing.assert_close(found, expected)


def test_cleared_gradients_change_nothing() -> None:
    deltas = start()
    blendshapes = Blendshapes(deltas)
    optimizer = Adam([{"params": [deltas], "lr": 0.1, "blendshapes": blendshapes}])
    loss(blendshapes(codes(1, 0)), 0).backward()  # type: ignore[no-untyped-call]
    optimizer.zero_grad()
    optimizer.step()
    assert torch.equal(deltas, start()) and not optimizer_tensors(optimizer)
