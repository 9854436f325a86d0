"""Plots as inline SVG in the colors of the page: CSS classes and variables, no fixed colors.

Written by hand, because a page that is light or dark, printed or on a phone, needs lines that follow
its style sheet, and because equal results must give equal bytes.
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
"""Seconds in one row of a plot over time: more cannot be distinguished on a page's width."""
MAX_ROWS = 8
ROW_WIDTH, ROW_HEIGHT = 1080, 150
SCORE_WIDTH, SCORE_HEIGHT = 340, 180
LEFT, RIGHT, TOP, BOTTOM = 38, 14, 8, 22
"""Pixels around the plotted area, for axis labels."""
N_LIP_POINTS = 40


@dataclass(frozen=True)
class Curve:
    """A line of a plot.

    Attributes:
        label: Its name.
        style: CSS classes.
        x: Positions [n], ascending.
        y: Values [n]; NaN where there is none.
    """

    label: str
    style: str
    x: Sequence[float]
    y: Sequence[float]

    @property
    def known(self) -> bool:
        """True if there is anything to draw."""
        return any(math.isfinite(value) for value in self.y)


@dataclass(frozen=True)
class Level:
    """A straight line through the whole plot.

    Attributes:
        value: Its position on the x or y axis.
        style: CSS classes.
    """

    value: float
    style: str


@dataclass(frozen=True)
class Axes:
    """Conversion of values to pixels of a drawing.

    Attributes:
        x: Lowest and highest x.
        y: Lowest and highest y.
        width: Width of the drawing in pixels.
        height: Height of the drawing in pixels.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    width: int
    height: int

    def left(self, x: float) -> float:
        """Convert a value of x.

        Args:
            x: The value.

        Returns:
            Pixels from the left.
        """
        share = (x - self.x[0]) / (self.x[1] - self.x[0])
        return LEFT + share * (self.width - LEFT - RIGHT)

    def top(self, y: float) -> float:
        """Convert a value of y.

        Args:
            y: The value.

        Returns:
            Pixels from the top.
        """
        share = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.height - BOTTOM - share * (self.height - TOP - BOTTOM)


def time_rows(curves: Sequence[Curve], silent: Sequence[bool] = (), about: str = "") -> list[str]:
    """Plot curves over time in rows of ROW_S, at most MAX_ROWS, with one range of y from 0.

    Args:
        curves: Curves over seconds.
        silent: Flag of each frame, [F]; shaded where true.
        about: Description for screen readers.

    Returns:
        One SVG per row; none if no curve has a value.
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
    """Plot curves over lags.

    Args:
        curves: Curves over milliseconds.
        across: Horizontal lines.
        down: Vertical lines.
        beside: Curves of other plots that this one is compared with, for a common range of y.
        about: Description for screen readers.

    Returns:
        One SVG; "" if no curve has a value.
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
    """Draw two lip shapes over each other: the real one filled, the made one in outline.

    Args:
        real: Points [40][2] in the order of `face.LIPS`, y down.
        made: Points [40][2].
        reach: Half the width of the drawing, in the points' unit.
        style: CSS classes of the made lips.

    Returns:
        One SVG; "" if a shape is unknown.
    """
    if not (_is_shape(real) and _is_shape(made)) or not reach > 0:
        return ""
    shapes = "".join(
        f'<path class="{kind}" d="{_contours(shape, reach)}"/>'
        for kind, shape in (("lips", real), (f"line {style}", made))
    )
    return _svg(112, 56, "lips, real and made", shapes, "lip")


def reach_of(shapes: Sequence[Sequence[Sequence[float]]]) -> float:
    """Compute half the width of a drawing that all shapes fit into.

    Args:
        shapes: Lips [40][2] each, centered.

    Returns:
        Half the width; 0 without a known shape.
    """
    known = [np.abs(shape).max(0) for shape in shapes if _is_shape(shape)]
    return float(max((max(x, 2 * y) for x, y in known), default=0.0)) * 1.06


def ticks(low: float, high: float, count: int) -> list[float]:
    """Choose round numbers for an axis, in steps of 1, 2 or 5 times a power of ten.

    Args:
        low: Lowest value.
        high: Highest value.
        count: Desired number of intervals; there are not more.

    Returns:
        The numbers from low to high.
    """
    rough = (high - low) / count
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
    max_ticks: int,
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
    for value in ticks(*axes.x, max_ticks):
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
    """Make SVG path data of the part of a curve inside the axes; an isolated point becomes a dot."""
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
    """Compute the range of all known values, with a small margin."""
    known = [y for curve in curves for y in curve.y if math.isfinite(y)]
    known += [value for value in more if math.isfinite(value)]
    low, high = min(known), max(known)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def _runs(silent: Sequence[bool]) -> Iterator[tuple[float, float]]:
    """Yield start and end in seconds of the runs of true frames."""
    edges = np.flatnonzero(np.diff(np.pad(np.asarray(silent, dtype=np.int8), 1)))
    for start, end in edges.reshape(-1, 2):
        yield (start - 0.5) / FRAME_RATE, (end - 0.5) / FRAME_RATE


def _is_shape(points: Sequence[Sequence[float]]) -> bool:
    """True if the points are known: finite and of shape [40][2]."""
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
