"""Skinning: the kernel against its torch reference, the reference against finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from talkhead.renderers.gaussian.skinning import UPPER, deform, deform_torch, shape_factor

N_IMAGES, N_FRAMES, N = 3, 7, 50


def make_inputs(dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
    """gradients, origins, index, local, shape."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    gradients = torch.eye(3, dtype=dtype) + 0.3 * normal(N_IMAGES, N_FRAMES, 3, 3)
    index = torch.randint(N_FRAMES, (N,), generator=generator)
    shape = torch.cat([-2.0 + 0.5 * normal(N, 3), 0.4 * normal(N, 3)], dim=1)
    return [gradients, normal(N_IMAGES, N_FRAMES, 3), index, normal(N_IMAGES, N, 3), shape]


def test_kernel_equals_reference() -> None:
    inputs = make_inputs()
    for found, expected in zip(deform(*inputs), deform_torch(*inputs), strict=True):
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_gradients_equal_reference(seed: int) -> None:
    """The gradients are those of a random weighting of all outputs, with respect to frames,
    positions and shapes.
    """
    gradients, origins, index, local, shape = make_inputs(seed=seed)
    generator = torch.Generator().manual_seed(seed + 10)
    weights = [torch.randn(N_IMAGES, N, n, generator=generator) for n in (3, 6)]
    results = []
    for function in (deform, deform_torch):
        leaves = [t.clone().requires_grad_() for t in (gradients, origins, local, shape)]
        outputs = function(*leaves[:2], index, *leaves[2:])
        sum((w * out).sum() for w, out in zip(weights, outputs, strict=True)).backward()
        results.append([leaf.grad for leaf in leaves])
    for kernel, reference in zip(*results, strict=True):
        assert kernel is not None and reference is not None
        assert torch.allclose(kernel, reference, rtol=1e-4, atol=1e-5)
        assert reference.abs().min(0).values.max() > 0


def test_a_frame_without_gaussians_has_no_gradient() -> None:
    gradients, origins, index, local, shape = make_inputs()
    index = index.clamp(min=1)
    gradients.requires_grad_()
    deform(gradients, origins, index, local, shape)[0].sum().backward()
    assert gradients.grad is not None
    assert torch.equal(gradients.grad[:, 0], torch.zeros(N_IMAGES, 3, 3))
    assert gradients.grad[:, 1:].abs().amax((0, 2, 3)).min() > 0


def test_reference_gradients_by_finite_differences() -> None:
    gradients, origins, index, local, shape = make_inputs(torch.float64)
    index = index[:6]
    leaves = (gradients, origins, local[:, :6], shape[:6])
    arguments = tuple(leaf.clone().requires_grad_() for leaf in leaves)
    assert torch.autograd.gradcheck(
        lambda turn, origin, place, form: deform_torch(turn, origin, index, place, form), arguments
    )


def test_by_hand() -> None:
    """mean = o + F local; covariance = F L (F L)^T, its upper triangle."""
    gradients, origins, index, local, shape = make_inputs(torch.float64)
    means, covars = deform_torch(gradients, origins, index, local, shape)
    b, g = 1, 17
    carried, factor = gradients[b, index[g]], shape_factor(shape)[g]
    assert torch.allclose(means[b, g], origins[b, index[g]] + carried @ local[b, g])
    whole = carried @ factor @ factor.T @ carried.T
    assert torch.allclose(covars[b, g], torch.stack([whole[i, j] for i, j in UPPER]))


def test_rest_is_a_round_gaussian() -> None:
    """An undeformed frame and a shape without shear give variances exp(2 s) and zeros off the
    diagonal.
    """
    shape = torch.zeros(1, 6)
    shape[0, :3] = torch.tensor([0.1, 0.2, 0.5]).log()
    _, covars = deform(
        torch.eye(3).repeat(1, 1, 1, 1),
        torch.zeros(1, 1, 3),
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(1, 1, 3),
        shape,
    )
    assert covars[0, 0].tolist() == pytest.approx([0.01, 0, 0, 0.04, 0, 0.25], abs=1e-7)


def test_a_turned_frame_turns_the_gaussian() -> None:
    """Rotations keep the covariance's eigenvalues."""
    gradients, origins, index, local, shape = make_inputs(torch.float64)
    rotations = torch.linalg.qr(gradients).Q
    _, covars = deform_torch(rotations, origins, index, local, shape)
    matrix = covars.new_zeros(N_IMAGES, N, 3, 3)
    for k, (i, j) in enumerate(UPPER):
        matrix[..., i, j] = matrix[..., j, i] = covars[..., k]
    values = torch.linalg.eigvalsh(matrix)
    assert torch.allclose(values, values[:1].expand_as(values))


def test_same_input_same_bits() -> None:
    inputs = make_inputs()
    for first, second in zip(deform(*inputs), deform(*inputs), strict=True):
        assert torch.equal(first, second)
