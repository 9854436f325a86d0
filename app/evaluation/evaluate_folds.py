"""Cross-validate how well speech drives a person's lips, over the whole clip and without rendering.

The held-out end of a short clip shows too few words to judge the lips by. Contiguous folds evaluate
every frame once, with a face model and a predictor that were fitted without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from talkhead.app.avatar import (
    encode_footage,
    load_encoder_for,
    load_predictor,
    normalized_footage_audio,
)
from talkhead.app.choices import MAX_FOLDS, MIN_FOLDS
from talkhead.app.evaluation.cross_validation import block_bootstrap, paired_block_bootstrap
from talkhead.app.evaluation.lip_folds import (
    Block,
    fit_block,
    shown_points,
    training_data,
    usable_folds,
)
from talkhead.app.evaluation.measures.lips import LIP_MEASURES, LipTracks
from talkhead.app.evaluation.results import (
    MEAN_MOUTH,
    MISMATCHED_SPEECH,
    REAL_VIDEO,
    SPEECH_DRIVEN,
    TRACKED_CODES,
    CrossValidatedRow,
    CrossValidation,
    VariantKind,
)
from talkhead.dataset import IdentityDataset
from talkhead.encoder.base import SpeechEncoder
from talkhead.encoder.predictor.augmented import augmented_features
from talkhead.encoder.predictor.model import MIN_FRAMES, fit_predictor
from talkhead.encoder.predictor.network import PredictorConfig
from talkhead.encoder.predictor.prior import Prior, shipped_prior
from talkhead.encoder.predictor.voices import OtherVoices, other_voices
from talkhead.errors import FootageError
from talkhead.identity import IdentityPackage
from talkhead.progress import Progress, Step
from talkhead.types import FRAME_RATE, Float32, Int

MIN_TESTED = FRAME_RATE
"""Usable frames that each fold needs: no fewer than are left out at its borders."""
SHORT_S = 5.0
"""A held-out end of fewer seconds is too short to judge the lips by."""
USUAL_FOLDS = 10
"""Number of folds that is suggested: nearly as much is fitted on as in a fit."""
SEAM = 10 * FRAME_RATE
"""Frames by which folds are moved apart, so that measures over time do not span two of them."""
ROWS: Mapping[str, tuple[VariantKind, str]] = {
    REAL_VIDEO: ("real", "the tracked landmarks of the footage"),
    TRACKED_CODES: ("floor", "tracked motion in the face model of each fold: the best possible"),
    SPEECH_DRIVEN: ("made", "motion from audio, by predictors fitted without the fold"),
    MEAN_MOUTH: ("baseline", "a mouth that never moves"),
    MISMATCHED_SPEECH: ("baseline", "the tracked motion of half the clip later"),
}
"""Kind and description of each row, in their order."""


@dataclass(frozen=True)
class PredictorRecipe:
    """How the predictor of each fold is fitted: as that of the identity.

    Attributes:
        encoder: Speech encoder.
        config: Architecture and training.
        seed: Seed of the fit.
        prior: Weights to start from; None to start from random ones.
        voices: Other people's speech. None: the range of the lips is not corrected.
    """

    encoder: SpeechEncoder
    config: PredictorConfig
    seed: int
    prior: Prior | None = None
    voices: OtherVoices | None = None

    @classmethod
    def of(cls, package: IdentityPackage) -> PredictorRecipe:
        """Read how the predictor of an identity was fitted.

        Args:
            package: A verified package.

        Returns:
            The recipe, with the prior that is shipped for the encoder.

        Raises:
            PackageError: The predictor or a shipped file is damaged.
            TalkheadError: The encoder is not available, or its weights have changed.
        """
        encoder, predictor = load_encoder_for(package), load_predictor(package)
        prior = shipped_prior(encoder, predictor.config)
        # Identities fitted before the correction of the range move without it.
        voices = None if predictor.lip_range is None else other_voices(encoder)
        return cls(encoder, predictor.config, package.manifest.seed, prior, voices)


def possible_folds(dataset: IdentityDataset) -> list[int]:
    """List the numbers of folds that a clip can be divided into.

    Args:
        dataset: The dataset.

    Returns:
        Numbers of folds, ascending, for which every fold has MIN_TESTED usable frames, and leaves as
        many to fit on as a predictor needs.
    """
    found = []
    for n_folds in range(MIN_FOLDS, MAX_FOLDS + 1):
        if len(dataset) < n_folds * MIN_TESTED:
            break
        folds = usable_folds(dataset, n_folds)
        if all(len(f.test) >= MIN_TESTED and f.train.sum() >= MIN_FRAMES for f in folds):
            found.append(n_folds)
    return found


def check_clip(dataset: IdentityDataset, n_folds: int) -> None:
    """Check that a clip is long enough for a number of folds.

    Args:
        dataset: The dataset.
        n_folds: Number of folds.

    Raises:
        FootageError: It is too short; the message says how many are possible.
    """
    possible = possible_folds(dataset)
    if n_folds in possible:
        return
    n_usable = int(dataset.tracks.usable.sum())
    remedy = "Record a longer video"
    if possible:
        remedy = f"Possible: --folds {', '.join(map(str, possible))}"
    raise FootageError(
        f"{dataset.info.video}: {n_usable / FRAME_RATE:.1f} s of usable frames are too short for "
        f"{n_folds} folds. Each needs a second of its own, and {MIN_FRAMES} frames to fit on that "
        f"are a second away from it. {remedy}"
    )


def suggestion(dataset: IdentityDataset, name: str) -> str:
    """Suggest cross-validation where the held-out end is too short to judge the lips by.

    Args:
        dataset: The dataset.
        name: Name of the identity.

    Returns:
        One sentence; "" if the end is long enough, or the clip too short for any folds.
    """
    seconds = float((~dataset.tracks.train).sum()) / FRAME_RATE
    if seconds >= SHORT_S:
        return ""
    n_folds = max((n for n in possible_folds(dataset) if n <= USUAL_FOLDS), default=0)
    if not n_folds:
        return ""
    return (
        f"the held-out end of {seconds:.1f} s is too short to judge the lips. To judge them over the "
        f"whole clip: talkhead evaluate {name} --folds {n_folds}"
    )


def cross_validate(
    dataset: IdentityDataset, recipe: PredictorRecipe, n_folds: int, progress: Progress
) -> CrossValidation:
    """Fit face model and predictor without each fold, and compare its lips with the tracked ones.

    Args:
        dataset: The dataset.
        recipe: How predictors are fitted.
        n_folds: Number of folds, as `check_clip` accepts it.
        progress: Shows the folds, and the training in each.

    Returns:
        The measures over all folds. The same seed gives the same, bit for bit, on a CPU.
    """
    features = encode_footage(dataset, recipe.encoder)
    sound = normalized_footage_audio(dataset)
    copies = augmented_features(recipe.encoder, sound, recipe.seed)
    blocks, parts = [], []
    with progress.step("Cross-validating the lips", total=n_folds) as bar:
        for number, fold in enumerate(usable_folds(dataset, n_folds), 1):
            training = _Renamed(progress, f"Fold {number} of {n_folds}")
            block = fit_block(dataset, fold)
            data = training_data(dataset, block, features, copies, recipe.voices)
            predictor = fit_predictor(data, recipe.config, recipe.seed, training, recipe.prior)
            spoken = predictor.predict(features, dataset.tracks.silent, len(dataset))
            blocks.append(block)
            parts.append(_points(dataset, block, spoken[block.frames]))
            bar.advance()
    frames = np.concatenate([block.frames for block in blocks])
    apart = np.repeat(np.arange(n_folds) * SEAM, [len(block.frames) for block in blocks])
    made = {name: np.concatenate([part[name] for part in parts]) for name in ROWS}
    real, silent = made[REAL_VIDEO], dataset.tracks.silent[frames]
    tracks = {
        name: LipTracks(frames + apart, points, real, silent=silent)
        for name, points in made.items()
    }
    spoken_px = tracks[SPEECH_DRIVEN].distance
    return CrossValidation(
        n_folds,
        len(frames),
        tuple(_row(name, one) for name, one in tracks.items()),
        {
            name: paired_block_bootstrap(spoken_px, tracks[name].distance)
            for name in (MEAN_MOUTH, MISMATCHED_SPEECH)
        },
    )


@dataclass(frozen=True)
class _Renamed:
    """Shows the steps of another progress under a name of their own."""

    progress: Progress
    name: str

    def step(
        self, name: str, total: int | None = None, done: int = 0
    ) -> AbstractContextManager[Step]:
        """Open a step, see `Progress.step`."""
        return self.progress.step(self.name, total, done)

    def message(self, text: str) -> None:
        """Show a line, see `Progress.message`."""
        self.progress.message(text)


def _points(dataset: IdentityDataset, block: Block, spoken: Float32) -> dict[str, Float32]:
    """Landmarks [n, 478, 2] of a block's frames by row, given the codes [n, K] from speech."""
    codes = {
        TRACKED_CODES: block.tracked,
        SPEECH_DRIVEN: spoken,
        MEAN_MOUTH: block.mean_mouth,
        MISMATCHED_SPEECH: block.mismatched,
    }
    points = {name: shown_points(dataset, block, mouths) for name, mouths in codes.items()}
    return {REAL_VIDEO: dataset.tracks.landmarks[block.frames, :, :2], **points}


def _row(name: str, tracks: LipTracks) -> CrossValidatedRow:
    """Compute the lip measures of a row with their intervals; the real video has none."""
    kind, about = ROWS[name]
    lips = LIP_MEASURES.compute(tracks)
    if kind == "real":
        return CrossValidatedRow(name, kind, about, lips)
    drawable = [
        key
        for key, measure in LIP_MEASURES.measures.items()
        if measure.better is not None and not measure.in_order
    ]

    def compute(places: Int) -> dict[str, float]:
        drawn = LIP_MEASURES.compute(tracks.drawn(places), names=drawable)
        return {key: LIP_MEASURES.measures[key].headline_of(drawn) for key in drawable}

    found = block_bootstrap(compute, len(tracks.frames))
    intervals = {key: (one.low, one.high) for key, one in found.items()}
    return CrossValidatedRow(name, kind, about, lips, intervals)
