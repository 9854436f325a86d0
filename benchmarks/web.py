"""Web exports: sizes, mouths, time to the first picture, rate, and latency; prints JSON lines.

    python -m benchmarks.web [NAME] [--home HOME] [--site FOLDER] [--chromium PATH] [--firefox PATH]
        [--seconds 10]

Exports the person with live speech and a line (or measures FOLDER, an earlier such export), and opens
the page from localhost in Chromium, which renders without a GPU here. It needs `pip install playwright`
and a Chromium.

* size: Bytes of the folder, of its largest files, and of the single file.
* speech: The spoken line against `talkhead speak`: by how much motion codes differ, in steps of the
  exported ones; and PSNR in the mouth box of pictures of the page, against speak's pasted into the
  footage as the page has decoded it, and into the clip of the person; and that of both footages.
* page: Milliseconds from navigation to the first picture; pictures per second while a line is said;
  milliseconds of the worker for a mouth; and the latency of a microphone, from the beginning of a
  frame's sound in the page to its picture, which contains the 40 ms of the frame. The second row is
  with the processor throttled to a quarter, which Chromium does for the page but not for its workers.
* firefox: With --firefox, pictures per second and milliseconds for a mouth there, while a line is said
  without sound, because Firefox runs no clock of sound where there is no device.
"""

from __future__ import annotations

import argparse
import base64
import functools
import http.server
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import wavfile

from benchmarks import firefox
from talkhead.app.avatar import Avatar, load_identity, predict_motion
from talkhead.app.composer.frames import Compositor, Face
from talkhead.app.composer.idle_clip import IdleClip, idle_frames, ping_pong
from talkhead.app.evaluation.measures.image import mouth_box, psnr
from talkhead.app.web_export.export import export_web
from talkhead.app.web_export.request import MANIFEST, RENDERER
from talkhead.app.web_export.single_page import write_page
from talkhead.images import PNG, decode_image
from talkhead.media import read_audio
from talkhead.types import SAMPLE_RATE, Float32, UInt8

LINE = Path(__file__).parents[1] / "samples" / "line.wav"
FLAGS = ("--no-sandbox", "--autoplay-policy=no-user-gesture-required")
THROTTLING = (1, 4)
N_LARGEST = 4
KEPT_EVERY = 5
"""Frames from one picture to the next that is compared with speak's."""
SAY = """async ([name, every]) => {
  const head = document.querySelector("talking-head"), draw = head.draw.bind(head), seen = [];
  const copy = (canvas) => {
    const made = document.createElement("canvas");
    Object.assign(made, { width: canvas.width, height: canvas.height });
    made.getContext("2d", { alpha: false }).drawImage(canvas, 0, 0);
    return made;
  };
  await head.ready;
  head.badge = null;
  head.draw = (drawn) => {
    const isKept = drawn.index > 0 && drawn.index % every === 0; // the first ones move from rest
    const footage = isKept && copy(head.footage[head.footage.length - head.nSent]);
    draw(drawn);
    if (isKept) seen.push([drawn.frame, drawn.index, footage, copy(head.canvas)]);
  };
  await head.say(name);
  return seen.map(([frame, index, ...both]) => [frame, index, ...both.map((one) => one.toDataURL())]);
}"""
MEASURE = """async ([act, seconds]) => {
  const head = document.querySelector("talking-head"), draw = head.draw.bind(head);
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  await head.ready;
  if (!head.isLive || !head.lines.includes("speech")) throw new Error("no --live, or no speech.wav");
  const said = act === "say" ? head.say("speech") : head.live("microphone");
  while (!["speaking", "listening"].includes(head.state)) await wait(10);
  await wait(2000);
  const took = [], latencies = [];
  head.draw = (drawn) => {
    draw(drawn);
    took.push(drawn.took);
    latencies.push(head.statistics.latencyMs);
  };
  const begun = performance.now();
  await wait(1000 * seconds);
  const perSecond = 1000 * took.length / (performance.now() - begun);
  head.stop();
  await said;
  return { perSecond, took, latencies, firstMs: head.statistics.firstMs };
}"""


SAY_SILENTLY = """async (name) => {
  const head = document.querySelector("talking-head"), draw = head.draw.bind(head), drawn = [];
  const context = head.canvas.getContext("2d");
  await head.ready;
  head.muted = true;
  head.draw = (mouth) => {
    const { x, y, index, took } = mouth, { width, height } = mouth.image ?? {};
    draw(mouth);
    if (!width || index < 0) return;
    const sum = context.getImageData(x, y, width, height).data.reduce((all, one) => all + one, 0);
    drawn.push({ index, took, sum, time: performance.now() });
  };
  return { isSaid: await head.say(name), drawn };
}"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on localhost, and yield its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def size(site: Path, scratch: Path) -> Mapping[str, Any]:
    """Sizes of an export, as a folder and as one file."""
    sizes = {
        path.relative_to(site).as_posix(): path.stat().st_size
        for path in site.rglob("*")
        if path.is_file()
    }
    largest = sorted(sizes, key=lambda name: -sizes[name])[:N_LARGEST]
    return {
        "bench": "size",
        "folder_bytes": sum(sizes.values()),
        "single_file_bytes": write_page(site, scratch / "page.html").stat().st_size,
        **{name: sizes[name] for name in largest},
    }


@dataclass(frozen=True)
class Picture:
    """A picture of a page.

    Attributes:
        frame: Number of the frame of the footage, there and back.
        index: Number of the motion code.
        footage: The frame as the page has decoded it [H, W, 3].
        image: With the mouth [H, W, 3].
    """

    frame: int
    index: int
    footage: UInt8
    image: UInt8


def say(tab: Any, name: str, every: int = KEPT_EVERY) -> list[Picture]:
    """Let an open page say a line, and return some of its pictures."""
    return [
        Picture(frame, index, *(_decoded(url) for url in urls))
        for frame, index, *urls in tab.evaluate(SAY, [name, every])
    ]


def _decoded(url: str) -> UInt8:
    return decode_image(base64.b64decode(url.partition(",")[2]), "page", (PNG,))[..., ::-1]


def compare(
    pictures: Sequence[Picture], avatar: Avatar, codes: Float32
) -> Mapping[str, list[float]]:
    """Compare pictures of a page with those of `talkhead speak` in the mouth box.

    Args:
        pictures: Pictures.
        avatar: The person.
        codes: Motion codes [F, K] of the line.

    Returns:
        PSNR, dB, of each picture: "mouth", against speak's in the same decoded frame, with the colors
        that it has in the clip; "speak", against speak's in the frame of the clip; "footage", of the
        page's frame against that of the clip.
    """
    clip = avatar.idle
    found: dict[str, list[float]] = {"mouth": [], "speak": [], "footage": []}
    tracks = ping_pong(len(clip), 1 + max(one.frame for one in pictures))
    needed = {int(tracks[one.frame]) for one in pictures}
    frames = enumerate(idle_frames(clip.path, len(clip), 0, 1 + max(needed)))
    filmed = {number: frame for number, frame in frames if number in needed}
    compositor = Compositor(avatar.renderer, clip)
    for one in pictures:
        track, code = int(tracks[one.frame]), codes[one.index]
        (points,) = clip.landmarks(track, code[None])
        height, width = one.image.shape[:2]
        box = mouth_box(points / clip.scale + clip.origins[track]).clipped(width, height)
        face = compositor.render(track, code)
        found["speak"].append(psnr(one.image, compositor.paste(filmed[track], face), box))
        # The same colors: browsers decode the cheeks, to which they are matched, slightly differently.
        found["mouth"].append(psnr(one.image, _pasted(compositor, one.footage, face, clip), box))
        found["footage"].append(psnr(one.footage, filmed[track], box))
    return found


def _pasted(compositor: Compositor, frame: UInt8, face: Face, clip: IdleClip) -> UInt8:
    """Paste a mouth with the color match of the frame before."""
    patch, track = face.mouth, face.track_index
    return compositor.composer.paste(
        frame,
        clip.origins[track],
        patch.window,
        np.concatenate([patch.rgb, patch.alpha], axis=2),
        patch.mask,
        clip.mask(track)[patch.window.slices],
        is_matched=False,
    )


def speech(
    site: Path, address: str, chromium: str, avatar: Avatar, sound: Path
) -> Mapping[str, Any]:
    """Compare a spoken line of an export with `talkhead speak`."""
    from playwright.sync_api import sync_playwright

    codes = predict_motion(sound, avatar.encoder, avatar.predictor)
    n_mouth = avatar.idle.face.n_mouth
    manifest = json.loads((site / MANIFEST).read_text("utf-8"))
    (line,) = (one for one in manifest["lines"] if one["name"] == sound.stem)
    levels = np.fromfile(site / line["codes"], np.int8).reshape(-1, n_mouth)
    steps = np.abs(levels - codes[:, :n_mouth] / np.float32(line["scale"]))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
        tab = browser.new_page()
        tab.goto(address)
        pictures = say(tab, sound.stem)
        browser.close()
    found = compare(pictures, avatar, codes)
    return {
        "bench": "speech",
        "steps_max": round(float(steps.max()), 3),
        "pictures": len(pictures),
        **{f"{name}_db": round(float(np.median(values)), 1) for name, values in found.items()},
        **{f"{name}_db_min": round(min(values), 1) for name, values in found.items()},
    }


def page(address: str, chromium: str, sound: Path, seconds: float) -> Iterator[Mapping[str, Any]]:
    """Measure the page with and without a throttled processor."""
    from playwright.sync_api import sync_playwright

    flags = [
        *FLAGS,
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound.absolute()}",
    ]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=flags)
        for throttling in THROTTLING:
            tab = browser.new_page()
            session = tab.context.new_cdp_session(tab)
            session.send("Emulation.setCPUThrottlingRate", {"rate": throttling})
            tab.goto(address)
            spoken = tab.evaluate(MEASURE, ["say", seconds])
            heard = tab.evaluate(MEASURE, ["live", seconds])
            tab.close()
            yield {
                "bench": "page",
                "throttling": throttling,
                "first_frame_ms": round(spoken["firstMs"]),
                "frames_per_second": round(spoken["perSecond"], 1),
                "patch_ms": round(float(np.median(spoken["took"])), 1),
                "patch_ms_min": round(min(spoken["took"]), 1),
                "latency_ms_p50": round(float(np.percentile(heard["latencies"], 50))),
                "latency_ms_p95": round(float(np.percentile(heard["latencies"], 95))),
                "load": os.getloadavg()[0],
            }
        browser.close()


def in_firefox(address: str, program: str, name: str) -> Mapping[str, Any]:
    """Measure how a line is said in Firefox."""
    with firefox.started(program) as tab:
        tab.open(address)
        found = tab.evaluate(SAY_SILENTLY, name)
        if tab.errors or not found["isSaid"]:
            raise RuntimeError(f"Firefox has not said the line: {tab.errors}")
    drawn = found["drawn"]
    return {
        "bench": "firefox",
        "pictures": len(drawn),
        "mouths": len({one["sum"] for one in drawn}),
        "last_index": drawn[-1]["index"],
        "frames_per_second": round(1000 * len(drawn) / (drawn[-1]["time"] - drawn[0]["time"]), 1),
        "patch_ms": round(float(np.median([one["took"] for one in drawn])), 1),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="name of a person (default: the one fitted last)")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--site", type=Path, help="an export of --live with the line speech.wav")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--firefox", help="path of Firefox, which is then measured, too")
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="talkhead-bench-") as name:
        scratch = Path(name)
        sound, site = scratch / "speech.wav", given.site or scratch / "site"
        line = read_audio(LINE, SAMPLE_RATE)
        n_times = int(np.ceil((given.seconds + 4.0) * SAMPLE_RATE / len(line)))
        wavfile.write(sound, SAMPLE_RATE, np.rint(32767 * np.tile(line, n_times)).astype(np.int16))
        if given.site is None:
            export_web(given.name, output=site, lines=[sound], live=True, home=given.home)
        print(json.dumps(size(site, scratch)), flush=True)
        avatar = load_identity(given.name, renderer=RENDERER, device="cpu", home=given.home)
        with served(site) as address:
            row = speech(site, address, given.chromium, avatar, sound)
            print(json.dumps(row), flush=True)
            for row in page(address, given.chromium, sound, given.seconds):
                print(json.dumps(row), flush=True)
            if given.firefox is not None:
                print(json.dumps(in_firefox(address, given.firefox, sound.stem)), flush=True)


if __name__ == "__main__":
    main()
