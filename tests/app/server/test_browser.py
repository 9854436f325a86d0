"""The studio page in Chromium: a person is fitted and speaks; keyboard, sizes, accessibility."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from live_fakes import RATE, ColoredPictures, make_engine
from serving import LINE, TOKEN, Quick, Work
from test_live import make as make_live
from test_server_identities import footage

from talkhead.app.live.session import LiveSession
from talkhead.app.server import live
from talkhead.app.server.application import make_application
from talkhead.app.server.live import LiveRequest, LiveSessions
from talkhead.app.server.service import Service
from talkhead.app.server.settings import Limits, ServerSettings

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: make chromium")

__all__ = ["footage"]

TABS = ("people", "fit", "speak", "live")
FLAGS = (
    "--no-sandbox",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)
Open = Callable[..., Any]


@pytest.fixture(scope="module")  # an event loop runs in this thread while it is open
def browser() -> Iterator[Any]:
    """Chromium with a microphone that beeps."""
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def live_makers() -> list[Callable[[LiveRequest], tuple[str, LiveSession]]]:
    """The last one begins the live sessions of the server."""
    return [make_live]


@pytest.fixture
def address(people: Path, work: Work, clip: bytes, live_makers: list[Any]) -> Iterator[str]:
    """Address of a server whose jobs are fakes."""
    (people / "identities" / "anna" / "idle.mp4").write_bytes(clip)  # the portrait is taken from it
    settings = ServerSettings(people, port=0, token=TOKEN, limits=replace(Limits(), free_bytes=0))
    service = Service(settings, lambda: Quick(service.store, work))
    app = make_application(service)
    app.state.live = LiveSessions(lambda request: live_makers[-1](request), n_most=1)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    work.go.set()
    service.is_stopping = server.should_exit = True
    thread.join()


@pytest.fixture
def show(browser: Any, address: str) -> Iterator[Open]:
    """A function that opens the page. At the end, there must be no errors or requests to other
    servers.
    """
    contexts, problems = [], []

    def note_request(request: Any) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            problems.append(request.url)

    def opened(
        width: int = 1280, fragment: str = f"#token={TOKEN}", before: str = "", **more: Any
    ) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, permissions=["microphone"], **more
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", note_request)
        page.add_init_script(before)
        page.goto(f"{address}/{fragment}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def test_a_person_speaks(show: Open, work: Work) -> None:
    work.go.clear()
    page = show()
    page.get_by_role("article", name="anna").get_by_role("button", name="Speak").click()
    assert TOKEN not in page.url
    page.wait_for_function("document.querySelector('#speak-form select').value === 'anna'")
    page.get_by_role("button", name="Make the video").click()
    page.get_by_text("Choose a recording first.").wait_for()
    page.set_input_files("[name=audio]", LINE)
    page.locator("#speak").get_by_text("Picture", exact=True).click()
    page.fill("[name=height]", "240")
    page.get_by_role("button", name="Make the video").click()
    page.wait_for_selector("#speak-stage progress")
    assert page.query_selector(".notice") is None
    work.go.set()
    page.wait_for_selector("#speak-stage video")
    page.wait_for_function("document.querySelector('#speak-stage video').readyState >= 2")
    assert dict(work.tasks[0].options) == {"height": 240}
    with page.expect_download() as download:
        page.locator("#speak-stage").get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "anna-line.mp4"
    page.reload()
    page.get_by_role("tab", name="Speak").click()
    row = page.get_by_role("article", name="line.wav")
    row.get_by_role("button", name="Delete").click()
    page.locator("#confirm").get_by_role("button", name="Delete").click()
    page.get_by_text("No videos yet.").wait_for()


def test_the_microphone(show: Open, work: Work) -> None:
    page = show()
    page.get_by_role("tab", name="Speak").click()
    page.get_by_label("Microphone").check()
    page.get_by_role("button", name="Record").click()
    page.get_by_role("button", name="Stop").wait_for()
    page.wait_for_timeout(700)
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Recorded,").wait_for()
    page.get_by_role("button", name="Make the video").click()
    page.wait_for_selector("#speak-stage video")
    sound = Path(work.tasks[0].audio)
    assert sound.read_bytes()[:4] == b"RIFF" and sound.stat().st_size > 20_000


def test_a_fit(show: Open, work: Work, footage: bytes, tmp_path: Path) -> None:
    video = tmp_path / "Berta B.mp4"
    video.write_bytes(footage)
    page = show()
    page.get_by_role("tab", name="Fit").click()
    button = page.locator("#fit-form [type=submit]")
    for missing, fill in (
        ("Choose the footage", lambda: page.set_input_files("[name=video]", video)),
        ("State who is shown", lambda: page.fill("[name=consent]", "Berta, in writing")),
        ("Confirm that the person", lambda: page.check("[name=agreed]")),
    ):
        button.click()
        page.locator(".notice", has_text=missing).wait_for()
        fill()
    assert work.tasks == []
    button.click()
    page.get_by_role("heading", name="Berta-B can speak now").wait_for()
    assert work.tasks[0].options["consent"] == "Berta, in writing"
    page.get_by_role("tab", name="People").click()
    card = page.get_by_role("article", name="Berta-B")
    card.get_by_role("button", name="Delete").click()
    page.locator("#confirm").get_by_role("button", name="Keep").click()
    card.get_by_role("button", name="Delete").click()
    page.locator("#confirm").get_by_role("button", name="Delete").click()
    page.locator(".notice", has_text="Berta-B was deleted: identities/Berta-B").wait_for()
    card.wait_for(state="detached")


def test_live(show: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = np.full(2 * RATE, 5000, np.int16)
    monkeypatch.setattr(live, "synthesize", lambda text, url: (spoken, RATE))
    page = show()
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start").click()
    page.wait_for_selector("#live-picture:not([hidden])")
    page.fill("#live-text", "Good morning.")
    page.get_by_role("button", name="Say it").click()
    page.locator("#live-status", has_text="Speaking").wait_for()
    page.get_by_role("button", name="Interrupt").click()
    page.locator("#live-status", has_text="Silent").wait_for()
    page.get_by_role("button", name="Speak into the microphone").click()
    # Two seconds of microphone audio are returned as pictures, not only the first block.
    end = time.monotonic() + 30.0
    while int(page.get_attribute("#live-meter", "data-n") or 0) < 50:
        assert time.monotonic() < end
        page.wait_for_timeout(100)
    page.get_by_text("ms from the microphone to the picture").wait_for()
    page.get_by_role("button", name="Stop the microphone").click()
    page.get_by_role("button", name="End").click()
    page.get_by_text("Ended").wait_for()


COLORS = """() => {
  const shown = document.getElementById("live-picture"), copy = document.createElement("canvas");
  [copy.width, copy.height] = [shown.width, shown.height];
  const context = copy.getContext("2d");
  context.drawImage(shown, 0, 0);
  const at = (x) => [...context.getImageData(x, 24, 1, 1).data].slice(0, 3);
  return [copy.width, copy.height, at(8), at(56)];
}"""


@pytest.mark.parametrize(
    ("codec", "before"),
    [
        ("vp8", ""),
        ("jpeg", "delete window.VideoDecoder"),
        ("vp8", "delete HTMLCanvasElement.prototype.transferControlToOffscreen"),
        (
            "jpeg",
            "delete window.VideoDecoder; window.Worker = class { constructor() { throw 0; } }",
        ),
        ("vp8", "Worker = class extends Worker { constructor() { super('/static/none.js'); } }"),
    ],
)
def test_pictures_of_either_codec_are_shown(
    show: Open, live_makers: list[Any], codec: str, before: str
) -> None:
    asked = []

    def make_colored(request: LiveRequest) -> tuple[str, LiveSession]:
        asked.append(request.codec)
        engine, _ = make_engine(ColoredPictures(), sample_rate=request.sample_rate)
        return "anna", LiveSession(engine=engine)

    live_makers.append(make_colored)
    page = show(before=before)
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start").click()
    page.wait_for_selector("#live-picture:not([hidden])")
    page.locator(f"#live-meter[data-codec={codec}]").wait_for(state="attached")
    assert asked == [codec]
    width, height, left, right = page.evaluate(COLORS)
    assert (width, height) == (64, 48)
    assert np.abs(np.subtract(left, ColoredPictures.COLOR)).max() < 12
    assert np.abs(np.subtract(right, 255)).max() < 12
    page.get_by_role("button", name="Interrupt").click()
    page.get_by_role("button", name="End").click()
    page.get_by_text("Ended").wait_for()


def test_an_error_of_the_worker_is_shown(show: Open) -> None:
    worker = """Worker = class {
      constructor() { setTimeout(() => this.onmessage({ data: { type: "ready" } })); }
      postMessage() { this.onerror({ message: "out of memory" }); }
    }"""
    page = show(before=worker)
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start").click()
    page.locator(".notice", has_text="Pictures cannot be shown (out of memory)").wait_for()
    page.get_by_role("button", name="End").click()


DRAW = """async () => {
  const { Video, now } = await import("/static/live-video.js");
  const canvas = document.createElement("canvas"), drawn = [], played = [];
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg"));
  const video = new Video(({ type, index }) => (type === "played" ? played : drawn).push(index));
  video.setCanvas(canvas);
  video.reset({ size: [4, 4] });
  const add = async (index, more) => { // and wait until it has been decoded
    const bytes = new Uint8Array(await blob.arrayBuffer());
    video.add({ index, epoch: 0, flags: 8, codec: 0, bytes, ...more });
    const made = video.newest;
    while (!made.image && made.uses > 0) await new Promise((done) => setTimeout(done, 5));
  };
  const steps = [];
  const note = () => steps.push(drawn.join());
  await add(0, { atOnce: true }); note();                 // a microphone: on arrival
  await add(1, { atOnce: false }); note();                // a line of a synthesizer: with its sound
  video.tick(1); note();
  video.clock = { index: 1, at: now() + 1e6 };            // much sound waits: not so soon
  await add(2, { atOnce: true }); note();
  video.tick(2); note();
  video.add({ index: 3, epoch: 0, flags: 4, codec: 0, bytes: null, atOnce: true }); note(); // repeated
  video.tick(2); note();                                  // never back
  await add(4, { atOnce: false });
  video.forget();
  video.tick(4); note();                                  // interrupted
  video.add({ index: 5, epoch: 1, flags: 0, codec: 1, bytes: new Uint8Array(4), atOnce: true }); note();
  return [steps, played, canvas.width];
}"""


def test_pictures_are_drawn_when_they_are_due(show: Open) -> None:
    steps, played, width = show().evaluate(DRAW)
    request = "0,1,2,3,"  # the last one has no number: a key frame is asked for
    assert steps == ["0", "0", "0,1", "0,1", "0,1,2", "0,1,2,3", "0,1,2,3", "0,1,2,3", request]
    assert played == [1, 2]  # once each; the others were not on the canvas when their sound began
    assert width == 4


DECODE_LATE = """async () => {
  const { Video, MOST_WAITING } = await import("/static/live-video.js");
  const canvas = document.createElement("canvas"), decode = createImageBitmap, begun = [], drawn = [];
  window.createImageBitmap = () => new Promise((done) => begun.push(done));
  const video = new Video(({ index }) => drawn.push(index));
  video.setCanvas(canvas);
  video.reset({ size: [4, 4] });
  const add = (index, epoch, atOnce) => {
    video.add({ index, epoch, flags: 8, codec: 0, bytes: new Uint8Array(4), atOnce });
    return video.newest;
  };
  const steps = [];
  const finish = async (n) => { // decoding the one that was added as the n-th
    begun[n](await decode(canvas));
    await new Promise((done) => setTimeout(done));
    steps.push(drawn.join());
  };
  add(0, 0, true); add(1, 0, true);                       // 1 is shown before 0 has been decoded
  await finish(0); await finish(1);
  add(2, 0, true); add(3, 0, true);                       // decoded in the other order: never back
  await finish(3); await finish(2);
  add(4, 0, false); add(5, 1, true);                      // 4 was interrupted
  await finish(4); await finish(5);
  add(6, 1, true); add(7, 1, true);
  video.reset({ size: [4, 4] });
  add(8, 0, true);                                        // of the next session
  await finish(6); await finish(7); await finish(8);
  const first = add(9, 0, false);                         // playback stands still
  await finish(9);
  for (let index = 10; index < 10 + MOST_WAITING; index++) add(index, 0, false);
  return [steps, first.image === null, video.pictures.size === MOST_WAITING];
}"""


def test_pictures_that_are_decoded_late_are_drawn(show: Open) -> None:
    steps, is_first_released, is_bounded = show().evaluate(DECODE_LATE)
    shown = ["0", "0,1", "0,1,3", "0,1,3", "0,1,3", "0,1,3,5"]
    assert steps == [*shown, "0,1,3,5", "0,1,3,5", "0,1,3,5,8", "0,1,3,5,8"]
    assert is_first_released and is_bounded


END = """async () => {
  const { Video } = await import("/static/live-video.js");
  const requests = [], closed = [];
  const video = new Video(({ command }) => requests.push(command.type));
  const { port2 } = new MessageChannel();
  video.take({ type: "reset", size: [4, 4] }, port2);
  port2.close = () => closed.push("port");
  video.decoder = { state: "configured", close: () => closed.push("decoder") };
  const picture = { index: 0, uses: 1, image: { close: () => closed.push("picture") } };
  video.pictures.set(0, picture);
  video.take({ type: "reset" });
  const ended = [...closed];
  video.newest = picture;
  video.recover();                                        // decoding failed: nothing repeats it
  video.add({ index: 1, epoch: null, flags: 4, codec: 1, bytes: null, atOnce: false });
  return [ended, video.port, video.pictures.size, requests];
}"""


def test_nothing_outlives_a_session(show: Open) -> None:
    closed, port, n_waiting, requests = show().evaluate(END)
    assert sorted(closed) == ["decoder", "picture", "port"] and port is None
    assert n_waiting == 0 and requests == ["keyframe"]


def wait_until(page: Any, condition: str) -> None:
    """Wait for a condition in JavaScript. The page's policy forbids `wait_for_function` to wait."""
    end = time.monotonic() + 30.0
    while not page.evaluate(condition):
        assert time.monotonic() < end
        page.wait_for_timeout(20)


HOLD_SOUND = """const load = AudioWorklet.prototype.addModule;
AudioWorklet.prototype.addModule = async function (...given) {
  await load.apply(this, given);
  if (!window.release) await new Promise((done) => { window.release = done; });
}"""
HOLD_REQUEST = """const send = fetch;
fetch = async (path, given) => {
  const answer = await send(path, given);
  if (path === "/v1/live" && !window.release) await new Promise((done) => { window.release = done; });
  return answer;
}"""
HOLD_WORKER = """Worker = class extends Worker {
  set onmessage(call) {
    super.onmessage = window.release ? call : (event) => { window.release = () => call(event); };
  }
}"""
NEVER_OPEN = """WebSocket = class extends WebSocket {
  constructor(...given) {
    if (window.release) return super(...given);
    window.release = () => {};
    return { close() { this.onclose({ reason: "" }); } };
  }
}"""


@pytest.mark.parametrize(
    ("before", "n_begun"),
    [(HOLD_SOUND, 0), (HOLD_REQUEST, 1), (HOLD_WORKER, 1), (NEVER_OPEN, 1)],
    ids=["sound", "request", "worker", "socket"],
)
def test_leaving_ends_a_session_that_is_starting(
    show: Open, live_makers: list[Any], before: str, n_begun: int
) -> None:
    """Whatever it waits for. The next one begins at once, although the server accepts one only."""
    begun, removed = [], []

    def make_noted(request: LiveRequest) -> tuple[str, LiveSession]:
        begun.append(request)
        return make_live(request)

    live_makers.append(make_noted)
    page = show(before=before)
    page.on("request", lambda one: removed.append(one) if one.method == "DELETE" else None)
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start").click()
    wait_until(page, "Boolean(window.release)")
    page.get_by_role("tab", name="People").click()
    page.evaluate("release()")
    page.locator("#live-begin:enabled", has_text="Start").wait_for(state="attached")
    assert len(begun) == len(removed) == n_begun
    assert page.is_disabled("#live-say") and page.query_selector(".notice") is None
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start").click()
    page.wait_for_selector("#live-picture:not([hidden])")
    page.get_by_role("button", name="End").click()
    page.get_by_text("Ended").wait_for()


HOLD_MICROPHONE = """navigator.mediaDevices.getUserMedia = () => new Promise((resolve) => {
  window.allow = () => {
    window.stream = new MediaStreamAudioDestinationNode(new AudioContext()).stream;
    resolve(window.stream);
  };
})"""


def test_a_microphone_that_is_allowed_too_late_is_closed(show: Open) -> None:
    page = show(before=HOLD_MICROPHONE)
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start").click()
    page.get_by_role("button", name="Speak into the microphone").click()
    wait_until(page, "Boolean(window.allow)")
    page.get_by_role("button", name="End").click()
    page.evaluate("allow()")
    wait_until(page, "stream.getTracks().every((track) => track.readyState === 'ended')")
    assert page.get_attribute("#live-microphone", "aria-pressed") == "false"
    assert page.query_selector(".notice") is None


HOLD = """async () => {
  const { LiveSession } = await import("/static/live-session.js");
  const session = new LiveSession({ add() {} }, () => {});
  session.player = { port: { postMessage() {} } };
  for (let index = 0; index < 60; index++) {
    const packet = new ArrayBuffer(20);
    new DataView(packet).setUint32(0, index, true);
    session.take(packet);
  }
  return [...session.frames.keys()];
}"""


def test_frames_do_not_accumulate_while_nothing_is_played(show: Open) -> None:
    assert show().evaluate(HOLD) == list(range(10, 60))


PLAY = """([sampleRate, packets, nQuanta]) => {
  const shown = [], sounds = [];
  let registered, currentTime = 0;
  const registerProcessor = (name, made) => { if (name === "talkhead-player") registered = made; };
  class AudioWorkletProcessor {
    constructor() { this.port = { postMessage: ({ index }) => shown.push([index, currentTime]) }; }
  }
  SOURCE
  const player = new registered();
  for (let quantum = 0, i = 0; quantum < nQuanta; quantum++) {
    currentTime = quantum * 128 / sampleRate;
    for (; i < packets.length && packets[i].at <= currentTime; i++) {
      const { index, epoch, value } = packets[i];
      const samples = new Float32Array(sampleRate / 25).fill(value);
      player.port.onmessage({ data: { index, epoch, samples, listens: true } });
    }
    const output = new Float32Array(128);
    player.process([], [[output]]);
    sounds.push(output[127]);
  }
  return [shown, sounds];
}"""


def play(page: Any, packets: list[dict[str, float]], seconds: float) -> tuple[Any, Any]:
    """Play packets on a virtual clock: when each begins, by index, and the sound now and then."""
    source = page.evaluate("() => fetch('/static/live-audio.js').then((found) => found.text())")
    script = PLAY.replace("SOURCE", source)
    shown, sounds = page.evaluate(script, [RATE, packets, round(seconds * RATE / 128)])
    return dict(shown), np.array(sounds)


@pytest.mark.parametrize("value", [0.001, 0.3])
def test_playback_of_a_microphone_waits_little_after_a_late_packet(
    show: Open, value: float
) -> None:
    late = 20
    packets = [
        {"index": i, "epoch": 0, "value": value, "at": 0.04 * i + (0.12 if i == late else 0.0)}
        for i in range(500)
    ]
    for i in range(late, late + 4):  # as a connection gives them
        packets[i]["at"] = max(packets[i]["at"], packets[late]["at"])
    shown, sounds = play(show(), packets, 20.5)
    waits = np.array([shown[i] - 0.04 * i for i in range(500)])  # no packet is left out
    assert waits[: late - 1].max() < 0.02
    assert waits[late] > 0.1
    assert waits[300:].max() < 0.02
    # The one gap is that of the late packet, and nothing clicks where packets were shortened.
    assert (np.abs(sounds[: round(20 / 0.008)] - value) > 1e-4).sum() <= 0.14 / 0.008


def test_playback_begins_again_after_an_interruption(show: Open) -> None:
    packets = [{"index": i, "epoch": int(i >= 5), "value": 0.3, "at": 0.0} for i in range(8)]
    shown, _ = play(show(), packets, 1.0)
    assert sorted(shown) == [5, 6, 7]


def test_the_token_is_asked_for(show: Open) -> None:
    page = show(fragment="")
    dialog = page.locator("#sign-in")
    dialog.wait_for()
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    page.get_by_role("article", name="anna").wait_for()


def test_names_are_text(show: Open, work: Work, people: Path) -> None:
    page = show()
    page.get_by_role("tab", name="Speak").click()
    name = "<img src=x onerror=alert(1)>.wav"
    page.set_input_files(
        "[name=audio]", {"name": name, "mimeType": "audio/wav", "buffer": LINE.read_bytes()}
    )
    page.get_by_role("button", name="Make the video").click()
    page.wait_for_selector("#speak-stage video")
    assert page.locator("#videos h3").inner_text() == name
    assert page.query_selector("#speak img") is None


def test_the_keyboard(show: Open) -> None:
    page = show()
    page.get_by_role("article", name="anna").wait_for()
    page.focus("#tab-people")
    for tab in ("fit", "speak", "live", "people"):
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == f"tab-{tab}"
        assert page.is_visible(f"#{tab}")
    page.keyboard.press("End")
    assert page.is_visible("#live") and page.url.endswith("#live")


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_size(show: Open, width: int, scheme: str) -> None:
    """No element is wider than the window, and axe finds no accessibility violations."""
    page = show(width, color_scheme=scheme, bypass_csp=True)
    page.get_by_role("article", name="anna").wait_for()
    for tab in TABS:
        page.click(f"#tab-{tab}")
        page.wait_for_load_state("networkidle")
        for summary in page.query_selector_all(f"#{tab} summary"):
            summary.click()
        if tab == "speak":
            page.get_by_role("radio", name="The head alone").check()
        if tab == "live":
            page.locator("#live [name=mode]").select_option("head")
            page.locator("#live [name=background_kind]").select_option("color")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
        found = axe.Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found] == [], tab
