"""Commands in separate processes, for tests of kills and of concurrent runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from talkhead.identity import MANIFEST_NAME
from talkhead.storage import sha256_of

TINY = """
import signal
import sys
import pytest
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit SIG_IGN
sys.path.insert(0, {tests!r})
import tiny
from talkhead.app.cli import main as cli
patch = pytest.MonkeyPatch()
tiny.make_tiny(patch)
patch.setattr("talkhead.renderers.trainer.CHECKPOINT_S", 0.2)
sys.argv = ["talkhead", *{words!r}]
cli.main()
"""


def start(*words: object) -> subprocess.Popen[str]:
    """Start a command in which the preview preset takes seconds."""
    script = TINY.format(tests=str(Path(__file__).parent), words=[str(word) for word in words])
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def start_fit(video: Path, home: Path, *more: str) -> subprocess.Popen[str]:
    """Start a fit that takes seconds."""
    words = ("--video", video, "--home", home, "--preset", "preview", "--consent", "Yes.")
    return start("fit", *words, "--device", "cpu", *more)


def wait_for(home: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    """Wait until a file of that name exists."""
    while not list(home.rglob(pattern)):
        assert process.poll() is None, f"ended before {pattern}: {process.stderr.read()}"  # type: ignore[union-attr]
        time.sleep(0.02)


def package_files(path: Path) -> dict[str, str]:
    """Return the files of a package by name: checksums, and the manifest without its date."""
    files = {p.name: sha256_of(p) for p in path.iterdir() if p.name != MANIFEST_NAME}
    manifest = json.loads((path / MANIFEST_NAME).read_text())
    del manifest["created"]
    return {**files, MANIFEST_NAME: json.dumps(manifest, sort_keys=True)}
