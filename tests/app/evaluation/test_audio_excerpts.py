"""Analysis of audio: silence, phones, and parts of a clip."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from paths import LINE

from talkhead.app.evaluation import audio as audio_module
from talkhead.app.evaluation.audio import analyze_audio, excerpt
from talkhead.app.evaluation.measures.sync_model import MAX_LAG
from talkhead.app.evaluation.variant import AudioContext
from talkhead.encoder.phones import Phone
from talkhead.media import read_audio
from talkhead.types import SAMPLE_RATE, Float32

N = 100  # frames
HOP = 640


@lru_cache
def speech() -> Float32:
    """The first seconds of the sample's line."""
    line = read_audio(LINE, SAMPLE_RATE)
    return np.pad(line, (0, N * HOP))[: N * HOP]


@pytest.fixture
def no_recognizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_module, "phones_unavailable_reason", lambda: "not installed")


def test_silence_has_no_audio_context() -> None:
    analysis = analyze_audio(np.zeros(N * HOP, np.float32), N, name="mute.mp4")
    assert analysis.audio is None and analysis.left_out == (
        "mute.mp4: phonemes and sync: no speech was detected",
    )
    assert analyze_audio(np.zeros(0, np.float32), N).audio is None


@pytest.mark.usefixtures("no_recognizer")
def test_without_pocketsphinx_pase_recognizes_the_phones() -> None:
    analysis = analyze_audio(speech(), N)
    assert analysis.audio is not None and analysis.audio.phones
    assert analysis.audio.phones[0].start_s == 0.0
    assert analysis.audio.phones[-1].end_s == pytest.approx(N / 25)
    assert analysis.left_out[0].startswith("phonemes: not installed. They are recognized by PASE")
    assert len(analysis.audio.silent) == N and len(analysis.audio.waveform) == N * HOP


def test_pase_recognizes_the_phones_of_other_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_module, "phones_unavailable_reason", lambda: "")
    analysis = analyze_audio(speech(), N, language="fr")
    assert analysis.audio is not None and analysis.audio.phones
    assert "'fr'" in analysis.left_out[0] and "PASE" in analysis.left_out[0]
    quick = analyze_audio(speech(), N, phones=False)
    assert quick.audio is not None and quick.left_out == ()


def test_phones_are_decoded_or_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_module, "phones_unavailable_reason", lambda: "")
    monkeypatch.setattr(audio_module, "decode_phones", lambda waveform: [Phone("P", 0, 1)])
    monkeypatch.setattr(audio_module, "align_phones", lambda waveform, text: [Phone(text, 0, 1)])
    decoded, aligned = analyze_audio(speech(), N).audio, analyze_audio(speech(), N, text="B").audio
    assert decoded is not None and decoded.phones == [Phone("P", 0, 1)]
    assert aligned is not None and aligned.phones == [Phone("B", 0, 1)]


def test_an_excerpt_has_its_own_times_and_context() -> None:
    waveform = np.repeat(np.arange(N, dtype=np.float32), HOP)
    phones = [Phone("P", 0.9, 1.1), Phone("AA", 1.2, 1.36), Phone("B", 2.3, 2.5)]
    whole = AudioContext(waveform, np.arange(N) % 2 == 0, phones)
    part = excerpt(whole, 28, 32)
    assert part.lead == MAX_LAG and part.waveform[0] == 28 - MAX_LAG
    assert part.waveform[-1] == 28 + 32 + MAX_LAG - 1
    assert part.silent[0] and len(part.silent) == 32
    assert part.phones is not None and [phone.label for phone in part.phones] == ["AA"]
    assert part.phones[0].start_s == pytest.approx(1.2 - 28 / 25)
    beginning = excerpt(whole, 3, 10)
    assert beginning.lead == 3 and beginning.waveform[0] == 0
    for first, n_frames in ((-1, 10), (95, 10)):
        with pytest.raises(ValueError, match="of 100"):
            excerpt(whole, first, n_frames)
