"""The wrapper of the module of web exports, run with Node.js where it is installed."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from paths import HELPERS
from web_module import WASM, WebModule
from web_pages import copy_for_node

from talkhead.app.avatar import load_identity
from talkhead.app.fit import FitResult
from talkhead.app.web_export.head_file import write_head
from talkhead.progress import SilentProgress

NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="needs Node.js")
def test_the_wrapper_draws_what_the_module_draws(
    fitted: FitResult, home: Path, tmp_path: Path
) -> None:
    avatar = load_identity(fitted.name, home=home, device="cpu")
    packed, script = tmp_path / "head.bin.gz", copy_for_node(tmp_path, "head.js")
    write_head(packed, avatar, SilentProgress())
    file = gzip.decompress(packed.read_bytes())
    (tmp_path / "head.bin").write_bytes(file)
    n_mouth = avatar.idle.face.n_mouth
    command = [str(NODE), HELPERS / "check_head.mjs", script, WASM, packed, str(n_mouth)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)

    module, mouth = WebModule(), np.full(n_mouth, 0.5, np.float32)
    module.open(file)
    left, top, pixels = module.patch(3, mouth)
    height, width = pixels.shape[:2]
    assert result["patch"] == [left, top, width, height, int(pixels.sum(dtype=np.int64))]
    assert result["again"] == result["patch"]
    whole = module.head(3, mouth)
    assert result["head"] == [0, 0, *whole.shape[1::-1], int(whole.sum(dtype=np.int64))]
    facts = ("width", "height", "nFrames", "nMouth", "cropWidth", "cropHeight")
    assert [result["info"][name] for name in facts] == module.facts()
    assert result["info"]["frameRate"] == 25
    assert result["errors"] == [
        "damaged", "damaged", "version", "unsupported", "RangeError", "RangeError",
        "unsupported",
    ]  # fmt: skip
