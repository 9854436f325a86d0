"""An optimiser's state as tensors, so that training can be resumed without pickle."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from talkhead.tensors import TensorSpec, check_tensors

PREFIX = "optimiser."
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The moments of an Adam or AdamW, by the place of their parameter."""
    tensors = {}
    for i, parameter in enumerate(_parameters(optimizer)):
        moments = optimizer.state[parameter]
        for name in MOMENTS:
            if name in moments:
                tensors[f"{PREFIX}{i}.{name}"] = moments[name]
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the moments of optimizer_tensors back; a parameter without any begins afresh.

    Raises ContentError for moments of another shape than their parameter's.
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
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
