"""Find the systems and Pythons for which all of talkhead's dependencies have wheels.

    python -m benchmarks.wheels [--extra NAME]...

Dependencies are resolved, not installed. A JSON line for each system and Python: whether all of
pyproject.toml's dependencies, and those of the extras, resolve there with wheels alone, and which
of them do not. Needs the uv program (pip install uv) and a package index; pip is not enough,
because it uses the markers of the machine it runs on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tomllib

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
SYSTEMS = {
    "Linux x86-64": "x86_64-manylinux_2_28",
    "Linux arm64": "aarch64-manylinux_2_28",
    "macOS arm64": "aarch64-apple-darwin",
    "macOS x86-64": "x86_64-apple-darwin",
    "Windows x86-64": "x86_64-pc-windows-msvc",
    "Windows arm64": "aarch64-pc-windows-msvc",
}
"""uv's names for the platforms."""
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")

Resolves = Callable[[Sequence[str], str, str], bool]


def requirements(project: dict[str, Any], extras: Sequence[str]) -> list[str]:
    """List the requirements of a pyproject.toml, with those of some extras."""
    wanted = [*project["dependencies"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    return wanted


def resolves(wanted: Sequence[str], platform: str, python: str) -> bool:
    """Check that wheels of all requirements and of their dependencies are available together."""
    command = ["uv", "pip", "compile", "-", "--quiet", "--only-binary", ":all:"]
    command += ["--python-platform", platform, "--python-version", python]
    done = subprocess.run(command, input="\n".join(wanted), capture_output=True, text=True)
    return done.returncode == 0


def survey(wanted: Sequence[str], python: str, system: str, resolves: Resolves) -> dict[str, Any]:
    """Make one line of the result. lacking: requirements that fail individually; even without any,
    all of them may fail together.
    """
    platform = SYSTEMS[system]
    whole = resolves(wanted, platform, python)
    lacking = [] if whole else [r for r in wanted if not resolves([r], platform, python)]
    return {"system": system, "python": python, "resolves": whole, "lacking": lacking}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extra", action="append", default=[], help="extra to include")
    extras = parser.parse_args().extra
    if shutil.which("uv") is None:
        raise SystemExit("error: uv is missing. Install it: pip install uv")
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    for system in SYSTEMS:
        for python in PYTHONS:
            row = survey(requirements(project, extras), python, system, resolves)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
