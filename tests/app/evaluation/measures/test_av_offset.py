"""A/V offset of a clip by several methods, and whether they agree."""

from __future__ import annotations

import numpy as np
import pytest

from talkhead.app.evaluation.measures.av_offset import agreement, clip_offset
from talkhead.app.evaluation.results import OffsetEvidence
from talkhead.face import INNER_LIPS, LIPS, OUTER_EYE_CORNERS
from talkhead.types import Float32

SECONDS, LATE_MS = 40, 200.0


def evidence(offset_ms: float | None) -> OffsetEvidence:
    return OffsetEvidence("method", offset_ms, 1.0, 0.5, [], [])


@pytest.mark.parametrize(
    ("offsets", "agree"),
    [
        ((10.0, 45.0), True),
        ((10.0, 60.0), False),
        ((10.0, None), None),
        ((None, None), None),
        ((-20.0, None, 15.0), True),
    ],
)
def test_methods_agree_within_a_frame(offsets, agree) -> None:  # type: ignore[no-untyped-def]
    assert agreement([evidence(offset) for offset in offsets]) is agree


def talking() -> tuple[Float32, Float32]:
    """Audio that is LATE_MS late, and lips whose opening its loudness follows."""
    rng = np.random.default_rng(0)
    n_frames = SECONDS * 25
    opening = np.convolve(rng.random(n_frames + 20), np.ones(5) / 5, "same")[:n_frames]
    opening = (opening - opening.min()) / np.ptp(opening)
    face = rng.uniform(40, 160, (478, 2))
    face[list(LIPS), 1] = 140
    face[list(OUTER_EYE_CORNERS)] = [[60, 60], [140, 60]]
    points = np.tile(face, (n_frames, 1, 1))
    lower = list(INNER_LIPS[:10])
    points[:, [*lower, 17], 1] += 20 * opening[:, None]
    points[:, [61, 291], 0] += np.outer(opening, [6, -6])
    times = np.arange(n_frames * 640) / 16_000 - (LATE_MS + 30) / 1000
    level = np.interp(times * 25, np.arange(n_frames), opening) ** 2
    return (level * rng.standard_normal(len(level))).astype(np.float32), points.astype(np.float32)


def test_energies_find_a_known_offset_and_other_methods_are_omitted() -> None:
    waveform, landmarks = talking()
    landmarks[100:110] = np.nan  # frames without a face
    found = clip_offset(waveform, landmarks, None, None, corrected_ms=40.0)
    assert len(found.evidence) == 1 and found.agree is None and found.corrected_ms == 40.0
    (energies,) = found.evidence
    assert energies.offset_ms == pytest.approx(LATE_MS, abs=25)
    assert energies.score > energies.control
    assert len(energies.lags_ms) == len(energies.scores) == 21
    assert energies.lags_ms[10] == pytest.approx(-30)
