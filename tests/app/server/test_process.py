"""The server as a process: SIGTERM, SIGKILL, HTTPS, and a video with the real renderer."""

from __future__ import annotations

import os
import random
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from serving import LINE

from talkhead import media
from talkhead.app.dubbing.job import DONE, QUEUED
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.fit import FitResult
from talkhead.identity import IdentityPackage

TOKEN = "a-token-of-the-tests"
HELPERS = Path(__file__).parents[2] / "helpers"
# The fake jobs take half a second; their outputs are not videos.
FAKE = f"""
import sys
sys.path.insert(0, {str(HELPERS)!r})
from talkhead.app.dubbing.local_pool import LocalPool, WorkerConfig
from talkhead.app.server import service
def make_pool(jobs, home, options):
    config = WorkerConfig(home.path / "jobs", home.path, 99, "fakes:SlowTaskRunner")
    return LocalPool(config, ["cpu", "cpu"])
service.make_pool = make_pool
"""
RUN = """
import sys
from talkhead.app.cli import main as cli
if __name__ == "__main__":
    sys.argv[0] = "talkhead"
    cli.main()
"""


@contextmanager
def server(
    home: Path, *words: str, setup: str = FAKE
) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """Start a server, and kill it at the end."""
    command = [sys.executable, "-c", setup + RUN, "serve", "--port", "0", "--home", str(home)]
    environment = {**os.environ, "TALKHEAD_TOKEN": TOKEN}
    process = subprocess.Popen(
        [*command, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        found = next(filter(None, (re.search(r"https?://\S+/", line) for line in process.stdout)))
        context = ssl.create_default_context()
        if found[0].startswith("https"):
            context.load_verify_locations(home / "server" / "tls" / "certificate.pem")
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=found[0], headers=headers, verify=context, timeout=60) as client:
            yield process, client
    finally:
        process.kill()
        process.communicate()


def speak(client: httpx.Client, **fields: str) -> dict[str, Any]:
    files = {"audio": ("line.wav", LINE.read_bytes())}
    answer = client.post("v1/videos", data={"identity": "anna", **fields}, files=files)
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()
    return made


def until_all(client: httpx.Client, status: str) -> list[dict[str, Any]]:
    """Wait until all videos have a status."""
    for _ in range(600):
        found: list[dict[str, Any]] = client.get("v1/videos?limit=100").json()["data"]
        if {one["status"] for one in found} <= {status}:
            return found
        time.sleep(0.1)
    raise AssertionError(found)


@pytest.fixture
def place(tmp_path: Path, add: Any) -> Path:
    """A home folder with anna."""
    package: IdentityPackage = add(tmp_path / "people" / "identities" / "anna")
    return package.path.parents[1]


def test_kills(place: Path) -> None:
    """Videos survive kills of the server at any moment, and each exists exactly once at the end."""
    rng = random.Random(1)
    ids = []
    for n_new in (3, 2, 1):
        with server(place) as (process, client):
            ids += [speak(client)["id"] for _ in range(n_new)]
            time.sleep(rng.uniform(0.0, 3.0))
            process.kill()
    with server(place) as (process, client):
        done = until_all(client, "completed")
        assert sorted(one["id"] for one in done) == sorted(ids)
        for one in ids:
            content = client.get(f"v1/videos/{one}/content").content
            assert content == b"audio: " + LINE.read_bytes()
    jobs = JobStore(place / "jobs").jobs()
    assert len(jobs) == 6 and {job.status for job in jobs} == {DONE}


def test_a_stopped_server_ends_cleanly(place: Path) -> None:
    with server(place) as (process, client):
        speak(client), speak(client), speak(client)
        with client.stream("GET", f"v1/videos/{speak(client)['id']}/events") as events:
            next(events.iter_lines())
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        assert process.stderr is not None
        log = process.stderr.read()
        assert (
            "stopped; jobs that were running resume at the next start" in log
            and "Traceback" not in log
        )
        assert TOKEN not in log
    assert {job.status for job in JobStore(place / "jobs").jobs()} <= {DONE, QUEUED}


def test_https(place: Path) -> None:
    with server(place, "--tls") as (_, client):
        assert client.base_url.scheme == "https"
        assert client.get("v1/health").json()["status"] == "ok"


def test_a_real_video(fitted: FitResult, tmp_path: Path) -> None:
    people = fitted.package_path.parents[1]
    with server(people, "--workers", "1", setup="") as (_, client):
        preview = client.post("v1/previews", data={"identity": fitted.name, "height": "120"})
        assert preview.status_code == 200, preview.text
        assert preview.headers["content-type"] == "image/jpeg"
        speak(client, identity=fitted.name)
        (done,) = until_all(client, "completed")
        path = tmp_path / "line.mp4"
        path.write_bytes(client.get(done["content_url"]).content)
        assert client.get(f"v1/identities/{fitted.name}/portrait").content[:2] == b"\xff\xd8"
        assert client.delete(f"v1/videos/{done['id']}").status_code == 204
    info, line = media.probe(path), media.probe(LINE)
    assert abs(info.duration_s - line.duration_s) < 0.1 and info.has_audio
    assert f"{info.width}x{info.height}" == done["size"]
