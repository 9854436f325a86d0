"""Tables of a report: the registered measures of each variant, for the page and for the terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from talkhead.app.evaluation.measures.registry import (
    KINDS,
    Measure,
    find_measure,
    quality_measures,
    registered,
)
from talkhead.app.evaluation.results import CrossValidation, Summary, Variant

NOTHING = "\N{EN DASH}"
ROW_TITLES = {"real": "real", "floor": "best case", "made": "made", "baseline": "baselines"}
"""Title of the rows of each kind of variant, in their order."""
ARROWS = {"more": "\N{UPWARDS ARROW}", "less": "\N{DOWNWARDS ARROW}", "real": "\N{ALMOST EQUAL TO}"}
LMD = "lips.lmd_px.mean"
MAIN = (
    "images.psnr_head.mean", "images.psnr_mouth.mean", "images.sharpness.median",
    LMD, "lips.aperture_correlation", "lips.aperture_spread",
    "lips.closure_f1_at_rate", "lips.silence_leak", "phonemes.closure_rate",
    "sync.offset_ms", "sync.confidence",
)  # fmt: skip
"""Keys of the measures that the terminal shows."""
NAME_WIDTH = 28
"""Characters of a variant's name in the terminal's table."""


def format_value(value: float | None, digits: int) -> str:
    """Format a value.

    Args:
        value: The value; None or NaN if there is none.
        digits: Decimal places.

    Returns:
        The value as text; a dash if there is none.
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{round(value, digits) + 0.0:.{digits}f}"


@dataclass(frozen=True)
class Cell:
    """One value of a table.

    Attributes:
        text: The value as text.
        tail: Where the worst twentieth of the frames begins; "" for single values.
        about: Text of the tooltip.
        best: True for the best of the made variants.
    """

    text: str
    tail: str = ""
    about: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Measures of variants.

    Attributes:
        title: Heading.
        columns: Measures of quality.
        notes: Other columns, such as counts of frames, after them.
        blocks: For each kind of variant its title and its variants with their cells.
        arrows: Symbol of each direction.
        missing: Labels of the measures for which no variant has a value.
    """

    title: str
    columns: tuple[Measure, ...]
    notes: tuple[Measure, ...]
    blocks: tuple[tuple[str, tuple[tuple[Variant, tuple[Cell, ...]], ...]], ...]
    arrows: Mapping[str, str]
    missing: tuple[str, ...]


def make_tables(variants: Sequence[Variant]) -> list[Table]:
    """Make a table of each group of registered measures.

    Args:
        variants: The rows.

    Returns:
        One table for each title of the registered kinds, without groups that have no value.
    """
    titles: dict[str, list[str]] = {}
    for kind in KINDS.values():
        titles.setdefault(kind.title, []).append(kind.name)
    tables = [_table(title, kinds, variants) for title, kinds in titles.items()]
    return [table for table in tables if table is not None]


def _table(title: str, kinds: Sequence[str], variants: Sequence[Variant]) -> Table | None:
    """Make the table of some kinds of measures; None if no variant has a value."""
    known = [measure for measure in registered() if measure.kind in kinds]
    every = [measure for measure in known if measure.better is not None]
    columns = tuple(m for m in every if _has_value(m, variants))
    notes = tuple(m for m in known if m.better is None and _has_value(m, variants))
    if not columns and not any(m.of(variant) for m in notes for variant in variants):
        return None
    best = {m.key: _best(m, variants) for m in columns}
    blocks = []
    for variant_kind, name in ROW_TITLES.items():
        rows = [
            (variant, tuple(_cell(m, variant, best.get(m.key, ())) for m in (*columns, *notes)))
            for variant in variants
            if variant.kind == variant_kind
            and any(getattr(variant, kind) is not None for kind in kinds)
        ]
        blocks += [(name, tuple(rows))] if rows else []
    missing = tuple(m.label for m in every if m not in columns)
    return Table(title, columns, notes, tuple(blocks), ARROWS, missing)


def _has_value(measure: Measure, variants: Sequence[Variant]) -> bool:
    return any(measure.of(variant) is not None for variant in variants)


def _best(measure: Measure, variants: Sequence[Variant]) -> tuple[float, ...]:
    """Find the best value of the made variants, as a tuple; empty with fewer than two."""
    values = [v for t in variants if t.kind == "made" and (v := measure.of(t)) is not None]
    if len(values) < 2:
        return ()
    if measure.better == "more":
        return (max(values),)
    if measure.better == "less":
        return (min(values),)
    of_real = [v for t in variants if t.kind == "real" and (v := measure.of(t)) is not None]
    target = of_real[0] if measure.target is None and of_real else measure.target
    return () if target is None else (min(values, key=lambda v: abs(v - target)),)


def _cell(measure: Measure, variant: Variant, best: tuple[float, ...]) -> Cell:
    value = measure.of(variant)
    text = format_value(value, measure.digits)
    is_best = variant.kind == "made" and text in [format_value(v, measure.digits) for v in best]
    results = getattr(variant, measure.kind)
    summary = None if results is None else results.get(measure.name)
    if value is None or not isinstance(summary, Summary):
        return Cell(text, best=is_best)
    mean, median, tail = (
        format_value(v, measure.digits) for v in (summary.mean, summary.median, summary.tail)
    )
    about = f"mean {mean}, median {median}, the worst twentieth of the frames from {tail}"
    return Cell(text, tail, about, is_best)


def folds_table(found: CrossValidation) -> Table | None:
    """Make the table of cross-validated lips.

    Args:
        found: Its rows.

    Returns:
        The table, with the 95 % interval in place of the tail; None if no row has a value.
    """
    table = _table("Lips", ("lips",), [row.variant for row in found.rows])
    if table is None:
        return None
    measures = (*table.columns, *table.notes)
    intervals = {row.name: row.intervals for row in found.rows}

    def with_interval(variant: Variant, measure: Measure, cell: Cell) -> Cell:
        low, high = intervals[variant.name].get(measure.name, (math.nan, math.nan))
        if not math.isfinite(low):
            return replace(cell, tail="", about="")
        ends = f"{format_value(low, measure.digits)} to {format_value(high, measure.digits)}"
        return replace(cell, tail=ends, about=f"95 % interval: {ends}")

    blocks = []
    for title, rows in table.blocks:
        shown = [
            (variant, tuple(map(with_interval, [variant] * len(cells), measures, cells)))
            for variant, cells in rows
        ]
        blocks.append((title, tuple(shown)))
    return replace(table, blocks=tuple(blocks))


def describe_differences(found: CrossValidation) -> list[str]:
    """Say how much nearer to the real lips speech is than each baseline.

    Args:
        found: The results.

    Returns:
        A sentence for each baseline.
    """
    lines, about = [], {row.name: row.about for row in found.rows}
    for name, one in found.differences.items():
        way = "nearer to" if one.mean < 0 else "farther from"
        certainty = "may be chance"
        if one.is_sure:
            low, high = sorted((abs(one.low), abs(one.high)))
            certainty = f"95 % interval {low:.2f} to {high:.2f}"
        lines.append(
            f"Speech-driven lips are {abs(one.mean):.2f} px {way} the real ones than "
            f"{about[name]} ({certainty})."
        )
    return lines


def lmd_bars(variants: Sequence[Variant]) -> list[tuple[Variant, float, float]]:
    """Compare the lip distance of the variants.

    Args:
        variants: All variants.

    Returns:
        Each variant but the real video with its lip distance in pixels and the share of the largest
        in percent; empty with fewer than two.
    """
    measure = find_measure(LMD)
    known = [(t, v) for t in variants if t.kind != "real" and (v := measure.of(t)) is not None]
    most = max((value for _, value in known), default=0.0)
    if most <= 0 or len(known) < 2:
        return []
    return [(variant, value, 100 * value / most) for variant, value in known]


def label_digits(name: str) -> int:
    """Look up the decimal places of a measure.

    Args:
        name: Key or label of a measure.

    Returns:
        Its decimal places; 3 for an unknown name.
    """
    return next((m.digits for m in registered() if name in (m.key, m.label)), 3)


def text_table(variants: Sequence[Variant]) -> list[str]:
    """Make the terminal's table of the main measures.

    Args:
        variants: The rows.

    Returns:
        Aligned lines, with labels over several of them; none if no measure has a value.
    """
    columns = [m for m in quality_measures() if m.key in MAIN and _has_value(m, variants)]
    if not columns:
        return []
    labels = [f"{m.label} {m.unit}".rstrip() for m in columns]
    heads = [textwrap.wrap(label, 9, break_long_words=False) for label in labels]
    cells = [[format_value(m.of(variant), m.digits) for m in columns] for variant in variants]
    names = [textwrap.shorten(v.name, NAME_WIDTH, placeholder=" ...") for v in variants]
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
