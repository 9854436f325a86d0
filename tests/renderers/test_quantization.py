"""Packed tensors: exact without a step, within half a step otherwise; damage is refused."""

from __future__ import annotations

import pytest
import torch

from talkhead.errors import PackageError
from talkhead.renderers.quantization import CONTENTS, pack, unpack


def test_tensors_without_step_are_exact() -> None:
    tensors = {
        "index": torch.arange(5),
        "base": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
        "flags": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "one": torch.tensor(2.5, dtype=torch.float64),
    }
    found = unpack(pack(tensors, {}))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


@pytest.mark.parametrize("size", [1.0, 300.0, 3e4])
def test_rounding_stays_within_half_a_step(size: float) -> None:
    deltas = size * torch.randn(6, 50, generator=torch.Generator().manual_seed(1))
    steps = torch.linspace(0.1, 0.6, 6)[:, None]
    found = unpack(pack({"deltas": deltas}, {"deltas": steps}))["deltas"]
    assert found.dtype == torch.float32
    assert ((found - deltas).abs() <= 0.5001 * steps + 1e-6 * size).all() and not torch.equal(
        found, deltas
    )


def test_small_numbers_compress_well() -> None:
    deltas = torch.randn(20, 5000, generator=torch.Generator().manual_seed(2))
    packed = pack({"deltas": deltas}, {"deltas": torch.tensor(1.0)})
    assert sum(t.numel() for t in packed.values()) < 0.1 * 4 * deltas.numel()


def test_tensors_that_were_never_packed_are_unchanged() -> None:
    tensors = {"weight": torch.ones(3)}
    assert torch.equal(unpack(tensors)["weight"], tensors["weight"])


def test_too_small_a_step_and_damage_are_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        pack({"deltas": torch.tensor([1e9])}, {"deltas": torch.tensor(0.1)})
    packed = pack({"deltas": torch.ones(4)}, {})
    for name in ("deltas", CONTENTS):
        broken = dict(packed)
        broken[name] = broken[name][: len(broken[name]) // 2]
        with pytest.raises(PackageError, match="damaged"):
            unpack(broken)
    with pytest.raises(PackageError, match="damaged"):
        unpack({CONTENTS: packed[CONTENTS]})
