"""Whether a measure puts the real video before the right sentence, and that before a wrong one.

A measure that can't is no guide: it is shown, but nothing is steered by it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files

from talkhead.app.evaluation.measures.registry import MEASURES, Measure
from talkhead.app.evaluation.results import WRONG, MeasureValidity, Variant

REFERENCE = "rankings.json"


def rankings(takes: Sequence[Variant], right: str) -> tuple[MeasureValidity, ...]:
    """A ranking for each measure that was taken of the take named `right`.

    The real video stands in as it is after re-encoding where there is such a take: compared with
    itself it is perfect. Measures that it has alone are its own.
    """
    named = {take.name: take for take in takes}
    by_kind = {take.kind: take for take in takes}
    floor = by_kind.get("floor", by_kind.get("real"))
    if floor is None or right not in named:
        return ()
    reference = reference_counts()
    real, wrong = by_kind.get("real", floor), named.get(WRONG)
    made = []
    for measure in MEASURES:
        lowest, own = measure.of(real if measure.alone else floor), measure.of(named[right])
        worst = None if wrong is None else measure.of(wrong)
        if own is not None:
            order = in_order(measure, (lowest, own, worst), measure.of(real))
            count = reference.get(measure.key, "")
            made.append(MeasureValidity(measure.label, lowest, own, worst, order, count))
    return tuple(made)


def in_order(measure: Measure, values: Sequence[float | None], real: float | None) -> bool | None:
    """Whether real >= right > wrong, of values in this order; None where one is missing or all are
    alike.

    real: the real video's own value, for measures that should be near it.
    """
    if any(value is None for value in values):
        return None
    first, second, third = (_badness(measure, value, real) for value in values if value is not None)
    if not all(map(math.isfinite, (first, second, third))):
        return None
    return None if first == second == third else first <= second < third


def _badness(measure: Measure, value: float, real: float | None) -> float:
    if measure.better == "real":
        target = measure.real if measure.real is not None else real
        return abs(value - target) if target is not None else math.nan
    return value if measure.better == "less" else -value


def reference_counts() -> Mapping[str, str]:
    """On how many reference clips each measure (by key) ranked right: "3 of 4"."""
    source = files("talkhead.app.evaluation").joinpath(REFERENCE)
    counts: dict[str, list[int]] = json.loads(source.read_text()) if source.is_file() else {}
    return {key: f"{held} of {taken}" for key, (held, taken) in counts.items()}
