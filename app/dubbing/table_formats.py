"""File formats of tables: CSV with a header, JSON lines, a YAML list of mappings or a single one.

Tables are untrusted input. A cell is text, a JSON value or in YAML a mapping of texts; a row that cannot
be read is returned as a row whose only cell, "", contains the reason; and time and memory grow linearly
with the length of the file.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from talkhead.errors import TalkheadError, one_line
from talkhead.storage import decode_json, read_text

MAX_BYTES = {".csv": 64 << 20, ".jsonl": 64 << 20, ".ndjson": 64 << 20, ".yaml": 2 << 20,
              ".yml": 2 << 20}  # fmt: skip
"""Maximum size of a table by file extension; parsing YAML takes a few seconds per megabyte."""
MAX_ROWS = 200_000
MAX_CELLS = 100
"""Maximum number of cells in a row of YAML; there are fewer columns."""
MAX_INNER = 100_000
"""Maximum number of values nested in cells of a YAML file. Each such row is invalid; a file with more is
rejected."""
MAX_NESTED = 100
"""Maximum nesting depth of brackets in YAML; parsing time grows with it."""

Record = tuple[int, Mapping[str, Any]]
"""The line on which a row begins, and its cells; a cell "" is the reason why the row cannot be read."""


def column_name(name: object) -> str:
    """Normalize the name of a column.

    Args:
        name: The name in the table, in any case, with spaces, hyphens or underscores.

    Returns:
        The name in lower case with underscores.
    """
    return str(name).strip().lower().replace("-", "_").replace(" ", "_")


def records(path: Path, columns: Collection[str]) -> Iterator[Record]:
    """Read the rows of a table in the format of its file extension.

    Args:
        path: The file.
        columns: Names of the known columns.

    Yields:
        The rows.

    Raises:
        TalkheadError: If the file extension is unsupported, the file is too large, the header has unknown
            columns, or the rest of the file cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in MAX_BYTES:
        raise TalkheadError(
            f"{path}: unsupported file extension. Pass a .csv, .jsonl or .yaml file"
        )
    text = read_text(path, MAX_BYTES[suffix])
    if suffix == ".csv":
        found = _csv_records(path, text, columns)
    else:
        found = _yaml_records(path, text) if suffix in (".yaml", ".yml") else _json_records(text)
    for number, record in enumerate(found):
        if number == MAX_ROWS:
            raise TalkheadError(
                f"{path}: has more than {MAX_ROWS} rows. Split it into several tables"
            )
        yield record


PLACEHOLDER = "\U0001ffff"
"""Replaces characters that a parser rejects. It is an unassigned character, invalid in any cell."""


def _unreadable(reason: str) -> Mapping[str, str]:
    return {"": reason}


def _csv_records(path: Path, text: str, columns: Collection[str]) -> Iterator[Record]:
    # The csv module of Python 3.10 fails at NUL.
    reader = csv.reader(io.StringIO(text.replace("\0", PLACEHOLDER), newline=""), strict=True)
    header: list[str] | None = None
    row_start = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if header is None or "end of data" in str(error):  # an unclosed quotation mark
                raise TalkheadError(f"{path}: line {row_start}: {error}") from error
            yield row_start, _unreadable(f"invalid CSV ({error})")
            row_start = reader.line_num + 1
            continue
        line, row_start = row_start, reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = _header(path, cells, columns)
        elif len(cells) > len(header):
            yield line, _unreadable(f"{len(cells)} cells, but the header has {len(header)}")
        else:
            yield line, dict(zip(header, cells, strict=False))


def _header(path: Path, cells: list[str], columns: Collection[str]) -> list[str]:
    names = [column_name(cell) for cell in cells]
    unknown = sorted(set(names) - set(columns))
    if unknown or len(set(names)) != len(names):
        problem = f"unknown column {unknown[0]!r}" if unknown else "a column appears twice"
        raise TalkheadError(f"{path}: line 1: {problem}. The columns are: {', '.join(columns)}")
    return names


def _json_records(text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            cells = decode_json(line)
        except ValueError as error:
            yield number, _unreadable(f"invalid JSON ({error})")
            continue
        yield number, cells if isinstance(cells, dict) else _unreadable("not a JSON object")


# ---------------------------------------------------------------------------------- YAML


class _Loader(yaml.SafeLoader):
    """A YAML loader with a limit on nested brackets."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        """See yaml.scanner.Scanner."""
        if self.flow_level >= MAX_NESTED:
            raise yaml.scanner.ScannerError(
                None, None, f"brackets are nested more than {MAX_NESTED} deep", self.get_mark()
            )
        super().fetch_flow_collection_start(TokenClass)  # type: ignore[no-untyped-call]


_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that YAML does not allow."""


def _yaml_records(path: Path, text: str) -> Iterator[Record]:
    rows = _YamlRows(path, _Loader(_UNPRINTABLE.sub(PLACEHOLDER, text)))
    try:
        yield from rows.read()
    except yaml.YAMLError as error:
        raise TalkheadError(f"{path}: invalid YAML: {one_line(error)}") from error


class _RowError(Exception):
    """The reason why a row of YAML cannot be read."""


_Cells = dict[str, str | dict[str, str]]
"""The cells of a row."""


class _YamlRows:
    """Reads mappings from the events of a parser, one at a time. Nothing is built from values that a row
    cannot contain, and an alias refers to a cell with text or to the cells of a row."""

    def __init__(self, path: Path, loader: _Loader) -> None:
        self._path, self._loader = path, loader
        self._anchors: dict[str | None, str | _Cells] = {}
        self._n_inner = 0

    def _next(self) -> Any:
        return self._loader.get_event()  # type: ignore[no-untyped-call]

    def read(self) -> Iterator[Record]:
        """Yield the rows. Raise TalkheadError if the file is neither a list nor a mapping, YAMLError
        if it is not YAML."""
        self._next()  # start of the stream
        if isinstance(self._next(), yaml.StreamEndEvent):
            return
        root = self._next()
        line = root.start_mark.line + 1
        if isinstance(root, yaml.ScalarEvent) and _text_of(root) == "":
            return
        if isinstance(root, yaml.MappingStartEvent):
            yield line, self._row(root)
        elif isinstance(root, yaml.SequenceStartEvent):
            while not isinstance(event := self._next(), yaml.SequenceEndEvent):
                yield event.start_mark.line + 1, self._row(event)
        else:
            while not isinstance(self._next(), yaml.StreamEndEvent):
                pass  # invalid YAML raises here and takes precedence
            raise TalkheadError(
                f"{self._path}: expected a list of rows, each beginning with '- ', or one row"
            )
        self._next()  # end of the document
        if not isinstance(self._next(), yaml.StreamEndEvent):
            raise TalkheadError(
                f"{self._path}: contains several documents. Pass a single list of rows"
            )

    def _row(self, event: Any) -> Mapping[str, Any]:
        if not isinstance(event, yaml.MappingStartEvent):
            self._skip(event)
            return _unreadable("not a mapping")
        cells: _Cells = {}
        problem = self._read_keys(lambda key: self._add(cells, key))
        if event.anchor is not None and not problem:
            self._anchors[event.anchor] = cells
        return _unreadable(problem) if problem else cells

    def _read_keys(self, add: Callable[[Any], None]) -> str:
        """Read a mapping to its end. Return the first reason why it cannot be used; "" if it can."""
        problem = ""
        while not isinstance(key := self._next(), yaml.MappingEndEvent):
            try:
                add(key)
            except _RowError as error:
                problem = problem or str(error)
        return problem

    def _value(self, key: Any) -> Any:
        """Return the event after a key. Raise _RowError, once it is read, if the key is no text."""
        if not isinstance(key, yaml.ScalarEvent):
            self._skip(key)
            self._skip(self._next())
            raise _RowError("a column name is not text")
        return self._next()

    def _add(self, cells: _Cells, key: Any) -> None:
        """Read a key's value and add both to the cells of a row. Raise _RowError once both are
        read."""
        value = self._value(key)
        if key.value == "<<" and key.implicit[0]:
            for merged in self._merged(value):
                cells.update({name: text for name, text in merged.items() if name not in cells})
        else:
            cells[key.value] = self._cell(key.value, value)
        _limit(cells)

    def _cell(self, name: str, value: Any) -> str | dict[str, str]:
        """Return a cell: a text, or a mapping of texts."""
        if not isinstance(value, yaml.MappingStartEvent):
            return self._text(name, value)
        texts: dict[str, str] = {}

        def add(key: Any) -> None:
            texts[key.value] = self._text(name, self._value(key))
            _limit(texts)

        if problem := self._read_keys(add):
            raise _RowError(problem)
        return texts

    def _merged(self, value: Any) -> list[_Cells]:
        """Return the cells of the rows that an alias, or a list of aliases, refers to."""
        inner = [value] if not isinstance(value, yaml.CollectionStartEvent) else self._inside(value)
        found = [self._anchored(one) for one in inner]
        rows = [cells for cells in found if isinstance(cells, dict)]
        if not isinstance(value, yaml.MappingStartEvent) and len(rows) == len(found) <= MAX_CELLS:
            return rows
        raise _RowError("'<<' needs an alias of an earlier row, such as *name")

    def _anchored(self, event: Any) -> str | _Cells | None:
        """Return the value that an alias refers to."""
        return self._anchors.get(event.anchor) if isinstance(event, yaml.AliasEvent) else None

    def _text(self, name: str, value: Any) -> str:
        """Return a text of a cell."""
        if isinstance(value, yaml.AliasEvent):
            text = self._anchored(value)
            if not isinstance(text, str):
                raise _RowError(f"{name}: *{value.anchor} refers to no earlier cell")
            return text
        if not isinstance(value, yaml.ScalarEvent):
            self._skip(value)
            raise _RowError(f"{name}: must be text or a number")
        if value.tag not in _TAGS:
            raise _RowError(f"{name}: {value.tag} is not a supported type")
        text = _text_of(value)
        if value.anchor is not None:
            self._anchors[value.anchor] = text
        return text

    def _skip(self, event: Any) -> None:
        """Read to the end of a value whose first event was read."""
        if isinstance(event, yaml.CollectionStartEvent):
            self._inside(event)

    def _inside(self, start: Any) -> list[Any]:
        """Read a list or a mapping to its end. Return its events, but no more than are needed to
        detect that there are too many."""
        events: list[Any] = []
        depth = 1
        while True:
            event = self._next()
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth == 0:
                return events
            if len(events) <= MAX_CELLS:
                events.append(event)
            self._n_inner += 1
            if self._n_inner > MAX_INNER:
                line = start.start_mark.line + 1
                raise TalkheadError(
                    f"{self._path}: line {line}: cells cannot contain lists. Pass text"
                )


def _limit(cells: dict[str, Any]) -> None:
    """Raise _RowError, and free the memory, if there are too many cells."""
    if len(cells) > MAX_CELLS:
        cells.clear()
        raise _RowError(f"has more than {MAX_CELLS} cells")


_TAGS = {None, *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null",
         "timestamp"))}  # fmt: skip


def _text_of(event: Any) -> str:
    """Return a scalar as it is written, or "" for null."""
    is_plain = event.style is None and event.tag is None
    text = str(event.value)
    return "" if is_plain and text in ("~", "null", "Null", "NULL") else text
