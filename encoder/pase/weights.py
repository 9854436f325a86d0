"""PASE's weights on disk: one safetensors file that includes the model's sizes."""

from __future__ import annotations

from pathlib import Path

from talkhead.config import from_json, to_json
from talkhead.encoder.pase.losses import Contrast
from talkhead.encoder.pase.model import Pase, PaseConfig
from talkhead.encoder.pase.trunk import TrunkBranch, load_whisper
from talkhead.storage import content_errors, read_tensors, write_tensors
from talkhead.tensors import (
    check_tensors,
    json_tensor,
    module_specs,
    read_json_tensor,
    strip_prefix,
)

CONFIG = "config"
CONTRAST = "contrast."


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
    with content_errors(
        path, "These are not weights of PASE, or they are damaged: train them again"
    ):
        config = from_json(PaseConfig, read_json_tensor(tensors, CONFIG))
        del tensors[CONFIG]
        specs = module_specs(lambda: Pase(config))
        check_tensors(tensors, specs | module_specs(lambda: Contrast(config.dim), CONTRAST))
    pase, contrast = make_pase(config), Contrast(config.dim)
    contrast.load_state_dict(strip_prefix(tensors, CONTRAST))
    pase.load_state_dict({name: tensors[name] for name in specs})
    return pase.eval(), contrast.eval()
