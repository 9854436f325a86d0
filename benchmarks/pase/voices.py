"""Agreement of lips for the same phones of different speakers: two synthetic voices speak one text.

Each voice drives a predictor of the same person. The openings of its lips are warped to those of
the other, phone by phone, using the times that the voices themselves report, and correlated.
flite's slt and rms are not used for training.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.lips import footages, held_out_block
from benchmarks.pase.subjects import Encoder, encode_speech
from talkhead.app.evaluation.lip_folds import Block
from talkhead.app.evaluation.measures.image import correlation
from talkhead.dataset import IdentityDataset
from talkhead.encoder.phones import PHONES, SILENCE, Phone
from talkhead.encoder.predictor.model import MotionPredictor, fit_predictor
from talkhead.encoder.predictor.network import PRESETS
from talkhead.encoder.predictor.prior import Prior
from talkhead.encoder.predictor.voices import other_voices
from talkhead.encoder.vad import silent_video_frames
from talkhead.errors import TalkheadError
from talkhead.face import lip_aperture
from talkhead.media import read_audio
from talkhead.progress import SilentProgress
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32, Float64

VOICES = ("slt", "rms")
TEXT = (
    "Bob bought a map of the park, and Pam made plum jam for both of them.",
    "Five heavy waves washed over the pier before the ferry arrived.",
    "She saw the old clock above the door, and it was already past two.",
    "Would you please move the wooden table away from the open window?",
    "My brother and my father never agree about the weather in April.",
    "Think of a number, double it, and tell me what you got.",
    "The boy who owns the brown horse rode up the narrow road alone.",
    "Maybe people will remember how calm the evening was.",
)
STEP_S = 0.02


class Line(NamedTuple):
    """Speech of a voice: waveform [n_samples] at 16 kHz, phones in order without gaps."""

    waveform: Float32
    phones: list[Phone]


def say(voice: str, sentences: Sequence[str] = TEXT) -> Line:
    """Synthesize sentences one after the other. Raises TalkheadError without flite."""
    waveforms: list[Float32] = []
    phones: list[Phone] = []
    for sentence in sentences:
        line = _say_one(voice, sentence)
        offset = sum(map(len, waveforms)) / SAMPLE_RATE
        phones += [Phone(p.label, p.start_s + offset, p.end_s + offset) for p in line.phones]
        waveforms.append(line.waveform)
    return Line(np.concatenate(waveforms), phones)


def _say_one(voice: str, sentence: str) -> Line:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        command = ["flite", "-voice", voice, "-t", sentence, "-psdur", "-o", str(path)]
        try:
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise TalkheadError(f"flite can't speak ({error}). Install flite") from error
        return Line(read_audio(path), read_segments(said))


def read_segments(text: str) -> list[Phone]:
    """Phones in the output of flite's -psdur, "pau:0.22 m:0.26": each phone and its end in seconds."""
    phones: list[Phone] = []
    for segment in text.split():
        name, end = segment.split(":")
        label = {"pau": SILENCE, "ax": "AH"}.get(name, name.upper())
        phones.append(Phone(label, phones[-1].end_s if phones else 0.0, float(end)))
    unknown = {p.label for p in phones} - set(PHONES)
    if unknown:
        raise TalkheadError(f"flite speaks of {', '.join(sorted(unknown))}, unknown phones")
    return phones


def matched_times(phones: Sequence[Phone], others: Sequence[Phone]) -> tuple[Float64, Float64]:
    """Moments [T], STEP_S apart, of the phones that both voices have in the same order, without
    silences, and the corresponding moments [T] of the other voice.
    """
    labels = [[p.label for p in some] for some in (phones, others)]
    blocks = SequenceMatcher(None, *labels, autojunk=False).get_matching_blocks()
    times, warped = [], []
    for a, b, size in blocks:
        for one, other in zip(phones[a : a + size], others[b : b + size], strict=True):
            if one.label == SILENCE:
                continue
            steps = np.arange(np.ceil(one.start_s / STEP_S), np.ceil(one.end_s / STEP_S)) * STEP_S
            share = (steps - one.start_s) / (one.end_s - one.start_s)
            times.append(steps)
            warped.append(other.start_s + share * (other.end_s - other.start_s))
    return np.concatenate(times), np.concatenate(warped)


def apertures(
    predictor: MotionPredictor, block: Block, encoder: Encoder, sound: Float32
) -> Float64:
    """Predicted opening of the mouth, [F] over eye distance, 25 per second."""
    n_frames = len(sound) * FRAME_RATE // SAMPLE_RATE
    silent = silent_video_frames(sound, n_frames)
    codes = predictor.predict(encode_speech(encoder, sound, silent), silent, n_frames)
    return lip_aperture(block.face.vertices(codes)).astype(np.float64)


def agreement(lines: Sequence[Line], tracks: Sequence[Float64]) -> float:
    """Correlation of two voices' tracks [F], over both directions of warping."""
    own, others = [], []
    for a, b in ((0, 1), (1, 0)):
        times, warped = matched_times(lines[a].phones, lines[b].phones)
        own.append(at_times(tracks[a], times))
        others.append(at_times(tracks[b], warped))
    return correlation(np.concatenate(own), np.concatenate(others))


def at_times(track: Float64, times_s: Float64) -> Float64:
    """Interpolate a track [F], at 25 values per second, linearly at other times."""
    return np.asarray(np.interp(times_s * FRAME_RATE, np.arange(len(track)), track))


def voices(
    dataset: IdentityDataset,
    name: str,
    systems: Sequence[tuple[Encoder, Prior | None]],
    preset: str,
    n_seeds: int,
) -> Iterator[dict[str, Any]]:
    """Make one row per encoder and prior: correlations of the voices' apertures by seed, and their
    mean. Predictors are fitted as `fit` does, the correction of the lips included.
    """
    lines, block = [say(voice) for voice in VOICES], held_out_block(dataset)
    for encoder, prior in systems:
        found, others = [], other_voices(encoder)
        for seed in range(n_seeds):
            (own,) = (replace(o, voices=others) for o in footages(dataset, [block], encoder, seed))
            predictor = fit_predictor(own, PRESETS[preset], seed, SilentProgress(), prior)
            tracks = [apertures(predictor, block, encoder, line.waveform) for line in lines]
            found.append(agreement(lines, tracks))
        yield {
            "benchmark": "voices",
            "clip": name,
            "encoder": encoder.name,
            "prior": prior is not None,
            "voices": list(VOICES),
            "correlation": float(np.mean(found)),
            "seeds": found,
            "seconds": [round(len(line.waveform) / SAMPLE_RATE, 1) for line in lines],
        }
