"""Fitted tensors as packages keep them: rounded as coarsely as images allow, then compressed.

Rounded to whole steps the blendshapes of a head are small numbers, most of them near zero: zlib takes
them to a tenth of what they were.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from talkhead.errors import PackageError

CONTENTS = "packed"
"""Names what is packed beside it: dtype and shape of each, as JSON."""
LEVEL = 9


def pack(tensors: Mapping[str, Tensor], steps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, as bytes [n] uint8 each.

    steps: of tensors that are kept as whole multiples of a step (broadcast against the tensor); the
    others are kept exactly.
    """
    packed, contents = {}, {}
    for name, tensor in tensors.items():
        values = tensor.detach().cpu()
        if name in steps:
            step = steps[name].detach().cpu()
            values = _smallest_whole((values / step).round())
            packed[f"{name}.step"] = step.float().contiguous()
        array = values.contiguous().numpy()
        packed[name] = _bytes(zlib.compress(array.tobytes(), LEVEL))
        contents[name] = {"dtype": array.dtype.str, "shape": list(array.shape)}
    return packed | {CONTENTS: _bytes(json.dumps(contents).encode())}


def unpack(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `pack`; tensors that were never packed as they are.

    Raises PackageError where they are damaged.
    """
    if CONTENTS not in stored:
        return dict(stored)
    try:
        contents = json.loads(bytes(stored[CONTENTS].numpy()))
        return {name: _unpacked(stored, name, **about) for name, about in contents.items()}
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise PackageError(f"a fitted renderer is damaged ({error}). Fit again") from error


def _unpacked(stored: Mapping[str, Tensor], name: str, dtype: str, shape: list[int]) -> Tensor:
    raw = bytearray(zlib.decompress(stored[name].numpy().tobytes()))
    tensor = torch.from_numpy(np.frombuffer(raw, dtype).reshape(shape))
    step = stored.get(f"{name}.step")
    return tensor if step is None else tensor.float() * step


def _smallest_whole(values: Tensor) -> Tensor:
    """Whole numbers in the smallest type that holds them. Raises ValueError beyond 32 bits."""
    most = float(values.abs().max()) if values.numel() else 0.0
    for kind in (torch.int8, torch.int16, torch.int32):
        if most <= torch.iinfo(kind).max:
            return values.to(kind)
    raise ValueError(f"{most:g} steps: the step is too small to keep this in 32 bits")


def _bytes(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(bytearray(data), np.uint8))
