"""Lip measures at aligned phones, as pure functions. See docs/phonemes.md.

Phones are those of `encoder.forced_alignment`, in seconds from frame 0; frame i shows second i / 25.
Apertures are face.lip_aperture's [F], NaN in frames without a face, which count nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from talkhead.app.evaluation.measures.lips import CLOSED
from talkhead.app.evaluation.results import OffsetEvidence, PhonemeMetrics, VisemeRow
from talkhead.encoder.phones import SILENCE, VISEME_OF, VISEMES, Phone
from talkhead.face import LIPS, OUTER_EYE_CORNERS, lip_aperture
from talkhead.preprocess.av_sync import LIPS_LEAD_MS
from talkhead.types import FRAME_RATE, Bool, Float64, Int

OPEN_VOWELS = frozenset({"AA", "AE", "AO", "AW", "AY"})
"""Vowels that begin low. Not AH, which is also the schwa of every unstressed syllable."""
BILABIALS = frozenset({"P", "B", "M"})
"""Phones that can't be said with open lips."""
MIN_OPENING = 0.005
"""Openings count as this at least in a denominator: it is what trackers see of closed lips."""
MIN_SEGMENTS, MIN_EVIDENCE = 5, 8
"""Fewer vowels or /p b m/ than these give no figure, and no offset."""
MIN_FRAMES = 5
"""A viseme seen in fewer frames has no row."""
MOUTH_CORNERS = (61, 291)

LIPS_LEAD_S = LIPS_LEAD_MS / 1000
"""Lips are where a phone wants them before it is heard: on four clips whose offset is known by other
means the opening ratio is highest 20 to 40 ms early. Phones are looked for that much earlier."""

MAX_LAG_S = 0.4
LAG_STEP_S = 0.01
N_CONTROLS = 20
PEAK_REACH = 4  # lags on each side of the best one that its parabola is laid through
SURENESS = 1.4
"""Wrong sound reaches 1.3 times the control in one case of a hundred, right sound 2 to 4 times."""

Numbers = npt.NDArray[np.floating[Any]]


def phoneme_metrics(phones: Sequence[Phone], aperture: Numbers) -> PhonemeMetrics:
    """Opening ratio and closure rate of lips.

    opening_ratio: mean aperture while OPEN_VOWELS are said over that while BILABIALS are, which
    counts as MIN_OPENING at least. closure_rate: share of BILABIALS with an aperture under CLOSED in
    one of their frames or of the two beside them; closure_chance: share of such windows, laid
    anywhere in speech. A figure is None with fewer than MIN_SEGMENTS of what it needs.
    aperture: [F], NaN without a face.
    """
    counts = _counts(phones, aperture)
    ratio = rate = chance = None
    if min(counts) >= MIN_SEGMENTS:
        ratio = float(_opening_ratios(phones, aperture, np.zeros(1, np.int64))[0])
    if counts[1] >= MIN_SEGMENTS:
        windows = [_beside(frames, aperture) for frames in _seen(phones, BILABIALS, aperture)]
        rate = float(np.mean([_closes(aperture[frames]) for frames in windows]))
        chance = _closure_chance([len(frames) for frames in windows], phones, aperture)
    return PhonemeMetrics(*counts, ratio, rate, chance)


def viseme_table(
    phones: Sequence[Phone], real: Numbers, made: Numbers, seen: Bool
) -> tuple[VisemeRow, ...]:
    """The mean mouth of each viseme, real and made, in the order of VISEMES.

    real, made: landmarks [F, 478, 2] px. seen: [F] frames with a face in both; the others count
    nowhere. Each frame's lips are centred on their mean and turned and scaled so that the outer eye
    corners lie level, 1 apart. Visemes with fewer than MIN_FRAMES frames are left out.
    """
    visemes = _viseme_of_frames(phones, len(seen))
    rows = []
    for viseme in VISEMES:
        frames = np.flatnonzero((visemes == viseme) & seen)
        if len(frames) >= MIN_FRAMES:
            rows.append(_viseme_row(viseme, real[frames], made[frames]))
    return tuple(rows)


def opening_evidence(phones: Sequence[Phone], aperture: Numbers) -> OffsetEvidence:
    """How late the sound is: by the lag at which phoneme_metrics' opening ratio is highest.

    Scores are the ratios were the sound as late as each lag of +-MAX_LAG_S. Control: the best ratio,
    over all those lags, that phones shifted in a circle by a good part of the clip reach. The offset
    is None where the best ratio isn't SURENESS times the control, or where there are fewer than
    MIN_EVIDENCE vowels or bilabials. aperture: [F], NaN without a face.
    """
    lags = np.arange(-_MAX_LAG, _MAX_LAG + 1)
    scores = _opening_ratios(phones, aperture, lags)
    shifts_s = np.linspace(0.15, 0.85, N_CONTROLS) * len(aperture) / FRAME_RATE
    control = max(
        float(_opening_ratios(phones, aperture, lags, shift_s).max()) for shift_s in shifts_s
    )
    best = float(scores.max())
    sure = min(_counts(phones, aperture)) >= MIN_EVIDENCE and best > SURENESS * control
    peak = _peak(scores) if sure else None
    return OffsetEvidence(
        means="lips open in vowels over p, b, m",
        offset_ms=None if peak is None else (peak - _MAX_LAG) * _STEP_MS,
        score=best,
        control=control,
        lags_ms=(lags * _STEP_MS).tolist(),
        scores=scores.tolist(),
    )


# ------------------------------------------------------------------------------- segments


def _frames_of(phone: Phone, n_frames: int) -> Int:
    """The frames that show a phone; the one nearest to its middle if none falls into it."""
    start, end = ((s - LIPS_LEAD_S) * FRAME_RATE for s in (phone.start_s, phone.end_s))
    first, last = (int(np.ceil(moment - 1e-6)) for moment in (start, end))
    if first == last:
        first = round((start + end) / 2)
        last = first + 1
    return np.arange(max(0, first), min(last, n_frames))


def _seen(phones: Sequence[Phone], labels: frozenset[str], aperture: Numbers) -> Iterator[Int]:
    """Frames of each phone of these labels, of those that show a face at all."""
    for phone in phones:
        if phone.label in labels:
            frames = _frames_of(phone, len(aperture))
            if np.isfinite(aperture[frames]).any():
                yield frames


def _counts(phones: Sequence[Phone], aperture: Numbers) -> tuple[int, int]:
    """How many open vowels and bilabials the lips are seen in."""
    n_vowels, n_bilabials = (
        sum(1 for _ in _seen(phones, labels, aperture)) for labels in (OPEN_VOWELS, BILABIALS)
    )
    return n_vowels, n_bilabials


def _beside(frames: Int, aperture: Numbers) -> Int:
    """The frames and one more on each side."""
    return np.arange(max(0, frames[0] - 1), min(frames[-1] + 2, len(aperture)))


def _closes(aperture: Numbers) -> bool:
    return bool((aperture < CLOSED).any())  # NaN is not under anything


def _closure_chance(lengths: Sequence[int], phones: Sequence[Phone], aperture: Numbers) -> float:
    """Share of windows of these lengths, laid anywhere in speech, in which the lips close."""
    speech = np.zeros(len(aperture), np.bool_)
    for phone in phones:
        if phone.label != SILENCE:
            speech[_frames_of(phone, len(aperture))] = True
    shares = {length: _closing_share(length, speech, aperture) for length in set(lengths)}
    return float(np.nanmean([shares[length] for length in lengths]))


def _closing_share(length: int, speech: Bool, aperture: Numbers) -> float:
    around = np.lib.stride_tricks.sliding_window_view
    values, spoken = around(aperture, length), around(speech, length)
    usable = spoken.all(1) & np.isfinite(values).any(1)
    return float((values[usable] < CLOSED).any(1).mean()) if usable.any() else float("nan")


# -------------------------------------------------------------------------------- visemes


def _viseme_of_frames(phones: Sequence[Phone], n_frames: int) -> npt.NDArray[np.object_]:
    """The viseme of each frame [F], "" where no phone is known."""
    visemes = np.full(n_frames, "", dtype=object)
    for phone in phones:
        visemes[_frames_of(phone, n_frames)] = VISEME_OF[phone.label]
    return visemes


def _viseme_row(viseme: str, real: Numbers, made: Numbers) -> VisemeRow:
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


def _mean_shape(points: Numbers) -> Float64:
    """Mean of the lips [40, 2] over frames."""
    lips = _levelled(points, LIPS)
    mean = (lips - lips.mean(1, keepdims=True)).mean(0)
    return np.stack([mean.real, mean.imag], -1)


def _mean_width(points: Numbers) -> float:
    corners = _levelled(points, MOUTH_CORNERS)
    return float(np.abs(corners[:, 1] - corners[:, 0]).mean())


def _levelled(points: Numbers, wanted: Sequence[int]) -> npt.NDArray[np.complex128]:
    """Points as x + iy, [F, P], of frames turned and scaled so that the eye corners lie at 0 and 1."""
    places = points[..., 0].astype(np.float64) + 1j * points[..., 1]
    left, right = (places[:, [corner]] for corner in OUTER_EYE_CORNERS)
    return np.asarray((places[:, list(wanted)] - left) / (right - left))


# --------------------------------------------------------------------------- opening ratio


_PER_FRAME = round(1.0 / (FRAME_RATE * LAG_STEP_S))
_MAX_LAG = round(MAX_LAG_S / LAG_STEP_S)
_STEP_MS = LAG_STEP_S * 1000.0


def _opening_ratios(
    phones: Sequence[Phone], aperture: Numbers, lags: Int, shift_s: float = 0.0
) -> Float64:
    """The opening ratio were the sound late by each lag [L] in steps; 0 where nothing is seen.

    In steps of LAG_STEP_S, between which apertures are interpolated: whole frames are too coarse
    for phones of two or three. shift_s: moves the phones in a circle.
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
    """Steps [m] of the n in which the lips say one of these phones."""
    spans = [
        np.arange(*(round((s - LIPS_LEAD_S) / LAG_STEP_S) for s in (phone.start_s, phone.end_s)))
        for phone in phones
        if phone.label in labels
    ]
    steps = np.concatenate([np.zeros(0, np.int64), *spans])
    return steps[(steps >= 0) & (steps < n)]


def _mean_openings(padded: Float64, steps: Int, lags: Int) -> Float64:
    """Mean of the apertures [n + 2 * _MAX_LAG] at the steps less each lag [L]; NaN without any."""
    seen = np.isfinite(padded)
    values = np.where(seen, padded, 0.0)
    places = steps + _MAX_LAG
    sums = np.array([values[places - lag].sum() for lag in lags])
    counts = np.array([np.count_nonzero(seen[places - lag]) for lag in lags])
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _peak(scores: Float64) -> float | None:
    """The index of the highest score, refined by a parabola; None at the end of the range."""
    best = int(scores.argmax())
    near = np.arange(best - PEAK_REACH, best + PEAK_REACH + 1)
    if near[0] < 0 or near[-1] >= len(scores):
        return None
    bend, slope, _ = np.polyfit(near - best, np.log(np.maximum(scores[near], 1e-6)), 2)
    shift = -0.5 * slope / bend if bend < 0 else 0.0
    return float(best + np.clip(shift, -PEAK_REACH, PEAK_REACH))
