"""The files whose functions a command calls, found by running it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.codebase import tracer
from benchmarks.codebase.sources import FORMER_NAMES, PACKAGES, Figure

ENTRY = re.compile(r'^talkhead = "([\w.]+):(\w+)"', re.MULTILINE)
MAX_SPEAK_FILES = 25
MAX_FIT_FILES = 40


def link_packages(root: Path, folder: Path) -> None:
    """Arrange a checkout as an importable package, regardless of what is installed.

    Args:
        root: The checkout.
        folder: An existing folder, in which a folder "talkhead" of links is created.
    """
    package = folder / "talkhead"
    package.mkdir()
    roots = [root / name for name in ("talkhead", *FORMER_NAMES)]
    own = next(path for path in roots if (path / "__init__.py").is_file())
    others = [root / name for name in (*PACKAGES[1:], "samples") if (root / name).is_dir()]
    for path in [*own.iterdir(), *others]:
        if path.name != "__pycache__":
            (package / path.name).symlink_to(path)


def traced_files(root: Path, arguments: list[str]) -> list[str]:
    """Run a talkhead command and list the modules of which it calls functions.

    Args:
        root: The checkout whose talkhead runs, on this Python. Nothing is written there.
        arguments: What follows "talkhead" on the command line.

    Returns:
        The paths of the modules, relative to the checkout. Kernels that numba compiles are not seen.

    Raises:
        SystemExit: If the command fails.
    """
    entry = ENTRY.search((root / "pyproject.toml").read_text("utf-8"))
    assert entry is not None, "pyproject.toml defines no talkhead command"
    module, function = entry.groups()
    with tempfile.TemporaryDirectory(prefix="talkhead-trace-") as name:
        folder = Path(name).resolve()
        log = folder / "files.txt"
        link_packages(root, folder)
        shutil.copy(tracer.__file__, folder / "sitecustomize.py")
        changed = {
            "CODEBASE_TRACE": f"{folder / 'talkhead'}{os.pathsep}{log}",
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NUMBA_CACHE_DIR": str(folder / "numba"),
        }
        code = f"from {module} import {function}; {function}()"
        command = [sys.executable, "-c", code, *arguments]
        environment = {**os.environ, **changed}
        done = subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
        if done.returncode != 0:
            raise SystemExit(f"error: talkhead {' '.join(arguments)} failed")
        paths = {Path(line).resolve() for line in log.read_text("utf-8").splitlines()}
    return sorted(path.relative_to(root).as_posix() for path in paths)


def path_figures(root: Path, home: Path | None, with_fit: bool) -> list[Figure]:
    """Count the files whose functions are called when speaking and fitting.

    Args:
        root: The checkout.
        home: A folder of identities; the one that was fitted last speaks. None to skip this.
        with_fit: True to fit the sample person, too, in a temporary folder.

    Returns:
        Two figures, without values where nothing was run.
    """
    speak: list[str] | None = None
    fit: list[str] | None = None
    with tempfile.TemporaryDirectory(prefix="talkhead-trace-") as name:
        folder = Path(name)
        if home is not None:
            sound, output = root / "samples/line.wav", folder / "line.mp4"
            given = ["speak", "--audio", sound, "--home", home.resolve(), "--output", output]
            speak = traced_files(root, [*map(str, given), "--quiet"])
        if with_fit:
            video = root / "samples/person.mp4"
            given = ["fit", "--video", video, "--home", folder, "--preset", "preview", "--yes"]
            fit = traced_files(root, [*map(str, given), "--quiet"])
    return [
        Figure(
            f"files on the path of talkhead {command}",
            None if files is None else len(files),
            aim,
            details=files or [],
        )
        for command, files, aim in [
            ("speak --audio", speak, MAX_SPEAK_FILES),
            ("fit --video", fit, MAX_FIT_FILES),
        ]
    ]
