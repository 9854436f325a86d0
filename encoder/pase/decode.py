"""Phones in time from posteriors: the likeliest sequence in which no phone is over in a blink.

A hidden Markov model: every phone is a chain of states that takes its least duration, the last of
which may go on; then any other phone may follow. Viterbi's algorithm finds the best path (Rabiner
1989, A Tutorial on Hidden Markov Models, Proc. IEEE 77(2), section III B).
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage

from talkhead.encoder.phones import PHONES, SILENCE, Phone
from talkhead.types import Float32, Int

POSTERIOR_RATE = 50
MIN_VECTORS = 2
"""A phone lasts 40 ms or more."""
MIN_SILENCE_VECTORS = 3
CHANGE_COST = 2.0
"""Natural logarithm that a new phone must gain: e^-2 is how likely a phone ends after 20 ms, which
makes a typical one last 150 ms."""
MIN_PROBABILITY = 1e-4

_SILENT = PHONES.index(SILENCE)


def greedy_labels(posteriors: Float32, width: int = 1) -> Int:
    """The likeliest phone of each moment, [F] indices into PHONES, of posteriors [F, 40] that are
    averaged over width of them."""
    smooth = scipy.ndimage.uniform_filter1d(posteriors, width, axis=0, mode="nearest")
    return np.asarray(smooth.argmax(1), np.int64)


def decode_posteriors(posteriors: Float32, change_cost: float = CHANGE_COST) -> list[Phone]:
    """The phones of a waveform, in order, without gaps, with silences.

    posteriors: [F, 40] probabilities in the order of PHONES, of the moments i / 50 s; a phone begins
    half a moment before its first and ends half a moment after its last, within the sound: from
    0 s to F / 50 s. Raises ValueError for another shape.
    """
    if posteriors.ndim != 2 or posteriors.shape[1] != len(PHONES):
        raise ValueError(f"posteriors are [F, {len(PHONES)}], not {posteriors.shape}")
    if len(posteriors) == 0:
        return []
    labels, n = viterbi_labels(posteriors, change_cost), len(posteriors)
    cuts = np.flatnonzero(np.diff(labels)) + 1
    times = [0.0, *((cuts - 0.5) / POSTERIOR_RATE), n / POSTERIOR_RATE]
    first = [0, *cuts]
    return [
        Phone(PHONES[labels[at]], float(start), float(end))
        for at, start, end in zip(first, times[:-1], times[1:], strict=True)
    ]


def viterbi_labels(posteriors: Float32, change_cost: float = CHANGE_COST) -> Int:
    """The best path's phone at each moment, [F] indices into PHONES.

    The first and the last phone may be shorter than the rest: the sound may have been cut there.
    """
    logs = np.log(np.maximum(posteriors.astype(np.float64), MIN_PROBABILITY))
    n, n_phones = logs.shape
    last = np.full(n_phones, MIN_VECTORS - 1)
    last[_SILENT] = MIN_SILENCE_VECTORS - 1
    n_states, every = int(last.max()) + 1, np.arange(n_phones)
    score = np.repeat(logs[0][:, None], n_states, axis=1)
    # Where a state was come from: 0 the one before it (or, in the last, itself), else a new phone.
    stayed = np.zeros((n, n_phones), dtype=bool)
    parents = np.zeros(n, np.int64)
    for t in range(1, n):
        ends = score[every, last]
        parents[t] = int(ends.argmax())
        before = score[every, last - 1]
        stayed[t] = ends >= before
        new = ends[parents[t]] - change_cost
        score[:, 1:] = score[:, :-1]
        score[every, last] = np.maximum(ends, before)
        score[:, 0] = new
        score += logs[t][:, None]
    return _path(score, stayed, parents, last)


def _path(score: np.ndarray, stayed: np.ndarray, parents: Int, last: Int) -> Int:  # type: ignore[type-arg]
    """Back from the best last state to the first."""
    score = np.where(np.arange(score.shape[1]) <= last[:, None], score, -np.inf)
    phone, state = np.unravel_index(int(score.argmax()), score.shape)
    labels = np.zeros(len(stayed), np.int64)
    for t in range(len(stayed) - 1, -1, -1):
        labels[t] = phone
        if state == last[phone] and stayed[t, phone]:
            continue
        if state > 0:
            state -= 1
        elif t:
            phone = parents[t]
            state = last[phone]
    return labels
