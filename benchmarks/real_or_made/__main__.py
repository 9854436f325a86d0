"""Can predicted lip trajectories be told from tracked real ones, given the sound? Prints JSON lines.

    python -m benchmarks.real_or_made CLIP... --made NAME=ENCODER[,PRIOR] [NAME=... ...]
                                      [--folds 5] [--seconds 75] [--preset preview] [--seed 0]
                                      [--cache FOLDER]

CLIP and ENCODER[,PRIOR] are those of benchmarks.lips; clips of three people or more are needed.

Both classes are trajectories of the same frames in the same coordinates: opening, width and jaw
(`trajectories.MEASURES`), in eye distances at 25 frames per second, computed from the tracked and
from the predicted motion codes of one face model. Every frame is predicted by a predictor that was
not fitted on it (the folds of benchmarks.lips). Trajectories are normalized by the mean and spread
of the real ones, so that the range of the motion counts. They are cut into windows of 2 s, one each
second, silent stretches included.

Classifiers (`classifiers.CLASSIFIERS`) are fitted on all people but one and score the windows of
that one. The result is the mean over people of the area under the ROC curve: .5 if predicted lips
cannot be told from real ones, 1 if they always can. Its 95 % interval resamples people, and
stretches of windows within each.

For each system there are two rows per classifier: with the range of the lips corrected, as `speak`
does, and "uncorrected". Further values of a row:

* spoken: the same of windows with at most a quarter of silence.
* smooth: the classifier fitted and tested on trajectories that a filter has smoothed (a quarter of
  the power at SMOOTH_HZ is left), so that it does not depend on the tracker's noise.
* valid: whether this classifier separates the first system, corrected, with at least VALID_AUC.
  One that does not cannot say that another system is good.

Rows of controls, for each classifier: "shuffled labels" and "real, odd and even stretches" must be
about .5; "real, another sentence's sound" shows whether a classifier listens to the sound at all.

The last rows are the figures of windows that differ most, each with the AUC of that figure alone:
above .5 it is larger in predicted windows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal

from benchmarks.lips import parse_system, read_clips
from benchmarks.real_or_made.classifiers import CLASSIFIERS, Classifier
from benchmarks.real_or_made.judging import (
    BLOCK,
    Scores,
    auc_interval,
    auc_of_people,
    left_out_scores,
    telling_figures,
)
from benchmarks.real_or_made.trajectories import (
    AS_PREDICTED,
    MadeBy,
    Settings,
    Trajectories,
    trajectories,
)
from benchmarks.real_or_made.windows import Windows, cut
from talkhead.app.evaluation.results import plain
from talkhead.encoder.predictor.network import PRESETS
from talkhead.storage import make_folder
from talkhead.types import FRAME_RATE, Float64

VALID_AUC = 0.85
"""AUC at which a classifier must separate the first system."""
SPOKEN = 0.25
"""Largest share of silence in a window that counts as spoken."""
SMOOTH_HZ = 5.0
N_FIGURES = 20
"""Figures printed for each system."""

Rows = Iterator[dict[str, Any]]


def smoothed(one: Trajectories) -> Trajectories:
    """Smooth the lips within each block, so that noise of the tracker is no longer seen."""
    return replace(
        one,
        real=_low_pass(one.real, one),
        made={name: _low_pass(values, one) for name, values in one.made.items()},
    )


def _low_pass(values: Float64, one: Trajectories) -> Float64:
    """Filter measures [F, 3] forth and back, each stretch of usable frames for itself."""
    sections = scipy.signal.butter(2, SMOOTH_HZ, fs=FRAME_RATE, output="sos")
    filtered = values.copy()
    for run in np.split(np.arange(len(values)), np.flatnonzero(np.diff(one.block)) + 1):
        if one.block[run[0]] >= 0 and len(run) > FRAME_RATE:
            filtered[run] = scipy.signal.sosfiltfilt(sections, values[run], axis=0)
    return filtered


def system_rows(people: Sequence[Trajectories]) -> Rows:
    """Results of each system and classifier."""
    smooth = [smoothed(one) for one in people]
    real, real_smooth = _real(people), _real(smooth)
    for name, classifier in CLASSIFIERS.items():
        valid = None
        for system in _names_of(people):
            made, made_smooth = _made(people, system), _made(smooth, system)
            scores = left_out_scores(real, made, classifier)
            interval = auc_interval(scores)
            valid = interval.mean >= VALID_AUC if valid is None else valid
            spoken = scores.within(real.silent <= SPOKEN, made.silent <= SPOKEN)
            steady = left_out_scores(real_smooth, made_smooth, classifier)
            yield {
                "made": system,
                "classifier": name,
                "auc": asdict(interval),
                "people": _by_name(people, scores),
                "spoken": asdict(auc_interval(spoken)),
                "smooth": asdict(auc_interval(steady)),
                "n_windows": len(real),
                "valid": valid,
            }


def _names_of(people: Sequence[Trajectories]) -> list[str]:
    """Names of the systems in the order of the command, each corrected and then uncorrected."""
    names = [name for name in people[0].made if not name.endswith(AS_PREDICTED)]
    return [each for name in names for each in (name, f"{name}, {AS_PREDICTED}")]


def control_rows(people: Sequence[Trajectories]) -> Rows:
    """Results of comparisons whose outcome is known."""
    real = _real(people)
    made = _made(people, _names_of(people)[0])
    half = (np.arange(len(real)) // BLOCK) % 2 == 0
    late = cut(people, lambda one: one.real, lambda one: len(one.real) // 2)
    pairs = {
        "real, another sentence's sound": (real, late),
        "real, odd and even stretches": (
            real.part(np.flatnonzero(half)),
            real.part(np.flatnonzero(~half)),
        ),
    }
    for name, classifier in CLASSIFIERS.items():
        for control, (one, other) in pairs.items():
            scores = left_out_scores(one, other, classifier)
            yield {"control": control, "classifier": name, "auc": asdict(auc_interval(scores))}
        scores = left_out_scores(real, made, shuffled(classifier))
        yield {
            "control": "shuffled labels",
            "classifier": name,
            "auc": asdict(auc_interval(scores)),
        }


def shuffled(classifier: Classifier, seed: int = 0) -> Classifier:
    """Make a classifier that is fitted on labels in random order."""
    random = np.random.default_rng(seed)
    return lambda train, is_made, test: classifier(train, random.permutation(is_made), test)


def figure_rows(people: Sequence[Trajectories]) -> Rows:
    """Figures that tell each system's windows from real ones."""
    real = _real(people)
    names = [one.person for one in people]
    for system in _names_of(people):
        found = telling_figures(real, _made(people, system))
        for (figure, mean, each), _ in zip(found, range(N_FIGURES), strict=False):
            row = {"made": system, "figure": figure, "auc": mean}
            yield row | {"people": dict(zip(names, each, strict=True))}


def _real(people: Sequence[Trajectories]) -> Windows:
    return cut(people, lambda one: one.real)


def _made(people: Sequence[Trajectories], system: str) -> Windows:
    return cut(people, lambda one: one.made[system])


def _by_name(people: Sequence[Trajectories], scores: Scores) -> dict[str, float]:
    return {people[number].person: value for number, value in auc_of_people(scores).items()}


def parse_made(text: str) -> MadeBy:
    """Parse "NAME=ENCODER[,PRIOR]"."""
    name, separator, system = text.partition("=")
    if not (name and separator and system):
        raise argparse.ArgumentTypeError(f"{text}: write NAME=ENCODER[,PRIOR]")
    return MadeBy(name, parse_system(system))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=Path, help="prepared folders, or .json lists")
    parser.add_argument(
        "--made", nargs="+", required=True, type=parse_made, help="NAME=ENCODER[,PRIOR]"
    )
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=75.0, help="of each clip")
    parser.add_argument("--preset", default="preview", choices=list(PRESETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="folder that stores models and trajectories")
    given = parser.parse_args(arguments)
    cache = None if given.cache is None else make_folder(given.cache)
    settings = Settings(given.folds, given.preset, given.seed, given.seconds, cache)
    clips = [clip for path in given.clips for clip in read_clips(path)]
    if len(clips) < 3:
        parser.error("clips of three people or more are needed")
    people = [trajectories(clip, given.made, settings) for clip in clips]
    for rows in (system_rows, control_rows, figure_rows):
        for row in rows(people):
            print(json.dumps(plain(row)), flush=True)


if __name__ == "__main__":
    main()
