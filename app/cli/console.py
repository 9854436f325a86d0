"""Results on stdout: as JSON, or as lines to be read. Everything that a command prints goes by here,
or by `talkhead.progress`: what comes from a file must not act on the terminal."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from talkhead.terminal import printable, printable_json


def print_line(text: str, stream: TextIO | None = None) -> None:
    """Print one line, whatever text holds. stream: stdout unless given."""
    print(printable(text), file=stream, flush=True)


class LineHandler(logging.Handler):
    """Warnings of talkhead's modules on stderr, a line each: ffmpeg's words, say, and a file's name."""

    @classmethod
    def install(cls) -> None:
        """Let this process have it: without a handler logging would print them as they are."""
        logging.getLogger("talkhead").handlers[:] = [cls()]

    def emit(self, record: logging.LogRecord) -> None:
        """Print a warning."""
        print_line(f"talkhead: {record.getMessage()}", sys.stderr)


def print_lines(text: str, stream: TextIO | None = None) -> None:
    """Print text of several lines. What its values hold was made `printable` as the lines were joined,
    or holds no line ends."""
    for line in text.split("\n"):
        print_line(line, stream)


def show(result: Any, as_json: bool) -> None:
    """Print a dataclass: as JSON, or a line for each field that says something.

    A field `summary` is what people read in place of `figures`.
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
    """Lines of name and value, nested ones indented; empty ones are left out."""
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
    """Print a value as JSON."""
    print(printable_json(json.dumps(value, indent=2, ensure_ascii=False, default=_plain)))


def _plain(value: Any) -> Any:
    """Dataclasses, mappings and paths as JSON's types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return dict(value) if isinstance(value, Mapping) else str(value)
