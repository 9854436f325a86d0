"""Trajectories of a few lip measures, tracked and predicted, with the sound beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.lip_range import variants
from benchmarks.lips import Clip, System, fold_blocks, footages, prior_of
from talkhead.app.evaluation.lip_folds import Block
from talkhead.dataset import IdentityDataset
from talkhead.encoder.base import normalize_level
from talkhead.encoder.mel import MelEncoder
from talkhead.encoder.predictor.lip_range import lip_measures
from talkhead.encoder.predictor.model import fit_predictors
from talkhead.encoder.predictor.network import PRESETS
from talkhead.encoder.predictor.voices import other_voices, voices_version
from talkhead.encoder.registry import load_encoder
from talkhead.face import CHIN, NOSE_BOTTOM, OUTER_EYE_CORNERS, FaceModel
from talkhead.progress import make_progress
from talkhead.storage import read_tensors, sha256_of, write_tensors
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32, Float64, Int

MEASURES = ("opening", "width", "jaw")
"""Signed gap between the inner lips, distance between the corners of the mouth, and height of the
chin below the nose.
"""
N_BANDS = 8
"""Bands of the sound."""
AS_PREDICTED = "uncorrected"
"""What is added to the name of a system whose range is not corrected."""


class MadeBy(NamedTuple):
    """A system whose trajectories are to be told from real ones, and its name in the results."""

    name: str
    system: System


@dataclass(frozen=True)
class Trajectories:
    """A person's lips over F frames, tracked and predicted.

    Attributes:
        person: Name of the clip.
        real: Tracked measures, [F, 3] eye distances, in the order of MEASURES.
        made: Predicted measures by name of the system, [F, 3] each.
        sound: Loudness, dB, and N_BANDS natural logarithms of mel band powers, [F, 1 + N_BANDS].
        silent: Frames without speech, [F].
        block: Number of the test block of each frame, [F]; -1 for unusable frames.
    """

    person: str
    real: Float64
    made: dict[str, Float64]
    sound: Float64
    silent: Bool
    block: Int


@dataclass(frozen=True)
class Settings:
    """How predictors are fitted.

    Attributes:
        n_folds: Test blocks of a clip.
        preset: Preset of the predictor.
        seed: Its seed.
        seconds: Longest part of a clip that is used, seconds from its beginning.
        cache: Folder in which the folds' face models and the measures are stored.
    """

    n_folds: int = 5
    preset: str = "preview"
    seed: int = 0
    seconds: float = 75.0
    cache: Path | None = None


def trajectories(clip: Clip, made_by: Sequence[MadeBy], settings: Settings) -> Trajectories:
    """Measure the lips of a clip, with every frame predicted by a predictor not fitted on it.

    Args:
        clip: A prepared clip.
        made_by: The systems.
        settings: How their predictors are fitted.

    Returns:
        The trajectories. Each system is there twice: with the range of the lips corrected, and, with
        AS_PREDICTED in its name, without.
    """
    dataset = beginning(IdentityDataset.load(clip.folder), settings.seconds)
    blocks = list(fold_blocks(dataset, settings.n_folds, clip.sentence_frames, settings.cache))
    number = np.full(len(dataset), -1)
    real = np.zeros((len(dataset), len(MEASURES)))
    for index, block in enumerate(blocks):
        number[block.frames] = index
        real[block.frames] = measured(block.face, block.codes[block.frames])
    made: dict[str, Float64] = {}
    for name, system in made_by:
        for variant, values in _kept(dataset, clip, blocks, system, settings).items():
            made[name if variant == "corrected" else f"{name}, {AS_PREDICTED}"] = values
    silent = dataset.tracks.silent
    return Trajectories(clip.folder.name, real, made, sound_of(dataset), silent, number)


def beginning(dataset: IdentityDataset, seconds: float) -> IdentityDataset:
    """Cut a dataset to its first seconds."""
    n = min(len(dataset), round(seconds * FRAME_RATE))
    tracks = replace(dataset.tracks, **{k: v[:n] for k, v in vars(dataset.tracks).items()})
    cut = replace(dataset, info=replace(dataset.info, n_frames=n), tracks=tracks)
    # A cached property, which would read the whole file.
    vars(cut)["waveform"] = dataset.waveform[: n * SAMPLE_RATE // FRAME_RATE]
    return cut


def measured(face: FaceModel, codes: Float32) -> Float64:
    """Measure motion codes.

    Args:
        face: The face model that they belong to.
        codes: Motion codes [n, K].

    Returns:
        [n, 3] eye distances, in the order of MEASURES. All are linear in the mouth code, without
        the pose of the head.
    """
    offset, slope = lip_measures(face)
    points = np.concatenate([face.template[None], face.basis[: face.n_mouth]]).astype(np.float64)
    left, right = OUTER_EYE_CORNERS
    eyes = np.linalg.norm(face.template[right, :2] - face.template[left, :2])
    jaw = (points[:, CHIN, 1] - points[:, NOSE_BOTTOM, 1]) / eyes
    offset, slope = np.append(offset, jaw[0]), np.concatenate([slope, jaw[None, 1:]])
    return np.asarray(offset + codes[:, : face.n_mouth].astype(np.float64) @ slope.T)


def sound_of(dataset: IdentityDataset) -> Float64:
    """Describe the sound of each frame; returns [F, 1 + N_BANDS] as in Trajectories."""
    waveform = normalize_level(dataset.waveform, dataset.tracks.silent)
    features = MelEncoder().encode(waveform)
    per_frame = round(features.rate / FRAME_RATE)
    index = np.arange(len(dataset) * per_frame).clip(max=len(features) - 1)
    energies = features.values[index].astype(np.float64)
    energies = energies.reshape(len(dataset), per_frame, N_BANDS, -1)
    bands = energies.mean((1, 3))
    loudness = 10.0 * np.log10(np.exp(energies).mean((1, 2, 3)))
    return np.concatenate([loudness[:, None], bands], axis=1)


def _kept(
    dataset: IdentityDataset,
    clip: Clip,
    blocks: Sequence[Block],
    system: System,
    settings: Settings,
) -> dict[str, Float64]:
    """Predicted measures [F, 3] by name of the variant, from the cache if they are there."""
    path = None
    if settings.cache is not None:
        path = settings.cache / _file_name(dataset, clip, blocks, system, settings)
        if path.exists():
            return {name: t.numpy() for name, t in read_tensors(path).items()}
    made = dict(_predicted(dataset, clip, blocks, system, settings))
    if path is not None:
        write_tensors(path, {name: torch.from_numpy(values) for name, values in made.items()})
    return made


def _predicted(
    dataset: IdentityDataset,
    clip: Clip,
    blocks: Sequence[Block],
    system: System,
    settings: Settings,
) -> Iterator[tuple[str, Float64]]:
    """Predict the measures [F, 3] of all blocks, without and with the correction of the range."""
    encoder = load_encoder(system.encoder)
    voices = other_voices(encoder)
    clips = [replace(o, voices=voices) for o in footages(dataset, blocks, encoder, settings.seed)]
    progress, prior = make_progress("bars"), prior_of(system, clip)
    fitted = fit_predictors(clips, PRESETS[settings.preset], settings.seed, progress, prior)
    made = {name: np.zeros((len(dataset), len(MEASURES))) for name, _ in variants(fitted[0])}
    for block, one, predictor in zip(blocks, clips, fitted, strict=True):
        for name, variant in variants(predictor):
            codes = variant.predict(one.features, dataset.tracks.silent, len(dataset))
            made[name][block.frames] = measured(block.face, codes[block.frames])
    yield from made.items()


def _file_name(
    dataset: IdentityDataset,
    clip: Clip,
    blocks: Sequence[Block],
    system: System,
    settings: Settings,
) -> str:
    """Name a file by everything that the predicted measures depend on."""
    encoder = load_encoder(system.encoder)
    facts = [sha256_of(dataset.path / "tracks.safetensors"), encoder.name, encoder.version]
    facts += [voices_version(), settings.preset, str(settings.seed), str(len(dataset))]
    if system.prior and not clip.in_prior:
        facts.append(sha256_of(Path(system.prior)))
    text = "\n".join(facts).encode() + b"".join(block.train.tobytes() for block in blocks)
    return f"made-{hashlib.sha256(text).hexdigest()[:16]}.safetensors"
