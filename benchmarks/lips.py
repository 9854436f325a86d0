"""How well lips follow speech, without rendering: JSON lines for prepared clips.

    python -m benchmarks.lips DATASET_FOLDER... [--seeds 3] [--folds 11] [--encoder mel]
                              [--against ENCODER] [--preset standard] [--floor PX]

Without --folds, the clip's held-out end is judged, as fit does it. With it, the whole clip is, in
contiguous blocks, each by what was fitted on the others, a second at its borders left out: this is
for comparing predictors with each other, and no headline figure.

Codes are posed as the real head, projected, and compared with the tracked landmarks; a row holds
the figures of figures.LipFigures:
  tracked codes    what the motion code keeps of the tracked lips: no predictor can be better
  mean mouth       no idea of speech
  wrong sentence   the tracked motion of half a clip later: real motion, of other words
  ridge            linear, on the encoder's features
  predictor        the person's MotionPredictor, one row a seed
Then come comparisons: the mean difference of LMD in px with its 95 % interval by
crossval.paired_block_bootstrap, below 0 in favour of the first, and with --floor the fair gain.

Everything fitted to a fold is fitted without it: the template, the head poses' template, the face
model and its codes, the level of speech, ridge, predictor. The dataset's own face model, fitted on the
first 10/11, is used for the held-out end only. What has heard or seen the whole clip is: which frames
are silent (from the sound), which are usable, and the sound's offset (from the first 10/11).
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from talkhead.app.evaluation.crossval import (
    contiguous_folds,
    fair_gain,
    few_frames,
    paired_block_bootstrap,
)
from talkhead.app.evaluation.figures import plain
from talkhead.app.evaluation.lips import lip_figures
from talkhead.app.evaluation.metrics import lmd
from talkhead.audio import measure_loudness
from talkhead.cameras import project
from talkhead.dataset import IdentityDataset
from talkhead.encoder.base import encoder_names, load_encoder, speech_gain
from talkhead.encoder.network import PRESETS
from talkhead.encoder.predictor import fit_predictor
from talkhead.face import FaceModel
from talkhead.preprocess.headpose import track_head
from talkhead.preprocess.motion import encode_motion, fit_face_model
from talkhead.progress import SilentProgress
from talkhead.types import FRAME_RATE, Bool, Float32, Float64, Int, SpeechFeatures

RIDGE_CONTEXT = 4
RIDGE = 100.0


class Row(NamedTuple):
    """What is judged. encoder: "" for what hears nothing. seed: -1 for what has none."""

    name: str
    encoder: str = ""
    seed: int = -1


@dataclass(frozen=True)
class Block:
    """Frames to judge, [n], and what may be used for them: frames to learn from [F], a face model,
    mouth codes [F, K] and head poses [F, 4, 4] by it."""

    frames: Int
    train: Bool
    face: FaceModel
    codes: Float32
    viewmats: Float32


def held_out_block(dataset: IdentityDataset) -> Block:
    """The clip's end, with the dataset's own face model, which has not seen it."""
    tracks = dataset.tracks
    frames = np.flatnonzero(~tracks.train & tracks.usable)
    codes = _mouth_only(tracks.codes, dataset.face)
    return Block(frames, tracks.train & tracks.usable, dataset.face, codes, tracks.viewmats)


def fold_blocks(
    dataset: IdentityDataset, n_folds: int, sentence_frames: int | None = None
) -> Iterator[Block]:
    """The whole clip in blocks, each with a face model that has not seen it."""
    tracks, n_frames = dataset.tracks, len(dataset)
    covered = tracks.landmarks.any((1, 2))
    cuts = None if sentence_frames is None else range(0, n_frames, sentence_frames)
    for fold in contiguous_folds(n_frames, n_folds, sentences=cuts):
        train = fold.train & tracks.usable
        head = track_head(tracks.landmarks, covered, train & covered, dataset.intrinsics)
        triangles = dataset.face.triangles
        face = fit_face_model(head.template, head.canonical, train, tracks.silent, triangles)
        codes = _mouth_only(encode_motion(face, head.canonical), face)
        frames = fold.test[tracks.usable[fold.test]]
        yield Block(frames, train, face, codes, head.poses.viewmats)


def _mouth_only(codes: Float32, face: FaceModel) -> Float32:
    mouth = np.zeros_like(codes)
    mouth[:, : face.n_mouth] = codes[:, : face.n_mouth]
    return mouth


def hear(dataset: IdentityDataset, encoder: str, train: Bool) -> SpeechFeatures:
    """Features of a clip's sound, brought to the level of the speech that may be learned from."""
    powers = measure_loudness([dataset.waveform]).powers
    gain = speech_gain(powers, dataset.tracks.silent | ~train)
    return load_encoder(encoder).encode(dataset.waveform * np.float32(gain))


def block_codes(
    dataset: IdentityDataset, block: Block, encoders: list[str], preset: str, n_seeds: int
) -> Iterator[tuple[Row, Float32]]:
    """Each row's codes [n, K] of a block's frames."""
    frames, codes, silent = block.frames, block.codes, dataset.tracks.silent
    n_frames = len(dataset)
    yield Row("tracked codes"), codes[frames]
    yield Row("mean mouth"), np.repeat(codes[block.train].mean(0)[None], len(frames), axis=0)
    yield Row("wrong sentence"), codes[(frames + n_frames // 2) % n_frames]
    for encoder in encoders:
        features = hear(dataset, encoder, block.train)
        yield Row("ridge", encoder), ridge_codes(features, codes, block.train)[frames]
        for seed in range(n_seeds):
            predictor = fit_predictor(
                features, codes, block.train, silent, block.face, PRESETS[preset], seed,
                SilentProgress(),
            )  # fmt: skip
            yield (
                Row("predictor", encoder, seed),
                predictor.predict(features, silent, n_frames)[frames],
            )


def ridge_codes(features: SpeechFeatures, codes: Float32, train: Bool) -> Float32:
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


def shown_points(dataset: IdentityDataset, block: Block, codes: Float32) -> Float32:
    """Where codes [n, K] put the landmarks of a block's frames, [n, 478, 2] source pixels."""
    vertices = block.face.vertices(codes).astype(np.float64)
    viewmats = block.viewmats[block.frames].astype(np.float64)
    return project(vertices, viewmats, dataset.intrinsics).astype(np.float32)


def measure(
    dataset: IdentityDataset, blocks: Iterator[Block], encoders: list[str], preset: str,
    n_seeds: int, floor: float | None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """One row after another for a prepared clip, then the comparisons."""
    start = time.perf_counter()
    points: dict[Row, list[Float32]] = defaultdict(list)
    judged = []
    for block in blocks:
        judged.append(block.frames)
        for row, codes in block_codes(dataset, block, encoders, preset, n_seeds):
            points[row].append(shown_points(dataset, block, codes))
    frames = np.concatenate(judged)
    real = dataset.tracks.landmarks[frames, :, :2]
    facts = {"n_frames": len(frames), "n_blocks": len(judged), "preset": preset}
    facts |= {"seconds": round(time.perf_counter() - start, 1)}
    errors: dict[Row, Float64] = {}
    for row, parts in points.items():
        made = np.concatenate(parts)
        errors[row] = lmd(made, real)
        figures = lip_figures(frames, made, real, silent=dataset.tracks.silent[frames])
        yield {"row": row.name, **_heard(row), **facts, **plain(asdict(figures))}
    for comparison in compare(errors, encoders, floor):
        yield comparison | {"warning": few_frames(len(frames))}


def _heard(row: Row) -> dict[str, Any]:
    known = {"encoder": row.encoder} if row.encoder else {}
    return known | ({"seed": row.seed} if row.seed >= 0 else {})


def compare(
    errors: dict[Row, Float64], encoders: list[str], floor: float | None
) -> Iterator[dict[str, Any]]:
    """Each encoder's predictor beside the mean mouth, and the first one's beside the other's."""
    fits = {
        encoder: np.stack([e for row, e in errors.items() if row[:2] == ("predictor", encoder)])
        for encoder in encoders
    }
    pairs = [(f"predictor {e}", fits[e], "mean mouth", errors[Row("mean mouth")]) for e in encoders]
    for other in encoders[1:]:
        names = f"predictor {encoders[0]}", f"predictor {other}"
        pairs.append((names[0], fits[encoders[0]], names[1], fits[other]))
    for name, own, against, theirs in pairs:
        difference = paired_block_bootstrap(own, theirs)
        row = {"compare": name, "with": against, "difference_px": asdict(difference)}
        row |= {"seeds_px": [float(e) for e in own.mean(-1)]}
        if floor is not None:
            row["fair_gain"] = fair_gain(float(own.mean()), floor, float(theirs.mean()))
        yield plain(row)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = encoder_names()
    parser.add_argument("folders", nargs="+", type=Path, help="folders that preprocessing made")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=0, help="0: the held-out end")
    parser.add_argument("--encoder", default="mel", choices=names)
    parser.add_argument("--against", choices=names, help="another encoder to compare with")
    parser.add_argument("--preset", default="standard", choices=list(PRESETS))
    parser.add_argument("--floor", type=float, help="LMD of the true frames at CRF 23, px")
    parser.add_argument(
        "--sentence-frames", type=int, help="cut folds at multiples of it; GRID: 75"
    )
    given = parser.parse_args()
    encoders = list(dict.fromkeys(filter(None, [given.encoder, given.against])))
    for folder in given.folders:
        dataset = IdentityDataset.load(folder)
        if not given.folds and dataset.info.uses_all_frames:
            parser.error(f"{folder}: no frames were held out. Pass --folds 11")
        blocks = iter([held_out_block(dataset)])
        if given.folds:
            blocks = fold_blocks(dataset, given.folds, given.sentence_frames)
        rows = measure(dataset, blocks, encoders, given.preset, given.seeds, given.floor)
        for row in rows:
            print(json.dumps({"clip": dataset.info.video, **row}), flush=True)


if __name__ == "__main__":
    main()
