"""Lip measures at aligned phones. See docs/phonemes.md.

Phones are those of `encoder.forced_alignment`, in seconds from frame 0; frame i shows second i / 25.
Apertures [F] are those of `face.lip_aperture`, NaN in frames without a face, which are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from talkhead.app.evaluation.measures.lips import CLOSED
from talkhead.app.evaluation.measures.registry import ClipMeasures
from talkhead.app.evaluation.results import OffsetEvidence, Results, VisemeRow
from talkhead.encoder.phones import SILENCE, VISEME_OF, VISEMES, Phone
from talkhead.face import LIPS, OUTER_EYE_CORNERS, lip_aperture
from talkhead.preprocess.av_sync import LIPS_LEAD_MS
from talkhead.types import FRAME_RATE, Bool, Float64, Int

OPEN_VOWELS = frozenset({"AA", "AE", "AO", "AW", "AY"})
"""Vowels that begin low. Not AH, which is also the schwa of every unstressed syllable."""
BILABIALS = frozenset({"P", "B", "M"})
"""Phones that cannot be articulated with open lips."""
MIN_OPENING = 0.005
"""Smallest opening in a denominator: what trackers measure of closed lips."""
MIN_SEGMENTS, MIN_EVIDENCE = 5, 8
"""Fewer vowels or /p b m/ than these give no value, and no offset."""
MIN_FRAMES = 5
"""A viseme with fewer frames has no row."""
MOUTH_CORNERS = (61, 291)

LIPS_LEAD_S = LIPS_LEAD_MS / 1000
"""Lips reach the shape of a phone before it sounds: on four clips whose offset is known by other
means the opening ratio is highest 20 to 40 ms early. Frames are taken that much earlier."""

MAX_LAG_S = 0.4
LAG_STEP_S = 0.01
N_CONTROLS = 20
PEAK_REACH = 4  # lags on each side of the best one that its parabola is fitted to
MIN_RATIO_TO_CONTROL = 1.4
"""Mismatched audio reaches 1.3 times the control in one case of a hundred, matched audio 2 to 4
times."""

Values = npt.NDArray[np.floating[Any]]

PHONEME_MEASURES: ClipMeasures[PhoneTrack] = ClipMeasures(
    "phonemes", "Phonemes", needs_reference=False
)
"""Measures of the lip opening at the phones that are spoken."""


@dataclass(frozen=True)
class PhoneTrack:
    """Phones and the lip opening meanwhile: the input of phoneme measures.

    Attributes:
        phones: Phones with times in seconds from the first frame.
        aperture: Lip opening [F]; NaN without a face.
    """

    phones: Sequence[Phone]
    aperture: Values

    @cached_property
    def counts(self) -> tuple[int, int]:
        """Numbers of open vowels and of bilabials with a tracked face."""
        return _counts(self.phones, self.aperture)

    @cached_property
    def closure_windows(self) -> list[Int]:
        """Frame indices [n] of each bilabial and one frame more on both sides."""
        segments = _tracked_frames(self.phones, BILABIALS, self.aperture)
        return [_with_neighbors(frames, self.aperture) for frames in segments]


@PHONEME_MEASURES.measure("n_vowels", label="vowels", digits=0)
def _n_vowels(track: PhoneTrack) -> int:
    """Number of open vowels."""
    return track.counts[0]


@PHONEME_MEASURES.measure("n_bilabials", label="p b m", digits=0)
def _n_bilabials(track: PhoneTrack) -> int:
    """Number of /p b m/."""
    return track.counts[1]


@PHONEME_MEASURES.measure("opening_ratio", label="vowels / p b m", better="real", digits=1)
def _opening_ratio(track: PhoneTrack) -> float | None:
    """Mean lip opening in open vowels over that in /p b m/."""
    if min(track.counts) < MIN_SEGMENTS:
        return None
    return float(_opening_ratios(track.phones, track.aperture, np.zeros(1, np.int64))[0])


@PHONEME_MEASURES.measure("closure_rate", label="p b m closed", better="more")
def _closure_rate(track: PhoneTrack) -> float | None:
    """Share of /p b m/ in which the lips close."""
    if track.counts[1] < MIN_SEGMENTS:
        return None
    return float(np.mean([_closes(track.aperture[frames]) for frames in track.closure_windows]))


@PHONEME_MEASURES.measure("closure_chance", label="by chance")
def _closure_chance(track: PhoneTrack) -> float | None:
    """Share of equally long stretches of any speech in which the lips close."""
    if track.counts[1] < MIN_SEGMENTS:
        return None
    lengths = [len(frames) for frames in track.closure_windows]
    return _closing_share_of_speech(lengths, track.phones, track.aperture)


def phoneme_results(phones: Sequence[Phone], aperture: Values) -> Results:
    """Compute all phoneme measures.

    The opening ratio divides the mean aperture in OPEN_VOWELS by that in BILABIALS, which counts as
    MIN_OPENING at least. The closure rate is the share of BILABIALS with an aperture under CLOSED in
    one of their frames or the two next to them; the closure chance is the share of such windows
    anywhere in speech.

    Args:
        phones: Phones with times in seconds from the first frame.
        aperture: Lip opening [F]; NaN without a face.

    Returns:
        Value by name; None with fewer than MIN_SEGMENTS of the phones needed.
    """
    return PHONEME_MEASURES.compute(PhoneTrack(phones, aperture))


def viseme_table(
    phones: Sequence[Phone], real: Values, made: Values, tracked: Bool
) -> tuple[VisemeRow, ...]:
    """Compute the mean mouth of each viseme, real and rendered.

    The lips of each frame are centered on their mean, and turned and scaled so that the outer eye
    corners are level and 1 apart.

    Args:
        phones: Phones with times in seconds from the first frame.
        real: Real landmarks [F, 478, 2], pixels.
        made: Rendered landmarks [F, 478, 2], pixels.
        tracked: Mask [F] of the frames with a face in both; the others are ignored.

    Returns:
        Rows in the order of VISEMES, without visemes of fewer than MIN_FRAMES frames.
    """
    visemes = _viseme_of_frames(phones, len(tracked))
    rows = []
    for viseme in VISEMES:
        frames = np.flatnonzero((visemes == viseme) & tracked)
        if len(frames) >= MIN_FRAMES:
            rows.append(_viseme_row(viseme, real[frames], made[frames]))
    return tuple(rows)


def opening_evidence(phones: Sequence[Phone], aperture: Values) -> OffsetEvidence:
    """Find the A/V offset as the lag at which the opening ratio is highest.

    Scores are the ratios of lags within MAX_LAG_S. The control is the best ratio, over all these
    lags, of phones shifted circularly by a good part of the clip.

    Args:
        phones: Phones with times in seconds from the first frame.
        aperture: Lip opening [F]; NaN without a face.

    Returns:
        The evidence. Its offset is None if the best ratio is not MIN_RATIO_TO_CONTROL times the
        control, or if there are fewer than MIN_EVIDENCE vowels or bilabials.
    """
    lags = np.arange(-_MAX_LAG, _MAX_LAG + 1)
    scores = _opening_ratios(phones, aperture, lags)
    shifts_s = np.linspace(0.15, 0.85, N_CONTROLS) * len(aperture) / FRAME_RATE
    control = max(
        float(_opening_ratios(phones, aperture, lags, shift_s).max()) for shift_s in shifts_s
    )
    best = float(scores.max())
    is_sure = min(_counts(phones, aperture)) >= MIN_EVIDENCE
    is_sure = is_sure and best > MIN_RATIO_TO_CONTROL * control
    peak = _peak(scores) if is_sure else None
    return OffsetEvidence(
        method="lip opening in vowels over that in /p b m/",
        offset_ms=None if peak is None else (peak - _MAX_LAG) * _STEP_MS,
        score=best,
        control=control,
        lags_ms=(lags * _STEP_MS).tolist(),
        scores=scores.tolist(),
    )


# ------------------------------------------------------------------------------- segments


def _frames_of(phone: Phone, n_frames: int) -> Int:
    """Find the frames [n] that show a phone; the one nearest to its middle if none falls into it."""
    start, end = ((s - LIPS_LEAD_S) * FRAME_RATE for s in (phone.start_s, phone.end_s))
    first, last = (int(np.ceil(moment - 1e-6)) for moment in (start, end))
    if first == last:
        first = round((start + end) / 2)
        last = first + 1
    return np.arange(max(0, first), min(last, n_frames))


def _tracked_frames(
    phones: Sequence[Phone], labels: frozenset[str], aperture: Values
) -> Iterator[Int]:
    """Yield the frames [n] of each phone of these labels with a face in any frame of aperture [F]."""
    for phone in phones:
        if phone.label in labels:
            frames = _frames_of(phone, len(aperture))
            if np.isfinite(aperture[frames]).any():
                yield frames


def _counts(phones: Sequence[Phone], aperture: Values) -> tuple[int, int]:
    """Count the open vowels and the bilabials with a known aperture [F] in some frame."""
    n_vowels, n_bilabials = (
        sum(1 for _ in _tracked_frames(phones, labels, aperture))
        for labels in (OPEN_VOWELS, BILABIALS)
    )
    return n_vowels, n_bilabials


def _with_neighbors(frames: Int, aperture: Values) -> Int:
    """Add one frame on each side to frames [n], within those of aperture [F]."""
    return np.arange(max(0, frames[0] - 1), min(frames[-1] + 2, len(aperture)))


def _closes(aperture: Values) -> bool:
    """True if the lips close in a window of apertures [n]."""
    return bool((aperture < CLOSED).any())  # NaN compares as false


def _closing_share_of_speech(
    lengths: Sequence[int], phones: Sequence[Phone], aperture: Values
) -> float:
    """Compute the share of windows of these lengths, anywhere in speech, with closed aperture [F]."""
    speech = np.zeros(len(aperture), np.bool_)
    for phone in phones:
        if phone.label != SILENCE:
            speech[_frames_of(phone, len(aperture))] = True
    shares = {length: _closing_share(length, speech, aperture) for length in set(lengths)}
    return float(np.nanmean([shares[length] for length in lengths]))


def _closing_share(length: int, speech: Bool, aperture: Values) -> float:
    """Compute the share of windows within speech [F] in which an aperture [F] is closed."""
    windows = np.lib.stride_tricks.sliding_window_view
    values, spoken = windows(aperture, length), windows(speech, length)
    usable = spoken.all(1) & np.isfinite(values).any(1)
    return float((values[usable] < CLOSED).any(1).mean()) if usable.any() else float("nan")


# -------------------------------------------------------------------------------- visemes


def _viseme_of_frames(phones: Sequence[Phone], n_frames: int) -> npt.NDArray[np.object_]:
    """Find the viseme of each frame, [F]; "" where there is no phone."""
    visemes = np.full(n_frames, "", dtype=object)
    for phone in phones:
        visemes[_frames_of(phone, n_frames)] = VISEME_OF[phone.label]
    return visemes


def _viseme_row(viseme: str, real: Values, made: Values) -> VisemeRow:
    """Compare the mean mouths of a viseme's real and rendered landmarks, [n, 478, 2] each."""
    shapes = [_mean_shape(points) for points in (real, made)]
    apertures = [float(lip_aperture(points[..., :2]).mean()) for points in (real, made)]
    widths = [_mean_width(points) for points in (real, made)]
    return VisemeRow(
        viseme=viseme,
        n_frames=len(real),
        real_aperture=apertures[0],
        made_aperture=apertures[1],
        real_width=widths[0],
        made_width=widths[1],
        distance=float(np.linalg.norm(shapes[0] - shapes[1], axis=-1).mean()),
        real_shape=shapes[0].tolist(),
        made_shape=shapes[1].tolist(),
    )


def _mean_shape(points: Values) -> Float64:
    """Compute the mean lips [40, 2] of landmarks [n, 478, 2]."""
    lips = _normalized(points, LIPS)
    mean = (lips - lips.mean(1, keepdims=True)).mean(0)
    return np.stack([mean.real, mean.imag], -1)


def _mean_width(points: Values) -> float:
    """Compute the mean distance between the mouth corners of landmarks [n, 478, 2]."""
    corners = _normalized(points, MOUTH_CORNERS)
    return float(np.abs(corners[:, 1] - corners[:, 0]).mean())


def _normalized(points: Values, wanted: Sequence[int]) -> npt.NDArray[np.complex128]:
    """Return the wanted points [F, P] as x + iy, with the outer eye corners moved to 0 and 1."""
    places = points[..., 0].astype(np.float64) + 1j * points[..., 1]
    left, right = (places[:, [corner]] for corner in OUTER_EYE_CORNERS)
    return np.asarray((places[:, list(wanted)] - left) / (right - left))


# --------------------------------------------------------------------------- opening ratio


_PER_FRAME = round(1.0 / (FRAME_RATE * LAG_STEP_S))
_MAX_LAG = round(MAX_LAG_S / LAG_STEP_S)
_STEP_MS = LAG_STEP_S * 1000.0


def _opening_ratios(
    phones: Sequence[Phone], aperture: Values, lags: Int, shift_s: float = 0.0
) -> Float64:
    """Compute the opening ratio if the audio were late by each lag [L] in steps; 0 if undefined.

    Apertures [F] are interpolated between steps of LAG_STEP_S: whole frames are too coarse for phones
    of two or three. shift_s moves the phones circularly.
    """
    n = len(aperture) * _PER_FRAME
    if n == 0:
        return np.zeros(len(lags))
    known = aperture.astype(np.float64)
    fine = np.interp(np.arange(n) / _PER_FRAME, np.arange(len(known)), known)
    beyond = np.full(_MAX_LAG, np.nan)
    padded = np.concatenate([beyond, fine, beyond])
    by = round(shift_s / LAG_STEP_S)
    opened, shut = (
        _mean_openings(padded, (_steps(phones, labels, n) + by) % n, lags)
        for labels in (OPEN_VOWELS, BILABIALS)
    )
    return np.nan_to_num(opened / np.maximum(shut, MIN_OPENING))


def _steps(phones: Sequence[Phone], labels: frozenset[str], n: int) -> Int:
    """Find the steps [m] of the n in which the lips form one of these phones."""
    spans = [
        np.arange(*(round((s - LIPS_LEAD_S) / LAG_STEP_S) for s in (phone.start_s, phone.end_s)))
        for phone in phones
        if phone.label in labels
    ]
    steps = np.concatenate([np.zeros(0, np.int64), *spans])
    return steps[(steps >= 0) & (steps < n)]


def _mean_openings(padded: Float64, steps: Int, lags: Int) -> Float64:
    """Average apertures [n + 2 * MAX_LAG] at steps [m] minus each lag [L]; NaN without any."""
    known = np.isfinite(padded)
    values = np.where(known, padded, 0.0)
    places = steps + _MAX_LAG
    sums = np.array([values[places - lag].sum() for lag in lags])
    counts = np.array([np.count_nonzero(known[places - lag]) for lag in lags])
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _peak(scores: Float64) -> float | None:
    """Find the index of the highest score [L], refined with a parabola; None at the end of the range."""
    best = int(scores.argmax())
    near = np.arange(best - PEAK_REACH, best + PEAK_REACH + 1)
    if near[0] < 0 or near[-1] >= len(scores):
        return None
    bend, slope, _ = np.polyfit(near - best, np.log(np.maximum(scores[near], 1e-6)), 2)
    shift = -0.5 * slope / bend if bend < 0 else 0.0
    return float(best + np.clip(shift, -PEAK_REACH, PEAK_REACH))
