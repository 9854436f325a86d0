"""The Live tab in Chromium with a fitted person: the head alone over backgrounds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from serving import TOKEN
from test_browser import Open, address, browser, live_makers, pytestmark, show

from talkhead.app.fit import FitResult
from talkhead.app.home.identities import Home
from talkhead.app.output.verification import verify
from talkhead.app.server import live, live_sessions
from talkhead.app.server.settings import ServerSettings

__all__ = ["address", "browser", "live_makers", "pytestmark", "show"]

CORNER = """() => {
  const shown = document.getElementById("live-picture"), copy = document.createElement("canvas");
  [copy.width, copy.height] = [shown.width, shown.height];
  const context = copy.getContext("2d");
  context.drawImage(shown, 0, 0);
  return [copy.width, copy.height, ...context.getImageData(copy.width - 3, 2, 1, 1).data].slice(0, 5);
}"""


def wait_for_color(page: Any, color: tuple[int, int, int]) -> tuple[int, int]:
    """Wait until a corner of the picture has a color, as far as codecs keep it; returns the size."""
    end = time.monotonic() + 60.0
    while True:
        width, height, *found = page.evaluate(CORNER)
        if np.abs(np.array(found) - color).max() < 12:
            return width, height
        assert time.monotonic() < end, f"{found} instead of {color}"
        page.wait_for_timeout(100)


def test_live_backgrounds(
    show: Open,
    live_makers: list[Any],
    fitted: FitResult,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The head alone over a color and an image, by keyboard, on a narrow screen; changes begin anew."""
    monkeypatch.setattr(
        live_sessions, "keep_pace", lambda *given: True
    )  # however busy this machine is
    make = live.session_maker(Home(home), ServerSettings(home, token=TOKEN))
    renamed = {"identity": fitted.name}
    live_makers.append(lambda asked: make(asked.model_copy(update=renamed)))
    page = show(360)
    page.get_by_role("tab", name="Live").click()
    tab = page.locator("#live")
    tab.get_by_text("Picture", exact=True).focus()
    page.keyboard.press("Enter")
    tab.get_by_label("Show").focus()
    page.keyboard.press("ArrowDown")
    tab.get_by_label("Background").select_option(label="A color")
    tab.get_by_label("Color", exact=True).fill("#c02040")
    page.get_by_role("button", name="Start").click()
    page.wait_for_selector("#live-picture:not([hidden])")
    head_size = wait_for_color(page, (0xC0, 0x20, 0x40))
    page.get_by_role("button", name="Speak into the microphone").click()
    page.get_by_role("button", name="Stop the microphone").wait_for()
    tab.get_by_label("Color", exact=True).fill("#104080")
    wait_for_color(page, (0x10, 0x40, 0x80))
    page.get_by_role("button", name="Stop the microphone").wait_for()  # it still listens
    image = tmp_path / "green.png"
    cv2.imwrite(str(image), np.full((120, 160, 3), (60, 160, 30), np.uint8))
    tab.get_by_label("Background").select_option(label="An image or video")
    tab.get_by_label("File", exact=True).set_input_files(image)
    wait_for_color(page, (30, 160, 60))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    with page.expect_download() as download:
        page.get_by_role("link", name="Signed statement").click()
    verdict = verify(download.value.path(), home=home)
    assert verdict.ok and verdict.local and verdict.claims["mode"] == "head"
    tab.get_by_label("Show").select_option(label="Their own footage")
    end = time.monotonic() + 60.0
    while tuple(page.evaluate(CORNER)[:2]) == head_size:
        assert time.monotonic() < end
        page.wait_for_timeout(100)
    page.get_by_role("button", name="End").click()
    page.get_by_text("Ended").wait_for()
