"""Check an installed talkhead outside its checkout: imports, data files, fit and speak.

    cd FOLDER && VENV/bin/python tests/helpers/installed.py PERSON.mp4 LINE.wav

Fits the first seconds of the person, speaks the line, and prints the result.
"""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import talkhead
from talkhead import media, weights

SECONDS = 8
DATA = {
    "talkhead": ["py.typed"],
    "talkhead.app.output": ["fonts/NotoSans-Bold.ttf", "fonts/OFL.txt"],
    "talkhead.app.evaluation": ["measure_validity.json"],
    "talkhead.app.evaluation.report": ["report.html.j2"],
    "talkhead.app.training.synthetic_speech": ["texts.json"],
    "talkhead.samples": ["line.wav"],
}
EXTRAS = ("talkhead.app.server", "talkhead.app.live.pipecat", "talkhead.app.live.livekit")
"""Modules that need packages of extras, which are not installed."""


def import_all() -> int:
    """Import all modules except those in EXTRAS. Returns their number."""
    modules = pkgutil.walk_packages(talkhead.__path__, "talkhead.")
    names = [module.name for module in modules if not module.name.startswith(EXTRAS)]
    return len([importlib.import_module(name) for name in names])


def check_data() -> None:
    """Raise AssertionError if a data file is missing, PackageError for missing or damaged weights."""
    for package, names in DATA.items():
        for name in names:
            assert files(package).joinpath(name).is_file(), f"{package} lacks {name}"
    for name in weights.manifest():
        weights.resolve(name)


def run(*arguments: object) -> None:
    """Run a talkhead command with this Python. Raises CalledProcessError if it fails."""
    program = Path(sys.executable).with_name("talkhead")
    subprocess.run([program, *map(str, arguments), "--home", "home", "--quiet"], check=True)


def main(person: Path, line: Path) -> None:
    installed = Path(talkhead.__file__)
    assert "site-packages" in installed.parts, f"{installed}: this is the checkout, not the wheel"
    print(import_all(), "modules of", installed)
    check_data()
    with closing(media.read_frames(person, n_frames=SECONDS * 25)) as frames:
        media.write_video(Path("short.mp4"), frames, audio_path=person)
    run("fit", "--video", "short.mp4", "--name", "short", "--preset", "preview", "--yes")
    run("speak", "--audio", line, "--identity", "short", "--output", "line.mp4")
    made = media.probe("line.mp4")
    assert made.has_audio and made.duration_s > 1, made
    print(f"line.mp4: {made.width}x{made.height}, {made.duration_s:.1f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
