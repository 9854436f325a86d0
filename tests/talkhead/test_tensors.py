"""Stored tensors match their specifications; errors in others are reported in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from talkhead.errors import PackageError
from talkhead.storage import ContentError, write_tensors
from talkhead.tensors import (
    Size,
    TensorSpec,
    check_tensors,
    json_tensor,
    module_specs,
    read_checked,
    read_json_tensor,
)

N, K = Size("N", 1, 100), Size("K")
SPECS = {
    "codes": TensorSpec((N, K), minimum=-10.0, maximum=10.0),
    "index": TensorSpec((N,), torch.int64, index_of=K + 1),
    "deltas": TensorSpec((K + 3, N * 7)),
    "seen": TensorSpec((N,), torch.bool),
    "scale": TensorSpec(
        (1,), fault=lambda t: "" if t[0] else "holds 0, by which nothing is divided"
    ),
}


def good() -> dict[str, Tensor]:
    return {
        "codes": torch.zeros(4, 2),
        "index": torch.tensor([0, 1, 2, 2]),
        "deltas": torch.zeros(5, 28),
        "seen": torch.ones(4, dtype=torch.bool),
        "scale": torch.ones(1),
    }


def test_sizes_are_found_or_given() -> None:
    assert check_tensors(good(), SPECS) == {"N": 4, "K": 2}
    with pytest.raises(
        ContentError, match=r"codes is float32 \[4, 2\], where float32 \[N, K\] with N = 4, K = 3"
    ):
        check_tensors(good(), SPECS, {"K": 3})


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("codes", torch.zeros(101, 2), r"\[101, 2\], where float32 \[N, K\] with N from 1 to 100"),
        ("codes", torch.zeros(0, 2), r"\[0, 2\], where"),
        ("codes", torch.full((4, 2), 11.0), "codes holds 11, where -10 to 10 is allowed"),
        ("codes", torch.full((4, 2), torch.nan), "codes holds NaN or infinity"),
        ("index", torch.tensor([0, 1, 2, 3]), "index holds 3, where 0 to 2 is allowed"),
        ("index", torch.tensor([0, 1, 2, -1]), "index holds -1, where 0 to 2 is allowed"),
        ("index", torch.tensor([0, 1, 2, 2], dtype=torch.int32), "int32.*where int64"),
        (
            "deltas",
            torch.zeros(5, 27),
            r"where float32 \[K \+ 3, 7 N\] with K = 2, N = 4 is needed",
        ),
        (
            "seen",
            torch.tensor([0, 1, 2, 1], dtype=torch.uint8).view(torch.bool),
            "neither true nor",
        ),
        ("scale", torch.zeros(1), "scale holds 0, by which"),
    ],
)
def test_wrong_tensors_are_reported(name: str, tensor: Tensor, message: str) -> None:
    with pytest.raises(ContentError, match=message) as caught:
        check_tensors({**good(), name: tensor}, SPECS)
    assert "\n" not in str(caught.value)


def test_unknown_names_are_shown_without_control_characters() -> None:
    with pytest.raises(ContentError, match="does not belong here") as caught:
        check_tensors({**good(), "\x1b[2J\nwell done" + "x" * 500: torch.zeros(1)}, SPECS)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 150


def test_errors_name_the_file_and_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, good())
    assert read_checked(path, SPECS, "Fit again").keys() == SPECS.keys()
    write_tensors(path, {**good(), "scale": torch.ones(2)})
    with pytest.raises(PackageError, match=r"a\.safetensors: the tensor scale is .*\. Fit again$"):
        read_checked(path, SPECS, "Fit again")


def test_specs_of_modules_need_no_memory() -> None:
    """A layer of 10**12 weights is described without being allocated."""
    specs = module_specs(lambda: nn.Linear(10**6, 10**6), "net.")
    assert specs["net.weight"].shape == (10**6, 10**6) and specs["net.bias"].shape == (10**6,)
    layer = nn.Linear(3, 2)
    check_tensors(layer.state_dict(), module_specs(lambda: nn.Linear(3, 2)))


def test_json_stored_with_tensors() -> None:
    value = {"name": "ä", "sizes": [1, 2.5]}
    assert read_json_tensor({"facts": json_tensor(value)}, "facts") == value
    ordered = json_tensor({"b": 1, "a": 2}, sort_keys=True)
    assert ordered.numpy().tobytes() == b'{"a": 2, "b": 1}' and ordered.dtype == torch.uint8
    for stored in (
        {},
        {"facts": torch.zeros(3)},
        {"facts": json_tensor(value)[:-1]},
        {"facts": torch.frombuffer(bytearray(b"[" * 10**5), dtype=torch.uint8)},
        {"facts": torch.frombuffer(bytearray(json.dumps([1e400]).encode()), dtype=torch.uint8)},
    ):
        with pytest.raises(ContentError, match="the tensor facts is"):
            read_json_tensor(stored, "facts")
