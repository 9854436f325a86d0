"""Choices by name, which can be checked without importing torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from talkhead.encoder.registry import WEIGHTS_SUFFIX, encoder_names
from talkhead.errors import TalkheadError
from talkhead.media.probing import exact_rate
from talkhead.renderers.registry import renderer_names
from talkhead.storage import existing_file

MODES = ("paste", "head")
"""Rendered into the person's own footage, or the head alone."""
DEFAULT_MODE = "paste"
TIMELINES = ("idle", "source")
"""The idle clip, played forward and backward, or the person's own footage as it was filmed."""
IDLE, SOURCE = TIMELINES
FOOTAGE_ENDS = ("refuse", "bounce", "stop")
"""Audio longer than the footage whose timeline is kept: it is refused, the footage goes on backward and
forward, or the video stops with the footage."""
REFUSE, BOUNCE, STOP = FOOTAGE_ENDS
PRESETS = ("preview", "standard", "high")
"""Durations of training, ascending."""
DEFAULT_PRESET = "standard"
DEFAULT_RENDERER = "gaussian"
MAX_SEED = 2**32 - 1
"""Largest seed that all random number generators accept; some get a thousand times the seed."""
MIN_FOLDS, MAX_FOLDS = 3, 20
"""Numbers of folds in which a clip can be evaluated."""
OWN, ALPHA = "own", "alpha"
FILMED, NONE = "filmed", "none"
FRAME_RATES = (10, 120)
"""Least and largest frame rate of a finished video."""
MIN_BLINKS, MAX_BLINKS = 0.01, 60.0
"""Blinks per minute; fewer are none."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".jp2", ".exr", ".hdr")
"""Suffixes of files that can only be images; others may be images or videos. If `talkhead.images`
cannot read such a file, the error lists the supported image formats instead of reporting a damaged
video."""
COLORS = {
    "black": "#000000", "white": "#ffffff", "grey": "#808080", "gray": "#808080",
    "silver": "#c0c0c0", "red": "#ff0000", "maroon": "#800000", "orange": "#ffa500",
    "yellow": "#ffff00", "olive": "#808000", "lime": "#00ff00", "green": "#008000",
    "teal": "#008080", "cyan": "#00ffff", "blue": "#0000ff", "navy": "#000080",
    "purple": "#800080", "magenta": "#ff00ff", "pink": "#ffc0cb", "brown": "#a52a2a",
    "beige": "#f5f5dc", "chroma-green": "#00b140", "chroma-blue": "#0047bb",
}  # fmt: skip
"""CSS color names, and the two colors common for chroma keying."""


def check_choice(kind: str, chosen: str, known: Iterable[str], more: str = "") -> None:
    """Check that a value is one of the known values.

    Args:
        kind: Kind of value, for the message.
        chosen: The value.
        known: Known values.
        more: Further possibilities, for the message.

    Raises:
        TalkheadError: The value is unknown.
    """
    names = list(known)
    if chosen not in names:
        raise TalkheadError(
            f"there is no {kind} {chosen!r}. Choose one of: {', '.join(names)}{more}"
        )


def check_folds(n_folds: int) -> None:
    """Check a number of folds.

    Args:
        n_folds: The number; 0 for no cross-validation.

    Raises:
        TalkheadError: It is not allowed.
    """
    if n_folds and not MIN_FOLDS <= n_folds <= MAX_FOLDS:
        raise TalkheadError(
            f"{n_folds} folds: choose {MIN_FOLDS} to {MAX_FOLDS}, or 0 for no cross-validation"
        )


def check_renderer(name: str) -> None:
    """Check the name of a renderer.

    Args:
        name: Name.

    Raises:
        TalkheadError: There is no such renderer.
    """
    check_choice("renderer", name, renderer_names())


def check_encoder(name: str) -> None:
    """Check the name of a speech encoder.

    Args:
        name: Name, or a .safetensors file with weights of PASE.

    Raises:
        TalkheadError: There is no such encoder or file.
    """
    if name.endswith(WEIGHTS_SUFFIX):
        if not Path(name).is_file():
            raise TalkheadError(f"{name}: there is no such file. Check the path")
        return
    more = f", or pass a {WEIGHTS_SUFFIX} file of your own weights of PASE"
    check_choice("encoder", name, encoder_names(), more)


def background_file(text: str) -> Path | None:
    """Return the file that a background names.

    Args:
        text: Value of the option `background`.

    Returns:
        Path of an image or video; None for a color, "own" and "alpha".

    Raises:
        TalkheadError: The text is none of these.
    """
    if text in (OWN, ALPHA) or parse_color(text) is not None:
        return None
    path = existing_file(text)
    if path is None:
        raise TalkheadError(
            f"background {text!r}: neither a color (a name, or #rrggbb), nor own, nor alpha, nor "
            "an existing image or video"
        )
    return path


def parse_color(text: str) -> tuple[int, int, int] | None:
    """Parse a color.

    Args:
        text: Name in COLORS, #rgb or #rrggbb.

    Returns:
        Red, green and blue, 0 to 255; None if the text is not a color.
    """
    found = re.fullmatch(r"#?([0-9a-f]{3}|[0-9a-f]{6})", COLORS.get(text.lower(), text.lower()))
    if not found or not (text.startswith("#") or text.lower() in COLORS):
        return None
    digits = found[1] if len(found[1]) == 6 else "".join(2 * digit for digit in found[1])
    red, green, blue = (int(digits[i : i + 2], 16) for i in (0, 2, 4))
    return red, green, blue


def parse_blinks(text: str) -> float | None:
    """Parse the option `blinks`.

    Args:
        text: "filmed", "none" or a number.

    Returns:
        Blinks per minute; None for "filmed".

    Raises:
        TalkheadError: The text is none of these.
    """
    if text == FILMED:
        return None
    try:
        per_minute = 0.0 if text == NONE else float(text)
    except ValueError:
        per_minute = -1.0
    if not 0.0 <= per_minute <= MAX_BLINKS:
        raise TalkheadError(
            f"blinks {text!r} are not allowed. Choose {FILMED}, {NONE}, or a number per minute, 0 to "
            f"{MAX_BLINKS:g}"
        )
    return per_minute if per_minute >= MIN_BLINKS else 0.0


def parse_rate(text: str, source: float) -> Fraction:
    """Parse the option `fps`.

    Args:
        text: "source" or a number.
        source: Frames per second of the footage.

    Returns:
        Frames per second, within FRAME_RATES.

    Raises:
        TalkheadError: The text is neither "source" nor a number within FRAME_RATES.
    """
    least, most = FRAME_RATES
    if text == SOURCE:
        return exact_rate(float(min(max(source, least), most)))
    try:
        # 25, 29.97 or 30000/1001. Fraction alone would compute 1e999999999 exactly.
        rate = (
            Fraction(text) if re.fullmatch(r"\d{1,6}(\.\d{1,6}|/\d{1,6})?", text) else Fraction(0)
        )
    except ZeroDivisionError:
        rate = Fraction(0)
    if not least <= rate <= most:
        raise TalkheadError(
            f"{text!r} frames per second are not allowed. Choose {least} to {most}, or {SOURCE}"
        )
    return exact_rate(float(rate))
