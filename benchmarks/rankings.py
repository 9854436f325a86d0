"""Count the reports of reference clips in which each measure ranks real > right > wrong sentence.

    python -m benchmarks.rankings REPORT.json... > app/evaluation/measure_validity.json

Writes {measure's key: [reports in which the order is correct, reports in which it was measured]}.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from talkhead.app.evaluation.measures.registry import quality_measures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reports", nargs="+", type=Path, help="report.json of talkhead evaluate")
    keys = {measure.label: measure.key for measure in quality_measures()}
    counts: dict[str, list[int]] = {}
    for path in parser.parse_args().reports:
        for ranking in json.loads(path.read_text())["validity"]:
            if ranking["holds"] is not None:
                held = counts.setdefault(keys[ranking["measure"]], [0, 0])
                held[0] += ranking["holds"]
                held[1] += 1
    print(json.dumps(counts, indent=2))


if __name__ == "__main__":
    main()
