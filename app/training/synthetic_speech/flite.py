"""Speech by flite, with the time of every phone."""

from __future__ import annotations

import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np

from talkhead.app.training.synthetic_speech.phone_map import FLITE
from talkhead.audio import resample
from talkhead.encoder.pase.augment import change_speed
from talkhead.encoder.pase.corpus import Utterance
from talkhead.encoder.phones import Phone
from talkhead.types import SAMPLE_RATE, Float32

TRAINING_VOICES = {"awb": 0.5, "kal16": 0.4, "kal": 0.1}
"""Voices to train on and their shares; kal is kal16 at 8 kHz."""
TEST_VOICES = ("slt", "rms")
"""Voices that are only used for tests."""
PEAK = 0.5
"""Largest absolute sample."""


def parse_segments(text: str) -> list[Phone]:
    """Read the phones that `flite -psdur` prints.

    Args:
        text: "name:end ...".

    Returns:
        The phones in order.

    Raises:
        ValueError: For another format.
        KeyError: For a phone that FLITE lacks.
    """
    phones: list[Phone] = []
    for segment in text.split():
        name, end = segment.split(":")
        phones.append(Phone(FLITE[name], phones[-1].end_s if phones else 0.0, float(end)))
    return phones


def say(voice: str, text: str, stretch: float = 1.0, pitch_hz: float | None = None) -> Utterance:
    """Synthesize a sentence with its phones.

    Args:
        voice: One of flite's voices.
        text: The sentence.
        stretch: Factor on durations.
        pitch_hz: Mean pitch; None for the voice's own.

    Returns:
        The utterance.

    Raises:
        CalledProcessError: If flite fails.
    """
    options = ["--setf", f"duration_stretch={stretch:.3f}"]
    if pitch_hz is not None:
        options += ["--setf", f"int_f0_target_mean={pitch_hz:.1f}"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        command = ["flite", "-voice", voice, *options, "-t", text, "-psdur", "-o", str(path)]
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        with wave.open(str(path)) as file:
            rate = file.getframerate()
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    waveform = resample(samples.astype(np.float32) / 32768.0, rate, SAMPLE_RATE)
    phones = parse_segments(ran.stdout)
    length_s = len(waveform) / SAMPLE_RATE  # the waveform of kal ends within its last pause
    phones[-1] = Phone(phones[-1].label, phones[-1].start_s, length_s)
    return Utterance(normalized(waveform), tuple(phones), f"flite {voice}")


def say_varied(voice: str, text: str, random: np.random.Generator) -> Utterance:
    """Synthesize a sentence with random speed, pitch and size of the speaker.

    Args:
        voice: One of flite's voices.
        text: The sentence.
        random: Draws the variation.

    Returns:
        The utterance.

    Raises:
        CalledProcessError: If flite fails.
    """
    stretch, pitch_hz = random.uniform(0.8, 1.35), random.uniform(85.0, 170.0)
    said = say(voice, text, stretch, pitch_hz)
    return at_speed(said, float(random.uniform(0.87, 1.25)))


def at_speed(utterance: Utterance, factor: float) -> Utterance:
    """Play an utterance faster or slower.

    Args:
        utterance: The utterance.
        factor: Factor on the speed, above 0.

    Returns:
        The utterance with changed waveform and times.
    """
    phones = tuple(Phone(p.label, p.start_s / factor, p.end_s / factor) for p in utterance.phones)
    waveform = change_speed(utterance.waveform, factor)
    return Utterance(waveform, phones, utterance.speaker, utterance.split)


def normalized(waveform: Float32) -> Float32:
    """Scale a waveform to a peak of PEAK.

    Args:
        waveform: [n].

    Returns:
        [n].
    """
    return np.asarray(waveform * (PEAK / max(float(np.abs(waveform).max()), 1e-6)), np.float32)
