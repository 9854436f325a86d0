"""Write a report: report.html, one file that loads nothing from elsewhere, and report.json.

The page is report.html.j2; this module provides its tables, plots and pictures.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

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
from talkhead.app.evaluation.report.tables import (
    NOTHING,
    describe_differences,
    folds_table,
    format_value,
    label_digits,
    lmd_bars,
    make_tables,
    text_table,
)
from talkhead.app.evaluation.report.verdicts import (
    VerdictInputs,
    headline,
    verdicts,
    weakest_verdict,
)
from talkhead.app.evaluation.results import Report, Variant
from talkhead.storage import make_folder, translate_os_errors, write_bytes, write_json
from talkhead.types import FRAME_RATE, UInt8

HTML, JSON = "report.html", "report.json"
TEMPLATE = Path(__file__).with_name("report.html.j2")
VIDEO_BYTES = 4_500_000
"""Larger videos are not embedded: in base64 they need a third more."""
PICTURE_BYTES = 1_500_000
CELL_HEIGHTS = (240, 170, 120, 80)
"""Heights of pictures, of which the first that fits into PICTURE_BYTES is used, or else the last."""
JPEG_QUALITY = 85
N_STYLES = 6
"""Colors of the page for variants other than the real video; they repeat after that."""
SECTIONS = {
    "video": "Side by side", "metrics": "Metrics", "folds": "Cross-validated lips",
    "validity": "Which metrics can be trusted", "opening": "Lip opening",
    "lmd": "Lip distance", "sync_model": "Sync model",
    "visemes": "Visemes", "sheets": "Contact sheets", "worst": "Worst frames",
    "cross": "Other recording", "offset": "A/V offset of the clip",
    "stages": "Speed and memory", "left_out": "Left out",
}  # fmt: skip
"""Sections of the page by their id, in their order."""


@dataclass(frozen=True)
class Sheet:
    """Rows of images under one title.

    Attributes:
        title: Heading.
        rows: Label and RGB images [h, w, 3] of each row.
        captions: Captions of the columns, such as frame indices; may be empty.
    """

    title: str
    rows: Sequence[tuple[str, Sequence[UInt8]]]
    captions: Sequence[str] = ()


@dataclass(frozen=True)
class WorstFrame:
    """A frame with a poor result. The report shows the difference of its images, too.

    Attributes:
        index: Index of the frame in the source.
        about: The measure by which it is poor.
        real: Real image [h, w, 3], RGB.
        made: Rendered image [h, w, 3], RGB.
    """

    index: int
    about: str
    real: UInt8
    made: UInt8


@dataclass(frozen=True)
class Pictures:
    """Pictures of a report; each may be missing.

    Attributes:
        video: An mp4 that browsers play (H.264, yuv420p), embedded up to VIDEO_BYTES.
        video_about: What it shows.
        sheets: Contact sheets.
        worst: Frames with poor results.
        silent: Mask [F] of the frames without speech, from the first to the last evaluated one.
    """

    video: Path | None = None
    video_about: str = ""
    sheets: tuple[Sheet, ...] = ()
    worst: tuple[WorstFrame, ...] = ()
    silent: tuple[bool, ...] = ()


def write_report(report: Report, pictures: Pictures, folder: Path) -> Path:
    """Write report.html and report.json atomically into a folder.

    Equal results and pictures give equal bytes. Sections without data are omitted.

    Args:
        report: The results.
        pictures: The pictures.
        folder: The folder, made if necessary.

    Returns:
        The path of the page.

    Raises:
        TalkheadError: The video cannot be read, or a file cannot be written.
    """
    page = _render(report, pictures)
    make_folder(folder)
    write_json(folder / JSON, report.to_json())
    write_bytes(folder / HTML, page.encode())
    return folder / HTML


def describe(report: Report) -> str:
    """Summarize a report for a terminal.

    Args:
        report: The results.

    Returns:
        The main measures of each variant, the verdicts, and what limits the results.
    """
    found = verdicts(report)
    lines = [report.title, ""]
    table = text_table(report.variants)
    if table:
        lines += [*table, ""]
    lines += _described_folds(report)
    width = max((len(v.about) for v in found), default=0)
    for verdict in found:
        lines.append(f"{verdict.level:<8}  {verdict.about:<{width}}  {verdict.text}")
        lines += [f"{'':<{10 + width}}  To do: {verdict.advice}"] * bool(verdict.advice)
    lines += [""] * bool(found)
    lines += [f"Warning: {warning}" for warning in report.warnings]
    lines += [f"Left out: {what}" for what in _left_out(report)]
    weakest = weakest_verdict(found)
    if weakest is not None:
        where = SECTIONS.get(weakest.section, SECTIONS["metrics"])
        lines.append(f'Start with "{where}" in {HTML}: {weakest.about.lower()}.')
    elif found:
        lines.append(f"No problem was found. Watch the video in {HTML} all the same.")
    return "\n".join(lines).rstrip()


def _described_folds(report: Report) -> list[str]:
    """Summarize cross-validated lips for a terminal; no lines without them."""
    found = report.cross_validation
    if found is None:
        return []
    title = f"{SECTIONS['folds']}, {found.n_frames} frames in {found.n_folds} folds"
    table = text_table([row.variant for row in found.rows])
    return [title, "", *table, "", *describe_differences(found), ""]


def _left_out(report: Report) -> tuple[str, ...]:
    """List what the report lacks, and why."""
    n_frames = [variant.sync.n_frames for variant in report.variants if variant.sync is not None]
    if not n_frames or any(n_frames):
        return report.left_out
    return (*report.left_out, "Sync model: the audio is too short to measure the sync")


# -------------------------------------------------------------------------------- page


def _render(report: Report, pictures: Pictures) -> str:
    """Render the page."""
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
        "metrics": make_tables(report.variants),
        "folds": _folds(report),
        "validity": [(one, label_digits(one.measure)) for one in report.validity],
        "opening": _opening(report, pictures, styles),
        "lmd": _lmd(report, pictures, styles),
        "sync_model": _sync_model(report.variants, styles),
        "visemes": _visemes(_evaluated(report), styles),
        **_encoded(pictures),
        "cross": make_tables(report.cross),
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
        weakest=weakest_verdict(found),
        bars=lmd_bars(report.variants),
        sections={key: name for key, name in SECTIONS.items() if context[key]},
        gain=DIFFERENCE_GAIN,
        frame_rate=FRAME_RATE,
        max_seconds=MAX_ROWS * ROW_S,
        nothing=NOTHING,
        **context,
    )


def variant_styles(report: Report) -> dict[str, str]:
    """Choose CSS classes of the variants, the same in all tables and plots.

    Args:
        report: The results.

    Returns:
        Classes by name: a color, and dashes for baselines.
    """
    styles: dict[str, str] = {}
    colors = itertools.count()
    folded = report.cross_validation.rows if report.cross_validation else ()
    every = (*report.variants, *report.cross, *(row.variant for row in folded))
    for variant in sorted(every, key=lambda v: v.kind == "baseline"):
        if variant.name not in styles:
            own = variant.kind in ("real", "floor")
            color = variant.kind if own else f"s{next(colors) % N_STYLES}"
            is_baseline = variant.kind == "baseline"
            styles[variant.name] = f"{color} dashed" if is_baseline else color
    return styles


def _folds(report: Report) -> dict[str, Any]:
    """Make the table of cross-validated lips; empty if there are none."""
    found = report.cross_validation
    table = None if found is None else folds_table(found)
    if found is None or table is None:
        return {}
    return {"of": found, "table": table, "differences": describe_differences(found)}


# ------------------------------------------------------------------------------- plots


def _over_time(values: Mapping[str, Sequence[float]], styles: Mapping[str, str]) -> Iterator[Curve]:
    """Yield a curve of each variant's values per frame."""
    for name, series in values.items():
        yield Curve(name, styles[name], [i / FRAME_RATE for i in range(len(series))], series)


def _evaluated(report: Report) -> list[Variant]:
    """List the variants that plots over time show: the evaluated one, and that of the renderer alone."""
    inputs = VerdictInputs.of(report)
    return list({v.name: v for v in (inputs.tracked, inputs.made) if v is not None}.values())


def _opening(report: Report, pictures: Pictures, styles: Mapping[str, str]) -> dict[str, Any]:
    """Plot the lip opening of real and rendered video over time; empty if none is known."""
    evaluated = _evaluated(report)
    shown = {v.name: v.aperture for v in report.variants if v.kind == "real" or v in evaluated}
    return _time_plot(shown, styles, pictures, "lip opening over time")


def _lmd(report: Report, pictures: Pictures, styles: Mapping[str, str]) -> dict[str, Any]:
    """Plot the lip distance over time with codec floor and baselines; empty if none is known."""
    evaluated, others = _evaluated(report), ("floor", "baseline")
    shown = {v.name: v.lmd_px for v in report.variants if v.kind in others or v in evaluated}
    return _time_plot(shown, styles, pictures, "distance of the lip points over time")


def _time_plot(
    values: Mapping[str, Sequence[float]],
    styles: Mapping[str, str],
    pictures: Pictures,
    about: str,
) -> dict[str, Any]:
    """Plot values per frame of each variant; empty if none is known."""
    curves = [curve for curve in _over_time(values, styles) if curve.known]
    rows = time_rows(curves, pictures.silent, about)
    seconds = max((len(curve.x) for curve in curves), default=0) / FRAME_RATE
    return (
        {"rows": [Markup(row) for row in rows], "curves": curves, "seconds": seconds}
        if rows
        else {}
    )


def _sync_model(
    variants: Sequence[Variant], styles: Mapping[str, str]
) -> list[tuple[Variant, Markup]]:
    """Plot the sync model's scores over lags, one plot per variant, with the offset found."""
    known = [(v, v.sync) for v in variants if v.sync is not None and v.sync.n_frames]
    curves = [Curve(v.name, styles[v.name], sync.lags_ms, sync.scores) for v, sync in known]
    plots = []
    for (variant, sync), curve in zip(known, curves, strict=True):
        found = [] if sync.offset_ms is None else [Level(sync.offset_ms, "found")]
        down, about = [Level(0, "zero"), *found], f"scores of the sync model for {variant.name}"
        svg = score_plot([curve], down=down, beside=curves, about=about)
        plots += [(variant, Markup(svg))] if svg else []
    return plots


def _visemes(
    variants: Sequence[Variant], styles: Mapping[str, str]
) -> list[tuple[Variant, list[Any]]]:
    """Draw the viseme rows of each variant, all at one scale."""
    known = [variant for variant in variants if variant.visemes]
    shapes = [s for v in known for row in v.visemes for s in (row.real_shape, row.made_shape)]
    reach = reach_of(shapes)
    return [
        (
            variant,
            [
                (row, Markup(lip_drawing(row.real_shape, row.made_shape, reach, style)))
                for row in variant.visemes
            ],
        )
        for variant in known
        for style in (styles[variant.name],)
    ]


def _offset(report: Report) -> dict[str, Any]:
    """Plot each method's estimate of the clip's own offset; empty if it was not measured."""
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
            about=f"scores over lags by {found.method}",
        )
        evidence.append((found, Markup(svg)))
    return {"evidence": evidence, "of": report.offset}


# ---------------------------------------------------------------------------- pictures


def _video(pictures: Pictures) -> tuple[str, tuple[str, ...]]:
    """Encode the video as a data URI, "" without one; explain if it is too large to be embedded."""
    if pictures.video is None:
        return "", ()
    with translate_os_errors(pictures.video):
        data = pictures.video.read_bytes()
    if len(data) > VIDEO_BYTES:
        return "", (f"the side-by-side video: {len(data) / 1e6:.1f} MB are too large for a page",)
    return f"data:video/mp4;base64,{base64.b64encode(data).decode()}", ()


def _encoded(pictures: Pictures) -> dict[str, Any]:
    """Encode sheets and worst frames as data URIs, as high as PICTURE_BYTES allows."""
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
    """Encode an image [h, w, 3] as the data URI of a JPEG of at most a height."""
    small = scaled_down(image, height)
    _, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
