"""Results as JSON, and summaries."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from talkhead.app.evaluation.measures.registry import quality_measures
from talkhead.app.evaluation.results import (
    OffsetEvidence,
    Results,
    Variant,
    VisemeRow,
    plain,
    summarize,
)


def test_results_are_plain_json() -> None:
    row = VisemeRow("p", np.int64(3), np.float32(0.5), math.nan, math.inf, 0.1, 0.2, [[1.0]], [])
    stored = json.loads(json.dumps(plain(vars(row)), allow_nan=False))
    assert stored["n_frames"] == 3 and stored["real_aperture"] == 0.5
    assert stored["made_aperture"] is None and stored["real_width"] is None
    assert plain({"a": (0.123456, True, "x", None)}) == {"a": [0.1235, True, "x", None]}


def test_summaries_put_the_tail_where_it_is_worst() -> None:
    values = np.arange(101.0)
    assert summarize(values).tail == 5
    assert summarize(values, less_is_better=True).tail == 95
    assert summarize([1.0, np.nan, 3.0]).mean == 2
    assert math.isnan(summarize([]).mean)


def test_missing_values_are_none() -> None:
    variant = Variant("made", "made", "")
    assert all(measure.of(variant) is None for measure in quality_measures())


def test_results_can_be_read_as_attributes() -> None:
    results = Results(lmd_px=summarize([1.0]), n_lost=2)
    assert results.lmd_px.mean == results["lmd_px"].mean == 1.0 and results.n_lost == 2
    with pytest.raises(AttributeError, match="no measure is named 'lmd'"):
        _ = results.lmd
    assert plain(results) == {"lmd_px": {"mean": 1.0, "median": 1.0, "tail": 1.0}, "n_lost": 2}


def test_the_method_of_an_offset_keeps_its_stored_name() -> None:
    stored = plain(OffsetEvidence("energies", None, 1.0, 0.5, [0.0], [1.0]))
    assert list(stored) == ["means", "offset_ms", "score", "control", "lags_ms", "scores"]
    assert stored["means"] == "energies"
