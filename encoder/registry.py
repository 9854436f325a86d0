"""The speech encoders by name. Listing names does not import an encoder."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from talkhead.errors import TalkheadError

if TYPE_CHECKING:
    from talkhead.encoder.base import SpeechEncoder

ENCODERS = {
    "pase": "talkhead.encoder.pase.encoder:PaseEncoder.shipped",
    "pase-live": "talkhead.encoder.pase.encoder:PaseEncoder.live",
    "pase-gru": "talkhead.encoder.pase.encoder:PaseEncoder.gru",
    "mel": "talkhead.encoder.mel:MelEncoder",
    "mfcc": "talkhead.encoder.mfcc:MfccEncoder",
}
"""For each name, the module and the callable in it that makes the encoder; it takes no arguments."""
DEFAULT_ENCODER = "pase"
ENTRY_POINTS = "talkhead.encoders"
"""Group of entry points by which other packages add encoders."""
WEIGHTS_SUFFIX = ".safetensors"
"""Suffix of a file of weights for PASE, which can be given instead of a name."""


def encoder_names() -> list[str]:
    """List the names of all encoders, those of other packages included.

    Returns:
        Names in alphabetical order.
    """
    return sorted({*ENCODERS, *(entry.name for entry in entry_points(group=ENTRY_POINTS))})


def load_encoder(name: str) -> SpeechEncoder:
    """Load an encoder.

    Args:
        name: One of `encoder_names`, or the path of a .safetensors file with weights for PASE.

    Returns:
        The encoder, ready for use.

    Raises:
        TalkheadError: The name is unknown; the message lists the known ones.
        PackageError: The weights are missing or damaged.
    """
    if name in ENCODERS:
        return _make(EntryPoint(name, ENCODERS[name], ENTRY_POINTS))
    if name.endswith(WEIGHTS_SUFFIX):
        from talkhead.encoder.pase.encoder import PaseEncoder

        return PaseEncoder.from_file(Path(name))
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            return _make(entry)
    raise TalkheadError(
        f"there is no encoder {name!r}. Choose one of: {', '.join(encoder_names())}, "
        f"or pass a {WEIGHTS_SUFFIX} file of your own weights of PASE"
    )


def _make(entry: EntryPoint) -> SpeechEncoder:
    """Import what an entry point names and call it."""
    encoder: SpeechEncoder = entry.load()()
    return encoder
