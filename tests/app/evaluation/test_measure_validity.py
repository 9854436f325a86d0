"""Orders that are known."""

from __future__ import annotations

import math

import pytest

from talkhead.app.evaluation.measure_validity import in_order, rankings
from talkhead.app.evaluation.measures.registry import MEASURES
from talkhead.app.evaluation.results import (
    FLOOR,
    REAL,
    SPOKEN,
    WRONG,
    LipMetrics,
    PhonemeMetrics,
    Variant,
    VariantKind,
    summarize,
)

BY_KEY = {measure.key: measure for measure in MEASURES}
LMD, SPREAD = BY_KEY["lips.lmd_px.mean"], BY_KEY["lips.aperture_spread"]
LEAK = BY_KEY["lips.silence_leak"]
CORRELATION, OPENING = BY_KEY["lips.aperture_correlation"], BY_KEY["phonemes.opening_ratio"]


@pytest.mark.parametrize(
    ("measure", "values", "real", "holds"),
    [
        (LMD, (0.2, 1.5, 2.5), None, True),
        (LMD, (0.2, 2.5, 1.5), None, False),
        (LMD, (2.0, 1.5, 2.5), None, False),
        (LMD, (0.2, 1.5, None), None, None),
        (LMD, (0.2, 1.5, 1.5), None, False),
        (LMD, (1.5, 1.5, 1.5), None, None),
        (LEAK, (0.1, 0.05, 0.6), 0.1, True),
        (LEAK, (0.1, 0.3, 0.2), 0.1, False),
        (LMD, (0.2, math.nan, 1.5), None, None),
        (CORRELATION, (0.99, 0.7, 0.1), None, True),
        (CORRELATION, (0.99, 0.1, 0.7), None, False),
        (SPREAD, (1.0, 0.8, 1.9), None, True),
        (SPREAD, (1.0, 0.5, 1.2), None, False),
        (OPENING, (4.1, 3.0, 1.2), 4.0, True),
        (OPENING, (4.1, 7.0, 3.9), 4.0, False),
        (OPENING, (4.1, 3.0, 1.2), None, None),
    ],
)
def test_orders(measure, values, real, holds) -> None:  # type: ignore[no-untyped-def]
    assert in_order(measure, values, real) is holds


def take(name: str, kind: VariantKind, lmd: float, r: float, opening: float) -> Variant:
    lips = LipMetrics(100, 0, summarize([lmd]), lmd / 100, r, 0.0, 1.0, math.nan, 0.5, 1.0, None, 0)
    return Variant(name, kind, "", lips=lips, phonemes=PhonemeMetrics(9, 9, opening, 1.0, 0.5))


def test_a_report_says_which_measures_rank() -> None:
    takes = (
        take(REAL, "real", 0.0, 1.0, 4.0),
        take(FLOOR, "floor", 0.3, 0.99, 3.9),
        take(SPOKEN, "made", 1.5, 0.1, 3.0),
        take(WRONG, "baseline", 2.5, 0.4, 4.4),
    )
    found = {ranking.measure: ranking for ranking in rankings(takes, SPOKEN)}
    assert found["LMD"].holds is True and found["opening r"].holds is False
    assert (found["LMD"].floor, found["LMD"].right, found["LMD"].wrong) == (0.3, 1.5, 2.5)
    assert found["vowels / p b m"].holds is False  # real has 4.0: wrong is nearer
    assert "closures F1" not in found  # never taken
    assert rankings(takes[:2], SPOKEN) == ()


def test_every_measure_has_a_place_in_a_take() -> None:
    """A key with a typing error would leave a column empty for ever."""
    for measure in MEASURES:
        part, _, rest = measure.key.partition(".")
        annotation = Variant.__dataclass_fields__[part].type
        module = __import__("talkhead.app.evaluation.results", fromlist=["figures"])
        figures = getattr(module, str(annotation).removesuffix(" | None"))
        field, _, summary = rest.partition(".")
        assert field in figures.__dataclass_fields__
        assert summary in ("", "mean", "median", "tail")
    assert len(BY_KEY) == len(MEASURES)
