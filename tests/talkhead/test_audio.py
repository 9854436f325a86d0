"""Resampling, log-mel, energy and silence."""

from __future__ import annotations

import numpy as np
import pytest

from talkhead import audio
from talkhead.errors import TalkheadError
from talkhead.types import Float32

RATE = 16000


def tone(frequency: float, duration_s: float, rate: int = RATE) -> Float32:
    moments = np.arange(round(duration_s * rate)) / rate
    return np.asarray(0.5 * np.sin(2 * np.pi * frequency * moments), np.float32)


def hiss(duration_s: float, level: float, seed: int = 0) -> Float32:
    samples = np.random.default_rng(seed).standard_normal(round(duration_s * RATE))
    return np.asarray(level * samples, np.float32)


def babble(duration_s: float, seed: int = 1) -> Float32:
    """Noise whose loudness oscillates four times per second, like syllables."""
    moments = np.arange(round(duration_s * RATE)) / RATE
    loudness = 0.05 + 0.95 * np.sin(np.pi * 4 * moments) ** 2
    return np.asarray(hiss(duration_s, 0.1, seed) * loudness, np.float32)


# ---------------------------------------------------------------------------- waveforms


def test_check_waveform_names_the_first_bad_sample() -> None:
    waveform = np.zeros(4000, np.float32)
    audio.check_waveform(waveform, "line.wav")
    waveform[[1234, 2000]] = np.nan, np.inf
    with pytest.raises(TalkheadError, match=r"line.wav: sample 1234 \(0\.077 s\) is not a number"):
        audio.check_waveform(waveform, "line.wav")
    with pytest.raises(TalkheadError, match=r"\(0\.028 s\)"):
        audio.check_waveform(waveform, "line.wav", 44100)


def test_check_waveform_refuses_empty_and_stereo() -> None:
    with pytest.raises(TalkheadError, match=r"line\.wav: the sound is empty"):
        audio.check_waveform(np.zeros(0, np.float32), "line.wav")
    with pytest.raises(ValueError, match="n_samples"):
        audio.check_waveform(np.zeros((10, 2), np.float32), "line.wav")


def test_samples_of_16_bits() -> None:
    samples = audio.as_int16(np.array([-2.0, -1.0, 0.0, 0.25 / 32767, 0.5, 1.5], np.float32))
    assert samples.tolist() == [-32768, -32767, 0, 0, 16384, 32767]
    assert audio.as_int16(samples) is samples


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_resample_keeps_tones_in_place(rate: int) -> None:
    there = audio.resample(tone(440, 1.0, rate), rate, RATE)
    assert there.dtype == np.float32 and len(there) == RATE
    np.testing.assert_allclose(there[800:-800], tone(440, 1.0)[800:-800], atol=2e-3)


def test_resample_removes_aliasing_frequencies() -> None:
    there = audio.resample(tone(11000, 1.0, 48000), 48000, RATE)
    assert np.abs(there[500:-500]).max() < 0.01


def test_resample_lengths() -> None:
    assert len(audio.resample(np.ones(1001, np.float32), 48000, 16000)) == 334
    assert len(audio.resample(np.zeros(0, np.float32), 48000, 16000)) == 0
    with pytest.raises(ValueError, match="sample rates"):
        audio.resample(np.ones(10, np.float32), 0, 16000)


# ---------------------------------------------------------------------------- spectra


def test_power_spectrogram_equals_the_definition() -> None:
    waveform, n_fft, hop = hiss(0.1, 0.3), 48, 20
    powers = audio.power_spectrogram(waveform, n_fft, hop)
    assert powers.shape == (80, 25) and powers.dtype == np.float32
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    padded = np.concatenate([np.zeros(24), waveform, np.zeros(48)])
    for frame in (0, 1, 40, 79):
        piece = padded[frame * hop : frame * hop + n_fft] * window
        turns = np.exp(-2j * np.pi * np.outer(np.arange(25), np.arange(n_fft)) / n_fft)
        np.testing.assert_allclose(powers[frame], np.abs(turns @ piece) ** 2, rtol=1e-3, atol=1e-6)


def test_computing_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    waveform = hiss(1.0, 0.3)
    whole = audio.power_spectrogram(waveform, 400, 160)
    monkeypatch.setattr(audio, "_BLOCK", 7)
    np.testing.assert_allclose(audio.power_spectrogram(waveform, 400, 160), whole, rtol=1e-5)


def test_log_mel_vector_i_belongs_to_sample_i_times_hop() -> None:
    waveform = np.zeros(RATE, np.float32)
    waveform[50 * 160] = 1.0
    energy = np.exp(audio.log_mel(waveform)).sum(axis=1)
    assert len(energy) == 100
    assert int(np.argmax(energy)) == 50
    np.testing.assert_allclose(energy[49], energy[51], rtol=1e-3)


def test_log_mel_shapes_and_floor() -> None:
    silence = audio.log_mel(np.zeros(1601, np.float32), n_fft=512, n_mels=40)
    assert silence.shape == (11, 40) and silence.dtype == np.float32
    np.testing.assert_allclose(silence, np.log(1e-10), rtol=1e-6)
    assert audio.log_mel(np.zeros(0, np.float32)).shape == (0, 80)
    assert audio.log_mel(np.zeros(1, np.float32)).shape == (1, 80)


def test_mel_scale_is_slaneys() -> None:
    """Values of Slaney's scale: 200/3 Hz per mel up to 1000 Hz, then a factor of 6.4 in 27 mel."""
    assert audio._hz_to_mel(500.0) == pytest.approx(7.5)
    assert audio._hz_to_mel(1000.0) == pytest.approx(15.0)
    assert audio._hz_to_mel(6400.0) == pytest.approx(42.0)
    mels = np.array([0.0, 7.5, 15.0, 30.0, 45.0])
    back = [audio._hz_to_mel(float(frequency)) for frequency in audio._mel_to_hz(mels)]
    np.testing.assert_allclose(back, mels)


def test_mel_filters_are_triangles_of_unit_area() -> None:
    filters = audio.mel_filters(RATE, 4096, 40)
    assert filters.shape == (40, 2049) and (filters >= 0).all()
    np.testing.assert_allclose(filters.sum(axis=1) * RATE / 4096, 1.0, rtol=0.02)
    tops = filters.argmax(axis=1) * RATE / 4096
    assert (np.diff(tops) > 0).all()


@pytest.mark.parametrize(("n_fft", "hop"), [(400, 160), (512, 640), (401, 100)])
def test_log_mel_of_a_chunk_with_context_is_that_of_the_whole(n_fft: int, hop: int) -> None:
    waveform = hiss(1.0, 0.2) * np.linspace(0, 1, RATE, dtype=np.float32)
    whole = audio.log_mel(waveform, n_fft=n_fft, hop_length=hop)
    context = audio.mel_context(n_fft, hop)
    assert context % hop == 0
    start, stop = 4 * hop, 20 * hop
    chunk = waveform[start - context : stop + context]
    vectors = audio.log_mel(chunk, n_fft=n_fft, hop_length=hop)[context // hop :][:16]
    np.testing.assert_allclose(vectors, whole[4:20], atol=1e-4)


# ---------------------------------------------------------------------------- silence


def test_power_is_centered_on_the_frames_moment() -> None:
    waveform = np.zeros(RATE, np.float32)
    waveform[10 * 640 - 320 : 10 * 640 + 320] = 0.1
    powers = audio.measure_loudness([waveform]).powers
    assert powers.shape == (25,)
    assert powers[10] == pytest.approx(0.01, rel=1e-4)
    assert (np.delete(powers, 10) == 0.0).all()


def test_power_at_the_ends_and_other_rates() -> None:
    powers = audio.measure_loudness([np.full(48000 + 1, 0.1, np.float32)], 30, 48000).powers
    assert len(powers) == 31
    np.testing.assert_allclose(powers, 0.01, rtol=1e-4)
    assert len(audio.measure_loudness([]).powers) == 0


@pytest.mark.parametrize("size", [1, 37, 640, 5000])
def test_loudness_is_the_same_however_the_waveform_is_cut(size: int) -> None:
    waveform = babble(0.5) + 0.1
    whole = audio.measure_loudness([waveform])
    cut = audio.measure_loudness(waveform[i : i + size] for i in range(0, len(waveform), size))
    np.testing.assert_allclose(cut.energy_db, whole.energy_db, atol=1e-3)
    np.testing.assert_allclose(cut.powers, whole.powers, rtol=1e-6)


@pytest.mark.parametrize("quiet", [
    np.zeros(3 * RATE, np.float32),
    np.full(3 * RATE, 0.2, np.float32),
    hiss(3, 1e-4),
    hiss(3, 0.05),
    0.3 * tone(50, 3) + 0.1 * tone(150, 3),
    0.3 * tone(50, 3) + hiss(3, 0.01),
    np.zeros(10, np.float32),
], ids=["zero", "offset", "room", "loud noise", "hum", "hum and noise", "tiny"])  # fmt: skip
def test_steady_sound_is_silence(quiet: Float32) -> None:
    silent = audio.is_silence(quiet)
    assert silent.dtype == np.bool_ and len(silent) == -(-len(quiet) // 640)
    assert silent.all()


def test_no_samples_no_frames() -> None:
    assert audio.is_silence(np.zeros(0, np.float32)).shape == (0,)


@pytest.mark.parametrize("gain", [1.0, 0.02])
@pytest.mark.parametrize("background", [0.0, 1e-4, 0.005], ids=["zero", "room", "noisy"])
def test_speech_is_separated_from_its_background(background: float, gain: float) -> None:
    waveform = hiss(6.0, background)
    waveform[2 * RATE : 4 * RATE] += babble(2.0)
    silent = audio.is_silence(gain * waveform)
    assert silent[:49].all() and silent[103:].all()
    assert not silent[53:98].any()


def test_hum_under_speech_is_ignored() -> None:
    waveform = 0.2 * tone(50, 6.0)
    waveform[2 * RATE : 4 * RATE] += babble(2.0)
    silent = audio.is_silence(waveform)
    assert silent[:48].all() and silent[103:].all()
    assert not silent[53:98].any()


def test_clicks_are_silence_and_closures_are_speech() -> None:
    waveform = hiss(6.0, 1e-4)
    waveform[RATE : RATE + 40] = 0.5  # a click of 2.5 ms
    waveform[2 * RATE : 5 * RATE] += hiss(3.0, 0.1)
    waveform[3 * RATE : 3 * RATE + 1600] *= 1e-3  # closed lips for 0.1 s
    waveform[4 * RATE : 4 * RATE + 8000] *= 1e-3  # a pause of 0.5 s
    silent = audio.is_silence(waveform)
    assert silent[:49].all()
    assert not silent[52:99].any()
    assert silent[102:111].all()
