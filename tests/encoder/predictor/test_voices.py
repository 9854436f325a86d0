"""The shipped voices: length, level, and that they are encoded once."""

from __future__ import annotations

import numpy as np
import pytest

from talkhead.audio import measure_loudness
from talkhead.encoder.base import SPEECH_LEVEL_DB
from talkhead.encoder.mel import MelEncoder
from talkhead.encoder.predictor import voices
from talkhead.media import read_audio
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32, SpeechFeatures
from talkhead.weights import resolve


def test_the_shipped_voices() -> None:
    waveform = read_audio(resolve(voices.VOICES))
    assert 90.0 < len(waveform) / SAMPLE_RATE < 120.0
    assert resolve(voices.VOICES).stat().st_size < 500_000
    assert np.abs(waveform).max() < 1.0  # not clipped
    found = voices.other_voices(MelEncoder())
    assert len(found.silent) == int(np.ceil(len(waveform) / SAMPLE_RATE * FRAME_RATE))
    assert 0.05 < found.silent.mean() < 0.4
    powers = measure_loudness([waveform]).powers
    level = 10.0 * np.log10(powers[: len(found.silent)][~found.silent].mean())
    assert level == pytest.approx(SPEECH_LEVEL_DB, abs=1.0)


def test_voices_are_encoded_once_for_each_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []

    class Counting(MelEncoder):
        def encode(self, waveform: Float32) -> SpeechFeatures:
            lengths.append(len(waveform))
            return super().encode(waveform)

    monkeypatch.setattr(voices, "_KEPT", {})
    first, again = (voices.other_voices(Counting()) for _ in range(2))
    assert first is again and len(lengths) == 1
    for number in range(voices.MAX_KEPT):
        voices.other_voices(Counting(version=str(number + 2)))
    assert len(voices._KEPT) == voices.MAX_KEPT and len(lengths) == 1 + voices.MAX_KEPT
