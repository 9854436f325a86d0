"""Read and validate the table of videos to dub. All invalid rows are found before any work starts.

A table is CSV with a header, JSON lines, or in YAML a list of mappings or a single one. Its columns are
the fields of `Row`, those of whole videos, and those of OutputOptions. Paths are relative to the folder
of the table.
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
from talkhead.app.choices import DEFAULT_PRESET, MODES, PRESETS, SOURCE
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
from talkhead.app.dubbing.video_columns import (
    LINES,
    SPEAKERS,
    VIDEO_COLUMNS,
    check_line_files,
    read_line_settings,
    read_speakers,
)
from talkhead.app.dubbing.video_dub import LineSettings, report_path
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
        audio: The speech; None if the row has timed lines.
        output: The video to write.
        identity: Name of the identity that speaks, or the folder of its package.
        video: Footage of the person who speaks; fitted first if necessary, and re-lipped frame by
            frame with the option `timeline`. With timed lines, the video in which they are spoken.
        renderer: Name of the renderer.
        mode: Mode of `speak`.
        preset: Preset of the fit.
        options: The fields of OutputOptions that the row sets, as JSON values.
        dub: The timed lines of a whole video.
    """

    line: int
    audio: Path | None
    output: Path
    identity: str = ""
    video: Path | None = None
    renderer: str = ""
    mode: str = "paste"
    preset: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    dub: LineSettings | None = None

    @property
    def keeps_footage(self) -> bool:
        """True if `video` is re-lipped frame by frame."""
        return build_options(self.options).keeps_footage

    @property
    def inputs(self) -> list[Path]:
        """The files that the row reads."""
        given = [path for path in (self.audio, self.video) if path is not None]
        spoken = [] if self.dub is None else self.dub.files
        return [*given, *spoken, *named_files(self.options)]

    @property
    def outputs(self) -> list[Path]:
        """The output and the files that are written next to it."""
        files = output_files(self.output, build_options(self.options))
        return files if self.dub is None else [*files, report_path(self.output)]


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
        reads_files: Call `check_files` for each row.

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
            row = _resolved(row, resolve)
            if reads_files:
                check_files(row)
            rows.append(row)
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


def _resolved(row: Row, resolve: Callable[[str], str]) -> Row:
    """Replace the identities of a row by names and absolute folders."""
    dub = row.dub
    if dub is not None:
        speakers = {name: resolve(identity) for name, identity in dub.speakers.items()}
        dub = dataclasses.replace(dub, speakers=speakers)
    return dataclasses.replace(row, identity=resolve(row.identity), dub=dub)


def check_files(row: Row) -> None:
    """Check the content of the expressions, lines, video and bed of a row. Messages may quote files.

    Args:
        row: The row.

    Raises:
        TalkheadError: A file is damaged or does not fit the row.
    """
    if "expression" in row.options:
        check_track(row.options["expression"], row.mode)
    if row.dub is not None and row.video is not None:
        check_line_files(row.dub, row.video)


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


OWN_COLUMNS = tuple(
    f.name for f in dataclasses.fields(Row) if f.name not in ("line", "options", "dub")
)


def columns() -> tuple[str, ...]:
    """List the names of all columns: the fields of a row, those of whole videos, the output options."""
    return (*OWN_COLUMNS, *VIDEO_COLUMNS, *declared_options())


def _row(line: int, cells: Mapping[str, Any], folder: Path) -> Row:
    """Make a row from its cells. Raise TalkheadError if it is invalid."""
    if "" in cells:
        raise TalkheadError(str(cells[""]))
    values = {column_name(name): value for name, value in cells.items()}
    speakers = read_speakers(values.pop(SPEAKERS, None))
    given = {name: cell_text(name, value) for name, value in values.items()}
    given = {name: text for name, text in given.items() if text}
    if unknown := sorted(set(given) - set(columns())):
        raise TalkheadError(
            f"unknown column {unknown[0]!r}. The columns are: {', '.join(columns())}"
        )
    if "audio" not in given and LINES not in given:
        raise TalkheadError("audio is missing. Pass it, or lines")
    if "output" not in given:
        raise TalkheadError("output is missing")
    dub = read_line_settings(given, speakers, folder)
    row = Row(
        line=line,
        audio=resolve_path(given["audio"], folder) if "audio" in given else None,
        output=resolve_path(given["output"], folder),
        identity=given.get("identity", ""),
        video=resolve_path(given["video"], folder) if "video" in given else None,
        renderer=given.get("renderer", ""),
        mode=given.get("mode", "paste"),
        preset=given.get("preset", ""),
        options=_options(given if dub is None else {**given, "timeline": SOURCE}, folder),
        dub=dub,
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
    named = [] if row.dub is None else [Path(row.dub.lines), row.dub.bed_file]
    for path in (row.audio, row.video, *named, options.certificate, options.key, options.drive):
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
