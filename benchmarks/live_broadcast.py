"""A broadcast to many viewers: how late packets are, what is missing, and what the server needs.

    python -m benchmarks.live broadcast --home HOME [--viewers 500] [--seconds 20] [--chromium PATH]

The server is a process of its own, in which the times when frames are given out are noted. This process
speaks and watches, so it takes processor time from the server, as other machines would not.

* broadcast: Lateness counts from when a frame is due, 25 a second through the median of the times when
  the session gives frames out, until a viewer has its packet; `sending_ms` from when its frame was
  given out.
* page: In Chromium, on the same machine: how much after the beginning of its sound a picture is drawn.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
from websockets.asyncio.client import connect
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from talkhead.app.live.frames import FRAME_S, LiveFrame
from talkhead.app.live.worker import WorkerEngine
from talkhead.app.server.live_packets import HEADER
from talkhead.app.server.serving import serve
from talkhead.app.server.settings import Limits, ServerSettings
from talkhead.types import Float32

TOKEN = "a-token-of-the-benchmark"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
BEGIN_S, SETTLE_S = 300.0, 3.0
"""Time for the export of the head and the session; time before the measurement."""
AHEAD_S = 0.5
"""How much of the recording the server has before it is spoken."""
MEASURE_PAGE = """async (seconds) => {
  const head = document.querySelector("talking-head"), draw = head.draw.bind(head), found = [];
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  while (!head.speech?.ears?.isAudible) await wait(100);
  await wait(2000);
  head.draw = (drawn) => {
    draw(drawn);
    const { ears } = head.speech;
    const begun = (ears.origin + ears.size * drawn.index) / ears.rate;
    if (ears.origin !== null) found.push(1000 * (ears.heard(performance.now()) - begun));
  };
  await wait(1000 * seconds);
  const { waitingMs, nLate } = head.broadcast;
  return { found, waitingMs, nLate };
}"""


def run_server(port: int, home: Path, viewers: int, times: Path) -> None:
    """Serve until SIGTERM, then write when frames were given out, by number."""
    noted: dict[int, float] = {}
    step = WorkerEngine.step

    def noting(engine: WorkerEngine, now_s: float) -> LiveFrame | None:
        frame = step(engine, now_s)
        if frame is not None:
            noted[frame.index] = time.monotonic()
        return frame

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # after the server has stopped in order
    WorkerEngine.step = noting  # type: ignore[method-assign]
    limits = Limits(n_viewers=viewers + 1)
    try:
        serve(ServerSettings(home, port=port, token=TOKEN, limits=limits), lambda *_: None)
    finally:
        times.write_text(json.dumps(noted), encoding="ascii")


class _Viewer(asyncio.Protocol):
    """A viewer that notes when packets arrive."""

    def __init__(self, url: str, arrivals: list[tuple[int, float]]) -> None:
        self._protocol = ClientProtocol(parse_uri(url), max_size=None)
        self._arrivals = arrivals

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._protocol.send_request(self._protocol.connect())
        self.transport = transport
        transport.write(b"".join(self._protocol.data_to_send()))

    def data_received(self, data: bytes) -> None:
        now_s = time.monotonic()
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                self._arrivals.append((HEADER.unpack_from(event.data)[0], now_s))
        if (answer := b"".join(self._protocol.data_to_send())) and not self.transport.is_closing():
            self.transport.write(answer)


async def bench_broadcast(
    home: Path, sound: Float32, rate: int, viewers: int, seconds: float, chromium: str | None
) -> AsyncIterator[Mapping[str, Any]]:
    """Broadcast a recording [n] to viewers; yield what they got, and what the page showed."""
    with tempfile.TemporaryDirectory(prefix="talkhead-bench-") as name:
        times, port = Path(name) / "times.json", _free_port()
        with _server(port, home, viewers, times) as process:
            info = await asyncio.to_thread(_begin, port, rate)
            arrivals: list[list[tuple[int, float]]] = [[] for _ in range(viewers)]
            url = f"ws://127.0.0.1:{port}{info['watch_url']}live"
            async with _speaking(f"ws://127.0.0.1:{port}{info['url']}", sound, rate):
                loop = asyncio.get_running_loop()
                made = [
                    await loop.create_connection(
                        lambda one=one: _Viewer(url, one), "127.0.0.1", port
                    )
                    for one in arrivals
                ]
                await asyncio.sleep(SETTLE_S)
                gc.disable()  # it would take long with so many arrivals
                begun_s, used_s = time.monotonic(), _processor_s_of(process.pid)
                await asyncio.sleep(seconds)
                ended_s, used_s = time.monotonic(), _processor_s_of(process.pid) - used_s
                gc.enable()
                for transport, _ in made:
                    transport.close()
                if chromium:
                    page = f"http://127.0.0.1:{port}{info['watch_url']}"
                    yield await _measure_page(page, chromium, seconds)
        noted = {int(n): value for n, value in json.loads(times.read_text()).items()}
        kept = [[one for one in each if begun_s <= one[1] < ended_s] for each in arrivals]
        yield _row(kept, noted, ended_s - begun_s, used_s)


def _row(
    arrivals: list[list[tuple[int, float]]],
    noted: Mapping[int, float],
    seconds: float,
    used_s: float,
) -> Mapping[str, Any]:
    used = {n for each in arrivals for n, _ in each}
    begun_s = float(np.median([noted[n] - FRAME_S * n for n in used]))
    late = [1000.0 * (at - begun_s - FRAME_S * n) for each in arrivals for n, at in each]
    sent = [1000.0 * (at - noted[n]) for each in arrivals for n, at in each]
    n_missing = sum(each[-1][0] - each[0][0] + 1 - len(each) for each in arrivals if each)
    return {
        "bench": "broadcast",
        "viewers": len(arrivals),
        "packets_per_s": [round(n / seconds, 2) for n in _range([len(one) for one in arrivals])],
        "missing": n_missing,
        "late_ms": _percentiles(late),
        "sending_ms": _percentiles(sent),
        "server_cores": round(used_s / seconds, 2),
        "load": round(os.getloadavg()[0], 1),
    }


def _range(values: list[int]) -> tuple[int, int]:
    return min(values), max(values)


def _percentiles(values: list[float]) -> Mapping[str, float]:
    p50, p95, p999 = np.percentile(values, [50, 95, 99.9])
    found = {"p50": p50, "p95": p95, "p99.9": p999, "max": max(values)}
    return {name: round(float(value), 1) for name, value in found.items()}


@asynccontextmanager
async def _speaking(url: str, sound: Float32, rate: int) -> AsyncIterator[None]:
    """Say a recording in real time, again and again, for the duration of an `async with` block."""
    size = round(FRAME_S * rate)
    levels = np.rint(32767.0 * sound[: len(sound) // size * size]).astype("<i2").reshape(-1, size)

    async def speak() -> None:
        begun_s, number = time.monotonic() - AHEAD_S, 0
        while True:
            await asyncio.sleep(max(0.0, begun_s + number * FRAME_S - time.monotonic()))
            await own.send(levels[number % len(levels)].tobytes())
            number += 1

    async def read() -> None:
        async for _ in own:
            pass

    async with connect(url, additional_headers=HEADERS) as own:
        tasks = [asyncio.create_task(work()) for work in (speak, read)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _measure_page(address: str, chromium: str, seconds: float) -> Mapping[str, Any]:
    from playwright.async_api import async_playwright

    async with async_playwright() as play:
        flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = await play.chromium.launch(executable_path=chromium, args=flags)
        page = await browser.new_page()
        await page.goto(address)
        seen = await page.evaluate(MEASURE_PAGE, seconds)
        await browser.close()
    p5, p50, p95 = np.percentile(seen["found"], [5, 50, 95])
    return {
        "bench": "page",
        "pictures_per_s": round(len(seen["found"]) / seconds, 1),
        "picture_after_sound_ms": {"p5": round(p5), "p50": round(p50), "p95": round(p95)},
        "waiting_ms": seen["waitingMs"],
        "late": seen["nLate"],
        "load": round(os.getloadavg()[0], 1),
    }


@contextmanager
def _server(port: int, home: Path, viewers: int, times: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server for the duration of a `with` block."""
    given = [str(port), str(home), str(viewers), str(times)]
    command = [sys.executable, "-m", "benchmarks.live_broadcast", *given]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _begin(port: int, rate: int) -> dict[str, Any]:
    """Begin a broadcast as soon as the server answers."""
    limit_s, address = time.monotonic() + BEGIN_S, f"http://127.0.0.1:{port}/v1/live"
    body = {"codec": "codes", "sample_rate": rate, "consent": "A person of the benchmark."}
    while True:
        try:
            answer = httpx.post(address, json=body, headers=HEADERS, timeout=BEGIN_S)
        except httpx.ConnectError:
            assert time.monotonic() < limit_s, "the server does not start"
            time.sleep(0.2)
            continue
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _processor_s_of(pid: int) -> float:
    """Processor time of another process; on Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    run_server(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
