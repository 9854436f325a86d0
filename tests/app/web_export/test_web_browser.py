"""Exported pages in Chromium: footage, mouth and sound in step, messages, one file.

Footage and mouth tell in their colors what they show: the bars of the footage are the bits of a frame's
number, and the box of the fake head has the frame and the motion code that it was rendered for.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.io import wavfile
from web_pages import write_fake_head, write_fake_pages

from talkhead import media
from talkhead.app.composer.idle_clip import ping_pong
from talkhead.app.web_export import export, line_file
from talkhead.app.web_export.request import WebLine, WebRequest
from talkhead.app.web_export.single_page import write_page
from talkhead.progress import SilentProgress
from talkhead.types import Float32, UInt8

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: make chromium")

N_CLIP, WIDTH, HEIGHT, N_BITS = 40, 160, 120, 8
N_FRAMES, N_LINE = 2 * N_CLIP - 2, 60
BOX = {"x": 50, "y": 60, "width": 60, "height": 30}
FIRST_GREEN, GREEN_STEP = 40, 2
REST_GREEN = 230
Open = Callable[..., Any]

UNTIL = """states => new Promise((done, fail) => {
  const head = document.querySelector("talking-head"), begun = performance.now();
  const check = () => {
    if (states.includes(head.state)) done();
    else if (performance.now() > begun + 30000) fail(new Error(`still ${head.state}`));
    else setTimeout(check, 10);
  };
  check();
})"""
WAIT = "seconds => new Promise((done) => setTimeout(done, 1000 * seconds))"
RECORD = """() => {
  window.head = document.querySelector("talking-head");
  window.seen = [];
  window.events = [];
  const codeAt = head.codeAt.bind(head);
  head.codeAt = (...given) => {
    const code = codeAt(...given), { index, heard } = head.statistics;
    if (index >= 0) window.apart = Math.max(window.apart ?? 0, Math.abs(25 * heard - index));
    return code;
  };
  for (const name of ["ready", "start", "end", "error", "statechange"]) {
    head.addEventListener(name, ({ detail }) => events.push([name, detail]));
  }
  const draw = head.draw.bind(head), context = head.canvas.getContext("2d");
  const pixel = (x, y) => [...context.getImageData(x, y, 1, 1).data];
  head.draw = (drawn) => {
    draw(drawn);
    seen.push({ frame: drawn.frame, index: drawn.index, state: head.state, box: pixel(80, 75),
      bits: Array.from({ length: 8 }, (_, i) => pixel(20 * i + 10, 20)[0]) });
  };
}"""
SAY = "async (name) => { try { return await head.say(name); } catch (error) { return error.message; } }"


def bars(number: int) -> UInt8:
    frame = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for bit in range(N_BITS):
        frame[:50, 20 * bit : 20 * (bit + 1)] = 235 if number >> bit & 1 else 20
    return frame


def code_of(green: float) -> float:
    return (green - 128.0) / 40.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of footage and codes that can be read from the picture."""
    folder = tmp_path_factory.mktemp("browser")
    media.write_video(folder / "clip.mp4", map(bars, range(N_CLIP)), keyframe_every=25)
    sound = np.sin(np.arange(16_000 * N_LINE // 25) / 10.0) * 8000
    wavfile.write(folder / "line.wav", 16_000, sound.astype(np.int16))
    write_fake_pages(folder / "pages")

    class Clip(SimpleNamespace):
        def __len__(self) -> int:
            return N_CLIP

    clip = Clip(
        path=folder / "clip.mp4",
        background=np.zeros((HEIGHT, WIDTH, 3), np.uint8),
        face=SimpleNamespace(n_mouth=2),
    )
    scaling = SimpleNamespace(rest=np.float32([code_of(REST_GREEN), 0.0, 0.0]))
    avatar = SimpleNamespace(
        name="anna", idle=clip, encoder=None, predictor=SimpleNamespace(scaling=scaling)
    )

    def predict(*_: object) -> Float32:
        codes = np.zeros((N_LINE, 3), np.float32)
        codes[:, 0] = [code_of(FIRST_GREEN + GREEN_STEP * i) for i in range(N_LINE)]
        return codes

    def write_head(path: Path, _: object) -> None:
        write_fake_head(path, N_FRAMES, 2, BOX)

    made: Any = avatar
    lines = (WebLine("hello", folder / "line.wav"),)
    request = WebRequest(folder / "site", lines, False, "Yes.")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "SOURCES", folder / "pages")
        patch.setattr(export, "write_head", write_head)
        patch.setattr(line_file, "predict_motion", predict)
        request.output.mkdir()
        export.write_site(made, request, request.output, folder, SilentProgress())
    return request.output


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and prints nothing."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def show(browser: Any, site: Path, tmp_path: Path) -> Iterator[Open]:
    """A function that serves a copy of the export, changed by `change`, and opens its page.

    There must be no errors in the page and no requests elsewhere.
    """
    closing, problems = [], []

    def opened(
        change: Callable[[Path], object] = lambda _: None, path: str = "", before: str = ""
    ) -> Any:
        folder = tmp_path / f"site-{len(closing)}"
        shutil.copytree(site, folder)
        change(folder)
        handler = functools.partial(Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever).start()
        page = new_page(f"http://127.0.0.1:{server.server_port}/{path}", before)
        closing.append((server, page))
        return page

    def new_page(address: str, before: str = "") -> Any:
        origin = address[: address.index("/", 8)]
        page = browser.new_page(viewport={"width": 400, "height": 700})
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda one: note(one.url, origin))
        page.add_init_script(before)
        page.goto(address)
        page.evaluate(RECORD)
        return page

    def note(url: str, origin: str) -> None:
        if not url.startswith((origin, "blob:", "data:")):
            problems.append(url)

    opened.file = lambda path: closing.append((None, new_page(path.as_uri()))) or closing[-1][1]  # type: ignore[attr-defined]
    yield opened
    for server, page in closing:
        page.close()
        if server is not None:
            server.shutdown()
            server.server_close()
    assert problems == []


def read(one: dict[str, Any]) -> tuple[int, int, int]:
    """Return what a picture shows: frame of the clip, frame and code that the mouth is rendered for."""
    clip = sum(1 << i for i, value in enumerate(one["bits"]) if value > 128)
    red, green, blue, _ = one["box"]
    return clip, 16 * red + round(blue / 8), round((green - FIRST_GREEN) / GREEN_STEP)


def check_pictures(seen: list[dict[str, Any]]) -> None:
    """Check that each mouth is in its own frame."""
    for one in seen:
        clip, frame, _ = read(one)
        assert frame == one["frame"]
        assert clip == ping_pong(N_CLIP, 1, frame)[0]


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
