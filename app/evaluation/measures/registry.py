"""The registry of measures: each is one decorated function over the input object of its kind.

A kind groups measures that take the same input, such as one frame of images or the lip landmarks of
a clip, and that form one table of the report. Tables, report.json, the ranking of measures and the
verdicts read the registry, so that a new measure appears in all of them. docs/extending/measure.md
explains how to add one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from talkhead.app.evaluation.results import Results, Summary, Variant, summarize
from talkhead.types import Float64

Input = TypeVar("Input")
Value = float | Float64 | None
"""Result of a measure's function: a number, one number per frame, or None if it does not apply."""
Returned = TypeVar("Returned", bound=float | Float64 | None)
Direction = Literal["more", "less", "real"]
"""Which values are better: higher ones, lower ones, or those near the real video's own."""
Headline = Literal["mean", "median"]


@dataclass(frozen=True)
class Measure:
    """Name, label, unit and direction of a measure.

    Attributes:
        kind: Name of its kind, which is the field of `Variant` that holds its values.
        name: Its key among the results of its kind.
        label: Heading of its column in the report.
        about: One line of explanation.
        better: Which values are better; None for a column that does not measure quality, such as a
            count of frames or the value reached by chance.
        unit: Such as "dB"; "" without one.
        digits: Decimal places shown.
        headline: The statistic over frames that tables show; None if it has a single value.
        target: The best value of a measure whose direction is "real"; None if it is the value of the
            real video.
        needs_reference: False if it is defined without real frames to compare with, so that the real
            video has a value of its own.
    """

    kind: str
    name: str
    label: str
    about: str = ""
    better: Direction | None = None
    unit: str = ""
    digits: int = 2
    headline: Headline | None = None
    target: float | None = None
    needs_reference: bool = True
    in_order: bool = False

    @property
    def key(self) -> str:
        """Path of its value in a variant: "lips.lmd_px.mean"."""
        return ".".join(filter(None, (self.kind, self.name, self.headline)))

    @property
    def undefined(self) -> Summary | float:
        """Placeholder of an undefined value: NaN, or a summary of NaN."""
        return math.nan if self.headline is None else summarize([])

    def of(self, variant: Variant) -> float | None:
        """Look up the headline value of a variant.

        Args:
            variant: Any variant.

        Returns:
            The value; None if it was not measured or is undefined.
        """
        results: Results | None = getattr(variant, self.kind, None)
        value = math.nan if results is None else self.headline_of(results)
        return value if math.isfinite(value) else None

    def headline_of(self, results: Results) -> float:
        """Look up the headline value among results.

        Args:
            results: Results of its kind.

        Returns:
            The value; NaN if it was not measured.
        """
        value = results.get(self.name)
        if isinstance(value, Summary):
            value = getattr(value, self.headline or "mean")
        return math.nan if value is None else float(value)


class MeasureKind(Generic[Input]):
    """Measures that share an input object and a table of the report.

    Args:
        name: The field of `Variant` and the key in report.json that hold the results.
        title: Heading of the table. Kinds with the same title share a table.
        needs_reference: The default of the kind's measures.
    """

    default_headline: Headline | None = None

    def __init__(self, name: str, title: str, *, needs_reference: bool = True) -> None:
        self.name, self.title, self.needs_reference = name, title, needs_reference
        self.measures: dict[str, Measure] = {}
        self._functions: dict[str, Callable[[Input], Value]] = {}
        KINDS[name] = self

    def measure(
        self,
        name: str,
        *,
        label: str,
        better: Direction | float | None = None,
        unit: str = "",
        digits: int = 2,
        headline: Headline | None = None,
        needs_reference: bool | None = None,
        in_order: bool = False,
    ) -> Callable[[Callable[[Input], Returned]], Callable[[Input], Returned]]:
        """Register the decorated function as a measure of this kind.

        The first line of the function's docstring explains the measure in the report.

        Args:
            name: Its key among the results of the kind.
            label: Heading of its column.
            better: Which values are better. A number: those near it; "real": those near the real
                video's own; None for a column that does not measure quality.
            unit: Such as "dB".
            digits: Decimal places shown.
            headline: The statistic shown of values per frame; None for the kind's default.
            needs_reference: False if it is defined without real frames; None for the kind's default.
            in_order: True if it compares successive frames of a clip.

        Returns:
            A decorator that returns the function unchanged. It raises ValueError if the kind has a
            measure of this name already.
        """

        def register(function: Callable[[Input], Returned]) -> Callable[[Input], Returned]:
            if name in self.measures or hasattr(dict, name):
                raise ValueError(f"{self.name}: the name {name!r} of a measure is taken")
            about = (function.__doc__ or "").strip().partition("\n")[0].rstrip(".")
            needs = self.needs_reference if needs_reference is None else needs_reference
            statistic = headline or self.default_headline
            target = better if isinstance(better, int | float) else None
            self.measures[name] = Measure(
                kind=self.name,
                name=name,
                label=label,
                about=about,
                better="real" if isinstance(better, int | float) else better,
                unit=unit,
                digits=digits,
                headline=statistic,
                target=target,
                needs_reference=needs,
                in_order=in_order,
            )
            self._functions[name] = function
            return function

        return register

    def remove(self, name: str) -> None:
        """Remove a measure from the registry.

        Args:
            name: Its key among the results of the kind.

        Raises:
            KeyError: The kind has no such measure.
        """
        del self.measures[name], self._functions[name]


class FrameMeasures(MeasureKind[Input]):
    """Measures of single frames, reported as statistics over all of them.

    Args:
        name: The field of `Variant` and the key in report.json that hold the results.
        title: Heading of the table.
        counted: What the column with the number of frames counts.
    """

    default_headline = "mean"

    def __init__(self, name: str, title: str, counted: str) -> None:
        super().__init__(name, title)
        self.measures["n_frames"] = Measure(name, "n_frames", "frames", counted, digits=0)

    def compute(self, frame: Input) -> dict[str, float | None]:
        """Compute every measure of one frame.

        Args:
            frame: The frame in the form that the kind's functions take.

        Returns:
            Value by name; NaN where it is undefined, None where it does not apply.
        """
        values = {name: function(frame) for name, function in self._functions.items()}
        return {name: None if v is None else float(v) for name, v in values.items()}

    def summarize(self, rows: Sequence[Mapping[str, float | None]]) -> Results:
        """Summarize the values of all frames.

        Args:
            rows: Results of `compute`, one per frame.

        Returns:
            The number of frames as "n_frames", and a `Summary` by name; None for measures that apply
            to no frame.
        """
        results = Results(n_frames=len(rows))
        for name in self._functions:
            column = [row[name] for row in rows]
            known = [math.nan if value is None else value for value in column]
            lower_is_better = self.measures[name].better == "less"
            applies = not column or any(value is not None for value in column)
            results[name] = summarize(known, lower_is_better) if applies else None
        return results


class ClipMeasures(MeasureKind[Input]):
    """Measures of a whole clip: each has one value, or values per frame that are summarized."""

    def compute(
        self, clip: Input, *, has_reference: bool = True, names: Collection[str] | None = None
    ) -> Results:
        """Compute the measures of a clip.

        Args:
            clip: The clip in the form that the kind's functions take.
            has_reference: False if there are no real frames to compare with: measures that need
                them are undefined then.
            names: Names of the measures to compute. None: all.

        Returns:
            Value by name: a number, a `Summary`, or None.
        """
        results = Results()
        for name, function in self._functions.items():
            if names is not None and name not in names:
                continue
            measure = self.measures[name]
            if measure.needs_reference and not has_reference:
                results[name] = measure.undefined
                continue
            value = function(clip)
            if isinstance(value, np.ndarray):
                results[name] = summarize(value, measure.better == "less")
            else:
                results[name] = value
        return results


KINDS: dict[str, MeasureKind[Any]] = {}
"""All kinds by name, in the order of the report."""


def registered() -> Iterator[Measure]:
    """Yield every column of the report's tables, in their order."""
    for kind in KINDS.values():
        yield from kind.measures.values()


def quality_measures() -> tuple[Measure, ...]:
    """List the measures of quality, in the order of the report."""
    return tuple(measure for measure in registered() if measure.better is not None)


def find_measure(key: str) -> Measure:
    """Look up a measure.

    Args:
        key: Its key, such as "lips.lmd_px.mean".

    Returns:
        The measure.

    Raises:
        KeyError: There is no measure with this key.
    """
    for measure in registered():
        if measure.key == key:
            return measure
    raise KeyError(key)
