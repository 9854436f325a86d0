"""The page of a broadcast in Chromium: sound and picture in step, interruptions, broken connections.

Each frame of sound is constant, and its loudness tells its number. The mouth tells in its color the code
that it was rendered for, which is the loudness: so the picture tells the number of its sound.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broadcasting import Server, server
from live_fakes import RATE, REST, SIZE
from web_browser import CHROMIUM, RECORD, UNTIL, WAIT, write_readable_site

from talkhead.app.web_export.request import WebRequest

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: make chromium")
__all__ = ["server"]

N_NUMBERS, STEP = 20, 0.045
NOTE_SOUND = """
window.sounds = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when) {
  sounds.push({ when, level: this.buffer.getChannelData(0)[5], rate: this.buffer.sampleRate });
  start.call(this, when);
};
"""
NOTE_PICTURES = """() => {
  window.pictures = [];
  const draw = head.draw.bind(head);
  head.draw = (drawn) => {
    draw(drawn);
    const ears = head.speech?.ears;
    if (!ears?.isAudible) return;
    pictures.push({ heard: ears.sound.heard(performance.now()), green: seen.at(-1).box[1] });
  };
}"""
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A web export of a person whose code can be read from the picture."""
    request = WebRequest(tmp_path_factory.mktemp("broadcast") / "site", (), False, "Yes.")
    return write_readable_site(request, REST, np.zeros((0, 2), np.float32))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def show(
    browser: Any, server: Server, site: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Open]:
    """A function that opens the page of a broadcast. There must be no errors in it."""
    monkeypatch.setattr(server.service.web_heads, "find", lambda name: site)
    pages, problems = [], []

    def opened(info: dict[str, Any], before: str = "") -> Any:
        page = browser.new_page(viewport={"width": 400, "height": 700})
        pages.append(page)
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.add_init_script(NOTE_SOUND + before)
        page.goto(f"http://{server.host}{info['watch_url']}")
        page.evaluate(RECORD)
        page.evaluate(NOTE_PICTURES)
        return page

    yield opened
    for page in pages:
        page.close()
    assert problems == []


@contextmanager
def speaking(server: Server, info: dict[str, Any]) -> Iterator[Any]:
    """Speak in real time, frame by frame, for the duration of a `with` block."""
    is_over = threading.Event()
    with server.own(info) as own:

        def speak() -> None:
            begun = time.monotonic()
            for number in range(10**6):
                if is_over.wait(max(0.0, begun + 0.04 * number - time.monotonic())):
                    return
                level = 32_768 * STEP * (number % N_NUMBERS + 1)
                own.send(np.full(SIZE, level, "<i2").tobytes())

        def read() -> None:
            for _ in own:
                pass

        threads = [threading.Thread(target=work) for work in (speak, read)]
        for thread in threads:
            thread.start()
        try:
            yield own
        finally:
            is_over.set()
            threads[0].join()
            own.close()
            threads[1].join()


def number_of(level: float) -> int:
    return round(level / STEP) - 1


def until(page: Any, condition: str) -> None:
    """Wait for a condition in the page, whose policy forbids `wait_for_function`."""
    limit_s = time.monotonic() + 60.0
    while not page.evaluate(condition):
        assert time.monotonic() < limit_s, condition
        page.evaluate(WAIT, 0.05)


def differences(page: Any) -> list[int]:
    """Return by how many frames pictures are ahead of the sound that is heard while they are drawn."""
    pictures, sounds = page.evaluate("[pictures, sounds]")
    found = []
    for picture in pictures:
        number = number_of((picture["green"] - 128.0) / 40.0)
        heard = [one for one in sounds if 0.0 <= picture["heard"] - one["when"] < 0.04]
        if heard and number >= 0:
            apart = number - number_of(heard[-1]["level"])
            found.append((apart + N_NUMBERS // 2) % N_NUMBERS - N_NUMBERS // 2)
    return found


def check_step(found: list[int]) -> None:
    """Check that most pictures are those of the sound that is heard, or one frame before or after."""
    assert len(found) > 10
    assert abs(float(np.median(found))) <= 1 and np.mean(np.abs(found) <= 1) > 0.8


def begin_watching(page: Any) -> None:
    """Wait until the broadcast is shown with its sound."""
    page.evaluate(UNTIL, ["watching"])
    if page.locator(".cover").is_visible():
        page.locator(".cover").click()
    until(page, "head.speech.ears.isAudible")


def test_sound_and_picture_are_in_step(server: Server, show: Open) -> None:
    info = server.begin()
    page = show(info)
    with speaking(server, info):
        begin_watching(page)
        until(page, "pictures.length > 100")
        found = differences(page)
        print(
            np.bincount(np.array(found) + 10),
            page.evaluate("[head.broadcast.waitingMs, head.broadcast.nLate]"),
        )
        assert len(found) > 50
        assert abs(float(np.median(found))) <= 1 and np.mean(np.abs(found) <= 1) > 0.8
        sounds = page.evaluate("sounds")
        places = np.array([one["when"] * RATE for one in sounds])
        assert {one["rate"] for one in sounds} == {RATE}
        np.testing.assert_allclose(places, np.rint(places), atol=1e-6)  # no sample is split
        steps = np.diff(places)
        assert np.mean(np.rint(steps) == SIZE) > 0.8  # no gaps
        about = page.evaluate("head.broadcast")
        assert about["identity"] == "anna" and about["synthetic"]
        assert "Consent: Anna B." in page.inner_text("footer")
        problems = axe.Axe().run(page).response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in problems] == []
    page.evaluate(UNTIL, ["idle"])
    assert page.inner_text("#status") == "The broadcast has ended."
    ends = [one for one in page.evaluate("events") if one[0] in ("start", "end", "error")]
    assert ends[-1] == ["end", {"line": "broadcast", "finished": True}]
    assert all(one[0] != "error" for one in ends)


AGAIN = "() => { pictures.length = sounds.length = 0; }"
HIDE = """async (hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_it_goes_on_after_what_disturbs_it(server: Server, show: Open) -> None:
    info = server.begin()
    page = show(info)
    with speaking(server, info) as own:
        begin_watching(page)
        page.evaluate("head.speech.ears.socket.close(3000)")
        page.evaluate(UNTIL, ["waiting"])
        alert = page.get_by_role("alert")
        assert "no connection" in alert.inner_text()
        assert page.evaluate("events.at(-1)[0]") == "statechange"
        assert page.evaluate("events.at(-2)") == [
            "error",
            {
                "code": "broadcast",
                "message": "There is no connection to the broadcast. It is tried again.",
            },
        ]
        page.evaluate(UNTIL, ["watching"])
        assert not alert.is_visible()

        own.send('{"type": "interrupt"}')
        until(page, "head.speech.ears.epoch === 1")
        page.evaluate(HIDE, True)
        page.evaluate(WAIT, 5.0)
        n_hidden = page.evaluate("pictures.length")
        page.evaluate(WAIT, 0.3)
        assert page.evaluate("pictures.length") == n_hidden
        assert page.evaluate("head.speech.ears.codes.size") <= 100
        page.evaluate(HIDE, False)
        page.evaluate(AGAIN)
        until(page, "pictures.length > 30")
        check_step(differences(page))

        page.evaluate("() => { head.muted = true; pictures.length = sounds.length = 0; }")
        before = page.evaluate("head.speech.ears.index")
        until(page, f"head.speech.ears.index > {before} + 20")
        assert page.evaluate("[sounds.length, head.state]") == [0, "watching"]
        page.evaluate("() => { head.muted = false; }")
        until(page, "pictures.length > 30")
        check_step(differences(page))
        starts = [one for one in page.evaluate("events") if one[0] == "start"]
        assert starts in ([], [["start", {"line": "broadcast"}]])  # before they were noted, or once


def test_what_cannot_be_watched_has_a_message(server: Server, show: Open) -> None:
    info = server.begin()
    page = show(info)
    page.evaluate(UNTIL, ["watching"])
    watch = "(url) => head.watch(url).catch((error) => `${error.code}: ${error.message}`)"
    found = page.evaluate(watch, "/watch/wrong/live")
    assert found == (
        "broadcast: The broadcast cannot be watched: there is no such broadcast; it may have ended."
    )
    assert page.get_by_role("alert").inner_text() in found
    assert page.evaluate("head.state") == "idle"
    for address in ("http://[", "ftp://127.0.0.1/live"):
        assert "Check its address" in page.evaluate(watch, address)
        assert "Check its address" in page.get_by_role("alert").inner_text()
        assert page.evaluate("head.state") == "idle"
    for rest in ([0, 0, 0], [0, 0.001]):
        page.evaluate("(rest) => { head.rest = Float32Array.from(rest); }", rest)
        assert "another person" in page.evaluate(watch, f"{info['watch_url']}live")
    page.evaluate("() => { head.rest = new Float32Array(2); }")
    page.evaluate(f"() => {{ window.watched = head.watch('{info['watch_url']}live'); }}")
    page.evaluate(UNTIL, ["watching"])
    assert not page.get_by_role("alert").is_visible()
    assert page.inner_text("#status") == "Live"
    page.evaluate("head.stop()")
    assert page.evaluate("watched") is False
    assert page.inner_text("#status") == ""
    server.wait_for(lambda: server.sessions.n_viewers == 0)
