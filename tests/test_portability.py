"""talkhead works without the modules and functions that Windows lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_talkhead_works_without_posix(tmp_path: Path) -> None:
    sound = HERE.parent / "samples" / "line.wav"
    command = [
        sys.executable,
        str(HERE / "helpers" / "without_posix.py"),
        str(sound),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 100  # modules
