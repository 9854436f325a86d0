"""Escape text for terminals: control characters must be shown instead of being executed.

Names, reasons and claims come from files of unknown origin. `talkhead.app.cli.console` and
`talkhead.progress`, through which everything is printed, use this module.
"""

from __future__ import annotations

import json
import unicodedata

_ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of characters that move the cursor, end a line, reverse the direction of writing, are
invisible or cannot be encoded."""
_JOINERS = "\u200c\u200d"
"""Needed by Persian and by joined emoji."""


def printable(text: str) -> str:
    r"""Escape characters that are not printable as Python does, for example as \x1b.

    Args:
        text: Any text. Control characters, line ends, direction marks and lone surrogates are escaped.

    Returns:
        One line.
    """
    if text.isprintable():
        return text
    return "".join(_shown(c) if _acts(c) else c for c in text)


def printable_json(text: str) -> str:
    r"""Escape characters that are not printable in JSON, for example as \u001b, except line ends.

    Args:
        text: JSON.

    Returns:
        JSON of the same value.
    """
    if text.isprintable():
        return text
    return "".join(json.dumps(c)[1:-1] if _acts(c) and c != "\n" else c for c in text)


def _acts(character: str) -> bool:
    return unicodedata.category(character) in _ACTING and character not in _JOINERS


def _shown(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
