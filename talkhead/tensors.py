"""What stored tensors must be: said once beside the code that uses them, checked where they are loaded.

A component says what it stores as a mapping of names to `TensorSpec`, and `check_tensors` compares. What
passes has the right names, dtypes, shapes, finite values and indices within range, so that compiled
kernels, which test none of these, never see anything else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from talkhead.storage import ContentError, content_errors, decode_json, read_tensors, shown

MAX_ROWS = 2**31 - 1
"""The largest size along one axis where a component sets no limit of its own."""


@dataclass(frozen=True)
class Size:
    """A size that only the file tells. It is the same wherever its name occurs.

    The first occurrence must be plain and sets it, within least and most; `N + 1` and `N * 2` are then
    sizes derived from it.
    """

    name: str
    least: int = 1
    most: int = MAX_ROWS
    times: int = 1
    plus: int = 0

    def __add__(self, n: int) -> Size:
        return replace(self, plus=self.plus + n)

    def __mul__(self, n: int) -> Size:
        return replace(self, times=self.times * n, plus=self.plus * n)

    def __str__(self) -> str:
        product = self.name if self.times == 1 else f"{self.times} {self.name}"
        return product + (f" {'+' if self.plus > 0 else '-'} {abs(self.plus)}" if self.plus else "")

    def of(self, sizes: Mapping[str, int]) -> int:
        """Its value, given those of plain sizes by name."""
        return self.times * sizes[self.name] + self.plus


@dataclass(frozen=True)
class TensorSpec:
    """What one stored tensor must be.

    least, most: bounds of its values. index_of: the values are indices into so many things.
    is_finite: whether NaN and infinity are refused. fault: says what else is wrong with values that are
    within bounds, "" where nothing is.
    """

    shape: tuple[int | Size, ...]
    dtype: torch.dtype = torch.float32
    least: float = -math.inf
    most: float = math.inf
    index_of: int | Size | None = None
    is_finite: bool = True
    fault: Callable[[Tensor], str] | None = None

    def range(self, sizes: Mapping[str, int]) -> tuple[float, float]:
        """Least and largest value allowed."""
        if self.index_of is None:
            return self.least, self.most
        return 0, _value(self.index_of, sizes) - 1


Specs = Mapping[str, TensorSpec]


def check_tensors(
    tensors: Mapping[str, Tensor], specs: Specs, sizes: Mapping[str, int] | None = None
) -> dict[str, int]:
    """The sizes of tensors by name, once each of them is what its spec says and there is no other.

    sizes: those that are known beforehand. Nothing is allocated that grows with what a file declares.
    Raises ContentError naming the first tensor that is wrong, and what is needed.
    """
    for name in specs:
        if name not in tensors:
            raise ContentError(f"the tensor {name} is missing")
    for name in tensors:
        if name not in specs:
            raise ContentError(f"the tensor {shown(name)} does not belong here")
    known = dict(sizes or {})
    for name, spec in specs.items():
        if not _has_form(tensors[name], spec, known):
            raise ContentError(_form_message(name, tensors[name], spec, known))
    for name, spec in specs.items():
        _check_values(name, tensors[name], spec, known)
    return known


def read_checked(
    path: Path, specs: Specs, advice: str, sizes: Mapping[str, int] | None = None
) -> dict[str, Tensor]:
    """The tensors of a safetensors file, which are what their specs say, as in check_tensors.

    Raises PackageError naming the file and the tensor that is wrong, with what is to be done (advice).
    """
    with content_errors(path, advice):
        tensors = read_tensors(path)
        check_tensors(tensors, specs, sizes)
    return tensors


def _has_form(tensor: Tensor, spec: TensorSpec, sizes: dict[str, int]) -> bool:
    """Whether dtype and shape are right; plain sizes that occur for the first time become known."""
    if tensor.dtype != spec.dtype or tensor.ndim != len(spec.shape):
        return False
    for given, size in zip(tensor.shape, spec.shape, strict=True):
        if isinstance(size, Size) and size.name not in sizes:
            if (size.times, size.plus) != (1, 0):
                raise ValueError(f"the size {size} is used before {size.name} is known")
            if not size.least <= given <= size.most:
                return False
            sizes[size.name] = given
        elif given != _value(size, sizes):
            return False
    return True


def _form_message(name: str, tensor: Tensor, spec: TensorSpec, sizes: Mapping[str, int]) -> str:
    facts = []
    for size in spec.shape:
        if isinstance(size, Size):
            told = size.name in sizes
            limit = f"= {sizes[size.name]}" if told else f"from {size.least} to {size.most}"
            facts.append(f"{size.name} {limit}")
    needed = f"{_kind(spec.dtype)} [{', '.join(map(str, spec.shape))}]"
    where = f" with {', '.join(dict.fromkeys(facts))}" if facts else ""
    given = f"{_kind(tensor.dtype)} {list(tensor.shape)}"
    return f"the tensor {name} is {given}, where {needed}{where} is needed"


def _check_values(name: str, tensor: Tensor, spec: TensorSpec, sizes: Mapping[str, int]) -> None:
    if tensor.numel() == 0:
        return
    if tensor.dtype == torch.bool:
        if tensor.view(torch.uint8).max() > 1:  # compiled code takes bytes of bool for 0 or 1
            raise ContentError(f"the tensor {name} holds values that are neither true nor false")
        return
    least, most = (value.item() for value in tensor.aminmax())  # NaN, if there is one
    if spec.is_finite and not (math.isfinite(least) and math.isfinite(most)):
        raise ContentError(f"the tensor {name} holds NaN or infinity, where numbers are needed")
    low, high = spec.range(sizes)
    if least < low or most > high:
        bad = least if least < low else most
        span = f"{low:.9g} to {high:.9g}"
        raise ContentError(f"the tensor {name} holds {bad:.9g}, where {span} is allowed")
    if spec.fault is not None and (fault := spec.fault(tensor)):
        raise ContentError(f"the tensor {name} {fault}")


def _value(size: int | Size, sizes: Mapping[str, int]) -> int:
    return size.of(sizes) if isinstance(size, Size) else size


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def module_specs(build: Callable[[], nn.Module], prefix: str = "") -> dict[str, TensorSpec]:
    """What the state of a module must be, under names that begin with prefix.

    build: makes the module. It is called where tensors take no memory, whatever its sizes are.
    """
    with torch.device("meta"):
        state = build().state_dict()
    return {prefix + name: TensorSpec(tuple(t.shape), t.dtype) for name, t in state.items()}


def within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with prefix, under the rest of their names."""
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def prefixed(specs: Specs, prefix: str) -> dict[str, TensorSpec]:
    """The same specs under names that begin with prefix."""
    return {prefix + name: spec for name, spec in specs.items()}


# ---------------------------------------------------------------------------- metadata


def json_tensor(value: Any) -> Tensor:
    """A JSON value as a tensor of its bytes [n] uint8, to be stored beside others."""
    return torch.from_numpy(np.frombuffer(bytearray(json.dumps(value).encode()), np.uint8))


def json_in(tensors: Mapping[str, Tensor], name: str) -> Any:
    """The JSON value that json_tensor stored under a name. Raises ContentError."""
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != torch.uint8 or tensor.ndim != 1:
        raise ContentError(f"the tensor {name} is missing or damaged, it should hold JSON")
    try:
        return decode_json(tensor.numpy().tobytes())
    except ValueError as error:
        raise ContentError(f"the tensor {name} is damaged, it holds no JSON ({error})") from error
