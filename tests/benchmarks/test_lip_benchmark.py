"""The benchmark of lips: features that are encoded, and how often."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from synthetic_head import make_dataset

from benchmarks import lips
from benchmarks.lips import Clip, Row, System
from talkhead.encoder.predictor.network import PRESETS, PredictorConfig
from talkhead.types import SAMPLE_RATE, Float32, SpeechFeatures

SMALL = PredictorConfig(width=8, layers=((3, 1),), n_members=2, n_steps=3, n_frames=10, n_masks=0)


@dataclass
class CountingEncoder:
    """Counts calls."""

    name: str = "encoder"
    sample_rate: int = SAMPLE_RATE
    rate: float = 50.0
    lookahead_s: float = 0.0
    dim: int = 3
    calls: Counter[bytes] = field(default_factory=Counter)

    def encode(self, waveform: Float32) -> SpeechFeatures:
        self.calls[waveform.tobytes()] += 1
        loud = np.abs(waveform[: len(waveform) // 320 * 320]).reshape(-1, 320).mean(1)
        return SpeechFeatures(np.stack([loud, loud**2, np.sqrt(loud)], 1), self.rate)


def test_seeds_share_features_that_do_not_depend_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(tmp_path, n_frames=150)
    sound = np.random.default_rng(0).normal(0, 0.05, 150 * 640).astype(np.float32)
    encoder = CountingEncoder()
    monkeypatch.setattr(lips, "ablation_encoder", lambda *_: encoder)
    monkeypatch.setitem(PRESETS, "preview", SMALL)
    block = lips.held_out_block(dataset)
    with patch.object(type(dataset), "waveform", sound):
        judged, _ = lips.judge(dataset, Clip(tmp_path), [block], [System("a")], "preview", 3)
        (plain,) = lips.footages(dataset, [block], encoder)
        (whole,) = lips.footages(dataset, [block], encoder, 1)
    # In each call, the original audio is encoded once for all seeds, augmented audio for each seed.
    assert sorted(encoder.calls.values()) == [1] * 8 + [2] * 4 + [3]
    np.testing.assert_array_equal(plain.features.values, whole.features.values)
    assert len(whole.augmented) == 4
    assert judged.of(System("a")).shape == (3, len(block.frames))
    assert Row("ridge", System("a")) in judged.errors
