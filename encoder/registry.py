"""The speech encoders by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from talkhead.encoder.base import SpeechEncoder
from talkhead.encoder.mel import MelEncoder
from talkhead.encoder.mfcc import MfccEncoder
from talkhead.encoder.pase.encoder import PaseEncoder
from talkhead.errors import TalkheadError

ENTRY_POINTS = "talkhead.encoders"


ENCODERS: dict[str, Callable[[], SpeechEncoder]] = {
    "pase": PaseEncoder.shipped,
    "mel": MelEncoder,
    "mfcc": MfccEncoder,
}


DEFAULT_ENCODER = "pase"


WEIGHTS_SUFFIX = ".safetensors"


def encoder_names() -> list[str]:
    """Every encoder that can be asked for, those of other packages included."""
    return sorted({*ENCODERS, *(entry.name for entry in entry_points(group=ENTRY_POINTS))})


def load_encoder(name: str) -> SpeechEncoder:
    """The encoder of that name, or PASE with the weights in that .safetensors file.

    Raises TalkheadError naming those there are, PackageError for missing or damaged weights.
    """
    if name in ENCODERS:
        return ENCODERS[name]()
    if name.endswith(WEIGHTS_SUFFIX):
        return PaseEncoder.from_file(Path(name))
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            encoder: SpeechEncoder = entry.load()()
            return encoder
    raise TalkheadError(
        f"there is no encoder {name!r}. Choose one of: {', '.join(encoder_names())}, "
        f"or pass a {WEIGHTS_SUFFIX} file of your own weights of PASE"
    )
