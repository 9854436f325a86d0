"""Exported pages in Chromium: footage, mouth and sound in step, messages, one file.

Footage and mouth tell in their colors what they show: the bars of the footage are the bits of a frame's
number, and the box of the fake head has the frame and the motion code that it was rendered for.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import wavfile
from web_browser import CHROMIUM, N_CLIP, UNTIL, WAIT, Open, opening, write_readable_site

from talkhead.app.composer.idle_clip import ping_pong
from talkhead.app.web_export.request import WebLine, WebRequest
from talkhead.app.web_export.single_page import write_page

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: make chromium")

N_LINE = 60
FIRST_GREEN, GREEN_STEP = 40, 2
REST_GREEN = 230
SAY = "async (name) => { try { return await head.say(name); } catch (error) { return error.message; } }"


def code_of(green: float) -> float:
    return (green - 128.0) / 40.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of footage and codes that can be read from the picture."""
    folder = tmp_path_factory.mktemp("browser")
    sound = np.sin(np.arange(16_000 * N_LINE // 25) / 10.0) * 8000
    wavfile.write(folder / "line.wav", 16_000, sound.astype(np.int16))
    codes = np.zeros((N_LINE, 2), np.float32)
    codes[:, 0] = [code_of(FIRST_GREEN + GREEN_STEP * i) for i in range(N_LINE)]
    lines = (WebLine("hello", folder / "line.wav"),)
    request = WebRequest(folder / "site", lines, False, "Yes.")
    return write_readable_site(request, np.float32([code_of(REST_GREEN), 0.0]), codes)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser: Any, site: Path, tmp_path: Path) -> Iterator[Open]:
    yield from opening(browser, site, tmp_path)


def read(one: dict[str, Any]) -> tuple[int, int, int]:
    """Return what a picture shows: frame of the clip, frame and code that the mouth is rendered for."""
    clip = sum(1 << i for i, value in enumerate(one["bits"]) if value > 128)
    red, green, blue, _ = one["box"]
    return clip, 16 * red + round(blue / 8), round((green - FIRST_GREEN) / GREEN_STEP)


def check_pictures(seen: list[dict[str, Any]]) -> None:
    """Check that each mouth is in its own frame.

    Where a browser is late in telling that the video shows a frame, the video may show the next one
    when it is drawn. This is rare, even on a busy machine.
    """
    n_late = 0
    for one in seen:
        clip, frame, _ = read(one)
        assert frame == one["frame"]
        if clip != ping_pong(N_CLIP, 1, frame)[0]:
            assert clip == ping_pong(N_CLIP, 1, frame + 1)[0]
            n_late += 1
    assert n_late <= 1 + len(seen) // 20


def test_footage_mouth_and_sound_are_in_step(show: Open) -> None:
    page = show()
    page.evaluate(UNTIL, ["idle"])
    page.evaluate(WAIT, 0.4)
    assert page.evaluate(SAY, "hello") is True
    page.evaluate(WAIT, 0.4)
    seen = page.evaluate("seen")
    check_pictures(seen)
    assert any(one["frame"] < before["frame"] for before, one in pairwise(seen))
    spoken = [one for one in seen if 0 <= one["index"] < N_LINE]
    indices = [one["index"] for one in spoken]
    assert indices == sorted(indices) and len(set(indices)) > N_LINE // 3
    for one in spoken:
        if one["index"] >= 3:  # before, the mouth moves from rest
            assert read(one)[2] == one["index"]
    assert page.evaluate("apart") < 2.0  # frames
    for one in (seen[0], seen[-1]):
        assert abs(one["box"][1] - REST_GREEN) <= 1
    events = page.evaluate("events")
    assert [one for one in events if one[0] in ("start", "end")] == [
        ["start", {"line": "hello"}],
        ["end", {"line": "hello", "finished": True}],
    ]
    states = [one[1]["state"] for one in events if one[0] == "statechange"]
    assert states[-3:] == ["waiting", "speaking", "idle"]


def test_a_line_is_held_and_stopped(show: Open) -> None:
    page = show()
    page.evaluate(UNTIL, ["idle"])
    page.evaluate("() => { window.said = head.say('hello'); }")
    page.evaluate(UNTIL, ["speaking"])
    page.evaluate(WAIT, 0.3)
    page.evaluate("head.pause()")
    page.evaluate(WAIT, 0.2)
    n_seen = page.evaluate("seen.length")
    page.evaluate(WAIT, 0.3)
    assert page.evaluate("[seen.length, head.state]") == [n_seen, "paused"]
    held = page.evaluate("seen.at(-1)")
    page.evaluate("head.resume()")
    page.evaluate(UNTIL, ["speaking"])
    page.evaluate(WAIT, 0.3)
    after = [one["index"] for one in page.evaluate("seen")[n_seen:] if one["state"] == "speaking"]
    assert after == sorted(after) and after[0] >= held["index"] - 2
    page.evaluate("head.stop()")
    assert page.evaluate("said") is False
    assert page.evaluate("head.state") == "idle"
    assert page.evaluate(SAY, "unheard") == "There is no line unheard."
    assert page.evaluate("head.state") == "idle"
    check_pictures(page.evaluate("seen"))


def given_line(site: Path) -> dict[str, Any]:
    """Return a line of the export as a server answers with one that is not part of it."""
    (about,) = json.loads((site / "manifest.json").read_text("utf-8"))["lines"]
    for part in ("sound", "codes"):
        about[part] = base64.b64encode((site / about[part]).read_bytes()).decode()
    return {**about, "name": "given"}


def test_a_line_that_is_not_part_of_the_export(show: Open, site: Path) -> None:
    page = show()
    page.evaluate(UNTIL, ["idle"])
    assert page.evaluate(SAY, given_line(site)) is True
    spoken = [one for one in page.evaluate("seen") if 3 <= one["index"] < N_LINE]
    assert len(spoken) > N_LINE // 3 and all(read(one)[2] == one["index"] for one in spoken)
    ended = [detail for name, detail in page.evaluate("events") if name == "end"]
    assert ended == [{"line": "given", "finished": True}]


@pytest.mark.parametrize(
    "change",
    [
        {"codes": "*"},
        {"codes": "AAAA"},
        {"n_frames": N_LINE - 1},
        {"n_frames": None},
        {"scale": [1.0]},
        {"scale": [1.0, None]},
        {"scale": None},
        {"sound": ""},
        {"sound": "AAAA"},
        {"sound": None},
    ],
)
def test_a_damaged_line_is_refused(show: Open, site: Path, change: dict[str, Any]) -> None:
    page = show()
    page.evaluate(UNTIL, ["idle"])
    refused = "The line is damaged, or of another person."
    assert page.evaluate(SAY, given_line(site) | change) == refused
    assert page.evaluate("head.state") == "idle"


def test_what_is_asked_for_last_counts(show: Open) -> None:
    page = show()
    page.evaluate(UNTIL, ["idle"])
    asked = "async () => { const said = [head.say('hello'), head.say('hello')]; "
    ended = "return Promise.all(said.map((one) => Promise.race([one, '...']))); }"
    assert page.evaluate(asked + "head.stop(); await said[1]; " + ended) == [False, False]
    assert page.evaluate("head.state") == "idle"
    assert page.evaluate(asked + "await said[0]; " + ended) == [False, "..."]
    page.evaluate(UNTIL, ["speaking"])
    late = "head.say('hello').then(String, (error) => error.message)"
    page.evaluate(f"() => {{ window.asked = {late}; head.remove(); }}")
    assert page.evaluate("asked") == "Nobody is shown here."
    assert page.evaluate("[head.state, head.lines.length]") == ["loading", 0]


def test_a_tab_in_the_background_is_in_step_on_return(show: Open) -> None:
    page = show()
    page.evaluate(UNTIL, ["idle"])
    hide = """async (hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
      document.dispatchEvent(new Event("visibilitychange"));
      await new Promise((done) => setTimeout(done, 500));
    }"""
    page.evaluate("() => { window.said = head.say('hello'); }")
    page.evaluate(UNTIL, ["speaking"])
    page.evaluate(hide, True)
    n_seen = page.evaluate("seen.length")
    page.evaluate(hide, True)
    assert page.evaluate("seen.length") == n_seen
    page.evaluate(hide, False)
    later = [one for one in page.evaluate("seen")[n_seen:] if 0 <= one["index"] < N_LINE]
    assert later and page.evaluate("apart") < 2.0  # frames
    assert page.evaluate("said") is True


EMBEDDED = """<!doctype html><title>x</title><script type="module" src="talking-head.js"></script>
<talking-head src="./" line="hello" autoplay controls {more}></talking-head>"""


SILENT = """addEventListener("click", () => { window.isAllowed = true; }, true);
window.AudioContext = class extends AudioContext {
  constructor(options) { super(options); this.suspend(); }
  resume() { return window.isAllowed ? super.resume() : new Promise(() => {}); }
};"""
"""A browser that lets nothing sound before a click. For Chromium, scripts of a test are like clicks."""


def embed(more: str = "") -> Callable[[Path], object]:
    return lambda folder: (folder / "other.html").write_text(EMBEDDED.format(more=more))


def test_a_line_waits_for_a_click_where_sound_is_not_allowed(show: Open) -> None:
    page = show(embed(), "other.html", SILENT)
    page.locator(".cover").click()
    page.evaluate(UNTIL, ["speaking"])
    page.get_by_role("button", name="Pause").click()
    page.evaluate(UNTIL, ["paused"])
    page.get_by_role("button", name="Continue").click()
    page.evaluate(UNTIL, ["speaking"])
    page.evaluate(UNTIL, ["idle"])


def test_a_silent_line_needs_no_click(show: Open) -> None:
    page = show(embed("muted"), "other.html")
    page.evaluate(UNTIL, ["speaking"])
    page.evaluate("() => { head.muted = false; }")
    page.get_by_role("button", name="Sound off").wait_for()
    page.evaluate("head.remove()")  # and nothing goes on
    assert page.evaluate("[head.worker, head.video, head.speech]") == [None, None, None]
    page.evaluate("document.body.append(head)")
    page.evaluate(UNTIL, ["idle", "waiting", "speaking"])


def flip(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 255
        (folder / name).write_bytes(data)

    return change


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (flip("head.bin"), "damaged", "The file head.bin is damaged"),
        (flip("talkhead.wasm"), "damaged", "The file talkhead.wasm is damaged"),
        (lambda site: (site / "idle.mp4").write_bytes(b"no video"), "damaged", "idle.mp4 cannot"),
        (
            lambda site: (site / "head.bin").unlink(),
            "missing",
            r"head.bin could not be loaded (404)",
        ),
        (
            lambda site: (site / "manifest.json").write_text("{"),
            "damaged",
            "manifest.json is damaged",
        ),
        (lambda site: (site / "manifest.json").write_text("{}"), "version", "another version"),
    ],
)
def test_unusable_files_have_a_message(
    show: Open, change: Callable[[Path], object], code: str, message: str
) -> None:
    page = show(change)
    page.evaluate(UNTIL, ["error"])
    alert = page.get_by_role("alert")
    assert alert.is_visible() and message in alert.inner_text()
    assert page.evaluate("[head.worker, head.video]") == [None, None]
    assert "Nobody" in page.evaluate(SAY, "hello")


def test_a_damaged_line_leaves_the_rest_usable(show: Open) -> None:
    page = show(flip("lines/hello.codes"))
    page.evaluate(UNTIL, ["idle"])
    assert "hello.codes is damaged" in page.evaluate(SAY, "hello")
    assert page.evaluate("head.state") == "idle"


def test_an_old_browser_has_a_message(show: Open) -> None:
    page = show(before="delete window.WebAssembly;")
    page.evaluate(UNTIL, ["error"])
    assert "It has no WebAssembly" in page.get_by_role("alert").inner_text()


def test_one_file_runs_without_a_server(show: Open, site: Path, tmp_path: Path) -> None:
    page = show.file(write_page(site, tmp_path / "anna.html"))  # type: ignore[attr-defined]
    page.evaluate(UNTIL, ["idle"])
    page.get_by_role("button", name="hello").click()
    page.evaluate(UNTIL, ["speaking"])
    page.evaluate(UNTIL, ["idle"])
    check_pictures(page.evaluate("seen"))


def test_the_page_is_accessible(show: Open) -> None:
    page = show()
    page.evaluate(UNTIL, ["idle"])
    page.get_by_role("img", name="anna, AI-generated").wait_for()
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
