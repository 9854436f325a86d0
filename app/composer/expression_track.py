"""Expression tracks: which expressions a face shows, and how the head moves, at which time.

They are read from a file or a text.

Names are the 51 coefficients of ARKit, which the face landmarker measures as well, a few named
expressions, and motions of the head. A coefficient is an absolute value, 0 to 1. A named expression or
turn of the head is relative to the person: 0 is their usual face, 1 the strongest that their footage
shows.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkhead.blendshapes import BLENDSHAPES
from talkhead.errors import TalkheadError
from talkhead.storage import decode_json, existing_file

if TYPE_CHECKING:
    from talkhead.types import Float64

NAMED_EXPRESSIONS: Mapping[str, Mapping[str, float]] = {
    "smile": {"mouthSmileLeft": 1, "mouthSmileRight": 1},
    "frown": {"mouthFrownLeft": 1, "mouthFrownRight": 1},
    "brows_up": {"browInnerUp": 1, "browOuterUpLeft": 1, "browOuterUpRight": 1},
    "brows_down": {"browDownLeft": 1, "browDownRight": 1},
    "wide_eyes": {"eyeWideLeft": 1, "eyeWideRight": 1},
    "squint": {"eyeSquintLeft": 1, "eyeSquintRight": 1},
    "blink": {"eyeBlinkLeft": 1, "eyeBlinkRight": 1},
    "look_left": {
        "eyeLookOutRight": 1, "eyeLookInLeft": 1, "eyeLookInRight": -1, "eyeLookOutLeft": -1,
    },
    "look_right": {
        "eyeLookOutLeft": 1, "eyeLookInRight": 1, "eyeLookInLeft": -1, "eyeLookOutRight": -1,
    },
    "look_up": {
        "eyeLookUpLeft": 1, "eyeLookUpRight": 1, "eyeLookDownLeft": -1, "eyeLookDownRight": -1,
    },
    "look_down": {
        "eyeLookDownLeft": 1, "eyeLookDownRight": 1, "eyeLookUpLeft": -1, "eyeLookUpRight": -1,
    },
}  # fmt: skip
"""Named expressions: coefficients that go to the upper (1) or lower (-1) end of the person's range. Left
and right are those of the picture; in coefficients they are the person's own, as in ARKit."""
TURNS = (("turn_left", "turn_right"), ("turn_down", "turn_up"))
"""Turns of the head to the sides of the picture, and in pitch: 1 is as far as the footage shows."""
HEAD_MOTION = "head_motion"
"""Factor on the motion of head and body: 0 is still, 1 as filmed."""
HEAD_NAMES = (*TURNS[0], *TURNS[1], HEAD_MOTION)
COEFFICIENTS = BLENDSHAPES[1:]
TRACK_FILES = (".csv", ".json", ".txt")
"""Suffixes of files: a table, a list of objects, or the text of a track."""
TIME = "time"
RELEASED = ("-", "")
"""Values that end an expression: the face follows the footage again."""
EASE_S = 0.24
"""Time in which an expression begins before its first value, and ends when it is released."""
MAX_VALUES = 1_000_000
"""Largest number of values in a track: 13 minutes of all coefficients at 25 per second."""
MAX_TIME_S, MIN_STEP_S = 1e6, 1e-3
"""Latest time, and least time from one value to the next, seconds."""
ROUNDING = 0.01
"""How far values may be outside of 0 to 1."""
TIMECODE, TIMECODE_RATE = "timecode", 60
"""Column of times in the tables of Live Link Face, and its frames per second."""
IGNORED = frozenset(
    name.lower()
    for name in (
        "BlendShapeCount", "TongueOut", "HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw",
        "LeftEyePitch", "LeftEyeRoll", "RightEyeYaw", "RightEyePitch", "RightEyeRoll",
    )
)  # fmt: skip
"""Columns of such tables that the landmarker does not measure, or that repeat others."""
JSON_FORM = 'is not a list of objects with a time, such as [{"time": 0, "smile": 0.5}]'
_KNOWN = {name.lower(): name for name in (*COEFFICIENTS, *NAMED_EXPRESSIONS, *HEAD_NAMES)}


@dataclass(frozen=True)
class ExpressionTrack:
    """Values of expressions by time.

    Attributes:
        curves: For each expression, its times in seconds, ascending, and its values in [0, 1]. None ends
            the expression.
    """

    curves: Mapping[str, tuple[tuple[float, float | None], ...]]

    @property
    def moves_the_head(self) -> bool:
        """True if the head moves by the track, which needs mode "head"."""
        return any(name in self.curves for name in HEAD_NAMES)

    @property
    def moves_the_face(self) -> bool:
        """True if it sets an expression."""
        return any(name not in HEAD_NAMES for name in self.curves)

    def at(self, name: str, times: Float64) -> tuple[Float64, Float64]:
        """Evaluate an expression.

        Between two values, it is interpolated by a monotone cubic (Fritsch and Carlson 1980), which has
        no overshoot. The last value holds until the end. Where one stretch ends while the next one
        begins, they are averaged.

        Args:
            name: An expression of the track.
            times: Times [F], seconds.

        Returns:
            Values [F], and their weights [F] in [0, 1]; with weight 0, the expression is not set.
        """
        import numpy as np
        from scipy.interpolate import PchipInterpolator

        from talkhead.easing import smooth_step

        total, weights, shares = (np.zeros(len(times)) for _ in range(3))
        before = -math.inf  # end of the stretch before
        for points, end in _stretches(self.curves[name]):
            at, level = (np.array(column) for column in zip(*points, strict=True))
            begins = max(at[0] - EASE_S, before) if at[0] > 0.0 else -math.inf
            chosen = (times > begins) & (times < end + EASE_S)
            # A repeated value before the first and after the last one makes the curve flat there.
            curve = PchipInterpolator(
                np.concatenate([[at[0] - 1.0], at, [at[-1] + 1.0]]),
                np.concatenate([level[:1], level, level[-1:]]),
            )
            values = curve(np.clip(times[chosen], at[0], at[-1]))
            rise = 1.0 if begins == -math.inf else (times[chosen] - begins) / EASE_S
            share = smooth_step(np.minimum(rise, (end + EASE_S - times[chosen]) / EASE_S))
            total[chosen] += share * values
            shares[chosen] += share
            weights[chosen] = np.maximum(weights[chosen], share)
            before = end
        return np.clip(total / np.maximum(shares, 1e-12), 0.0, 1.0), weights


def _stretches(
    curve: Iterable[tuple[float, float | None]],
) -> list[tuple[list[tuple[float, float]], float]]:
    """Split a curve at its releases: values of each stretch, and the time of its end."""
    found: list[tuple[list[tuple[float, float]], float]] = []
    points: list[tuple[float, float]] = []
    for time, value in curve:
        if value is not None:
            points.append((time, value))
        elif points:
            found.append((points, time))
            points = []
    return [*found, (points, math.inf)] if points else found


def track_file(text: str) -> Path | None:
    """Return the file that the option `expression` names.

    Args:
        text: Value of the option.

    Returns:
        The file; None if the text is the track itself.

    Raises:
        TalkheadError: The file does not exist.
    """
    found = existing_file(text)
    if found is None and Path(text).suffix.lower() in TRACK_FILES and "=" not in text:
        raise TalkheadError(f"{text}: there is no such file. Check the path of the expressions")
    return found


def read_track(text: str) -> ExpressionTrack:
    """Read an expression track.

    Args:
        text: Path of a file, or the track itself: entries such as "1.5: smile=0.6,
            brows_up=1", separated by ";". An entry without a time holds from the start. "-" instead of a
            value ends an expression.

    Returns:
        The track.

    Raises:
        TalkheadError: It cannot be read; the message names the line or entry.
    """
    path = track_file(text)
    if path is None:
        return _collected(_inline_rows(text), "expression")
    if path.suffix.lower() not in TRACK_FILES:
        raise TalkheadError(
            f"{path}: is not a file of expressions. Pass a .csv, .json or .txt file"
        )
    try:
        content = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TalkheadError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return _collected(_inline_rows(content), str(path))
    rows = _json_rows(content, path) if suffix == ".json" else _csv_rows(content, path)
    return _collected(rows, str(path))


def check_track(text: str, mode: str) -> None:
    """Check that an expression track can be read, and suits a mode.

    Args:
        text: See read_track.
        mode: "paste" or "head".

    Raises:
        TalkheadError: It cannot be read, or moves the head of footage.
    """
    track = read_track(text)
    if track.moves_the_head and mode != "head":
        named = next(name for name in HEAD_NAMES if name in track.curves)
        raise TalkheadError(
            f"{named} needs --mode head: {mode} keeps the head of the person's own footage"
        )


def write_track(text: str, folder: Path) -> Path:
    """Write a track that is given as a text, so that it cannot name a file.

    Args:
        text: Content of a file: a table, a list of objects in JSON, or a text as in `read_track`.
        folder: Folder for the file.

    Returns:
        The file.

    Raises:
        TalkheadError: It is not a track.
    """
    start = text.lstrip("\ufeff \t\r\n")
    header = re.split(r"[,;\t]", start.partition("\n")[0].lower())
    is_table = "=" not in start and {TIME, TIMECODE} & {name.strip() for name in header}
    suffix = ".json" if start.startswith("[") else ".csv" if is_table else ".txt"
    path = folder / f"expression{suffix}"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        read_track(str(path))
    except TalkheadError as error:
        raise TalkheadError(str(error).replace(str(path), "expression")) from error
    return path


Row = tuple[str, float, Mapping[str, Any]]
"""Place for messages, time in seconds, and values by name."""


def _inline_rows(text: str) -> Iterator[Row]:
    """Parse the entries of a text. Those without a time are one row."""
    rows: list[tuple[str, str, str]] = []
    for entry in filter(str.strip, re.split(r"[;\n]", text)):
        time, colon, values = entry.rpartition(":")
        rows.append((f"{entry.strip()!r}", time if colon else "", values))
    if not rows:
        raise TalkheadError("expression: the text is empty. Write smile=0.5, for example")
    timeless = ",".join(values for _, time, values in rows if not time)
    if timeless:
        first = next(place for place, time, _ in rows if not time)
        rows = [(first, "0", timeless), *(row for row in rows if row[1])]
    for place, time, values in rows:
        yield place, _number(time, f"expression {place}", TIME), _inline_values(values, place)


def _inline_values(text: str, place: str) -> dict[str, str]:
    """Parse "smile=0.5, brows_up=-"."""
    values: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name:
            raise TalkheadError(
                f"expression {place}: {part.strip()!r} is not an expression. Write smile=0.5, or "
                "1.5:smile=0.5 from 1.5 s on, or the path of a .csv or .json file"
            )
        if name in values:
            raise TalkheadError(f"expression {place}: {name} is given twice")
        values[name] = "-" if value == "" else value
    return values


def _csv_rows(content: str, path: Path) -> Iterator[Row]:
    """Parse a table with a column of times and one for each expression; empty cells set nothing.

    The separator may be a semicolon or a tab, with decimal commas. The tables of Live Link Face are
    understood: times in the column "Timecode", hours:minutes:seconds:frames of 60 per second.
    """
    header = content.partition("\n")[0]
    separator = next((one for one in (",", ";", "\t") if one in header), ",")
    reader = csv.reader(io.StringIO(content), delimiter=separator)
    try:
        names = [name.strip() for name in next(reader, [])]
        lower = [name.lower() for name in names]
        if len(set(lower)) < len(lower):
            twice = next(name for name in lower if lower.count(name) > 1)
            raise TalkheadError(f"{path}: has two columns {twice!r}. Remove one")
        at = next((lower.index(name) for name in (TIME, TIMECODE) if name in lower), None)
        if at is None:
            raise TalkheadError(
                f"{path}: has no column {TIME!r}. The first line names the columns: "
                "time,smile,browInnerUp"
            )
        start = None
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            place = f"line {reader.line_num}"
            if len(cells) != len(names):
                raise TalkheadError(
                    f"{path}, {place}: has {len(cells)} values, not {len(names)}, one for each column"
                )
            values = [c.strip() if separator == "," else c.strip().replace(",", ".") for c in cells]
            time = _time(values[at], f"{path}, {place}", lower[at] == TIMECODE)
            if lower[at] == TIMECODE:
                start = time if start is None else start
                time -= start
            named = zip(names, values, strict=True)
            yield place, time, {name: v for i, (name, v) in enumerate(named) if v and i != at}
    except csv.Error as error:
        raise TalkheadError(f"{path}, line {reader.line_num}: cannot be read ({error})") from error


def _time(text: str, where: str, is_timecode: bool) -> float:
    """Parse seconds, or hours:minutes:seconds:frames."""
    if not is_timecode:
        return _number(text, where, TIME)
    parts = text.split(":")
    if len(parts) != 4:
        raise TalkheadError(f"{where}: {TIMECODE} is {text!r}, not hours:minutes:seconds:frames")
    hours, minutes, seconds, frames = (_number(part, where, TIMECODE) for part in parts)
    return 3600.0 * hours + 60.0 * minutes + seconds + frames / TIMECODE_RATE


def _json_rows(content: str, path: Path) -> Iterator[Row]:
    """Parse a list of objects with a time and values; null ends an expression."""
    try:
        entries = decode_json(content)
    except ValueError as error:
        raise TalkheadError(f"{path}: is not JSON ({error})") from error
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise TalkheadError(f"{path}: {JSON_FORM}")
    for number, entry in enumerate(entries, start=1):
        place = f"entry {number}"
        times = [value for name, value in entry.items() if name.lower() == TIME]
        if len(times) != 1:
            raise TalkheadError(f"{path}, {place}: {JSON_FORM}")
        time = _number(times[0], f"{path}, {place}", TIME)
        others = ((name, value) for name, value in entry.items() if name.lower() != TIME)
        yield place, time, {name: "-" if value is None else value for name, value in others}


def _collected(rows: Iterable[Row], source: str) -> ExpressionTrack:
    """Collect the values of rows by name. Raise TalkheadError if a name, time or value is wrong."""
    curves: dict[str, list[tuple[float, float | None]]] = {}
    last, n_values = -math.inf, 0
    for place, time, values in rows:
        where = f"{source}, {place}" if source != "expression" else f"expression {place}"
        _check_time(time, last, where)
        last = time
        for written, value in values.items():
            if written.lower() in IGNORED:
                continue
            name = _known_name(written, where)
            curve = curves.setdefault(name, [])
            if curve and curve[-1][0] == time:
                raise TalkheadError(f"{where}: {name} is given twice")
            curve.append((time, None if value in RELEASED else _level(value, where, written)))
            n_values += 1
        if n_values > MAX_VALUES:
            raise TalkheadError(
                f"{source}: has more than {MAX_VALUES:,} values. Leave out columns that are not needed, "
                "or give fewer times"
            )
    if not any(value is not None for curve in curves.values() for _, value in curve):
        raise TalkheadError(f"{source}: sets no expression. Give at least one value")
    return ExpressionTrack({name: tuple(curve) for name, curve in curves.items()})


def _check_time(time: float, last: float, where: str) -> None:
    """Raise TalkheadError if a time is out of range, or not later than the last one."""
    if not 0.0 <= time <= MAX_TIME_S:
        raise TalkheadError(
            f"{where}: the time {time:g} is not between 0 and {MAX_TIME_S:g} s. Times are in seconds"
        )
    if time < last + MIN_STEP_S:
        raise TalkheadError(
            f"{where}: the time {time:g} is not after {last:g}. Sort by time, with one entry for each"
        )


def _level(value: Any, where: str, name: str) -> float:
    """Convert a value; rounding errors beyond 0 and 1 are removed."""
    level = _number(value, where, name)
    if not -ROUNDING <= level <= 1.0 + ROUNDING:
        raise TalkheadError(f"{where}: {name} is {level:g}. Choose 0 to 1, or - to end it")
    return min(max(level, 0.0), 1.0)


def _number(value: Any, where: str, name: str) -> float:
    """Convert a value. Raise TalkheadError if it is not a finite number."""
    try:
        number = float(value.strip().removesuffix("s") if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, bool):
        raise TalkheadError(f"{where}: {name} is {repr(value)[:60]}, which is not a number")
    return number


def _known_name(name: str, where: str) -> str:
    """Return the spelling of a name. Raise TalkheadError if it is unknown."""
    if found := _KNOWN.get(name.lower()):
        return found
    near = difflib.get_close_matches(name.lower(), _KNOWN, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(_KNOWN[one] for one in near)}? " if near else ""
    raise TalkheadError(
        f"{where}: there is no expression {name[:60]!r}. {hint}Named ones are "
        f"{', '.join((*NAMED_EXPRESSIONS, *HEAD_NAMES))}; all others are coefficients of ARKit"
    )
