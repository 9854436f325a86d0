"""The benchmark that tells predicted from real lips: its classifiers, its folds and its windows."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import scipy.ndimage
from synthetic_head import make_dataset, make_face

from benchmarks.lips import Clip, System
from benchmarks.real_or_made import __main__ as real_or_made
from benchmarks.real_or_made import classifiers, judging
from benchmarks.real_or_made.classifiers import CLASSIFIERS, logistic_weights
from benchmarks.real_or_made.judging import Scores, auc, auc_interval, left_out_scores, mean_auc
from benchmarks.real_or_made.trajectories import (
    MEASURES,
    N_BANDS,
    MadeBy,
    Settings,
    Trajectories,
    measured,
    trajectories,
)
from benchmarks.real_or_made.windows import HOP, LENGTH, Windows, cut, statistics, window_starts
from talkhead.encoder.predictor.lip_range import lip_measures
from talkhead.encoder.predictor.network import PRESETS, PredictorConfig
from talkhead.face import CHIN
from talkhead.types import Bool, Float64

SMALL = PredictorConfig(width=8, layers=((3, 1),), n_members=2, n_steps=3, n_frames=10, n_masks=0)


def motion(random: np.random.Generator, n_frames: int, smoothness: float) -> Float64:
    """Random lips with spread 1 whose steps are smoother the larger `smoothness` is."""
    noise = random.normal(size=(n_frames, len(MEASURES)))
    smooth = scipy.ndimage.gaussian_filter1d(noise, smoothness, axis=0)
    return np.asarray(smooth / smooth.std(0))


def person(seed: int, smoothness: float = 1.5, n_frames: int = 800) -> Trajectories:
    """A person whose real lips have the smoothness 1.5, and "a" that given."""
    random = np.random.default_rng(seed)
    real = 0.1 * motion(random, n_frames, 1.5) + 0.1 * seed
    made = 0.1 * motion(random, n_frames, smoothness) + 0.1 * seed
    sound = random.normal(size=(n_frames, 1 + N_BANDS))
    silent = np.zeros(n_frames, dtype=bool)
    block = np.arange(n_frames) * 4 // n_frames
    return Trajectories(str(seed), real, {"a": made, "a, uncorrected": made}, sound, silent, block)


def both(smoothness: float, n_people: int = 4) -> tuple[Windows, Windows]:
    people = [person(seed, smoothness) for seed in range(n_people)]
    return cut(people, lambda one: one.real), cut(people, lambda one: one.made["a"])


@pytest.mark.parametrize("classifier", CLASSIFIERS.values(), ids=list(CLASSIFIERS))
def test_different_lips_are_told_apart_and_equal_ones_are_not(
    classifier: classifiers.Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "N_STEPS", 60)
    monkeypatch.setattr(classifiers, "N_NETS", 1)
    assert mean_auc(left_out_scores(*both(3.0), classifier)) > 0.97
    same = left_out_scores(*both(1.5), classifier)
    assert abs(mean_auc(same) - 0.5) < 0.12
    again = left_out_scores(*both(1.5), classifier)
    np.testing.assert_array_equal(same.real, again.real)
    np.testing.assert_array_equal(same.made, again.made)


def test_nobody_is_on_both_sides() -> None:
    asked = []

    def spy(train: Windows, is_made: Bool, test: Windows) -> Float64:
        assert len(train) == len(is_made) and is_made.sum() * 2 == len(train)
        (one,) = {*test.person.tolist()}
        assert one not in train.person
        asked.append(one)
        return np.full(len(test), float(one))

    real, made = both(1.5)
    scores = left_out_scores(real, made, spy)
    assert asked == [0, 1, 2, 3]
    np.testing.assert_array_equal(scores.real, real.person)
    np.testing.assert_array_equal(scores.made, made.person)
    # Scores that only say who it is tell nothing, though they differ between people.
    assert mean_auc(scores) == 0.5
    one = real.part(np.flatnonzero(real.person == 0))
    with pytest.raises(ValueError, match="two people"):
        left_out_scores(one, one, spy)


def test_area_under_the_curve() -> None:
    real = np.array([0.0, 1.0, 2.0])
    assert auc(real, np.array([3.0, 4.0])) == 1.0
    assert auc(real, np.array([-1.0])) == 0.0
    assert auc(real, np.array([1.0])) == 0.5  # a tie counts half
    assert auc(real, np.array([1.5, 0.5])) == pytest.approx(0.5)


def test_interval_of_chance_and_of_certainty() -> None:
    random = np.random.default_rng(0)
    who = np.repeat(np.arange(5), 40)
    chance = auc_interval(Scores(random.normal(size=200), random.normal(size=200), who, who))
    assert chance.low < 0.5 < chance.high and chance.high - chance.low < 0.3
    sure = auc_interval(Scores(random.random(200), random.random(200) + 1.0, who, who))
    assert (sure.low, sure.mean, sure.high) == (1.0, 1.0, 1.0)


def test_weights_of_a_known_model() -> None:
    random = np.random.default_rng(0)
    inputs = np.column_stack([random.normal(size=(4000, 2)), np.ones(4000)])
    odds = inputs @ [2.0, -1.0, 0.5]
    labels = (random.random(4000) < 1.0 / (1.0 + np.exp(-odds))).astype(float)
    with patch.object(classifiers, "STRENGTH", 1e-6):
        weights = logistic_weights(inputs, labels)
    np.testing.assert_allclose(weights, [2.0, -1.0, 0.5], atol=0.15)


def test_windows_stay_within_a_block() -> None:
    block = np.array([0] * 120 + [-1] * 5 + [0] * 49 + [1] * 50 + [-1] * 3)
    starts = list(window_starts(block))
    assert starts == [0, HOP, 2 * HOP, 174]
    assert all(len({*block[s : s + LENGTH].tolist()}) == 1 for s in starts)


def test_figures_are_of_the_right_lips() -> None:
    people = [person(0)]
    real = cut(people, lambda one: one.real)
    half = cut(people, lambda one: 0.5 * (one.real - one.real.mean(0)) + one.real.mean(0))
    whole, smaller = statistics(real), statistics(half)
    ratio = smaller["opening: range"] / whole["opening: range"]
    np.testing.assert_allclose(ratio, 0.5, rtol=1e-6)
    same = "opening: autocorrelation 0.08 s"
    np.testing.assert_allclose(whole[same], smaller[same], atol=1e-3)
    found = list(judging.telling_figures(real, half))
    assert abs(found[0][1] - 0.5) >= abs(found[-1][1] - 0.5)
    assert dict((name, value) for name, value, _ in found)["opening: range"] < 0.2
    assert all(np.isfinite(values).all() for values in whole.values())


def test_still_lips_have_finite_figures() -> None:
    still = cut([person(0)], lambda one: np.zeros_like(one.real))
    assert all(np.isfinite(values).all() for values in statistics(still).values())


def test_measures_are_those_of_the_correction_and_the_jaw() -> None:
    face = make_face()
    codes = np.random.default_rng(0).normal(size=(9, len(face.basis))).astype(np.float32)
    values = measured(face, codes)
    offset, slope = lip_measures(face)
    np.testing.assert_allclose(
        values[:, :2], offset + codes[:, : face.n_mouth] @ slope.T, rtol=1e-4
    )
    codes[:, face.n_mouth :] = 0.0
    chin = face.vertices(codes)[:, CHIN, 1]
    assert np.corrcoef(chin, values[:, 2])[0, 1] > 0.99


def test_trajectories_of_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "preview", SMALL)
    dataset = make_dataset(tmp_path / "head", n_frames=300)
    sound = np.random.default_rng(0).normal(0, 0.05, 300 * 640).astype(np.float32)
    settings = Settings(n_folds=2, seconds=11.0, cache=tmp_path)
    with patch.object(type(dataset), "waveform", sound):
        made, again = (
            trajectories(Clip(tmp_path / "head"), [MadeBy("x", System("mel"))], settings)
            for _ in range(2)
        )
    assert len(list(tmp_path.glob("made-*.safetensors"))) == 1
    assert made.person == "head" and {*made.made} == {"x, uncorrected", "x"}
    assert made.real.shape == made.made["x"].shape == (275, 3)
    assert made.sound.shape == (275, 1 + N_BANDS) and {*made.block.tolist()} <= {-1, 0, 1}
    np.testing.assert_array_equal(made.made["x"], again.made["x"])
    assert not np.array_equal(made.made["x"], made.made["x, uncorrected"])


def test_rows_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(judging, "N_DRAWS", 20)
    monkeypatch.setattr(classifiers, "N_STEPS", 5)
    monkeypatch.setattr(classifiers, "N_NETS", 1)
    people = iter([person(seed, 3.0, 400) for seed in range(3)])
    monkeypatch.setattr(real_or_made, "trajectories", lambda *_: next(people))
    real_or_made.main([*"abc", "--made", "a=mel"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    systems = [row for row in rows if "valid" in row]
    assert {row["made"] for row in systems} == {"a", "a, uncorrected"} and len(systems) == 4
    for row in systems:
        assert set(row["people"]) == {"0", "1", "2"}
        if "regression" in row["classifier"]:
            assert row["auc"]["mean"] > 0.9 and row["valid"]
    controls = {row["control"] for row in rows if "control" in row}
    assert len(controls) == 3
    assert len([row for row in rows if "figure" in row]) == 2 * real_or_made.N_FIGURES


def test_arguments() -> None:
    assert real_or_made.parse_made("new=a.safetensors,b.safetensors") == MadeBy(
        "new", System("a.safetensors", "b.safetensors")
    )
    with pytest.raises(argparse.ArgumentTypeError, match="NAME="):
        real_or_made.parse_made("pase")
