"""Measure the accuracy of lip motion predicted from speech, without rendering; prints JSON lines.

    python -m benchmarks.lips CLIP... [--encoder pase[,PRIOR]] [--against mel[,PRIOR] mfcc ...]
                              [--folds 11] [--seeds 3] [--preset standard] [--cache FOLDER]
                              [--no-ridge]

A CLIP is a folder that preprocessing made, or a .json file that lists several:

    [{"folder": "work/anna/dataset", "floor_px": 0.32, "sentence_frames": 75, "phones": "anna.json",
      "in_prior": true}, ...]

* floor_px: LMD of the true frames after encoding at CRF 23.
* sentence_frames: Folds are cut at multiples of this (GRID: 75).
* phones: File of [[label, start_s, end_s], ...].
* in_prior: The priors were trained on this person, so none is used.

An encoder is a name or a file of PASE's weights. PRIOR is a file made by encoder.predictor.prior.

Without --folds, only the held-out end of a clip is evaluated, as `fit` does. With it, the whole clip
is evaluated in contiguous blocks. The models for a block are fitted on the other blocks, except for
a second at either border of the block. Use this to compare predictors with each other, not for
headline results.

The predicted codes are posed like the real head and projected to landmarks, which are compared with
the tracked ones. A row of the output has the values of `lip_results`, and with phones those
of `phoneme_results`. The rows are:

* tracked codes: the part of the tracked lip motion that the motion code can express, which is the
  best possible result
* mean mouth: the mean, independent of speech
* wrong sentence: the tracked motion half a clip later, which is real motion of other words
* ridge: linear regression on the encoder's features
* predictor: the person's MotionPredictor, one row per seed

Comparisons follow: the mean difference of LMD in px with its 95 % interval, computed by
cross_validation.paired_block_bootstrap. It is below 0 if the first system is better. With floors,
the fair gain is printed, too. The last lines cover all clips that have a floor, with equal weights:
the mean fair gain over the mean mouth and over the best of the other systems, with its interval.
The best system is chosen on training blocks only (Scaling.held_out).

Everything that is fitted for a block is fitted without that block: the template, the head poses'
template, the face model and its codes, ridge and predictor. The dataset's own face model, which is
fitted on the first 10/11 of the clip, is used for the held-out end only. Four things depend on the
whole clip: the silent frames and the level of speech (from the audio), the usable frames, and the
A/V offset (from the first 10/11).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.posteriors import Encoder, PosteriorEncoder, ablation_encoder
from talkhead.app.evaluation.cross_validation import (
    Fold,
    fair_gain,
    few_frames,
    mean_gain_bootstrap,
    paired_block_bootstrap,
)
from talkhead.app.evaluation.lip_folds import (
    Block,
    fit_block,
    mouth_only,
    shown_points,
    training_data,
    usable_folds,
)
from talkhead.app.evaluation.measures.image import lmd
from talkhead.app.evaluation.measures.lips import lip_results
from talkhead.app.evaluation.measures.phonemes import phoneme_results
from talkhead.app.evaluation.results import plain
from talkhead.dataset import IdentityDataset
from talkhead.encoder.base import normalize_level
from talkhead.encoder.phones import Phone
from talkhead.encoder.predictor.augmented import augmented_features
from talkhead.encoder.predictor.model import PredictorTrainingData, fit_predictors
from talkhead.encoder.predictor.network import PRESETS
from talkhead.encoder.predictor.prior import Prior, read_prior
from talkhead.encoder.predictor.training import feature_spread
from talkhead.encoder.registry import load_encoder
from talkhead.errors import TalkheadError
from talkhead.face import FaceModel, lip_aperture
from talkhead.progress import make_progress
from talkhead.storage import make_folder, read_json, read_tensors, sha256_of, write_tensors
from talkhead.types import FRAME_RATE, Bool, Float32, Float64, Int, SpeechFeatures

RIDGE_CONTEXT = 4
RIDGE = 100.0


class System(NamedTuple):
    """An encoder and the prior that its predictors start from, "" for none."""

    encoder: str
    prior: str = ""

    def __str__(self) -> str:
        return ",".join(filter(None, self))


class Row(NamedTuple):
    """A row of the results. system: None for one without an encoder. seed: -1 for one without."""

    name: str
    system: System | None = None
    seed: int = -1


@dataclass(frozen=True)
class Clip:
    """A prepared clip with its facts; see the module."""

    folder: Path
    floor_px: float | None = None
    sentence_frames: int | None = None
    phones: Path | None = None
    in_prior: bool = False


@dataclass
class IdentityEvaluation:
    """Errors of a clip, in px: of each row [N]. held_out: of each system, its predictors' own errors
    on frames of the training blocks.
    """

    clip: Clip
    errors: dict[Row, Float64]
    held_out: dict[System, list[float]]

    def of(self, system: System) -> Float64:
        """Errors [n_seeds, N] of the system's predictors."""
        rows = [e for row, e in self.errors.items() if row[:2] == ("predictor", system)]
        return np.stack(rows)


# --------------------------------------------------------------------------------- blocks


def held_out_block(dataset: IdentityDataset) -> Block:
    """The clip's end, with the dataset's own face model, which was fitted without it."""
    tracks = dataset.tracks
    frames = np.flatnonzero(~tracks.train & tracks.usable)
    codes = mouth_only(tracks.codes, dataset.face)
    return Block(frames, tracks.train & tracks.usable, dataset.face, codes, tracks.viewmats)


def fold_blocks(
    dataset: IdentityDataset,
    n_folds: int,
    sentence_frames: int | None = None,
    cache: Path | None = None,
) -> Iterator[Block]:
    """Divide the whole clip into blocks, each with a face model fitted without it.

    cache: a folder in which blocks are stored, so that they are made only once.
    """
    cuts = None if sentence_frames is None else range(0, len(dataset), sentence_frames)
    for number, fold in enumerate(usable_folds(dataset, n_folds, cuts)):
        stored = None if cache is None else cache / _block_name(dataset, fold.train, number)
        if stored is not None and stored.exists():
            yield _read_block(stored, fold)
            continue
        block = fit_block(dataset, fold)
        if stored is not None:
            made = {"codes": block.codes, "viewmats": block.viewmats}
            tensors = {name: torch.from_numpy(np.array(value)) for name, value in made.items()}
            write_tensors(stored, tensors | block.face.tensors())
        yield block


def _block_name(dataset: IdentityDataset, train: Bool, number: int) -> str:
    text = sha256_of(dataset.path / "tracks.safetensors").encode() + train.tobytes()
    return f"{hashlib.sha256(text).hexdigest()[:16]}-{number}.safetensors"


def _read_block(path: Path, fold: Fold) -> Block:
    tensors = read_tensors(path)
    codes, viewmats = (tensors.pop(name).numpy() for name in ("codes", "viewmats"))
    return Block(fold.test, fold.train, FaceModel.from_tensors(tensors), codes, viewmats)


# -------------------------------------------------------------------------------- systems


def judge(
    dataset: IdentityDataset,
    clip: Clip,
    blocks: Sequence[Block],
    systems: Sequence[System],
    preset: str,
    n_seeds: int,
    cache: Path | None = None,
    ridge: bool = True,
) -> tuple[IdentityEvaluation, Iterator[dict[str, Any]]]:
    """Evaluate each row on a clip; returns errors and the rows' results."""
    start = time.perf_counter()
    points: dict[Row, list[Float32]] = defaultdict(list)
    held_out: dict[System, list[float]] = defaultdict(list)
    for block in blocks:
        for row, codes in _cheap_codes(block):
            points[row].append(shown_points(dataset, block, codes))
    priors = [prior_of(system, clip) for system in systems]
    for system, prior in zip(systems, priors, strict=True):
        encoder = ablation_encoder(system.encoder, cache)
        as_it_is = footages(dataset, blocks, encoder)
        for block, own in zip(blocks, as_it_is if ridge else [], strict=ridge):
            codes = ridge_codes(own.features, block.codes, block.train)[block.frames]
            points[Row("ridge", system)].append(shown_points(dataset, block, codes))
        for seed in range(n_seeds):
            copies = _augmented(dataset, encoder, seed)
            clips = [replace(own, augmented=copies) for own in as_it_is]
            fitted = fit_predictors(clips, PRESETS[preset], seed, make_progress("bars"), prior)
            for block, own, predictor in zip(blocks, clips, fitted, strict=True):
                codes = predictor.predict(own.features, own.silent, len(dataset))
                shown = shown_points(dataset, block, codes[block.frames])
                points[Row("predictor", system, seed)].append(shown)
                held_out[system].append(predictor.scaling.held_out)
    frames = np.concatenate([block.frames for block in blocks])
    real = dataset.tracks.landmarks[frames, :, :2]
    made = {row: np.concatenate(parts) for row, parts in points.items()}
    facts = {"n_frames": len(frames), "n_blocks": len(blocks), "preset": preset}
    facts |= {"seconds": round(time.perf_counter() - start, 1)}
    errors = {row: np.asarray(lmd(shown, real), np.float64) for row, shown in made.items()}
    rows = _rows(dataset, clip, frames, made | {Row("real video"): real}, facts)
    return IdentityEvaluation(clip, errors, dict(held_out)), rows


def footages(
    dataset: IdentityDataset, blocks: Sequence[Block], encoder: Encoder, seed: int | None = None
) -> list[PredictorTrainingData]:
    """Training data of a predictor for each block, with an encoder's features.

    Without other voices: the range of the lips is not corrected (benchmarks.lip_range).

    seed: determines the augmented copies of the audio; None for none.
    """
    features = encoder.encode(normalize_level(dataset.waveform, dataset.tracks.silent))
    augmented = () if seed is None else _augmented(dataset, encoder, seed)
    return [training_data(dataset, block, features, augmented) for block in blocks]


def _augmented(dataset: IdentityDataset, encoder: Encoder, seed: int) -> Sequence[SpeechFeatures]:
    # pocketsphinx takes minutes, and cannot be used as an encoder for speaking.
    if isinstance(encoder, PosteriorEncoder):
        return ()
    sound = normalize_level(dataset.waveform, dataset.tracks.silent)
    return augmented_features(encoder, sound, seed)


def prior_of(system: System, clip: Clip) -> Prior | None:
    """The prior of a system, if any. Raises TalkheadError for a prior of another encoder."""
    if not system.prior or clip.in_prior:
        return None
    prior = read_prior(Path(system.prior))
    if not prior.belongs_to(load_encoder(system.encoder)):
        raise TalkheadError(
            f"{system.prior}: a prior of the encoder {prior.encoder} {prior.version}, not of "
            f"{system.encoder}. Train one: python -m talkhead.encoder.predictor.prior"
        )
    return prior


def _cheap_codes(block: Block) -> Iterator[tuple[Row, Float32]]:
    """Codes [n, K] of a block's frames by rows that do not use an encoder."""
    yield Row("tracked codes"), block.tracked
    yield Row("mean mouth"), block.mean_mouth
    yield Row("wrong sentence"), block.mismatched


def ridge_codes(features: SpeechFeatures, codes: Float32, train: Bool) -> Float32:
    """Codes [F, K] by ridge regression on features within +-RIDGE_CONTEXT frames."""
    per_frame = round(features.rate / FRAME_RATE)
    index = np.arange(len(codes) * per_frame).clip(max=len(features) - 1)
    frames = features.values[index].reshape(len(codes), -1).astype(np.float64)
    padded = np.pad(frames, ((RIDGE_CONTEXT, RIDGE_CONTEXT), (0, 0)), mode="edge")
    inputs = np.concatenate(
        [padded[i : i + len(codes)] for i in range(2 * RIDGE_CONTEXT + 1)], axis=1
    )
    inputs = (inputs - inputs[train].mean(0)) / feature_spread(inputs[train])
    mean, used = codes[train].mean(0), inputs[train]
    # The dual form: there are fewer frames than inputs.
    gram = used @ used.T
    gram += RIDGE * inputs.shape[1] / 100 * np.eye(len(gram))
    weights = used.T @ np.linalg.solve(gram, codes[train] - mean)
    return np.asarray(inputs @ weights + mean, dtype=np.float32)


# -------------------------------------------------------------------------------- figures


def _rows(
    dataset: IdentityDataset,
    clip: Clip,
    frames: Int,
    made: dict[Row, Float32],
    facts: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """Results of landmarks [N, 478, 2] of each row in frames [N]."""
    real, silent = made[Row("real video")], dataset.tracks.silent[frames]
    phones = None if clip.phones is None else [Phone(*phone) for phone in read_json(clip.phones)]
    for row, shown in made.items():
        figures = dict(lip_results(frames, shown, real, silent=silent))
        if phones is not None:
            aperture = np.full(len(dataset), np.nan, np.float32)
            aperture[frames] = lip_aperture(shown)
            figures |= phoneme_results(phones, aperture)
        yield {"row": row.name, **_heard(row), **facts, **plain(figures)}


def _heard(row: Row) -> dict[str, Any]:
    known = {"encoder": str(row.system)} if row.system else {}
    return known | ({"seed": row.seed} if row.seed >= 0 else {})


def compare(judged: IdentityEvaluation, systems: Sequence[System]) -> Iterator[dict[str, Any]]:
    """Compare on one clip: each system's predictor with the mean mouth, and the first with the others."""
    mean_mouth = judged.errors[Row("mean mouth")]
    pairs = [(str(s), judged.of(s), "mean mouth", mean_mouth) for s in systems]
    for other in systems[1:]:
        pairs.append((str(systems[0]), judged.of(systems[0]), str(other), judged.of(other)))
    for name, own, against, theirs in pairs:
        difference = paired_block_bootstrap(own, theirs)
        row = {"compare": name, "with": against, "difference_px": asdict(difference)}
        row |= {"seeds_px": [float(e) for e in own.mean(-1)]}
        if judged.clip.floor_px is not None:
            gain = fair_gain(float(own.mean()), judged.clip.floor_px, float(theirs.mean()))
            row["fair_gain"] = gain
        yield plain(row | {"warning": few_frames(own.shape[-1])})


def compare_over_clips(
    clips: Sequence[IdentityEvaluation], systems: Sequence[System]
) -> Iterator[dict[str, Any]]:
    """Compare over all clips with a floor, with equal weights: the mean fair gain and its interval."""
    known = [(clip, clip.clip.floor_px) for clip in clips if clip.clip.floor_px is not None]
    if not known:
        return
    first, others = systems[0], systems[1:]
    held_out = {
        s: float(np.mean([np.mean(clip.held_out[s]) for clip, _ in known])) for s in systems
    }
    pairs: list[tuple[System, System | None]] = [(system, None) for system in systems]
    pairs += [(first, other) for other in others]
    best = min(others, key=lambda s: held_out[s], default=None)
    for own, other in pairs:
        errors = [
            (clip.of(own), clip.errors[Row("mean mouth")] if other is None else clip.of(other), px)
            for clip, px in known
        ]
        row = {"compare": str(own), "with": "mean mouth" if other is None else str(other)}
        row |= {"n_clips": len(known), "mean_fair_gain": asdict(mean_gain_bootstrap(errors))}
        row |= {"held_out": held_out[own], "is_best_other": other is not None and other == best}
        yield plain(row)


# --------------------------------------------------------------------------- command line


def read_clips(path: Path) -> list[Clip]:
    """Read the clips of a .json list, whose paths are relative to it, or the one of a folder."""
    if path.suffix != ".json":
        return [Clip(path)]
    clips = []
    for entry in read_json(path):
        places = {k: path.parent / entry.pop(k) for k in ("folder", "phones") if k in entry}
        clips.append(Clip(**places, **entry))
    return clips


def parse_system(text: str) -> System:
    """Parse "ENCODER" or "ENCODER,PRIOR"."""
    encoder, _, prior = text.partition(",")
    return System(encoder, prior)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=Path, help="prepared folders, or .json lists")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=0, help="0: the held-out end")
    parser.add_argument("--encoder", default="mel", type=parse_system, help="NAME[,PRIOR]")
    parser.add_argument(
        "--against", default=[], nargs="*", type=parse_system, help="others to compare with"
    )
    parser.add_argument("--preset", default="standard", choices=list(PRESETS))
    parser.add_argument(
        "--no-ridge",
        dest="ridge",
        action="store_false",
        help="leave out the row that takes longest",
    )
    parser.add_argument("--cache", type=Path, help="folder that stores the folds' models")
    given = parser.parse_args(arguments)
    systems = list(dict.fromkeys([given.encoder, *given.against]))
    cache = None if given.cache is None else make_folder(given.cache)
    done = []
    for clip in (clip for path in given.clips for clip in read_clips(path)):
        dataset = IdentityDataset.load(clip.folder)
        if not given.folds and dataset.info.uses_all_frames:
            parser.error(f"{clip.folder}: no frames were held out. Pass --folds 11")
        blocks = [held_out_block(dataset)]
        if given.folds:
            blocks = list(fold_blocks(dataset, given.folds, clip.sentence_frames, cache))
        judged, rows = judge(
            dataset, clip, blocks, systems, given.preset, given.seeds, cache, given.ridge
        )
        for row in (*rows, *compare(judged, systems)):
            print(json.dumps({"clip": dataset.info.video, **row}), flush=True)
        done.append(judged)
    for row in compare_over_clips(done, systems):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
