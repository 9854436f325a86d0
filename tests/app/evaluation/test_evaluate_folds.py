"""Cross-validated lips: no fold sees its own frames, the measures, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_head import make_dataset

from talkhead.app.evaluation import evaluate_folds
from talkhead.app.evaluation.evaluate_folds import (
    PredictorRecipe,
    check_clip,
    cross_validate,
    possible_folds,
    suggestion,
)
from talkhead.app.evaluation.lip_folds import fit_block, training_data, usable_folds
from talkhead.app.evaluation.options import EvaluateOptions, evaluate_options
from talkhead.app.evaluation.results import (
    MEAN_MOUTH,
    MISMATCHED_SPEECH,
    REAL_VIDEO,
    SPEECH_DRIVEN,
    TRACKED_CODES,
    CrossValidation,
    plain,
)
from talkhead.dataset import WAVEFORM, IdentityDataset
from talkhead.encoder.predictor.model import fit_predictor
from talkhead.encoder.predictor.network import PredictorConfig
from talkhead.errors import FootageError, TalkheadError
from talkhead.progress import SilentProgress
from talkhead.storage import write_tensors
from talkhead.types import SAMPLE_RATE, Float32, SpeechFeatures

SMALL = PredictorConfig(width=16, n_members=2, n_steps=60, n_frames=20, n_masks=0, batch_size=2)


class MotionEncoder:
    """Hears the motion itself: its features are the first mouth codes, 50 times a second."""

    name, version, sample_rate, rate, lookahead_s, dim = "motion", "1", SAMPLE_RATE, 50.0, 0.0, 3

    def __init__(self, codes: Float32) -> None:
        self.values = np.repeat(codes[:, :3], 2, axis=0)

    def encode(self, waveform: Float32) -> SpeechFeatures:
        return SpeechFeatures(self.values, self.rate)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> IdentityDataset:
    """Twelve seconds of the synthetic head, with noise as audio."""
    path = tmp_path_factory.mktemp("folds") / "dataset"
    made = make_dataset(path, n_frames=300, size=(32, 24))
    sound = np.random.default_rng(0).normal(0, 0.05, 300 * 640).astype(np.float32)
    write_tensors(path / WAVEFORM, {"waveform": torch.from_numpy(sound)})
    return made


@pytest.fixture(scope="module")
def found(dataset: IdentityDataset) -> CrossValidation:
    recipe = PredictorRecipe(MotionEncoder(dataset.tracks.codes), SMALL, seed=0)
    return cross_validate(dataset, recipe, 3, SilentProgress())


def with_frames(
    dataset: IdentityDataset, frames: slice, change: Callable[[Float32], Float32]
) -> IdentityDataset:
    """The dataset with other landmarks and codes in some frames."""
    landmarks, codes = dataset.tracks.landmarks.copy(), dataset.tracks.codes.copy()
    landmarks[frames], codes[frames] = change(landmarks[frames]), -codes[frames]
    return replace(dataset, tracks=replace(dataset.tracks, landmarks=landmarks, codes=codes))


def test_the_models_of_a_fold_do_not_depend_on_its_frames(dataset: IdentityDataset) -> None:
    """Nor on the second at its borders; they do depend on the frames beyond."""
    number = 1
    fold = usable_folds(dataset, 3)[number]
    first, stop = int(fold.test[0]), int(fold.test[-1]) + 1
    features = MotionEncoder(dataset.tracks.codes).encode(dataset.waveform)

    def tensors(given: IdentityDataset) -> dict[str, torch.Tensor]:
        block = fit_block(given, usable_folds(given, 3)[number])
        data = training_data(given, block, features)
        predictor = fit_predictor(data, replace(SMALL, n_steps=5), 0, SilentProgress())
        codes = {"codes": torch.from_numpy(block.codes[block.train])}
        return {**block.face.tensors(), **predictor.tensors(), **codes}

    def mirrored(points: Float32) -> Float32:
        return np.asarray(points[::-1] * np.float32(1.02))

    own = tensors(dataset)
    near = slice(first - 25, stop + 25)
    other = tensors(with_frames(dataset, near, mirrored))
    assert own.keys() == other.keys()
    assert [name for name in own if not torch.equal(own[name], other[name])] == []
    third = tensors(with_frames(dataset, slice(stop + 25, None), mirrored))
    assert not torch.equal(own["template"], third["template"])


def test_every_row_is_measured_over_the_whole_clip(found: CrossValidation) -> None:
    rows = {row.name: row for row in found.rows}
    names = [REAL_VIDEO, TRACKED_CODES, SPEECH_DRIVEN, MEAN_MOUTH, MISMATCHED_SPEECH]
    assert list(rows) == names
    assert (found.n_folds, found.n_frames) == (3, 300)
    assert all(row.lips.n_tracked == 300 for row in rows.values())
    lmd = {name: row.lips.lmd_px.mean for name, row in rows.items()}
    assert lmd[REAL_VIDEO] == 0.0
    assert lmd[TRACKED_CODES] < lmd[SPEECH_DRIVEN] < lmd[MEAN_MOUTH] < lmd[MISMATCHED_SPEECH]
    real, spoken = rows[REAL_VIDEO], rows[SPEECH_DRIVEN]
    assert real.lips.aperture_correlation == pytest.approx(1.0) and not real.intervals
    assert spoken.lips.aperture_correlation > 0.5
    assert math.isnan(rows[MEAN_MOUTH].lips.aperture_correlation)
    assert math.isnan(rows[MEAN_MOUTH].intervals["aperture_correlation"][0])


def test_intervals_contain_the_values(found: CrossValidation) -> None:
    (spoken,) = (row for row in found.rows if row.name == SPEECH_DRIVEN)
    values = {
        "lmd_px": spoken.lips.lmd_px.mean,
        "aperture_correlation": spoken.lips.aperture_correlation,
        "aperture_spread": spoken.lips.aperture_spread,
    }
    for name, value in values.items():
        low, high = spoken.intervals[name]
        assert low < value < high
    assert not {"aperture_lag_ms", "jitter_ratio", "n_tracked"} & set(spoken.intervals)
    assert set(found.differences) == {MEAN_MOUTH, MISMATCHED_SPEECH}
    assert all(one.low < one.mean < one.high < 0 for one in found.differences.values())


def test_it_is_deterministic(dataset: IdentityDataset, found: CrossValidation) -> None:
    recipe = PredictorRecipe(MotionEncoder(dataset.tracks.codes), SMALL, seed=0)
    assert plain(cross_validate(dataset, recipe, 3, SilentProgress())) == plain(found)


def test_unusable_frames_are_left_out(dataset: IdentityDataset) -> None:
    usable = dataset.tracks.usable.copy()
    usable[40:60] = False
    given = replace(dataset, tracks=replace(dataset.tracks, usable=usable))
    folds = usable_folds(given, 3)
    assert sum(len(fold.test) for fold in folds) == 280
    assert all(not fold.train[40:60].any() for fold in folds)


# ------------------------------------------------------------------------------- refusals


def cut(dataset: IdentityDataset, n_frames: int) -> IdentityDataset:
    """The beginning of the dataset."""
    tracks = replace(dataset.tracks, usable=dataset.tracks.usable[:n_frames])
    return replace(dataset, info=replace(dataset.info, n_frames=n_frames), tracks=tracks)


def test_clips_too_short_for_folds_are_refused(dataset: IdentityDataset) -> None:
    assert possible_folds(dataset) == list(range(3, 13))
    check_clip(dataset, 12)
    with pytest.raises(FootageError, match=r"12\.0 s .* too short for 13 folds.*--folds 3, 4, 5"):
        check_clip(dataset, 13)
    with pytest.raises(FootageError, match=r"2\.0 s .* too short for 3 folds.* Record a longer"):
        check_clip(cut(dataset, 50), 3)
    # Of 150 frames, folds of 25 leave 75 to fit on: without the second at their borders.
    assert possible_folds(cut(dataset, 150)) == []
    assert possible_folds(cut(dataset, 200)) == [4, 5, 6, 7, 8]


def test_folds_are_suggested_for_a_short_end(
    dataset: IdentityDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = suggestion(dataset, "anna")
    assert "1.1 s" in text and text.endswith("talkhead evaluate anna --folds 10")
    assert suggestion(cut(dataset, 50), "anna") == ""
    monkeypatch.setattr(evaluate_folds, "SHORT_S", 1.0)
    assert suggestion(dataset, "anna") == ""


@pytest.mark.parametrize("n_folds", [-1, 1, 2, 21])
def test_other_numbers_of_folds_are_refused(n_folds: int) -> None:
    with pytest.raises(TalkheadError, match=f"{n_folds} folds: choose 3 to 20, or 0"):
        EvaluateOptions(folds=n_folds)
    assert evaluate_options(EvaluateOptions(language="fr"), {"folds": 20}).folds == 20
