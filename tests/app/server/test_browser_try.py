"""The studio page in Chromium: a line is tried with the element <talking-head>."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import LINE, Work
from test_browser import Open, address, axe, browser, live_makers, pytestmark, show, wait_until
from web_browser import RECORD, readable_person

from talkhead.app.server.avatars import Avatars
from talkhead.app.web_export import export, request

__all__ = ["address", "browser", "live_makers", "pytestmark", "show"]

N_LINE = 50
FIRST_GREEN, GREEN_STEP, REST_GREEN = 40, 2, 230
STAGE = "#speak-stage talking-head"


def code_of(green: float) -> float:
    return (green - 128.0) / 40.0


@pytest.fixture(autouse=True)
def person(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Anna, whose mouth is greener with each frame of a line."""
    codes = np.zeros((N_LINE, 2), np.float32)
    codes[:, 0] = [code_of(FIRST_GREEN + GREEN_STEP * i) for i in range(N_LINE)]
    rest = np.array([code_of(REST_GREEN), 0.0], np.float32)
    loaded = readable_person(monkeypatch, tmp_path, rest, codes)
    monkeypatch.setattr(Avatars, "load", lambda _, name: loaded)
    return loaded


def open_speak(show: Open, **more: Any) -> Any:
    page = show(**more)
    page.get_by_role("tab", name="Speak").click()
    page.set_input_files("[name=audio]", LINE)
    return page


def test_a_line_is_tried(show: Open, work: Work) -> None:
    page = open_speak(show)
    page.get_by_role("button", name="Try it").click()
    page.wait_for_selector(STAGE)
    page.evaluate(RECORD)
    wait_until(page, "events.some(([name]) => name === 'end')")
    ended = [detail for name, detail in page.evaluate("events") if name == "end"]
    assert ended == [{"line": "line.wav", "finished": True}]
    spoken = {one["index"]: one["box"][1] for one in page.evaluate("seen") if one["index"] >= 3}
    assert len(spoken) > N_LINE // 3  # the mouth moves
    for index, green in spoken.items():
        if index < N_LINE:
            assert abs(green - FIRST_GREEN - GREEN_STEP * index) <= 1
    assert work.tasks == [] and page.query_selector(".notice") is None
    page.get_by_role("button", name="Say it again").click()
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Say it again").wait_for()
    result = axe.Axe().run(page, context="#speak-stage")
    assert result.violations_count == 0, result.generate_report()


def test_progress_is_shown_and_leaving_is_silent(
    show: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, write = threading.Event(), export.write_head

    def wait(path: Path, avatar: Any, progress: Any) -> None:
        with progress.step("Writing the head", total=1):
            go.wait(30)
        write(path, avatar, progress)

    monkeypatch.setattr(export, "write_head", wait)
    page = open_speak(show)
    button = page.get_by_role("button", name="Try it")
    button.click()
    page.locator("#speak-stage progress").wait_for()
    page.get_by_text("Writing the head").wait_for()
    page.get_by_role("tab", name="People").click()  # while it is being prepared
    wait_until(page, "!document.querySelector('#speak-stage .try')")
    page.get_by_role("tab", name="Speak").click()
    button.click()
    page.get_by_text("Writing the head").wait_for()
    go.set()
    page.wait_for_selector(STAGE)
    wait_until(page, f"document.querySelector('{STAGE}').state === 'speaking'")
    page.get_by_role("tab", name="People").click()
    wait_until(page, f"!document.querySelector('{STAGE}')")


def test_errors_are_shown(show: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    page = show()
    page.get_by_role("tab", name="Speak").click()
    button = page.get_by_role("button", name="Try it")
    button.click()
    page.locator(".notice", has_text="Choose a recording first.").wait_for()
    page.set_input_files("[name=audio]", {"name": "a.wav", "mimeType": "", "buffer": b"noise"})
    button.click()
    page.locator(".notice", has_text="A.wav: is not a video").wait_for()
    page.set_input_files("[name=audio]", LINE)
    with monkeypatch.context() as patch:
        patch.setattr(request, "RENDERER", "gaussian")
        button.click()
        page.locator(".notice", has_text="a web page shows gaussian only").wait_for()
    page.locator("#speak-stage .empty").wait_for()
    page.route("**/lines", lambda route: route.fulfill(json={"name": "line.wav", "codes": "*"}))
    button.click()
    page.locator(".notice", has_text="The line is damaged").wait_for()
    page.unroute("**/lines")
    page.route("**/head.bin*", lambda route: route.fulfill(body="damaged"))
    button.click()
    page.locator(".notice", has_text="The file head.bin is damaged").wait_for()
