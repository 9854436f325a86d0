"""How well lips follow speech, without rendering: JSON lines for prepared clips.

    python -m benchmarks.lips DATASET_FOLDER... [--seeds 3] [--folds 5] [--encoder mel]

Every row is judged on frames that nothing was fitted on: the test block, or with --folds contiguous
blocks of the training part in turn (with a second left out at their borders), for choosing between
settings. lmd_px: mean distance of the lip landmarks, each set centred on its own mean. aperture_r,
aperture_std: correlation of the lips' opening with the tracked one, and the ratio of their standard
deviations. silence_leak: share of the silent frames in which the opening changes by over 1 % of the
eyes' distance.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from talkhead.audio import measure_loudness
from talkhead.cameras import project
from talkhead.dataset import IdentityDataset
from talkhead.encoder.base import load_encoder, speech_gain
from talkhead.encoder.network import PRESETS
from talkhead.encoder.predictor import fit_predictor
from talkhead.face import LIPS, lip_aperture
from talkhead.progress import SilentProgress
from talkhead.types import FRAME_RATE, Bool, Float32, Float64, Int, SpeechFeatures

RIDGE_CONTEXT = 4
RIDGE = 100.0
LEAK = 0.01


@dataclass(frozen=True)
class LipFigures:
    """What a row says of codes on some frames."""

    lmd_px: float
    aperture_r: float
    aperture_std: float
    silence_leak: float


def lip_figures(dataset: IdentityDataset, codes: Float32, frames: Int) -> LipFigures:
    """The figures of codes [n, K] against what was tracked in frames [n]."""
    tracks = dataset.tracks
    tracked = tracks.landmarks[frames]
    shown = project(
        dataset.face.vertices(codes).astype(np.float64),
        tracks.viewmats[frames].astype(np.float64),
        dataset.intrinsics,
    )
    lips = list(LIPS)
    error = _centred(shown[:, lips]) - _centred(tracked[:, lips, :2])
    aperture, true_aperture = lip_aperture(shown.astype(np.float32)), lip_aperture(tracked)
    moves = np.abs(np.diff(aperture)) > LEAK
    silent = tracks.silent[frames]
    quiet = silent[1:] & silent[:-1] & (np.diff(frames) == 1)
    constant = aperture.std() < 1e-3  # up to the head's turning
    correlation = 0.0 if constant else float(np.corrcoef(aperture, true_aperture)[0, 1])
    return LipFigures(
        lmd_px=round(float(np.linalg.norm(error, axis=-1).mean()), 3),
        aperture_r=round(correlation, 3),
        aperture_std=round(float(aperture.std() / true_aperture.std()), 3),
        silence_leak=round(float(moves[quiet].mean()) if quiet.any() else 0.0, 3),
    )


def _centred(points: Float64 | Float32) -> Float64:
    return np.asarray(points - points.mean(1, keepdims=True), dtype=np.float64)


def _splits(dataset: IdentityDataset, n_folds: int) -> Iterator[tuple[Bool, Int]]:
    """Frames to learn from [F] and frames to judge on [n]: the test block, or each fold."""
    tracks = dataset.tracks
    learnable = tracks.train & tracks.usable
    if n_folds == 0:
        yield learnable, np.flatnonzero(~tracks.train & tracks.usable)
        return
    for block in np.array_split(np.flatnonzero(tracks.train), n_folds):
        near = np.zeros(len(dataset), dtype=bool)
        near[max(0, block[0] - FRAME_RATE) : block[-1] + 1 + FRAME_RATE] = True
        yield learnable & ~near, block[tracks.usable[block]]


def _ridge(features: SpeechFeatures, codes: Float32, train: Bool) -> Float32:
    """Codes [F, K] by ridge regression on features within +-RIDGE_CONTEXT frames."""
    per_frame = round(features.rate / FRAME_RATE)
    index = np.arange(len(codes) * per_frame).clip(max=len(features) - 1)
    frames = features.values[index].reshape(len(codes), -1).astype(np.float64)
    padded = np.pad(frames, ((RIDGE_CONTEXT, RIDGE_CONTEXT), (0, 0)), mode="edge")
    inputs = np.concatenate(
        [padded[i : i + len(codes)] for i in range(2 * RIDGE_CONTEXT + 1)], axis=1
    )
    inputs = (inputs - inputs[train].mean(0)) / (inputs[train].std(0) + 1e-6)
    mean = codes[train].mean(0)
    gram = inputs[train].T @ inputs[train]
    gram += RIDGE * gram.shape[0] / 100 * np.eye(len(gram))
    weights = np.linalg.solve(gram, inputs[train].T @ (codes[train] - mean))
    return np.asarray(inputs @ weights + mean, dtype=np.float32)


def measure(
    folder: Path, encoder_name: str, preset: str, n_seeds: int, n_folds: int
) -> Iterator[dict[str, object]]:
    """One row after another for a prepared clip."""
    dataset = IdentityDataset.load(folder)
    tracks, n_mouth = dataset.tracks, dataset.face.n_mouth
    encoder = load_encoder(encoder_name)
    gain = np.float32(speech_gain(measure_loudness([dataset.waveform]).powers, tracks.silent))
    features = encoder.encode(dataset.waveform * gain)
    tracked = tracks.codes.copy()
    tracked[:, n_mouth:] = 0.0
    for fold, (train, frames) in enumerate(_splits(dataset, n_folds)):
        rows: dict[str, Float32] = {
            "tracked codes": tracked,
            "mean mouth": np.repeat(tracked[train].mean(0)[None], len(dataset), axis=0),
            "ridge": _ridge(features, tracked, train),
        }
        facts = {"clip": folder.name, "fold": fold, "n_frames": len(frames)}
        for name, codes in rows.items():
            yield facts | {"row": name} | asdict(lip_figures(dataset, codes[frames], frames))
        for seed in range(n_seeds):
            start = time.perf_counter()
            predictor = fit_predictor(
                features, tracks.codes, train, tracks.silent, dataset.face, PRESETS[preset], seed,
                SilentProgress(),
            )  # fmt: skip
            seconds = round(time.perf_counter() - start, 1)
            speaking = np.zeros(len(dataset), dtype=bool)
            for name, silent in (("predicted", tracks.silent), ("predicted, no rest", speaking)):
                codes = predictor.predict(features, silent, len(dataset))
                yield (
                    facts
                    | {"row": name, "encoder": encoder_name, "preset": preset, "seed": seed}
                    | {"fit_s": seconds, "gain": predictor.scaling.gain}
                    | asdict(lip_figures(dataset, codes[frames], frames))
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="folders that preprocessing made")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=0, help="0: the test block")
    parser.add_argument("--encoder", default="mel")
    parser.add_argument("--preset", default="standard", choices=list(PRESETS))
    given = parser.parse_args()
    for folder in given.folders:
        for row in measure(folder, given.encoder, given.preset, given.seeds, given.folds):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
