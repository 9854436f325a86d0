"""Plots: places of values, gaps, round ticks, escaped texts."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from talkhead.app.evaluation.report.plots import (
    MAX_ROWS,
    ROW_S,
    Axes,
    Curve,
    Level,
    lip_drawing,
    reach_of,
    score_plot,
    ticks,
    time_rows,
)

SQUARE = [[-1.0, -0.5], [1.0, -0.5], [1.0, 0.5], [-1.0, 0.5]] * 10


def over_time(seconds: float, value: float = 1.0) -> Curve:
    n = round(seconds * 25)
    return Curve("a", "s0", [i / 25 for i in range(n)], [value] * n)


def paths(svg: str) -> list[str]:
    return [e.attrib["d"] for e in ElementTree.fromstring(svg).iter("path")]


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-600, 600, 8, [-600, -400, -200, 0, 200, 400, 600]),
        (0.011, 0.052, 4, [0.02, 0.04]),
        (12.5, 25, 15, list(range(13, 26))),
    ],
)
def test_ticks_are_round(low: float, high: float, most: int, expected: list[float]) -> None:
    assert ticks(low, high, most) == pytest.approx(expected)


def test_axes_put_the_ends_at_the_edges_and_larger_values_higher() -> None:
    axes = Axes((10.0, 20.0), (0.0, 1.0), 200, 100)
    left, right = axes.left(10), axes.left(20)
    assert 0 < left < right < 200
    assert axes.left(15) == pytest.approx((left + right) / 2)
    assert 0 < axes.top(1) < axes.top(0.5) < axes.top(0) < 100


def test_a_gap_breaks_the_line_and_a_lone_value_is_a_dot() -> None:
    nan = math.nan
    curve = Curve("a", "s0", [0, 1, 2, 3, 4, 5], [1.0, 2.0, nan, 1.0, nan, 2.0])
    (path,) = paths(score_plot([curve]))
    assert re.sub(r"[\d. ]+", "", path) == "MhLMhMh"


def test_no_known_value_gives_no_plot() -> None:
    nothing = Curve("a", "s0", [0.0, 1.0], [math.nan, math.nan])
    assert time_rows([nothing]) == []
    assert score_plot([nothing]) == score_plot([]) == ""
    assert len(paths(score_plot([nothing, over_time(1)]))) == 1


@pytest.mark.parametrize(
    ("seconds", "rows"), [(0.04, 1), (6.5, 1), (ROW_S, 1), (16, 2), (60, 4), (3600, MAX_ROWS)]
)
def test_rows_cover_the_time_once(seconds: float, rows: int) -> None:
    svgs = time_rows([over_time(seconds)])
    assert len(svgs) == rows
    points = sum(re.sub(r"[^LM]", "", path).count("") - 1 for s in svgs for path in paths(s))
    whole = round(min(seconds, MAX_ROWS * ROW_S) * 25)
    assert whole <= points <= whole + rows  # a frame at the seam is in both rows


def test_silence_is_shaded_where_it_is() -> None:
    silent = [False] * 25 + [True] * 50 + [False] * 25
    (svg,) = time_rows([over_time(4)], silent)
    (box,) = ElementTree.fromstring(svg).iter("rect")
    axes = Axes((0.0, 4.0), (0.0, 1.0), int(ElementTree.fromstring(svg).attrib["width"]), 1)
    assert float(box.attrib["x"]) == pytest.approx(axes.left(1 - 0.02), abs=0.1)
    width = axes.left(3 - 0.02) - axes.left(1 - 0.02)
    assert float(box.attrib["width"]) == pytest.approx(width, abs=0.1)


def test_levels_are_drawn_inside_the_plot_only() -> None:
    curve = Curve("a", "s0", [-100.0, 0.0, 100.0], [0.0, 1.0, 0.0])
    across = [Level(2.5, "control"), Level(math.nan, "control")]
    svg = score_plot([curve], across=across, down=[Level(40, "found"), Level(500, "found")])
    styles = [e.attrib["class"] for e in ElementTree.fromstring(svg).iter("line")]
    assert styles.count("control") == styles.count("found") == 1
    (control,) = (e for e in ElementTree.fromstring(svg).iter("line") if "control" in str(e.attrib))
    assert 0 < float(control.attrib["y1"]) < 180


def test_plots_side_by_side_share_their_range() -> None:
    low, high = (Curve("a", "s0", [0.0, 1.0], [0.0, top]) for top in (1.0, 10.0))
    alone, beside = score_plot([low]), score_plot([low], beside=[low, high])
    assert ">10<" in beside and ">10<" not in alone


def test_one_value_and_one_lag_can_be_drawn() -> None:
    assert paths(score_plot([Curve("a", "s0", [0.0], [0.0])]))


def test_texts_are_escaped() -> None:
    about = '<script>"x"&'
    svg = score_plot([over_time(1)], about=about)
    assert "<script>" not in svg
    assert ElementTree.fromstring(svg).attrib["aria-label"] == about


def test_lips_are_two_closed_contours_each_and_fit_their_box() -> None:
    reach = reach_of([SQUARE])
    svg = lip_drawing(SQUARE, SQUARE, reach, "s1")
    real, made = paths(svg)
    assert real == made
    assert real.count("M") == real.count("Z") == 2
    numbers = [float(n) for n in re.findall(r"[\d.]+", real)]
    xs, ys = numbers[::2], numbers[1::2]
    assert 0 <= min(xs) < 10 and 102 < max(xs) <= 112
    assert min(ys) >= 0 and max(ys) <= 56
    assert max(ys) > 28 and numbers[1] < 28  # y is down: the first point is above


def test_an_unknown_shape_is_not_drawn() -> None:
    unknown = [[math.nan, 0.0]] * 40
    for shape in (unknown, [], SQUARE[:39]):
        assert lip_drawing(SQUARE, shape, 1.0, "s0") == ""
    assert reach_of([unknown, []]) == 0
    assert lip_drawing(SQUARE, SQUARE, 0.0, "s0") == ""
