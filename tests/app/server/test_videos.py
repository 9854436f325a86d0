"""/v1/videos: from the request to the file, and requests that are refused."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from serving import LINE, REFUSED, TOKEN, Serve, Work, detail, speak, until

from talkhead import media
from talkhead.app import text_to_speech
from talkhead.app.composer.expression_track import read_track
from talkhead.app.dubbing.job import QUEUED, RUNNING
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.home.identities import SOURCE, Home
from talkhead.app.server.bodies import BodyLimits
from talkhead.app.server.settings import Limits
from talkhead.identity import MANIFEST_NAME
from talkhead.storage import write_json


def videos_dir(people: Path) -> list[Path]:
    return sorted((people / "server" / "videos").iterdir())


def test_a_video(client: TestClient, work: Work, clip: bytes, people: Path) -> None:
    files = {"audio": ("../line one.wav", LINE.read_bytes())}
    data = {"identity": "anna", "height": "240", "loudness": "-16", "subtitles": "none"}
    answer = client.post("/v1/videos", data=data, files=files)
    assert answer.status_code == 202
    made = answer.json()
    address = answer.headers["location"]
    assert address == f"/v1/videos/{made['id']}"
    assert made["object"] == "video" and made["status"] in ("queued", "in_progress")
    done = until(client, address, "completed")
    assert (done["progress"], done["size"], done["bytes"]) == (100, "64x48", len(clip))
    assert (done["identity"], done["title"], done["format"]) == ("anna", "line one.wav", "mp4")
    assert (done["seconds"], done["error"], done["stage"]) == (0.2, "", "")
    assert done["options"] == {"height": 240, "loudness": -16.0}
    (task,) = work.tasks
    assert dict(task.options) == done["options"] and task.identity == "anna"
    assert Path(task.audio).read_bytes() == LINE.read_bytes()
    assert Path(task.audio).parent == people / "server" / "videos" / made["id"]
    assert client.get("/v1/videos").json()["data"] == [client.get(address).json()]


def test_a_video_with_expressions(client: TestClient, work: Work, people: Path) -> None:
    """The track is a file of the job, so that its text cannot name another one."""
    data = {"identity": "anna", "expression": "time,smile\n0,0.5\n", "blinks": "none"}
    made = client.post(
        "/v1/videos", data=data, files={"audio": ("a.wav", LINE.read_bytes())}
    ).json()
    until(client, f"/v1/videos/{made['id']}", "completed")
    (task,) = work.tasks
    track = Path(task.options["expression"])
    assert track.parent == people / "server" / "videos" / made["id"]
    assert read_track(str(track)) == read_track("smile=0.5") and task.options["blinks"] == "none"


def test_a_driven_video(client: TestClient, work: Work, people: Path, tmp_path: Path) -> None:
    """Without audio, the sound is that of the driving video."""
    actor = tmp_path / "actor.mp4"
    media.write_video(actor, np.zeros((5, 48, 64, 3), np.uint8), audio_path=LINE)
    files = {"drive_file": ("actor.mp4", actor.read_bytes())}
    made = client.post("/v1/videos", data={"identity": "anna", "mode": "head"}, files=files).json()
    done = until(client, f"/v1/videos/{made['id']}", "completed")
    assert done["title"] == "actor.mp4"
    (task,) = work.tasks
    drive = Path(task.options["drive"])
    assert drive.parent == people / "server" / "videos" / made["id"]
    assert drive.read_bytes() == Path(task.audio).read_bytes() == actor.read_bytes()


def test_driving_videos_that_are_refused(client: TestClient, people: Path, clip: bytes) -> None:
    sound = {"audio": ("a.wav", LINE.read_bytes())}
    for mode, content, words in (
        ("paste", clip, "needs mode head"),
        ("head", LINE.read_bytes(), "has no picture"),
    ):
        files = {**sound, "drive_file": ("actor.mp4", content)}
        answer = client.post("/v1/videos", data={"identity": "anna", "mode": mode}, files=files)
        assert words in detail(answer, 422)
    assert videos_dir(people) == []


def test_a_video_in_the_timeline_of_the_footage(
    client: TestClient, work: Work, people: Path
) -> None:
    """The footage is where it was when the person was fitted; the response does not say where."""
    (manifest,) = (people / "identities" / "anna").glob(MANIFEST_NAME)
    sha256 = json.loads(manifest.read_text())["source"]["sha256"]
    footage = people / "anna.mp4"
    footage.write_bytes(b"footage")
    folder = Home(people).work_path("anna", "any")
    folder.mkdir(parents=True)
    write_json(folder / SOURCE, {"path": str(footage), "sha256": sha256})
    made = speak(client, timeline="source")
    done = until(client, f"/v1/videos/{made['id']}", "completed")
    assert done["options"] == {"timeline": "source"} and str(footage) not in json.dumps(done)
    assert [task.video for task in work.tasks] == [str(footage)]
    until(client, f"/v1/videos/{speak(client)['id']}", "completed")
    assert work.tasks[-1].video == ""


def test_the_file(client: TestClient, clip: bytes) -> None:
    path = f"/v1/videos/{speak(client)['id']}"
    until(client, path, "completed")
    whole = client.get(f"{path}/content")
    assert whole.content == clip and whole.headers["content-type"] == "video/mp4"
    assert (
        whole.headers["etag"] and 'filename="anna-line.mp4"' in whole.headers["content-disposition"]
    )
    part = client.get(f"{path}/content", headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, clip[2:6])
    assert client.get(f"{path}/content", headers={"Range": "bytes=9999999-"}).status_code == 416
    assert "no such file" in detail(client.get(f"{path}/subtitles"), 404)


def test_the_file_is_not_available_before_it_is_finished(client: TestClient, work: Work) -> None:
    work.go.clear()
    path = f"/v1/videos/{speak(client)['id']}"
    running = until(client, path, "in_progress")
    assert running["content_url"] == "" and 0 <= running["progress"] < 100
    assert "in_progress" in detail(client.get(f"{path}/content"), 409)


def test_events(client: TestClient, work: Work) -> None:
    work.go.clear()
    path = f"/v1/videos/{speak(client)['id']}"
    until(client, path, "in_progress")
    found = []
    with client.stream("GET", f"{path}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            work.go.set()
            found.append(line)
    names = [line.removeprefix("event: ") for line in found if line.startswith("event: ")]
    assert names[-1] == "completed" and set(names[:-1]) <= {"progress"}
    last = json.loads([line for line in found if line.startswith("data: ")][-1][6:])
    assert last["status"] == "completed" and last["progress"] == 100


@pytest.mark.parametrize("error", REFUSED)
def test_a_video_that_fails(client: TestClient, work: Work, error: Exception) -> None:
    work.error = error
    failed = until(client, f"/v1/videos/{speak(client)['id']}", "failed")
    assert failed["error"] == str(error) and failed["content_url"] == ""
    # Errors in the footage are not retried.
    assert len(work.tasks) == (1 if error is REFUSED[1] else 2)


def test_pages_of_the_list(client: TestClient) -> None:
    ids = [speak(client)["id"] for _ in range(3)]
    first = client.get("/v1/videos?limit=2").json()
    assert [one["id"] for one in first["data"]] == ids[:0:-1] and first["has_more"]
    rest = client.get(f"/v1/videos?limit=2&after={ids[1]}").json()
    assert [one["id"] for one in rest["data"]] == ids[:1] and not rest["has_more"]
    assert client.get("/v1/videos?identity=berta").json()["data"] == []
    assert client.get("/v1/videos?limit=1000").status_code == 422


# -------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"identity": "berta"}, "'berta': not found. Choose one of: anna"),
        ({"identity": "../../etc"}, "not found"),
        ({"identity": "/etc"}, "not found"),
        ({"identity": "<script>alert(1)</script>"}, "not found"),
        ({"identity": "anna\x00"}, "not found"),
        ({"mode": "dance"}, "mode: input should be 'paste' or 'head'"),
        ({"height": "tall"}, "height"),
        ({"height": "8"}, "a height of 8 pixels is not allowed"),
        ({"yaw": "nan", "mode": "head"}, "yaw of nan"),
        ({"yaw": "5"}, "need mode head"),
        ({"zoom": "1e309"}, "zoom"),
        ({"intensity": "9"}, "intensity"),
        ({"timeline": "film"}, "timeline: input should be 'idle' or 'source'"),
        ({"timeline": "source", "mode": "head"}, "timeline source needs mode paste, not head"),
        ({"timeline": "source"}, "was moved or removed. Choose timeline idle"),
        ({"footage_end": "stop"}, "footage end stop needs timeline source"),
        ({"footage_end": "loop"}, "footage_end: input should be 'refuse', 'bounce' or 'stop'"),
        ({"video": "/etc/passwd"}, "unknown field 'video'"),
        ({"codec": "png"}, "folder of images"),
        ({"codec": "rm -rf"}, "there is no codec"),
        ({"subtitles": "loud"}, "subtitles"),
        ({"background": "/etc/passwd", "mode": "head"}, "give own, alpha, a color"),
        ({"yaw": "5"}, "need mode head"),
        ({"renderer": "nerf"}, "without the renderer nerf"),
        ({"key": "/etc/passwd"}, "unknown field 'key'"),
        ({"certificate": "a.pem"}, "unknown field"),
        ({"drive": "a.mp4"}, "unknown field"),
        ({"expression": "/etc/hostname"}, "is not an expression"),
        ({"expression": "dance=1"}, "there is no expression 'dance'"),
        ({"fps": "1e999999999"}, "frames per second are not allowed"),
        ({"blinks": "often"}, "blinks 'often' are not allowed"),
        ({"hieght": "3"}, "unknown field 'hieght'"),
        ({"text": "Hello"}, "audio or text is needed"),
        ({"callback_url": "https://example.com"}, "callbacks are off"),
    ],
)
def test_values_that_are_refused(
    client: TestClient, people: Path, data: dict[str, str], words: str
) -> None:
    files = {"audio": ("line.wav", LINE.read_bytes())}
    answer = client.post("/v1/videos", data={"identity": "anna", **data}, files=files)
    text = detail(answer, 422)
    assert words in text and str(people) not in text and "--" not in text
    assert videos_dir(people) == []  # no upload is left


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "line.wav is empty"),
        (b"not a sound at all", "line.wav: is not a video or audio file"),
        (LINE.read_bytes()[:40], "line.wav"),
    ],
)
def test_audio_that_is_refused(
    client: TestClient, people: Path, content: bytes, words: str
) -> None:
    files = {"audio": ("line.wav", content)}
    text = detail(client.post("/v1/videos", data={"identity": "anna"}, files=files), 422)
    assert words in text and str(people) not in text
    assert videos_dir(people) == []


def test_audio_or_text(client: TestClient) -> None:
    assert "audio or text" in detail(client.post("/v1/videos", data={"identity": "anna"}), 422)


def test_text_without_a_voice(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_to_speech, "is_available", lambda url=None: False)
    answer = client.post("/v1/videos", data={"identity": "anna", "text": "Hello"})
    assert "no voice is installed" in detail(answer, 422)
    assert "text" not in client.get("/v1/health").json()["features"]


def test_text(client: TestClient, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []

    def synthesize(text: str, url: str | None) -> tuple[Any, int]:
        said.append((text, url))
        return np.zeros(8000, np.int16), 16000

    monkeypatch.setattr(text_to_speech, "synthesize", synthesize)
    answer = client.post("/v1/videos", data={"identity": "anna", "text": "Hello\nyou"})
    made = answer.json()
    assert (answer.status_code, made["title"], made["seconds"]) == (202, "Hello you", 0.5)
    until(client, f"/v1/videos/{made['id']}", "completed")
    assert said == [("Hello\nyou", None)] and Path(work.tasks[0].audio).name == "sound.wav"


def test_a_transcript_is_never_a_path(client: TestClient, work: Work, people: Path) -> None:
    secret = people / "secret.txt"
    secret.write_text("secret")
    made = speak(client, transcript=str(secret), subtitles="srt")
    until(client, f"/v1/videos/{made['id']}", "completed")
    written = Path(work.tasks[0].options["transcript"])
    assert written.read_text() == str(secret) and written.parent.name == made["id"]


def test_names_are_shown_unchanged(client: TestClient) -> None:
    name = '"><img src=x onerror=alert(1)>\u202e.wav'
    files = {"audio": (name, LINE.read_bytes())}
    made = client.post("/v1/videos", data={"identity": "anna"}, files=files).json()
    assert "\u202e" not in made["title"]
    assert made["title"].startswith(('"><img', "%22><img"))
    done = until(client, f"/v1/videos/{made['id']}", "completed")
    assert client.get(f"/v1/videos/{done['id']}/content").status_code == 200


@pytest.mark.parametrize("path", ["video_0", "..%2f..%2fetc", "video_" + "g" * 24, "a" * 5000])
def test_invalid_ids(client: TestClient, path: str) -> None:
    for address in (f"/v1/videos/{path}", f"/v1/videos/{path}/content"):
        detail(client.get(address), 422 if "2f" not in path else 404)
    detail(client.get(f"/v1/videos/video_{'0' * 24}"), 404)


def test_other_methods(client: TestClient) -> None:
    assert "not possible" in detail(client.put("/v1/videos"), 405)


def test_audio_that_is_too_long(serve: Serve, people: Path) -> None:
    files = {"audio": ("line.wav", LINE.read_bytes())}
    with serve(Limits(audio_s=3.0)) as client:
        answer = client.post("/v1/videos", data={"identity": "anna"}, files=files)
        assert "lasts 0.1 minutes, at most 0.05" in detail(answer, 422)
        assert videos_dir(people) == []


# --------------------------------------------------------------------------------- limits


def test_a_full_queue(serve: Serve, work: Work) -> None:
    work.go.clear()
    with serve(Limits(n_queued=2)) as client:
        ids = [speak(client)["id"] for _ in range(2)]
        files = {"audio": ("line.wav", LINE.read_bytes())}
        answer = client.post("/v1/videos", data={"identity": "anna"}, files=files)
        assert "2 jobs are waiting" in detail(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
        work.go.set()
        for one in ids:
            until(client, f"/v1/videos/{one}", "completed")
        speak(client)


def test_a_full_disk(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"audio": ("line.wav", LINE.read_bytes())}
    with serve() as client:
        limits = client.app.state.service.settings.limits  # type: ignore[attr-defined]
        object.__setattr__(limits, "free_bytes", 1 << 62)
        answer = client.post("/v1/videos", data={"identity": "anna"}, files=files)
        assert "disk of the server is nearly full" in detail(answer, 507)


def test_a_body_that_is_too_large(serve: Serve, people: Path) -> None:
    with serve(Limits(audio_bytes=1 << 20)) as client:
        large = b"\0" * (2 << 20)
        answer = client.post("/v1/videos", files={"audio": ("a.wav", large)})
        assert "at most 1 MiB" in detail(answer, 413)
        chunks = (large[:100_000] for _ in range(30))  # without a declared size
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = client.post("/v1/videos", content=chunks, headers=headers)
        assert "at most 1 MiB" in detail(answer, 413)
        assert videos_dir(people) == []


Message = dict[str, Any]


def call(app: Any, messages: Callable[[], Any], **scope: Any) -> list[Message]:
    """Call an ASGI application and return what it sends."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    whole = {
        "type": "http",
        "method": "POST",
        "path": "/v1/videos",
        "headers": [],
        "query_string": b"",
        **scope,
    }
    asyncio.run(app(whole, messages, send))
    return sent


@pytest.mark.parametrize("first", [b"", b"some"])
def test_a_body_that_is_too_slow(first: bytes) -> None:
    messages = [{"type": "http.request", "body": first, "more_body": True}] * 1000
    received: list[Message] = []

    async def receive() -> Message:
        if not first and received:
            await asyncio.sleep(60)
        await asyncio.sleep(0.005)
        received.append(messages[0])
        return messages[0]

    async def app(scope: Message, receive: Any, send: Any) -> None:
        while (await receive())["type"] == "http.request":
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})

    limits = Limits(idle_s=0.1, bytes_per_s=1e6)
    sent = call(BodyLimits(app, limits, lambda size: None), receive)
    assert [one["status"] for one in sent if "status" in one] == [408]


def test_an_upload_that_is_interrupted(client: TestClient, people: Path) -> None:
    start = b'--x\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\nRIFF'
    messages = iter(
        [
            {"type": "http.request", "body": start, "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> Message:
        return next(messages)

    headers = [
        (b"host", b"localhost"),
        (b"authorization", f"Bearer {TOKEN}".encode()),
        (b"content-type", b"multipart/form-data; boundary=x"),
    ]
    sent = call(client.app, receive, headers=headers)
    assert [one["status"] for one in sent if "status" in one] == [400]
    assert videos_dir(people) == []
    speak(client)


# --------------------------------------------------------------------------------- once


def test_a_repeated_request_is_carried_out_once(client: TestClient, work: Work) -> None:
    files = {"audio": ("line.wav", LINE.read_bytes())}
    headers = {"Idempotency-Key": "a-1"}

    def request(**data: str) -> Any:
        fields = {"identity": "anna", **data}
        return client.post("/v1/videos", data=fields, files=files, headers=headers)

    first, again = request(), request()
    assert again.status_code == 202 and again.json()["id"] == first.json()["id"]
    assert again.headers["location"] == first.headers["location"]
    assert "another request" in detail(request(height="240"), 422)
    headers["Idempotency-Key"] = "a-2"
    assert request().json()["id"] != first.json()["id"]
    headers["Idempotency-Key"] = "x" * 1000
    assert "Idempotency-Key" in detail(request(), 422)
    assert len(client.get("/v1/videos").json()["data"]) == 2


def test_a_request_that_failed_can_be_repeated(client: TestClient) -> None:
    headers = {"Idempotency-Key": "a"}
    files = {"audio": ("line.wav", b"no sound")}
    detail(client.post("/v1/videos", data={"identity": "anna"}, files=files, headers=headers), 422)
    files = {"audio": ("line.wav", LINE.read_bytes())}
    answer = client.post("/v1/videos", data={"identity": "anna"}, files=files, headers=headers)
    assert answer.status_code == 202


# ------------------------------------------------------------------------------- deleting


def gone(client: TestClient, people: Path, video_id: str) -> bool:
    """Check that no files of a video are left after its job has stopped."""
    folder = people / "server" / "videos" / video_id
    for _ in range(500):
        if not folder.exists() and not JobStore(people / "jobs").jobs():
            break
        time.sleep(0.01)
    detail(client.get(f"/v1/videos/{video_id}"), 404)
    return not folder.exists() and client.get("/v1/videos").json()["data"] == []


@pytest.mark.parametrize("state", ["completed", "in_progress", "failed"])
def test_deleting_a_video(client: TestClient, work: Work, people: Path, state: str) -> None:
    if state == "in_progress":
        work.go.clear()
    work.error = REFUSED[1] if state == "failed" else None
    video_id = speak(client)["id"]
    until(client, f"/v1/videos/{video_id}", state)
    answer = client.delete(f"/v1/videos/{video_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert gone(client, people, video_id)
    detail(client.delete(f"/v1/videos/{video_id}"), 404)


def test_deleting_a_video_that_waits(client: TestClient, work: Work, people: Path) -> None:
    work.go.clear()
    first, second = (speak(client)["id"] for _ in range(2))
    until(client, f"/v1/videos/{first}", "in_progress")
    assert client.delete(f"/v1/videos/{second}").status_code == 204
    detail(client.get(f"/v1/videos/{second}"), 404)
    work.go.set()
    until(client, f"/v1/videos/{first}", "completed")
    assert len(work.tasks) == 1
    assert [path.name for path in videos_dir(people)] == [first]


# -------------------------------------------------------------------------------- restart


def test_jobs_survive_a_restart(serve: Serve, work: Work, people: Path) -> None:
    work.go.clear()
    store = JobStore(people / "jobs")
    with serve(Limits(n_queued=9)) as client:
        ids = [speak(client)["id"] for _ in range(3)]
        until(client, f"/v1/videos/{ids[0]}", "in_progress")
        assert len(store.jobs((QUEUED, RUNNING))) == 3
        kept = {path: path.read_bytes() for path in (people / "jobs").rglob("*.json")}
        work.error = REFUSED[0]
        store.cancel([job.id for job in store.jobs()])
    for path in (*(people / "jobs").rglob("*.json"), *(people / "jobs" / "cancelling").iterdir()):
        path.unlink()
    for path, content in kept.items():  # as after a kill: one job is running without a process
        path.write_bytes(content)
    work.error = None
    work.tasks.clear()
    with serve() as client:
        for one in ids:
            until(client, f"/v1/videos/{one}", "completed")
        assert len(work.tasks) == 3  # each once
    with serve() as client:
        assert [one["status"] for one in client.get("/v1/videos").json()["data"]] == [
            "completed"
        ] * 3
    assert len(work.tasks) == 3


def test_a_kill_before_the_job_is_added(serve: Serve, work: Work, people: Path) -> None:
    with serve() as client:
        video_id = speak(client)["id"]
        until(client, f"/v1/videos/{video_id}", "completed")
    store = JobStore(people / "jobs")
    with store.removing(store.jobs()):
        pass
    (people / "server" / "videos" / "video_half").mkdir()  # an upload without a record
    with serve() as client:
        until(client, f"/v1/videos/{video_id}", "completed")
    assert len(work.tasks) == 2 and [path.name for path in videos_dir(people)] == [video_id]


def test_one_server_for_a_home(serve: Serve, people: Path) -> None:
    from talkhead.errors import TalkheadError

    with (
        serve(),
        pytest.raises(TalkheadError, match="another talkhead serve uses this folder"),
        serve(),
    ):
        pass


def test_a_damaged_record_does_not_stop_the_others(serve: Serve, people: Path) -> None:
    with serve() as client:
        first, second = (speak(client)["id"] for _ in range(2))
        until(client, f"/v1/videos/{second}", "completed")
    (people / "server" / "videos" / first / "record.json").write_text("{")
    with serve() as client:
        assert [one["id"] for one in client.get("/v1/videos").json()["data"]] == [second]


# --------------------------------------------------------------------------------- others


def test_metrics(client: TestClient) -> None:
    until(client, f"/v1/videos/{speak(client)['id']}", "completed")
    text = client.get("/v1/metrics").text
    assert 'talkhead_jobs_ended_total{kind="video",status="done"} 1.0' in text
    assert "talkhead_frames_total 5.0" in text and 'talkhead_jobs{status="done"} 1.0' in text
    assert 'talkhead_requests_total{method="POST",status="202"} 1.0' in text


def test_health(client: TestClient) -> None:
    found = client.get("/v1/health").json()
    assert (found["status"], found["problem"]) == ("ok", "")
    client.app.state.service.runner.problem = "/home/x: the disk is full"  # type: ignore[attr-defined]
    answer = client.get("/v1/health")
    assert answer.status_code == 503 and "/home" not in answer.text


def test_the_description_of_the_api(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    form = described["paths"]["/v1/videos"]["post"]["requestBody"]["content"]["multipart/form-data"]
    name = form["schema"]["$ref"].rpartition("/")[2]
    fields = described["components"]["schemas"][name]["properties"]
    assert {"audio", "text", "identity", "mode", "height", "subtitles", "transcript"} <= set(fields)
    assert not {"certificate", "drive", "key", "overwrite"} & set(fields)
    assert "cdn" not in json.dumps(described)
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            refused = operation["responses"]["422"]["content"]
            assert list(refused) == ["application/problem+json"], (method, path)
    for path in ("/docs", "/redoc"):
        assert client.get(path).status_code == 404
