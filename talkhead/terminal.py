"""Text on its way to a terminal: what would act there, or pretend to be another line, is shown instead.

Names, reasons and claims come from files that anybody may have made. Whoever prints them does it by
`talkhead.app.cli.console` or `talkhead.progress`, which come here.
"""

from __future__ import annotations

import json
import unicodedata

_ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of characters that move the cursor, end a line, turn the direction of writing, show
nothing or can't be encoded."""
_JOINERS = "\u200c\u200d"
"""Persian and joined emoji need them."""


def printable(text: str) -> str:
    r"""One line that only shows: control characters, line ends, marks of direction and lone surrogates
    are written as in Python, \x1b say."""
    if text.isprintable():
        return text
    return "".join(_shown(c) if _acts(c) else c for c in text)


def printable_json(text: str) -> str:
    r"""JSON that means the same, in which such characters are escaped, \u001b; its own line ends stay."""
    if text.isprintable():
        return text
    return "".join(json.dumps(c)[1:-1] if _acts(c) and c != "\n" else c for c in text)


def _acts(character: str) -> bool:
    return unicodedata.category(character) in _ACTING and character not in _JOINERS


def _shown(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
