"""A server with the protocols of `talkhead serve`, whose broadcasts are those of a fake person."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
import uvicorn
from live_fakes import RATE, make_engine
from serving import TOKEN, Quick, Work
from websockets.sync.client import ClientConnection, connect

from talkhead.app.live.session import LiveSession
from talkhead.app.server import serving
from talkhead.app.server.live import PROTOCOL
from talkhead.app.server.live_packets import HEADER
from talkhead.app.server.live_requests import LiveRequest
from talkhead.app.server.live_sessions import LiveSessions
from talkhead.app.server.service import Service
from talkhead.app.server.settings import Limits, ServerSettings
from talkhead.types import Float32, Int16

CONSENT = "Anna B.: this broadcast, and a copy of my head for its viewers."
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


class Server:
    """A server that is running.

    Attributes:
        service: The service.
        sessions: Its live sessions.
        host: Its address and port.
        loop_of: The server, whose event loop others must not block.
    """

    def __init__(self, service: Service, sessions: LiveSessions, server: uvicorn.Server) -> None:
        self.service, self.sessions = service, sessions
        self.host = f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send a request with the token."""
        return httpx.request(method, f"http://{self.host}{path}", headers=HEADERS, **more)

    def begin(self, **body: Any) -> dict[str, Any]:
        """Begin a broadcast."""
        given = {"codec": "codes", "consent": CONSENT, "sample_rate": RATE} | body
        answer = self.request("POST", "/v1/live", json=given)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def own(self, info: dict[str, Any]) -> ClientConnection:
        """Connect as the one who speaks."""
        protocols: Any = [PROTOCOL, f"bearer.{TOKEN}"]
        return connect(f"ws://{self.host}{info['url']}", subprotocols=protocols)

    def watch(self, info: dict[str, Any], **more: Any) -> ClientConnection:
        """Connect as a viewer, without the token."""
        return connect(f"ws://{self.host}{info['watch_url']}live", **more)

    def wait_for(self, is_there: Callable[[], Any]) -> None:
        """Wait for something, for 30 seconds at most."""
        limit_s = time.monotonic() + 30.0
        while not is_there():
            assert time.monotonic() < limit_s, "what the test waits for does not happen"
            time.sleep(0.01)


def make_broadcast(request: LiveRequest) -> tuple[str, LiveSession]:
    """Begin a session of the fake person."""
    engine, _ = make_engine(**asdict(request.options(badge=True)))
    return request.identity or "anna", LiveSession(engine=engine)


@contextmanager
def broadcasting(people: Path, work: Work, **limits: int) -> Iterator[Server]:
    """Start a server of the fake person."""
    chosen = replace(Limits(), free_bytes=0, **limits)
    settings = ServerSettings(people, port=0, token=TOKEN, limits=chosen)
    service = Service(settings, lambda: Quick(service.store, work))
    service.web_heads.folder = lambda name: people / "web" / name  # type: ignore[method-assign]
    config = serving._config(settings, service, None)
    config.port = 0
    sessions = config.app.state.live = LiveSessions(make_broadcast, n_most=9, n_cores=10**6)  # type: ignore[union-attr]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield Server(service, sessions, server)
    work.go.set()
    service.is_stopping = server.should_exit = True
    thread.join()


@pytest.fixture
def server(people: Path, work: Work) -> Iterator[Server]:
    """A server with the usual limits."""
    with broadcasting(people, work) as started:
        yield started


def read_packet(packet: bytes, scale: list[float]) -> tuple[tuple[int, ...], Float32, Int16]:
    """Return the header of a packet, its code [K] and its audio [n]."""
    header = HEADER.unpack_from(packet)
    end = HEADER.size + header[-1]
    levels = np.frombuffer(packet[HEADER.size : end], np.int8)
    return header, levels * np.float32(scale), np.frombuffer(packet[end:], "<i2")
