"""Voice activity detection from loudness and PASE's silence posterior, and the level of speech.

Loudness alone is exact where only the speaker is audible, but mistakes half of the speech for
silence where there is noise or music. PASE distinguishes speech from music, but does not find the
exact frame where it ends. PASE is used here whichever encoder drives the lips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d

from talkhead.audio import (
    MIN_SPEECH_DB,
    Loudness,
    measure_loudness,
    silent_frames,
    without_short_runs,
)
from talkhead.encoder.base import encode_stream, speech_gain
from talkhead.encoder.pase.encoder import BLOCK_S, PaseEncoder
from talkhead.encoder.phones import PHONES, SILENCE
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32

WINDOW = 5
"""Frames over which PASE's silence posterior is averaged."""
MIN_SILENCE_POSTERIOR, MAX_SPEECH_POSTERIOR = 0.7, 0.3
"""Silence posteriors: above the first a frame has no speech, however loud; below the second it has
speech, however soft.
"""


@dataclass(frozen=True)
class Speech:
    """Frames with speech in a waveform, and its level.

    Attributes:
        silent: Video frames without speech, [F].
        gain: Factor that brings speech to the level that encoders expect (`speech_gain`).
        n_samples: Length of the waveform at 16 kHz.
    """

    silent: Bool
    gain: np.float32
    n_samples: int


def detect_speech(chunks: Callable[[], Iterable[Float32]]) -> Speech:
    """Detect speech in a waveform and measure its level.

    Args:
        chunks: Returns the waveform at 16 kHz from its beginning, in chunks [n]. Called twice.

    Returns:
        Frames without speech and the gain.

    Raises:
        PackageError: If PASE's weights are missing or damaged.
    """
    loudness = measure_loudness(chunks())
    if (loudness.energy_db <= MIN_SPEECH_DB).all():
        nothing = np.ones(len(loudness.energy_db), dtype=bool)
        return Speech(nothing, np.float32(1.0), loudness.n_samples)
    quiet = silent_frames(loudness.energy_db)
    posteriors = _silence_posteriors(chunks, loudness, quiet)
    silent = without_short_runs(
        np.where(quiet, posteriors > MAX_SPEECH_POSTERIOR, posteriors > MIN_SILENCE_POSTERIOR)
    )
    gain = np.float32(speech_gain(loudness.powers, silent))
    return Speech(silent, gain, loudness.n_samples)


def speech_seconds(waveform: Float32) -> float:
    """Measure for how long PASE is certain that someone speaks.

    In noise and music that is less than a tenth of the time; in speech, two thirds or more.

    Args:
        waveform: [n_samples] in [-1, 1] at 16 kHz.

    Returns:
        Seconds.

    Raises:
        PackageError: If PASE's weights are missing or damaged.
    """
    loudness = measure_loudness([waveform])
    if (loudness.energy_db <= MIN_SPEECH_DB).all():
        return 0.0
    quiet = silent_frames(loudness.energy_db)
    posteriors = _silence_posteriors(lambda: [waveform], loudness, quiet)
    return float((posteriors < MAX_SPEECH_POSTERIOR).sum() / FRAME_RATE)


def silent_video_frames(waveform: Float32, n_frames: int) -> Bool:
    """Find the frames of a video in which no one speaks.

    Args:
        waveform: Its audio, [n_samples] in [-1, 1] at 16 kHz.
        n_frames: The number of its frames.

    Returns:
        True for frames without speech, [n_frames]; frames after the end of the audio are among
        them.

    Raises:
        PackageError: If PASE's weights are missing or damaged.
    """
    silent = np.ones(n_frames, dtype=bool)
    if len(waveform):
        found = detect_speech(lambda: [waveform]).silent[:n_frames]
        silent[: len(found)] = found
    return silent


def vad_version() -> str:
    """Return the version of the detection; different versions may find different frames silent.

    Returns:
        Version of PASE's weights.

    Raises:
        PackageError: If the weights are missing or damaged.
    """
    return PaseEncoder.gru().version


def _silence_posteriors(
    chunks: Callable[[], Iterable[Float32]], loudness: Loudness, quiet: Bool
) -> Float32:
    """Return the probability of silence in each video frame, [F]; quiet: soft frames, [F]."""
    # Where noise is as loud as speech, all frames are soft; then the level is measured on all.
    gain = np.float32(speech_gain(loudness.powers, quiet & ~quiet.all()))
    return _smoothed_posteriors((gain * chunk for chunk in chunks()), len(quiet))


def _smoothed_posteriors(chunks: Iterable[Float32], n_frames: int) -> Float32:
    """Return the probability of silence, [n_frames], of chunks [n] at the level of speech."""
    encoder, index = PaseEncoder.gru(), PHONES.index(SILENCE)
    size = BLOCK_S * SAMPLE_RATE
    pieces = (chunk[at : at + size] for chunk in chunks for at in range(0, len(chunk), size))
    posteriors = encode_stream(encoder.phone_stream(), pieces)
    per_frame = round(encoder.rate / FRAME_RATE)
    values = np.concatenate([phones[:, index].copy() for phones in posteriors])  # [F * per_frame]
    whole = np.pad(values, (0, max(0, n_frames * per_frame - len(values))), mode="edge")
    frames = whole[: n_frames * per_frame].reshape(n_frames, per_frame).mean(1)
    return np.asarray(uniform_filter1d(frames, WINDOW, mode="nearest"), np.float32)
