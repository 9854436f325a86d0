"""Convert the state of an optimizer to tensors, so that training resumes without pickle."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from talkhead.tensors import TensorSpec, check_tensors

PREFIX = "optimiser."
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the moments of an Adam or AdamW optimizer.

    Args:
        optimizer: The optimizer.

    Returns:
        Tensors of the same shape as their parameters, named by the position of the parameter.
    """
    tensors = {}
    for i, parameter in enumerate(_parameters(optimizer)):
        moments = optimizer.state[parameter]
        for name in MOMENTS:
            if name in moments:
                tensors[f"{PREFIX}{i}.{name}"] = moments[name]
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the moments of `optimizer_tensors`; a parameter without any starts from zero.

    Args:
        optimizer: The optimizer, changed in place.
        tensors: The moments.

    Raises:
        ContentError: A moment has a different shape from its parameter.
    """
    for i, parameter in enumerate(_parameters(optimizer)):
        names = {name: f"{PREFIX}{i}.{name}" for name in MOMENTS}
        if names["step"] in tensors:
            like = TensorSpec(tuple(parameter.shape), parameter.dtype)
            specs = {
                names["exp_avg"]: like,
                names["exp_avg_sq"]: like,
                names["step"]: TensorSpec(()),
            }
            check_tensors({k: t for k, t in tensors.items() if k in specs}, specs)
            optimizer.state[parameter] = {
                name: tensors[key].to(parameter.device) for name, key in names.items()
            }


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the parameters of an optimizer, of any shape, in order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
