"""The server under kills: videos are requested while it is killed again and again.

    python -m benchmarks.server --home HOME [--videos 200] [--kills 20]

HOME has a fitted identity. The videos are rendered by a stand-in, in the server's own worker processes.
A request that a kill has interrupted is repeated with its Idempotency-Key. Prints a JSON line, or fails
with an AssertionError if a video is missing, was made twice, or if any other file is left.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.dubbing import HELPERS, fresh_jobs, identity_of
from talkhead.app.dubbing.job_store import JobStore

TOKEN = "a-token-of-the-benchmark"
LATEST_S = 60.0
"""Longest wait for a job before a kill."""
END_S = 600.0
"""Longest wait for the last videos."""
SERVER = f"""
import sys
sys.path.insert(0, {str(HELPERS)!r})
from talkhead.app.cli import main as cli
from talkhead.app.dubbing.local_pool import LocalPool, WorkerConfig
from talkhead.app.server import service
def make_pool(jobs, home, options):
    config = WorkerConfig(home.path / "jobs", home.path, 10**6, "killing:SlowFakeTaskRunner")
    return LocalPool(config, ["cpu", "cpu"])
service.make_pool = make_pool
if __name__ == "__main__":
    sys.argv[0] = "talkhead"
    cli.main()
"""


@contextmanager
def server(home: Path) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """A server with fake renderers, and a client. It is killed at the end."""
    import httpx2 as httpx

    words = ["serve", "--port", "0", "--home", str(home), "--max-queue", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TALKHEAD_TOKEN": TOKEN},
    )
    try:
        assert process.stdout is not None
        found = next(filter(None, (re.search(r"http://\S+/", line) for line in process.stdout)))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=found[0], headers=headers, timeout=60) as client:
            yield process, client
    finally:
        process.kill()
        process.wait()


def sound(number: int) -> bytes:
    """A WAV file of a tenth of a second that is different for each number."""
    file = io.BytesIO()
    with wave.open(file, "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(16_000)
        target.writeframes(random.Random(number).randbytes(3200))
    return file.getvalue()


def request_some(client: Any, name: str, ids: dict[int, str], n_videos: int) -> None:
    """Request videos until there are enough, or until the server is killed."""
    import httpx2 as httpx

    while len(ids) < n_videos:
        number = len(ids)
        try:
            answer = client.post(
                "v1/videos",
                data={"identity": name},
                files={"audio": (f"{number}.wav", sound(number))},
                headers={"Idempotency-Key": f"video {number}"},
            )
        except httpx.TransportError:  # killed: the next server is asked the same
            return
        assert answer.status_code == 202, answer.text
        ids[number] = answer.json()["id"]


def bench_kills(home: Path, n_videos: int, n_kills: int) -> Mapping[str, Any]:
    """Request videos under kills at random times: each must be made exactly once."""
    dice, ids, seen = random.Random(1), dict[int, str](), dict[str, int]()
    begun, n_busy = time.monotonic(), 0
    with fresh_jobs(home) as own:
        for name, value in (("chance", 0), ("seed", 1), ("most", 0)):  # of the stand-in
            (own / name).write_text(str(value))
        name, store = identity_of(home), JobStore(own / "jobs")
        for kill in range(n_kills):
            allowed = min(n_videos, 2 * n_videos * (kill + 1) // n_kills)
            with server(own) as (process, client):
                killer = Killer(process, store, dice)
                request_some(client, name, ids, allowed)
                killer.join()
                n_busy += killer.is_busy
            _watch(own, seen)
        with server(own) as (_, client):
            request_some(client, name, ids, n_videos)
            _wait_for(store, n_videos)
            listed = _listed(client)
        _watch(own, seen)
        assert sorted(listed) == sorted(ids.values()) and len(set(listed)) == n_videos
        _check(own, store, ids)
    return {
        "benchmark": "kills of the server",
        "videos": n_videos,
        "done_once": len(seen),
        "kills": n_kills,
        "kills_during_a_job": n_busy,
        "seconds": round(time.monotonic() - begun, 1),
    }


class Killer(threading.Thread):
    """Kills a server: in most cases while a job runs, otherwise at any time.

    Attributes:
        is_busy: True if a job was running.
    """

    def __init__(
        self, process: subprocess.Popen[str], store: JobStore, dice: random.Random
    ) -> None:
        super().__init__(daemon=True)
        self._process, self._running = process, store.path / "running"
        self._waits, self._pause_s = dice.random() < 0.75, dice.uniform(0.0, 1.5)
        self.is_busy = False
        self.start()

    def run(self) -> None:
        """Wait and kill."""
        end_s = time.monotonic() + LATEST_S
        while self._waits and not self._works() and time.monotonic() < end_s:
            time.sleep(0.02)
        time.sleep(self._pause_s)
        self.is_busy = self._works()
        self._process.kill()

    def _works(self) -> bool:
        return any(self._running.glob("*.json"))


def _wait_for(store: JobStore, n_videos: int) -> None:
    end_s = time.monotonic() + END_S
    while len(list((store.path / "done").glob("*.json"))) < n_videos:
        assert time.monotonic() < end_s, "the videos are not done"
        time.sleep(0.2)


def _listed(client: Any) -> list[str]:
    """IDs of all videos, page by page."""
    ids: list[str] = []
    while True:
        after = f"&after={ids[-1]}" if ids else ""
        page = client.get(f"v1/videos?limit=20{after}").json()
        assert {one["status"] for one in page["data"]} == {"completed"}
        ids += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            return ids


def _watch(home: Path, seen: dict[str, int]) -> None:
    """Check that no finished video was written again."""
    for path in (home / "server" / "videos").glob("*/video.mp4"):
        written = path.stat().st_mtime_ns
        assert seen.setdefault(path.parent.name, written) == written, f"{path} was written twice"


def _check(home: Path, store: JobStore, ids: Mapping[int, str]) -> None:
    """Check the content of every video, and that no other files are left."""
    from killing import expected

    for number, video_id in ids.items():
        folder = home / "server" / "videos" / video_id
        assert {one.name for one in folder.iterdir()} == {"record.json", "audio.wav", "video.mp4"}
        assert (folder / "audio.wav").read_bytes() == sound(number)
        assert (folder / "video.mp4").read_bytes() == expected(folder / "audio.wav")
    assert len(list((home / "server" / "videos").iterdir())) == len(ids)
    assert not list((home / "server" / "incoming").iterdir())
    counts = {status: len(list((store.path / status).iterdir())) for status in ("done", "queued")}
    assert counts == {"done": len(ids), "queued": 0}, counts
    store.tidy()
    for name in ("running", "failed", "work", "locks", "cancelling"):
        assert not list((store.path / name).iterdir()), f"{name} is not empty"


def main() -> None:
    """Print the result."""
    sys.path.insert(0, str(HELPERS))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    chosen = parser.parse_args()
    print(json.dumps(bench_kills(chosen.home, chosen.videos, chosen.kills)))


if __name__ == "__main__":
    main()
