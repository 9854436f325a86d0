"""Live sessions of the server: access, messages, and how sessions end."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from live_fakes import CONSENT, RATE, SIZE, BrokenPictures, make_engine
from serving import TOKEN, Serve, Work
from serving import detail as detail_of
from starlette.datastructures import UploadFile
from starlette.websockets import WebSocketDisconnect

from talkhead.app.fit import FitResult
from talkhead.app.home.identities import Home
from talkhead.app.live.options import LiveOptions
from talkhead.app.live.pace import FrameCost
from talkhead.app.live.session import LiveSession
from talkhead.app.options import PictureOptions
from talkhead.app.output.verification import verify
from talkhead.app.server import live, live_requests, live_sessions
from talkhead.app.server.live import PROTOCOL
from talkhead.app.server.live_packets import END_OF_SPEECH, HEADER, KEY_PICTURE, SPEECH
from talkhead.app.server.live_requests import LiveRequest
from talkhead.app.server.live_sessions import LiveSessions
from talkhead.app.server.settings import ServerSettings
from talkhead.errors import MediaError, PackageError, TalkheadError

PROTOCOLS = [PROTOCOL, f"bearer.{TOKEN}"]


def make(request: LiveRequest) -> tuple[str, LiveSession]:
    if request.identity == "nobody":
        raise PackageError("nobody: there is no such identity. Run talkhead identities")
    options = request.options(badge=True)
    engine, _ = make_engine(**asdict(options))
    return request.identity or "anna", LiveSession(engine=engine)


def set_costs(monkeypatch: pytest.MonkeyPatch, *costs: FrameCost) -> None:
    """Let sessions that begin have these costs, and the last one from then on, whatever they take."""
    left = list(costs)

    async def rehearse(session: LiveSession, n_others: Any) -> FrameCost:
        return left.pop(0) if len(left) > 1 else left[0]

    monkeypatch.setattr(LiveSession, "rehearse", rehearse)


@pytest.fixture
def client(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    set_costs(monkeypatch, FrameCost(1.0, 1.0))
    with serve() as client:
        client.app.state.live = LiveSessions(make, n_most=2, n_cores=64)  # type: ignore[attr-defined]
        yield client


def begin(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/live", json={"sample_rate": RATE} | body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/live/{found['id']}" == found["url"]
    return found


def connect(
    client: TestClient, info: dict[str, Any], protocols: list[str] | None = PROTOCOLS, **given: Any
) -> Any:
    """Open the WebSocket of a session."""
    return client.websocket_connect(f"ws://127.0.0.1:8730{info['url']}", protocols, **given)


Header = tuple[int, ...]
Packet = tuple[Header, bytes, np.ndarray[Any, Any]]
"""Header, picture and audio."""
MAX_PACKETS = 3000
"""A test that waits for more has failed: two minutes."""


def packets_until(socket: Any, is_last: Callable[[Header], Any]) -> list[Packet]:
    """Packets until one whose header fulfills a condition. Any number may come before it."""
    found: list[Packet] = []
    while len(found) < MAX_PACKETS:
        message = socket.receive()
        if message.get("bytes") is None:
            assert message["type"] != "websocket.close", message
            continue
        content = message["bytes"]
        header = HEADER.unpack_from(content)
        picture = content[HEADER.size : HEADER.size + header[-1]]
        found.append((header, picture, np.frombuffer(content[HEADER.size + header[-1] :], "<i2")))
        if is_last(header):
            return found
    raise AssertionError(f"none of {len(found)} packets fulfills the condition")


def packets(socket: Any, n_speech: int) -> list[Packet]:
    """Packets until a number of them with speech have arrived."""
    found: list[Packet] = []
    for _ in range(n_speech):
        found += packets_until(socket, lambda header: header[3] & SPEECH)
    return found


def wait_until_gone(client: TestClient, info: dict[str, Any]) -> bool:
    """Wait until a session has ended, for ten seconds at most."""
    for _ in range(500):
        if client.get(info["url"]).status_code == 404:
            return True
        time.sleep(0.02)
    return False


def test_audio_is_returned_with_pictures(client: TestClient) -> None:
    info = begin(client)
    assert (info["width"], info["height"], info["frame_rate"]) == (4, 2, 25)
    with connect(client, info) as socket:
        assert socket.accepted_subprotocol == PROTOCOL
        socket.send_bytes(np.full(5 * SIZE, 1234, "<i2").tobytes())
        socket.send_text('{"type": "flush"}')
        found = packets(socket, 5)
        assert client.get(info["url"]).json()["is_connected"]
    spoken = [one for one in found if one[0][3] & SPEECH]
    assert [header[2] for header, _, _ in spoken] == list(range(5))
    assert all((sound == 1234).all() and len(sound) == SIZE for _, _, sound in spoken)
    assert found[0][1][:2] == b"\xff\xd8"  # a JPEG
    assert [header[0] for header, _, _ in found] == list(range(len(found)))
    assert wait_until_gone(client, info)  # the session ends with the connection


def encoder_program(client: TestClient, info: dict[str, Any]) -> Any:
    """The program that encodes the pictures of a session."""
    encoder = client.app.state.live.find(info["id"]).encoder  # type: ignore[attr-defined]
    return encoder._vp8._process.popen


def test_pictures_as_vp8_with_key_frames_on_request(client: TestClient) -> None:
    info = begin(client, codec="vp8")
    assert info["codec"] == "vp8"
    with connect(client, info) as socket:
        socket.send_bytes(np.full(500 * SIZE, 9, "<i2").tobytes())
        found = packets(socket, 3)
        socket.send_text('{"type": "keyframe"}')
        asked = packets_until(socket, lambda header: header[3] & KEY_PICTURE)
        socket.send_text('{"type": "interrupt"}')
        socket.send_bytes(np.full(500 * SIZE, 9, "<i2").tobytes())
        new = packets_until(socket, lambda header: header[1] == 1)
        found += asked + new + packets(socket, 3)
    assert {header[4] for header, _, _ in found} == {1}
    keys = [(header, picture) for header, picture, _ in found if header[3] & KEY_PICTURE]
    assert [header for header, _ in keys] == [one[0] for one in (found[0], asked[-1], new[-1])]
    assert all(picture and not picture[0] & 1 for _, picture in keys)


def test_jpeg_follows_if_the_encoder_dies(client: TestClient) -> None:
    info = begin(client, codec="vp8")
    with connect(client, info) as socket:
        socket.send_bytes(np.full(500 * SIZE, 9, "<i2").tobytes())
        before = packets(socket, 2)
        encoder_program(client, info).kill()
        found = before + packets_until(socket, lambda header: header[4] == 0)
        assert client.get(info["url"]).json()["codec"] == "jpeg"
    assert before[-1][0][4] == 1
    assert found[-1][1][:2] == b"\xff\xd8"
    assert [header[0] for header, _, _ in found] == list(range(len(found)))


def test_a_client_can_change_to_jpeg(client: TestClient) -> None:
    info = begin(client, codec="vp8")
    with connect(client, info) as socket:
        socket.send_text('{"type": "codec", "codec": "jpeg"}')
        socket.send_bytes(np.full(500 * SIZE, 9, "<i2").tobytes())
        packets_until(socket, lambda header: header[4] == 0)
        assert {header[4] for header, _, _ in packets(socket, 5)} == {0}


@pytest.mark.parametrize("end", ["connection", "request", "server"])
def test_the_encoder_ends_with_the_session(serve: Serve, end: str) -> None:
    with serve() as client:
        client.app.state.live = LiveSessions(make)  # type: ignore[attr-defined]
        info = begin(client, codec="vp8")
        program = encoder_program(client, info)
        if end != "server":
            with connect(client, info) as socket:
                socket.send_bytes(np.full(5 * SIZE, 9, "<i2").tobytes())
                packets(socket, 1)
                assert program.poll() is None
                if end == "request":
                    client.delete(info["url"])
                    assert program.wait(30) is not None
            assert program.wait(30) is not None
    assert program.wait(30) is not None


def test_other_rates_are_resampled(client: TestClient) -> None:
    info = begin(client)
    with connect(client, info) as socket:
        socket.send_text('{"type": "start", "sample_rate": 32000, "source": "microphone"}')
        socket.send_bytes(np.full(20 * SIZE, 1000, "<i2").tobytes())
        socket.send_text('{"type": "flush"}')
        found = packets_until(socket, lambda header: header[3] & END_OF_SPEECH)
    sound = np.concatenate([sound for header, _, sound in found if header[3] & SPEECH])
    assert abs(int(np.median(sound)) - 1000) < 10


def test_interruption_by_message_and_by_request(client: TestClient) -> None:
    info = begin(client)
    with connect(client, info) as socket:
        socket.send_bytes(np.full(500 * SIZE, 1000, "<i2").tobytes())
        packets(socket, 1)
        socket.send_text('{"type": "interrupt"}')
        assert client.post(f"{info['url']}/interrupt").status_code == 200
        socket.send_bytes(np.full(2 * SIZE, 77, "<i2").tobytes())
        socket.send_text('{"type": "flush"}')
        packets_until(socket, lambda header: header[1] == 2)
        assert (packets(socket, 1)[-1][2] == 77).all()


@pytest.mark.parametrize(
    ("sent", "detail"),
    [
        (b"abc", "3 bytes of sound"),
        ("hello", "a command is JSON"),
        ("[]", "a command is JSON"),
        ('{"type": "dance"}', "no command 'dance'"),
        ('{"type": "start", "sample_rate": 5}', "a sample rate of 5"),
        ('{"type": "start", "sample_rate": "x"}', "a sample rate of 'x'"),
        ('{"type": "codec", "codec": "h264"}', "only be changed to jpeg"),
        ('{"type": "say", "text": " "}', "contains no words"),
        ('{"type": "say"}', "text: is needed"),
        ('{"type": "say", "text": ["a"]}', "text: is needed"),
        (json.dumps({"type": "say", "text": "word " * 30_000}), "149999 characters"),
        ("[" * 100_000, "a command is JSON"),
        ('{"type": "ping", "time": NaN}', "time: a number is needed"),
        ('{"type": "ping", "time": 1e999}', "time: a number is needed"),
        ('{"type": "ping", "time": "\\ud800"}', "time: a number is needed"),
        ('{"type": "\\ud800\\u001b"}', "no command"),
    ],
)
def test_bad_messages_are_answered_and_the_session_continues(
    client: TestClient, sent: str | bytes, detail: str
) -> None:
    info = begin(client)
    with connect(client, info) as socket:
        socket.send_bytes(sent) if isinstance(sent, bytes) else socket.send_text(sent)
        while True:
            message = socket.receive()
            if message.get("text") and json.loads(message["text"])["type"] == "error":
                break
        assert detail in json.loads(message["text"])["detail"]
        socket.send_bytes(np.full(4 * SIZE, 9, "<i2").tobytes())
        assert packets(socket, 1)


@pytest.mark.parametrize("protocols", [[PROTOCOL], [PROTOCOL, "bearer.wrong"], None])
def test_a_token_is_needed(client: TestClient, protocols: list[str] | None) -> None:
    info = begin(client)
    client.headers.pop("Authorization")
    with pytest.raises(WebSocketDisconnect), connect(client, info, protocols):
        pass


def test_pages_of_other_sites_are_refused(client: TestClient) -> None:
    info = begin(client)
    headers = {"Origin": "http://evil.example"}
    with (
        pytest.raises(WebSocketDisconnect),
        connect(client, info, PROTOCOLS, headers=headers),
    ):
        pass


def test_errors_do_not_name_folders_of_the_server(client: TestClient, people: Path) -> None:
    problem = MediaError(f"{people}/identities/anna/footage.mp4: is gone. Fit again with --force")

    def broken(request: LiveRequest) -> tuple[str, LiveSession]:
        engine, pictures = make_engine(BrokenPictures(100, problem))
        pictures.n_left = 30  # after the rehearsal
        return "anna", LiveSession(engine=engine)

    client.app.state.live = LiveSessions(broken, n_cores=64)  # type: ignore[attr-defined]
    with connect(client, begin(client)) as socket:
        socket.send_bytes(np.full(50 * SIZE, 9000, "<i2").tobytes())
        while "error" not in (text := socket.receive().get("text") or ""):
            pass
    assert json.loads(text)["detail"] == "footage.mp4: is gone. Fit again with force"


def test_a_session_has_one_client(client: TestClient) -> None:
    info = begin(client)
    with connect(client, info) as socket:
        packets_before = socket.receive()
        assert packets_before
        with connect(client, info) as second:
            assert second.receive()["code"] == 1008
        socket.send_bytes(np.full(4 * SIZE, 9, "<i2").tobytes())
        assert packets(socket, 1)


def test_too_many_sessions_are_refused(client: TestClient) -> None:
    first = begin(client)
    begin(client)
    refused = client.post("/v1/live", json={})
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert client.delete(first["url"]).status_code == 204
    begin(client)


def test_sessions_are_accepted_until_they_would_not_keep_their_pace(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four cores at 75 % have 120 ms for the frames of 40 ms: three sessions of 35 ms fit."""
    set_costs(monkeypatch, FrameCost(20.0, 35.0))
    client.app.state.live = LiveSessions(make, n_cores=4)  # type: ignore[attr-defined]
    sessions = [begin(client) for _ in range(3)]
    refused = client.post("/v1/live", json={})
    assert "too busy for 4 live sessions" in detail_of(refused, 503)
    assert int(refused.headers["retry-after"]) > 0
    assert len(client.get("/v1/live").json()) == 3
    assert client.delete(sessions[0]["url"]).status_code == 204
    begin(client)


@pytest.mark.parametrize("cost", [FrameCost(31.0, 1.0), FrameCost(1.0, 31.0)])
def test_a_session_that_proves_too_slow_is_ended(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, cost: FrameCost
) -> None:
    """The machine was idle when the first began. Nothing of the refused session is left."""
    shut = []
    shutdown = LiveSession.shutdown

    async def end(session: LiveSession) -> None:
        shut.append(session)
        await shutdown(session)

    set_costs(monkeypatch, FrameCost(1.0, 1.0), cost)
    monkeypatch.setattr(LiveSession, "shutdown", end)
    client.app.state.live = LiveSessions(make, n_cores=2)  # type: ignore[attr-defined]
    begin(client)
    assert "too busy" in detail_of(client.post("/v1/live", json={}), 503)
    assert len(client.get("/v1/live").json()) == len(shut) == 1


def test_the_first_session_is_accepted_on_a_slow_machine(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_costs(monkeypatch, FrameCost(500.0, 900.0))
    begin(client)
    assert "too busy" in detail_of(client.post("/v1/live", json={}), 503)


def test_abandoned_sessions_end(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_sessions, "CHECK_S", 0.01)
    info = begin(client)
    with connect(client, info):
        monkeypatch.setattr(live_sessions, "CONNECT_S", -1.0)
        assert wait_until_gone(client, begin(client))
        assert client.get(info["url"]).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"identity": "nobody"}, 422),
        ({"sample_rate": 16_001}, 422),
        ({"sample_rate": 10}, 422),
        ({"intensity": 2.5}, 422),
        ({"intensity": "much"}, 422),
        ({"codec": "h264"}, 422),
        ({"mode": "face"}, 422),
        ({"background": "red"}, 422),
        ({"mode": "head", "background": "/etc/passwd"}, 422),
        ({"mode": "head", "background": "alpha"}, 422),
        ({"mode": "head", "yaw": 90}, 422),
        ({"height": 2161}, 422),
        ({"colour": "red"}, 422),
    ],
)
def test_bad_sessions_are_refused(client: TestClient, body: dict[str, Any], status: int) -> None:
    answer = client.post("/v1/live", json=body)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["detail"]
    assert client.get("/v1/live").json() == []
    assert status == 422


def test_requests_have_the_options_of_pictures() -> None:
    hints = get_type_hints(LiveRequest)
    assert {one.name: hints[one.name] for one in fields(PictureOptions)} == get_type_hints(
        PictureOptions
    )
    with pytest.raises(TalkheadError, match="an intensity of 9"):
        LiveRequest(intensity=9.0).options(badge=True)


def test_a_transparent_background_is_refused_with_a_remedy(client: TestClient) -> None:
    answer = client.post("/v1/live", json={"mode": "head", "background": "alpha"})
    assert "chroma-green" in detail_of(answer, 422)


def test_an_uploaded_background_lasts_as_long_as_the_session(
    client: TestClient, people: Path
) -> None:
    _, image = cv2.imencode(".png", np.zeros((30, 40, 3), np.uint8))
    files = {"background_file": ("../back.png", image.tobytes())}
    fields = {"sample_rate": str(RATE), "mode": "head"}
    answer = client.post("/v1/live", data=fields | {"zoom": "1.2"}, files=files)
    assert answer.status_code == 201, answer.text
    entry = client.app.state.live.find(answer.json()["id"])  # type: ignore[attr-defined]
    path = Path(entry.session.options.background)
    assert path.is_file() and path.is_relative_to(people) and entry.session.options.zoom == 1.2
    client.delete(answer.json()["url"])
    until_removed(path)
    both = client.post("/v1/live", data=fields | {"background": "red"}, files=files)
    assert "both given" in detail_of(both, 422)
    broken = client.post("/v1/live", data=fields, files={"background_file": ("a.png", b"no")})
    assert "a background" in detail_of(broken, 422) or "background.png" in detail_of(broken, 422)
    assert not list(people.rglob("background*"))


def test_videos_that_take_too_long_to_decode_are_refused(
    client: TestClient, people: Path, clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, fields = {"background_file": ("clip.mp4", clip)}, {"mode": "head"}
    monkeypatch.setattr(live_requests, "MAX_VIDEO_S", 0.1)
    answer = client.post("/v1/live", data=fields, files=files)
    assert detail_of(answer, 422).startswith("clip.mp4: lasts 0 s, at most 0.1 s are accepted")
    monkeypatch.setattr(live_requests, "MAX_VIDEO_S", 60.0)
    monkeypatch.setattr(live_requests, "MAX_VIDEO_SIZE", (64, 40))
    answer = client.post("/v1/live", data=fields, files=files)
    assert "clip.mp4: is a video of 64x48, at most 64x40" in detail_of(answer, 422)
    monkeypatch.setattr(live_requests, "MAX_VIDEO_SIZE", (64, 48))
    assert client.post("/v1/live", data=fields, files=files).status_code == 201
    assert len(list(people.rglob("background*"))) == 1


def test_forms_are_read_whatever_the_case_of_their_type(client: TestClient) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="mode"\r\n\r\nhead\r\n--x--\r\n'
    headers = {"Content-Type": "Multipart/Form-Data; boundary=x"}
    answer = client.post("/v1/live", content=body, headers=headers)
    assert answer.status_code == 201 and answer.json()["mode"] == "head"


def test_uploads_need_room_on_the_disk_and_are_closed(
    client: TestClient, clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    close = UploadFile.close

    async def note(upload: UploadFile) -> None:
        closed.append(upload.filename)
        await close(upload)

    monkeypatch.setattr(UploadFile, "close", note)
    files = {"background_file": ("clip.mp4", clip)}
    assert client.post("/v1/live", data={"mode": "face"}, files=files).status_code == 422
    assert client.post("/v1/live", data={"color": "red"}, files=files).status_code == 422
    assert closed == ["clip.mp4"] * 2
    limits = client.app.state.service.settings.limits  # type: ignore[attr-defined]
    object.__setattr__(limits, "free_bytes", 1 << 62)
    answer = client.post("/v1/live", data={"mode": "head"}, files=files)
    assert "disk of the server is nearly full" in detail_of(answer, 507)
    begin(client)  # without an upload, no room is needed


def until_removed(path: Path) -> None:
    for _ in range(500):
        if not path.exists():
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} is still there")


def test_the_session_is_declared_synthetic(client: TestClient, tmp_path: Path) -> None:
    info = begin(client, mode="head", background="navy")
    assert (info["synthetic"], info["badge"], info["mode"]) == (True, True, "head")
    with connect(client, info) as socket:
        first = json.loads(socket.receive()["text"])
    assert (first["type"], first["synthetic"], first["badge"]) == ("session", True, True)
    other = begin(client)
    answer = client.get(other["manifest_url"])
    assert answer.headers["content-type"] == "application/jose+json"
    for manifest, mode, session in (
        (first["manifest"], "head", info["id"]),
        (answer.json(), "paste", other["id"]),
    ):
        path = tmp_path / "talkhead-live.json"
        path.write_text(json.dumps(manifest))
        verdict = verify(path)
        assert verdict.ok and verdict.local
        assert verdict.claims["synthetic"] and verdict.claims["badge"]
        assert (verdict.claims["mode"], verdict.claims["session"]) == (mode, session)
        assert (verdict.claims["identity"], verdict.claims["consent"]) == ("anna", CONSENT)


def test_the_badge_is_switched_off_by_the_server_only(fitted: FitResult, home: Path) -> None:
    order = LiveRequest(identity=fitted.name, mode="head", background="red")
    settings = ServerSettings(home, token=TOKEN, live_badge=False)
    name, session = live.session_maker(Home(home), settings)(order)
    try:
        assert name == fitted.name
        assert session.options == LiveOptions(mode="head", background="red", badge=False)
        payload = session.manifest()["payload"]
    finally:
        asyncio.run(session.shutdown())
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    assert (claims["synthetic"], claims["badge"], claims["mode"]) == (True, False, "head")


def test_a_broadcast_speaks_on_the_device_of_the_server(fitted: FitResult, home: Path) -> None:
    order = LiveRequest(identity=fitted.name, codec="codes", consent="Yes.")
    settings = ServerSettings(home, token=TOKEN, device="cuda:63")
    with pytest.raises(TalkheadError, match="cuda:63"):
        live.session_maker(Home(home), settings)(order)


def test_unknown_sessions(client: TestClient) -> None:
    assert client.get("/v1/live/none").status_code == 404
    assert client.get("/v1/live/none/manifest").status_code == 404
    assert client.delete("/v1/live/none").status_code == 404
    with connect(client, {"url": "/v1/live/none"}) as socket:
        assert socket.receive()["code"] == 1008


def test_deleting_a_person_ends_their_sessions(client: TestClient) -> None:
    info = begin(client, identity="anna")
    other = begin(client, identity="berta")
    assert client.delete("/v1/identities/anna").status_code == 200
    assert client.get(info["url"]).status_code == 404
    assert client.get(other["url"]).status_code == 200


@pytest.mark.parametrize("form", ["{people}/identities/anna", "identities/anna", "nobody", ""])
def test_only_names_of_people_are_accepted(work: Work, people: Path, form: str) -> None:
    make = live.session_maker(Home(people), ServerSettings(people, token=TOKEN))
    with pytest.raises(TalkheadError, match="not found"):
        make(LiveRequest(identity=form.format(people=people)))
