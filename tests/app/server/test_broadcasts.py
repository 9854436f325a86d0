"""Broadcasts: packets, access, limits, slow viewers, and how they end."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
from broadcasting import CONSENT, HEADERS, Server, broadcasting, read_packet, server
from live_fakes import RATE, REST, SIZE, make_engine
from serving import Serve, Work, detail
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from talkhead.app.live.code_encoder import MAX_LEVEL, CodeEncoder
from talkhead.app.live.frames import NO_PICTURE, LiveFrame
from talkhead.app.live.session import LiveSession
from talkhead.app.output.live_manifest import MEDIA_TYPE
from talkhead.app.server import audience
from talkhead.app.server.audience import STALL_S, Audience
from talkhead.app.server.connections import MAX_WAITING_BYTES
from talkhead.app.server.live_packets import HEADER, SPEECH, pack
from talkhead.app.server.live_requests import LiveRequest
from talkhead.app.server.live_sessions import CONNECT_S, LiveSessions
from talkhead.app.server.security import public_path
from talkhead.errors import TalkheadError
from talkhead.types import Float32

__all__ = ["server"]

SOUND = np.full(8 * SIZE, 12_000, "<i2")


def make_frame(code: Float32, level: int = 5) -> LiveFrame:
    sound = np.full(SIZE, level, np.int16)
    return LiveFrame(NO_PICTURE, sound, RATE, 7, 2, 3, True, False, code)


def end_of(viewer: ClientConnection) -> tuple[int, str]:
    """Return why a connection ends."""
    with pytest.raises(ConnectionClosed) as found:
        while True:
            viewer.recv(timeout=30)
    assert found.value.rcvd is not None
    return found.value.rcvd.code, found.value.rcvd.reason


def packets_of(viewer: ClientConnection, n_speech: int) -> dict[int, bytes]:
    """Return packets by their numbers, until a number of them with speech have arrived."""
    found: dict[int, bytes] = {}
    while sum(bool(HEADER.unpack_from(one)[3] & SPEECH) for one in found.values()) < n_speech:
        packet = viewer.recv(timeout=30)
        assert isinstance(packet, bytes)
        found[HEADER.unpack_from(packet)[0]] = packet
    return found


def test_codes_are_within_half_a_step() -> None:
    random = np.random.default_rng(0)
    reach = random.uniform(0.1, 3.0, 20).astype(np.float32)
    encoder = CodeEncoder(reach.tolist())
    scale = np.float32(encoder.scale)
    for _ in range(50):
        code = (random.uniform(-1.0, 1.0, 20) * reach).astype(np.float32)
        header, found, sound = read_packet(
            pack(make_frame(code), encoder.encode(make_frame(code))), [*encoder.scale]
        )
        assert (np.abs(found - code) <= 0.501 * scale).all()
        assert header == (7, 2, 3, SPEECH + 8, 2, 0, 20) and (sound == 5).all()
    far = encoder.encode(make_frame(10.0 * reach)).content
    assert (np.frombuffer(far, np.int8) == MAX_LEVEL).all()


def test_silence_is_left_out() -> None:
    encoder, code = CodeEncoder([1.0, 2.0]), np.float32([0.5, -2.0])
    quiet = make_frame(code, level=0)
    assert len(pack(quiet, encoder.encode(quiet))) == HEADER.size + 2


def test_all_viewers_get_the_same_packets(server: Server) -> None:
    info = server.begin()
    assert (info["codec"], info["width"], info["height"]) == ("codes", 0, 0)
    with server.own(info) as own, server.watch(info) as one, server.watch(info) as other:
        greeting = json.loads(one.recv(timeout=30))
        assert greeting == json.loads(other.recv(timeout=30))
        assert greeting["synthetic"] and greeting["badge"] and greeting["consent"] == CONSENT
        assert (greeting["identity"], greeting["sample_rate"]) == ("anna", RATE)
        assert greeting["rest"] == REST.tolist()
        server.wait_for(lambda: server.sessions.n_viewers == 2)
        own.send(SOUND.tobytes())
        own.send('{"type": "flush"}')
        first, second = packets_of(one, 8), packets_of(other, 8)
    both = {*first} & {*second}
    assert len(both) >= 8 and all(first[i] == second[i] for i in both)
    read = [read_packet(packet, greeting["scale"]) for packet in first.values()]
    spoken = [one for one in read if one[0][3] & SPEECH]
    assert [header[2] for header, _, _ in spoken] == list(range(8))
    assert all((sound == 12_000).all() and len(sound) == SIZE for _, _, sound in spoken)
    np.testing.assert_allclose(spoken[-1][1], [12_000 / 32_768, 1.0], atol=0.005)
    assert all(len(sound) == 0 for header, _, sound in read if not header[3] & SPEECH)
    numbers = [header[0] for header, _, _ in read]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_the_one_who_speaks_gets_codes_too(server: Server) -> None:
    info = server.begin()
    with server.own(info) as own:
        scale = json.loads(own.recv(timeout=30))["scale"]
        own.send('{"type": "codec", "codec": "jpeg"}')
        message = own.recv(timeout=30)
        while isinstance(message, bytes):
            assert read_packet(message, scale)[1].shape == (2,)
            message = own.recv(timeout=30)
        while json.loads(message)["type"] == "statistics":
            message = own.recv(timeout=30)
        assert "no pictures" in json.loads(message)["detail"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"codec": "codes"}, "consent"),
        ({"codec": "codes", "consent": ""}, "consent"),
        ({"codec": "jpeg", "consent": CONSENT}, "consent"),
        ({"codec": "codes", "consent": CONSENT, "mode": "head"}, "mode paste"),
        ({"codec": "codes", "consent": CONSENT, "height": 240}, "height"),
        ({"codec": "codes", "consent": CONSENT, "yaw": 3}, "yaw"),
        ({"codec": "codes", "consent": CONSENT, "background": "navy"}, "background"),
    ],
)
def test_what_a_broadcast_cannot_be_is_refused(
    serve: Serve, body: dict[str, Any], words: str
) -> None:
    def make(request: LiveRequest) -> tuple[str, LiveSession]:
        return "anna", LiveSession(engine=make_engine(**vars(request.options(True)))[0])

    with serve() as client:
        client.app.state.live = LiveSessions(make)  # type: ignore[attr-defined]
        assert words in detail(client.post("/v1/live", json=body), 422)
        assert client.get("/v1/live").json() == []


def test_other_sessions_begin_while_a_head_is_written(server: Server) -> None:
    begun, go = threading.Event(), threading.Event()

    def folder(name: str) -> Path:
        begun.set()
        assert go.wait(30)
        raise TalkheadError(f"{name}: cannot be exported. Fit them again")

    body = {"identity": "anna", "codec": "codes", "consent": CONSENT}
    server.service.web_heads.folder = folder  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(server.request, "POST", "/v1/live", json=body)
        assert begun.wait(30)
        assert server.request("POST", "/v1/live", json={"sample_rate": RATE}).status_code == 201
        go.set()
        assert "anna: cannot be exported" in detail(waiting.result(30), 422)


def test_the_manifest_states_the_consent_to_the_broadcast(server: Server) -> None:
    answer = server.request("GET", server.begin()["manifest_url"])
    assert answer.headers["content-type"] == MEDIA_TYPE
    payload = answer.json()["payload"]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["consent"] == CONSENT and claims["synthetic"]


def test_the_key_opens_the_broadcast_only(server: Server) -> None:
    info = server.begin()
    address, path = f"http://{server.host}", info["watch_url"]
    page = httpx.get(address + path)
    assert page.status_code == 200 and "talking-head" in page.text
    policy = page.headers["content-security-policy"]
    assert "unsafe-inline" not in policy and "script-src 'self' 'wasm-unsafe-eval'" in policy
    assert httpx.get(address + path.rstrip("/")).headers["location"] == path
    script = httpx.get(f"{address}{path}watch.js")
    assert (script.status_code, script.headers["connection"]) == (200, "close")
    assert "web export" in detail(httpx.get(f"{address}{path}web/identity.json"), 404)
    assert httpx.post(address + path).status_code == 401
    key = path.split("/")[2]
    for other in ("/v1/live", info["url"], f"/v1/live?ticket={key}"):
        bearer = {"Authorization": f"Bearer {key}"}
        assert httpx.get(address + other, headers=bearer).status_code == 401
    for wrong in (key[:-1], f"{key}x", info["id"], "%C3%A9"):
        answer = httpx.get(f"{address}/watch/{wrong}/", headers=HEADERS)
        assert answer.status_code == 404
        with connect(f"ws://{server.host}/watch/{wrong}/live") as viewer:
            assert end_of(viewer)[0] == 1008
    with pytest.raises(InvalidStatus):
        connect(f"ws://{server.host}{info['url']}", additional_headers=bearer)


def test_pages_of_other_sites_may_watch(server: Server) -> None:
    with server.watch(server.begin(), origin="https://elsewhere.example") as viewer:
        assert json.loads(viewer.recv(timeout=30))["type"] == "session"


def test_keys_are_not_logged() -> None:
    assert public_path("/watch/secret/web/head.bin") == "/watch/.../web/head.bin"
    assert public_path("/watch/secret") == "/watch/.../"
    assert public_path("/v1/live/some") == "/v1/live/some"


def test_viewers_learn_that_it_has_ended(server: Server) -> None:
    info = server.begin()
    with server.watch(info) as viewer:
        viewer.recv(timeout=30)
        server.wait_for(lambda: server.sessions.n_viewers == 1)
        assert server.request("GET", info["url"]).json()["n_viewers"] == 1
        assert server.request("DELETE", info["url"]).status_code == 204
        assert end_of(viewer) == (1000, "the broadcast has ended")
    with server.watch(info) as viewer:
        assert end_of(viewer) == (1008, "there is no such broadcast; it may have ended")
    assert httpx.get(f"http://{server.host}{info['watch_url']}").status_code == 404


def test_a_broadcast_ends_with_the_one_who_speaks(server: Server) -> None:
    info = server.begin()
    with server.watch(info) as viewer:
        with server.own(info) as own:
            own.recv(timeout=30)
        assert end_of(viewer)[0] == 1000


def test_no_more_viewers_than_the_limit(people: Path, work: Work) -> None:
    with broadcasting(people, work, n_viewers=2) as server, ExitStack() as watching:
        info, other = server.begin(), server.begin()
        viewers = [watching.enter_context(server.watch(one)) for one in (info, other)]
        server.wait_for(lambda: server.sessions.n_viewers == 2)
        with server.watch(info) as viewer:
            assert end_of(viewer) == (1013, "2 viewers are watching, the most")
        viewers[1].close()
        server.wait_for(lambda: server.sessions.n_viewers == 1)
        with server.watch(info) as viewer:
            assert json.loads(viewer.recv(timeout=30))["type"] == "session"


def test_webrtc_is_refused(server: Server) -> None:
    offer = {"content": b"v=0", "headers": HEADERS | {"Content-Type": "application/sdp"}}
    answer = httpx.post(f"http://{server.host}{server.begin()['url']}/whep", **offer)
    assert "watch_url" in detail(answer, 409)


def test_a_viewer_who_does_not_read_holds_nobody_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets are as large as half of what may wait, so that a connection is full at once."""
    monkeypatch.setattr(audience, "STALL_S", 1.0)
    sent = audience.pack
    monkeypatch.setattr(
        audience, "pack", lambda *given: sent(*given) + bytes(MAX_WAITING_BYTES // 2)
    )
    info = server.begin()
    with socket.create_connection(server.host.split(":")) as slow, server.watch(info) as viewer:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        path, key = f"{info['watch_url']}live", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
        upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
        head = f"GET {path} HTTP/1.1\r\nHost: {server.host}\r\n{upgrade}\r\n{key}\r\n\r\n"
        slow.sendall(head.encode())
        viewer.recv(timeout=30)
        server.wait_for(lambda: server.sessions.n_viewers == 2)
        numbers = []
        while server.sessions.n_viewers == 2:  # the slow one is disconnected
            packet = viewer.recv(timeout=30)
            assert isinstance(packet, bytes)
            numbers.append(HEADER.unpack_from(packet)[0])
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) and len(numbers) > 20


class FakeWriter:
    """A connection that takes frames while it is open."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.is_open, self.is_aborted = True, False

    def write_frame(self, frame: bytes) -> bool:
        if self.is_open:
            self.frames.append(frame)
        return self.is_open

    def abort(self) -> None:
        self.is_aborted = True


def test_packets_are_framed_once_and_left_out_for_full_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = [100.0]
    monkeypatch.setattr(audience.time, "monotonic", lambda: now_s[0])
    made, fast, slow = Audience("key", CONSENT), FakeWriter(), FakeWriter()
    nothing: Any = None
    with made.joined(nothing, fast), made.joined(nothing, slow):
        assert len(made) == 2
        for second in range(int(STALL_S) + 1):
            slow.is_open = second == 0
            now_s[0] = 100.0 + second
            made.send(bytes([second]) * 200)
            assert not slow.is_aborted
        assert fast.frames[0] is slow.frames[0]
        assert fast.frames[3] == b"\x82\x7e\x00\xc8" + b"\x03" * 200  # RFC 6455, 5.2
        assert len(fast.frames) == STALL_S + 1 and len(slow.frames) == 1
        now_s[0] += 0.5
        made.send(b"")
        assert slow.is_aborted and not fast.is_aborted
    assert len(made) == 0


def test_a_broadcast_with_viewers_only_goes_on() -> None:
    async def run() -> None:
        def make(request: LiveRequest) -> tuple[str, LiveSession]:
            engine, _ = make_engine(rendered=False)
            return "anna", LiveSession(engine=engine)

        sessions, nothing = LiveSessions(make, n_cores=10**6), None
        request = LiveRequest(identity="anna", codec="codes", consent=CONSENT)
        entry = await sessions.begin(request, ExitStack())
        assert entry.audience is not None
        entry.used_s -= 2 * CONNECT_S
        entry.audience.used_s -= 2 * CONNECT_S
        with entry.audience.joined(nothing, FakeWriter()):  # type: ignore[arg-type]
            sessions._end_abandoned()
            assert sessions.all() == [entry]
        sessions._end_abandoned()
        assert sessions.all() == [entry]  # it has just been left
        entry.audience.used_s -= 2 * CONNECT_S
        sessions._end_abandoned()
        assert sessions.all() == []
        await sessions.close()

    asyncio.run(run())
