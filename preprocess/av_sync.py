"""Measure how late the audio of a clip is, from lip motion and mel energies alone.

A ridge regression with a short temporal context (a long one would hide the offset) predicts the lips from
the audio, shifted by each lag within +-10 frames; the best prediction gives the lag. As a control, the
audio is shifted by many seconds: a peak that the control also reaches is no evidence.
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
"""Scale of the energies of each context frame before the regression: the frame itself is preferred
to its neighbors; otherwise each lag within the context would predict as well as the true one.
"""
N_BANDS = 16
N_FOLDS = 5
N_CONTROLS = 12
RIDGE = 1000.0
MIN_SCORE = 0.25
"""Lips and audio of different clips reach 0.2 by chance, those of one clip 0.5 to 0.7."""
LIPS_LEAD_MS = 30.0
"""Lips move before the sound: on four clips whose offset was determined otherwise, the best lag was 17 to
41 ms later."""
IN_SYNC_FRAMES = 1.0
"""Smaller offsets are not corrected."""
MIN_SECONDS = 12.0


@dataclass(frozen=True)
class AvOffset:
    """Offset of the audio relative to the picture.

    Attributes:
        offset_ms: How late the audio is, milliseconds; None where it could not be measured.
        corrected_ms: By how much preprocessing shifts the audio, milliseconds.
        scores: Correlation for each of the 21 lags from -10 to 10 frames.
        control: Highest correlation that unrelated audio reached.
    """

    offset_ms: float | None
    corrected_ms: float
    scores: tuple[float, ...]
    control: float


def measure_offset(waveform: Float32, lips: Float32, usable: Bool) -> AvOffset:
    """Measure the offset of a clip of F frames.

    Args:
        waveform: [n_samples] at 16 kHz.
        lips: [F, D] measures of the lips, such as `lip_measures`.
        usable: [F] frames to measure on.

    Returns:
        The offset; its offset_ms is None if no peak clearly exceeds the control.
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
    """Move a waveform to an earlier time, filling in silence.

    Args:
        waveform: [n_samples] at 16 kHz.
        late_ms: How late it is, milliseconds; negative values move it to a later time.

    Returns:
        [n_samples].
    """
    n = round(late_ms * SAMPLE_RATE / 1000.0)
    if n >= 0:
        return np.concatenate([waveform[n:], np.zeros(min(n, len(waveform)), np.float32)])
    return np.concatenate([np.zeros(-n, np.float32), waveform])[: len(waveform)]


def lip_measures(points: Float32) -> Float32:
    """Return aperture, width and height of the lower lip, relative to the distance of the eyes.

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
    """Return log-mel energies of each frame and its neighbors, [F, N_BANDS * (2 * CONTEXT + 1)]."""
    hop = SAMPLE_RATE // FRAME_RATE
    mel = log_mel(waveform, SAMPLE_RATE, n_fft=1024, hop_length=hop, n_mels=N_BANDS)
    mel = np.pad(mel, ((0, max(0, n_frames - len(mel))), (0, 0)), mode="edge")[:n_frames]
    padded = np.pad(mel, ((CONTEXT, CONTEXT), (0, 0)), mode="edge").astype(np.float64)
    return np.concatenate([padded[i : i + n_frames] for i in range(2 * CONTEXT + 1)], axis=1)


def _score(sound: Float64, lips: Float64, usable: Bool, lag: int) -> float:
    """Return the mean cross-validated correlation of lips [F, D] with their prediction.

    Args:
        sound: [F, N] features of the audio, of which those `lag` frames later are used.
        lips: [F, D] targets.
        usable: [F] frames.
        lag: Frames.
    """
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
    """Predict [m, D] for new inputs [m, N], by ridge regression on x [n, N] and y [n, D]."""
    nearness = np.repeat(NEARNESS, N_BANDS)
    mean, spread, middle = x.mean(0), (x.std(0) + 1e-6) / nearness, y.mean(0)
    z = (x - mean) / spread
    weights = np.linalg.solve(z.T @ z + RIDGE * np.eye(z.shape[1]), z.T @ (y - middle))
    return np.asarray((new - mean) / spread @ weights + middle)


def _control(sound: Float64, lips: Float64, usable: Bool) -> float:
    """Return the best score of sound [F, N] for lips [F, D], rotated by a large part of the clip.

    usable: [F].
    """
    shifts = np.linspace(0.2, 0.8, N_CONTROLS) * len(sound)
    return max(_score(np.roll(sound, int(s), axis=0), lips, usable, 0) for s in shifts)


def peak_index(scores: Float64) -> float | None:
    """Find the maximum, refined by the parabola through the best score and its neighbors.

    Args:
        scores: [n]; NaN scores are ignored.

    Returns:
        The position of the peak, as an index with fraction; None where the first or the last score is the
        best one, since the peak may be beyond it.
    """
    known = np.where(np.isfinite(scores), scores, -np.inf)
    best = int(known.argmax())
    if best in (0, len(known) - 1) or not np.isfinite(known[best]):
        return None
    before, top, after = known[best - 1 : best + 2]
    bend = before - 2 * top + after
    shift = 0.5 * (before - after) / bend if np.isfinite(bend) and bend < 0 else 0.0
    return float(best + shift)
