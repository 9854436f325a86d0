"""Adam, with a separate step for blendshapes, whose gradient is an outer product.

Blendshapes [K, M] are most of a renderer's parameters. Their gradient from one image is its code
[K] times the gradient [M] with respect to the blended values. On the CPU it is never stored: the
step (numba) computes it as it proceeds, and parameters and moments pass through memory once. On
other devices everything is torch's Adam. Source: Kingma and Ba, "Adam", 2015, algorithm 1.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from talkhead.renderers.fastmath import AS_WRITTEN, fma, widest_vectors

BETAS, EPSILON = (0.9, 0.99), 1e-15
BLOCK = 2048
"""Columns that a thread processes at a time, so that the part of the gradient that all rows share
stays in its cache.
"""


class Blendshapes:
    """Parameters [K, M] by which motion codes are multiplied.

    Attributes:
        deltas: [K, M], the parameters.
        factors: Pairs of codes [B, K] and gradients [B, M] whose products sum to the gradient since
            it was last cleared. Where they are used, the parameters' own `grad` is None.
    """

    def __init__(self, deltas: Tensor) -> None:
        """Store the parameters, deltas [K, M]."""
        self.deltas = deltas
        self.factors: list[tuple[Tensor, Tensor]] = []

    def __call__(self, code: Tensor) -> Tensor:
        """Multiply codes [B, K] with the deltas, differentiably; returns [B, M]."""
        is_trained = self.deltas.requires_grad and torch.is_grad_enabled()
        if self.deltas.device.type != "cpu" or not is_trained:
            return code @ self.deltas
        product: Tensor = _Product.apply(code, self.deltas, self.factors)  # type: ignore[no-untyped-call]
        return product


class _Product(torch.autograd.Function):
    """The product of codes and deltas, which stores the factors of the deltas' gradient."""

    @staticmethod
    def forward(ctx: Any, code: Tensor, deltas: Tensor, factors: list[Any]) -> Tensor:
        """Return code [B, K] @ deltas [K, M]."""
        ctx.save_for_backward(code, deltas)
        ctx.factors = factors
        return code @ deltas

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        """Store the factors of the deltas' gradient; return the codes' gradient [B, K]."""
        code, deltas = ctx.saved_tensors
        ctx.factors.append((code.detach(), gradient.contiguous()))
        return gradient @ deltas.T if ctx.needs_input_grad[0] else None, None, None


class Adam(torch.optim.Adam):
    """torch's Adam, for parameter groups of which some hold blendshapes."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        """Create the optimizer.

        Args:
            groups: Parameter groups with their learning rates. A group with a key "blendshapes" has
                one parameter, the deltas of the Blendshapes under that key.
        """
        super().__init__(groups, betas=BETAS, eps=EPSILON, fused=True)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear all gradients, including those stored as factors.

        Args:
            set_to_none: As in torch.
        """
        super().zero_grad(set_to_none)
        for group in self._blendshape_groups():
            group["blendshapes"].factors.clear()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient.

        Args:
            closure: Not supported.
        """
        super().step()
        for group in self._blendshape_groups():
            if group["blendshapes"].factors:
                self._step_blendshapes(group)

    def _blendshape_groups(self) -> list[dict[str, Any]]:
        """Return the groups that hold blendshapes."""
        return [group for group in self.param_groups if "blendshapes" in group]

    def _step_blendshapes(self, group: dict[str, Any]) -> None:
        """Update the deltas of a group from their factors."""
        deltas, codes, gradients = _stack_factors(group["blendshapes"])
        state = self.state[deltas]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(deltas) for _ in range(2))
        state["step"] += 1
        n = float(state["step"])
        rate = group["lr"] / (1.0 - BETAS[0] ** n)
        spread = (1.0 - BETAS[1] ** n) ** -0.5
        numbers = np.array([*BETAS, EPSILON, rate, spread], np.float32)
        moments = state["exp_avg"].numpy(), state["exp_avg_sq"].numpy()
        _step(deltas.detach().numpy(), *moments, codes.numpy(), gradients.numpy(), numbers)


def _stack_factors(blendshapes: Blendshapes) -> tuple[Tensor, Tensor, Tensor]:
    """Return the deltas [K, M], and the codes [B, K] and gradients [B, M] of all their factors."""
    codes, gradients = zip(*blendshapes.factors, strict=True)
    return blendshapes.deltas, torch.cat(codes), torch.cat(gradients)


@numba.njit(nogil=True, parallel=True, cache=True, error_model="numpy")
def _step(values, first, second, codes, gradients, numbers):  # type: ignore[no-untyped-def]
    """Update values [K, M] and both moments [K, M] from codes [B, K] and gradients [B, M].

    numbers is described in _step_row.
    """
    n_rows, n_columns = values.shape
    for block in numba.prange((n_columns + BLOCK - 1) // BLOCK):
        start = block * BLOCK
        end = min(start + BLOCK, n_columns)
        gradient = np.empty(end - start, np.float32)
        for row in range(n_rows):
            _outer(codes[:, row], gradients[:, start:end], gradient)
            _step_row(
                values[row, start:end],
                first[row, start:end],
                second[row, start:end],
                gradient,
                numbers,
            )


@numba.njit(nogil=True, fastmath=AS_WRITTEN, error_model="numpy")
def _outer(codes, gradients, total):  # type: ignore[no-untyped-def]
    """Write the sum over images of code [B] times gradient [B, m] to total [m]."""
    for j in range(total.shape[0]):
        total[j] = codes[0] * gradients[0, j]
    for image in range(1, codes.shape[0]):
        for j in range(total.shape[0]):
            total[j] = fma(codes[image], gradients[image, j], total[j])


@numba.njit(nogil=True, fastmath=AS_WRITTEN, error_model="numpy")
def _step_row(values, first, second, gradient, numbers):  # type: ignore[no-untyped-def]
    """Update a part of a row and its moments.

    numbers: both betas, epsilon, the learning rate divided by the first moment's bias correction,
    and 1 / the root of the second moment's.
    """
    widest_vectors()
    beta1, beta2, epsilon, rate, spread = numbers
    rest1, rest2 = np.float32(1.0) - beta1, np.float32(1.0) - beta2
    for j in range(values.shape[0]):
        g = gradient[j]
        m = fma(rest1, g - first[j], first[j])
        v = fma(rest2 * g, g, beta2 * second[j])
        first[j] = m
        second[j] = v
        values[j] -= rate * m / fma(np.sqrt(v), spread, epsilon)
