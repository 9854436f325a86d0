"""A table of lines to be dubbed -> tasks; every wrong row is found before anything starts.

CSV with a header, JSON lines or a YAML list of mappings: the columns are those of `Row` and of
OutputOptions. Paths are relative to the table's own folder.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from talkhead.app import request
from talkhead.app.choices import DEFAULT_PRESET, MODES, PRESETS, renderer_names
from talkhead.app.dubbing.table_formats import STAND_IN, column_name, records
from talkhead.app.output.finalize import output_files
from talkhead.app.request import Option, OutputOptions, check_options, declared_options, named_files
from talkhead.errors import TalkheadError
from talkhead.storage import existing_file, expanded, explain_os_error

TIMELINES = ("idle", "source")
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
SHOWN_ERRORS = 20
"""So many wrong rows are named; of the others, the number."""
SHOWN_CHARS, SHOWN_REASON = 200, 600
"""So much is shown of a path that is too long, and of what is wrong with a row."""

FindIdentity = Callable[[str, Path], str]
"""An identity as a cell has it, and the folder that it would be if it is a path -> the name or absolute
folder. Raises TalkheadError for one that can't be used."""


@dataclass(frozen=True)
class Row:
    """One line to be dubbed. Paths are absolute.

    identity: who speaks, a name or a package's folder, or video: footage of who speaks, fitted first
    where need be. timeline: "source" re-lips that video frame by frame, "idle" plays the identity's
    idle clip. preset: of the fit.
    """

    line: int
    audio: Path
    output: Path
    identity: str = ""
    video: Path | None = None
    timeline: str = "idle"
    renderer: str = ""
    mode: str = "paste"
    preset: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> list[Path]:
        """The files that it reads."""
        footage = [] if self.video is None else [self.video]
        return [self.audio, *footage, *named_files(self.options)]

    @property
    def outputs(self) -> list[Path]:
        """The output, and the files that will lie beside it."""
        return output_files(self.output, build_options(self.options))


@dataclass(frozen=True)
class BadRow:
    """A row that can't be dubbed, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Table:
    """What a table holds."""

    path: Path
    rows: tuple[Row, ...]
    bad: tuple[BadRow, ...]

    def refuse(self) -> TalkheadError:
        """The one error that names all wrong rows."""
        shown = [f"line {bad.line}: {bad.reason}" for bad in self.bad[:SHOWN_ERRORS]]
        more = len(self.bad) - len(shown)
        rest = f"; and {more} more" if more else ""
        return TalkheadError(
            f"{self.path}: {len(self.bad)} of {len(self.bad) + len(self.rows)} rows can't be dubbed. "
            f"{'; '.join(shown)}{rest}. Correct them, or pass --skip-bad to go on with the others"
        )


def read_table(
    path: Path, find_identity: FindIdentity, is_taken: Callable[[Path], bool] = lambda output: False
) -> Table:
    """The rows of a table, the wrong ones apart. is_taken: whether an output lies where none may.

    Raises TalkheadError when it can't be read.
    """
    rows: list[Row] = []
    bad: list[BadRow] = []
    folder = path.absolute().parent
    found = _found_once(find_identity, folder)
    for line, cells in records(path, columns()):
        try:
            row = _row(line, cells, folder)
            if is_taken(row.output):
                raise TalkheadError(f"{row.output}: lies where talkhead keeps its own")
            rows.append(dataclasses.replace(row, identity=found(row.identity)))
        except TalkheadError as error:
            bad.append(BadRow(line, _shortened(" ".join(str(error).split()), SHOWN_REASON)))
        except OSError as error:  # a name that is too long, a folder that may not be looked into
            bad.append(BadRow(line, _why_not(error)))
    clashes = _clashes(rows)
    bad += [BadRow(row.line, clashes[row.line]) for row in rows if row.line in clashes]
    good = [row for row in rows if row.line not in clashes]
    if not rows and not bad:
        raise TalkheadError(f"{path}: there is no row in it. Give one for each line to be dubbed")
    return Table(path, tuple(good), tuple(sorted(bad, key=lambda one: one.line)))


def _why_not(error: OSError) -> str:
    path = Path(error.filename)
    return f"{_shortened(str(path), SHOWN_CHARS)}: {explain_os_error(error, path)}"


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _found_once(find: FindIdentity, folder: Path) -> Callable[[str], str]:
    """find for the cells of a table in a folder: tables name few people, and often."""

    @cache
    def look(text: str) -> tuple[str, str]:
        try:
            return find(text, _path(text, folder)), ""
        except TalkheadError as error:
            return "", str(error)

    def found(text: str) -> str:
        identity, problem = look(text) if text else ("", "")
        if problem:
            raise TalkheadError(problem)
        return identity

    return found


# --------------------------------------------------------------------------------- rows


OWN_COLUMNS = tuple(f.name for f in dataclasses.fields(Row) if f.name not in ("line", "options"))


def columns() -> tuple[str, ...]:
    """The names of all columns: those of a row, then the options of an output."""
    return (*OWN_COLUMNS, *declared_options())


def _row(line: int, cells: Mapping[str, Any], folder: Path) -> Row:
    """The row of cells. Raises TalkheadError for what is wrong with it."""
    if "" in cells:
        raise TalkheadError(str(cells[""]))
    given = {column_name(name): _cell(name, value) for name, value in cells.items()}
    given = {name: text for name, text in given.items() if text}
    if unknown := sorted(set(given) - set(columns())):
        raise TalkheadError(f"there is no column {unknown[0]!r}. There are: {', '.join(columns())}")
    for name in ("audio", "output"):
        if name not in given:
            raise TalkheadError(f"{name} is missing")
    row = Row(
        line=line,
        audio=_path(given["audio"], folder),
        output=_path(given["output"], folder),
        identity=given.get("identity", ""),
        video=_path(given["video"], folder) if "video" in given else None,
        timeline=given.get("timeline", "idle"),
        renderer=given.get("renderer", ""),
        mode=given.get("mode", "paste"),
        preset=given.get("preset", ""),
        options=_options(given, folder),
    )
    _check(row)
    return row


def _cell(name: str, value: Any) -> str:
    """A cell as text: JSON knows numbers, truth values and nothing, too."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise TalkheadError(f"{name}: is neither text nor a number")
    text = str(value).strip()
    if _IMPOSSIBLE.search(text):
        raise TalkheadError(
            f"{name}: holds a character that can't be in a table: a NUL, half of a surrogate pair, or "
            "in YAML a control character"
        )
    return text


_IMPOSSIBLE = re.compile(f"[\\0\ud800-\udfff{STAND_IN}]")


def _path(text: str, folder: Path) -> Path:
    """The absolute path, relative to the table's folder. Raises TalkheadError."""
    return Path(os.path.normpath(folder / expanded(text)))


def _options(given: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """What a row says of OutputOptions, as JSON's types."""
    values: dict[str, Any] = {}
    for name, option in declared_options().items():
        if name in given:
            values[name] = _value(option, given[name], folder)
    build_options(values)
    return values


def _value(option: Option, text: str, folder: Path) -> Any:
    """A cell of the column of an option as a value of its type, as JSON holds it."""
    try:
        if option.kind is bool:
            return {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}[text.lower()]
        if option.kind in (int, float):
            return option.kind(text)
    except (ValueError, KeyError):
        kind = option.kind.__name__
        raise TalkheadError(f"{option.name} {text!r}: is no {kind}") from None
    if option.kind is Path:
        return str(_path(text, folder))
    beside = existing_file(str(folder / text)) if option.names_file else None
    return str(beside) if beside is not None else text


def build_options(values: Mapping[str, Any]) -> OutputOptions:
    """The options of a task. Raises TalkheadError for what can't be wanted."""
    options = declared_options()
    typed: dict[str, Any] = {
        name: Path(value) if options[name].kind is Path else value for name, value in values.items()
    }
    return request.OutputOptions(**typed)


def _check(row: Row) -> None:
    """Raises TalkheadError for what can be said of one row alone."""
    if not row.identity and row.video is None:
        raise TalkheadError("identity or video is missing: who speaks?")
    if row.identity and row.video is not None and row.timeline != "source":
        raise TalkheadError(
            "identity and video are both given. Give one, or timeline: source to keep the video's own"
        )
    if row.timeline == "source" and row.video is None:
        raise TalkheadError("timeline source needs a video: which timeline?")
    for name, value, choices in (
        ("mode", row.mode, MODES),
        ("timeline", row.timeline, TIMELINES),
        ("preset", row.preset or DEFAULT_PRESET, PRESETS),
        ("renderer", row.renderer, renderer_names() if row.renderer else ("",)),
    ):
        if value not in choices:
            raise TalkheadError(f"{name} {value!r}: unknown. Choose one of: {', '.join(choices)}")
    if row.timeline == "source" and row.mode != "paste":
        raise TalkheadError(f"timeline source pastes into the video. Drop mode {row.mode}")
    options = build_options(row.options)
    for path in (row.audio, row.video, options.certificate, options.key):
        if path is not None:
            _check_input(path)
    _check_output(row, options)


def _check_output(row: Row, options: OutputOptions) -> None:
    if row.output.name.startswith("."):  # those in a job's folder belong to killed processes
        raise TalkheadError(f"{row.output}: is a hidden name. Give one that begins with no dot")
    codec = check_options(options, row.output, row.mode)
    if row.output.is_dir() and not codec.is_folder:
        raise TalkheadError(f"{row.output}: is a folder. Give the name of a file")


def _check_input(path: Path) -> None:
    if path.is_dir():
        raise TalkheadError(f"{path}: is a folder. Give one file")
    if not path.is_file():
        raise TalkheadError(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise TalkheadError(f"{path}: is empty (0 bytes)")


def _clashes(rows: list[Row]) -> dict[int, str]:
    """Which rows would write over what another one writes, or over an input: line -> reason."""
    clashes: dict[int, str] = {}
    inputs = {_same(path): row.line for row in rows for path in row.inputs}
    holding = {str(folder): line for path, line in inputs.items() for folder in Path(path).parents}
    writers: dict[str, int] = {}
    for row in rows:
        goals = {_same(path): path for path in row.outputs}
        for goal, path in goals.items():
            if goal in inputs:
                clashes[row.line] = f"{path}: is the input of line {inputs[goal]}. Choose another"
            elif goal in holding:
                clashes[row.line] = f"{path}: an input of line {holding[goal]} lies in it"
            elif goal in writers:
                clashes[row.line] = f"{path}: line {writers[goal]} writes this file, too"
            if row.line in clashes:
                break
        for goal in goals:
            writers.setdefault(goal, row.line)
    return clashes


def _same(path: Path) -> str:
    """Equal for paths of one file."""
    return os.path.normcase(os.path.realpath(path))
