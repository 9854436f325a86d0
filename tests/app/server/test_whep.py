"""Requests of viewers (WHEP) where WebRTC is not installed, and those that are refused in any case."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from serving import Serve
from test_live import begin, make

from talkhead.app.server.live import LiveSessions

SDP = {"Content-Type": "application/sdp"}


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
