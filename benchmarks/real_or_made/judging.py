"""How well a classifier does on people it was not fitted on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

from benchmarks.real_or_made.classifiers import Classifier
from benchmarks.real_or_made.windows import Windows, statistics
from talkhead.app.evaluation.cross_validation import Interval
from talkhead.types import Bool, Float64, Int

BLOCK = 4
"""Successive windows that are drawn together: they overlap, and speech goes on."""
N_DRAWS = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Scores:
    """Scores of N windows of each class, by classifiers that saw neither class of the person.

    Attributes:
        real: Scores of the real windows, [N].
        made: Scores of the predicted windows, [M].
        person_real: Number of the person of each real window, [N].
        person_made: Number of the person of each predicted window, [M].
    """

    real: Float64
    made: Float64
    person_real: Int
    person_made: Int

    def within(self, real: Bool, made: Bool) -> Scores:
        """Select windows by masks [N] and [M]."""
        persons = self.person_real[real], self.person_made[made]
        return Scores(self.real[real], self.made[made], *persons)

    @property
    def people(self) -> Int:
        """Numbers of the people with windows of both classes."""
        return np.intersect1d(self.person_real, self.person_made)


def left_out_scores(real: Windows, made: Windows, classifier: Classifier) -> Scores:
    """Score the windows of each person by a classifier fitted on all other people.

    Args:
        real: Real windows.
        made: Predicted windows, or others to be told from the real ones.
        classifier: Fits and scores.

    Returns:
        The scores.

    Raises:
        ValueError: There are windows of fewer than two people.
    """
    scores = np.zeros(len(real)), np.zeros(len(made))
    people = np.union1d(real.person, made.person)
    if len(people) < 2:
        raise ValueError("windows of two people or more are needed")
    for person in people:
        out_real, out_made = real.person == person, made.person == person
        known = joined(real.part(np.flatnonzero(~out_real)), made.part(np.flatnonzero(~out_made)))
        is_made = np.arange(len(known)) >= (~out_real).sum()
        asked = joined(real.part(np.flatnonzero(out_real)), made.part(np.flatnonzero(out_made)))
        found = classifier(known, is_made, asked)
        scores[0][out_real], scores[1][out_made] = np.split(found, [out_real.sum()])
    return Scores(*scores, real.person, made.person)


def joined(first: Windows, second: Windows) -> Windows:
    """Put windows behind others."""
    return Windows(**{k: np.concatenate([v, getattr(second, k)]) for k, v in vars(first).items()})


def auc(real: Float64, made: Float64) -> float:
    """Probability that a predicted window [M] scores higher than a real one [N]; ties count half."""
    ranks = scipy.stats.rankdata(np.concatenate([made, real]))[: len(made)]
    return float((ranks.sum() / len(made) - (len(made) + 1) / 2) / len(real))


def mean_auc(scores: Scores) -> float:
    """Mean of the AUC of each person, with equal weights: scores of two people don't compare."""
    return float(np.mean(list(auc_of_people(scores).values())))


def auc_of_people(scores: Scores) -> dict[int, float]:
    """AUC of each person."""
    return {
        int(person): auc(
            scores.real[scores.person_real == person], scores.made[scores.person_made == person]
        )
        for person in scores.people
    }


def auc_interval(scores: Scores, seed: int = 0) -> Interval:
    """Compute the mean AUC over people with a bootstrap interval.

    People are drawn with replacement, and for each of them blocks of BLOCK successive windows: the
    same ones of both classes where these are of the same moments.

    Args:
        scores: The scores.
        seed: Seed of the resampling.

    Returns:
        Mean and 95 % interval. With a handful of people it is coarse, and rather too narrow.
    """
    random, people = np.random.default_rng(seed), scores.people
    own = [
        (scores.real[scores.person_real == one], scores.made[scores.person_made == one])
        for one in people
    ]
    draws = []
    for _ in range(N_DRAWS):
        drawn = []
        for one in random.integers(len(people), size=len(people)):
            real, made = own[one]
            index = _drawn_blocks(len(real), random)
            other = index if len(made) == len(real) else _drawn_blocks(len(made), random)
            drawn.append(auc(real[index], made[other]))
        draws.append(np.mean(drawn))
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(draws, (tail, 1.0 - tail)) if len(people) else (math.nan, math.nan)
    return Interval(mean_auc(scores), float(low), float(high))


def _drawn_blocks(n: int, random: np.random.Generator) -> Int:
    """Draw blocks of successive numbers below n, circular; returns [n]."""
    starts = random.integers(n, size=math.ceil(n / BLOCK))
    return np.asarray((starts[:, None] + np.arange(BLOCK)).ravel()[:n] % n)


def telling_figures(real: Windows, made: Windows) -> Iterator[tuple[str, float, Sequence[float]]]:
    """Find which figures tell predicted windows from real ones, the most telling first.

    Args:
        real: Real windows.
        made: Predicted windows.

    Yields:
        Name of the figure, the mean AUC of the figure alone over people (above .5: it is larger in
        predicted windows), and that of each person.
    """
    figures, others = statistics(real), statistics(made)
    rows = []
    for name, values in figures.items():
        people = auc_of_people(Scores(values, others[name], real.person, made.person))
        rows.append((name, float(np.mean(list(people.values()))), list(people.values())))
    yield from sorted(rows, key=lambda row: -abs(row[1] - 0.5))
