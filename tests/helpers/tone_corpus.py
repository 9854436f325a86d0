"""A corpus in a language of four phones, each a tone."""

from __future__ import annotations

import numpy as np

from talkhead.encoder.pase.corpus import (
    LIPS_HEIGHT,
    LIPS_WIDTH,
    CorpusShard,
    Utterance,
    make_shard,
)
from talkhead.encoder.phones import Phone

TONES = {"AA": 500.0, "IY": 1500.0, "P": 3000.0, "SIL": 0.0}
"""A language of four phones, each a tone."""


def tone_utterance(random: np.random.Generator, split: str, sees: bool) -> Utterance:
    phones, parts, at = [], [], 0.0
    for label in random.choice(list(TONES), 20):
        seconds = float(random.integers(4, 9)) * 0.02
        times = np.arange(round(seconds * 16_000)) / 16_000
        parts.append(0.1 * np.sin(2 * np.pi * TONES[label] * times))
        phones.append(Phone(str(label), at, at + seconds))
        at += seconds
    waveform = np.concatenate(parts).astype(np.float32)
    n_frames = -(-len(waveform) // 640)
    moments = np.arange(n_frames) * 0.04
    opening = np.array(
        [any(p.label == "AA" and p.start_s <= s < p.end_s for p in phones) for s in moments]
    )
    lips = np.full((n_frames, LIPS_HEIGHT, LIPS_WIDTH), 180, np.uint8)
    lips[:, 10:22, 10:38] -= (opening[:, None, None] * 120).astype(np.uint8)
    mouth = np.zeros((n_frames, 3, 2), np.float32)
    mouth[:, 0, 1] = opening * 0.1
    seen = {"lips": lips, "mouth": mouth} if sees else {}
    return Utterance(waveform, tuple(phones), "one", split, **seen)


def tone_shard(n: int, sees: bool, seed: int = 0, split: str = "train") -> CorpusShard:
    random = np.random.default_rng(seed)
    utterances = [tone_utterance(random, split, sees) for _ in range(n)]
    return make_shard(utterances, source="tones", licence="CC0", attribution="us", shippable=True)
