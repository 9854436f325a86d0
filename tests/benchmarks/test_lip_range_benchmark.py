"""The benchmark of the lips' range: its figures, and a run on the synthetic head."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from scipy.io import wavfile
from synthetic_head import make_dataset

from benchmarks import lip_range
from benchmarks.lip_range import Motion
from benchmarks.lips import Clip, System
from talkhead.encoder.predictor.network import PRESETS, PredictorConfig
from talkhead.encoder.registry import load_encoder
from talkhead.face import INNER_LIPS, OUTER_EYE_CORNERS, FaceModel
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32

SMALL = PredictorConfig(width=8, layers=((3, 1),), n_members=2, n_steps=3, n_frames=10, n_masks=0)


def two_codes() -> FaceModel:
    """A face whose first code opens the mouth and whose second one widens it."""
    template = np.zeros((478, 3), np.float32)
    template[list(OUTER_EYE_CORNERS), 0] = [-0.5, 0.5]
    template[list(INNER_LIPS[1:10]), 1] = 0.1
    basis = np.zeros((8, 478, 3), np.float32)
    basis[0, list(INNER_LIPS[1:10]), 1] = 0.05
    basis[1, [61, 291], 0] = [-0.02, 0.02]
    return FaceModel(template, basis, 2, np.zeros((0, 3), np.int64), np.zeros(8, np.float32))


def motion(codes: Float32, n_silent: int = 0) -> Motion:
    silent = np.arange(len(codes)) < n_silent
    return Motion.of(two_codes(), np.pad(codes, ((0, 0), (0, 6))), silent)


def test_motion_that_is_half_as_large() -> None:
    codes = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    own = motion(codes)
    same = own.figures(own)
    for name in ("range", "width", "openings", "speed", "jitter"):
        assert same[name] == pytest.approx(1.0)
    assert (
        same["closed"] == same["own_closed"] == pytest.approx((codes[:, 0] < -1.6).mean(), abs=0.02)
    )
    half = motion(codes * np.float32(0.5)).figures(own)
    for name, expected in (("range", 0.5), ("width", 0.5), ("speed", 0.5), ("jitter", 0.25)):
        assert half[name] == pytest.approx(expected, rel=1e-3)
    assert half["closed"] < 0.2 * half["own_closed"] and half["openings"] < 0.8


def test_openings_are_counted_in_speech() -> None:
    """A wave of 2 Hz, over a range that counts, opens the mouth twice a second."""
    times = np.arange(250) / FRAME_RATE
    codes = np.stack([np.sin(2.0 * np.pi * 2.0 * times), np.sin(times)], 1).astype(np.float32)
    assert motion(codes).figures(motion(codes))["own_openings_per_s"] == pytest.approx(
        2.0, abs=0.15
    )
    silent = motion(codes, n_silent=125).figures(motion(codes))
    assert silent["openings"] == pytest.approx(1.0, abs=0.15)
    still = codes.copy()
    still[:, 0] *= 0.2  # never below the lower limit
    assert motion(still).figures(motion(codes))["openings"] == 0.0


def test_silence_is_averaged_by_its_frames() -> None:
    row = motion(np.random.default_rng(0).normal(size=(99, 2)).astype(np.float32))
    figures = row.figures(row)
    rows = [
        {**figures, "silence": 0.2, "n_silent": 30, "range": 0.8},
        {**figures, "silence": 0.6, "n_silent": 10, "range": 1.0},
        {**figures, "silence": np.nan, "n_silent": 3, "range": 1.2},
    ]
    mean = lip_range.mean_figures(rows)
    assert mean["silence"] == pytest.approx(0.3) and mean["n_silent"] == 40
    assert mean["range"] == pytest.approx(1.0)
    assert mean["range_deviation"] == pytest.approx(np.std([0.8, 1.0, 1.2]))


def test_a_clip_with_and_without_the_correction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    for name in ("a.wav", "b.wav"):
        sound = random.normal(0, 3000, 3 * SAMPLE_RATE).astype(np.int16)
        wavfile.write(tmp_path / name, SAMPLE_RATE, sound)
    monkeypatch.setitem(PRESETS, "preview", SMALL)
    dataset = make_dataset(tmp_path / "head", n_frames=200)
    encoder = load_encoder("mel")
    found = list(lip_range.read_recordings([tmp_path], encoder))
    assert [one.name for one in found] == ["a", "b"]
    recordings = [replace_silence(one) for one in found]
    sound = random.normal(0, 0.05, 200 * 640).astype(np.float32)
    with patch.object(type(dataset), "waveform", sound):
        rows = list(
            lip_range.measure(Clip(tmp_path / "head"), System("mel"), recordings, "preview")
        )
    own = [row for row in rows if "own recording" in row]
    assert [row["own recording"] for row in own] == ["as predicted", "corrected"]
    assert all(row["lmd_px"] for row in own)
    means = {row["other recordings"]: row for row in rows if "other recordings" in row}
    assert means["corrected"]["n"] == 2
    files = [row for row in rows if row.get("other recording") == "corrected"]
    assert [row["file"] for row in files] == ["a", "b"]
    # After three steps of training, predictions hardly move.
    assert means["as predicted"]["range"] < 0.5 * means["corrected"]["range"]


def replace_silence(one: lip_range.Recording) -> lip_range.Recording:
    """Mark noise as speech, although it is not detected as speech."""
    return one._replace(silent=np.zeros(len(one.silent), dtype=bool))
