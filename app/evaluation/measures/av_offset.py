"""A clip's own audio-video offset, found by means that know nothing of each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from talkhead.app.evaluation.measures.image import has_face
from talkhead.app.evaluation.measures.phonemes import opening_evidence
from talkhead.app.evaluation.measures.sync_model import SyncModel
from talkhead.app.evaluation.results import OffsetEvidence, OffsetMetrics
from talkhead.encoder.phones import Phone
from talkhead.face import lip_aperture
from talkhead.preprocess.av_sync import LIPS_LEAD_MS, MAX_LAG, lip_measures, measure_offset
from talkhead.types import FRAME_RATE, Bool, Float32

AGREE_MS = 1000.0 / FRAME_RATE


def clip_offset(
    waveform: Float32,
    landmarks: Float32,
    phones: list[Phone] | None,
    judge: SyncModel | None,
    corrected_ms: float = 0.0,
) -> OffsetMetrics:
    """How late a clip's sound is, by its energies, its phones and the judge.

    waveform: 16 kHz, from the first frame on. landmarks: [F, 478, 2] px, NaN without a face. phones:
    None leaves their means out, as does a missing judge. corrected_ms: by how much the waveform was
    shifted already.
    """
    seen = has_face(landmarks)
    evidence = [_by_energies(waveform, landmarks, seen)]
    if phones is not None:
        evidence.append(opening_evidence(phones, lip_aperture(landmarks)))
    if judge is not None:
        evidence.append(judge.evidence(waveform, np.nan_to_num(landmarks), seen))
    return OffsetMetrics(tuple(evidence), agreement(evidence), corrected_ms)


def agreement(evidence: Sequence[OffsetEvidence]) -> bool | None:
    """Whether all means that are sure lie within one frame; None with fewer than two."""
    offsets = [one.offset_ms for one in evidence if one.offset_ms is not None]
    return max(offsets) - min(offsets) <= AGREE_MS if len(offsets) > 1 else None


def _by_energies(waveform: Float32, landmarks: Float32, seen: Bool) -> OffsetEvidence:
    """What preprocessing goes by: a ridge regression from mel energies to lips, lag by lag."""
    found = measure_offset(waveform, np.nan_to_num(lip_measures(landmarks)), seen)
    frame_ms = 1000.0 / FRAME_RATE
    lags = [lag * frame_ms - LIPS_LEAD_MS for lag in range(-MAX_LAG, MAX_LAG + 1)]
    best = max(found.scores)
    return OffsetEvidence(
        "energies to lips, by ridge regression",
        found.offset_ms,
        best,
        found.control,
        lags,
        list(found.scores),
    )
