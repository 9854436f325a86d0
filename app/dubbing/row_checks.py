"""What tables and timed lines share: the values of cells, and reports of wrong rows."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talkhead.app.dubbing.table_formats import PLACEHOLDER
from talkhead.errors import TalkheadError
from talkhead.storage import expand_user

SHOWN_ERRORS = 20
"""Number of invalid rows that an error lists; the others are only counted."""
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_INVALID_CHARS = re.compile(f"[\\0\ud800-\udfff{PLACEHOLDER}]")
_EXPECTED = {bool: "true or false", int: "an integer", float: "a number"}


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be dubbed.

    Attributes:
        line: Line of the table on which the row begins.
        reason: The problem, in one line.
    """

    line: int
    reason: str


def list_bad(rows: Sequence[BadRow]) -> str:
    """List rows with their reasons in one line.

    Args:
        rows: The rows.

    Returns:
        The first SHOWN_ERRORS of them, and the number of the others.
    """
    shown = [f"line {row.line}: {row.reason}" for row in rows[:SHOWN_ERRORS]]
    more = len(rows) - len(shown)
    return "; ".join([*shown, f"and {more} more"] if more else shown)


def cell_text(name: str, value: Any) -> str:
    """Return a cell as text.

    Args:
        name: Name of its column.
        value: The cell: text, or in JSON a number, a boolean or null.

    Returns:
        The text without surrounding spaces; "" for null.

    Raises:
        TalkheadError: It is of another type, or contains characters that are not allowed.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise TalkheadError(f"{name}: must be text or a number")
    text = str(value).strip()
    if _INVALID_CHARS.search(text):
        raise TalkheadError(
            f"{name}: contains an invalid character: NUL, an unpaired surrogate, or in YAML a control "
            "character"
        )
    return text


def cell_value(name: str, kind: type[Any], text: str) -> Any:
    """Convert the text of a cell to the type of its column.

    Args:
        name: Name of the column.
        kind: bool, int, float or any other type.
        text: The text.

    Returns:
        The value; the text itself if the type is another one.

    Raises:
        TalkheadError: The text is not such a value.
    """
    try:
        if kind is bool:
            return {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}[text.lower()]
        if kind in (int, float):
            return kind(text)
    except (ValueError, KeyError):
        raise TalkheadError(f"{name} {text!r}: expected {_EXPECTED[kind]}") from None
    return text


def resolve_path(text: str, folder: Path) -> Path:
    """Make a path that a file names absolute.

    Args:
        text: The path.
        folder: Folder of that file, to which the path may be relative.

    Returns:
        The absolute path.

    Raises:
        TalkheadError: It begins with ~ and the name of an unknown user.
    """
    return Path(os.path.normpath(folder / expand_user(text)))


def check_input(path: Path) -> None:
    """Check that an input is a file with content.

    Args:
        path: The file.

    Raises:
        TalkheadError: It is missing, a folder or empty.
    """
    if path.is_dir():
        raise TalkheadError(f"{path}: is a folder. Pass one file")
    if not path.is_file():
        raise TalkheadError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise TalkheadError(f"{path}: is empty (0 bytes)")
