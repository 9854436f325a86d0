"""Files that people bring are opened in one place per kind, where what may be opened is decided."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("talkhead", "weights", "preprocess", "encoder", "renderers", "app")
INPUTS, PROGRAM, IMAGES = (
    "talkhead/media/inputs.py",
    "talkhead/media/process.py",
    "talkhead/images.py",
)
DOORS = {
    # An input of ffmpeg, which carries what ffmpeg may open for it.
    "ffmpeg.input": {INPUTS},
    "ffmpeg.compile": {PROGRAM},
    "ffmpeg.run": set(),
    "ffmpeg.run_async": set(),
    "ffmpeg.probe": set(),
    # The program: started in one place, asked for its version in another, a description's key.
    "imageio_ffmpeg.get_ffmpeg_exe": {PROGRAM},
    "ffmpeg_path": {PROGRAM, "app/doctor.py", "talkhead/media/probing.py"},
    # Still images, whose kind and size are looked at first.
    "cv2.imdecode": {IMAGES},
    "cv2.imread": set(),
    "cv2.imreadmulti": set(),
    "cv2.imdecodemulti": set(),
    "cv2.VideoCapture": set(),
    "cv2.VideoWriter": set(),
}
"""Calls, and the files that may make them."""
READERS = {"av", "PIL", "imageio", "torchaudio", "torchvision", "soundfile", "librosa", "decord"}
"""Libraries that open media files by themselves."""


def calls(code: str) -> Iterator[tuple[int, str]]:
    """Lines and names of what code calls, `-i` of a command line, and imports of READERS."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)
        elif isinstance(node, ast.Constant) and node.value == "-i":
            yield node.lineno, "-i"
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module.partition(".")[0]


def bypasses(name: str, code: str) -> list[str]:
    """What code, that of a file of this name, opens beside the doors."""
    found = []
    for line, called in calls(code):
        called = ".".join(called.split(".")[-2:])
        doors = DOORS.get(called, DOORS.get(called.rpartition(".")[2]))
        if called == "-i":
            doors = {INPUTS}
        if called in READERS:
            doors = set()
        if doors is not None and name not in doors:
            found.append(f"{name}:{line}: {called}")
    return found


def test_every_file_goes_through_its_door() -> None:
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            found += bypasses(name, path.read_text(encoding="utf-8"))
    assert found == []


@pytest.mark.parametrize(("code", "is_bypass"), [
    ("ffmpeg.input('a.mp4')", True),
    ("subprocess.run([media.ffmpeg_path(), '-v'])", True),
    ("report('-i', path)", True),
    ("cv2.VideoCapture('a.mp4')", True),
    ("cv2.imread('a.png')", True),
    ("cv2.imdecode(data, 1)", True),
    ("import soundfile", True),
    ("from PIL import Image", True),
    ("media_input('a.mp4')", False),
    ("ffmpeg.output(a, b)", False),
])  # fmt: skip
def test_the_rule_of_doors(code: str, is_bypass: bool) -> None:
    assert bool(bypasses("app/fit.py", code)) is is_bypass
    assert bypasses(INPUTS, "ffmpeg.input('a.mp4')") == []
