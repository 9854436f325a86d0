"""Requests of viewers (WHEP) where WebRTC is not installed, and those that are refused in any case."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from live_fakes import FakePictures, make_local
from serving import Serve
from test_live import begin, make, wait_until_gone

from talkhead.app.live.frames import LiveFrame
from talkhead.app.live.session import LiveSession
from talkhead.app.server import whep
from talkhead.app.server.live_requests import LiveRequest
from talkhead.app.server.live_sessions import LiveSessions
from talkhead.app.server.problems import Problem
from talkhead.errors import MediaError
from talkhead.types import Float32, UInt8

SDP = {"Content-Type": "application/sdp"}


class FakeViewer:
    """A viewer that receives frames without WebRTC."""

    made: list[FakeViewer]

    def __init__(
        self,
        video: AsyncGenerator[LiveFrame, None],
        audio: AsyncGenerator[LiveFrame, None],
        ended: Callable[[], None],
    ) -> None:
        self.made.append(self)
        self.video, self.ended = video, ended

    async def answer(self, offer: str) -> str:
        self.receiving = asyncio.create_task(self._receive())
        return "v=0"

    async def close(self) -> None:
        self.receiving.cancel()
        self.ended()

    async def _receive(self) -> None:
        with suppress(MediaError):
            async for _ in self.video:
                pass


class LostPictures(FakePictures):
    """Pictures that cannot be read once they are lost."""

    is_lost = False

    def next(self, code: Float32) -> UInt8:
        if self.is_lost:
            raise MediaError("the footage is gone")
        return super().next(code)


@pytest.fixture
def viewers(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> list[FakeViewer]:
    """The viewers that are made from now on."""
    FakeViewer.made = []
    fake: Any = SimpleNamespace(Viewer=FakeViewer)
    monkeypatch.setitem(sys.modules, "talkhead.app.live.webrtc", fake)
    return FakeViewer.made


@pytest.fixture
def client(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setitem(sys.modules, "talkhead.app.live.webrtc", None)  # importing it fails
    with serve() as client:
        client.app.state.live = LiveSessions(make)  # type: ignore[attr-defined]
        yield client


def test_the_extra_is_named_where_it_is_missing(client: TestClient) -> None:
    info = begin(client)
    answer = client.post(f"{info['url']}/whep", content="v=0\r\n", headers=SDP)
    assert answer.status_code == 501
    assert "pip install 'talkhead[webrtc]'" in answer.json()["detail"]
    assert client.get(info["url"]).status_code == 200


def test_requests_that_are_refused(client: TestClient) -> None:
    url = f"{begin(client)['url']}/whep"
    assert client.post("/v1/live/none/whep", content="v=0", headers=SDP).status_code == 404
    assert client.post(url, json={"sdp": "v=0"}).status_code == 415
    assert client.post(url, content="v" * 200_000, headers=SDP).status_code == 413
    assert client.delete(f"{url}/none").status_code == 404
    assert client.get(url).status_code == 405
    headers = SDP | {"Authorization": "Bearer wrong"}
    assert client.post(url, content="v=0", headers=headers).status_code == 401
    headers = SDP | {"Origin": "http://evil.example"}
    assert client.post(url, content="v=0", headers=headers).status_code == 403


def test_a_session_that_fails_ends_with_its_viewers(
    client: TestClient, viewers: list[FakeViewer], caplog: pytest.LogCaptureFixture
) -> None:
    pictures = LostPictures()

    def make_lost(request: LiveRequest) -> tuple[str, LiveSession]:
        return "anna", make_local(pictures)[0]

    client.app.state.live = LiveSessions(make_lost)  # type: ignore[attr-defined]
    info = begin(client)
    sessions = client.app.state.live  # type: ignore[attr-defined]
    entry = sessions.find(info["id"])
    assert client.post(f"{info['url']}/whep", content="v=0", headers=SDP).status_code == 201
    assert list(entry.viewers.values()) == viewers and len(viewers) == 1
    pictures.is_lost = True
    assert wait_until_gone(client, info) and client.portal is not None
    client.portal.call(sessions.close)  # waits until it is freed
    assert pictures.closed and not entry.viewers
    failures = [one for one in caplog.records if one.getMessage() == "live session failed"]
    assert [one.fields["reason"] for one in failures] == ["the footage is gone"]  # type: ignore[attr-defined]


def test_a_session_that_ends_before_its_viewer_joins(
    client: TestClient, viewers: list[FakeViewer]
) -> None:
    info = begin(client)
    sessions = client.app.state.live  # type: ignore[attr-defined]

    class SlowRequest:
        """A request whose body arrives after the end of the session."""

        def __init__(self) -> None:
            self.headers = {"content-type": "application/sdp"}

        async def body(self) -> bytes:
            sessions.end(info["id"])
            return b"v=0"

    assert client.portal is not None
    with pytest.raises(Problem) as refused:
        client.portal.call(whep.watch, info["id"], SlowRequest(), sessions)
    assert refused.value.status == 404 and not viewers
