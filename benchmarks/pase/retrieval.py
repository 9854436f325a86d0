"""Retrieval of the audio that belongs to lips, among copies of it shifted earlier or later.

Windows of a second of lips are compared with the audio at every offset within MAX_LAG frames: a
window is correct if the true offset scores highest. Chance is 1 in 31; within a frame of it, 3 in
31.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.pase.phones import share_over_groups
from benchmarks.pase.subjects import Embeds
from talkhead.app.training.tracked_video import (
    find_takes,
    read_mouths,
    steady_template,
    track_video,
)
from talkhead.encoder.base import normalize_level
from talkhead.encoder.pase.corpus import SAMPLES_PER_FRAME, SPLITS, CorpusShard
from talkhead.progress import SilentProgress
from talkhead.types import FRAME_RATE, Float32, Float64, Int, UInt8

MAX_LAG = 15
WINDOW = FRAME_RATE
STRIDE = 5
GROUP = 5 * FRAME_RATE
"""Windows that begin within this many frames of each other are resampled together."""


class Variant(NamedTuple):
    """A stretch with a face: name, waveform [n_samples] beginning at its first frame, lips [F, h, w]."""

    name: str
    waveform: Float32
    lips: UInt8


def shard_takes(shard: CorpusShard, split: str) -> list[Variant]:
    """Utterances of a shard's split. Raises ValueError for a shard without lips."""
    if not shard.has_lips:
        raise ValueError(f"{shard.source} has no lips")
    found = []
    for index in np.flatnonzero(shard.splits == SPLITS.index(split)):
        first, stop = shard.starts[index : index + 2]
        samples = shard.waveform[first * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME]
        waveform = normalize_level(samples.astype(np.float32) / np.float32(32767.0))
        found.append(Variant(str(index), waveform, shard.lips[first:stop]))
    return found


def video_takes(video: Path, cache: Path, late_ms: float = 0.0) -> list[Variant]:
    """Stretches of a video with a face. late_ms: milliseconds by which its audio is late."""
    footage = track_video(video, cache, SilentProgress(), late_ms)
    mouths = read_mouths(video, footage, steady_template(), SilentProgress())
    sound = normalize_level(footage.waveform)
    return [
        Variant(
            f"{video.stem} {start}",
            sound[start * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME],
            mouths.lips[start:stop],
        )
        for start, stop in find_takes(footage.seen, [0], WINDOW + 2 * MAX_LAG)
    ]


def window_lags(visual: Float32, audio: Float32) -> tuple[Int, Int]:
    """Lag in frames at which each window's lips [F, E] match the audio [F, E] best, positive for late
    audio, and the windows' first frames; windows have audio at every lag.
    """
    n_frames = min(len(visual), len(audio))
    starts = np.arange(MAX_LAG, n_frames - WINDOW - MAX_LAG + 1, STRIDE)
    if not len(starts):
        return np.zeros(0, np.int64), starts
    lags = np.arange(-MAX_LAG, MAX_LAG + 1)
    scores = np.stack(
        [_window_scores(visual, audio, n_frames, lag)[starts] for lag in lags], axis=1
    )
    return lags[scores.argmax(1)], starts


def _window_scores(visual: Float32, audio: Float32, n_frames: int, lag: int) -> Float64:
    """Mean product over the window that begins at each frame, [n_frames - WINDOW + 1]."""
    products = np.full(n_frames, -np.inf)
    first, stop = max(0, -lag), n_frames - max(0, lag)
    pairs = visual[first:stop].astype(np.float64) * audio[first + lag : stop + lag]
    products[first:stop] = pairs.sum(1)
    return np.asarray(sliding_window_view(products, WINDOW).mean(1))


def retrieval(data: str, takes: Sequence[Variant], embeds: Embeds) -> Iterator[dict[str, Any]]:
    """Make one row: shares of windows whose best offset is the true one, and within a frame of it."""
    lags: list[int] = []
    groups: list[str] = []
    for take in takes:
        visual = embeds.lip_embedding(take.lips.astype(np.float32) / np.float32(255.0))
        found, starts = window_lags(visual, embeds.audio_embedding(take.waveform))
        lags += found.tolist()
        groups += [f"{take.name} {start // GROUP}" for start in starts]
    row: dict[str, Any] = {"benchmark": "retrieval", "data": data, "encoder": embeds.name}
    ones = [1.0] * len(lags)
    for name, reach in (("exact", 0), ("within_a_frame", 1)):
        right = [float(abs(lag) <= reach) for lag in lags]
        row[name] = asdict(share_over_groups(right, ones, groups))
    yield {**row, "n_windows": len(lags), "median_lag": float(np.median(lags))}
