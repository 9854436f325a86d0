"""Phones with times from posteriors, by Viterbi decoding with a minimum duration per phone.

A hidden Markov model: every phone is a chain of states as long as its minimum duration, the last of
which may repeat; then any other phone may follow. Viterbi's algorithm finds the best path (Rabiner
1989, A Tutorial on Hidden Markov Models, Proc. IEEE 77(2), section III B).
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage

from talkhead.encoder.phones import PHONES, SILENCE, Phone
from talkhead.types import Float32, Int

POSTERIOR_RATE = 50
"""Posteriors per second."""
MIN_VECTORS = 2
"""Minimum duration of a phone: 40 ms."""
MIN_SILENCE_VECTORS = 3
"""Minimum duration of silence: 60 ms."""
CHANGE_COST = 2.0
"""Negative log probability of a change of phone: a phone ends within 20 ms with probability e^-2,
so a typical one lasts 150 ms.
"""
MIN_PROBABILITY = 1e-4
"""Smaller posteriors are replaced by this."""

_SILENT = PHONES.index(SILENCE)


def greedy_labels(posteriors: Float32, width: int = 1) -> Int:
    """Find the most likely phone of each moment, independently of the others.

    Args:
        posteriors: [F, 40] probabilities in the order of PHONES.
        width: Moments over which they are averaged first.

    Returns:
        Indices into PHONES, [F].
    """
    smooth = scipy.ndimage.uniform_filter1d(posteriors, width, axis=0, mode="nearest")
    return np.asarray(smooth.argmax(1), np.int64)


def decode_posteriors(posteriors: Float32, change_cost: float = CHANGE_COST) -> list[Phone]:
    """Find the phones of a waveform with their times.

    Args:
        posteriors: [F, 40] probabilities in the order of PHONES, of the moments i / 50 s.
        change_cost: Negative log probability of a change of phone.

    Returns:
        Phones in order, without gaps, silences included, from 0 s to F / 50 s. A phone begins half
        a step before its first moment and ends half a step after its last one, within the audio.

    Raises:
        ValueError: For posteriors of a different shape.
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
    """Find the phone of each moment on the best path.

    The first and the last phone may be shorter than others: the audio may have been cut there.

    Args:
        posteriors: [F, 40] probabilities in the order of PHONES.
        change_cost: Negative log probability of a change of phone.

    Returns:
        Indices into PHONES, [F].
    """
    logs = np.log(np.maximum(posteriors.astype(np.float64), MIN_PROBABILITY))
    n, n_phones = logs.shape
    last = np.full(n_phones, MIN_VECTORS - 1)
    last[_SILENT] = MIN_SILENCE_VECTORS - 1
    n_states, every = int(last.max()) + 1, np.arange(n_phones)
    # Best log probability of a path that ends in each state of each phone now, [P, S]. A path may
    # begin in any state.
    score = np.repeat(logs[0][:, None], n_states, axis=1)
    # Enough to trace a path back: a middle state always comes from the state before it.
    stayed = np.zeros((n, n_phones), dtype=bool)  # a last state came from itself
    parents = np.zeros(n, np.int64)  # the phone that a new one comes from
    for t in range(1, n):
        ends = score[every, last]
        parents[t] = int(ends.argmax())
        before = score[every, last - 1]
        stayed[t] = ends >= before
        new = ends[parents[t]] - change_cost
        # Move every path on by one state; a new phone may begin.
        score[:, 1:] = score[:, :-1]
        score[every, last] = np.maximum(ends, before)
        score[:, 0] = new
        score += logs[t][:, None]
    return _path(score, stayed, parents, last)


def _path(score: np.ndarray, stayed: np.ndarray, parents: Int, last: Int) -> Int:  # type: ignore[type-arg]
    """Trace the best path back from its last state.

    Args:
        score: Score of each phone's states at the last moment, [P, S].
        stayed: Whether a phone's last state came from itself, [F, P].
        parents: The phone from which a new one may come at each moment, [F].
        last: Index of each phone's last state, [P].

    Returns:
        Indices into PHONES, [F].
    """
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
