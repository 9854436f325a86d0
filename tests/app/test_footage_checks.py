"""Unusable footage is refused before it is prepared, and little speech is reported."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from tiny import LINE

from talkhead import media
from talkhead.app import footage_checks
from talkhead.app.footage_checks import check_speech, explained, little_speech
from talkhead.encoder.vad import speech_seconds
from talkhead.errors import FootageError
from talkhead.progress import SilentProgress
from talkhead.types import SAMPLE_RATE, Float32

SECONDS = 8


def noise(kind: str) -> Float32:
    """Audio without speech, as loud as speech."""
    random, times = np.random.default_rng(0), np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    if kind == "hum":
        return (0.1 * np.sin(2 * np.pi * 50 * times)).astype(np.float32)
    rates = np.fft.rfftfreq(len(times), 1 / SAMPLE_RATE)
    rates[0] = rates[1]
    spectrum = np.fft.rfft(random.standard_normal(len(times))) / rates**0.5
    pink = np.fft.irfft(spectrum, len(times))
    pink = 0.1 * pink / pink.std()
    if kind == "bursts":
        pink *= np.repeat(random.random(SECONDS * 5) > 0.5, SAMPLE_RATE // 5)
    return pink.astype(np.float32)


def write(path: Path, waveform: Float32) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes())
    return path


class Recorded(SilentProgress):
    """Stores messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.mark.parametrize("kind", ["pink", "hum", "bursts"])
def test_footage_without_speech_is_refused(tmp_path: Path, kind: str) -> None:
    path, progress = write(tmp_path / "noise.wav", noise(kind)), Recorded()
    with pytest.raises(FootageError, match=r"hardly any speech was found.*--no-speech-check"):
        check_speech(path, progress)
    assert not progress.messages
    check_speech(path, progress, required=False)
    assert "Hardly any speech" in progress.messages[0]


def test_speech_in_noise_is_detected(tmp_path: Path) -> None:
    line = media.read_audio(LINE)
    pink = noise("pink")[: len(line)]
    mixed = line + pink * line.std() / pink.std()
    assert speech_seconds(mixed.astype(np.float32)) > 0.6 * len(line) / SAMPLE_RATE
    check_speech(write(tmp_path / "mixed.wav", mixed), SilentProgress())


def test_little_speech_is_reported_and_reading_ends_after_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, progress = media.read_audio(LINE), Recorded()
    check_speech(LINE, progress)
    assert len(progress.messages) == 1 and "enough for a first try" in progress.messages[0]
    monkeypatch.setattr(footage_checks, "ENOUGH_S", 10.0)
    monkeypatch.setattr(footage_checks, "CHUNK_S", 4.0)
    read: list[int] = []

    def counted(waveform: Float32) -> float:
        read.append(len(waveform))
        return 3.5

    monkeypatch.setattr(footage_checks, "speech_seconds", counted)
    long = write(tmp_path / "long.wav", np.tile(line, 4))
    check_speech(long, progress)
    assert len(progress.messages) == 1 and len(read) == 3
    assert little_speech(10.0) == "" and "9 s of speech" in little_speech(9.0)


def test_silence_is_not_speech(tmp_path: Path) -> None:
    assert speech_seconds(np.zeros(SAMPLE_RATE, np.float32)) == 0.0
    assert speech_seconds(np.zeros(1, np.float32)) == 0.0


def test_an_upside_down_person_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error, video = FootageError("no face"), tmp_path / "a.mp4"
    monkeypatch.setattr(footage_checks, "is_upside_down", lambda video: False)
    assert explained(error, video) is error
    monkeypatch.setattr(footage_checks, "is_upside_down", lambda video: True)
    words = str(explained(error, video))
    assert "a.mp4: the person is upside down" in words
    assert "ffmpeg -i a.mp4 -vf hflip,vflip a-turned.mp4" in words
