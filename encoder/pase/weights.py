"""PASE's weights on disk: one safetensors file with the sizes inside."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from talkhead.encoder.pase.losses import Contrast
from talkhead.encoder.pase.model import Pase, PaseConfig
from talkhead.errors import PackageError
from talkhead.storage import read_tensors, write_tensors

CONFIG = "config"
CONTRAST = "contrast."


def write_pase(path: Path, pase: Pase, contrast: Contrast) -> None:
    """Everything that hears and sees. Raises TalkheadError where it can't be written."""
    text = json.dumps(asdict(pase.config), sort_keys=True).encode()
    tensors = {CONFIG: torch.from_numpy(np.frombuffer(text, np.uint8).copy())}
    tensors |= pase.state_dict()
    tensors |= {CONTRAST + name: value for name, value in contrast.state_dict().items()}
    write_tensors(path, tensors)


def read_pase(path: Path) -> tuple[Pase, Contrast]:
    """The nets back, in evaluation mode. Raises PackageError for a file that is none or damaged."""
    tensors = read_tensors(path)
    try:
        config = PaseConfig(**json.loads(bytes(tensors.pop(CONFIG).numpy())))
        pase, contrast = Pase(config), Contrast(config.dim)
        seen = {k.removeprefix(CONTRAST): v for k, v in tensors.items() if k.startswith(CONTRAST)}
        contrast.load_state_dict(seen)
        pase.load_state_dict({k: v for k, v in tensors.items() if not k.startswith(CONTRAST)})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise PackageError(f"{path}: these are no weights of PASE ({error})") from error
    return pase.eval(), contrast.eval()
