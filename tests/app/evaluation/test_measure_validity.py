"""Rankings of known values."""

from __future__ import annotations

import math

import pytest

from talkhead.app.evaluation.measure_validity import in_order, measure_validity, reference_counts
from talkhead.app.evaluation.measures.registry import KINDS, quality_measures
from talkhead.app.evaluation.results import (
    MISMATCHED_SPEECH,
    REAL_VIDEO,
    REENCODED,
    SPEECH_DRIVEN,
    Results,
    Variant,
    VariantKind,
    summarize,
)

BY_KEY = {measure.key: measure for measure in quality_measures()}
LMD, SPREAD = BY_KEY["lips.lmd_px.mean"], BY_KEY["lips.aperture_spread"]
SILENCE = BY_KEY["lips.silence_leak"]
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
        (SILENCE, (0.1, 0.05, 0.6), 0.1, True),
        (SILENCE, (0.1, 0.3, 0.2), 0.1, False),
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


def variant(name: str, kind: VariantKind, lmd: float, r: float, opening: float) -> Variant:
    lips = Results(
        lmd_px=summarize([lmd]), lmd_eyes=lmd / 100, aperture_correlation=r, closure_f1=math.nan
    )
    return Variant(name, kind, "", lips=lips, phonemes=Results(opening_ratio=opening))


def test_a_report_shows_which_measures_rank() -> None:
    variants = (
        variant(REAL_VIDEO, "real", 0.0, 1.0, 4.0),
        variant(REENCODED, "floor", 0.3, 0.99, 3.9),
        variant(SPEECH_DRIVEN, "made", 1.5, 0.1, 3.0),
        variant(MISMATCHED_SPEECH, "baseline", 2.5, 0.4, 4.4),
    )
    found = {one.measure: one for one in measure_validity(variants, SPEECH_DRIVEN)}
    assert found["LMD"].holds is True and found["opening r"].holds is False
    lmd = found["LMD"]
    assert (lmd.floor, lmd.matched, lmd.mismatched) == (0.3, 1.5, 2.5)
    assert found["vowels / p b m"].holds is False  # real has 4.0: mismatched speech is nearer
    assert "closures F1" not in found  # undefined
    assert measure_validity(variants[:2], SPEECH_DRIVEN) == ()


def test_counts_of_reference_clips_are_shown_with_the_measures_they_belong_to() -> None:
    counts = reference_counts()
    assert counts["lips.lmd_px.mean"] == "4 of 4"
    assert set(counts) <= set(BY_KEY)
    variants = (
        variant(REAL_VIDEO, "real", 0.0, 1.0, 4.0),
        variant(SPEECH_DRIVEN, "made", 1.5, 0.1, 3.0),
    )
    found = {one.measure: one for one in measure_validity(variants, SPEECH_DRIVEN)}
    assert found["LMD"].reference == "4 of 4"


def test_every_measure_has_a_place_in_a_variant() -> None:
    """Without a field of `Variant` a column would stay empty."""
    assert set(KINDS) <= set(Variant.__dataclass_fields__)
    assert len(BY_KEY) == len(quality_measures())
