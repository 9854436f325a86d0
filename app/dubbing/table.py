"""Read and validate the table of videos to dub. All invalid rows are found before any work starts.

A table is CSV with a header, JSON lines or a YAML list of mappings. Its columns are the fields of `Row`
and of OutputOptions. Paths are relative to the folder of the table.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from talkhead.app import request
from talkhead.app.choices import DEFAULT_PRESET, MODES, PRESETS
from talkhead.app.composer.expression_track import check_track
from talkhead.app.dubbing.row_checks import (
    BadRow,
    cell_text,
    cell_value,
    check_input,
    list_bad,
    resolve_path,
)
from talkhead.app.dubbing.table_formats import column_name, records
from talkhead.app.options import Option
from talkhead.app.output.finalize import output_files
from talkhead.app.request import OutputOptions, check_options, declared_options, named_files
from talkhead.errors import TalkheadError
from talkhead.renderers.registry import renderer_names
from talkhead.storage import existing_file, explain_os_error

SHOWN_CHARS, SHOWN_REASON = 200, 600
"""Length to which a path and the reason for rejecting a row are shortened in messages."""

FindIdentity = Callable[[str, Path], str]
"""Function that maps the text of a cell, and the folder that it denotes if it is a path, to the
identity's name or absolute folder. It raises TalkheadError if the identity cannot be used."""


@dataclass(frozen=True)
class Row:
    """One video to dub. Paths are absolute; "" means that a value is not set.

    Attributes:
        line: Line of the table on which the row begins.
        audio: The speech.
        output: The video to write.
        identity: Name of the identity that speaks, or the folder of its package.
        video: Footage of the person who speaks; fitted first if necessary, and re-lipped frame by
            frame with the option `timeline`.
        renderer: Name of the renderer.
        mode: Mode of `speak`.
        preset: Preset of the fit.
        options: The fields of OutputOptions that the row sets, as JSON values.
    """

    line: int
    audio: Path
    output: Path
    identity: str = ""
    video: Path | None = None
    renderer: str = ""
    mode: str = "paste"
    preset: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keeps_footage(self) -> bool:
        """True if `video` is re-lipped frame by frame."""
        return build_options(self.options).keeps_footage

    @property
    def inputs(self) -> list[Path]:
        """The files that the row reads."""
        footage = [] if self.video is None else [self.video]
        return [self.audio, *footage, *named_files(self.options)]

    @property
    def outputs(self) -> list[Path]:
        """The output and the files that are written next to it."""
        return output_files(self.output, build_options(self.options))


@dataclass(frozen=True)
class Table:
    """A table that was read.

    Attributes:
        path: The file.
        rows: The valid rows.
        bad: The invalid rows.
    """

    path: Path
    rows: tuple[Row, ...]
    bad: tuple[BadRow, ...]

    def refuse(self) -> TalkheadError:
        """Make the error that names the invalid rows.

        Returns:
            The error, to be raised by the caller.
        """
        return TalkheadError(
            f"{self.path}: {len(self.bad)} of {len(self.bad) + len(self.rows)} rows cannot be dubbed. "
            f"{list_bad(self.bad)}. Correct them, or pass --skip-bad to dub the others"
        )


def read_table(
    path: Path,
    find_identity: FindIdentity,
    is_reserved: Callable[[Path], bool] = lambda output: False,
    reads_files: bool = False,
) -> Table:
    """Read and validate a table.

    Args:
        path: A .csv, .jsonl, .ndjson, .yaml or .yml file.
        find_identity: See FindIdentity.
        is_reserved: Predicate for outputs inside folders that talkhead manages.
        reads_files: Read the files with expressions that rows name. The messages of faults quote them.

    Returns:
        The valid and the invalid rows.

    Raises:
        TalkheadError: If the table cannot be read or has no rows.
    """
    rows: list[Row] = []
    bad: list[BadRow] = []
    folder = path.absolute().parent
    resolve = _cached_finder(find_identity, folder)
    for line, cells in records(path, columns()):
        try:
            row = _row(line, cells, folder)
            if is_reserved(row.output):
                raise TalkheadError(
                    f"{row.output}: is inside a folder that talkhead manages. Choose another output"
                )
            if reads_files and "expression" in row.options:
                check_track(row.options["expression"], row.mode)
            rows.append(dataclasses.replace(row, identity=resolve(row.identity)))
        except TalkheadError as error:
            bad.append(BadRow(line, _shorten(" ".join(str(error).split()), SHOWN_REASON)))
        except OSError as error:  # a name that is too long, a folder without permission
            bad.append(BadRow(line, _os_error_reason(error)))
    clashes = _clashes(rows)
    bad += [BadRow(row.line, clashes[row.line]) for row in rows if row.line in clashes]
    good = [row for row in rows if row.line not in clashes]
    if not rows and not bad:
        raise TalkheadError(f"{path}: contains no rows. Add one for each video to dub")
    return Table(path, tuple(good), tuple(sorted(bad, key=lambda one: one.line)))


def _os_error_reason(error: OSError) -> str:
    path = Path(error.filename)
    return f"{_shorten(str(path), SHOWN_CHARS)}: {explain_os_error(error, path)}"


def _shorten(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else f"{text[:max_chars]}..."


def _cached_finder(find: FindIdentity, folder: Path) -> Callable[[str], str]:
    """Cache `find` for the cells of a table: tables repeat a few identities many times."""

    @cache
    def look_up(text: str) -> tuple[str, str]:
        try:
            return find(text, resolve_path(text, folder)), ""
        except TalkheadError as error:
            return "", str(error)

    def resolve(text: str) -> str:
        identity, problem = look_up(text) if text else ("", "")
        if problem:
            raise TalkheadError(problem)
        return identity

    return resolve


# --------------------------------------------------------------------------------- rows


OWN_COLUMNS = tuple(f.name for f in dataclasses.fields(Row) if f.name not in ("line", "options"))


def columns() -> tuple[str, ...]:
    """List the names of all columns: the fields of a row, then the output options."""
    return (*OWN_COLUMNS, *declared_options())


def _row(line: int, cells: Mapping[str, Any], folder: Path) -> Row:
    """Make a row from its cells. Raise TalkheadError if it is invalid."""
    if "" in cells:
        raise TalkheadError(str(cells[""]))
    given = {column_name(name): cell_text(name, value) for name, value in cells.items()}
    given = {name: text for name, text in given.items() if text}
    if unknown := sorted(set(given) - set(columns())):
        raise TalkheadError(
            f"unknown column {unknown[0]!r}. The columns are: {', '.join(columns())}"
        )
    for name in ("audio", "output"):
        if name not in given:
            raise TalkheadError(f"{name} is missing")
    row = Row(
        line=line,
        audio=resolve_path(given["audio"], folder),
        output=resolve_path(given["output"], folder),
        identity=given.get("identity", ""),
        video=resolve_path(given["video"], folder) if "video" in given else None,
        renderer=given.get("renderer", ""),
        mode=given.get("mode", "paste"),
        preset=given.get("preset", ""),
        options=_options(given, folder),
    )
    _check(row)
    return row


def _options(given: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Collect the fields of OutputOptions that a row sets, as JSON values."""
    values: dict[str, Any] = {}
    for name, option in declared_options().items():
        if name in given:
            values[name] = _value(option, given[name], folder)
    build_options(values)
    return values


def _value(option: Option, text: str, folder: Path) -> Any:
    """Convert a cell of an option's column to the JSON value of the option's type."""
    if option.kind in (bool, int, float):
        return cell_value(option.name, option.kind, text)
    if option.kind is Path:
        return str(resolve_path(text, folder))
    beside = existing_file(str(folder / text)) if option.names_file else None
    return str(beside) if beside is not None else text


def build_options(values: Mapping[str, Any]) -> OutputOptions:
    """Make the options of a task.

    Args:
        values: Fields of OutputOptions as JSON values.

    Returns:
        The options.

    Raises:
        TalkheadError: If a value is invalid.
    """
    options = declared_options()
    typed: dict[str, Any] = {
        name: Path(value) if options[name].kind is Path else value for name, value in values.items()
    }
    return request.OutputOptions(**typed)


def _check(row: Row) -> None:
    """Raise TalkheadError if a row is invalid, whatever the other rows contain."""
    if not row.identity and row.video is None:
        raise TalkheadError("identity or video is missing. Pass one of them")
    options = build_options(row.options)
    if row.identity and row.video is not None and not options.keeps_footage:
        raise TalkheadError(
            "identity and video are both given. Pass one, or set timeline to source to re-lip the video"
        )
    if options.keeps_footage and row.video is None:
        raise TalkheadError("timeline source needs a video. Pass one")
    for name, value, choices in (
        ("mode", row.mode, MODES),
        ("preset", row.preset or DEFAULT_PRESET, PRESETS),
        ("renderer", row.renderer, renderer_names() if row.renderer else ("",)),
    ):
        if value not in choices:
            raise TalkheadError(f"{name} {value!r}: unknown. Choose one of: {', '.join(choices)}")
    for path in (row.audio, row.video, options.certificate, options.key, options.drive):
        if path is not None:
            check_input(path)
    _check_output(row, options)


def _check_output(row: Row, options: OutputOptions) -> None:
    if row.output.name.startswith("."):  # hidden files in an output folder are temporary files
        raise TalkheadError(f"{row.output}: is hidden. Pass a name that does not begin with a dot")
    codec = check_options(options, row.output, row.mode)
    if row.output.is_dir() and not codec.is_folder:
        raise TalkheadError(f"{row.output}: is a folder. Pass the name of a file")


def _clashes(rows: list[Row]) -> dict[int, str]:
    """Map the lines of rows that would overwrite an input, or the output of another row, to reasons."""
    clashes: dict[int, str] = {}
    inputs = {_normalized(path): row.line for row in rows for path in row.inputs}
    input_folders = {
        str(folder): line for path, line in inputs.items() for folder in Path(path).parents
    }
    writers: dict[str, int] = {}
    for row in rows:
        targets = {_normalized(path): path for path in row.outputs}
        for target, path in targets.items():
            if target in inputs:
                clashes[row.line] = (
                    f"{path}: is an input of line {inputs[target]}. Choose another output"
                )
            elif target in input_folders:
                clashes[row.line] = f"{path}: contains an input of line {input_folders[target]}"
            elif target in writers:
                clashes[row.line] = f"{path}: is also written by line {writers[target]}"
            if row.line in clashes:
                break
        for target in targets:
            writers.setdefault(target, row.line)
    return clashes


def _normalized(path: Path) -> str:
    """Normalize a path: equal results denote the same file."""
    return os.path.normcase(os.path.realpath(path))
