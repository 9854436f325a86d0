"""/v1/identities/NAME/web: exports are written when they are needed, and served with a ticket."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from serving import Serve, detail, until
from web_browser import readable_person

from talkhead.app.home.identities import Home
from talkhead.app.server import logs
from talkhead.app.server.security import CONTENT_SECURITY_POLICY
from talkhead.app.server.web_heads import WebHeads
from talkhead.app.web_export import export, request
from talkhead.errors import TalkheadError
from talkhead.identity import MANIFEST_NAME, IdentityPackage

WEB = "/v1/identities/anna/web"


@pytest.fixture(autouse=True)
def avatar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Anna, loaded, with a head that tells in its colors what it shows."""
    return readable_person(monkeypatch, tmp_path, np.zeros(2, np.float32), np.zeros((5, 2), "f4"))


@pytest.fixture
def bare(client: TestClient) -> TestClient:
    """A client without the token."""
    return TestClient(client.app, "http://127.0.0.1:8730")


def written(client: TestClient) -> dict[str, Any]:
    assert client.post(WEB).status_code == 202
    return until(client, WEB, "completed", "failed")


def test_an_export_is_written_once_and_served(client: TestClient, bare: TestClient) -> None:
    assert "Send POST" in detail(client.get(WEB), 404)
    made = written(client)
    assert (made["status"], made["progress"], made["error"]) == ("completed", 100, "")
    assert client.post(WEB).json() == made  # written once
    manifest = bare.get(made["url"] + "manifest.json").json()
    assert (manifest["identity"], manifest["consent"], manifest["lines"]) == ("anna", "Yes.", [])
    assert not manifest["live"] and "speech.bin" not in manifest["files"]
    for name, about in manifest["files"].items():
        answer = bare.get(made["url"] + name)
        assert hashlib.sha256(answer.content).hexdigest() == about["sha256"], name
        assert client.get(f"{WEB}/{name}").content == answer.content
    assert bare.get(made["url"] + "statement.json").json()["payload"]


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("worker.js", "text/javascript; charset=utf-8"),
        ("talkhead.wasm", "application/wasm"),
        ("idle.mp4", "video/mp4"),
        ("head.bin", "application/octet-stream"),
        ("manifest.json", "application/json"),
    ],
)
def test_a_browser_keeps_a_file_while_it_is_the_same(
    client: TestClient, name: str, media_type: str
) -> None:
    written(client)
    first = client.get(f"{WEB}/{name}")
    again = client.get(f"{WEB}/{name}", headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert first.headers["content-type"] == media_type
    for answer in (first, again):  # a browser takes the policy of the second one, too
        assert "'wasm-unsafe-eval'" in answer.headers["content-security-policy"]
        assert "no-store" not in answer.headers["cache-control"]
    assert "wasm" not in CONTENT_SECURITY_POLICY
    other = client.get(f"{WEB}/{name}", headers={"If-None-Match": '"other"'})
    assert other.content == first.content


@pytest.mark.parametrize(
    "name",
    [
        "nothing.js",
        "..%2f..%2f..%2flatest.json",
        "lines",
        "\u00e9",
        "%00",
        "a" * 99,
    ],
)
def test_only_files_of_the_manifest_are_served(client: TestClient, people: Path, name: str) -> None:
    written(client)
    (site,) = (people / "web" / "anna").iterdir()
    (site / "secret.txt").write_text("secret")
    for path in (f"{WEB}/{name}", f"{WEB}/secret.txt", f"{WEB}/0-0/{name}"):
        detail(client.get(path), 404)


def test_a_ticket_reads_one_folder(client: TestClient, bare: TestClient, people: Path) -> None:
    url = written(client)["url"]
    ticket = url.rstrip("/").rpartition("/")[2]
    assert bare.get(url + "worker.js").status_code == 200
    for path in (
        f"{WEB}/worker.js",
        f"{WEB}/worker.js?ticket={ticket}",
        f"{WEB}/{ticket}",
        url + "a/worker.js",
        url.replace("anna", "berta") + "worker.js",
        url.replace("/web/", "/portrait/") + "worker.js",
        f"/v1/identities/anna/portrait?ticket={ticket}",
        url.replace(ticket, ticket[:-1] + ("0" if ticket[-1] != "0" else "1")) + "worker.js",
    ):
        assert bare.get(path).status_code == 401, path
    assert bare.get(url).status_code == 404
    assert bare.post(url + "worker.js").status_code == 401
    assert bare.post(WEB).status_code == 401 and bare.get(WEB).status_code == 401


def test_a_ticket_is_not_in_the_log(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    url, paths = written(client)["url"], []
    monkeypatch.setattr(logs, "log", lambda _, **fields: paths.append(fields["path"]))
    client.get(url + "worker.js")
    assert paths == [f"{WEB}/worker.js"]


# ------------------------------------------------------------------------------- refused


def change_manifest(people: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = people / "identities" / "anna" / MANIFEST_NAME
    manifest = json.loads(path.read_text("utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), "utf-8")


def test_people_who_cannot_be_exported(
    client: TestClient, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("/v1/identities/berta/web", "/v1/identities/..%2fanna/web"):
        assert client.get(path).status_code == client.post(path).status_code == 404
    change_manifest(people, lambda manifest: manifest.update(consent=None))
    assert "no statement of consent" in detail(client.post(WEB), 422)
    monkeypatch.setattr(request, "RENDERER", "gaussian")
    text = detail(client.post(WEB), 422)
    assert "fitted with warp" in text and "--" not in text
    assert not (people / "web").exists()


def test_a_failure_is_reported_and_tried_again(
    client: TestClient, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, words in (
        (TalkheadError(f"{people}/a/head.bin: cannot be written"), "head.bin: cannot be written"),
        (ValueError("a defect"), "see the server's log"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(export, "write_head", raising(error))
            failed = written(client)
            assert (failed["status"], failed["url"]) == ("failed", "")
            assert words in failed["error"] and str(people) not in failed["error"]
        assert list((people / "scratch").iterdir()) == []
    assert written(client)["status"] == "completed"


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_a_full_disk_is_reported(client: TestClient) -> None:
    limits = client.app.state.service.settings.limits  # type: ignore[attr-defined]
    object.__setattr__(limits, "free_bytes", 1 << 62)
    assert "disk of the server is nearly full" in detail(client.post(WEB), 507)


# --------------------------------------------------------------------- changes and removal


class Held:
    """A head whose writing waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        write = export.write_head

        def wait(path: Path, avatar: Any, progress: Any) -> None:
            with progress.step("Writing the head", total=4) as step:
                step.advance(2)
                self.begun.set()
                while not self.go.wait(0.01):
                    step.advance(0)
            write(path, avatar, progress)

        monkeypatch.setattr(export, "write_head", wait)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held(monkeypatch)
    yield held
    held.go.set()


def test_progress_is_shown(client: TestClient, held: Held) -> None:
    client.post(WEB)
    assert held.begun.wait(30)
    shown = client.post(WEB).json()
    assert (shown["status"], shown["stage"], shown["progress"]) == (
        "in_progress",
        "Writing the head",
        25,
    )
    held.go.set()
    assert until(client, WEB, "completed", "failed")["status"] == "completed"


def test_a_deletion_stops_writing_and_removes_the_export(
    client: TestClient, held: Held, people: Path, add: Callable[[Path], IdentityPackage]
) -> None:
    client.post(WEB)
    assert held.begun.wait(30)
    assert client.delete("/v1/identities/anna").status_code == 200
    assert client.get(WEB).status_code == 404 and not list(people.glob("web/*"))
    assert list((people / "scratch").iterdir()) == []
    add(people / "identities" / "anna")
    held.go.set()
    written(client)
    removed = client.delete("/v1/identities/anna").json()["removed"]
    assert "removed web/anna" in removed and not list(people.glob("web/*"))


def test_people_wait_for_each_other_and_can_be_deleted_meanwhile(
    client: TestClient, held: Held, people: Path, add: Callable[[Path], IdentityPackage]
) -> None:
    add(people / "identities" / "berta")
    client.post(WEB)
    assert held.begun.wait(30)
    assert client.post(WEB.replace("anna", "berta")).json()["status"] == "queued"
    assert client.delete("/v1/identities/berta").status_code == 200
    assert client.get(WEB).json()["status"] == "in_progress"
    held.go.set()
    assert until(client, WEB, "completed", "failed")["status"] == "completed"
    heads = client.app.state.service.web_heads  # type: ignore[attr-defined]
    with heads._writing:  # berta's turn is over
        assert [path.name for path in (people / "web").iterdir()] == ["anna"]


def test_a_person_who_is_fitted_again_is_written_again(
    client: TestClient, people: Path, held: Held
) -> None:
    client.post(WEB)
    assert held.begun.wait(30)
    change_manifest(people, lambda manifest: manifest.update(consent="Again."))
    held.go.set()
    second = written(client)
    assert client.get(f"{WEB}/manifest.json").json()["consent"] == "Again."
    change_manifest(people, lambda manifest: manifest.update(consent="Yes, again."))
    assert client.get(WEB).status_code == client.get(f"{WEB}/worker.js").status_code == 404
    third = written(client)
    assert third["id"] != second["id"] and len(list((people / "web" / "anna").iterdir())) == 1


def test_an_outdated_export_is_not_finished(client: TestClient, people: Path, held: Held) -> None:
    client.post(WEB)
    assert held.begun.wait(30)
    change_manifest(people, lambda manifest: manifest.update(consent="Again."))
    held.begun.clear()
    client.post(WEB)
    assert held.begun.wait(30)  # the first one did not go on
    assert not list(people.glob("web/*/*"))
    held.go.set()
    assert until(client, WEB, "completed", "failed")["status"] == "completed"


def test_a_server_that_stops_leaves_nothing(serve: Serve, held: Held, people: Path) -> None:
    with serve() as client:
        client.post(WEB)
        assert held.begun.wait(30)
    assert not list(people.glob("web/*/*")) and list((people / "scratch").iterdir()) == []


def test_a_folder_for_callers_within_the_server(client: TestClient, people: Path) -> None:
    heads = WebHeads(Home(people), "cpu")
    assert heads.find("anna") is None
    folder = heads.folder("anna")
    assert (folder / "manifest.json").is_file() and heads.folder("anna") == folder
    assert heads.find("anna") == folder and heads.build("anna") is None
    assert client.get(WEB).json()["id"] == folder.name
    with pytest.raises(TalkheadError):
        heads.folder("berta")


def test_callers_within_the_server_do_not_wait_for_what_is_cancelled(
    client: TestClient, people: Path, held: Held
) -> None:
    heads = WebHeads(Home(people), "cpu")
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(heads.folder, "anna") for _ in range(2)]
        assert held.begun.wait(30)
        heads.stop()
        for one in waiting:
            with pytest.raises(TalkheadError, match="cancelled"):
                one.result(30)
    assert not list(people.glob("web/*/*")) and list((people / "scratch").iterdir()) == []
