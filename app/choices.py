"""What can be chosen by name, for those who can't wait for torch: it takes seconds to import."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from talkhead.encoder.registry import WEIGHTS_SUFFIX, encoder_names
from talkhead.errors import TalkheadError
from talkhead.renderers.registry import renderer_names
from talkhead.storage import existing_file

MODES = ("paste", "head")
"""How a line is shown: pasted into the person's own footage, or the head alone."""
PRESETS = ("preview", "standard", "high")
"""How long a person is learnt."""
DEFAULT_PRESET = "standard"
DEFAULT_RENDERER = "gaussian"
MAX_SEED = 2**32 - 1
"""The largest that every generator of random numbers here takes; some get a thousand times it."""
OWN, ALPHA = "own", "alpha"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".jp2", ".exr", ".hdr")
"""Of files that are images or nothing; other files may be images or videos."""
COLORS = {
    "black": "#000000", "white": "#ffffff", "grey": "#808080", "gray": "#808080",
    "silver": "#c0c0c0", "red": "#ff0000", "maroon": "#800000", "orange": "#ffa500",
    "yellow": "#ffff00", "olive": "#808000", "lime": "#00ff00", "green": "#008000",
    "teal": "#008080", "cyan": "#00ffff", "blue": "#0000ff", "navy": "#000080",
    "purple": "#800080", "magenta": "#ff00ff", "pink": "#ffc0cb", "brown": "#a52a2a",
    "beige": "#f5f5dc", "chroma-green": "#00b140", "chroma-blue": "#0047bb",
}  # fmt: skip
"""Names of CSS, and the two that keyers expect."""


def check_choice(kind: str, chosen: str, known: Iterable[str], more: str = "") -> None:
    """Raises TalkheadError for what is not among the known ones of a kind; more: can be given."""
    names = list(known)
    if chosen not in names:
        raise TalkheadError(
            f"there is no {kind} {chosen!r}. Choose one of: {', '.join(names)}{more}"
        )


def check_renderer(name: str) -> None:
    """Raises TalkheadError for a renderer that is not there."""
    check_choice("renderer", name, renderer_names())


def check_encoder(name: str) -> None:
    """Raises TalkheadError for an encoder, or a file of weights, that is not there."""
    if name.endswith(WEIGHTS_SUFFIX):
        if not Path(name).is_file():
            raise TalkheadError(f"{name}: there is no such file. Check the path")
        return
    more = f", or pass a {WEIGHTS_SUFFIX} file of your own weights of PASE"
    check_choice("encoder", name, encoder_names(), more)


def background_file(text: str) -> Path | None:
    """The image or video that a background names; None for a colour, own and alpha.

    Raises TalkheadError for what is none of them.
    """
    if text in (OWN, ALPHA) or parse_color(text) is not None:
        return None
    path = existing_file(text)
    if path is None:
        raise TalkheadError(
            f"background {text!r}: neither a colour (a name, or #rrggbb), nor own, nor alpha, nor "
            "an image or video that is there"
        )
    return path


def parse_color(text: str) -> tuple[int, int, int] | None:
    """Red, green, blue of a name of COLOURS, #rgb or #rrggbb; None for anything else."""
    found = re.fullmatch(r"#?([0-9a-f]{3}|[0-9a-f]{6})", COLORS.get(text.lower(), text.lower()))
    if not found or not (text.startswith("#") or text.lower() in COLORS):
        return None
    digits = found[1] if len(found[1]) == 6 else "".join(2 * digit for digit in found[1])
    red, green, blue = (int(digits[i : i + 2], 16) for i in (0, 2, 4))
    return red, green, blue
