"""The phoneme measures on lips that move by known rules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from talkhead.app.evaluation.measures.phonemes import (
    BILABIALS,
    CLOSED,
    LIPS_LEAD_S,
    MIN_EVIDENCE,
    MIN_OPENING,
    MIN_SEGMENTS,
    MOUTH_CORNERS,
    OPEN_VOWELS,
    opening_evidence,
    phoneme_results,
    viseme_table,
)
from talkhead.encoder.phones import PHONES, SILENCE, VISEME_OF, Phone
from talkhead.face import INNER_LIPS, LIPS, N_LANDMARKS, OUTER_EYE_CORNERS, OUTER_LIPS
from talkhead.types import FRAME_RATE, Float64

OPENINGS = {"M": 0.004, "AA": 0.1, "T": 0.05, SILENCE: 0.03}


def speech(n_syllables: int, seed: int = 0) -> list[Phone]:
    """Phones in random order and of random length, about n_syllables of M and of AA each."""
    rng = np.random.default_rng(seed)
    rest = ["M", "AA", "T", "T"] * n_syllables
    labels = [SILENCE, *rng.permutation(rest).tolist()]
    ends = np.cumsum(rng.uniform(0.08, 0.25, len(labels)))
    starts = np.concatenate([[0.0], ends[:-1]])
    return [Phone(*known) for known in zip(labels, starts.tolist(), ends.tolist(), strict=True)]


def lips(phones: list[Phone], openings: dict[str, float] = OPENINGS, lag_s: float = 0.0) -> Float64:
    """Apertures that jump from phone to phone, LIPS_LEAD_S before the sound and lag_s after that."""
    n_frames = int(np.ceil(phones[-1].end_s * FRAME_RATE)) + 1
    moments = np.arange(n_frames) / FRAME_RATE + LIPS_LEAD_S - lag_s
    index = np.searchsorted([p.start_s for p in phones], moments, side="right") - 1
    return np.array([openings[phones[max(0, i)].label] for i in index])


def steady(phones: list[Phone], openings: dict[str, float]) -> Float64:
    """Apertures that keep each M's and AA's value half way into its neighbors."""
    n_frames = int(np.ceil(phones[-1].end_s * FRAME_RATE)) + 1
    marked = [p for p in phones if p.label in ("M", "AA")]
    middles = np.array([(p.start_s + p.end_s) / 2 - LIPS_LEAD_S for p in marked])
    nearest = np.abs(np.arange(n_frames)[:, None] / FRAME_RATE - middles).argmin(1)
    return np.array([openings[marked[i].label] for i in nearest])


def shifted(phones: list[Phone], by_s: float) -> list[Phone]:
    return [replace(p, start_s=p.start_s + by_s, end_s=p.end_s + by_s) for p in phones]


def even(n_syllables: int) -> list[Phone]:
    """T M T AA ..., each 0.2 s long."""
    labels = ["T", "M", "T", "AA"] * n_syllables
    return [Phone(label, 0.2 * i, 0.2 * (i + 1)) for i, label in enumerate(labels)]


# ------------------------------------------------------------------------------- results


def test_the_labels_are_phones() -> None:
    assert set(PHONES) >= OPEN_VOWELS | BILABIALS
    assert {VISEME_OF[p] for p in BILABIALS} == {"P"}


def test_ratio_and_closures_of_known_lips() -> None:
    phones = even(12)
    results = phoneme_results(phones, steady(phones, {"M": 0.016, "AA": 0.12}))
    assert (results.n_vowels, results.n_bilabials) == (12, 12)
    assert results.opening_ratio == pytest.approx(0.12 / 0.016)
    assert results.closure_rate == 1.0


def test_perfectly_closed_lips_give_a_finite_ratio() -> None:
    phones = even(12)
    results = phoneme_results(phones, steady(phones, {"M": 0.0, "AA": 0.12}))
    assert results.opening_ratio == pytest.approx(0.12 / MIN_OPENING)


def test_lips_that_never_close() -> None:
    phones = even(12)
    results = phoneme_results(phones, steady(phones, {"M": 1.01 * CLOSED, "AA": 0.12}))
    assert results.closure_rate == results.closure_chance == 0.0


def test_lips_that_are_always_closed() -> None:
    results = phoneme_results(even(12), np.full(240, 0.01))
    assert results.closure_rate == results.closure_chance == 1.0
    assert results.opening_ratio == pytest.approx(1.0)


def test_chance_is_the_share_of_windows_with_a_closure() -> None:
    """Closures of one frame every 20 frames: of the windows of 7 frames, 7 in 20 contain one."""
    phones = even(24)  # phones of 5 frames, and one more on each side
    aperture = np.full(480, 0.1)
    aperture[::20] = 0.0
    results = phoneme_results(phones, aperture)
    assert results.closure_chance == pytest.approx(7 / 20, abs=0.01)


def test_closures_count_one_by_one() -> None:
    phones = even(20)
    aperture = steady(phones, {"M": 0.01, "AA": 0.12})
    for i, phone in enumerate(p for p in phones if p.label == "M"):
        if i % 4 == 0:
            near = slice(round(phone.start_s * 25) - 3, round(phone.end_s * 25) + 3)
            aperture[near] = 0.05
    results = phoneme_results(phones, aperture)
    assert results.closure_rate == 0.75
    assert results.opening_ratio == pytest.approx(0.12 / (0.75 * 0.01 + 0.25 * 0.05), rel=0.03)


def test_too_few_segments_give_no_value() -> None:
    phones = even(MIN_SEGMENTS - 1)
    results = phoneme_results(phones, steady(phones, {"M": 0.01, "AA": 0.12}))
    assert results.n_bilabials == MIN_SEGMENTS - 1
    assert results.opening_ratio is results.closure_rate is results.closure_chance is None
    only_m = [p for p in even(12) if p.label != "AA"]
    results = phoneme_results(only_m, np.full(240, 0.01))
    assert results.opening_ratio is None
    assert results.closure_rate == 1.0


def test_no_phones_and_no_frames() -> None:
    for phones, aperture in (([], np.zeros(100)), (even(12), np.zeros(0)), ([], np.zeros(0))):
        assert phoneme_results(phones, aperture).opening_ratio is None
        assert opening_evidence(phones, aperture).offset_ms is None


def test_frames_without_a_face_are_ignored() -> None:
    phones = even(20)
    aperture = steady(phones, {"M": 0.016, "AA": 0.12})
    spoilt = aperture.copy()
    spoilt[100:180], spoilt[250] = np.nan, np.nan
    results = phoneme_results(phones, spoilt)
    assert results.opening_ratio == pytest.approx(0.12 / 0.016)
    assert results.n_bilabials == 16
    assert results.closure_rate == 1.0
    assert phoneme_results(phones, np.full(400, np.nan)).n_bilabials == 0


# --------------------------------------------------------------------------------- offset


@pytest.mark.parametrize("lag", [-6, -3, 0, 3, 6])
def test_the_lag_of_the_audio_is_found(lag: int) -> None:
    phones = speech(40)
    evidence = opening_evidence(shifted(phones, lag * 0.04), lips(phones))
    assert evidence.offset_ms == pytest.approx(lag * 40.0, abs=15.0)
    assert evidence.score > 5.0
    assert evidence.score > 2.0 * evidence.control


def test_offsets_are_finer_than_frames() -> None:
    phones = speech(150)
    base = opening_evidence(phones, lips(phones)).offset_ms
    later = opening_evidence(shifted(phones, 0.017), lips(phones)).offset_ms
    assert base is not None
    assert later is not None
    assert later - base == pytest.approx(17.0, abs=5.0)


def test_scores_contain_the_opening_ratio() -> None:
    phones = speech(40)
    evidence = opening_evidence(phones, lips(phones))
    ratio = phoneme_results(phones, lips(phones)).opening_ratio
    assert evidence.scores[evidence.lags_ms.index(0.0)] == ratio
    assert len(evidence.scores) == len(evidence.lags_ms) == 81
    assert evidence.lags_ms[0] == pytest.approx(-400.0)


@pytest.mark.parametrize("seed", range(4))
def test_other_speech_gives_no_offset(seed: int) -> None:
    phones, other = speech(40), speech(40, seed + 1)
    assert opening_evidence(other, lips(phones)).offset_ms is None


def test_shuffled_phones_give_no_offset() -> None:
    phones = speech(40)
    labels = np.random.default_rng(3).permutation([p.label for p in phones])
    mixed = [replace(p, label=str(label)) for p, label in zip(phones, labels, strict=True)]
    assert opening_evidence(mixed, lips(phones)).offset_ms is None


def test_too_few_phones_give_no_offset() -> None:
    phones = speech(MIN_EVIDENCE - 1, 1)
    assert opening_evidence(phones, lips(phones)).offset_ms is None


def test_lips_that_do_not_move_give_no_offset() -> None:
    evidence = opening_evidence(speech(40), np.full(800, 0.05))
    assert evidence.offset_ms is None
    assert evidence.score == pytest.approx(1.0)


def test_a_lag_beyond_the_range_is_not_guessed() -> None:
    phones = speech(40)
    assert opening_evidence(shifted(phones, 1.0), lips(phones)).offset_ms is None


# -------------------------------------------------------------------------------- visemes


def face(aperture: float, width: float) -> Float64:
    """Landmarks [478, 2] px, eyes 100 px apart, inner lips open by aperture * 100 px."""
    points = np.zeros((N_LANDMARKS, 2))
    points[OUTER_EYE_CORNERS[0]], points[OUTER_EYE_CORNERS[1]] = (100.0, 100.0), (200.0, 100.0)
    for ring, height in ((OUTER_LIPS, aperture + 0.2), (INNER_LIPS, aperture)):
        for k, point in enumerate(ring):
            angle = np.pi - 2.0 * np.pi * k / len(ring)
            x, y = np.cos(angle) * width * 50.0, np.sign(np.sin(angle)) * height * 50.0
            points[point] = (150.0 + x, 180.0 + (y if abs(np.sin(angle)) > 0.1 else 0.0))
    return points


def clip(phones: list[Phone], aperture: dict[str, float]) -> Float64:
    """Landmarks [F, 478, 2] of a mouth that opens by the phone."""
    return np.stack([face(a, 0.5) for a in lips(phones, aperture)])


def test_visemes_of_a_known_face() -> None:
    phones = even(6)
    real = clip(phones, {"M": 0.0, "AA": 0.3, "T": 0.1})
    made = clip(phones, {"M": 0.05, "AA": 0.2, "T": 0.1})
    rows = {row.viseme: row for row in viseme_table(phones, real, made, np.ones(len(real), bool))}
    assert list(rows) == ["P", "T", "AA"]  # in the order of the map
    assert [rows[v].n_frames for v in ("P", "T", "AA")] == [30, 60, 30]
    assert rows["P"].real_aperture == pytest.approx(0.0, abs=0.02)
    assert rows["P"].made_aperture == pytest.approx(0.05)
    assert rows["AA"].real_aperture == pytest.approx(0.3)
    assert rows["AA"].real_width == rows["AA"].made_width == pytest.approx(0.5)
    assert rows["T"].distance == pytest.approx(0.0, abs=1e-9)
    # 38 of the 40 points are above or below the corners, each half the difference off.
    moved = sum(abs(np.sin(np.pi - 2 * np.pi * k / 20)) > 0.1 for k in range(20)) * 2
    assert rows["AA"].distance == pytest.approx(0.05 * moved / 40)


def test_mean_shapes_are_centered_and_level() -> None:
    phones = even(3)
    real = clip(phones, {"M": 0.0, "AA": 0.3, "T": 0.1})
    turn = 1.7 * np.array([[0.8, 0.6], [-0.6, 0.8]])  # turned, larger and elsewhere
    rows = viseme_table(phones, real, real @ turn + [40.0, -7.0], np.ones(len(real), bool))
    for row in rows:
        shape = np.array(row.real_shape)
        assert shape.shape == (len(LIPS), 2)
        assert shape.mean(0) == pytest.approx([0.0, 0.0], abs=1e-9)
        left, right = (shape[LIPS.index(corner)] for corner in MOUTH_CORNERS)
        assert right - left == pytest.approx([0.5, 0.0], abs=1e-9)
        top, bottom = (shape[LIPS.index(point)] for point in (0, 17))
        assert top[1] < bottom[1]
        assert np.array(row.made_shape) == pytest.approx(shape, abs=1e-9)
        assert row.distance == pytest.approx(0.0, abs=1e-9)
        assert row.made_aperture == pytest.approx(row.real_aperture, abs=1e-9)


def test_frames_without_a_face_have_no_row() -> None:
    phones = even(6)
    real = clip(phones, {"M": 0.0, "AA": 0.3, "T": 0.1})
    tracked = lips(phones, {"M": 0.0, "AA": 1.0, "T": 1.0}) > 0.5  # all but M
    real[~tracked] = np.nan
    rows = viseme_table(phones, real, real, tracked)
    assert [row.viseme for row in rows] == ["T", "AA"]
    assert np.isfinite([value for row in rows for value in (row.real_aperture, row.distance)]).all()
    assert viseme_table(phones, real, real, np.zeros(len(real), bool)) == ()
