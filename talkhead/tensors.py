"""Specifications of stored tensors, declared next to the code that uses them and checked on loading.

A component declares what it stores as a mapping of names to `TensorSpec`, and `check_tensors` compares.
Tensors that pass have the right names, dtypes and shapes, finite values, and indices in range. Compiled
kernels do not check any of these, so they are only called with such tensors.
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

from talkhead.storage import ContentError, content_errors, decode_json, read_tensors, short_repr

MAX_ROWS = 2**31 - 1
"""The largest size along one axis, unless a component sets its own limit."""


@dataclass(frozen=True)
class Size:
    """A size that depends on the file. It is the same wherever its name occurs.

    The first occurrence must be plain and sets it; `N + 1` and `N * 2` are then sizes derived from it.

    Attributes:
        name: Its name.
        minimum: Smallest value.
        maximum: Largest value.
        times: Factor of a derived size.
        plus: Number added for a derived size.
    """

    name: str
    minimum: int = 1
    maximum: int = MAX_ROWS
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
        """Return the value of this size.

        Args:
            sizes: Values of plain sizes by name.

        Returns:
            The value.
        """
        return self.times * sizes[self.name] + self.plus


@dataclass(frozen=True)
class TensorSpec:
    """Requirements on one stored tensor.

    Attributes:
        shape: Its shape.
        dtype: Its dtype.
        minimum: Smallest value.
        maximum: Largest value.
        index_of: Values are indices into this many items.
        is_finite: Refuse NaN and infinity.
        fault: Describes what else is wrong with values within bounds; "" if nothing is.
    """

    shape: tuple[int | Size, ...]
    dtype: torch.dtype = torch.float32
    minimum: float = -math.inf
    maximum: float = math.inf
    index_of: int | Size | None = None
    is_finite: bool = True
    fault: Callable[[Tensor], str] | None = None

    def range(self, sizes: Mapping[str, int]) -> tuple[float, float]:
        """Return the allowed range.

        Args:
            sizes: Values of plain sizes by name.

        Returns:
            Smallest and largest value.
        """
        if self.index_of is None:
            return self.minimum, self.maximum
        return 0, _value(self.index_of, sizes) - 1


Specs = Mapping[str, TensorSpec]


def check_tensors(
    tensors: Mapping[str, Tensor], specs: Specs, sizes: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Check that tensors are what their specifications require, and that there are no others.

    No memory is allocated that grows with what a file declares.

    Args:
        tensors: The tensors, each of the shape that its specification gives.
        specs: A specification for each tensor, with its shape.
        sizes: Sizes that are known beforehand.

    Returns:
        All sizes by name.

    Raises:
        ContentError: A tensor is wrong; the message names the first one and what is needed.
    """
    for name in specs:
        if name not in tensors:
            raise ContentError(f"the tensor {name} is missing")
    for name in tensors:
        if name not in specs:
            raise ContentError(f"the tensor {short_repr(name)} does not belong here")
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
    """Read a safetensors file and check it as `check_tensors` does.

    Args:
        path: The file.
        specs: A specification for each tensor, with its shape.
        advice: What to do about a damaged file.
        sizes: Sizes that are known beforehand.

    Returns:
        The tensors.

    Raises:
        PackageError: A tensor is wrong; the message names the file, the tensor and the advice.
    """
    with content_errors(path, advice):
        tensors = read_tensors(path)
        check_tensors(tensors, specs, sizes)
    return tensors


def _has_form(tensor: Tensor, spec: TensorSpec, sizes: dict[str, int]) -> bool:
    """Check dtype and shape, and add plain sizes that occur for the first time to `sizes`.

    Raises ValueError for a derived size whose plain size is unknown.
    """
    if tensor.dtype != spec.dtype or tensor.ndim != len(spec.shape):
        return False
    for given, size in zip(tensor.shape, spec.shape, strict=True):
        if isinstance(size, Size) and size.name not in sizes:
            if (size.times, size.plus) != (1, 0):
                raise ValueError(f"the size {size} is used before {size.name} is known")
            if not size.minimum <= given <= size.maximum:
                return False
            sizes[size.name] = given
        elif given != _value(size, sizes):
            return False
    return True


def _form_message(name: str, tensor: Tensor, spec: TensorSpec, sizes: Mapping[str, int]) -> str:
    """Describe the shape and dtype of a tensor, and those that are needed."""
    facts = []
    for size in spec.shape:
        if isinstance(size, Size):
            is_known = size.name in sizes
            limit = (
                f"= {sizes[size.name]}" if is_known else f"from {size.minimum} to {size.maximum}"
            )
            facts.append(f"{size.name} {limit}")
    needed = f"{_kind(spec.dtype)} [{', '.join(map(str, spec.shape))}]"
    where = f" with {', '.join(dict.fromkeys(facts))}" if facts else ""
    given = f"{_kind(tensor.dtype)} {list(tensor.shape)}"
    return f"the tensor {name} is {given}, where {needed}{where} is needed"


def _check_values(name: str, tensor: Tensor, spec: TensorSpec, sizes: Mapping[str, int]) -> None:
    """Raise ContentError unless the values of a tensor of any shape are allowed."""
    if tensor.numel() == 0:
        return
    if tensor.dtype == torch.bool:
        if tensor.view(torch.uint8).max() > 1:  # compiled code assumes bytes of 0 or 1
            raise ContentError(f"the tensor {name} holds values that are neither true nor false")
        return
    minimum, maximum = (value.item() for value in tensor.aminmax())  # NaN, if there is one
    if spec.is_finite and not (math.isfinite(minimum) and math.isfinite(maximum)):
        raise ContentError(f"the tensor {name} holds NaN or infinity, where numbers are needed")
    low, high = spec.range(sizes)
    if minimum < low or maximum > high:
        bad = minimum if minimum < low else maximum
        span = f"{low:.9g} to {high:.9g}"
        raise ContentError(f"the tensor {name} holds {bad:.9g}, where {span} is allowed")
    if spec.fault is not None and (fault := spec.fault(tensor)):
        raise ContentError(f"the tensor {name} {fault}")


def _value(size: int | Size, sizes: Mapping[str, int]) -> int:
    return size.of(sizes) if isinstance(size, Size) else size


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def module_specs(build: Callable[[], nn.Module], prefix: str = "") -> dict[str, TensorSpec]:
    """Return specifications of a module's state, with its shapes.

    Args:
        build: Makes the module. It is called where tensors take no memory, whatever its sizes are.
        prefix: Prepended to the names.

    Returns:
        The specifications by name.
    """
    with torch.device("meta"):
        state = build().state_dict()
    return {prefix + name: TensorSpec(tuple(t.shape), t.dtype) for name, t in state.items()}


def strip_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Select the tensors whose names begin with a prefix.

    Args:
        tensors: Tensors of any shape by name.
        prefix: The prefix.

    Returns:
        These tensors, under the rest of their names.
    """
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def add_prefix(specs: Specs, prefix: str) -> dict[str, TensorSpec]:
    """Prepend a prefix to the names of specifications.

    Args:
        specs: The specifications.
        prefix: The prefix.

    Returns:
        The same specifications under the new names.
    """
    return {prefix + name: spec for name, spec in specs.items()}


# ---------------------------------------------------------------------------- metadata


def json_tensor(value: Any, *, sort_keys: bool = False) -> Tensor:
    """Encode a JSON value as a tensor, to be stored with other tensors.

    Args:
        value: The value.
        sort_keys: Sort keys, so that equal values give equal tensors.

    Returns:
        Its bytes, [n] uint8.
    """
    return torch.from_numpy(
        np.frombuffer(bytearray(json.dumps(value, sort_keys=sort_keys).encode()), np.uint8)
    )


def read_json_tensor(tensors: Mapping[str, Tensor], name: str) -> Any:
    """Decode a JSON value that `json_tensor` has encoded.

    Args:
        tensors: Tensors by name.
        name: Name of an [n] uint8 tensor.

    Returns:
        The value.

    Raises:
        ContentError: The tensor is missing or damaged.
    """
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != torch.uint8 or tensor.ndim != 1:
        raise ContentError(f"the tensor {name} is missing or damaged: it must contain JSON")
    try:
        return decode_json(tensor.numpy().tobytes())
    except ValueError as error:
        raise ContentError(f"the tensor {name} is damaged: it is not JSON ({error})") from error
