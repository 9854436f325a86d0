"""Live speech: latency, idle cost, and whether picture and sound stay together; prints JSON lines.

    python -m benchmarks.live session --home HOME [--seconds 30]   no browser: LiveSession in real time
    python -m benchmarks.live browser --home HOME [--chromium PATH] [--seconds 30]
    python -m benchmarks.live soak [--hours 8]                     a fake person on a virtual clock
    python -m benchmarks.live load --home HOME                     sessions that speak at once
    python -m benchmarks.live hour --home HOME --hours 1           in real time: drift, memory
    python -m benchmarks.live silence --home HOME                  quiet, fan noise and music, 60 s each
    python -m benchmarks.live broadcast --home HOME [--viewers 500]    many viewers, and the page

HOME has a fitted identity. `browser` runs `talkhead serve` and Chromium with a fake microphone on the
same machine; it needs `pip install playwright` and a Chromium, no more.

The latency of a frame is the time from the first of its sound to its picture: with a microphone, when
the page shows it (`arrived`: when the page has it); without a browser, when the session gives it out. It
contains the 40 ms of the frame itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import wavfile

from benchmarks.live_broadcast import bench_broadcast
from benchmarks.live_feed import push_in_real_time
from benchmarks.live_hour import Hour
from benchmarks.live_load import measure_load
from talkhead.app.avatar import Avatar, load_identity
from talkhead.app.live.engine import LiveEngine, begin_speech
from talkhead.app.live.frames import FRAME_S, LiveFrame
from talkhead.app.live.options import LiveOptions, Pace
from talkhead.app.live.session import LiveSession
from talkhead.app.text_to_speech import synthesize
from talkhead.audio import resample
from talkhead.types import SAMPLE_RATE, Float32

HELPERS = Path(__file__).parents[1] / "tests" / "helpers"
TEXT = (
    "Good morning. My name is Bob, and I was made by a machine. Please wait a moment while I look it up. "
    "There were about fifty people by the pool, and most of them had brought a book."
)
RATE = 48_000
TOKEN = "a-token-of-the-benchmark"
LOAD_S = 10.0
WHAT = ("session", "browser", "soak", "hour", "load", "silence", "broadcast")
BROADCAST_RATE = 16_000
RELEASED = 0.05
"""Share of the mouth's motion at an interruption that is left when it counts as at rest."""


def percentiles(values_ms: list[float]) -> dict[str, float | int]:
    """Median and 95th percentile of latencies in ms."""
    p50, p95 = np.percentile(values_ms, [50, 95])
    return {"n": len(values_ms), "p50_ms": round(p50, 1), "p95_ms": round(p95, 1)}


def load() -> float:
    """Load of the machine in the last minute."""
    return round(os.getloadavg()[0], 2)


def speech(seconds: float, rate: int = RATE) -> Float32:
    """Synthetic speech [n] of that length, repeated with pauses of a second."""
    sound, own = synthesize(TEXT)
    once = resample(sound.astype(np.float32) / 32768.0, own, rate)
    turn = np.concatenate([np.zeros(rate, np.float32), once])
    return np.resize(turn, round(seconds * rate))


# ----------------------------------------------------------------------------------- session


def bench_microphone(avatar: Avatar, seconds: float, ahead: int | None) -> Mapping[str, Any]:
    """Latency of sound that comes in real time."""
    engine = LiveEngine(avatar, LiveOptions(sample_rate=RATE, pace="arrival", ahead=ahead))
    session = LiveSession(engine=engine)
    given = speech(seconds)
    frames: list[tuple[float, LiveFrame]] = []
    begun = [0.0]

    async def talk() -> None:
        await asyncio.sleep(1.0)
        begun[0] = time.monotonic()
        await push_in_real_time(session, given, RATE)
        await session.shutdown()

    async def watch() -> None:
        talking = asyncio.create_task(talk())
        async for frame in session.run():
            frames.append((time.monotonic(), frame))
        await talking

    before = time.process_time()
    asyncio.run(watch())
    latencies = [
        1000.0 * (at - begun[0] - frame.sound_index * FRAME_S)
        for at, frame in frames
        if frame.is_speech
    ]
    spoken = begin_speech(avatar, "arrival", ahead, 1.0)
    return {
        "bench": "microphone to session",
        "frames_ahead": ahead,
        "lookahead_ms": round(1000 * spoken.lookahead_s, 1),
        **percentiles(latencies),
        "repeated": session.statistics.n_repeated,
        "cores": round((time.process_time() - before) / (seconds + 1.0), 3),
        "load": load(),
    }


def bench_line(avatar: Avatar, n: int = 10) -> Mapping[str, Any]:
    """Latency of the first frame of a line of a synthesizer, and of rest after an interruption."""
    session = LiveSession(engine=LiveEngine(avatar))
    sound, rate = synthesize(TEXT)
    first, rest, sent = [], [], []

    async def watch() -> None:
        pushed = interrupted = 0.0
        moved: Float32 | None = None
        async for frame in session.run():
            now = time.monotonic()
            last = session._engine._last
            if pushed and frame.is_speech:
                first.append(1000.0 * (now - pushed))
                pushed = 0.0
            if interrupted and frame.epoch > len(sent):
                resting = session._engine._rest
                assert moved is not None
                if np.abs(last - resting).max() <= RELEASED * np.abs(moved - resting).max():
                    rest.append(1000.0 * (now - interrupted))
                    sent.append(1)
                    interrupted = 0.0
                    if len(rest) == n:
                        await session.shutdown()
            if not pushed and not interrupted and frame.index % 50 == 25:
                pushed = time.monotonic()
                await session.push_audio(sound, rate, last_chunk=True)
            if not pushed and not interrupted and frame.is_speech and frame.sound_index == 20:
                interrupted, moved = time.monotonic(), last
                session.interrupt()

    asyncio.run(watch())
    return {
        "bench": "line of a synthesizer",
        "first_frame": percentiles(first),
        "interruption_to_rest": percentiles(rest),
        "load": load(),
    }


def bench_idle(avatar: Avatar, seconds: float) -> Mapping[str, Any]:
    """Processor time of a session that says nothing, once its clip has been shown."""
    session = LiveSession(engine=LiveEngine(avatar))
    warm = 2 * len(avatar.idle)
    engine = session._engine
    for frame in range(warm):
        engine.step(frame * FRAME_S)

    async def watch() -> tuple[float, int]:
        before, end, n = processor_s(), time.monotonic() + seconds, 0
        async for _ in session.run():
            n += 1
            if time.monotonic() > end:
                break
        used = processor_s() - before
        await session.shutdown()
        return used, n

    used, n = asyncio.run(watch())
    return {"bench": "idle", "cores": round(used / seconds, 3), "frames": n, "load": load()}


def processor_s() -> float:
    """Processor time of this process and its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


# --------------------------------------------------------------------------------------- soak


def bench_soak(hours: float) -> Mapping[str, Any]:
    """Hours on a virtual clock: lines, gaps and interruptions; is a frame ever off its time?"""
    sys.path.insert(0, str(HELPERS))
    import resource

    from live_fakes import RATE as FAKE_RATE
    from live_fakes import SIZE, make_engine

    engine, pictures = make_engine()
    random = np.random.default_rng(0)
    now_s, next_push, n_frames, worst = 0.0, 0.0, 0, 0.0
    epoch, first, start_s = 0, 0, 0.0
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.monotonic()
    while now_s < 3600.0 * hours:
        if now_s >= next_push:
            n = int(random.integers(1, 250))
            engine.push(np.full(n * SIZE, 0.1, np.float32), FAKE_RATE, now_s)
            if random.random() < 0.8:
                engine.flush()
            if random.random() < 0.1:
                engine.interrupt()
            next_push = now_s + n * FRAME_S + random.uniform(0.0, 5.0)
        frame = engine.step(now_s)
        if frame is None:
            now_s += max(engine.wait_s(now_s), 0.0005)
            continue
        n_frames += 1
        pictures.codes.clear()  # the fake keeps them
        if frame.epoch != epoch:  # the player begins again here
            epoch, first, start_s = frame.epoch, frame.index, now_s
        worst = max(worst, abs(now_s - start_s - (frame.index - first) * FRAME_S))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    return {
        "bench": "soak",
        "hours": hours,
        "frames": n_frames,
        "frames_expected": round(3600 * hours / FRAME_S),
        "worst_ms": round(1000 * worst, 1),
        "repeated": engine.statistics.n_repeated,
        "memory_grown_kib": grown,
        "took_s": round(time.monotonic() - begun, 1),
    }


# ------------------------------------------------------------------------------------ silence


def bench_silence(avatar: Avatar, seconds: float) -> list[Mapping[str, Any]]:
    """Share of frames in which the mouth moves without speech, by pace and sound."""
    random = np.random.default_rng(0)
    n = round(seconds * SAMPLE_RATE)
    times = np.arange(n) / SAMPLE_RATE
    fan = np.cumsum(random.standard_normal(n))
    fan -= np.convolve(fan, np.ones(200) / 200, "same")
    chord = sum(np.sin(2 * np.pi * f * times) for f in (220.0, 277.2, 329.6, 440.0))
    beat = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * 2.0 * times))
    sounds = {
        "quiet": np.zeros(n),
        "room noise": 0.003 * random.standard_normal(n),
        "fan": 0.05 * fan / np.abs(fan).std(),
        "music": 0.05 * chord * beat,
    }
    rows = []
    paces: tuple[Pace, ...] = ("playback", "arrival")
    for pace in paces:
        for name, sound in sounds.items():
            line = begin_speech(avatar, pace, None, 1.0)
            codes = np.concatenate([line.push(sound.astype(np.float32)), line.finish()])
            moved = np.abs(codes - avatar.predictor.scaling.rest).max(1) > 1e-3
            rows.append(
                {"bench": "silence", "pace": pace, "sound": name, "moves": round(moved.mean(), 4)}
            )
    return rows


# ------------------------------------------------------------------------------------ browser


def bench_browser(home: Path, chromium: str, seconds: float) -> Mapping[str, Any]:
    """Latency from the microphone to the picture on the page."""
    with tempfile.TemporaryDirectory(prefix="talkhead-bench-") as name:
        microphone = Path(name) / "microphone.wav"
        wavfile.write(microphone, RATE, np.rint(32767 * speech(30.0)).astype(np.int16))
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        command = [sys.executable, "-m", "talkhead.app.cli.main", "serve", "--home", str(home)]
        server = subprocess.Popen(
            [*command, "--port", str(port), "--token", TOKEN],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/v1/health")
            return asyncio.run(_drive(server.pid, port, chromium, microphone, seconds))
        finally:
            server.terminate()
            server.wait(30)


async def _drive(
    pid: int, port: int, chromium: str, microphone: Path, seconds: float
) -> Mapping[str, Any]:
    """Open the page in Chromium, speak into its fake microphone, and read its meter."""
    from playwright.async_api import async_playwright

    flags = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
        "--autoplay-policy=no-user-gesture-required",
    ]
    async with async_playwright() as play:
        browser = await play.chromium.launch(executable_path=chromium, args=flags)
        context = await browser.new_context(permissions=["microphone"])
        page = await context.new_page()
        begun = time.monotonic()
        await page.goto(f"http://127.0.0.1:{port}/#token={TOKEN}")
        await page.wait_for_selector("#people-list > *")
        view_ms = 1000.0 * (time.monotonic() - begun)
        await page.click("#tab-live")
        await page.click("#live-begin")
        await page.wait_for_selector("#live-picture:not([hidden])", timeout=180_000)
        await page.click("#live-microphone")
        before = _processor_s_of(pid)
        await page.wait_for_timeout(1000 * seconds)
        used = _processor_s_of(pid) - before
        facts = await page.evaluate("() => ({...document.getElementById('live-meter').dataset})")
        await page.click("#live-begin")
        await browser.close()
    return {
        "bench": "microphone to page",
        "first_view_ms": round(view_ms),
        **{name: value if name == "codec" else float(value) for name, value in facts.items()},
        "server_cores": round(used / seconds, 3),
        "load": load(),
    }


def _processor_s_of(pid: int) -> float:
    """Processor time of another process; on Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait_for(address: str) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + 60.0
    while True:
        try:
            with urllib.request.urlopen(address, timeout=1.0):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


async def _print_rows(rows: AsyncIterator[Mapping[str, Any]]) -> None:
    """Print each row as soon as it was measured."""
    async for row in rows:
        print(json.dumps(row), flush=True)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--identity", help="name of a person (default: the one fitted last)")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--viewers", type=int, default=500)
    given = parser.parse_args()
    if given.what == "soak":
        print(json.dumps(bench_soak(given.hours)))
        return
    if given.what == "browser":
        print(json.dumps(bench_browser(given.home, given.chromium, given.seconds)))
        return
    if given.what == "broadcast":
        sound = speech(given.seconds, BROADCAST_RATE)
        shown = bench_broadcast(
            given.home, sound, BROADCAST_RATE, given.viewers, given.seconds, given.chromium
        )
        asyncio.run(_print_rows(shown))
        return
    if given.what == "load":
        rows = measure_load(
            lambda: load_identity(given.identity, home=given.home), speech(LOAD_S), RATE
        )
        asyncio.run(_print_rows(rows))
        return
    avatar = load_identity(given.identity, home=given.home)
    if given.what == "silence":
        for row in bench_silence(avatar, 60.0):
            print(json.dumps(row))
        return
    if given.what == "hour":
        asyncio.run(_print_rows(Hour(avatar, speech(60.0), RATE, 60.0 * given.hours).run()))
        return
    for ahead in (None, 1):
        print(json.dumps(bench_microphone(avatar, given.seconds, ahead)), flush=True)
    print(json.dumps(bench_line(avatar)), flush=True)
    print(json.dumps(bench_idle(avatar, given.seconds)), flush=True)


if __name__ == "__main__":
    main()
