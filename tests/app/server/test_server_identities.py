"""/v1/identities: fits of uploaded footage, names, and deletion of all data of a person."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from serving import LINE, REFUSED, Serve, Work, detail, speak, until

from talkhead import media
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.server.settings import Limits


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A video of six seconds with audio and without a face."""
    path = tmp_path_factory.mktemp("footage") / "berta.mp4"
    frames: Iterator[Any] = (np.full((48, 64, 3), i % 256, np.uint8) for i in range(150))
    with closing(frames):  # type: ignore[type-var]
        media.write_video(path, frames, audio_path=LINE)
    return path.read_bytes()


def fit(client: TestClient, footage: bytes, **fields: str) -> Any:
    data = {"consent": "Berta, in writing", "preset": "preview", **fields}
    return client.post("/v1/identities", data=data, files={"video": ("Berta B.mp4", footage)})


def test_a_fit(client: TestClient, work: Work, footage: bytes, people: Path) -> None:
    answer = fit(client, footage, use_all_frames="true")
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == "/v1/identities/Berta-B"
    made = answer.json()
    assert (made["name"], made["object"], made["consent"]) == (
        "Berta-B",
        "identity",
        "Berta, in writing",
    )
    done = until(client, answer.headers["location"], "completed")
    assert done["progress"] == 100 and done["error"] == ""
    (task,) = work.tasks
    assert task.options["consent"] == "Berta, in writing" and task.options["use_all_frames"]
    assert (task.preset, task.identity) == ("preview", "Berta-B")
    assert Path(task.video).read_bytes() == footage
    names = [one["name"] for one in client.get("/v1/identities").json()["data"]]
    assert names == ["Berta-B", "anna"]


def test_anna(client: TestClient) -> None:
    anna = client.get("/v1/identities/anna").json()
    assert anna["status"] == "completed" and anna["is_default"]
    assert (anna["size"], anna["renderers"], anna["consent"]) == ("640x480", ["warp"], "Yes.")
    assert anna["figures"] == {"psnr_db": 33.1} and anna["created_at"] > 1e9
    assert anna["report_url"] == "" and anna["portrait_url"].startswith("/v1/identities/anna/")


def test_portrait_and_report(client: TestClient, clip: bytes, people: Path) -> None:
    (people / "identities" / "anna" / "idle.mp4").write_bytes(clip)
    report = people / "reports" / "anna" / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text("<p>fine</p>")
    anna = client.get("/v1/identities/anna").json()
    bare = TestClient(client.app, "http://127.0.0.1:8730")
    portrait = bare.get(anna["portrait_url"])
    assert portrait.headers["content-type"] == "image/jpeg" and portrait.content[:2] == b"\xff\xd8"
    shown = bare.get(anna["report_url"])
    assert shown.text == "<p>fine</p>" and "sandbox" in shown.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "../anna"}, "not allowed"),
        ({"name": "a/b"}, "not allowed"),
        ({"name": "<script>"}, "not allowed"),
        ({"name": ".hidden"}, "not allowed"),
        ({"name": "a" * 65}, "not allowed"),
        ({"consent": "   "}, "consent"),
        ({"consent": ""}, "consent"),
        ({"consent": "a" * 501}, "consent"),
        ({"preset": "best"}, "preset"),
        ({"renderer": "magic"}, "there is no renderer"),
        ({"min_face": "2"}, "share of frames"),
        ({"encoder": "/tmp/own.safetensors"}, "unknown field"),
        ({"callback_url": "https://example.com"}, "callbacks are off"),
    ],
)
def test_values_that_are_refused(
    client: TestClient, footage: bytes, people: Path, fields: dict[str, str], words: str
) -> None:
    text = detail(fit(client, footage, **fields), 422)
    assert words in text and str(people) not in text
    assert list((people / "server" / "fits").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"no video", "Berta B.mp4: is not a video"),
        (LINE.read_bytes(), "Berta B.mp4: has no picture"),
    ],
)
def test_footage_that_is_refused(
    client: TestClient, people: Path, content: bytes, words: str
) -> None:
    text = detail(fit(client, content), 422)
    assert words in text and str(people) not in text
    assert list((people / "server" / "fits").iterdir()) == []


def test_footage_that_is_too_long(serve: Serve, footage: bytes) -> None:
    with serve(Limits(footage_s=2.0)) as client:
        assert "at most" in detail(fit(client, footage), 422)


def test_consent_is_required(client: TestClient, footage: bytes) -> None:
    answer = client.post("/v1/identities", files={"video": ("a.mp4", footage)})
    assert detail(answer, 422) == "consent is missing, but required"


def test_a_name_that_is_taken(client: TestClient, work: Work, footage: bytes) -> None:
    assert "called anna already" in detail(fit(client, footage, name="anna"), 409)
    work.go.clear()
    assert fit(client, footage).status_code == 202
    assert "called Berta-B already" in detail(fit(client, footage), 409)


def test_a_fit_that_fails_can_be_repeated(client: TestClient, work: Work, footage: bytes) -> None:
    work.error = REFUSED[1]
    fit(client, footage)
    failed = until(client, "/v1/identities/Berta-B", "failed")
    assert failed["error"] == "Berta B.mp4: no face was found. Record one"
    work.error = None
    assert fit(client, footage).status_code == 202
    until(client, "/v1/identities/Berta-B", "completed")


def test_a_fit_is_carried_out_once(client: TestClient, work: Work, footage: bytes) -> None:
    data = {"consent": "Yes", "name": "berta"}
    for _ in range(2):
        answer = client.post(
            "/v1/identities",
            data=data,
            files={"video": ("b.mp4", footage)},
            headers={"Idempotency-Key": "k"},
        )
        assert answer.status_code == 202 and answer.json()["name"] == "berta"
    until(client, "/v1/identities/berta", "completed")
    assert len(work.tasks) == 1


# ------------------------------------------------------------------------------- deleting


def traces(folder: Path, word: bytes) -> list[Path]:
    """List the files and folders other than the log that contain a word in their name or content."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if word in path.read_bytes() or word in str(path).encode()]


def test_deleting_a_person(client: TestClient, work: Work, footage: bytes, people: Path) -> None:
    fit(client, footage, name="berta")
    until(client, "/v1/identities/berta", "completed")
    made = speak(client, identity="berta")
    until(client, f"/v1/videos/{made['id']}", "completed")
    (people / "work" / "berta-0123456789ab").mkdir(parents=True)
    (people / "reports" / "berta").mkdir(parents=True)
    kept = speak(client, identity="anna")["id"]
    until(client, f"/v1/videos/{kept}", "completed")
    assert traces(people, b"berta") and traces(people, footage[:64])
    answer = client.delete("/v1/identities/berta")
    assert answer.status_code == 200, answer.text
    removed = answer.json()["removed"]
    for what in (
        "identities/berta",
        "work/berta-0123456789ab",
        "reports/berta",
        "server/fits/berta",
        f"server/videos/{made['id']}",
    ):
        assert f"removed {what}" in removed
    assert str(people) not in answer.text
    assert traces(people, b"berta") == [] and traces(people, footage[:64]) == []
    detail(client.get("/v1/identities/berta"), 404)
    detail(client.get(f"/v1/videos/{made['id']}"), 404)
    assert client.get(f"/v1/videos/{kept}").json()["status"] == "completed"
    detail(client.delete("/v1/identities/berta"), 404)


def test_deleting_a_person_who_is_being_fitted(
    client: TestClient, work: Work, footage: bytes, people: Path
) -> None:
    work.go.clear()
    fit(client, footage, name="berta")
    until(client, "/v1/identities/berta", "in_progress")
    assert client.delete("/v1/identities/berta").status_code == 200
    detail(client.get("/v1/identities/berta"), 404)
    assert traces(people, b"berta") == []
    work.go.set()
    assert fit(client, footage, name="berta").status_code == 202
    until(client, "/v1/identities/berta", "completed")


def test_deleting_a_person_who_speaks(client: TestClient, work: Work, people: Path) -> None:
    work.go.clear()
    running, waiting = (speak(client)["id"] for _ in "ab")
    until(client, f"/v1/videos/{running}", "in_progress")
    assert client.delete("/v1/identities/anna").status_code == 200
    for one in (running, waiting):
        detail(client.get(f"/v1/videos/{one}"), 404)
    work.go.set()
    time.sleep(0.1)
    assert JobStore(people / "jobs").jobs() == [] and traces(people, b"anna") == []
    assert client.get("/v1/health").json()["status"] == "ok"


@pytest.mark.parametrize("name", ["nobody", "%2e%2e", "..%5c", "a" * 200, "%00"])
def test_unknown_and_invalid_names(client: TestClient, people: Path, name: str) -> None:
    for answer in (client.get(f"/v1/identities/{name}"), client.delete(f"/v1/identities/{name}")):
        assert answer.status_code in (404, 405, 422), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    assert (people / "identities" / "anna").is_dir()


def test_a_restart_in_the_middle_of_a_fit(
    serve: Serve, work: Work, footage: bytes, people: Path
) -> None:
    with serve() as client:
        work.go.clear()
        fit(client, footage, name="berta")
        until(client, "/v1/identities/berta", "in_progress")
        job = JobStore(people / "jobs").jobs()[0]
        path = people / "jobs" / "running" / f"{job.id}.json"
        content = path.read_bytes()
    (people / "jobs" / "done" / path.name).unlink()
    path.write_bytes(content)  # as after a kill
    with serve() as client:
        until(client, "/v1/identities/berta", "completed")
    assert len(work.tasks) == 2


def test_live_sessions_of_a_deleted_person_end(client: TestClient, people: Path) -> None:
    """None begins before the person is deleted."""
    found: list[str | bool] = []

    class Sessions:
        @asynccontextmanager
        async def barred(self, identity: str) -> AsyncIterator[None]:
            found.append(identity)
            yield
            found.append((people / "identities" / identity).exists())

        async def close(self) -> None:
            """Nothing is left to end."""

    client.app.state.live = Sessions()  # type: ignore[attr-defined]
    assert client.delete("/v1/identities/anna").status_code == 200
    assert found == ["anna", False]
