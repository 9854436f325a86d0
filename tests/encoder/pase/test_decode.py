"""Phones from posteriors: known sequences, noise, ends, and the best path against exhaustive
search."""

from __future__ import annotations

from itertools import groupby, pairwise, product

import numpy as np
import pytest

from talkhead.encoder.pase.decode import (
    MIN_SILENCE_VECTORS,
    MIN_VECTORS,
    decode_posteriors,
    greedy_labels,
    viterbi_labels,
)
from talkhead.encoder.phones import PHONES, SILENCE
from talkhead.types import Float32

SILENT = PHONES.index(SILENCE)


def posteriors_of(labels: list[int], certainty: float = 0.9) -> Float32:
    """Posteriors [F, 40] with probability `certainty` of each moment's phone, the rest evenly
    distributed.
    """
    values = np.full((len(labels), len(PHONES)), (1 - certainty) / (len(PHONES) - 1), np.float32)
    values[np.arange(len(labels)), labels] = certainty
    return values


def runs(phones: list[tuple[str, int]]) -> list[int]:
    return [PHONES.index(label) for label, n in phones for _ in range(n)]


def test_a_certain_sequence_is_decoded() -> None:
    spoken = [(SILENCE, 5), ("HH", 3), ("AH", 4), ("L", 2), ("OW", 8), (SILENCE, 6)]
    found = decode_posteriors(posteriors_of(runs(spoken)))
    assert [p.label for p in found] == [label for label, _ in spoken]
    starts = np.cumsum([0] + [n for _, n in spoken])
    assert [p.start_s for p in found[1:]] == pytest.approx((starts[1:-1] - 0.5) / 50)
    assert found[0].start_s == 0.0
    assert found[-1].end_s == pytest.approx(28 / 50)
    assert all(before.end_s == after.start_s for before, after in pairwise(found))


def test_a_single_moment_is_not_a_phone() -> None:
    labels = runs([(SILENCE, 6), ("AA", 10), (SILENCE, 6)])
    labels[11] = PHONES.index("T")
    found = decode_posteriors(posteriors_of(labels))
    assert [p.label for p in found] == [SILENCE, "AA", SILENCE]
    assert "T" in {PHONES[k] for k in greedy_labels(posteriors_of(labels))}


def test_phones_have_a_minimum_duration() -> None:
    """This holds for all posteriors, except at the ends of the audio."""
    random = np.random.default_rng(0)
    values = random.dirichlet(np.full(40, 0.05), size=400).astype(np.float32)
    lasting = [(k, len(list(run))) for k, run in groupby(viterbi_labels(values, 0.0))]
    assert len(lasting) > 60
    assert all(n >= (MIN_SILENCE_VECTORS if k == SILENT else MIN_VECTORS) for k, n in lasting[1:-1])


def test_the_path_is_the_best_of_all() -> None:
    """The path is compared with all label sequences of three phones over seven moments."""
    random = np.random.default_rng(1)
    chosen = [PHONES.index("AA"), PHONES.index("M"), SILENT]
    for cost in (0.0, 0.7, 3.0):
        values = np.full((7, 40), 1e-4, np.float32)
        values[:, chosen] = random.dirichlet(np.ones(3), size=7)
        logs = np.log(np.maximum(values, 1e-4))

        def score(labels: tuple[int, ...], logs: Float32 = logs, cost: float = cost) -> float:
            lasting = [(k, len(list(run))) for k, run in groupby(labels)]
            least = [MIN_SILENCE_VECTORS if k == SILENT else MIN_VECTORS for k, _ in lasting]
            inner = zip(lasting[1:-1], least[1:-1], strict=True)
            if any(n < fewest for (_, n), fewest in inner):
                return -np.inf
            return float(logs[np.arange(7), list(labels)].sum()) - cost * (len(lasting) - 1)

        best = max(product(chosen, repeat=7), key=score)
        assert list(viterbi_labels(values, cost)) == list(best)


def test_noisy_posteriors_are_read_better_than_moment_by_moment() -> None:
    random = np.random.default_rng(2)
    labels = runs([(PHONES[k], 5) for k in random.integers(0, 40, 80)])
    logits = random.normal(0.0, 1.0, (len(labels), 40))
    logits[np.arange(len(labels)), labels] += 2.5
    values = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    right = np.mean(viterbi_labels(values.astype(np.float32)) == labels)
    moment_by_moment = np.mean(greedy_labels(values.astype(np.float32)) == labels)
    assert right > moment_by_moment + 0.1
    assert right > 0.9


def test_a_higher_cost_gives_fewer_phones() -> None:
    random = np.random.default_rng(3)
    values = random.dirichlet(np.full(40, 0.1), size=300).astype(np.float32)
    counts = [len(decode_posteriors(values, cost)) for cost in (0.0, 2.0, 8.0, 1e6)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 2 * counts[2]
    assert counts[-1] == 1


@pytest.mark.parametrize("n", [1, 2, 3])
def test_very_short_audio(n: int) -> None:
    (phone,) = decode_posteriors(posteriors_of([SILENT] * n))
    assert (phone.label, phone.start_s) == (SILENCE, 0.0)
    assert phone.end_s == pytest.approx(n / 50)


def test_probabilities_of_0_are_decoded() -> None:
    values = np.zeros((20, 40), np.float32)
    values[:10, 3] = values[10:, 7] = 1.0
    assert [p.label for p in decode_posteriors(values)] == [PHONES[3], PHONES[7]]


def test_empty_audio_has_no_phones_and_other_shapes_are_refused() -> None:
    assert decode_posteriors(np.zeros((0, 40), np.float32)) == []
    with pytest.raises(ValueError, match=r"\[F, 40\], not \(10, 39\)"):
        decode_posteriors(np.zeros((10, 39), np.float32))


def test_smoothing_leaves_moments_in_place() -> None:
    labels = runs([("AA", 6), ("M", 6)])
    assert list(greedy_labels(posteriors_of(labels), 5)) == labels
