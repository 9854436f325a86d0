"""/v1/dubs: tables with their files, and the paths that they must not contain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from serving import LINE, Serve, Work, detail, until
from test_server_identities import footage

from talkhead import media
from talkhead.app.dubbing import video_columns
from talkhead.app.server.settings import Limits

__all__ = ["footage"]

Files = list[tuple[str, tuple[str, bytes]]]


def dub(client: TestClient, table: str, *files: tuple[str, bytes], **more: Any) -> Any:
    name = more.pop("name", "lines.csv")
    parts: Files = [("table", (name, table.encode())), *(("files", one) for one in files)]
    return client.post("/v1/dubs", files=parts, data=more)


def test_a_table(client: TestClient, work: Work, clip: bytes) -> None:
    table = "audio,output,identity,height\na.wav,one.mp4,anna,240\nb.wav,two.webm,anna,\n"
    answer = dub(client, table, ("a.wav", LINE.read_bytes()), ("b.wav", LINE.read_bytes()))
    assert answer.status_code == 202, answer.text
    address = answer.headers["location"]
    done = until(client, address, "completed")
    assert (done["object"], done["title"], done["progress"]) == ("dub", "lines.csv", 100)
    assert [one["title"] for one in done["videos"]] == ["one.mp4", "two.webm"]
    assert [one["format"] for one in done["videos"]] == ["mp4", "webm"]
    assert [dict(task.options) for task in work.tasks] == [{"height": 240}, {}]
    assert client.get(f"/v1/videos/{done['videos'][0]['id']}/content").content == clip
    assert {one["dub"] for one in client.get("/v1/videos").json()["data"]} == {done["id"]}
    assert [one["id"] for one in client.get("/v1/dubs").json()["data"]] == [done["id"]]


def test_a_table_with_footage(client: TestClient, work: Work, footage: bytes) -> None:
    table = "audio,output,video,preset\na.wav,one.mp4,berta.mp4,preview\n"
    files = (("a.wav", LINE.read_bytes()), ("berta.mp4", footage))
    assert "consent: is needed" in detail(dub(client, table, *files), 422)
    assert client.get("/v1/videos").json()["data"] == []
    answer = dub(client, table, *files, consent="Berta, in writing")
    assert answer.status_code == 202, answer.text
    assert answer.json()["identities"] == ["berta"]
    until(client, answer.headers["location"], "completed")
    assert [task.kind for task in work.tasks] == ["fit", "line"]
    assert work.tasks[0].options == {"consent": "Berta, in writing"}
    assert client.get("/v1/identities/berta").json()["status"] == "completed"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("audio,output,identity\n/etc/passwd,one.mp4,anna\n", "line 2"),
        ("audio,output,identity\n../../../record.json,one.mp4,anna\n", "line 2"),
        ("audio,output,identity\na.wav,../one.mp4,anna\n", "outside of the table's folder"),
        ("audio,output,identity\na.wav,/tmp/one.mp4,anna\n", "outside of the table's folder"),
        ("audio,output,identity\na.wav,one.mp4,../anna\n", "not found"),
        ("audio,output,identity\na.wav,one.mp4,/tmp\n", "not found"),
        ("audio,output,identity,transcript\na.wav,one.mp4,anna,/etc/passwd\n", "outside of the"),
        (
            "audio,output,identity,mode,background\na.wav,one.mp4,anna,head,/usr/share/pixmaps/a.png\n",
            "line 2",
        ),
        ("audio,output,identity,key,certificate\na.wav,one.mp4,anna,a.wav,a.wav\n", "not accepted"),
        (
            "audio,output,identity,mode,drive\na.wav,one.mp4,anna,head,a.wav\n",
            "drive is not accepted",
        ),
        (
            "audio,output,identity,expression\na.wav,one.mp4,anna,/etc/hosts\n",
            "outside of the table",
        ),
        ("audio,output,identity,codec\na.wav,frames,anna,png\n", "folder of images"),
        ("audio,output,identity\nmissing.wav,one.mp4,anna\n", "missing.wav: no such file"),
        ("audio,output,identity,hieght\na.wav,one.mp4,anna,3\n", "hieght"),
        ("audio,output,identity\n", "no rows"),
    ],
)
def test_tables_that_are_refused(
    client: TestClient, work: Work, people: Path, table: str, words: str
) -> None:
    text = detail(dub(client, table, ("a.wav", LINE.read_bytes())), 422)
    assert words in text and str(people) not in text
    assert list((people / "server" / "dubs").iterdir()) == []
    assert list((people / "server" / "videos").iterdir()) == [] and work.tasks == []


@pytest.mark.parametrize("name", ["../a.wav", "/etc/cron.d/a", ".hidden", "a\x00.wav", "a" * 300])
def test_names_of_files_that_are_refused(client: TestClient, people: Path, name: str) -> None:
    table = "audio,output,identity\na.wav,one.mp4,anna\n"
    answer = dub(client, table, (name, LINE.read_bytes()))
    assert answer.status_code == 422, answer.text
    assert list((people / "server" / "dubs").iterdir()) == []


def test_two_files_of_one_name(client: TestClient) -> None:
    sound = ("a.wav", LINE.read_bytes())
    table = "audio,output,identity\na.wav,one.mp4,anna\n"
    assert "two files have this name" in detail(dub(client, table, sound, sound), 422)


@pytest.fixture
def movie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A video of two seconds without sound, on a machine with a voice."""
    monkeypatch.setattr(video_columns, "is_available", lambda url: True)
    path = tmp_path / "movie.mp4"
    media.write_video(path, np.zeros((50, 16, 16, 3), np.uint8))
    return path.read_bytes()


MOVIE = """video: movie.mp4
lines: en.json
output: movie.en.mp4
speakers: {Anna: anna, Narrator: anna}
bed: music.wav
"""


def lines_of(audio: str) -> bytes:
    first = {"start": 0, "end": 1, "speaker": "Anna", "audio": audio}
    return json.dumps([first, {"start": 1, "end": 2, "speaker": "Narrator", "text": "Hi"}]).encode()


def test_a_whole_video(client: TestClient, work: Work, people: Path, movie: bytes) -> None:
    sound = LINE.read_bytes()
    files = [("movie.mp4", movie), ("en.json", lines_of("a.wav")), ("music.wav", sound)]
    answer = dub(client, MOVIE, *files, ("a.wav", sound), name="movie.yaml")
    assert answer.status_code == 202, answer.text
    done = until(client, answer.headers["location"], "completed")
    (video,) = done["videos"]
    assert (video["identity"], video["title"]) == ("anna", "movie.en.mp4")
    (task,) = work.tasks
    assert (task.kind, task.identities) == ("dub", ("anna",)) and task.dub is not None
    assert task.dub.speakers == {"Anna": "anna", "Narrator": "anna"}
    folder = people / "server" / "dubs" / done["id"] / "files"
    assert [path.name for path in task.files] == ["movie.mp4", "en.json", "music.wav", "a.wav"]
    assert {path.parent for path in task.files} == {folder}
    assert client.delete("/v1/identities/anna").status_code == 200
    assert client.get("/v1/videos").json()["data"] == []


def test_whole_videos_are_not_longer_than_allowed(serve: Serve, movie: bytes) -> None:
    files = (("movie.mp4", movie), ("en.srt", b"1\n00:00:00,000 --> 00:00:01,000\nHi\n"))
    table = "video,lines,output,identity\nmovie.mp4,en.srt,a.mp4,anna\n"
    with serve(Limits(audio_s=1.0)) as client:
        assert "movie.mp4: lasts" in detail(dub(client, table, *files), 422)


@pytest.mark.parametrize(
    ("changes", "audio", "words"),
    [
        ({}, "/etc/passwd", "passwd is outside of the table's folder"),
        ({}, "/nowhere/lost.wav", "lost.wav is outside of the table's folder"),
        ({}, "../record.json", "record.json is outside of the table's folder"),
        ({}, "lost.wav", "lost.wav: no such file"),
        ({"lines": "/etc/hosts"}, "a.wav", "hosts is outside of the table's folder"),
        ({"bed": "/etc/hosts"}, "a.wav", "hosts is outside of the table's folder"),
        ({"video": "/etc/hosts"}, "a.wav", "hosts is outside of the table's folder"),
        ({"speakers": "{Anna: /etc, Narrator: anna}"}, "a.wav", "identity '/etc': not found"),
        ({"speakers": "{Anna: anna}"}, "a.wav", "unknown speaker 'Narrator'"),
        ({"bed": "movie.mp4"}, "a.wav", "has no sound"),
        ({"max_speed": "9"}, "a.wav", "max_speed is 9.0, where 1 to 2 is allowed"),
    ],
)
def test_whole_videos_that_are_refused(
    client: TestClient,
    work: Work,
    people: Path,
    movie: bytes,
    changes: dict[str, str],
    audio: str,
    words: str,
) -> None:
    """Files outside of the upload are not even looked for."""
    cells = dict(line.split(": ", 1) for line in MOVIE.splitlines())
    table = "".join(f"{name}: {value}\n" for name, value in {**cells, **changes}.items())
    sound = LINE.read_bytes()
    files = [("movie.mp4", movie), ("en.json", lines_of(audio)), ("music.wav", sound)]
    answer = dub(client, table, *files, ("a.wav", sound), name="movie.yaml")
    text = detail(answer, 422)
    assert words in text and str(people) not in text, text
    assert list((people / "server" / "dubs").iterdir()) == []
    assert list((people / "server" / "videos").iterdir()) == [] and work.tasks == []


def test_deleting_a_table(client: TestClient, work: Work, people: Path) -> None:
    work.go.clear()
    table = "audio,output,identity\na.wav,one.mp4,anna\na.wav,two.mp4,anna\n"
    made = dub(client, table, ("a.wav", LINE.read_bytes())).json()
    until(client, f"/v1/videos/{made['videos'][0]['id']}", "in_progress")
    removed = client.delete(f"/v1/dubs/{made['id']}").json()["removed"]
    assert len(removed) == 3
    detail(client.get(f"/v1/dubs/{made['id']}"), 404)
    assert client.get("/v1/videos").json()["data"] == []
    work.go.set()
    assert list((people / "server" / "dubs").iterdir()) == []
