"""The audio-video offset of synthetic clips whose offset is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from talkhead.preprocess.av_sync import (
    LIPS_LEAD_MS,
    MIN_SECONDS,
    measure_offset,
    peak_index,
    shift_waveform,
)
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32

SECONDS = 30
HOP = SAMPLE_RATE // FRAME_RATE


def make_clip(late_ms: float, seed: int = 0, seconds: float = SECONDS) -> tuple[Float32, Float32]:
    """Audio that is `late_ms` late, and lips [F, 3] whose opening determines its loudness."""
    rng = np.random.default_rng(seed)
    n_frames = round(seconds * FRAME_RATE)
    opening = gaussian_filter1d(rng.normal(size=n_frames + 100), 2.0)
    opening = (opening - opening.mean()) / opening.std()
    times = np.arange(n_frames * HOP) / SAMPLE_RATE - (late_ms + LIPS_LEAD_MS) / 1000.0
    loudness = np.interp(times * FRAME_RATE + 50, np.arange(n_frames + 100), opening)
    waveform = 0.05 * rng.normal(size=len(times)) * np.exp(0.8 * loudness)
    mine = opening[50 : 50 + n_frames]
    noise = rng.normal(size=(n_frames, 3)) * np.array([0.3, 0.5, 0.4])
    lips = np.stack([mine, -0.3 * mine, 0.8 * mine], axis=1) + noise
    return waveform.astype(np.float32), lips.astype(np.float32)


def everything(lips: Float32) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.ones(len(lips), dtype=bool)


@pytest.mark.parametrize("late_ms", [-320, -200, -60, 0, 40, 120, 235, 330])
def test_known_offsets_are_found(late_ms: int) -> None:
    waveform, lips = make_clip(late_ms, seed=late_ms % 7)
    found = measure_offset(waveform, lips, everything(lips))
    assert found.offset_ms is not None
    assert found.offset_ms == pytest.approx(late_ms, abs=20)
    assert len(found.scores) == 21 and max(found.scores) > found.control


def test_correction_of_offsets() -> None:
    """An offset is corrected as measured; one below a frame is not corrected."""
    waveform, lips = make_clip(235)
    found = measure_offset(waveform, lips, everything(lips))
    assert found.offset_ms is not None and found.corrected_ms == found.offset_ms
    waveform, lips = make_clip(10)
    found = measure_offset(waveform, lips, everything(lips))
    assert found.offset_ms is not None and found.corrected_ms == 0.0


def test_correction_synchronizes_a_clip() -> None:
    waveform, lips = make_clip(180)
    first = measure_offset(waveform, lips, everything(lips))
    again = measure_offset(shift_waveform(waveform, first.corrected_ms), lips, everything(lips))
    assert again.offset_ms is not None and abs(again.offset_ms) < 20


@pytest.mark.parametrize("seed", range(4))
def test_other_audio_gives_no_offset(seed: int) -> None:
    _, lips = make_clip(0, seed)
    waveform, _ = make_clip(0, seed + 100)
    found = measure_offset(waveform, lips, everything(lips))
    assert found.offset_ms is None and found.corrected_ms == 0.0


def test_lips_in_another_order_give_no_offset() -> None:
    """One-second pieces of the lips are shuffled, so that audio and lips are unrelated."""
    waveform, lips = make_clip(0)
    order = np.random.default_rng(0).permutation(SECONDS)
    shuffled = lips.reshape(SECONDS, FRAME_RATE, 3)[order].reshape(-1, 3)
    assert measure_offset(waveform, shuffled, everything(lips)).offset_ms is None


def test_silence_gives_no_offset() -> None:
    waveform, lips = make_clip(0)
    found = measure_offset(np.zeros_like(waveform), lips, everything(lips))
    assert found.offset_ms is None and np.isfinite(found.scores).all()


def test_an_offset_beyond_the_range_is_not_reported() -> None:
    waveform, lips = make_clip(900)
    assert measure_offset(waveform, lips, everything(lips)).offset_ms is None


def test_a_short_clip_is_not_corrected() -> None:
    waveform, lips = make_clip(200, seconds=MIN_SECONDS - 2)
    found = measure_offset(waveform, lips, everything(lips))
    assert found.offset_ms is None and found.corrected_ms == 0.0


def test_unusable_frames_don_t_count() -> None:
    waveform, lips = make_clip(120)
    usable = everything(lips)
    usable[200:420] = False
    spoilt = lips.copy()
    spoilt[~usable] = 1e4
    found = measure_offset(waveform, spoilt, usable)
    assert found.offset_ms == pytest.approx(120, abs=20)
    assert found == measure_offset(waveform, np.where(usable[:, None], lips, -7.0), usable)


def test_almost_no_usable_frames() -> None:
    waveform, lips = make_clip(0)
    usable = ~everything(lips)
    usable[100:130] = True
    assert measure_offset(waveform, lips, usable).offset_ms is None


def test_sound_shorter_than_the_picture() -> None:
    waveform, lips = make_clip(80)
    found = measure_offset(waveform[: len(waveform) * 3 // 4], lips, everything(lips))
    assert np.isfinite(found.scores).all()


@pytest.mark.parametrize("late_ms", [0.0, 100.0, 235.0, -100.0, 0.0625])
def test_shift_waveform(late_ms: float) -> None:
    waveform = np.arange(1, 16_001, dtype=np.float32)
    n = round(late_ms * 16)
    shifted = shift_waveform(waveform, late_ms)
    assert shifted.dtype == np.float32 and len(shifted) == len(waveform)
    if n >= 0:
        assert np.array_equal(shifted[: len(shifted) - n], waveform[n:])
        assert not shifted[len(shifted) - n :].any()
    else:
        assert np.array_equal(shifted[-n:], waveform[:n]) and not shifted[:-n].any()


@pytest.mark.parametrize("late_ms", [5000.0, -5000.0])
def test_shift_by_more_than_the_length(late_ms: float) -> None:
    shifted = shift_waveform(np.ones(1000, np.float32), late_ms)
    assert len(shifted) == 1000 and not shifted.any()


def test_a_peak_is_refined_by_a_parabola() -> None:
    places = np.arange(31.0)
    assert peak_index(1 - (places - 18.3) ** 2 / 400) == pytest.approx(18.3)
    assert peak_index(places) is None and peak_index(-places) is None
    assert peak_index(np.zeros(31)) is None and peak_index(np.full(31, np.nan)) is None
    beside = np.where(places == 17, np.nan, 1 - (places - 18) ** 2 / 400)
    assert peak_index(beside) == 18
