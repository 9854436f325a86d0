"""PASE's weights on disk: one safetensors file that includes the model's sizes.

The small model is stored as int8.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from talkhead.config import from_json, to_json
from talkhead.encoder.pase.losses import Contrast
from talkhead.encoder.pase.model import AudioModel, Pase, PaseConfig
from talkhead.encoder.pase.trunk import TrunkBranch, load_whisper
from talkhead.storage import ContentError, content_errors, read_tensors, write_tensors
from talkhead.tensors import (
    check_tensors,
    json_tensor,
    module_specs,
    read_json_tensor,
    strip_prefix,
)

CONFIG = "config"
CONTRAST = "contrast."
TEACHER = "teacher"
SCALE = ".scale"
"""Appended to the name of a tensor of int8: its scales."""
DAMAGED = "These are not weights of PASE, or they are damaged: train them again"


def make_pase(config: PaseConfig) -> Pase:
    """Build a model, with the weights of Whisper's encoder if it is built on it.

    Args:
        config: Sizes and parts.

    Returns:
        The model; everything that is trained is random.

    Raises:
        PackageError: If the weights of Whisper's encoder are missing or damaged.
    """
    pase = Pase(config)
    if isinstance(pase.ear, TrunkBranch):
        load_whisper(pase.ear)
    return pase


def write_pase(path: Path, pase: Pase, contrast: Contrast) -> None:
    """Write a model's weights.

    Args:
        path: The file.
        pase: The model.
        contrast: The layers that map both modalities to one space.

    Raises:
        TalkheadError: If the file cannot be written.
    """
    tensors = {CONFIG: json_tensor(dict(sorted(to_json(pase.config).items())))}
    tensors |= pase.state_dict()
    tensors |= {CONTRAST + name: value for name, value in contrast.state_dict().items()}
    write_tensors(path, tensors)


def write_live(path: Path, model: AudioModel, teacher: str) -> None:
    """Write the weights of a small model, with matrices as int8.

    Args:
        path: The file.
        model: The model.
        teacher: Version of the encoder whose features it gives.

    Raises:
        TalkheadError: If the file cannot be written.
    """
    tensors = {CONFIG: json_tensor(dict(sorted(to_json(model.config).items())))}
    tensors[TEACHER] = json_tensor({"version": teacher})
    write_tensors(path, tensors | quantize(model.state_dict()))


def quantize(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Store matrices as int8, with a scale for each row; vectors stay as they are.

    Args:
        tensors: Tensors of any shape by name.

    Returns:
        The int8 values [n, ...] under each name, and their scales [n] under the name and SCALE.
    """
    stored = {}
    for name, value in tensors.items():
        if value.ndim < 2:
            stored[name] = value
            continue
        scale = value.flatten(1).abs().amax(1).clamp(min=1e-12) / 127.0
        stored[name + SCALE] = scale
        stored[name] = torch.round(value / scale.view(-1, *[1] * (value.ndim - 1))).to(torch.int8)
    return stored


def dequantize(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `quantize`, except for rounding.

    Args:
        tensors: As returned by `quantize`, [n, ...] and [n].

    Returns:
        Tensors of float32 of the original shapes.

    Raises:
        ContentError: If a scale is missing or of another shape.
    """
    values = {}
    for name, value in tensors.items():
        if value.dtype != torch.int8:
            if not name.endswith(SCALE):
                values[name] = value
            continue
        scale = tensors.get(name + SCALE)
        if scale is None or scale.shape != value.shape[:1] or not bool(scale.isfinite().all()):
            raise ContentError(f"{name} lacks a scale for each row")
        values[name] = value.float() * scale.view(-1, *[1] * (value.ndim - 1))
    return values


def read_audio_model(path: Path) -> AudioModel:
    """Read the audio part of the weights that `write_pase` or `write_live` wrote.

    Args:
        path: The file.

    Returns:
        The model, in evaluation mode.

    Raises:
        PackageError: If the file is not one of these, or damaged.
    """
    return read_encoder(path)[0]


def read_encoder(path: Path) -> tuple[AudioModel, Contrast | None, str]:
    """Read weights that `write_pase` or `write_live` wrote.

    Args:
        path: The file.

    Returns:
        The model and its contrast, in evaluation mode, and "". A small model has no contrast; its third
        value is the version of the encoder whose features it gives.

    Raises:
        PackageError: If the file is not one of these, or damaged.
    """
    tensors = read_tensors(path)
    with content_errors(path, DAMAGED):
        config = from_json(PaseConfig, read_json_tensor(tensors, CONFIG))
        if not config.is_live:
            return *read_pase(path), ""
        teacher = str(read_json_tensor(tensors, TEACHER)["version"])
        del tensors[CONFIG], tensors[TEACHER]
        values = dequantize(tensors)
        check_tensors(values, module_specs(lambda: AudioModel(config)))
    model = AudioModel(config)
    model.load_state_dict(values)
    return model.eval(), None, teacher


def read_pase(path: Path) -> tuple[Pase, Contrast]:
    """Read a model's weights.

    Args:
        path: A file of `write_pase`.

    Returns:
        The model and its contrast, in evaluation mode.

    Raises:
        PackageError: If the file is not one of these, or damaged.
    """
    tensors = read_tensors(path)
    with content_errors(path, DAMAGED):
        config = from_json(PaseConfig, read_json_tensor(tensors, CONFIG))
        del tensors[CONFIG]
        specs = module_specs(lambda: Pase(config))
        check_tensors(tensors, specs | module_specs(lambda: Contrast(config.dim), CONTRAST))
    pase, contrast = make_pase(config), Contrast(config.dim)
    contrast.load_state_dict(strip_prefix(tensors, CONTRAST))
    pase.load_state_dict({name: tensors[name] for name in specs})
    return pase.eval(), contrast.eval()
