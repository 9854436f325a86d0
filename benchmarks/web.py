"""Web exports: sizes, time to the first picture, rate, and latency of a microphone; prints JSON lines.

    python -m benchmarks.web [NAME] [--home HOME] [--site FOLDER] [--chromium PATH] [--seconds 10]

Exports the person with live speech and a line (or measures FOLDER, an earlier such export), and opens
the page from localhost in Chromium, which renders without a GPU here. It needs `pip install playwright`
and a Chromium.

* size: Bytes of the folder, of its largest files, and of the single file.
* page: Milliseconds from navigation to the first picture; pictures per second while a line is said;
  milliseconds of the worker for a mouth; and the latency of a microphone, from the beginning of a
  frame's sound in the page to its picture, which contains the 40 ms of the frame. The second row is
  with the processor throttled to a quarter, which Chromium does for the page but not for its workers.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import wavfile

from talkhead.app.web_export.export import export_web
from talkhead.app.web_export.single_page import write_page
from talkhead.media import read_audio
from talkhead.types import SAMPLE_RATE

LINE = Path(__file__).parents[1] / "samples" / "line.wav"
THROTTLING = (1, 4)
N_LARGEST = 4
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


def page(address: str, chromium: str, sound: Path, seconds: float) -> Iterator[Mapping[str, Any]]:
    """Measure the page with and without a throttled processor."""
    from playwright.sync_api import sync_playwright

    flags = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound.absolute()}",
        "--autoplay-policy=no-user-gesture-required",
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


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="name of a person (default: the one fitted last)")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--site", type=Path, help="an export of --live with the line speech.wav")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
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
        with served(site) as address:
            for row in page(address, given.chromium, sound, given.seconds):
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
