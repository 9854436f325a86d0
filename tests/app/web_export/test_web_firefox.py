"""Exported pages in Firefox, where it is installed: a line is said to its end, without errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile
from web_browser import write_readable_site

from benchmarks import firefox, web
from talkhead.app.web_export.request import WebLine, WebRequest

FIREFOX = shutil.which("firefox") or shutil.which("firefox-esr")
N_LINE = 50

pytest.importorskip("websockets")


@pytest.mark.skipif(FIREFOX is None, reason="Firefox is not installed")
def test_a_line_is_said_in_firefox(tmp_path: Path) -> None:
    wavfile.write(tmp_path / "line.wav", 16_000, np.zeros(640 * N_LINE, np.int16))
    codes = np.linspace(-1.0, 1.0, 2 * N_LINE, dtype=np.float32).reshape(-1, 2)
    lines = (WebLine("hello", tmp_path / "line.wav"),)
    request = WebRequest(tmp_path / "site", lines, False, "Yes.")
    site = write_readable_site(request, np.zeros(2, np.float32), codes)
    with web.served(site) as address, firefox.started(str(FIREFOX)) as tab:
        tab.open(address)
        found = tab.evaluate(web.SAY_SILENTLY, "hello")
        state = tab.evaluate("() => document.querySelector('talking-head').state")
    assert tab.errors == []
    assert (found["isSaid"], state) == (True, "idle")
    indices = [one["index"] for one in found["drawn"]]
    assert indices == sorted(indices) and len({one["sum"] for one in found["drawn"]}) > 3
