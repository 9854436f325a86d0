"""Recordings of any kind, given to every registered encoder."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest

from talkhead.audio import resample
from talkhead.encoder import extract
from talkhead.encoder.base import SPEECH_LEVEL_DB, SpeechEncoder, normalize_level
from talkhead.encoder.extract import downsample, extract_chunks, extract_features
from talkhead.encoder.registry import encoder_names, load_encoder
from talkhead.errors import TalkheadError
from talkhead.types import SAMPLE_RATE, Float32, SpeechFeatures

RATES = [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000]


@pytest.fixture(params=encoder_names())
def encoder(request: pytest.FixtureRequest) -> SpeechEncoder:
    return load_encoder(request.param)


def _speech(seconds: float, rate: int = SAMPLE_RATE, seed: int = 0) -> Float32:
    """Syllables of band-limited noise, the same sound at every rate."""
    random = np.random.default_rng(seed)
    times = np.arange(round(seconds * rate)) / rate
    frequencies, phases = random.uniform(150, 3500, 12), random.uniform(0, 2 * np.pi, 12)
    tones = [np.sin(2 * np.pi * f * times + p) for f, p in zip(frequencies, phases, strict=True)]
    loudness = np.clip(np.sin(2 * np.pi * 1.5 * times), 0.0, 1.0) ** 2
    return np.asarray(0.04 * np.sum(tones, axis=0) * loudness, np.float32)


# ------------------------------------------------------------------------- every encoder


@pytest.mark.parametrize("rate", RATES)
def test_every_sample_rate_gives_the_same_features(encoder: SpeechEncoder, rate: int) -> None:
    given = extract_features(encoder, _speech(1.0, rate), rate)
    usual = encoder.encode(normalize_level(_speech(1.0)))
    assert given.values.shape == (encoder.rate, encoder.dim)
    assert given.rate == encoder.rate
    away = np.abs(given.values - usual.values).mean()
    assert away < 0.25 * np.abs(usual.values - usual.values.mean(0)).mean()


@pytest.mark.parametrize("n_channels", [1, 2, 6, 64])
def test_channels_are_averaged(encoder: SpeechEncoder, n_channels: int) -> None:
    mono = _speech(0.5)
    weights = np.linspace(0.5, 1.5, n_channels).astype(np.float32)
    many = mono[:, None] * (weights / weights.mean())
    expected = extract_features(encoder, mono, SAMPLE_RATE).values
    np.testing.assert_allclose(
        extract_features(encoder, many, SAMPLE_RATE).values, expected, rtol=0, atol=2e-3
    )


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float64])
def test_integers_and_floats_are_the_same_sound(encoder: SpeechEncoder, dtype: Any) -> None:
    sound = _speech(0.5)
    scale = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    given = (sound.astype(np.float64) * scale).astype(dtype)
    expected = extract_features(encoder, sound, SAMPLE_RATE).values
    found = extract_features(encoder, given, SAMPLE_RATE).values
    assert np.abs(found - expected).mean() < 0.1 * np.abs(expected).mean()


def test_the_level_does_not_matter(encoder: SpeechEncoder) -> None:
    sound = _speech(1.0)
    loud, quiet = (extract_features(encoder, sound * g, SAMPLE_RATE).values for g in (1.0, 0.3))
    np.testing.assert_allclose(loud, quiet, rtol=0, atol=2e-3)


@pytest.mark.parametrize("rate", RATES)
def test_twenty_milliseconds(encoder: SpeechEncoder, rate: int) -> None:
    found = extract_features(encoder, _speech(0.02, rate)[: rate // 50], rate)
    assert len(found) == math.ceil(math.ceil(rate // 50 * SAMPLE_RATE / rate) / 320)
    assert np.isfinite(found.values).all()


@pytest.mark.parametrize("value", [0.0, 1e-30, 0.3])
def test_sound_that_does_not_change(encoder: SpeechEncoder, value: float) -> None:
    found = extract_features(encoder, np.full((48_000, 2), value, np.float32), 48_000)
    assert np.isfinite(found.values).all()


def test_clipped_sound_is_usable(encoder: SpeechEncoder) -> None:
    loud = np.clip(_speech(1.0) * 50.0, -1.0, 1.0)
    assert np.abs(loud).max() == 1.0
    found = extract_features(encoder, loud, SAMPLE_RATE).values
    assert np.isfinite(found).all()
    beyond = extract_features(
        encoder, loud * 1.5, SAMPLE_RATE
    ).values  # floats over full scale are clipped
    assert np.isfinite(beyond).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_a_number_is_named(encoder: SpeechEncoder, bad: float) -> None:
    sound = np.stack([_speech(3.0, 48_000)] * 2, axis=1)
    sound[100_000:100_005, 1] = bad
    with pytest.raises(
        TalkheadError, match=r"sample 100000 \(2\.083 s, channel 1\) is not a number"
    ):
        extract_features(encoder, sound, 48_000)


def test_empty_sound_is_refused(encoder: SpeechEncoder) -> None:
    with pytest.raises(TalkheadError, match="empty"):
        extract_features(encoder, np.zeros(0, np.float32), SAMPLE_RATE)
    with pytest.raises(TalkheadError, match="empty"):
        extract_features(encoder, np.zeros((0, 2), np.int16), SAMPLE_RATE)


def test_pieces_equal_the_whole(encoder: SpeechEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = _speech(3.3, 44_100)
    whole = extract_features(encoder, sound, 44_100).values
    monkeypatch.setattr(extract, "PIECE_S", 0.3)
    pieces = list(extract_chunks(encoder, sound, 44_100))
    assert len(pieces) > 8
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=1e-3)


# ------------------------------------------------------------------------------ once


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("n_extra", [0, 1, 77])
def test_resampling_in_pieces_equals_resampling_the_whole(
    rate: int, n_extra: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "PIECE_S", 0.01)
    sound = _speech(1.0, rate)[: rate // 3 + n_extra]
    pieces = list(extract._resampled(sound, rate, SAMPLE_RATE))
    assert len(pieces) > 5
    whole = resample(sound, rate, SAMPLE_RATE)
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=1e-6)


def test_speech_is_brought_to_its_level() -> None:
    sound = normalize_level(_speech(4.0) * np.float32(0.01))
    loud = np.abs(_speech(4.0)) > 0
    level = 10 * np.log10(np.mean(np.square(sound[loud])))
    assert abs(level - SPEECH_LEVEL_DB) < 3.0


def test_memory_does_not_grow_with_the_length() -> None:
    """This is the memory in addition to the given audio; the vectors are not kept."""
    peaks = []
    for minutes in (1, 4):
        sound = np.tile((_speech(5.0, 8_000) * 32767).astype(np.int16), minutes * 12)
        tracemalloc.start()
        n_vectors = sum(map(len, extract_chunks(load_encoder("mel"), sound, 8_000)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert n_vectors == minutes * 60 * 50
    assert peaks[1] < 1.1 * peaks[0] + 1e6


@pytest.mark.parametrize(
    ("samples", "rate", "problem"),
    [
        (np.zeros((2, 4, 8)), 16_000, "pass .n_samples. or .n_samples, channels."),
        (np.zeros((2, 48_000)), 48_000, "48000 channels.*transpose .channels, n_samples. with"),
        (np.zeros((800, 0)), 48_000, "0 channels"),
        (np.zeros(800, complex), 16_000, "complex128"),
        (np.zeros(800, np.uint16), 16_000, "uint16"),
        (np.zeros(800), 7_999, "7999 Hz: a whole number from 8000 to 192000"),
        (np.zeros(800), 192_001, "192001 Hz"),
        (np.zeros(800), 44_100.5, "44100.5 Hz"),
        (np.full(800, 12_345.0), 16_000, "sample 0 .* is 12345; floats are in"),
    ],
)
def test_invalid_audio_is_explained(samples: Any, rate: Any, problem: str) -> None:
    with pytest.raises(TalkheadError, match=problem):
        extract_features(load_encoder("mel"), samples, rate)


def test_unsigned_bytes_are_centered() -> None:
    sound = _speech(0.5)
    given = np.round(sound * 127 + 128).astype(np.uint8)
    mixed = extract._mixed(given, 0, len(given), SAMPLE_RATE)
    assert np.abs(mixed - sound).max() < 0.01


# ----------------------------------------------------------------------------- thinning


def test_downsampled_features_keep_their_time() -> None:
    ramp = SpeechFeatures(np.arange(101, dtype=np.float32)[:, None], 50.0)
    thin = downsample(ramp, 25)
    assert thin.rate == 25.0
    assert thin.values.shape == (51, 1)
    np.testing.assert_allclose(thin.values[1:-1, 0], np.arange(1, 50) * 2.0, atol=1e-5)
    constant = downsample(SpeechFeatures(np.ones((7, 3), np.float32), 100.0), 25)
    np.testing.assert_allclose(constant.values, np.ones((2, 3)), atol=1e-6)


def test_downsampling_by_one_changes_nothing() -> None:
    features = SpeechFeatures(np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32), 50.0)
    np.testing.assert_allclose(downsample(features, 50).values, features.values, atol=1e-6)


def test_downsampling_weights_are_a_triangle() -> None:
    pulse = np.zeros((9, 1), np.float32)
    pulse[3] = 1.0
    thin = downsample(SpeechFeatures(pulse, 50.0), 25).values[:, 0]
    np.testing.assert_allclose(thin, [0, 0.25, 0.25, 0, 0], atol=1e-6)


def test_features_at_the_frame_rate() -> None:
    features = extract_features(load_encoder("mel"), _speech(1.0), SAMPLE_RATE, rate=25)
    assert features.values.shape == (25, 80)
    assert features.lookahead_s == pytest.approx(0.016 + 0.02)  # depends on one later vector


@pytest.mark.parametrize("rate", [0, -25, 30, 100])
def test_impossible_rates(rate: float) -> None:
    with pytest.raises(
        TalkheadError, match=r"at 50 vectors per second cannot be reduced to .* Pass 50 divided by"
    ):
        downsample(SpeechFeatures(np.zeros((4, 2), np.float32), 50.0), rate)
