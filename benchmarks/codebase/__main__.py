"""Print statistics of a checkout, each with its target, to compare before and after a change.

    python -m benchmarks.codebase [--root PATH] [--json] [--list] [--trace HOME] [--trace-fit]

Reads the files of the checkout without importing them. --trace runs `talkhead speak` on the sample with
the identity that was fitted last in HOME (about a minute), and --trace-fit runs `talkhead fit` (much
longer), to count the modules in which a function is called: the checkout's code runs on the current
Python interpreter. As always, speak writes to HOME, for example its signing key.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.codebase.docstrings import docstring_figures
from benchmarks.codebase.readme import readme_figures
from benchmarks.codebase.sources import Figure, package_sources, read_sources
from benchmarks.codebase.structure import structure_figures
from benchmarks.codebase.tracing import path_figures
from benchmarks.codebase.words import word_figures

ROOT = Path(__file__).parents[2]
MARKS = {True: "met", False: "MISSED", None: ""}


def measure(root: Path, home: Path | None = None, with_fit: bool = False) -> list[Figure]:
    """Measure a checkout.

    Args:
        root: Its folder.
        home: A folder of identities to trace speaking with; None to leave that out.
        with_fit: True to trace fitting, too.

    Returns:
        All figures in the order in which they are printed.

    Raises:
        SystemExit: If a traced command fails.
    """
    sources = read_sources(root)
    packages = package_sources(sources)
    return [
        *word_figures(sources),
        *docstring_figures(packages),
        *structure_figures(sources, packages),
        *path_figures(root, home, with_fit),
        *readme_figures(root, sources),
    ]


def format_figure(figure: Figure, with_details: bool) -> str:
    """Write a figure as a line: value, aim, whether it is met, name; details below it."""
    value = "not run" if figure.value is None else f"{figure.value:g}"
    sign = "≥" if figure.at_least else "≤"
    aim = "" if figure.aim is None else f"aim {sign} {figure.aim:g}"
    lines = [f"{value:>8}  {aim:<9}  {MARKS[figure.met]:<6}  {figure.name}"]
    if with_details or figure.listed:
        lines += [f"{'':29}{detail}" for detail in figure.details]
    return "\n".join(lines)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.codebase",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout (default: this one)")
    parser.add_argument("--json", action="store_true", help="JSON, with all details")
    parser.add_argument("--list", action="store_true", help="all details of all figures")
    parser.add_argument("--trace", type=Path, metavar="HOME", help="count the files of speak")
    parser.add_argument("--trace-fit", action="store_true", help="count the files of fit; minutes")
    chosen = parser.parse_args()
    figures = measure(chosen.root.resolve(), chosen.trace, chosen.trace_fit)
    if chosen.json:
        rows = [{**asdict(figure), "met": figure.met} for figure in figures]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        print("\n".join(format_figure(figure, chosen.list) for figure in figures))


if __name__ == "__main__":
    main()
