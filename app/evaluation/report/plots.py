"""Plots as inline SVG whose colours are the page's: classes and variables, no fixed colours.

Hand-made, since a page that is light or dark, printed or on a phone, wants lines that follow its
style sheet, and since the same figures must make the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from talkhead.face import OUTER_LIPS
from talkhead.types import FRAME_RATE

ROW_S = 15.0
"""Seconds in one row of a plot over time: more can't be told apart on a page's width."""
MAX_ROWS = 8
ROW_WIDTH, ROW_HEIGHT = 1080, 150
SCORE_WIDTH, SCORE_HEIGHT = 340, 180
LEFT, RIGHT, TOP, BOTTOM = 38, 14, 8, 22
"""Pixels around the plotted area, for the numbers."""
N_LIP_POINTS = 40


@dataclass(frozen=True)
class Curve:
    """A line: values y [n] at rising x [n], NaN where there is none. style: its CSS classes."""

    label: str
    style: str
    x: Sequence[float]
    y: Sequence[float]

    @property
    def known(self) -> bool:
        """Whether there is anything to draw."""
        return any(math.isfinite(value) for value in self.y)


@dataclass(frozen=True)
class Level:
    """A straight line through the whole plot, at a value of x or y, with its CSS classes."""

    value: float
    style: str


@dataclass(frozen=True)
class Axes:
    """From values to pixels of a drawing of a width and height. x, y: ranges, low below high."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int
    height: int

    def left(self, x: float) -> float:
        """Pixels from the left of a value of x."""
        share = (x - self.x[0]) / (self.x[1] - self.x[0])
        return LEFT + share * (self.width - LEFT - RIGHT)

    def top(self, y: float) -> float:
        """Pixels from the top of a value of y."""
        share = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.height - BOTTOM - share * (self.height - TOP - BOTTOM)


def time_rows(curves: Sequence[Curve], silent: Sequence[bool] = (), about: str = "") -> list[str]:
    """SVGs of curves over seconds, ROW_S each, at most MAX_ROWS; y from 0, alike in all rows.

    silent: one a frame, shaded where true. Empty where no curve has a value.
    """
    curves = [curve for curve in curves if curve.known]
    if not curves:
        return []
    end = max(curve.x[-1] for curve in curves)
    n_rows = min(MAX_ROWS, max(1, math.ceil(end / ROW_S)))
    row_s = min(ROW_S, max(1.0, math.ceil(2 * end / n_rows) / 2))
    y_range = (0.0, _range(curves)[1])
    shaded = list(_runs(silent))
    rows = []
    for row in range(n_rows):
        x_range = (row * row_s, (row + 1) * row_s)
        axes = Axes(x_range, y_range, ROW_WIDTH, ROW_HEIGHT)
        rows.append(_plot(axes, curves, shaded, (), (), f"{about}, from {x_range[0]:g} s", 15))
    return rows


def score_plot(
    curves: Sequence[Curve],
    *,
    across: Sequence[Level] = (),
    down: Sequence[Level] = (),
    beside: Sequence[Curve] = (),
    about: str = "",
) -> str:
    """One SVG of curves over lags, with lines across at values of y and down at values of x.

    beside: curves of other plots that this one is compared with, which want the same range of y.
    Empty where no curve has a value.
    """
    curves = [curve for curve in curves if curve.known]
    if not curves:
        return ""
    known = [x for curve in curves for x in curve.x]
    x_range = min(known), max(known)
    if x_range[0] == x_range[1]:
        x_range = x_range[0] - 1, x_range[1] + 1
    y_range = _range([*curves, *beside], [level.value for level in across])
    axes = Axes(x_range, y_range, SCORE_WIDTH, SCORE_HEIGHT)
    return _plot(axes, curves, (), across, down, about, 8)


def lip_drawing(
    real: Sequence[Sequence[float]], made: Sequence[Sequence[float]], reach: float, style: str
) -> str:
    """An SVG of two lip shapes [40][2] (face.LIPS, y down) over one another: the real filled, the
    made in outline, in a box of 2 reach by reach. Empty where a shape is not known."""
    if not (_is_shape(real) and _is_shape(made)) or not reach > 0:
        return ""
    shapes = "".join(
        f'<path class="{kind}" d="{_contours(shape, reach)}"/>'
        for kind, shape in (("lips", real), (f"line {style}", made))
    )
    return _svg(112, 56, "lips, real and made", shapes, "lip")


def reach_of(shapes: Sequence[Sequence[Sequence[float]]]) -> float:
    """How far the points of shapes [40][2] go from their middle, half the width of a drawing."""
    known = [np.abs(shape).max(0) for shape in shapes if _is_shape(shape)]
    return float(max((max(x, 2 * y) for x, y in known), default=0.0)) * 1.06


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from low to high, at most `most` and one more: steps of 1, 2 or 5."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) + 0.0 for i in range(first, last + 1)]


def _plot(
    axes: Axes,
    curves: Sequence[Curve],
    shaded: Sequence[tuple[float, float]],
    across: Sequence[Level],
    down: Sequence[Level],
    about: str,
    most_ticks: int,
) -> str:
    right, floor = axes.width - RIGHT, axes.height - BOTTOM
    parts = []
    for start, end in shaded:
        start, end = max(start, axes.x[0]), min(end, axes.x[1])
        if start < end:
            x, width = axes.left(start), axes.left(end) - axes.left(start)
            box = f'x="{x:.1f}" y="{TOP}" width="{width:.1f}" height="{floor - TOP}"'
            parts.append(f'<rect class="silent" {box}/>')
    for value in ticks(*axes.y, 4):
        parts.append(_line("grid", LEFT, right, axes.top(value), axes.top(value)))
        parts.append(_text(LEFT - 5, axes.top(value) + 4, f"{value:g}", "end"))
    for value in ticks(*axes.x, most_ticks):
        x = axes.left(value)
        parts.append(_line("grid", x, x, floor, floor + 4))
        parts.append(_text(x, axes.height - 5, f"{value:g}", "middle"))
    for level in across:
        if math.isfinite(level.value):
            y = axes.top(level.value)
            parts.append(_line(level.style, LEFT, right, y, y))
    for level in down:
        if axes.x[0] <= level.value <= axes.x[1]:
            x = axes.left(level.value)
            parts.append(_line(level.style, x, x, TOP, floor))
    parts += [f'<path class="line {c.style}" d="{_path(c, axes)}"/>' for c in curves]
    return _svg(axes.width, axes.height, about, "".join(parts), "plot")


def _path(curve: Curve, axes: Axes) -> str:
    """SVG path data of the part of a curve inside the axes; a lone point becomes a dot."""
    low, high = axes.x
    steps, pen_down = [], False
    for x, y in zip(curve.x, curve.y, strict=True):
        if not low - 1e-9 <= x <= high + 1e-9 or not math.isfinite(y):
            pen_down = False
            continue
        place = f"{axes.left(x):.1f} {axes.top(y):.1f}"
        steps.append(f"L{place}" if pen_down else f"M{place}h0")
        pen_down = True
    return "".join(steps)


def _range(curves: Sequence[Curve], more: Sequence[float] = ()) -> tuple[float, float]:
    """Range of all known values, with a little room."""
    known = [y for curve in curves for y in curve.y if math.isfinite(y)]
    known += [value for value in more if math.isfinite(value)]
    low, high = min(known), max(known)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def _runs(silent: Sequence[bool]) -> Iterator[tuple[float, float]]:
    """Start and end in seconds of the runs of true frames."""
    edges = np.flatnonzero(np.diff(np.pad(np.asarray(silent, dtype=np.int8), 1)))
    for start, end in edges.reshape(-1, 2):
        yield (start - 0.5) / FRAME_RATE, (end - 0.5) / FRAME_RATE


def _is_shape(points: Sequence[Sequence[float]]) -> bool:
    return np.shape(points) == (N_LIP_POINTS, 2) and bool(np.isfinite(points).all())


def _contours(points: Sequence[Sequence[float]], reach: float) -> str:
    scale, n_outer = 112 / (2 * reach), len(OUTER_LIPS)
    places = [f"{56 + scale * x:.1f} {28 + scale * y:.1f}" for x, y in points]
    return "".join(f"M{'L'.join(part)}Z" for part in (places[:n_outer], places[n_outer:]))


def _line(style: str, x1: float, x2: float, y1: float, y2: float) -> str:
    place = f'x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"'
    return f'<line class="{style}" {place}/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, about: str, inside: str, style: str) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg class="{style}" {size} role="img" aria-label="{escape(about)}">{inside}</svg>'
