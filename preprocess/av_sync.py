"""How late a clip's sound is, from lip motion and mel energies alone.

A ridge regression with a short context (a long one would hide the offset it is to find) predicts
the lips from the sound shifted by every lag within +-10 frames; the lag that predicts best wins. A
control shifts the sound by many seconds: a peak that the control reaches too is no evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkhead.audio import log_mel
from talkhead.face import OUTER_EYE_CORNERS, lip_aperture
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32, Float64

MAX_LAG = 10
CONTEXT = 2
NEARNESS = (0.2, 0.5, 1.0, 0.5, 0.2)
"""Scale of each context frame's energies before the ridge: the moment itself is preferred to its
neighbours, or every lag within the context would predict as well as the true one."""
N_BANDS = 16
N_FOLDS = 5
N_CONTROLS = 12
RIDGE = 1000.0
MIN_SCORE = 0.25
"""Lips and sound of different clips reach 0.2 by chance, those of one clip 0.5 to 0.7."""
LIPS_LEAD_MS = 30.0
"""Lips move before they are heard: on four clips whose offset is known by other means, the best lag
lay 17 to 41 ms late of it."""
IN_SYNC_FRAMES = 1.0
"""Offsets smaller than this are left alone."""
MIN_SECONDS = 12.0


@dataclass(frozen=True)
class AvOffset:
    """How late the sound is, in ms (None: could not be established).

    scores: [21] correlation for lags -10..10 frames, control: highest correlation that wrong
    sound reached, corrected_ms: what preprocessing will shift by.
    """

    offset_ms: float | None
    corrected_ms: float
    scores: tuple[float, ...]
    control: float


def measure_offset(waveform: Float32, lips: Float32, usable: Bool) -> AvOffset:
    """The offset of a clip.

    waveform: [n_samples] at 16 kHz. lips: [F, D] lip measures (aperture and the like). usable: [F].
    """
    sound = _mel_context(waveform, len(lips))
    target = lips.astype(np.float64)
    scores = np.array([_score(sound, target, usable, lag) for lag in _lags()])
    control = _control(sound, target, usable)
    best = peak_index(scores)
    lag = None if best is None else best - MAX_LAG
    sure = (
        lag is not None
        and scores.max() > max(1.25 * control, control + 0.1, MIN_SCORE)
        and len(lips) >= MIN_SECONDS * FRAME_RATE
    )
    offset = lag * 1000.0 / FRAME_RATE - LIPS_LEAD_MS if sure and lag is not None else None
    late = offset is not None and abs(offset) > IN_SYNC_FRAMES * 1000.0 / FRAME_RATE
    corrected = offset if late and offset is not None else 0.0
    rounded = tuple(round(float(score), 4) for score in scores)
    return AvOffset(offset, corrected, rounded, round(control, 4))


def shift_waveform(waveform: Float32, late_ms: float) -> Float32:
    """The waveform played earlier by late_ms (later if negative), silence filled in."""
    n = round(late_ms * SAMPLE_RATE / 1000.0)
    if n >= 0:
        return np.concatenate([waveform[n:], np.zeros(min(n, len(waveform)), np.float32)])
    return np.concatenate([np.zeros(-n, np.float32), waveform])[: len(waveform)]


def lip_measures(points: Float32) -> Float32:
    """Return aperture, width and height of the lower lip, in distances of the outer eye corners.

    Args:
        points: [F, 478, 2 or 3] landmarks, any unit.

    Returns:
        [F, 3].
    """
    left, right = OUTER_EYE_CORNERS
    size = np.linalg.norm(points[:, left, :2] - points[:, right, :2], axis=-1)
    width = np.linalg.norm(points[:, 61, :2] - points[:, 291, :2], axis=-1) / size
    lower = (points[:, 17, 1] - points[:, 4, 1]) / size
    return np.stack([lip_aperture(points), width, lower], axis=1).astype(np.float32)


def _lags() -> range:
    return range(-MAX_LAG, MAX_LAG + 1)


def _mel_context(waveform: Float32, n_frames: int) -> Float64:
    """Log-mel energies of each frame and its neighbours, [F, N_BANDS * (2 * CONTEXT + 1)]."""
    hop = SAMPLE_RATE // FRAME_RATE
    mel = log_mel(waveform, SAMPLE_RATE, n_fft=1024, hop_length=hop, n_mels=N_BANDS)
    mel = np.pad(mel, ((0, max(0, n_frames - len(mel))), (0, 0)), mode="edge")[:n_frames]
    padded = np.pad(mel, ((CONTEXT, CONTEXT), (0, 0)), mode="edge").astype(np.float64)
    return np.concatenate([padded[i : i + n_frames] for i in range(2 * CONTEXT + 1)], axis=1)


def _score(sound: Float64, lips: Float64, usable: Bool, lag: int) -> float:
    """Mean cross-validated correlation of lips with what sound `lag` frames later predicts."""
    frames = np.arange(MAX_LAG, len(lips) - MAX_LAG)
    frames = frames[usable[frames]]
    if len(frames) < 10 * N_FOLDS:
        return 0.0
    x, y = sound[frames + lag], lips[frames]
    predicted = np.zeros_like(y)
    folds = np.array_split(np.arange(len(frames)), N_FOLDS)
    for fold in folds:
        rest = np.setdiff1d(np.arange(len(frames)), fold)
        predicted[fold] = _ridge(x[rest], y[rest], x[fold])
    correlations = [np.corrcoef(predicted[:, i], y[:, i])[0, 1] for i in range(y.shape[1])]
    return float(np.nan_to_num(np.mean(correlations)))


def _ridge(x: Float64, y: Float64, new: Float64) -> Float64:
    nearness = np.repeat(NEARNESS, N_BANDS)
    mean, spread, middle = x.mean(0), (x.std(0) + 1e-6) / nearness, y.mean(0)
    z = (x - mean) / spread
    weights = np.linalg.solve(z.T @ z + RIDGE * np.eye(z.shape[1]), z.T @ (y - middle))
    return np.asarray((new - mean) / spread @ weights + middle)


def _control(sound: Float64, lips: Float64, usable: Bool) -> float:
    """The best score among sounds shifted, in a circle, by a good part of the clip."""
    shifts = np.linspace(0.2, 0.8, N_CONTROLS) * len(sound)
    return max(_score(np.roll(sound, int(s), axis=0), lips, usable, 0) for s in shifts)


def peak_index(scores: Float64) -> float | None:
    """Where scores are highest, refined by the parabola through the best one and its neighbours.

    None where the best is the first or the last: the peak may lie beyond. NaN scores count as none.
    """
    known = np.where(np.isfinite(scores), scores, -np.inf)
    best = int(known.argmax())
    if best in (0, len(known) - 1) or not np.isfinite(known[best]):
        return None
    before, top, after = known[best - 1 : best + 2]
    bend = before - 2 * top + after
    shift = 0.5 * (before - after) / bend if np.isfinite(bend) and bend < 0 else 0.0
    return float(best + shift)
