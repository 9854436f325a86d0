"""How large and how alive predicted lip motion is, with and without the correction of its range.

    python -m benchmarks.lip_range CLIP... [--encoder pase[,PRIOR]] [--driving FILE_OR_FOLDER ...]
                                  [--folds 11] [--preset standard] [--seed 0] [--cache FOLDER]

CLIP, --encoder, --folds and --cache are those of benchmarks.lips. Nothing is rendered: measures are
those of motion codes, posed as the real head where lips are compared. Prints JSON lines, each
without ("as predicted") and with ("corrected") the map of `encoder.predictor.lip_range`:

own recording      the held-out end, or with --folds the whole clip: the values of `lip_results`,
                   and with phones those of `phoneme_results`
other recordings   each file of --driving, and the mean over them, each over the same measure of the
                   person's tracked motion (own): range and width, p90 - p10 in speech of the gap
                   between the lips and of the mouth's width; closed, share of spoken frames with
                   closed lips, own_closed; openings per second of speech; speed of the lips in
                   speech; jitter; silence, share of silent frames in which the mouth moves or is
                   open, own_silence

docs/measures.md defines them.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.lips import (
    Clip,
    System,
    footages,
    held_out_block,
    parse_system,
    prior_of,
    read_clips,
)
from benchmarks.lips import fold_blocks as blocks_of_folds
from talkhead.app.evaluation.lip_folds import Block, shown_points
from talkhead.app.evaluation.measures.image import jitter
from talkhead.app.evaluation.measures.lips import CLOSED, lip_results, silence_motion
from talkhead.app.evaluation.measures.phonemes import phoneme_results
from talkhead.app.evaluation.results import plain
from talkhead.dataset import IdentityDataset
from talkhead.encoder.base import SpeechEncoder
from talkhead.encoder.phones import Phone
from talkhead.encoder.predictor.lip_range import lip_measures
from talkhead.encoder.predictor.model import MotionPredictor, fit_predictors
from talkhead.encoder.predictor.network import PRESETS
from talkhead.encoder.predictor.voices import other_voices
from talkhead.encoder.registry import load_encoder
from talkhead.encoder.vad import detect_speech
from talkhead.face import LIPS, FaceModel, lip_aperture
from talkhead.media import read_audio
from talkhead.progress import make_progress
from talkhead.storage import make_folder, read_json
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32, Float64, SpeechFeatures

RANGE_PERCENT = (10, 90)
"""Percentiles between which a range is measured."""
SHUT, OPEN = 0.25, 0.5
"""An opening begins below the first share of the person's own range of the gap, and ends above the
second.
"""
MAX_DRIVING_S = 20.0
"""Seconds of a recording that are used."""
SUFFIXES = (".flac", ".wav", ".mp3", ".ogg", ".opus", ".m4a")


class Recording(NamedTuple):
    """A recording of another voice: its name, features and silent video frames [F]."""

    name: str
    features: SpeechFeatures
    silent: Bool


@dataclass(frozen=True)
class Motion:
    """Measures of a mouth over F frames.

    Attributes:
        gap: Signed gap between the inner lips, [F] eye distances.
        width: Distance between the corners of the mouth, [F] eye distances.
        points: Landmarks of the face, [F, 478, 3] eye distances.
        silent: Frames without speech, [F].
    """

    gap: Float64
    width: Float64
    points: Float32
    silent: Bool

    @classmethod
    def of(cls, face: FaceModel, codes: Float32, silent: Bool) -> Motion:
        """Measure motion codes [F, K] in which frames [F] are silent."""
        offset, slope = lip_measures(face)
        gap, width = (offset + codes[:, : face.n_mouth].astype(np.float64) @ slope.T).T
        return cls(gap, width, face.vertices(codes), silent)

    def figures(self, own: Motion) -> dict[str, float]:
        """Compare with the person's own motion."""
        spoken, spoken_own = ~self.silent, ~own.silent
        range_own = _range(own.gap[spoken_own])
        limits = [
            np.percentile(own.gap[spoken_own], RANGE_PERCENT[0]) + share * range_own
            for share in (SHUT, OPEN)
        ]
        return {
            "range": _range(self.gap[spoken]) / range_own,
            "width": _range(self.width[spoken]) / _range(own.width[spoken_own]),
            "closed": self.closed,
            "own_closed": own.closed,
            "openings": _openings(self.gap, spoken, *limits)
            / _openings(own.gap, spoken_own, *limits),
            "own_openings_per_s": _openings(own.gap, spoken_own, *limits),
            "speed": self.speed / own.speed,
            "jitter": jitter(self.points[:, LIPS]) / jitter(own.points[:, LIPS]),
            "silence": self.silence[0],
            "n_silent": self.silence[1],
            "own_silence": own.silence[0],
        }

    @property
    def closed(self) -> float:
        """Share of the spoken frames in which the lips are closed."""
        return float((lip_aperture(self.points)[~self.silent] < CLOSED).mean())

    @property
    def speed(self) -> float:
        """Mean speed of the lip points in speech, eye distances per second."""
        lips = self.points[:, LIPS, :2].astype(np.float64)
        steps = np.linalg.norm(np.diff(lips, axis=0), axis=-1).mean(1)
        return float(steps[~self.silent[1:]].mean() * FRAME_RATE)

    @property
    def silence(self) -> tuple[float, int]:
        """Result of `silence_motion`: a share, NaN for too few frames, and the number of frames."""
        share, n = silence_motion(self.points, np.arange(len(self.gap)), self.silent)
        return math.nan if share is None else share, n


def _range(values: Float64) -> float:
    low, high = np.percentile(values, RANGE_PERCENT)
    return float(high - low)


def _openings(gap: Float64, spoken: Bool, shut: float, opened: float) -> float:
    """Openings per second of speech of a gap [F]: rises from below `shut` to above `opened`."""
    states = np.where(gap > opened, 1, np.where(gap < shut, -1, 0))[spoken]
    states = states[states != 0]
    return float(((states[1:] > 0) & (states[:-1] < 0)).sum() / spoken.sum() * FRAME_RATE)


def read_recordings(paths: Sequence[Path], encoder: SpeechEncoder) -> Iterator[Recording]:
    """Encode recordings, and those of folders, as `speak` does."""
    files = [
        file
        for path in paths
        for file in (sorted(path.iterdir()) if path.is_dir() else [path])
        if file.suffix in SUFFIXES
    ]
    for file in files:
        sound = read_audio(file)[: round(MAX_DRIVING_S * SAMPLE_RATE)]
        speech = detect_speech(partial(iter, [sound]))
        yield Recording(file.stem, encoder.encode(speech.gain * sound), speech.silent)


def variants(predictor: MotionPredictor) -> Iterator[tuple[str, MotionPredictor]]:
    """A predictor without and with the correction."""
    yield "as predicted", replace(predictor, lip_range=None)
    yield "corrected", predictor


def own_recording(
    dataset: IdentityDataset,
    clip: Clip,
    blocks: Sequence[Block],
    predictors: Sequence[MotionPredictor],
    features: Sequence[SpeechFeatures],
) -> Iterator[dict[str, Any]]:
    """Compare lips in the blocks with the real ones."""
    silent = dataset.tracks.silent
    frames = np.concatenate([block.frames for block in blocks])
    real = dataset.tracks.landmarks[frames, :, :2]
    made: dict[str, list[Float32]] = {}
    for block, predictor, one in zip(blocks, predictors, features, strict=True):
        for name, variant in variants(predictor):
            codes = variant.predict(one, silent, len(dataset))[block.frames]
            made.setdefault(name, []).append(shown_points(dataset, block, codes))
    phones = None if clip.phones is None else [Phone(*phone) for phone in read_json(clip.phones)]
    for name, parts in made.items():
        shown = np.concatenate(parts)
        results = dict(lip_results(frames, shown, real, silent=silent[frames]))
        if phones is not None:
            aperture = np.full(len(dataset), np.nan, np.float32)
            aperture[frames] = lip_aperture(shown)
            results |= phoneme_results(phones, aperture)
        yield {"own recording": name, **plain(results)}


def other_recordings(
    dataset: IdentityDataset,
    block: Block,
    predictor: MotionPredictor,
    recordings: Sequence[Recording],
) -> Iterator[dict[str, Any]]:
    """Compare motion driven by other recordings with the person's own."""
    used = dataset.tracks.usable
    own = Motion.of(block.face, block.codes[used], dataset.tracks.silent[used])
    for name, variant in variants(predictor):
        rows = []
        for one in recordings:
            codes = variant.predict(one.features, one.silent, len(one.silent))
            rows.append(Motion.of(block.face, codes, one.silent).figures(own))
            yield {"other recording": name, "file": one.name, **plain(rows[-1])}
        yield {"other recordings": name, "n": len(rows), **plain(mean_figures(rows))}


def mean_figures(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each figure, and the standard deviation of the range; silence by number of frames."""
    mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    known = [row for row in rows if math.isfinite(row["silence"])]
    total = sum(row["n_silent"] for row in known)
    silence = sum(row["n_silent"] * row["silence"] for row in known)
    mean |= {"silence": silence / total if total else math.nan, "n_silent": total}
    return mean | {"range_deviation": float(np.std([row["range"] for row in rows]))}


def measure(
    clip: Clip,
    system: System,
    recordings: Sequence[Recording],
    preset: str,
    seed: int = 0,
    n_folds: int = 0,
    cache: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Fit a clip's predictors and measure their motion. Other recordings drive the last one, which
    is fitted without the held-out end.
    """
    dataset = IdentityDataset.load(clip.folder)
    encoder, whole = load_encoder(system.encoder), held_out_block(dataset)
    blocks = [whole]
    if n_folds:
        blocks = [*blocks_of_folds(dataset, n_folds, clip.sentence_frames, cache), whole]
    voices = other_voices(encoder)
    clips = [replace(o, voices=voices) for o in footages(dataset, blocks, encoder, seed)]
    prior = prior_of(system, clip)
    fitted = fit_predictors(clips, PRESETS[preset], seed, make_progress("bars"), prior)
    n_tested = n_folds or 1
    features = [one.features for one in clips]
    tested = (blocks[:n_tested], fitted[:n_tested], features[:n_tested])
    facts = {"clip": dataset.info.video, "encoder": str(system), "seed": seed}
    for row in own_recording(dataset, clip, *tested):
        yield {**facts, **row}
    for row in other_recordings(dataset, whole, fitted[-1], recordings):
        yield {**facts, **row}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=Path, help="prepared folders, or .json lists")
    parser.add_argument("--encoder", default="pase", type=parse_system, help="NAME[,PRIOR]")
    parser.add_argument("--driving", default=[], nargs="*", type=Path, help="other recordings")
    parser.add_argument("--folds", type=int, default=0, help="0: the held-out end")
    parser.add_argument("--preset", default="standard", choices=list(PRESETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="folder that stores the folds' models")
    given = parser.parse_args(arguments)
    recordings = list(read_recordings(given.driving, load_encoder(given.encoder.encoder)))
    cache = None if given.cache is None else make_folder(given.cache)
    for clip in (clip for path in given.clips for clip in read_clips(path)):
        rows = measure(
            clip, given.encoder, recordings, given.preset, given.seed, given.folds, cache
        )
        for row in rows:
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
