"""Texts that are spoken in live sessions: their voice, their order, and interruptions."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from live_fakes import RATE, SIZE
from serving import Serve
from test_live import begin, client, connect, make, packets, packets_until

from talkhead.app.server import live
from talkhead.app.server.live_packets import SPEECH
from talkhead.app.server.live_sessions import LiveSessions

__all__ = ["client"]


def test_texts_are_spoken(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = np.full(3 * SIZE, 555, np.int16)
    monkeypatch.setattr(live, "synthesize", lambda text, url: (spoken, RATE))
    info = begin(client)
    with connect(client, info) as socket:
        socket.send_text(json.dumps({"type": "say", "text": "<b>Hello</b>"}))
        assert (packets(socket, 3)[-1][2] == 555).all()
        assert client.post(f"{info['url']}/say", json={"text": "Hello"}).status_code == 202
        assert (packets(socket, 3)[-1][2] == 555).all()


def test_an_interruption_does_not_wait_for_a_slow_voice(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts that were sent before it are not spoken, not even the one that is being synthesized."""
    asked, ready = [], threading.Event()

    def synthesize(text: str, url: str | None) -> tuple[np.ndarray[Any, Any], int]:
        asked.append(text)
        assert ready.wait(60.0)
        return np.full(3 * SIZE, 555 if text == "Third." else 444, np.int16), RATE

    monkeypatch.setattr(live, "synthesize", synthesize)
    with connect(client, begin(client)) as socket:
        for text in ("First.", "Second."):
            socket.send_text(json.dumps({"type": "say", "text": text}))
        socket.send_text(json.dumps({"type": "interrupt"}))
        packets_until(socket, lambda header: header[1] == 1)  # the first voice is still waiting
        socket.send_text(json.dumps({"type": "say", "text": "Third."}))
        ready.set()
        spoken = [sound for header, _, sound in packets(socket, 3) if header[3] & SPEECH]
        assert len(spoken) == 3 and all((sound == 555).all() for sound in spoken)
    assert asked == ["First.", "Third."]


def test_no_more_than_a_few_texts_wait(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = threading.Event()

    def synthesize(text: str, url: str | None) -> tuple[np.ndarray[Any, Any], int]:
        assert ready.wait(60.0)
        return np.zeros(SIZE, np.int16), RATE

    monkeypatch.setattr(live, "synthesize", synthesize)
    with connect(client, begin(client)) as socket:
        for _ in range(live.MAX_TEXTS + 1):
            socket.send_text(json.dumps({"type": "say", "text": "Hello."}))
        message = next(
            m for m in iter(socket.receive, None) if "texts wait" in (m.get("text") or "")
        )
        ready.set()
    assert json.loads(message["text"])["type"] == "error"


def test_texts_are_spoken_by_the_voice_server(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def synthesize(text: str, url: str | None) -> tuple[np.ndarray[Any, Any], int]:
        asked.append((text, url))
        return np.full(3 * SIZE, 555, np.int16), RATE

    monkeypatch.setattr(live, "synthesize", synthesize)
    address = "http://localhost:8880"
    with serve(voice_url=address) as client:
        client.app.state.live = LiveSessions(make)  # type: ignore[attr-defined]
        info = begin(client)
        with connect(client, info) as socket:
            socket.send_text(json.dumps({"type": "say", "text": "Good morning."}))
            packets(socket, 3)
            assert client.post(f"{info['url']}/say", json={"text": "Hello."}).status_code == 202
    assert asked == [("Good morning.", address), ("Hello.", address)]
