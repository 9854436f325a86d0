"""Results of an evaluation as plain data: report.json stores them, report.html shows them.

A variant is one rendition of the same frames: the real video, the real video re-encoded, renderings
of tracked or predicted motion codes, and baselines. docs/measures.md explains each metric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

import numpy as np

from talkhead.app.evaluation.cross_validation import Interval
from talkhead.stage_timer import Stage
from talkhead.types import Float64

_STORED = "stored"
"""Metadata of a field whose name in report.json is different."""
TAIL = 5
"""Percentile of the low tail."""

VariantKind = Literal["real", "floor", "made", "baseline"]
"""real: the real video. floor: the real video re-encoded, the best that any method can reach. made:
what is evaluated. baseline: what it must beat."""

# Names of variants, as the report shows them.
REAL_VIDEO, REENCODED = "real", "re-encoded original"
TRACKED_CODES, PASTED_TRACKED_CODES = "tracked codes", "pasted, tracked codes"
SPEECH_DRIVEN, PASTED_SPEECH_DRIVEN = "speech-driven", "pasted, speech-driven"
MADE_VIDEO = "made"
MEAN_MOUTH, MISMATCHED_SPEECH = "mean mouth", "mismatched speech"
UNCHANGED_FOOTAGE = "unchanged footage"


@dataclass(frozen=True)
class Summary:
    """Statistics of a measure over frames, NaN if no frame has a value.

    Attributes:
        mean: Mean over frames.
        median: Median over frames.
        tail: Where the worst twentieth of the frames begins: the 5th percentile, or the 95th of
            errors, for which less is better.
    """

    mean: float
    median: float
    tail: float


class Results(dict[str, Any]):
    """Values of one kind of measure by name, in the order of the registry.

    A value is a number, a `Summary` over frames, or None where the measure does not apply. Values can
    be read as attributes, too: `lips.lmd_px.mean` is `lips["lmd_px"].mean`.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no measure is named {name!r}") from None


@dataclass(frozen=True)
class VisemeRow:
    """Mean mouth shape of one viseme in the real and in the rendered video.

    Lengths are divided by the distance between the outer eye corners.

    Attributes:
        viseme: Name of the viseme.
        n_frames: Number of its frames.
        real_aperture: Mean gap between the real inner lips.
        made_aperture: The same of the rendered lips.
        real_width: Mean distance between the real mouth corners.
        made_width: The same of the rendered mouth.
        distance: Mean distance between the lip points of the two mean shapes.
        real_shape: Mean real lips, [40][2], centered, y down, in the order of `face.LIPS`.
        made_shape: Mean rendered lips, [40][2].
    """

    viseme: str
    n_frames: int
    real_aperture: float
    made_aperture: float
    real_width: float
    made_width: float
    distance: float
    real_shape: list[list[float]]
    made_shape: list[list[float]]


@dataclass(frozen=True)
class Variant:
    """One rendition of the evaluated frames, or of another recording, which has no real frames.

    Attributes:
        name: Its name in tables and plots.
        kind: Its role in the comparison.
        about: One line that describes it.
        images: Image measures against the real frames; None if no images were compared.
        lips: Lip measures.
        phonemes: Lip measures at the phones of the audio.
        sync: Offset and confidence of the sync model, with its scores by lag: "lags_ms", "scores".
        syncnet: LSE-C and LSE-D; None without SyncNet's weights.
        visemes: Mean mouth shape of each viseme.
        aperture: Lip opening of each frame, [F], over the distance between the eyes; NaN without a face.
        lmd_px: Mouth landmark distance of each frame, [F]; NaN without a face.
        cutout: Measures of the outline of the rendered head.
    """

    name: str
    kind: VariantKind
    about: str
    images: Results | None = None
    lips: Results | None = None
    phonemes: Results | None = None
    sync: Results | None = None
    syncnet: Results | None = None
    visemes: tuple[VisemeRow, ...] = ()
    aperture: tuple[float, ...] = ()
    lmd_px: tuple[float, ...] = ()
    cutout: Results | None = None


@dataclass(frozen=True)
class OffsetEvidence:
    """A/V offset of a clip as found by one method.

    Attributes:
        method: Name of the method; "means" in report.json.
        offset_ms: How late the audio is; None if no lag is clearly best.
        score: The best score.
        control: The best score that mismatched audio reaches.
        lags_ms: Tested lags, [L], in increasing order.
        scores: Score of each lag, [L].
    """

    method: str = field(metadata={_STORED: "means"})
    offset_ms: float | None
    score: float
    control: float
    lags_ms: list[float]
    scores: list[float]


@dataclass(frozen=True)
class OffsetResults:
    """A/V offset of a clip by independent methods.

    Attributes:
        evidence: The finding of each method.
        agree: True if all offsets found are within one frame of each other; None with fewer than two.
        corrected_ms: By how much preprocessing had already shifted the audio.
    """

    evidence: tuple[OffsetEvidence, ...]
    agree: bool | None
    corrected_ms: float


@dataclass(frozen=True)
class MeasureValidity:
    """Whether a measure ranks real video above matched speech, and matched above mismatched speech.

    Attributes:
        measure: Label of the measure.
        floor: Its value for the real video, re-encoded where images are compared.
        matched: Its value for the evaluated variant; None if it was not measured.
        mismatched: Its value for the baseline with mismatched speech; None if it was not measured.
        holds: True if the three are in order; None if one is missing or all are equal.
        reference: On how many reference clips it held, such as "3 of 4"; "" if never measured.
    """

    measure: str
    floor: float | None
    matched: float | None
    mismatched: float | None
    holds: bool | None
    reference: str


@dataclass(frozen=True)
class CrossValidatedRow:
    """Lips of one rendition of the whole clip, as landmarks alone.

    Attributes:
        name: Its name, as that of a `Variant`.
        kind: Its role in the comparison.
        about: One line that describes it.
        lips: Lip measures over all folds.
        intervals: Ends of the 95 % interval of measures, by their name; NaN where there is none.
    """

    name: str
    kind: VariantKind
    about: str
    lips: Results
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def variant(self) -> Variant:
        """The row as a variant without images, for tables."""
        return Variant(self.name, self.kind, self.about, lips=self.lips)


@dataclass(frozen=True)
class CrossValidation:
    """How well speech drives the lips over the whole clip, each fold by models fitted without it.

    Attributes:
        n_folds: Number of folds.
        n_frames: Number of evaluated frames in all folds.
        rows: The real video, the tracked codes, the speech-driven mouth and the baselines.
        differences: Mean LMD of the speech-driven mouth minus that of a baseline in pixels, by the
            name of the baseline: below 0 if speech is nearer to the real lips.
    """

    n_folds: int
    n_frames: int
    rows: tuple[CrossValidatedRow, ...]
    differences: Mapping[str, Interval]


@dataclass(frozen=True)
class Report:
    """Results of evaluating an identity or a pair of videos.

    Attributes:
        title: Heading of the page.
        facts: Name -> text: what was evaluated (video, size, frames, audio).
        variants: All renditions of the held-out frames.
        cross: Renditions of another recording.
        offset: The clip's own A/V offset; None if it was not measured.
        validity: The ranking test of each measure.
        stages: Time and memory of the stages of fitting and evaluating.
        warnings: What limits the reliability of the report, such as too few frames.
        left_out: What was not measured, and why.
        cross_validation: Lips over the whole clip; None if they were not cross-validated.
    """

    title: str
    facts: Mapping[str, str]
    variants: tuple[Variant, ...]
    cross: tuple[Variant, ...]
    offset: OffsetResults | None
    validity: tuple[MeasureValidity, ...]
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...]
    left_out: tuple[str, ...]
    cross_validation: CrossValidation | None = None

    def to_json(self) -> dict[str, Any]:
        """Convert to nested plain values, rounded to 4 decimal places, with None for NaN."""
        result: dict[str, Any] = plain(self)
        return result


def summarize(values: Sequence[float] | Float64, less_is_better: bool = False) -> Summary:
    """Compute statistics of a measure over frames, ignoring NaN and infinity.

    Args:
        values: Value of each frame, [N].
        less_is_better: True if the worst values are the highest ones.

    Returns:
        Mean, median and tail; all NaN without a finite value.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return Summary(math.nan, math.nan, math.nan)
    tail = np.percentile(known, 100 - TAIL if less_is_better else TAIL)
    return Summary(float(known.mean()), float(np.median(known)), float(tail))


def plain(value: Any) -> Any:
    """Convert results to values that JSON can store.

    Args:
        value: A number, string, mapping, sequence or dataclass, nested to any depth.

    Returns:
        Dictionaries, lists and Python numbers; floats rounded to 4 decimal places, None for NaN and
        infinity.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = {
            one.metadata.get(_STORED, one.name): getattr(value, one.name) for one in fields(value)
        }
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value
