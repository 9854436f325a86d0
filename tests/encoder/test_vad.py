"""Voice activity detection, in quiet and in noise."""

from __future__ import annotations

import numpy as np
import pytest
from paths import LINE

from talkhead.audio import is_silence
from talkhead.encoder.base import SPEECH_LEVEL_DB
from talkhead.encoder.vad import detect_speech, silent_video_frames
from talkhead.media import read_audio
from talkhead.types import SAMPLE_RATE, Float32

PAUSE_S = 2.0


@pytest.fixture(scope="module")
def spoken() -> Float32:
    """The sample line, a pause, and the line again."""
    line = read_audio(LINE, SAMPLE_RATE)
    pause = np.zeros(int(PAUSE_S * SAMPLE_RATE), np.float32)
    return np.concatenate([line, pause, line])


def _music(n_samples: int) -> Float32:
    """Decaying chords of half a second."""
    random, times = np.random.default_rng(0), np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    chords = []
    for _ in range(n_samples // len(times) + 1):
        tones = [np.sin(2 * np.pi * hertz * times) for hertz in random.uniform(110, 520, 3)]
        chords.append(sum(tones) * np.exp(-3 * times))
    return np.concatenate(chords)[:n_samples].astype(np.float32)


def _level(waveform: Float32) -> float:
    return float(np.sqrt(np.mean(np.square(waveform))))


def test_in_a_quiet_room_the_result_equals_that_by_loudness(spoken: Float32) -> None:
    quiet = is_silence(spoken)
    assert (detect_speech(lambda: [spoken]).silent == quiet).mean() > 0.95


@pytest.mark.parametrize("kind", ["white", "music"])
def test_noise_and_music_are_distinguished_from_speech(spoken: Float32, kind: str) -> None:
    random = np.random.default_rng(1)
    noise = _music(len(spoken)) if kind == "music" else random.normal(size=len(spoken))
    noisy = spoken + (0.4 * _level(spoken) / _level(noise) * noise).astype(np.float32)
    true, by_loudness = is_silence(spoken), is_silence(noisy)
    found = detect_speech(lambda: [noisy]).silent
    assert (found & ~true).sum() < 0.5 * (by_loudness & ~true).sum()
    assert found[true].mean() > 0.8


def test_pieces_give_the_same_result_as_the_whole(spoken: Float32) -> None:
    whole = detect_speech(lambda: [spoken])
    pieces = detect_speech(lambda: np.array_split(spoken, 7))
    np.testing.assert_array_equal(pieces.silent, whole.silent)
    assert pieces.gain == whole.gain and pieces.n_samples == whole.n_samples == len(spoken)


def test_the_gain_brings_speech_to_its_level(spoken: Float32) -> None:
    for factor in (0.05, 1.0):
        speech = detect_speech(lambda factor=factor: [np.float32(factor) * spoken])
        frames = (factor * speech.gain * spoken)[: len(spoken) // 640 * 640].reshape(-1, 640)
        powers = np.square(frames).mean(1)[~speech.silent[: len(frames)]]
        assert 10 * np.log10(powers.mean()) == pytest.approx(SPEECH_LEVEL_DB, abs=0.1)


def test_only_silence() -> None:
    speech = detect_speech(lambda: [np.zeros(SAMPLE_RATE, np.float32)])
    assert speech.silent.all() and len(speech.silent) == 25 and speech.gain == 1.0
    assert detect_speech(lambda: []).silent.shape == (0,)


def test_a_video_s_frames(spoken: Float32) -> None:
    n = len(spoken) * 25 // SAMPLE_RATE
    silent = silent_video_frames(spoken, n + 10)
    assert len(silent) == n + 10 and silent[n + 1 :].all() and not silent[:n].all()
    assert len(silent_video_frames(spoken, 20)) == 20
    assert silent_video_frames(spoken[:0], 5).all()
