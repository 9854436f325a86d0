"""Where nobody speaks, by how loud it is and by what PASE hears; and so how loud speech is.

Loudness alone is exact where all is quiet but the speaker, and takes half of the speech for silence
where noise or music goes on. PASE tells speech from music, but not to the frame where it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d

from talkhead.audio import (
    SPEECH_LEAST_DB,
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
"""Frames over which PASE's silence is averaged."""
SURELY, HARDLY = 0.7, 0.3
"""Above the first nobody speaks, however loud; below the second somebody does, however soft."""


@dataclass(frozen=True)
class Speech:
    """silent: [F] video frames in which nobody speaks. gain: what brings speech to the level that
    encoders hear (`speech_gain`). n_samples: of the sound, at 16 kHz."""

    silent: Bool
    gain: np.float32
    n_samples: int


def detect_speech(chunks: Callable[[], Iterable[Float32]]) -> Speech:
    """Where speech is in a waveform at 16 kHz, and how loud. chunks: gives it from its beginning,
    twice, in pieces [n]. Raises PackageError when PASE's weights are missing or damaged."""
    loudness = measure_loudness(chunks())
    if (loudness.energy_db <= SPEECH_LEAST_DB).all():
        nothing = np.ones(len(loudness.energy_db), dtype=bool)
        return Speech(nothing, np.float32(1.0), loudness.n_samples)
    quiet = silent_frames(loudness.energy_db)
    speechless = _ask_pase(chunks, loudness, quiet)
    silent = without_short_runs(np.where(quiet, speechless > HARDLY, speechless > SURELY))
    gain = np.float32(speech_gain(loudness.powers, silent))
    return Speech(silent, gain, loudness.n_samples)


def speech_seconds(waveform: Float32) -> float:
    """Seconds of a waveform [n_samples] at 16 kHz in which PASE is sure that somebody speaks.

    Of noise and music it is sure in less than a tenth, of speech in two thirds and more. Raises
    PackageError as `detect_speech`.
    """
    loudness = measure_loudness([waveform])
    if (loudness.energy_db <= SPEECH_LEAST_DB).all():
        return 0.0
    speechless = _ask_pase(lambda: [waveform], loudness, silent_frames(loudness.energy_db))
    return float((speechless < HARDLY).sum() / FRAME_RATE)


def silence_of_video(waveform: Float32, n_frames: int) -> Bool:
    """In which of a video's frames nobody speaks: [n_frames]; those past the sound's end are among
    them. waveform: [n_samples] at 16 kHz. Raises PackageError as `detect_speech`."""
    silent = np.ones(n_frames, dtype=bool)
    if len(waveform):
        found = detect_speech(lambda: [waveform]).silent[:n_frames]
        silent[: len(found)] = found
    return silent


def silence_version() -> str:
    """Version of the speech detection: another version may find other frames silent.

    Raises:
        PackageError: as `detect_speech`.
    """
    return PaseEncoder.shipped().version


def _ask_pase(chunks: Callable[[], Iterable[Float32]], loudness: Loudness, quiet: Bool) -> Float32:
    """How surely nobody speaks, [F] in 0 to 1, in a waveform of that loudness; quiet: [F]."""
    # Where noise is as loud as speech, all seems quiet: PASE is asked all the same.
    gain = np.float32(speech_gain(loudness.powers, quiet & ~quiet.all()))
    return _speechless((gain * chunk for chunk in chunks()), len(quiet))


def _speechless(chunks: Iterable[Float32], n_frames: int) -> Float32:
    """How surely nobody speaks, [n_frames] in 0 to 1, of a waveform at the level encoders hear."""
    ears, index = PaseEncoder.shipped(), PHONES.index(SILENCE)
    size = BLOCK_S * SAMPLE_RATE
    pieces = (chunk[at : at + size] for chunk in chunks for at in range(0, len(chunk), size))
    heard = [phones[:, index].copy() for phones in encode_stream(ears.phone_stream(), pieces)]
    per_frame = round(ears.rate / FRAME_RATE)
    values = np.concatenate(heard)
    whole = np.pad(values, (0, max(0, n_frames * per_frame - len(values))), mode="edge")
    frames = whole[: n_frames * per_frame].reshape(n_frames, per_frame).mean(1)
    return np.asarray(uniform_filter1d(frames, WINDOW, mode="nearest"), np.float32)
