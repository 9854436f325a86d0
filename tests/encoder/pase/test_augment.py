from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from talkhead.encoder.pase import augment
from talkhead.encoder.pase.augment import AugmentConfig, Augmenter
from talkhead.types import SAMPLE_RATE, Float32

N = 2 * SAMPLE_RATE
ALWAYS = AugmentConfig(0.0, noise_share=1, reverb_share=1, formant_share=1, band_share=1)
ALWAYS = replace(ALWAYS, clip_share=1, codec_share=1)


def voice(seed: int = 0, n: int = N) -> Float32:
    """Pulses of 90 to 140 Hz through three resonances, syllable by syllable."""
    random = np.random.default_rng(seed)
    times = np.arange(n) / SAMPLE_RATE
    turns = np.cumsum(110 + 20 * np.sin(2 * np.pi * 1.3 * times + seed)) / SAMPLE_RATE
    pulses = (np.diff(np.floor(turns), prepend=0.0) > 0).astype(np.float64)
    ring = np.arange(400) / SAMPLE_RATE
    response = sum(
        np.sin(2 * np.pi * f * ring) * np.exp(-ring * 400.0) for f in (500.0, 1500.0, 2600.0)
    )
    sound = np.convolve(pulses, response)[:n] + 0.01 * random.standard_normal(n)
    sound *= np.clip(np.sin(2 * np.pi * 3.0 * times), 0.0, 1.0)
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32)


def lag(heard: Float32, said: Float32) -> int:
    """Lag in samples of `heard` behind `said`: the peak of their cross-correlation."""
    n_fft = 2 * len(said)
    spectrum = np.fft.rfft(heard, n_fft) * np.conj(np.fft.rfft(said, n_fft))
    peak = int(np.argmax(np.fft.irfft(spectrum, n_fft)))
    return peak if peak < n_fft // 2 else peak - n_fft


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


DAMAGES: dict[str, Callable[[Float32], Float32]] = {
    "formants up": lambda w: augment.change_formants(w, 1.18),
    "formants down": lambda w: augment.change_formants(w, 0.85),
    "a small room": lambda w: augment.reverberate(w, 0.1, -2.0, rng()),
    "a large room": lambda w: augment.reverberate(w, 0.6, -2.0, rng()),
    "telephone": lambda w: augment.shape_spectrum(w, augment.band(300.0, 3400.0, 8)),
    "low-pass": lambda w: augment.shape_spectrum(w, augment.band(0.0, 2000.0, 8)),
    "dark": lambda w: augment.shape_spectrum(w, augment.tilt(-15.0)),
    "bright": lambda w: augment.shape_spectrum(w, augment.tilt(15.0)),
    "clipped": lambda w: augment.clip(w, 0.1),
    "mu-law": lambda w: augment.mu_law(w, 5),
    "held at 8 kHz": lambda w: augment.hold(w, 2),
    "held at 5.3 kHz": lambda w: augment.hold(w, 3),
    "held at 4 kHz": lambda w: augment.hold(w, 4),
    "coarse": lambda w: augment.quantize(w, 5),
    "holes": lambda w: augment.spectral_holes(w, 25.0, 1.0),
    "coloured noise": lambda w: augment.add_noise(w, augment.colored_noise(N, rng()), 0.0),
    "music": lambda w: augment.add_noise(w, augment.music(N, rng()), 0.0),
    "unchanged speed": lambda w: augment.change_speed(w, 1.0),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_no_effect_shifts_a_sound(name: str) -> None:
    said = voice()
    heard = DAMAGES[name](said)
    assert heard.shape == said.shape and heard.dtype == np.float32
    # The lag is in samples. Effects that hold samples delay the sound by half of one.
    assert abs(lag(heard, said)) <= name.startswith("held")
    if name != "unchanged speed":
        assert np.abs(heard - said).max() > 1e-3


def test_a_lag_is_detected() -> None:
    assert lag(np.roll(voice(), 5), voice()) == 5


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 20.0])
@pytest.mark.parametrize("kind", ["crowd", "colour", "music"])
def test_noise_has_the_requested_level(snr_db: float, kind: str) -> None:
    said = voice()
    noise = {
        "crowd": lambda: augment.crowd([voice(1), voice(2, 5000)], N, 4, rng()),
        "colour": lambda: augment.colored_noise(N, rng()),
        "music": lambda: augment.music(N, rng()),
    }[kind]()
    rest = augment.add_noise(said, noise, snr_db) - said
    measured = 10.0 * np.log10(np.mean(np.square(said)) / np.mean(np.square(rest)))
    assert measured == pytest.approx(snr_db, abs=0.05)


def test_noise_in_silence_is_finite() -> None:
    noisy = augment.add_noise(np.zeros(N, np.float32), augment.colored_noise(N, rng()), 0.0)
    assert np.sqrt(np.mean(np.square(noisy))) == pytest.approx(10 ** (-30 / 20), rel=1e-3)


def test_echoes_decay_as_requested() -> None:
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[0] = 1.0
    heard = augment.reverberate(click, 0.4, 3.0, rng())
    assert heard[0] == pytest.approx(1.0, abs=1e-3)
    echoes = np.square(heard[1:].astype(np.float64))
    assert 10 * np.log10(1.0 / echoes.sum()) == pytest.approx(3.0, abs=0.7)
    left = 10 * np.log10(np.cumsum(echoes[::-1])[::-1] + 1e-12)  # Schroeder's integral
    first, last = (np.flatnonzero(left < left[0] - drop)[0] for drop in (5.0, 25.0))
    assert 3.0 * (last - first) / SAMPLE_RATE == pytest.approx(0.4, rel=0.15)


def test_bands_pass_what_they_should() -> None:
    times = np.arange(N) / SAMPLE_RATE
    tones = {f: np.sin(2 * np.pi * f * times).astype(np.float32) for f in (100, 1000, 6000)}
    line = augment.band(300.0, 3400.0, 8)
    kept = {f: float(np.std(augment.shape_spectrum(t, line)) / np.std(t)) for f, t in tones.items()}
    assert kept[1000] == pytest.approx(1.0, abs=0.02)
    assert max(kept[100], kept[6000]) < 0.03


def spectral_mean(waveform: Float32) -> float:
    power = np.square(np.abs(np.fft.rfft(waveform)))
    return float(np.sum(power * np.arange(len(power))) / np.sum(power))


def test_formants_move_and_pitch_stays() -> None:
    said = voice()
    up, down = (augment.change_formants(said, f) for f in (1.18, 0.85))
    assert spectral_mean(down) < spectral_mean(said) < spectral_mean(up)
    periods = []
    for heard in (said, up, down):
        piece = heard[1000:4000]
        echo = np.correlate(piece, piece, "full")[len(piece) - 1 :]
        periods.append(100 + int(np.argmax(echo[100:200])))
    assert np.ptp(periods) <= 2
    np.testing.assert_allclose(augment.change_formants(said, 1.0), said, atol=1e-5)
    with pytest.raises(ValueError, match="factor"):
        augment.change_formants(said, 0.0)


@pytest.mark.parametrize("factor", [0.8, 0.87, 1.0731, 1.2])
def test_speed_moves_moments_by_its_factor(factor: float) -> None:
    said = np.zeros(N, np.float32)
    clicks = np.array([4000, 12000, 27000])
    for click in clicks:
        said[click - 8 : click + 9] = np.hanning(17)
    heard = augment.change_speed(said, factor)
    assert len(heard) == round(N / factor)
    for click in clicks:
        near = round(click / factor)
        peak = near - 20 + int(np.argmax(heard[near - 20 : near + 20]))
        assert peak * factor == pytest.approx(click, abs=1.5)
    with pytest.raises(ValueError, match="factor"):
        augment.change_speed(said, -1.0)


def test_codecs_have_the_requested_resolution() -> None:
    said = voice()
    assert len(np.unique(augment.quantize(said, 5))) <= 2**5 + 1
    assert len(np.unique(augment.mu_law(said, 5))) <= 2**5
    np.testing.assert_allclose(augment.mu_law(said, 16), said, atol=1e-3)
    held = augment.hold(said, 4)
    np.testing.assert_array_equal(held[2:6], np.full(4, said[4]))
    assert np.abs(augment.clip(said, 0.3)).max() == pytest.approx(0.3 * np.abs(said).max())


def test_rows_depend_on_the_generator_alone() -> None:
    rows = np.stack([voice(s) for s in range(6)])
    augmenter = Augmenter(ALWAYS, [voice(9), np.zeros(100, np.float32)])
    first, again = (augmenter(rows, np.random.default_rng(3)) for _ in range(2))
    other = augmenter(rows, np.random.default_rng(4))
    np.testing.assert_array_equal(first, again)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(first, other, strict=True))
    assert first.dtype == np.float32 and np.abs(first).max() <= 1.0 and np.isfinite(first).all()
    np.testing.assert_array_equal(rows, np.stack([voice(s) for s in range(6)]))


def test_a_share_is_not_augmented() -> None:
    rows = np.stack([voice(n=800)] * 400)
    untouched = Augmenter(AugmentConfig(clean_share=1.0))(rows, rng())
    np.testing.assert_array_equal(untouched, rows)
    mixed = Augmenter(AugmentConfig(clean_share=0.25))(rows, rng())
    assert 0.18 < np.mean(np.all(mixed == rows, axis=1)) < 0.32


def test_silence_stays_finite() -> None:
    rows = np.zeros((40, 3200), np.float32)
    for config in (ALWAYS, AugmentConfig()):
        heard = Augmenter(config, [np.zeros(4000, np.float32)])(rows, rng())
        assert np.isfinite(heard).all() and np.abs(heard).max() <= 1.0
