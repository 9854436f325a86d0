"""A report to be read: report.html, one file that needs nothing else, and report.json beside it.

The page is report.html.j2; this module puts the figures, plots and pictures in its order.
"""

from __future__ import annotations

import base64
import itertools
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from talkhead.app.evaluation.measures.registry import MEASURES, Measure
from talkhead.app.evaluation.report.contact_sheets import DIFFERENCE_GAIN, difference, scaled_down
from talkhead.app.evaluation.report.plots import (
    MAX_ROWS,
    ROW_S,
    Curve,
    Level,
    lip_drawing,
    reach_of,
    score_plot,
    time_rows,
)
from talkhead.app.evaluation.report.verdicts import VerdictInputs, first_look, headline, verdicts
from talkhead.app.evaluation.results import Report, Summary, Variant
from talkhead.storage import make_folder, translate_os_errors, write_bytes, write_json
from talkhead.types import FRAME_RATE, UInt8

HTML, JSON = "report.html", "report.json"
TEMPLATE = Path(__file__).with_name("report.html.j2")
VIDEO_BYTES = 4_500_000
"""A larger video is not embedded: in base64 it takes a third more."""
PICTURE_BYTES = 1_500_000
CELL_HEIGHTS = (240, 170, 120, 80)
"""Pictures are made as high as fits into PICTURE_BYTES, the last at any size."""
JPEG_QUALITY = 85
N_STYLES = 6
"""Colours of the page for takes other than real and floor; further takes begin anew."""
NOTHING = "\N{EN DASH}"
GROUPS = {
    "Images": ("images",),
    "Outline of the head alone": ("cutout",),
    "Lips": ("lips",),
    "Phonemes": ("phonemes",),
    "Sync": ("sync", "syncnet"),
}
KINDS = {"real": "real", "floor": "best case", "made": "made", "baseline": "baselines"}
ARROWS = {"more": "\N{UPWARDS ARROW}", "less": "\N{DOWNWARDS ARROW}", "real": "\N{ALMOST EQUAL TO}"}
NOTES = (
    Measure("images.n_frames", "frames", "", "real", 0, "frames with images compared"),
    Measure("cutout.n_frames", "frames", "", "real", 0, "frames whose outline was looked at"),
    Measure("lips.n_tracked", "tracked", "", "real", 0, "frames with a face in real and made"),
    Measure("lips.n_lost", "lost", "", "real", 0, "frames with a face in the real one only"),
    Measure("lips.n_silent", "silent", "", "real", 0, "frames in which nothing is said"),
    Measure(
        "phonemes.closure_chance", "by chance", "", "real", 2, "closed in stretches of any speech"
    ),
    Measure("phonemes.n_vowels", "vowels", "", "real", 0, "open vowels heard"),
    Measure("phonemes.n_bilabials", "p b m", "", "real", 0, "p, b, m heard"),
    Measure("sync.n_frames", "frames", "", "real", 0, "frames that the judge saw"),
    Measure("syncnet.offset_frames", "SyncNet offset", "frames", "real", 0, "by SyncNet"),
)
"""Columns that are no measure of quality: how much a figure rests on, what chance gives."""
MAIN = (
    "images.psnr_head.mean", "images.psnr_mouth.mean", "images.sharpness.median",
    "lips.lmd_px.mean", "lips.aperture_correlation", "lips.aperture_spread",
    "lips.closure_f1_at_rate", "lips.silence_leak", "phonemes.closure_rate",
    "sync.offset_ms", "sync.confidence",
)  # fmt: skip
"""Measures that the terminal shows."""
NAME_WIDTH = 28
"""Letters of a take's name in the terminal's table."""
SECTIONS = {
    "video": "Side by side", "figures": "Figures", "rankings": "Which measures to believe",
    "opening": "Lip opening", "lmd": "Lip distance", "judge": "Judge", "visemes": "Visemes",
    "sheets": "Contact sheets", "worst": "Worst frames", "cross": "Other speech",
    "offset": "Offset of the clip", "stages": "Speed and memory", "left_out": "Left out",
}  # fmt: skip


@dataclass(frozen=True)
class Sheet:
    """Rows of images under one title. rows: label and RGB images [h, w, 3]. captions: of columns,
    such as the frames' numbers; may be empty."""

    title: str
    rows: Sequence[tuple[str, Sequence[UInt8]]]
    captions: Sequence[str] = ()


@dataclass(frozen=True)
class WorstFrame:
    """A frame that came out badly. number: in the source. about: by which measure, how badly. real,
    made: RGB [h, w, 3] of one size; the report shows their difference, too."""

    number: int
    about: str
    real: UInt8
    made: UInt8


@dataclass(frozen=True)
class Pictures:
    """What the report shows besides figures; each may be missing.

    video: an mp4 of at most VIDEO_BYTES that browsers play (H.264, yuv420p), embedded; video_about:
    what is where in it. silent: [F] bool, frames of the takes in which nothing is said.
    """

    video: Path | None = None
    video_about: str = ""
    sheets: tuple[Sheet, ...] = ()
    worst: tuple[WorstFrame, ...] = ()
    silent: tuple[bool, ...] = ()


def write_report(report: Report, pictures: Pictures, folder: Path) -> Path:
    """Write report.html and report.json into a folder, each whole or not at all; the page's path.

    The same figures and pictures give the same bytes. Sections without data are left out.
    Raises TalkheadError when the video can't be read or a file can't be written.
    """
    page = _render(report, pictures)
    make_folder(folder)
    write_json(folder / JSON, report.to_json())
    write_bytes(folder / HTML, page.encode())
    return folder / HTML


def describe(report: Report) -> str:
    """The report in brief for a terminal: the main measures of each take, then what to know."""
    found = verdicts(report)
    lines = [report.title, ""]
    columns = [m for m in MEASURES if m.key in MAIN]
    columns = [m for m in columns if any(m.of(take) is not None for take in report.takes)]
    if columns:
        lines += [*_text_table(report.takes, columns), ""]
    width = max((len(v.about) for v in found), default=0)
    for verdict in found:
        lines.append(f"{verdict.level:<8}  {verdict.about:<{width}}  {verdict.text}")
        lines += [f"{'':<{10 + width}}  To do: {verdict.advice}"] * bool(verdict.advice)
    lines += [""] * bool(found)
    lines += [f"Warning: {warning}" for warning in report.warnings]
    lines += [f"Left out: {what}" for what in _left_out(report)]
    weakest = first_look(found)
    if weakest is not None:
        where = SECTIONS.get(weakest.look, SECTIONS["figures"])
        lines.append(f'Look first at "{where}" in {HTML}: {weakest.about.lower()}.')
    elif found:
        lines.append(f"Nothing stands out. Watch the video in {HTML} all the same.")
    return "\n".join(lines).rstrip()


def _left_out(report: Report) -> tuple[str, ...]:
    """What the report lacks, and why."""
    heard = [take.sync.n_frames for take in report.takes if take.sync is not None]
    if not heard or any(heard):
        return report.left_out
    return (*report.left_out, "Judge, sync: the sound is too short to hear whether lips fit it")


def _text_table(takes: Sequence[Variant], columns: Sequence[Measure]) -> list[str]:
    """Lines of an aligned table, its labels over several lines."""
    heads = [textwrap.wrap(_labelled(m), 9, break_long_words=False) for m in columns]
    cells = [[format_value(m.of(take), m.digits) for m in columns] for take in takes]
    names = [textwrap.shorten(take.name, NAME_WIDTH, placeholder=" ...") for take in takes]
    first = max(map(len, names), default=0)
    widths = [
        max(map(len, [*head, *column]))
        for head, column in zip(heads, zip(*cells, strict=True), strict=True)
    ]
    height = max(map(len, heads))
    heads = [[""] * (height - len(head)) + head for head in heads]
    rows = [("", row) for row in zip(*heads, strict=True)]
    rows += [(name, tuple(row)) for name, row in zip(names, cells, strict=True)]
    return [
        f"{name:<{first}}" + "".join(f"  {c:>{w}}" for c, w in zip(row, widths, strict=True))
        for name, row in rows
    ]


def format_value(value: float | None, digits: int) -> str:
    """A value with so many digits behind the point; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{round(value, digits) + 0.0:.{digits}f}"


# -------------------------------------------------------------------------------- page


def _render(report: Report, pictures: Pictures) -> str:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["num"] = format_value
    page = environment.from_string(TEMPLATE.read_text("utf-8"))
    styles = variant_styles(report)
    found = verdicts(report)
    video, refusal = _video(pictures)
    context: dict[str, Any] = {
        "video": video,
        "figures": _tables(report.takes),
        "rankings": [(r, _digits_of(r.measure)) for r in report.rankings],
        "opening": _opening(report, pictures, styles),
        "lmd": _lmd(report, pictures, styles),
        "judge": _judge(report.takes, styles),
        "visemes": _visemes(_judged(report), styles),
        **_encoded(pictures),
        "cross": _tables(report.cross),
        "offset": _offset(report),
        "stages": report.stages,
        "left_out": [*_left_out(report), *refusal],
    }
    return page.render(
        report=report,
        pictures=pictures,
        styles=styles,
        verdicts=found,
        headline=headline(found),
        weakest=first_look(found),
        bars=_bars(report.takes),
        sections={key: name for key, name in SECTIONS.items() if context[key]},
        gain=DIFFERENCE_GAIN,
        frame_rate=FRAME_RATE,
        most_seconds=MAX_ROWS * ROW_S,
        nothing=NOTHING,
        **context,
    )


def variant_styles(report: Report) -> dict[str, str]:
    """CSS classes of each take's name, alike in all tables and plots: a colour, and dashes for
    baselines."""
    styles: dict[str, str] = {}
    numbers = itertools.count()
    for take in sorted((*report.takes, *report.cross), key=lambda t: t.kind == "baseline"):
        if take.name not in styles:
            own = take.kind in ("real", "floor")
            color = take.kind if own else f"s{next(numbers) % N_STYLES}"
            styles[take.name] = f"{color} dashed" if take.kind == "baseline" else color
    return styles


@dataclass(frozen=True)
class Cell:
    """A value as text. tail: its worst twentieth, "" if it has none. about: the tooltip."""

    text: str
    tail: str = ""
    about: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Measures of takes. blocks: one a kind, each take with its cells; notes: the last columns."""

    title: str
    columns: tuple[Measure, ...]
    notes: tuple[Measure, ...]
    blocks: tuple[tuple[str, tuple[tuple[Variant, tuple[Cell, ...]], ...]], ...]
    arrows: Mapping[str, str]
    missing: tuple[str, ...]  # labels of measures that no take has


def _tables(takes: Sequence[Variant]) -> list[Table]:
    """One table a group of measures of which any take has a value."""
    tables = []
    for title, parts in GROUPS.items():
        every, notes = (
            [m for m in known if m.key.split(".")[0] in parts] for known in (MEASURES, NOTES)
        )
        columns = tuple(m for m in every if any(m.of(take) is not None for take in takes))
        notes = [m for m in notes if any(m.of(take) is not None for take in takes)]
        if not columns and not any(m.of(take) for m in notes for take in takes):
            continue
        best = {m.key: _best(m, takes) for m in columns}
        blocks = []
        for kind, name in KINDS.items():
            rows = [
                (take, tuple(_cell(m, take, best.get(m.key, ())) for m in (*columns, *notes)))
                for take in takes
                if take.kind == kind and any(getattr(take, part) is not None for part in parts)
            ]
            blocks += [(name, tuple(rows))] if rows else []
        missing = tuple(m.label for m in every if m not in columns)
        tables.append(Table(title, columns, tuple(notes), tuple(blocks), ARROWS, missing))
    return tables


def _best(measure: Measure, takes: Sequence[Variant]) -> tuple[float, ...]:
    """The best value of the takes that were made, as a tuple; empty with fewer than two."""
    values = [v for t in takes if t.kind == "made" and (v := measure.of(t)) is not None]
    if len(values) < 2:
        return ()
    if measure.better == "more":
        return (max(values),)
    if measure.better == "less":
        return (min(values),)
    of_real = [v for t in takes if t.kind == "real" and (v := measure.of(t)) is not None]
    target = of_real[0] if measure.real is None and of_real else measure.real
    return () if target is None else (min(values, key=lambda v: abs(v - target)),)


def _cell(measure: Measure, take: Variant, best: tuple[float, ...]) -> Cell:
    value = measure.of(take)
    text = format_value(value, measure.digits)
    is_best = take.kind == "made" and text in [format_value(v, measure.digits) for v in best]
    part, _, inside = measure.key.partition(".")
    summary = getattr(getattr(take, part), inside.split(".")[0], None)
    if value is None or not isinstance(summary, Summary):
        return Cell(text, best=is_best)
    mean, median, tail = (
        format_value(v, measure.digits) for v in (summary.mean, summary.median, summary.tail)
    )
    about = f"mean {mean}, median {median}, the worst twentieth of the frames from {tail}"
    return Cell(text, tail, about, is_best)


def _bars(takes: Sequence[Variant]) -> list[tuple[Variant, float, float]]:
    """Lip distance of each take, with its share of the largest in percent."""
    measure = next(m for m in MEASURES if m.key == "lips.lmd_px.mean")
    known = [(t, v) for t in takes if t.kind != "real" and (v := measure.of(t)) is not None]
    most = max((value for _, value in known), default=0.0)
    return [(take, v, 100 * v / most) for take, v in known] if most > 0 and len(known) > 1 else []


def _labelled(measure: Measure) -> str:
    return f"{measure.label} {measure.unit}".rstrip()


def _digits_of(name: str) -> int:
    """Digits of the measure of that key or label."""
    return next((m.digits for m in MEASURES if name in (m.key, m.label)), 3)


# ------------------------------------------------------------------------------- plots


def _over_time(values: Mapping[str, Sequence[float]], styles: Mapping[str, str]) -> Iterator[Curve]:
    for name, series in values.items():
        yield Curve(name, styles[name], [i / FRAME_RATE for i in range(len(series))], series)


def _judged(report: Report) -> list[Variant]:
    """The takes that plots over time show: the one that is judged and the renderer's alone."""
    scene = VerdictInputs.of(report)
    return list({t.name: t for t in (scene.tracked, scene.made) if t is not None}.values())


def _opening(report: Report, pictures: Pictures, styles: Mapping[str, str]) -> dict[str, Any]:
    """Lip opening of real and made over time; empty where none is known."""
    shown = {t.name: t.aperture for t in report.takes if t.kind == "real" or t in _judged(report)}
    return _time_plot(shown, styles, pictures, "lip opening over time")


def _lmd(report: Report, pictures: Pictures, styles: Mapping[str, str]) -> dict[str, Any]:
    """Lip distance over time, beside floor and baselines; empty where none is known."""
    beside = ("floor", "baseline")
    shown = {t.name: t.lmd_px for t in report.takes if t.kind in beside or t in _judged(report)}
    return _time_plot(shown, styles, pictures, "distance of the lip points over time")


def _time_plot(
    values: Mapping[str, Sequence[float]],
    styles: Mapping[str, str],
    pictures: Pictures,
    about: str,
) -> dict[str, Any]:
    curves = [curve for curve in _over_time(values, styles) if curve.known]
    rows = time_rows(curves, pictures.silent, about)
    seconds = max((len(curve.x) for curve in curves), default=0) / FRAME_RATE
    return {"rows": _marked(rows), "curves": curves, "seconds": seconds} if rows else {}


def _judge(takes: Sequence[Variant], styles: Mapping[str, str]) -> list[tuple[Variant, Markup]]:
    """The judge's score over lags, one plot a take, with the lag that it found."""
    known = [(take, take.sync) for take in takes if take.sync is not None and take.sync.n_frames]
    curves = [Curve(t.name, styles[t.name], sync.lags_ms, sync.scores) for t, sync in known]
    plots = []
    for (take, sync), curve in zip(known, curves, strict=True):
        found = [] if sync.offset_ms is None else [Level(sync.offset_ms, "found")]
        down, about = [Level(0, "zero"), *found], f"the judge's scores of {take.name}"
        svg = score_plot([curve], down=down, beside=curves, about=about)
        plots += [(take, Markup(svg))] if svg else []
    return plots


def _visemes(
    takes: Sequence[Variant], styles: Mapping[str, str]
) -> list[tuple[Variant, list[Any]]]:
    """Each made take's viseme rows with their drawings, all of one scale."""
    known = [take for take in takes if take.visemes]
    reach = reach_of([s for t in known for v in t.visemes for s in (v.real_shape, v.made_shape)])
    return [
        (
            take,
            [
                (row, Markup(lip_drawing(row.real_shape, row.made_shape, reach, styles[take.name])))
                for row in take.visemes
            ],
        )
        for take in known
    ]


def _offset(report: Report) -> dict[str, Any]:
    """What each means says of the clip's own offset, with its plot; empty where none was asked."""
    if report.offset is None:
        return {}
    evidence = []
    for found in report.offset.evidence:
        curve = Curve("score", "s0", found.lags_ms, found.scores)
        at = [] if found.offset_ms is None else [Level(found.offset_ms, "found")]
        svg = score_plot(
            [curve],
            across=[Level(found.control, "control")],
            down=[Level(0, "zero"), *at],
            about=f"scores over lags by {found.means}",
        )
        evidence.append((found, Markup(svg)))
    return {"evidence": evidence, "of": report.offset}


def _marked(rows: Sequence[str]) -> list[Markup]:
    return [Markup(row) for row in rows]


# ---------------------------------------------------------------------------- pictures


def _video(pictures: Pictures) -> tuple[str, tuple[str, ...]]:
    """The video as a data URI, "" without one, and why it is not embedded if it is too large."""
    if pictures.video is None:
        return "", ()
    with translate_os_errors(pictures.video):
        data = pictures.video.read_bytes()
    if len(data) > VIDEO_BYTES:
        return "", (f"the side-by-side video: {len(data) / 1e6:.1f} MB are too many for a page",)
    return f"data:video/mp4;base64,{base64.b64encode(data).decode()}", ()


def _encoded(pictures: Pictures) -> dict[str, Any]:
    """Sheets and worst frames with their images as data URIs, as high as the budget allows."""
    shown: dict[str, Any] = {}
    for height in CELL_HEIGHTS:
        sheets = [
            (sheet, [(label, [_jpeg(i, height) for i in images]) for label, images in sheet.rows])
            for sheet in pictures.sheets
            if any(len(images) for _, images in sheet.rows)
        ]
        worst = [
            (w, [_jpeg(i, height) for i in (w.real, w.made, difference(w.real, w.made))])
            for w in pictures.worst
        ]
        shown = {"sheets": sheets, "worst": worst}
        rows = [images for _, sheet in sheets for _, images in sheet]
        rows += [images for _, images in worst]
        if sum(len(uri) for images in rows for uri in images) <= PICTURE_BYTES:
            break
    return shown


def _jpeg(image: UInt8, height: int) -> str:
    """An image as the data URI of a JPEG, at most so high."""
    small = scaled_down(image, height)
    _, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
