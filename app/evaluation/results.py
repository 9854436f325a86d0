"""What an evaluation finds out, as plain data: report.json holds it and report.html shows it.

A take is one rendition of the same moments: the real video, the same after re-encoding, what a
renderer makes of tracked codes or of speech, a baseline. docs/measures.md: how to read a figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from talkhead.stage_timer import Stage
from talkhead.types import Float64

TAIL = 5
"""Percentile of the low tail."""

VariantKind = Literal["real", "floor", "made", "baseline"]
"""real: the true video; floor: the true video re-encoded, what no system can beat; made: what is
judged; baseline: what it must beat."""

# Names of takes, by which others find them.
REAL, FLOOR = "real", "re-encoded original"
TRACKED, PASTED_TRACKED = "tracked codes", "pasted, tracked codes"
SPOKEN, PASTED = "speech-driven", "pasted, speech-driven"
MADE = "made"
MEAN, WRONG = "mean mouth", "wrong sentence"
UNCHANGED = "unchanged footage"


@dataclass(frozen=True)
class Summary:
    """A measure over frames. tail: the worst twentieth begins here: the 5th percentile, of errors
    (where less is better) the 95th. NaN where no frame could be measured."""

    mean: float
    median: float
    tail: float


@dataclass(frozen=True)
class ImageMetrics:
    """How near images come to the real ones; see metrics. Headlines: means over frames.

    psnr_*: dB. *_face, *_mouth: in the boxes of the real frame's landmarks. *_head: of the face
    box, above the lower line of the jaw: without neck and clothes. *_frame: of the whole frame,
    None where only the head's crop was made. sharpness, gradient_correlation: of the mouth box.
    lpips_*: None without the weights.
    """

    n_frames: int
    psnr_face: Summary
    psnr_head: Summary
    psnr_mouth: Summary
    ssim_face: Summary
    ssim_head: Summary
    ssim_mouth: Summary
    sharpness: Summary
    gradient_correlation: Summary
    psnr_frame: Summary | None = None
    ssim_frame: Summary | None = None
    lpips_face: Summary | None = None
    lpips_mouth: Summary | None = None


@dataclass(frozen=True)
class LipMetrics:
    """How lips move, seen by one tracker in made and real frames alike; see lips and metrics.

    n_tracked: frames with a face in both, which all figures are over. n_lost: frames with a face in
    the real one only. lmd_px: mouth landmark distance, source pixels; lmd_eyes: its mean over the
    outer eye corners' distance. aperture_*: of the inner lips' gap: correlation with the real one,
    how late the best one comes in ms, ratio of standard deviations. closure_f1: closed frames found,
    at a fixed threshold; closure_f1_at_rate: at the threshold that closes the lips as often as the
    real ones. jitter_ratio: trembling over the real one's. silence_leak: share of the silent frames
    in which the mouth moves or stands open, None where too few are silent.
    """

    n_tracked: int
    n_lost: int
    lmd_px: Summary
    lmd_eyes: float
    aperture_correlation: float
    aperture_lag_ms: float
    aperture_spread: float
    closure_f1: float
    closure_f1_at_rate: float
    jitter_ratio: float
    silence_leak: float | None
    n_silent: int


@dataclass(frozen=True)
class PhonemeMetrics:
    """What the lips do at the phones that are heard; see phonemes. None: too few of them.

    opening_ratio: mean lip opening in open vowels over that in /p b m/. closure_rate: share of
    /p b m/ segments in which the lips close; closure_chance: the same of stretches as long,
    anywhere in speech.
    """

    n_vowels: int
    n_bilabials: int
    opening_ratio: float | None
    closure_rate: float | None
    closure_chance: float | None


@dataclass(frozen=True)
class VisemeRow:
    """Mean mouths of one viseme, real and made. apertures, widths: over the eyes' distance.
    distance: mean distance of the lip points of the two mean shapes, over the eyes' distance.
    *_shape: [40][2] the mean lips (face.LIPS), centred, over the eyes' distance, y down."""

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
class SyncMetrics:
    """What the audio-visual judge says of lips and sound; see judge.

    offset_ms: how late the sound is, None when nothing stands out. confidence: the best score less the
    median lag's, over the deviation that wrong sound's score has at this many frames: it grows with
    their number, so it compares takes of the same frames. scores: one a lag, lags_ms: rising.
    """

    offset_ms: float | None
    confidence: float
    n_frames: int
    lags_ms: list[float]
    scores: list[float]


@dataclass(frozen=True)
class SyncNetMetrics:
    """The field's sync scores, of SyncNet's weights when the user has them; see syncnet.

    offset_frames: how late the sound is.
    """

    lse_c: float
    lse_d: float
    offset_frames: int


@dataclass(frozen=True)
class CutoutMetrics:
    """How well the head alone is cut out for another background; see cutout. Shares of a strip on
    either side of the person's outline.

    see_through: of the strip inside, what a new background shows through. scraps: of the strip
    outside, what comes along.
    """

    n_frames: int
    see_through: Summary
    scraps: Summary


@dataclass(frozen=True)
class Variant:
    """One rendition of the test frames, or of a line of other sound (which has no real images)."""

    name: str
    kind: VariantKind
    about: str  # one line: what it is
    images: ImageMetrics | None = None
    lips: LipMetrics | None = None
    phonemes: PhonemeMetrics | None = None
    sync: SyncMetrics | None = None
    syncnet: SyncNetMetrics | None = None
    visemes: tuple[VisemeRow, ...] = ()
    aperture: tuple[float, ...] = ()  # [F] lip opening over the eyes' distance, NaN without a face
    lmd_px: tuple[float, ...] = ()  # [F], NaN without a face
    cutout: CutoutMetrics | None = None


@dataclass(frozen=True)
class OffsetEvidence:
    """One means' finding of how late a clip's sound is. control: the best score of wrong sound."""

    means: str
    offset_ms: float | None
    score: float
    control: float
    lags_ms: list[float]
    scores: list[float]


@dataclass(frozen=True)
class OffsetMetrics:
    """The clip's own audio-video offset by independent means.

    agree: whether those that are sure lie within one frame of each other; None with fewer than two.
    corrected_ms: what preprocessing shifted the sound by.
    """

    evidence: tuple[OffsetEvidence, ...]
    agree: bool | None
    corrected_ms: float


@dataclass(frozen=True)
class MeasureValidity:
    """Whether a measure puts real > right sentence > wrong sentence, here and on reference clips.

    values: measure of each of the three, None where it could not be taken. holds: None where one is
    missing. reference: "3 of 4", on how many reference clips it held, "" when never measured.
    """

    measure: str
    floor: float | None
    right: float | None
    wrong: float | None
    holds: bool | None
    reference: str


@dataclass(frozen=True)
class Report:
    """All that is known of an identity, or of a pair of videos.

    facts: name -> text, what was judged (video, sizes, frames, audio). warnings: what limits the
    report's worth, such as too few test frames. left_out: what could not be measured, and why.
    """

    title: str
    facts: Mapping[str, str]
    takes: tuple[Variant, ...]
    cross: tuple[Variant, ...]
    offset: OffsetMetrics | None
    rankings: tuple[MeasureValidity, ...]
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Nested plain values as JSON holds them, rounded to 4 places, None for NaN."""
        return {name: plain(value) for name, value in asdict(self).items()}


def summarize(values: Sequence[float] | Float64, less_is_better: bool = False) -> Summary:
    """Mean, median and worst tail of a measure's values; NaN values are left out."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return Summary(math.nan, math.nan, math.nan)
    tail = np.percentile(known, 100 - TAIL if less_is_better else TAIL)
    return Summary(float(known.mean()), float(np.median(known)), float(tail))


def plain(value: Any) -> Any:
    """A value of asdict as JSON holds it: floats rounded to 4 places, None for NaN and infinity,
    numpy's numbers as Python's."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value
