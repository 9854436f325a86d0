"""Files of the repository that tests read."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SAMPLES, HELPERS = ROOT / "samples", ROOT / "tests" / "helpers"
PERSON, LINE = SAMPLES / "person.mp4", SAMPLES / "line.wav"
