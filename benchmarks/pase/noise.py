"""Growth of lip errors when noise is added to the audio; predictors are fitted on clean audio."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.lips import footages
from benchmarks.pase.phones import share_over_groups
from benchmarks.pase.subjects import encode_speech
from benchmarks.posteriors import Encoder
from talkhead.app.evaluation.lip_folds import Block, shown_points
from talkhead.app.evaluation.measures.image import lmd
from talkhead.app.evaluation.results import plain
from talkhead.audio import measure_loudness
from talkhead.dataset import IdentityDataset
from talkhead.encoder.predictor.model import fit_predictors
from talkhead.encoder.predictor.network import PRESETS
from talkhead.encoder.vad import silent_video_frames
from talkhead.progress import SilentProgress
from talkhead.types import FRAME_RATE, Bool, Float32, Float64

CLEAN = "clean"
N_VOICES = 6
"""Number of simultaneous speakers in babble."""


def white(n_samples: int, seed: int) -> Float32:
    """Make noise of equal power at all frequencies."""
    return np.random.default_rng(seed).normal(size=n_samples).astype(np.float32)


def pink(n_samples: int, seed: int) -> Float32:
    """Make noise of equal power in all octaves from 20 Hz up."""
    spectrum = np.fft.rfft(white(n_samples, seed).astype(np.float64))
    frequencies = np.fft.rfftfreq(n_samples, 1 / 16_000)
    shaped = spectrum / np.sqrt(np.maximum(frequencies, 20.0))
    return np.asarray(np.fft.irfft(shaped, n_samples), np.float32)


def babble(n_samples: int, speakers: Sequence[Float32], seed: int) -> Float32:
    """Mix N_VOICES speakers; utterances [n] of each are drawn until the duration is filled."""
    random = np.random.default_rng(seed)
    total = np.zeros(n_samples, np.float32)
    for _ in range(N_VOICES):
        at = -int(random.integers(16_000))
        while at < n_samples:
            said = speakers[int(random.integers(len(speakers)))]
            first = max(0, -at)
            piece = said[first : n_samples - at]
            total[at + first : at + first + len(piece)] += piece
            at += len(said)
    return total


def at_snr(waveform: Float32, noise: Float32, snr_db: float, silent: Bool) -> Float32:
    """Add noise [n_samples] to a waveform, snr_db below its speech, that is, below the mean power
    of the frames that are not silent [F].
    """
    powers = measure_loudness([waveform]).powers[: len(silent)]
    speech = float(powers[~silent[: len(powers)]].mean())
    wanted = speech / 10.0 ** (snr_db / 10.0)
    scale = np.sqrt(wanted / float(np.mean(np.square(noise, dtype=np.float64))))
    return np.asarray(waveform + np.float32(scale) * noise, np.float32)


def noises(n_samples: int, speakers: Sequence[Float32], seed: int = 0) -> dict[str, Float32]:
    """Make noise of each kind; babble only if speakers are given."""
    made = {"white": white(n_samples, seed), "pink": pink(n_samples, seed)}
    return made | ({"babble": babble(n_samples, speakers, seed)} if speakers else {})


def noise(
    dataset: IdentityDataset, name: str, blocks: Sequence[Block], encoders: Sequence[Encoder],
    preset: str, n_seeds: int, added: Mapping[str, Float32], snr_db: float, floor: float | None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Measure LMD on clean and noisy audio, and how much it grows for the first encoder relative to
    others.

    Silence and level are measured in the noisy audio, as in speak. floor: LMD of the true frames at
    CRF 23, px; growth_share refers to the part above it.
    """
    silent, n_frames = dataset.tracks.silent, len(dataset)
    sounds = {CLEAN: dataset.waveform}
    sounds |= {k: at_snr(dataset.waveform, v, snr_db, silent) for k, v in added.items()}
    errors: dict[tuple[str, str], list[Float64]] = defaultdict(list)
    for encoder in encoders:
        heard_as = {k: _as_spoken(encoder, sound, n_frames) for k, sound in sounds.items()}
        for seed in range(n_seeds):
            clips = footages(dataset, blocks, encoder, seed)
            fitted = fit_predictors(clips, PRESETS[preset], seed, SilentProgress())
            for kind, (features, quiet) in heard_as.items():
                found = []
                for block, predictor in zip(blocks, fitted, strict=True):
                    codes = predictor.predict(features, quiet, n_frames)[block.frames]
                    real = dataset.tracks.landmarks[block.frames, :, :2]
                    found.append(lmd(shown_points(dataset, block, codes), real))
                errors[encoder.name, kind].append(np.concatenate(found))
    joined = {key: np.stack(seeds) for key, seeds in errors.items()}
    facts = {"benchmark": "noise", "clip": name, "snr_db": snr_db, "n_seeds": n_seeds}
    for row in growth(joined, [encoder.name for encoder in encoders], list(added), floor):
        yield plain({**facts, **row})


def _as_spoken(encoder: Encoder, sound: Float32, n_frames: int) -> tuple[Any, Bool]:
    quiet = silent_video_frames(sound, n_frames)
    return encode_speech(encoder, sound, quiet), quiet


def growth(
    errors: Mapping[tuple[str, str], Float64], encoders: Sequence[str], kinds: Sequence[str],
    floor: float | None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Make rows from the errors [n_seeds, N], px, of each encoder with each kind of audio."""
    grown = {}
    for encoder in encoders:
        clean = errors[encoder, CLEAN].mean(0)
        for kind in kinds:
            grown[encoder, kind] = errors[encoder, kind].mean(0) - clean
            row: dict[str, Any] = {
                "encoder": encoder,
                "noise": kind,
                "clean_px": float(clean.mean()),
            }
            row["growth_px"] = float(grown[encoder, kind].mean())
            if floor is not None:
                row["growth_share"] = row["growth_px"] / (row["clean_px"] - floor)
            yield row
    for kind in kinds:
        for other in encoders[1:]:
            own, theirs = grown[encoders[0], kind], grown[other, kind]
            seconds = [str(i // FRAME_RATE) for i in range(len(own))]
            ratio = share_over_groups(list(own), list(theirs), seconds)
            pair = {"compare": encoders[0], "with": other, "noise": kind}
            yield {**pair, "growth_ratio": asdict(ratio)}
