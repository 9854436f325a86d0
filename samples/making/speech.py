"""Speech of the sample person: flite's, with the exact time of every phone."""

from __future__ import annotations

import subprocess
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]

SAMPLE_RATE = 16000
VOICE = "rms"
PEAK = 0.7
SILENCE = "pau"

# The clip: seconds of added silence, then a sentence (flite adds 0.15 s before, 0.2 s after).
CLIP: tuple[tuple[float, str], ...] = (
    (0.28, "Good morning, and welcome."),
    (0.25, "My name is Robert, and a computer program made me."),
    (0.70, "Every vowel, and every consonant, moves my mouth in its own way."),
    (0.22, "Watch how five brown foxes jump above the muddy pool."),
    (0.75, "Do you hear my voice before you see the lips move?"),
    (0.35, "Thank you for giving me half a minute of your time."),
)
CLIP_LENGTH_S = 25.0
LINE = "People often believe that a picture can speak, but somebody has to show it how to move."


@dataclass(frozen=True)
class Phone:
    """One phone of flite's inventory (CMU's, lower case; `pau` is silence)."""

    name: str
    start_s: float
    end_s: float

    @property
    def middle_s(self) -> float:
        """The middle of the phone."""
        return (self.start_s + self.end_s) / 2.0

    @property
    def duration_s(self) -> float:
        """Its length."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Speech:
    """A mono waveform at SAMPLE_RATE, within [-1, 1], and its phones, without gaps."""

    waveform: Waveform
    phones: tuple[Phone, ...]


def say(text: str) -> Speech:
    """A sentence spoken by flite; raises CalledProcessError where flite fails."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        command = ["flite", "-voice", VOICE, "-t", text, "-psdur", "-o", str(path)]
        said = subprocess.run(command, check=True, capture_output=True, text=True)
        waveform = read_wav(path)
    phones: list[Phone] = []
    for segment in said.stdout.split():
        name, end = segment.split(":")
        phones.append(Phone(name, phones[-1].end_s if phones else 0.0, float(end)))
    phones[-1] = Phone(phones[-1].name, phones[-1].start_s, len(waveform) / SAMPLE_RATE)
    return Speech(waveform, tuple(phones))


def joined(script: Sequence[tuple[float, str]], length_s: float) -> Speech:
    """Sentences one after another, each after its silence, padded with silence to a length."""
    waveforms: list[Waveform] = []
    phones: list[Phone] = []
    at = 0
    for silence_s, text in script:
        at += round(silence_s * SAMPLE_RATE)
        waveforms.append(np.zeros(round(silence_s * SAMPLE_RATE), np.float32))
        said = say(text)
        offset = at / SAMPLE_RATE
        phones += [Phone(p.name, p.start_s + offset, p.end_s + offset) for p in said.phones]
        waveforms.append(said.waveform)
        at += len(said.waveform)
    n_samples = round(length_s * SAMPLE_RATE)
    if at > n_samples:
        raise ValueError(
            f"the sentences last {at / SAMPLE_RATE:.2f} s, the clip {length_s} s: shorten it"
        )
    waveforms.append(np.zeros(n_samples - at, np.float32))
    return Speech(np.concatenate(waveforms), tuple(_with_silence(phones, length_s)))


def _with_silence(phones: Sequence[Phone], length_s: float) -> list[Phone]:
    """The phones, neighboring silences merged, covering 0 to length_s."""
    sounding = [phone for phone in phones if phone.name != SILENCE]
    full: list[Phone] = []
    at = 0.0
    for phone in [*sounding, Phone(SILENCE, length_s, length_s)]:
        if phone.start_s - at > 1e-4:
            full.append(Phone(SILENCE, at, phone.start_s))
        if phone.duration_s > 0.0:
            full.append(phone)
        at = phone.end_s
    return full


def normalized(speech: Speech) -> Speech:
    """The same speech with its loudest sample at PEAK."""
    gain = PEAK / float(np.abs(speech.waveform).max())
    return Speech((speech.waveform * gain).astype(np.float32), speech.phones)


def clip_speech() -> Speech:
    """The audio of person.mp4."""
    return normalized(joined(CLIP, CLIP_LENGTH_S))


def line_speech() -> Speech:
    """The audio of line.wav."""
    said = say(LINE)
    return normalized(joined([(0.0, LINE)], len(said.waveform) / SAMPLE_RATE))


def loudness(
    waveform: Waveform, times_s: NDArray[np.float64], window_s: float = 0.06
) -> NDArray[np.float64]:
    """The loudness about each time [T], relative to the loud parts (about 0 to 1.3)."""
    half = round(window_s * SAMPLE_RATE / 2)
    power = np.concatenate([[0.0], np.cumsum(waveform.astype(np.float64) ** 2)])
    centre = np.round(times_s * SAMPLE_RATE).astype(np.int64)
    low, high = np.clip(centre - half, 0, len(waveform)), np.clip(centre + half, 0, len(waveform))
    rms = np.sqrt((power[high] - power[low]) / np.maximum(high - low, 1))
    return np.asarray(rms / np.percentile(rms[rms > 1e-3], 85))


def read_wav(path: Path) -> Waveform:
    """A 16-bit mono file at SAMPLE_RATE."""
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (SAMPLE_RATE, 1, 2):
            raise ValueError(f"{path}: 16-bit mono at {SAMPLE_RATE} Hz expected")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768.0


def write_wav(path: Path, waveform: Waveform) -> None:
    """Write a 16-bit mono file at SAMPLE_RATE."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(
            np.clip(np.round(waveform * 32767.0), -32768, 32767).astype("<i2").tobytes()
        )
