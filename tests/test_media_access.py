"""Media files of users are opened in one place per kind, which restricts what can be opened."""

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
ALLOWED = {
    # Inputs of ffmpeg, with the formats and protocols that it may open.
    "ffmpeg.input": {INPUTS},
    "ffmpeg.compile": {PROGRAM},
    "ffmpeg.run": set(),
    "ffmpeg.run_async": set(),
    "ffmpeg.probe": set(),
    # The program is started in one place, and its version is read in another.
    "imageio_ffmpeg.get_ffmpeg_exe": {PROGRAM},
    "ffmpeg_path": {PROGRAM, "app/doctor/installation.py", "talkhead/media/probing.py"},
    # Still images: their format and size are checked first.
    "cv2.imdecode": {IMAGES},
    "cv2.imread": set(),
    "cv2.imreadmulti": set(),
    "cv2.imdecodemulti": set(),
    "cv2.VideoCapture": set(),
    "cv2.VideoWriter": set(),
}
"""Calls, and the files that are allowed to make them."""
READERS = {"av", "PIL", "imageio", "torchaudio", "torchvision", "soundfile", "librosa", "decord"}
"""Libraries that open media files themselves."""
HOLDERS = {"av": {"app/live/webrtc.py"}}
"""Those of them that are imported for their frames alone, and where."""


def calls(code: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of each call, each `-i` in a command line, and each import."""
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
    """List the calls and imports of a file that only other files are allowed to make."""
    found = []
    for line, called in calls(code):
        called = ".".join(called.split(".")[-2:])
        allowed = ALLOWED.get(called, ALLOWED.get(called.rpartition(".")[2]))
        if called == "-i":
            allowed = {INPUTS}
        if called in READERS:
            allowed = HOLDERS.get(called, set())
        if allowed is not None and name not in allowed:
            found.append(f"{name}:{line}: {called}")
    return found


def test_media_files_are_opened_in_one_place() -> None:
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
def test_bypasses_are_found(code: str, is_bypass: bool) -> None:
    assert bool(bypasses("app/fit.py", code)) is is_bypass
    assert bypasses(INPUTS, "ffmpeg.input('a.mp4')") == []
