"""Console output: results on stdout as JSON or text, messages on stderr.

Commands print only through this module or `talkhead.progress`, which escape control characters: text
from a file must not control the terminal.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from talkhead.terminal import printable, printable_json


def print_line(text: str, stream: TextIO | None = None) -> None:
    """Print one line; control characters in the text are escaped.

    Args:
        text: The line.
        stream: Where to print. None: stdout.
    """
    print(printable(text), file=stream, flush=True)


class LineHandler(logging.Handler):
    """Logging handler that prints warnings of talkhead's modules on stderr, one line each."""

    @classmethod
    def install(cls) -> None:
        """Use this handler for all loggers of talkhead. Python's default handler does not escape
        text."""
        logging.getLogger("talkhead").handlers[:] = [cls()]

    def emit(self, record: logging.LogRecord) -> None:
        """Print a warning.

        Args:
            record: The warning.
        """
        print_line(f"talkhead: {record.getMessage()}", sys.stderr)


def print_lines(text: str, stream: TextIO | None = None) -> None:
    """Print text that has several lines. Values in it must have been escaped, or contain no line
    breaks.

    Args:
        text: The lines.
        stream: Where to print. None: stdout.
    """
    for line in text.split("\n"):
        print_line(line, stream)


def show(result: Any, as_json: bool) -> None:
    """Print a dataclass.

    Args:
        result: The dataclass. If its field `summary` is not empty, it is shown instead of
            `figures`.
        as_json: Print JSON; otherwise a line for each field that is not empty.
    """
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    summary = fields.pop("summary", "")
    if as_json:
        print_json(fields)
        return
    if summary:
        del fields["figures"]
    for line in _lines(fields):
        print_line(line)
    if summary:
        print_lines(f"\n{summary}")


def _lines(values: Mapping[str, Any], indent: str = "") -> list[str]:
    """Format names and values as lines, nested ones indented; empty values are left out."""
    lines = []
    for name, value in values.items():
        label = indent + str(name).removesuffix("_path").replace("_", " ")
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        if isinstance(value, Mapping):
            nested = _lines(value, indent + "  ")
            lines += [f"{label}:", *nested] if nested else []
        elif value is not None and value != "" and value != () and value != []:
            lines.append(f"{label}: {_text(value)}")
    return lines


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return str(value)


def print_json(value: Any) -> None:
    """Print a value as JSON.

    Args:
        value: Dataclass, mapping, path or JSON type.
    """
    print(printable_json(json.dumps(value, indent=2, ensure_ascii=False, default=_plain)))


def _plain(value: Any) -> Any:
    """Convert a dataclass, a mapping or a path to JSON's types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return dict(value) if isinstance(value, Mapping) else str(value)
