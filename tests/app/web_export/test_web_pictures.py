"""Pictures of exported pages in Chromium: the mouths of a line are those of `talkhead speak`."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy.io import wavfile
from tiny import LINE
from web_browser import CHROMIUM

from benchmarks import web
from talkhead.app.avatar import load_identity
from talkhead.app.fit import FitResult
from talkhead.app.web_export import export, head_file
from talkhead.app.web_export.build_modules import PAGE

pytest.importorskip("playwright.sync_api")

MIN_MOUTH_DB, MIN_SPEAK_DB = 50.0, 46.0
"""Lower than for people who are fitted for longer: the color match of this head varies between frames."""


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: make chromium")
def test_mouths_of_a_line_are_those_of_speak(
    fitted: FitResult, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "SOURCES", PAGE)  # other tests draw heads of their own
    monkeypatch.setattr(export, "write_head", head_file.write_head)
    rate, samples = wavfile.read(LINE)
    sound, site = tmp_path / "line.wav", tmp_path / "site"
    wavfile.write(sound, rate, samples[: 2 * rate])
    export.export_web(fitted.name, output=site, lines=[sound], home=home)
    avatar = load_identity(fitted.name, renderer="gaussian", device="cpu", home=home)
    with web.served(site) as address:
        found = web.speech(site, address, str(CHROMIUM), avatar, sound)
    assert found["pictures"] > 3
    assert found["steps_max"] <= 0.501
    assert found["mouth_db"] > MIN_MOUTH_DB
    assert found["speak_db"] > MIN_SPEAK_DB
