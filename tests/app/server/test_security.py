"""Access to the server: token, Host, Origin, tickets, WebSockets, headers, log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, WebSocket
from fastapi.testclient import TestClient
from serving import TOKEN, Serve, detail, speak, until
from starlette.websockets import WebSocketDisconnect

from talkhead.app.server.application import make_application
from talkhead.app.server.logs import JsonLines
from talkhead.app.server.service import Service
from talkhead.app.server.settings import ServerSettings
from talkhead.app.server.tickets import Tickets
from talkhead.errors import TalkheadError

SECRET_PATHS = ("/v1/videos", "/v1/identities", "/v1/dubs", "/v1/metrics", "/v1/nothing")
OPEN_PATHS = ("/", "/openapi.json", "/v1/health")


@pytest.mark.parametrize("path", SECRET_PATHS)
@pytest.mark.parametrize(
    "header",
    [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \u00e9"],
)
def test_paths_are_refused_without_the_token(
    client: TestClient, path: str, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    bare = TestClient(client.app, "http://127.0.0.1:8730")
    answer = bare.get(path, headers=headers)
    assert "token" in detail(answer, 401) and answer.headers["www-authenticate"] == "Bearer"
    assert bare.get(f"{path}?token={TOKEN}").status_code == 401


@pytest.mark.parametrize("path", OPEN_PATHS)
def test_the_page_needs_no_token(client: TestClient, path: str) -> None:
    answer = TestClient(client.app, "http://127.0.0.1:8730").get(path)
    assert answer.status_code == 200 and TOKEN not in answer.text


def test_only_reading_is_open(client: TestClient) -> None:
    bare = TestClient(client.app, "http://127.0.0.1:8730")
    assert bare.post("/").status_code == 401 and bare.delete("/v1/health").status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8730", 200),
        ("localhost:8730", 200),
        ("[::1]:8730", 200),
        ("192.168.1.20", 200),  # an address cannot be the name of another site
        ("talk.example", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:8730", 421),
        ("", 421),
    ],
)
def test_names_of_other_sites_are_refused(serve: Serve, host: str, status: int) -> None:
    with serve(allowed_hosts=("talk.example",)) as client:
        assert client.get("/v1/health", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 404),
        ({"Origin": "http://127.0.0.1:8730"}, 404),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 404),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_pages_of_other_sites_change_nothing(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    path = f"/v1/videos/video_{'0' * 24}"
    assert client.delete(path, headers=headers).status_code == status
    assert client.get("/v1/videos", headers=headers).status_code == 200


def test_headers_restrict_the_page(client: TestClient) -> None:
    for answer in (client.get("/"), client.get("/nothing"), client.get("/v1/videos")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"


# ------------------------------------------------------------------------------ tickets


def test_a_ticket_reads_one_file(client: TestClient) -> None:
    first, second = (until(client, f"/v1/videos/{speak(client)['id']}", "completed") for _ in "ab")
    bare = TestClient(client.app, "http://127.0.0.1:8730")
    link = first["content_url"]
    assert bare.get(link).status_code == 200
    assert bare.get(link.replace(first["id"], second["id"])).status_code == 401
    assert bare.get(link.replace("content", "subtitles")).status_code == 401
    assert bare.get(link.replace("/content", "")).status_code == 401
    assert bare.delete(link).status_code == 401
    assert bare.get(link[:-1] + ("0" if link[-1] != "0" else "1")).status_code == 401


def test_tickets_expire() -> None:
    now = [1000.0]
    tickets = Tickets(lambda: now[0])
    path, _, ticket = tickets.link("/v1/videos/a/content").partition("?ticket=")
    assert tickets.is_valid(path, ticket)
    assert not Tickets(lambda: now[0]).is_valid(path, ticket)  # of another process
    now[0] += 8 * 3600
    assert not tickets.is_valid(path, ticket)
    until_then = ticket.partition("-")[0]
    for wrong in (
        "",
        "-",
        until_then,
        f"{int(until_then) + 9}-{ticket[11:]}",
        "9" * 5000,
        "\u0661-a",
    ):
        assert not tickets.is_valid(path, wrong)


def test_a_ticket_is_for_the_unquoted_path() -> None:
    tickets = Tickets()
    path = "/v1/identities/\u00c5sa/portrait"
    link, _, ticket = tickets.link(path).partition("?ticket=")
    assert link == "/v1/identities/%C3%85sa/portrait" and tickets.is_valid(path, ticket)


# --------------------------------------------------------------------------- WebSockets


@pytest.fixture
def sockets(people: Path) -> Iterator[TestClient]:
    """A server with a WebSocket that echoes messages."""
    router = APIRouter()

    @router.websocket("/v1/echo")
    async def echo(socket: WebSocket) -> None:
        await socket.accept("talkhead")
        await socket.send_text(await socket.receive_text())

    service = Service(ServerSettings(people, token=TOKEN))
    with TestClient(make_application(service, [router]), "http://127.0.0.1:8730") as client:
        yield client


@pytest.mark.parametrize(
    "settings",
    [
        {"headers": {"Authorization": f"Bearer {TOKEN}"}},
        {"subprotocols": ["talkhead", f"bearer.{TOKEN}"]},
        {
            "subprotocols": ["talkhead", f"bearer.{TOKEN}"],
            "headers": {"Origin": "http://127.0.0.1:8730"},
        },
    ],
)
def test_a_websocket_with_the_token(sockets: TestClient, settings: dict[str, Any]) -> None:
    with sockets.websocket_connect("ws://127.0.0.1:8730/v1/echo", **settings) as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "hello"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"subprotocols": ["talkhead", "bearer.wrong"]},
        {"headers": {"Authorization": f"Bearer {TOKEN}", "Origin": "https://evil.example"}},
        {"headers": {"Authorization": f"Bearer {TOKEN}", "Host": "evil.example"}},
    ],
)
def test_a_websocket_that_is_refused(sockets: TestClient, settings: dict[str, Any]) -> None:
    address = "ws://127.0.0.1:8730/v1/echo"
    with (
        pytest.raises(WebSocketDisconnect) as caught,
        sockets.websocket_connect(address, **settings),
    ):
        pass
    assert caught.value.code == 1008


# --------------------------------------------------------------------- settings and log


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": "0.0.0.0", "token": ""}, "so a token is needed"),
        ({"host": "192.168.1.20", "token": ""}, "so a token is needed"),
        ({"token": "short"}, "at least 16"),
        ({"token": "with a space in its middle"}, "not usable"),
    ],
)
def test_weak_settings_are_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(TalkheadError, match=words):
        ServerSettings(tmp_path, **settings)


def test_no_token_on_this_machine_only(serve: Serve) -> None:
    with serve(token="") as client:
        assert TestClient(client.app, "http://localhost").get("/v1/videos").status_code == 200


@pytest.fixture
def lines() -> Iterator[None]:
    """The server's log on stderr."""
    loggers = [logging.getLogger(name) for name in ("talkhead.server", "uvicorn.error")]
    before = [(one, one.handlers[:], one.propagate, one.level) for one in loggers]
    JsonLines.install()
    yield
    for logger, handlers, propagate, level in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.mark.usefixtures("lines")
def test_secrets_are_not_in_the_log(serve: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    with serve() as client:
        made = until(
            client, f"/v1/videos/{speak(client, transcript='my words')['id']}", "completed"
        )
        client.get(made["content_url"])
        client.get("/v1/videos?token=" + TOKEN)
        client.get("/v1/%1b[31m")
    log = capfd.readouterr().err
    assert '"event": "job ended"' in log and '"path": "/v1/videos"' in log
    for secret in (TOKEN, "ticket", "my words", "line.wav", "\x1b"):
        assert secret not in log
    assert repr(ServerSettings(Path("a"), token=TOKEN)).count(TOKEN) == 0
