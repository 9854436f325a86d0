"""Compression of a fitted model's tensors for packages: rounding, then zlib.

Rounded to multiples of a step, the blendshapes of a head are small integers, most of them near
zero, which zlib compresses to a tenth of their size.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch
from torch import Tensor

from talkhead.config import choices, from_json, limits
from talkhead.storage import ContentError, inflate, short_repr
from talkhead.tensors import json_tensor, read_json_tensor

CONTENTS = "packed"
"""Name of the tensor that lists dtype and shape of each packed tensor, as JSON."""
LEVEL = 9
MAX_BYTES = 512 << 20
"""Maximum size of all tensors of a renderer, unpacked; the largest take 35 MB."""
MAX_AXES = 8
DTYPES = ("|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<f2", "<f4", "<f8")
"""numpy's names of the dtypes that may be packed: those that torch has too, and no objects."""


def pack(tensors: Mapping[str, Tensor], steps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compress tensors.

    Args:
        tensors: Tensors by name.
        steps: Steps by name, broadcast against the tensors of these names, which are rounded to
            multiples of them. Other tensors are stored exactly.

    Returns:
        Bytes [n] uint8 by name, steps, and the list of contents.

    Raises:
        ValueError: If a step is so small that a multiple does not fit into 32 bits.
    """
    packed, contents = {}, {}
    for name, tensor in tensors.items():
        values = tensor.detach().cpu()
        if name in steps:
            step = steps[name].detach().cpu()
            values = _smallest_whole((values / step).round())
            packed[_step_name(name)] = step.float().contiguous()
        array = values.contiguous().numpy()
        packed[name] = _bytes(zlib.compress(array.tobytes(), LEVEL))
        contents[name] = {"dtype": array.dtype.str, "shape": list(array.shape)}
    return packed | {CONTENTS: json_tensor(contents)}


def unpack(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Restore the tensors that `pack` compressed.

    Args:
        stored: What pack returned, or tensors that were never packed. The shape that a file
            declares for each is checked before anything is allocated.

    Returns:
        Tensors by name. Tensors that were never packed are returned as they are.

    Raises:
        ContentError: If a tensor is damaged, larger than declared or not declared, or if all
            together exceed MAX_BYTES.
    """
    if CONTENTS not in stored:
        return dict(stored)
    contents = read_json_tensor(stored, CONTENTS)
    if not isinstance(contents, dict):
        raise ContentError(f"the tensor {CONTENTS} lists no tensors")
    packed = {name: from_json(_Packed, about) for name, about in contents.items()}
    steps = {step for name in packed if (step := _step_name(name)) in stored}
    for name in stored:
        if name not in {CONTENTS, *packed, *steps}:
            raise ContentError(f"the tensor {short_repr(name)} does not belong here")
    n_bytes = sum(about.n_bytes for about in packed.values())
    if n_bytes > MAX_BYTES:
        raise ContentError(f"tensors of {n_bytes:,} bytes, where {MAX_BYTES:,} at most are allowed")
    return {name: _unpacked(stored, name, about) for name, about in packed.items()}


@dataclass(frozen=True)
class _Packed:
    """A packed tensor.

    Attributes:
        dtype: numpy's name of its dtype.
        shape: Its shape.
    """

    dtype: str = field(metadata=choices(*DTYPES))
    shape: tuple[int, ...] = field(metadata=limits(0, MAX_BYTES, max_items=MAX_AXES))

    @property
    def n_bytes(self) -> int:
        """Size in memory, bytes: rounded tensors become float32."""
        return max(4, np.dtype(self.dtype).itemsize) * prod(self.shape)


def _unpacked(stored: Mapping[str, Tensor], name: str, about: _Packed) -> Tensor:
    """Restore one tensor of the declared shape. Raises ContentError."""
    if name not in stored or stored[name].dtype != torch.uint8 or stored[name].ndim != 1:
        raise ContentError(f"the tensor {short_repr(name)} is missing or damaged")
    n_bytes = np.dtype(about.dtype).itemsize * prod(about.shape)
    try:
        raw = inflate(stored[name].numpy().tobytes(), n_bytes)
    except ValueError as error:
        raise ContentError(f"the tensor {short_repr(name)} is damaged: {error}") from error
    tensor = torch.from_numpy(np.frombuffer(bytearray(raw), about.dtype).reshape(about.shape))
    step = stored.get(_step_name(name))
    return tensor if step is None else tensor.float() * _step_for(tensor, step, name)


def _step_name(name: str) -> str:
    """Return the name under which the step of a tensor is stored."""
    return f"{name}.step"


def _step_for(tensor: Tensor, step: Tensor, name: str) -> Tensor:
    """Return the step if its shape broadcasts against that of the tensor. Raises ContentError."""
    fits = step.ndim <= tensor.ndim and all(
        n in (1, m) for n, m in zip(reversed(step.shape), reversed(tensor.shape), strict=False)
    )
    if step.dtype != torch.float32 or not fits or not step.isfinite().all():
        raise ContentError(
            f"the tensor {short_repr(_step_name(name))} is not a valid step of {short_repr(name)}"
        )
    return step


def _smallest_whole(values: Tensor) -> Tensor:
    """Convert whole numbers of any shape to the smallest type that holds them. Raises ValueError."""
    most = float(values.abs().max()) if values.numel() else 0.0
    for kind in (torch.int8, torch.int16, torch.int32):
        if most <= torch.iinfo(kind).max:
            return values.to(kind)
    raise ValueError(f"{most:g} steps: the step is too small for 32-bit integers")


def _bytes(data: bytes) -> Tensor:
    """Return bytes as a tensor [n] uint8."""
    return torch.from_numpy(np.frombuffer(bytearray(data), np.uint8))
