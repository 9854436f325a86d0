"""/v1/dubs: tables with their files, and the paths that they must not contain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from serving import LINE, Work, detail, until
from test_server_identities import footage

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
