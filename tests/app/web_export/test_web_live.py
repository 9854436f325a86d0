"""Live speech of exported pages in Chromium: a recording, a microphone, a stream, and what goes wrong."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from paths import LINE
from random_predictor import N_MOUTH, make_predictor
from scipy.io import wavfile
from speech_module import SpeechModule
from web_browser import CHROMIUM, UNTIL, WAIT, Open, opening, write_readable_site

from talkhead.app.live.resampler import Resampler
from talkhead.app.web_export.export import LIVE_SOURCES, SOURCES
from talkhead.app.web_export.request import WebLine, WebRequest
from talkhead.app.web_export.single_page import write_page
from talkhead.encoder.pase.encoder import PaseEncoder
from talkhead.media import read_audio
from talkhead.types import SAMPLE_RATE, Float32

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
NODE = shutil.which("node")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed: make chromium"
)
FRAMES_AT_REST = 10
DENIED = """navigator.mediaDevices.getUserMedia = () =>
  Promise.reject(new DOMException("Permission denied", "NotAllowedError"));"""
KEEP = """() => {
  window.shown = [];
  const codeAt = head.codeAt.bind(head);
  head.codeAt = (...given) => {
    const code = codeAt(...given), { ears } = head.speech ?? {};
    const heard = ears?.start == null ? null : ears.sound.heard(given[0]) - ears.start;
    shown.push({ code: [...code], index: head.statistics.index, state: head.state, heard });
    window.line = head.speech?.line ?? window.line;
    return code;
  };
}"""
SPEAK = """async (name) => {
  const bytes = await (await fetch(name)).arrayBuffer();
  try { return await head.live(new File([bytes], name)); } catch (error) { return error.message; }
}"""
LIVE = """async (source) => {
  try { return await head.live(source); } catch (error) { return error.message; }
}"""


@pytest.fixture(scope="module")
def line() -> Float32:
    return read_audio(LINE, SAMPLE_RATE)


@pytest.fixture(scope="module")
def site(line: Float32, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with live speech, of a person with a random predictor."""
    folder = tmp_path_factory.mktemp("live")
    predictor = make_predictor(PaseEncoder.live().encode(line[: 4 * SAMPLE_RATE]).values)
    encoder = SimpleNamespace(name="pase", version=PaseEncoder.live().version)
    request = WebRequest(
        folder / "site",
        (WebLine("hello", LINE),),
        False,
        "Yes.",
        live=True,
        live_consent="Live, too.",
    )
    rest = predictor.scaling.rest[:N_MOUTH]
    codes = np.zeros((100, N_MOUTH), np.float32)
    return write_readable_site(request, rest, codes, encoder=encoder, predictor=predictor)


@pytest.fixture(scope="module")
def browser(line: Float32, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium with a microphone that hears the line again and again."""
    path = tmp_path_factory.mktemp("microphone") / "line.wav"
    wavfile.write(path, SAMPLE_RATE, np.rint(32767 * line).astype(np.int16))
    flags = (
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={path}",
    )
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=list(flags))
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser: Any, site: Path, tmp_path: Path) -> Iterator[Open]:
    yield from opening(browser, site, tmp_path)


def ready(page: Any) -> Any:
    page.evaluate(UNTIL, ["idle"])
    page.evaluate(KEEP)
    return page


def rest_of(site: Path) -> Float32:
    return np.float32(json.loads((site / "manifest.json").read_text())["rest"])


def check_rest(page: Any, site: Path) -> None:
    """Check that the mouth moves to rest, over 3 frames."""
    page.evaluate(WAIT, FRAMES_AT_REST / 25)
    codes = np.float32([one["code"] for one in page.evaluate("shown")])
    np.testing.assert_allclose(codes[-1], rest_of(site), atol=1e-5)


def check_motion(shown: list[dict[str, Any]]) -> None:
    """Check that codes follow each other and change."""
    spoken = [one for one in shown if one["state"] == "listening" and one["index"] >= 0]
    indices = [one["index"] for one in spoken]
    assert len(set(indices)) > 20 and indices == sorted(indices)
    assert np.std([one["code"] for one in spoken], 0).max() > 0.05


@needs_chromium
def test_a_recording_is_spoken_in_step(show: Open, site: Path, line: Float32) -> None:
    page = ready(show(lambda folder: shutil.copyfile(LINE, folder / "line.wav")))
    assert page.evaluate(SPEAK, "line.wav") is True
    check_rest(page, site)
    found = page.evaluate("[...line.codes.values()].map((code) => [...code])")
    wanted = SpeechModule(gzip.decompress((site / "speech.bin").read_bytes())).line(line)
    np.testing.assert_allclose(
        found, wanted, atol=1e-3
    )  # browsers scale samples a little differently
    spoken = [one for one in page.evaluate("shown") if one["state"] == "speaking"]
    shown = [one for one in spoken if 4 <= one["index"] < len(wanted)]
    assert len({one["index"] for one in shown}) > len(wanted) // 3
    for one in shown:
        np.testing.assert_allclose(one["code"], found[one["index"]], atol=1e-5)
    assert page.evaluate("apart") < 2.0  # frames
    events = [one for one in page.evaluate("events") if one[0] in ("start", "end")]
    assert events[0] == ["start", {"line": "line.wav"}]
    assert events[1] == ["end", {"line": "line.wav", "finished": True}]


@needs_chromium
def test_a_microphone_moves_the_mouth(show: Open, site: Path) -> None:
    page = ready(show())
    page.get_by_role("button", name="Microphone").click()
    page.evaluate(UNTIL, ["listening"])
    page.evaluate(WAIT, 3.0)
    check_motion(page.evaluate("shown"))
    page.evaluate("() => { window.track = head.speech.ears.stream.getTracks()[0]; }")
    page.get_by_role("button", name="Stop").click()
    assert page.evaluate("[head.state, track.readyState]") == ["idle", "ended"]
    check_rest(page, site)
    assert page.evaluate("head.statistics.latencyMs") > 0.0


@needs_chromium
def test_a_stream_is_heard_in_step_until_it_ends(show: Open, site: Path) -> None:
    page = ready(show())
    page.evaluate("""async () => {
      window.stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      window.said = head.live(stream);
    }""")
    page.evaluate(UNTIL, ["listening"])
    page.evaluate(WAIT, 3.0)
    page.evaluate("stream.getTracks()[0].stop()")
    assert page.evaluate("said") is True
    check_rest(page, site)
    shown = page.evaluate("shown")
    check_motion(shown)
    heard = [one for one in shown if one["heard"] is not None and one["index"] >= 0]
    assert max(abs(25 * one["heard"] - one["index"]) for one in heard) < 2.0  # frames


@needs_chromium
def test_what_goes_wrong_has_a_message(show: Open) -> None:
    page = ready(show(before=DENIED))
    assert "may not be used" in page.evaluate(LIVE, "microphone")
    alert = page.get_by_role("alert")
    assert alert.is_visible() and "may not be used" in alert.inner_text()
    assert page.evaluate("events.at(-1)[1].code") == "microphone"
    assert page.evaluate("head.state") == "idle"
    assert "could not be read" in page.evaluate(SPEAK, "page.css")
    page.evaluate(
        "() => Object.defineProperty(BaseAudioContext.prototype, 'audioWorklet', { get() {} })"
    )
    page.evaluate(
        "() => { window.stream = new AudioContext().createMediaStreamDestination().stream; }"
    )
    assert "no AudioWorklet" in page.evaluate("head.live(stream).catch((error) => error.message)")
    page.get_by_role("button", name="hello").click()  # everything else still works
    page.evaluate(UNTIL, ["speaking"])
    assert not alert.is_visible()


@needs_chromium
def test_damaged_speech_leaves_the_rest_usable(show: Open) -> None:
    page = ready(show(lambda site: (site / "speech.bin").write_bytes(b"no speech")))
    assert "speech.bin is damaged" in page.evaluate(LIVE, "microphone")
    assert page.evaluate("head.state") == "idle"


@needs_chromium
def test_live_speech_in_one_file(show: Open, site: Path, tmp_path: Path) -> None:
    page = ready(show.file(write_page(site, tmp_path / "anna.html")))  # type: ignore[attr-defined]
    page.locator("input[type=file]").set_input_files(LINE)
    page.evaluate(UNTIL, ["speaking"])
    page.get_by_role("button", name="Microphone").click()
    page.evaluate(UNTIL, ["listening"])
    page.evaluate(WAIT, 2.0)
    check_motion(page.evaluate("shown"))


@needs_chromium
def test_the_page_is_accessible(show: Open) -> None:
    page = ready(show(before=DENIED))
    assert "Consent: Yes. Consent to live speech: Live, too." in page.inner_text("footer")
    page.get_by_role("button", name="Microphone").click()
    page.get_by_role("alert").wait_for()
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


@needs_chromium
def test_exports_without_live_speech_say_so(show: Open) -> None:
    def without(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["live"] = False
        (folder / "manifest.json").write_text(json.dumps(manifest))
        for name in LIVE_SOURCES:
            (folder / name).unlink()

    page = ready(show(without))
    assert "--live" in page.evaluate(LIVE, "microphone")
    assert page.get_by_role("button", name="Microphone").count() == 0


RESAMPLE = """
import { readFileSync } from "node:fs";
const [script, rate, size] = process.argv.slice(1);
const { Resampler } = await import(script);
const sound = new Float32Array(Uint8Array.from(readFileSync(0)).buffer);
const made = new Resampler(+rate, 16000), parts = [];
for (let i = 0; i < sound.length; i += +size) parts.push(...made.push(sound.subarray(i, i + +size)));
console.log(JSON.stringify([...parts, ...made.finish()]));
"""


@pytest.mark.skipif(NODE is None, reason="needs Node.js")
@pytest.mark.parametrize(
    ("rate", "size"), [(48_000, 480), (44_100, 441), (44_100, 7), (8_000, 80), (16_000, 160)]
)
def test_sound_is_resampled_as_in_python(tmp_path: Path, rate: int, size: int) -> None:
    script = tmp_path / "resampler.mjs"
    shutil.copyfile(SOURCES / "resampler.js", script)
    sound = np.random.default_rng(0).uniform(-1.0, 1.0, rate // 5 + 3).astype(np.float32)
    command = [
        str(NODE),
        "--input-type=module",
        "-e",
        RESAMPLE,
        script.as_uri(),
        str(rate),
        str(size),
    ]
    done = subprocess.run(command, input=sound.tobytes(), capture_output=True)
    assert done.returncode == 0, done.stderr
    resampler = Resampler(rate, SAMPLE_RATE)
    wanted = np.concatenate([resampler.push(sound), resampler.finish()])
    found = np.float32(json.loads(done.stdout))
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-5)
