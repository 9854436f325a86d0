"""Loudness, true peak and tempo of audio files, against signals whose values are known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile
from paths import LINE

from talkhead import media
from talkhead.errors import MediaError, TalkheadError
from talkhead.media.loudness import measure_program, write_audio
from talkhead.types import Float32

RATE = 48_000


def tone(frequency: float, duration_s: float, level_db: float, phase: float = 0.0) -> Float32:
    moments = np.arange(round(duration_s * RATE)) / RATE
    samples = 10 ** (level_db / 20) * np.sin(2 * np.pi * frequency * moments + phase)
    return np.asarray(samples, np.float32)


def wav(path: Path, samples: Float32, rate: int = RATE) -> Path:
    scipy.io.wavfile.write(path, rate, samples)
    return path


def pitch(samples: Float32) -> float:
    """Frequency of the largest peak, Hz, to 0.1 Hz."""
    n = 1 << 19
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), n))
    return float(spectrum.argmax() * RATE / n)


# ---------------------------------------------------------------------------- loudness


def test_loudness_of_the_reference_tone(tmp_path: Path) -> None:
    """EBU Tech 3341, case 1: a stereo sine of -23 dBFS at 1 kHz has -23 LUFS."""
    one = tone(1000, 5.0, -23.0)
    stereo = wav(tmp_path / "a.wav", np.stack([one, one], 1))
    measured = measure_program(stereo)
    assert measured.integrated_lufs == pytest.approx(-23.0, abs=0.1)
    assert measured.true_peak_db == pytest.approx(-23.0, abs=0.1)
    # One channel has half the power of two, and two equal ones have twice that of one.
    assert measure_program(wav(tmp_path / "b.wav", one), 2).integrated_lufs == pytest.approx(
        -23.0, abs=0.1
    )
    assert measure_program(stereo, 1).integrated_lufs == pytest.approx(-26.0, abs=0.1)


def test_pauses_do_not_count(tmp_path: Path) -> None:
    spoken = tone(1000, 4.0, -20.0)
    paused = np.concatenate([spoken, np.zeros(8 * RATE, np.float32)])
    whole, gated = (
        measure_program(wav(tmp_path / f"{n}.wav", s)) for n, s in enumerate([spoken, paused])
    )
    assert gated.integrated_lufs == pytest.approx(whole.integrated_lufs, abs=0.3)


@pytest.mark.parametrize("duration_s", [0.05, 0.3, 0.4, 0.41])
def test_short_sounds_have_a_loudness(tmp_path: Path, duration_s: float) -> None:
    path = wav(tmp_path / "a.wav", tone(1000, duration_s, -20.0))
    assert measure_program(path).integrated_lufs == pytest.approx(-23.0, abs=0.1)


def test_silence_has_no_loudness(tmp_path: Path) -> None:
    measured = measure_program(wav(tmp_path / "a.wav", np.zeros(RATE, np.float32)))
    assert measured.integrated_lufs == measured.true_peak_db == -math.inf


def test_peaks_between_samples_count(tmp_path: Path) -> None:
    """At a quarter of the sample rate, a sine can pass between samples 3 dB above them."""
    samples = tone(RATE / 4, 1.0, -6.0, phase=np.pi / 4) * np.hanning(RATE).astype(np.float32)
    assert np.abs(samples).max() < 10 ** (-8.9 / 20)
    measured = measure_program(wav(tmp_path / "a.wav", samples))
    assert measured.true_peak_db == pytest.approx(-6.0, abs=0.15)


def test_files_without_audio_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(MediaError, match=r"a\.wav: is not a video or audio file"):
        measure_program(tmp_path / "a.wav")


# ---------------------------------------------------------------------------- writing


@pytest.mark.parametrize("suffix", [".flac", ".wav"])
def test_written_samples_are_those_of_the_blocks(tmp_path: Path, suffix: str) -> None:
    samples = np.random.default_rng(0).uniform(-0.2, 0.2, (3 * RATE + 17, 2)).astype(np.float32)
    path = tmp_path / f"a{suffix}"
    write_audio(path, (samples[a : a + 9999] for a in range(0, len(samples), 9999)), RATE, 2, -1.0)
    read = np.concatenate(list(media.read_audio_chunks(path, RATE, stereo=True)))
    assert read.shape == samples.shape
    assert np.abs(read - samples).max() <= 2.0**-23
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_loud_audio_is_scaled_to_its_true_peak(tmp_path: Path) -> None:
    loud = tone(RATE / 4, 2.0, 6.0, phase=np.pi / 4)  # true peak 2, largest sample 1.41
    told = write_audio(tmp_path / "a.flac", [loud], RATE, 1, -1.0)
    measured = measure_program(tmp_path / "a.flac")
    assert -1.15 <= measured.true_peak_db <= -1.0
    assert told.true_peak_db == pytest.approx(measured.true_peak_db, abs=0.1)
    assert told.integrated_lufs == pytest.approx(measured.integrated_lufs, abs=0.1)
    read = media.read_audio(tmp_path / "a.flac", RATE)
    gain = float(np.median(read / loud))
    assert np.abs(read - gain * loud).max() < 1e-6


def test_digital_silence_is_written(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", [np.zeros(1000, np.float32)], RATE, 1, -1.0)
    assert not media.read_audio(tmp_path / "a.wav", RATE).any()


def test_an_interrupted_file_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(b"before")

    def blocks() -> Iterator[Float32]:
        yield np.zeros(RATE, np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_audio(tmp_path / "a.flac", blocks(), RATE, 1, -1.0)
    assert (tmp_path / "a.flac").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(MediaError, match=r"End the name with \.flac or \.wav"):
        write_audio(tmp_path / "a.mp3", [], RATE, 1, -1.0)
    with pytest.raises(TalkheadError, match="gone does not exist"):
        write_audio(tmp_path / "gone" / "a.wav", [], RATE, 1, -1.0)


# ---------------------------------------------------------------------------- tempo and channels


@pytest.mark.parametrize("tempo", [1.001, 1.15, 1.5])
def test_tempo_keeps_the_pitch(tmp_path: Path, tempo: float) -> None:
    path = wav(tmp_path / "a.wav", tone(220, 3.0, -6.0))
    faster = media.read_audio(path, RATE, tempo=tempo)
    assert len(faster) / RATE == pytest.approx(3.0 / tempo, abs=0.025)
    middle = faster[RATE // 4 : RATE]
    assert pitch(middle) == pytest.approx(220, rel=0.01)
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(10 ** (-6 / 20) / 2**0.5, rel=0.02)


def envelope(samples: Float32) -> Float32:
    """Level of each millisecond, smoothed over 10 ms."""
    smooth = np.convolve(samples**2, np.ones(480) / 480, "same")[::48]
    return np.sqrt(np.maximum(smooth, 0.0)).astype(np.float32)


@pytest.mark.parametrize("tempo", [1.02, 1.15, 1.3])
def test_tempo_moves_speech_to_its_moment(tmp_path: Path, tempo: float) -> None:
    """Each half second of speech that begins with the first sample is within 15 ms of its moment."""
    speech = media.read_audio(LINE, RATE)
    speech = speech[int((np.abs(speech) > 0.1).argmax()) :]
    faster = media.read_audio(wav(tmp_path / "a.wav", speech), RATE, tempo=tempo)
    assert len(faster) == pytest.approx(len(speech) / tempo, abs=0.02 * RATE)
    given, heard = envelope(speech), envelope(faster)
    expected = np.interp(np.arange(len(heard)) * tempo, np.arange(len(given)), given)
    for first in range(0, len(heard) - 600, 500):
        lags = range(-min(first, 40), 41)
        part = expected[first : first + 500]
        fits = [np.corrcoef(part, heard[first + lag :][:500])[0, 1] for lag in lags]
        assert abs(lags[int(np.argmax(fits))]) <= 15 and max(fits) > 0.9
    start = [float(np.sqrt(np.mean(one[: RATE // 50] ** 2))) for one in (speech, faster)]
    assert start[1] == pytest.approx(start[0], rel=0.4)  # nothing is faded in


def test_two_channels_are_read_as_they_are(tmp_path: Path) -> None:
    left, right = tone(300, 1.0, -9.0), tone(500, 1.0, -12.0)
    path = wav(tmp_path / "a.wav", np.stack([left, right], 1))
    chunks = list(media.read_audio_chunks(path, RATE, 0.3, stereo=True))
    assert [chunk.shape for chunk in chunks] == [(14400, 2)] * 3 + [(4800, 2)]
    assert np.abs(np.concatenate(chunks) - np.stack([left, right], 1)).max() < 1e-6
    one = wav(tmp_path / "b.wav", left)
    both = np.concatenate(list(media.read_audio_chunks(one, RATE, stereo=True)))
    assert np.abs(both - left[:, None]).max() < 1e-6


@pytest.mark.parametrize("tempo", [0.9, 2.1, math.nan])
def test_tempos_that_are_refused(tmp_path: Path, tempo: float) -> None:
    path = wav(tmp_path / "a.wav", tone(300, 0.1, -9.0))
    with pytest.raises(ValueError, match="a tempo is between 1 and 2"):
        media.read_audio(path, tempo=tempo)
