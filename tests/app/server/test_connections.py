"""Connections that send no request are closed; slow answers and WebSockets are not."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
import uvicorn
from websockets.sync.client import connect

from talkhead.app.server import connections

WAIT_S = 1.0


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer after several times the limit."""
    await receive()
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        message = await receive()
        await send({"type": "websocket.send", "text": message["text"]})
        await receive()
        return
    await asyncio.sleep(3 * WAIT_S)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"slow"})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server with a short limit."""
    monkeypatch.setattr(connections, "REQUEST_S", WAIT_S)
    config = uvicorn.Config(app, http=connections.TimedProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def receive(connection: socket.socket) -> bytes:
    """Return what arrives next; nothing if the connection has been closed."""
    try:
        return connection.recv(1000)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "])
def test_a_connection_without_a_request_is_closed(port: int, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(said)
        assert receive(connection) == b""


def test_a_second_request_that_is_incomplete_is_closed(port: int) -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        assert receive(connection).startswith(b"HTTP/1.1 200")
        connection.sendall(request[:20])
        while receive(connection):
            pass


def test_a_slow_answer_is_sent(port: int) -> None:
    assert httpx.get(f"http://127.0.0.1:{port}", timeout=60).text == "slow"


def test_a_websocket_that_is_silent_is_kept(port: int) -> None:
    with connect(f"ws://127.0.0.1:{port}", open_timeout=60) as websocket:
        time.sleep(3 * WAIT_S)
        websocket.send("still there")
        assert websocket.recv(timeout=60) == "still there"
