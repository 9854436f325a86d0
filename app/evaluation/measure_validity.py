"""Test whether each measure ranks real video above matched speech, and matched above mismatched speech.

A measure that fails is shown, but no decision is based on it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files

from talkhead.app.evaluation.measures.registry import Measure, quality_measures
from talkhead.app.evaluation.results import MISMATCHED_SPEECH, MeasureValidity, Variant

REFERENCE = "measure_validity.json"


def measure_validity(variants: Sequence[Variant], matched: str) -> tuple[MeasureValidity, ...]:
    """Rank real video, matched speech and mismatched speech by each measure.

    Where images are compared, the real video is represented by its re-encoded version if there is
    one, because compared with itself it would be perfect. For measures that need no reference, its
    own value is used.

    Args:
        variants: All variants of a report.
        matched: Name of the variant that speaks the footage's own audio.

    Returns:
        The ranking of each measure with a value for the matched variant; empty without real video or
        without this variant.
    """
    named = {variant.name: variant for variant in variants}
    by_kind = {variant.kind: variant for variant in variants}
    floor = by_kind.get("floor", by_kind.get("real"))
    if floor is None or matched not in named:
        return ()
    reference = reference_counts()
    real, mismatched = by_kind.get("real", floor), named.get(MISMATCHED_SPEECH)
    rankings = []
    for measure in quality_measures():
        best, own = (
            measure.of(floor if measure.needs_reference else real),
            measure.of(named[matched]),
        )
        worst = None if mismatched is None else measure.of(mismatched)
        if own is not None:
            holds = in_order(measure, (best, own, worst), measure.of(real))
            count = reference.get(measure.key, "")
            rankings.append(MeasureValidity(measure.label, best, own, worst, holds, count))
    return tuple(rankings)


def in_order(measure: Measure, values: Sequence[float | None], real: float | None) -> bool | None:
    """Check whether the values of real, matched and mismatched speech are in order.

    Args:
        measure: The measure.
        values: The three values, in this order; None if one is missing.
        real: The real video's own value, for measures that should be near it.

    Returns:
        True if real is at least as good as matched speech, and matched better than mismatched speech;
        None if a value is missing or all are equal.
    """
    if any(value is None for value in values):
        return None
    first, second, third = (_badness(measure, value, real) for value in values if value is not None)
    if not all(map(math.isfinite, (first, second, third))):
        return None
    return None if first == second == third else first <= second < third


def _badness(measure: Measure, value: float, real: float | None) -> float:
    """Convert a value to one for which less is better."""
    if measure.better == "real":
        target = measure.target if measure.target is not None else real
        return abs(value - target) if target is not None else math.nan
    return value if measure.better == "less" else -value


def reference_counts() -> Mapping[str, str]:
    """Read the number of reference clips that each measure ranked correctly.

    Returns:
        Text such as "3 of 4" by key of the measure.
    """
    source = files("talkhead.app.evaluation").joinpath(REFERENCE)
    counts: dict[str, list[int]] = json.loads(source.read_text()) if source.is_file() else {}
    return {key: f"{held} of {measured}" for key, (held, measured) in counts.items()}
