"""The files that a table may be: CSV with a header, JSON lines, a YAML list of mappings.

Whoever wrote a file decides what is in it. So a cell is text, or what JSON knows; a row that can't be
read is a row all the same, whose one cell "" says why; and time and memory grow with the file's length.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from talkhead.errors import TalkheadError, one_line
from talkhead.storage import decode_json, read_text

MAX_BYTES = {".csv": 64 << 20, ".jsonl": 64 << 20, ".ndjson": 64 << 20, ".yaml": 2 << 20,
              ".yml": 2 << 20}  # fmt: skip
"""Of a table, by its suffix; YAML takes some seconds a megabyte."""
MAX_ROWS = 200_000
MAX_CELLS = 100
"""In a row of YAML; there are not so many columns."""
MAX_INNER = 100_000
"""Values within cells of YAML, which can hold none: such rows are named, a file of them is refused."""
MAX_NESTED = 100
"""How deep brackets may stand in brackets; the time that YAML takes grows with it."""

Record = tuple[int, Mapping[str, Any]]
"""The line on which a row begins, and its cells; a cell "" says why the row can't be read."""


def column_name(name: object) -> str:
    """A column as it is called here, however it is written."""
    return str(name).strip().lower().replace("-", "_").replace(" ", "_")


def records(path: Path, columns: Collection[str]) -> Iterator[Record]:
    """The rows of a file, by its suffix. Raises TalkheadError where it is none of these, is too large,
    has a header with other columns, or can't be read from some line on."""
    suffix = path.suffix.lower()
    if suffix not in MAX_BYTES:
        raise TalkheadError(f"{path}: no table is called so. Give a .csv, .jsonl or .yaml file")
    text = read_text(path, MAX_BYTES[suffix])
    if suffix == ".csv":
        found = _csv_records(path, text, columns)
    else:
        found = _yaml_records(path, text) if suffix in (".yaml", ".yml") else _json_records(text)
    for number, record in enumerate(found):
        if number == MAX_ROWS:
            raise TalkheadError(f"{path}: has more than {MAX_ROWS} rows. Make several tables of it")
        yield record


STAND_IN = "\U0001ffff"
"""In place of characters that a format doesn't let through; it means nothing, and no cell may have it."""


def _unreadable(reason: str) -> Mapping[str, str]:
    return {"": reason}


def _csv_records(path: Path, text: str, columns: Collection[str]) -> Iterator[Record]:
    # (Python 3.10 breaks off at a NUL.)
    reader = csv.reader(io.StringIO(text.replace("\0", STAND_IN), newline=""), strict=True)
    header: list[str] | None = None
    begun = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if header is None or "end of data" in str(error):  # a quote that nothing closes
                raise TalkheadError(f"{path}: line {begun}: {error}") from error
            yield begun, _unreadable(f"this is no CSV ({error})")
            begun = reader.line_num + 1
            continue
        line, begun = begun, reader.line_num + 1
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
        what = f"there is no column {unknown[0]!r}" if unknown else "a column is there twice"
        raise TalkheadError(f"{path}: line 1: {what}. There are: {', '.join(columns)}")
    return names


def _json_records(text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            cells = decode_json(line)
        except ValueError as error:
            yield number, _unreadable(f"this is no JSON ({error})")
            continue
        yield number, cells if isinstance(cells, dict) else _unreadable("this is no JSON object")


# ---------------------------------------------------------------------------------- YAML


class _Loader(yaml.SafeLoader):
    """Brackets in brackets only so deep."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        """See yaml.scanner.Scanner."""
        if self.flow_level >= MAX_NESTED:
            raise yaml.scanner.ScannerError(
                None, None, f"more than {MAX_NESTED} brackets in brackets", self.get_mark()
            )
        super().fetch_flow_collection_start(TokenClass)  # type: ignore[no-untyped-call]


_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What YAML lets nobody write."""


def _yaml_records(path: Path, text: str) -> Iterator[Record]:
    rows = _YamlRows(path, _Loader(_UNPRINTABLE.sub(STAND_IN, text)))
    try:
        yield from rows.read()
    except yaml.YAMLError as error:
        raise TalkheadError(f"{path}: this is no YAML: {one_line(error)}") from error


class _RowError(Exception):
    """Why a row of YAML can't be read."""


class _YamlRows:
    """Reads a list of mappings from the events of a parser, one after the other: nothing is built of
    what a row can't hold, and an alias stands for a cell or for the cells of a row."""

    def __init__(self, path: Path, loader: _Loader) -> None:
        self._path, self._loader = path, loader
        self._anchors: dict[str | None, str | dict[str, str]] = {}
        self._n_inner = 0

    def _next(self) -> Any:
        return self._loader.get_event()  # type: ignore[no-untyped-call]

    def read(self) -> Iterator[Record]:
        """The rows. Raises TalkheadError where there is no list of them, YAMLError."""
        self._next()  # the stream's start
        if isinstance(self._next(), yaml.StreamEndEvent):
            return
        root = self._next()
        if isinstance(root, yaml.ScalarEvent) and _text_of(root) == "":
            return
        if not isinstance(root, yaml.SequenceStartEvent):
            while not isinstance(self._next(), yaml.StreamEndEvent):
                pass  # it is no YAML, perhaps: that is said first
            raise TalkheadError(f"{self._path}: give a list of rows, each beginning with '- '")
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            yield event.start_mark.line + 1, self._row(event)
        self._next()  # the document's end
        if not isinstance(self._next(), yaml.StreamEndEvent):
            raise TalkheadError(f"{self._path}: holds several documents. Give one list of rows")

    def _row(self, event: Any) -> Mapping[str, Any]:
        if not isinstance(event, yaml.MappingStartEvent):
            self._skip(event)
            return _unreadable("this is no mapping")
        cells: dict[str, str] = {}
        problem = ""
        while not isinstance(key := self._next(), yaml.MappingEndEvent):
            try:
                self._add(cells, key)
            except _RowError as error:
                problem = problem or str(error)
        if event.anchor is not None and not problem:
            self._anchors[event.anchor] = cells
        return _unreadable(problem) if problem else cells

    def _add(self, cells: dict[str, str], key: Any) -> None:
        """Read a key's value, and add both to the cells of a row. Raises _RowError after all is read."""
        if not isinstance(key, yaml.ScalarEvent):
            self._skip(key)
            self._skip(self._next())
            raise _RowError("a column's name is no text")
        value = self._next()
        if key.value == "<<" and key.implicit[0]:
            for merged in self._merged(value):
                cells.update({name: text for name, text in merged.items() if name not in cells})
        else:
            cells[key.value] = self._text(key.value, value)
        if len(cells) > MAX_CELLS:
            cells.clear()
            raise _RowError(f"has more than {MAX_CELLS} cells")

    def _merged(self, value: Any) -> list[dict[str, str]]:
        """The cells of the rows that an alias, or a list of aliases, stands for."""
        inner = [value] if not isinstance(value, yaml.CollectionStartEvent) else self._inside(value)
        found = [self._anchored(one) for one in inner]
        rows = [cells for cells in found if isinstance(cells, dict)]
        if not isinstance(value, yaml.MappingStartEvent) and len(rows) == len(found) <= MAX_CELLS:
            return rows
        raise _RowError("'<<' takes the anchor of an earlier row, as *name")

    def _anchored(self, event: Any) -> str | dict[str, str] | None:
        """What an alias stands for."""
        return self._anchors.get(event.anchor) if isinstance(event, yaml.AliasEvent) else None

    def _text(self, name: str, value: Any) -> str:
        """The text of a cell."""
        if isinstance(value, yaml.AliasEvent):
            text = self._anchored(value)
            if not isinstance(text, str):
                raise _RowError(f"{name}: *{value.anchor} stands for no cell before it")
            return text
        if not isinstance(value, yaml.ScalarEvent):
            self._skip(value)
            raise _RowError(f"{name}: is neither text nor a number")
        if value.tag not in _TAGS:
            raise _RowError(f"{name}: {value.tag} is no kind of cell")
        text = _text_of(value)
        if value.anchor is not None:
            self._anchors[value.anchor] = text
        return text

    def _skip(self, event: Any) -> None:
        """Read to the end of a value that has begun."""
        if isinstance(event, yaml.CollectionStartEvent):
            self._inside(event)

    def _inside(self, start: Any) -> list[Any]:
        """What is in a list or a mapping, which is read to its end; no more than tells that it is
        too much."""
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
                raise TalkheadError(f"{self._path}: line {line}: cells can't hold lists. Give text")


_TAGS = {None, *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null",
         "timestamp"))}  # fmt: skip


def _text_of(event: Any) -> str:
    """A scalar as it is written; nothing for what says that there is nothing."""
    is_plain = event.style is None and event.tag is None
    text = str(event.value)
    return "" if is_plain and text in ("~", "null", "Null", "NULL") else text
