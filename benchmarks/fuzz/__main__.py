"""Damaged and hostile inputs for every command that reads a file.

    python -m benchmarks.fuzz --cases N [--seed S] [--kinds KIND ...] [--keep DIR]
    python -m benchmarks.fuzz --replay SEED:CASE ... [--keep DIR]
    python -m benchmarks.fuzz --plain              each kind's valid files: they must be accepted

Prints a JSON line for each case and a summary; the exit status is 1 if there was a fault. A case
depends on its seed and number alone, not on the chosen kinds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fuzz.kinds import SUITE
from benchmarks.fuzz.supervisor import Supervisor, supervised
from benchmarks.fuzz.trial import FAULTS, Suite
from benchmarks.fuzz.worker import Case, JobFinished, as_json, draw_kind

NAME = "benchmarks.fuzz.kinds:SUITE"
PLAIN_TIMES = 4


def cases_of(suite: Suite, seed: int, kinds: Sequence[str]) -> Iterator[Case]:
    """The cases of a seed, restricted to the given kinds if there are any."""
    number = 0
    while True:
        case = Case(seed, number)
        if not kinds or draw_kind(suite, case.rng()).name in kinds:
            yield case
        number += 1


def named_case(text: str) -> Case:
    """Parse "SEED:CASE"."""
    seed, _, number = text.partition(":")
    return Case(int(seed), int(number))


class ProgressStats:
    """Outcomes so far."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._outcomes: dict[str, Counter[str]] = {}
        self.n_cases = self.n_faults = 0
        self._slowest, self._largest = 0.0, 0.0

    def add(self, ended: JobFinished) -> None:
        """Count a case."""
        self.n_cases += 1
        self.n_faults += ended.outcome in FAULTS
        self._outcomes.setdefault(ended.kind, Counter())[ended.outcome] += 1
        self._slowest = max(self._slowest, ended.seconds)
        self._largest = max(self._largest, ended.peak_mib)

    def summary(self, n_workers: int) -> dict[str, Any]:
        """All results, as JSON values."""
        seconds = time.monotonic() - self._start
        return {
            "summary": {kind: dict(count) for kind, count in sorted(self._outcomes.items())},
            "cases": self.n_cases,
            "kinds": len(self._outcomes),
            "faults": self.n_faults,
            "seconds": round(seconds, 1),
            "cases_per_s": round(self.n_cases / max(seconds, 1e-9), 2),
            "slowest_s": self._slowest,
            "largest_mib": self._largest,
            "workers": n_workers,
        }


def run_cases(supervisor: Supervisor, cases: Iterator[Case], n_cases: int) -> ProgressStats:
    """Run the next cases, and print a line for each."""
    supervisor.start()
    tally = ProgressStats()
    for _, case in zip(range(n_cases), cases, strict=False):
        ended = supervisor.run(case)
        tally.add(ended)
        line = as_json(case, ended)
        if ended.outcome in FAULTS and (kept := supervisor.keep(case)) is not None:
            line["kept"] = str(kept)
        print(json.dumps(line), flush=True)
    return tally


def plain_cases(suite: Suite, seed: int) -> list[Case]:
    """Valid files of each kind, PLAIN_TIMES times."""
    return [Case(seed, n, kind.name) for kind in suite.kinds for n in range(PLAIN_TIMES)]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    names = [kind.name for kind in SUITE.kinds]
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=[], choices=names, metavar="KIND",
                        help=", ".join(names))  # fmt: skip
    parser.add_argument("--replay", nargs="+", type=named_case, metavar="SEED:CASE",
                        help="run these cases again")  # fmt: skip
    parser.add_argument("--plain", action="store_true", help="damage nothing")
    parser.add_argument("--keep", type=Path, help="copy the folders of faulty cases there")
    chosen = parser.parse_args()
    cases, n_cases = cases_of(SUITE, chosen.seed, chosen.kinds), chosen.cases
    if chosen.replay:
        cases, n_cases = iter(chosen.replay), len(chosen.replay)
    elif chosen.plain:
        plain = [c for c in plain_cases(SUITE, chosen.seed)
                 if not chosen.kinds or c.plain in chosen.kinds]  # fmt: skip
        cases, n_cases = iter(plain), len(plain)
    with supervised(NAME, chosen.keep) as supervisor:
        tally = run_cases(supervisor, cases, n_cases)
        print(json.dumps(tally.summary(supervisor.n_workers)), flush=True)
    sys.exit(1 if tally.n_faults else 0)


if __name__ == "__main__":
    main()
