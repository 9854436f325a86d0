"""Files of web exports with a fake head, for tests of the page rather than of rendering."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from talkhead.app.web_export.request import SOURCES


def write_fake_pages(folder: Path) -> None:
    """Copy the files of the page into a new folder, with a head that fake_head.js describes."""
    shutil.copytree(SOURCES, folder)
    shutil.copyfile(Path(__file__).with_name("fake_head.js"), folder / "head.js")
    (folder / "talkhead.wasm").write_bytes(b"\0asm")


def copy_for_node(folder: Path, name: str) -> Path:
    """Copy a wrapper and what it imports into a folder, as modules of Node.js; return the wrapper."""
    (folder / "package.json").write_text('{"type": "module"}')
    shutil.copyfile(SOURCES / "module.js", folder / "module.js")
    return Path(shutil.copyfile(SOURCES / name, folder / name))


def write_fake_head(path: Path, n_frames: int, n_mouth: int, box: Mapping[str, int]) -> None:
    """Write the file of that head: how often it can be asked, and where its box is."""
    path.write_text(json.dumps({"nFrames": n_frames, "nMouth": n_mouth, "box": dict(box)}))
