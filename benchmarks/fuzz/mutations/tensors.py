"""Damage to safetensors files: altered headers, and valid files whose tensors are wrong."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from benchmarks.fuzz.mutations import hostile, raw, trees
from benchmarks.fuzz.mutations.raw import Mutated

WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
          "BOOL": 1}  # fmt: skip
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
         "I8": "i1", "U8": "u1", "BOOL": "u1"}  # fmt: skip
PACKED = "packed"
"""The tensor that lists the contents of packed tensors."""
BOMB_BYTES = 1 << 32
LARGEST = 1 << 26
"""Bytes of the largest tensor that the suite itself makes."""


@dataclass(frozen=True)
class Stored:
    """A tensor of a file: its type, shape and bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def read(data: bytes) -> dict[str, Stored]:
    """The tensors of a valid file."""
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    header.pop("__metadata__", None)
    return {
        name: Stored(about["dtype"], tuple(about["shape"]), body[slice(*about["data_offsets"])])
        for name, about in header.items()
    }


def write(stored: dict[str, Stored]) -> bytes:
    """A file of tensors."""
    header: dict[str, Any] = {}
    at = 0
    for name, one in stored.items():
        offsets = [at, at + len(one.data)]
        header[name] = {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": offsets}
        at = offsets[1]
    return file_of(json.dumps(header).encode(), b"".join(one.data for one in stored.values()))


def file_of(header: bytes, body: bytes) -> bytes:
    """A file that consists of a header, which is padded, and the bytes after it."""
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + body


def mutate(data: bytes, rng: Random) -> Mutated:
    """Change the header or the tensors of a file, which usually remains valid."""
    chance = rng.random()
    if chance < 0.1:
        return raw.mutate(data, rng)
    if chance < 0.25:
        return _mutate_header(data, rng)
    stored, said = read(data), []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not stored:
            break
        said.append(_mutate_tensor(stored, rng))
    return write(stored), "; ".join(said)


def _mutate_header(data: bytes, rng: Random) -> Mutated:
    size = struct.unpack("<Q", data[:8])[0]
    header, body = data[8 : 8 + size], data[8 + size :]
    if rng.random() < 0.2:
        length = rng.choice((0, 1, size - 1, size + 1, 2**31, 2**63, 2**64 - 1, len(data)))
        return struct.pack("<Q", length) + data[8:], f"header of {length} bytes"
    changed, what = trees.mutate(header.rstrip(b" "), rng)
    return file_of(changed, body), f"header: {what}"


def _mutate_tensor(stored: dict[str, Stored], rng: Random) -> str:
    """Change one tensor; returns a description."""
    name = rng.choice(sorted(stored))
    one = stored[name]
    contents = _contents(stored)
    if contents and rng.random() < 0.7:
        return _mutate_packed(stored, contents, rng)
    how = rng.choice(("values", "values", "values", "shape", "shape", "type", "drop", "rename",
                      "more", "other"))  # fmt: skip
    if how == "values":
        stored[name] = replace(one, data=_other_values(one, rng))
    elif how == "shape":
        stored[name] = _reshaped(one, rng)
        return f"{name}: shape {list(stored[name].shape)}"
    elif how == "type":
        stored[name] = _retyped(one, rng)
        return f"{name}: type {stored[name].dtype}"
    elif how == "drop":
        del stored[name]
    elif how == "rename":
        stored[hostile.within(name, rng)] = stored.pop(name)
    elif how == "more":
        stored[rng.choice(("more", "frames.more", name + "2", hostile.text(rng)))] = one
    else:
        stored[name] = stored[rng.choice(sorted(stored))]
    return f"{name}: {how}"


def _values(one: Stored) -> Any:
    """Values of a tensor as a flat writable array; None if numpy has no such type."""
    kind = NUMPY.get(one.dtype)
    return None if kind is None else np.frombuffer(bytearray(one.data), kind)


def _other_values(one: Stored, rng: Random) -> bytes:
    """Set one, some or all values to infinite, huge, negative or other out-of-range numbers."""
    values = _values(one)
    if values is None or not len(values):
        return one.data
    draw = np.random.default_rng(rng.getrandbits(32))
    count = rng.choice((1, 1, max(1, len(values) // 10), len(values)))
    at = draw.integers(0, len(values), count)
    if values.dtype.kind == "f":
        special = rng.choice((np.nan, np.inf, -np.inf, 0.0, -1.0, 1e6, 1e30, -1e30, 1e-40))
        with np.errstate(over="ignore"):
            values[at] = special
    else:
        least, most = np.iinfo(values.dtype).min, np.iinfo(values.dtype).max
        values[at] = rng.choice((least, most, 0, max(least, -1), most // 2, min(most, 10**6)))
    return values.tobytes()


def _sized(data: bytes, size: int) -> bytes:
    """Bytes, truncated or repeated to a size."""
    return (data * (size // max(1, len(data)) + 1))[:size] if data else bytes(size)


def _reshaped(one: Stored, rng: Random) -> Stored:
    shape = list(one.shape)
    how = rng.choice(("flat", "turned", "axis", "more", "less", "none", "scalar"))
    if how == "flat":
        shape = [int(np.prod(shape))]
    elif how == "turned":
        shape = shape[::-1]
    elif how == "axis":
        shape = [1, *shape]
    elif how == "scalar":
        shape = []
    elif shape:
        axis = rng.randrange(len(shape))
        shape[axis] = {"more": shape[axis] + rng.choice((1, 2, 1000)), "less": shape[axis] // 2,
                       "none": 0}[how]  # fmt: skip
    size = int(np.prod(shape)) * WIDTHS[one.dtype]
    if size > LARGEST:
        return one
    return Stored(one.dtype, tuple(shape), _sized(one.data, size))


def _retyped(one: Stored, rng: Random) -> Stored:
    """The same numbers in another type, or the same bytes in another type."""
    dtype, values = rng.choice(sorted(WIDTHS)), _values(one)
    count = int(np.prod(one.shape))
    if values is not None and dtype in NUMPY and rng.random() < 0.7:
        with np.errstate(all="ignore"):
            return Stored(dtype, one.shape, values.astype(NUMPY[dtype]).tobytes())
    return Stored(dtype, one.shape, _sized(one.data, count * WIDTHS[dtype]))


# ------------------------------------------------------------------------------- packed


def _contents(stored: dict[str, Stored]) -> dict[str, Any]:
    """List of the packed tensors' contents; empty if there is none, or if it is already damaged."""
    try:
        contents: dict[str, Any] = json.loads(stored[PACKED].data)
        for name, about in contents.items():
            size = int(np.prod(about["shape"])) * np.dtype(about["dtype"]).itemsize
            if not 0 <= size < LARGEST:
                return {}
            if len(zlib.decompressobj().decompress(stored[name].data, size + 1)) != size:
                return {}
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RecursionError,
        SyntaxError,
    ):
        return {}
    except zlib.error:
        return {}
    return contents


def _mutate_packed(stored: dict[str, Stored], contents: dict[str, Any], rng: Random) -> str:
    """Change packed tensors: the list of contents, or the content of one."""
    if rng.random() < 0.3:
        text, what = trees.mutate(stored[PACKED].data, rng)
        stored[PACKED] = _bytes(text)
        return f"{PACKED}: {what}"
    name = rng.choice(sorted(contents))
    about, values = contents[name], zlib.decompress(stored[name].data)
    how = rng.choice(("values", "values", "values", "shape", "type", "bomb", "stream", "longer"))
    one = Stored(_TYPES.get(about["dtype"], "U8"), tuple(about["shape"]), values)
    if how == "bomb":
        return _bomb(stored, contents, name, rng)
    if how == "stream":
        changed, what = raw.mutate(stored[name].data, rng)
        stored[name] = _bytes(changed)
        return f"{name} as compressed: {what}"
    if how == "longer":
        stored[name] = _bytes(zlib.compress(values * 3))
        return f"{name}: three times as long"
    changed_one = {
        "values": lambda: replace(one, data=_other_values(one, rng)),
        "shape": lambda: _reshaped(one, rng),
        "type": lambda: _retyped(one, rng),
    }[how]()
    contents[name] = {
        "dtype": NUMPY.get(changed_one.dtype, "|u1"),
        "shape": list(changed_one.shape),
    }
    stored[name] = _bytes(zlib.compress(changed_one.data))
    stored[PACKED] = _bytes(json.dumps(contents).encode())
    return f"{name} packed: {how}"


def _bomb(stored: dict[str, Stored], contents: dict[str, Any], name: str, rng: Random) -> str:
    stored[name] = _bytes(raw.zeros(BOMB_BYTES))
    if rng.random() < 0.5:
        contents[name] = {"dtype": "|u1", "shape": [BOMB_BYTES]}
        stored[PACKED] = _bytes(json.dumps(contents).encode())
    return f"{name}: {BOMB_BYTES} bytes of zeros"


_TYPES = {"<f4": "F32", "<f8": "F64", "<i8": "I64", "<i4": "I32", "<i2": "I16", "|i1": "I8",
          "|u1": "U8", "|b1": "BOOL", "<f2": "F16"}  # fmt: skip


def _bytes(data: bytes) -> Stored:
    return Stored("U8", (len(data),), data)
