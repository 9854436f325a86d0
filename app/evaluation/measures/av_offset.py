"""A/V offset of a clip, estimated by independent methods."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from talkhead.app.evaluation.measures.image import has_face
from talkhead.app.evaluation.measures.phonemes import opening_evidence
from talkhead.app.evaluation.measures.sync_model import SyncModel
from talkhead.app.evaluation.results import OffsetEvidence, OffsetResults
from talkhead.encoder.phones import Phone
from talkhead.face import lip_aperture
from talkhead.preprocess.av_sync import LIPS_LEAD_MS, MAX_LAG, lip_measures, measure_offset
from talkhead.types import FRAME_RATE, Bool, Float32

AGREE_MS = 1000.0 / FRAME_RATE


def clip_offset(
    waveform: Float32,
    landmarks: Float32,
    phones: list[Phone] | None,
    sync_model: SyncModel | None,
    corrected_ms: float = 0.0,
) -> OffsetResults:
    """Estimate how late the audio of a clip is, from energies, from phones and by the sync model.

    Args:
        waveform: Samples [n_samples], 16 kHz, beginning at the first frame.
        landmarks: Landmarks [F, 478, 2] in pixels; NaN without a face.
        phones: Phones of the audio; None to omit this method.
        sync_model: The sync model; None to omit this method.
        corrected_ms: By how much the waveform was shifted before.

    Returns:
        The finding of each method, and whether they agree.
    """
    tracked = has_face(landmarks)
    evidence = [_energy_evidence(waveform, landmarks, tracked)]
    if phones is not None:
        evidence.append(opening_evidence(phones, lip_aperture(landmarks)))
    if sync_model is not None:
        evidence.append(sync_model.evidence(waveform, np.nan_to_num(landmarks), tracked))
    return OffsetResults(tuple(evidence), agreement(evidence), corrected_ms)


def agreement(evidence: Sequence[OffsetEvidence]) -> bool | None:
    """Check whether the offsets found agree.

    Args:
        evidence: The finding of each method.

    Returns:
        True if all offsets are within one frame of each other; None with fewer than two.
    """
    offsets = [one.offset_ms for one in evidence if one.offset_ms is not None]
    return max(offsets) - min(offsets) <= AGREE_MS if len(offsets) > 1 else None


def _energy_evidence(waveform: Float32, landmarks: Float32, tracked: Bool) -> OffsetEvidence:
    """Apply the method of preprocessing: ridge regression from mel energies to lips, lag by lag.

    Takes samples [n_samples], landmarks [F, 478, 2] and the mask [F] of frames with a face.
    """
    found = measure_offset(waveform, np.nan_to_num(lip_measures(landmarks)), tracked)
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
