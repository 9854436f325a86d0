"""Damage single tensors of a file in every way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from talkhead.errors import PackageError

OTHER_DTYPES = {
    torch.float32: torch.float64,
    torch.float64: torch.float32,
    torch.int64: torch.int32,
    torch.int32: torch.int64,
    torch.uint8: torch.int64,
    torch.bool: torch.int64,
}


class Damage(NamedTuple):
    """A kind of damage: name of the tensor, kind of the damage, all tensors."""

    name: str
    kind: str
    tensors: dict[str, Tensor]


def damages(tensors: Mapping[str, Tensor]) -> Iterator[Damage]:
    """Yield each tensor damaged in each way that its dtype and shape allow."""
    yield Damage("extra", "extra", {**tensors, "extra": torch.zeros(3)})
    for name, tensor in tensors.items():
        yield Damage(name, "missing", {k: t for k, t in tensors.items() if k != name})
        for kind, changed in _changed(tensor):
            yield Damage(name, kind, {**tensors, name: changed})


def _changed(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield "dtype", tensor.to(OTHER_DTYPES[tensor.dtype])
    yield "rank", tensor[None]
    for axis in range(tensor.ndim):
        last = tensor.narrow(axis, tensor.shape[axis] - 1, 1)
        yield f"longer {axis}", torch.cat([tensor, last], axis)
        yield f"shorter {axis}", tensor.narrow(axis, 0, tensor.shape[axis] - 1)
    if tensor.dtype == torch.bool:
        return
    if tensor.is_floating_point():
        values: list[float] = [torch.nan, torch.inf, -torch.inf]
    elif tensor.dtype == torch.uint8:  # a fixed value might equal the current one
        yield "other byte", _with_last(tensor, 255 - int(tensor.view(-1)[-1]))
        return
    else:
        values = [-1, torch.iinfo(tensor.dtype).max]
    for value in values:
        yield f"holds {value}", _with_last(tensor, value)


def _with_last(tensor: Tensor, value: float) -> Tensor:
    changed = tensor.clone()
    changed.view(-1)[-1] = value
    return changed


def accepted(
    tensors: Mapping[str, Tensor], load: Callable[[Mapping[str, Tensor]], object]
) -> set[tuple[str, str]]:
    """Return tensor name and kind of each damage that `load` does not refuse.

    Asserts that it refuses the others with a PackageError of one line.
    """
    passed = set()
    for name, kind, damaged in damages(tensors):
        try:
            load(damaged)
        except PackageError as error:
            assert "\n" not in str(error), (name, kind)
        else:
            passed.add((name, kind))
    return passed
