"""Requests to the HTTP API, and messages of live sessions. The server runs in this process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

from benchmarks.fuzz import people
from benchmarks.fuzz.kinds.common import home
from benchmarks.fuzz.mutations import hostile, raw, texts, trees
from benchmarks.fuzz.patches import InlineWorkers
from benchmarks.fuzz.trial import Kind, Setting, Trial
from talkhead.errors import TalkheadError

TOKEN = "a-token-of-the-fuzzer"
ADDRESS = "http://127.0.0.1:8730"
BOUNDARY = "a-boundary-of-the-fuzzer"
FILES = ("audio", "background_file", "video", "table", "files")
VALID_FILES = ("line.wav", "clip.mp4", "lines.csv")
FORMS: dict[str, dict[str, str]] = {
    "/v1/videos": {"identity": people.NAME, "audio": "line.wav", "renderer": "warp", "height": "120"},
    "/v1/previews": {"identity": people.NAME, "renderer": "warp", "mode": "head", "yaw": "3"},
    "/v1/identities": {"video": "clip.mp4", "consent": "Yes.", "name": "berta", "min_face": "0.5"},
    "/v1/dubs": {"table": "lines.csv", "files": "line.wav"},
}  # fmt: skip
"""A valid form of each address. Values of FILES are names of valid files."""
FIELDS = (
    "identity", "text", "audio", "mode", "renderer", "background", "background_file", "codec", "height",
    "yaw", "pitch", "zoom", "intensity", "subtitles", "transcript", "language", "loudness", "provenance",
    "callback_url", "consent", "name", "preset", "min_face", "check_speech", "use_all_frames", "key",
    "certificate", "overwrite", "output", "video", "table", "files", "",
)  # fmt: skip
HEADERS = (
    "Content-Type", "Content-Length", "Idempotency-Key", "Authorization", "Host", "Origin", "Range",
    "Transfer-Encoding", "Accept-Encoding", "If-Range", "X-Other", "Sec-Fetch-Site", "Cookie",
)  # fmt: skip
HEADER_VALUES = (
    b"", b"10000000000", b"-1", b"99999999999999999999", b"multipart/form-data",
    b"multipart/form-data; boundary=", b"multipart/form-data; boundary=" + b"b" * 300,
    b"application/json; charset=utf-7", b"text/plain", b"bytes=0-0,1-1,2-2", b"bytes=-1", b"bytes=9-1",
    b"bytes=0-" + b"9" * 40, b"Bearer " + TOKEN.encode()[:-1], b"Basic AAAA", b"evil.example", b"null",
    b"http://evil.example", b"127.0.0.1:8730.evil.example", b"[::1", b"\xff\xfe", b"a" * 30_000,
    b"cross-site", b"chunked",
)  # fmt: skip
PLACES = (
    "/v1/videos/{}", "/v1/videos/{}/content", "/v1/videos/{}/subtitles", "/v1/videos?after={}",
    "/v1/videos?limit={}", "/v1/videos?identity={}", "/v1/identities/{}", "/v1/identities/{}/portrait",
    "/v1/identities/{}/report", "/v1/dubs/{}", "/v1/live/{}", "/v1/{}", "/static/{}", "/{}",
    "/v1/videos/{}/content?ticket={}",
)  # fmt: skip
METHODS = ("GET", "GET", "GET", "DELETE", "HEAD", "POST", "OPTIONS", "PATCH", "BREW")
LIVE = {"identity": people.NAME, "sample_rate": 24000, "intensity": 1.0}
COMMANDS: tuple[dict[str, Any], ...] = (
    {"type": "start", "sample_rate": 16000, "source": "microphone"},
    {"type": "flush"},
    {"type": "interrupt"},
    {"type": "say", "text": "Hello."},
    {"type": "ping", "time": 1},
)
MESSAGES: tuple[str, ...] = (
    "", "[]", "null", "1", '"flush"', "{}", "[" * 100_000, '{"type":' * 50_000, '{"type": "start"',
    '{"type": "ping", "time": NaN}', '{"type": "ping", "time": 1e999}',
    '{"type": "ping", "time": "\\ud800"}',
    '{"type": "ping", "time": [[[]]]}', '{"type": ["flush"]}', '{"type": {"a": 1}}', '{"type": true}',
    '{"type": "start", "sample_rate": true}', '{"type": "start", "sample_rate": 1e999}',
    '{"type": "start", "sample_rate": NaN}', '{"type": "start", "sample_rate": 7999}',
    '{"type": "start", "sample_rate": null}', '{"type": "start", "sample_rate": [16000]}',
    '{"type": "start", "source": {"a": []}}', '{"type": "start", "source": "\\ud800"}',
    '{"type": "say"}', '{"type": "say", "text": null}', '{"type": "say", "text": ["a"]}',
    '{"type": "say", "text": "..."}', '{"type": "dance"}', '{"type": "\\ud800"}',
    '{"type": "\\u001b[2J"}', '{"type": "say", "text": "' + "word " * 3000 + '"}',
)  # fmt: skip
"""Messages that are not commands, or commands with values of wrong types."""
N_MESSAGES = 6
ALLOWED = ("home/server/*", "home/jobs/*", "home/work/*", "home/latest.json", "home/.*")


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    content: bytes = b""
    headers: tuple[tuple[str, bytes], ...] = field(default=())


@contextmanager
def serving(where: Path) -> Iterator[Any]:
    """A server of a home folder. Its jobs run in this process, with a stand-in for the task runner."""
    from fastapi.testclient import TestClient

    from talkhead.app.server.application import make_application
    from talkhead.app.server.service import Service
    from talkhead.app.server.settings import Limits, ServerSettings

    settings = ServerSettings(where, token=TOKEN, device="cpu", limits=Limits(free_bytes=0))
    service = Service(settings, lambda: InlineWorkers(service.store))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(make_application(service), ADDRESS, headers=headers) as client:
        yield client
        assert client.get("/v1/health").status_code == 200, "the server is damaged"
    check_home(where)


def check_home(where: Path) -> None:
    """Raise AssertionError if a request that was refused has left something behind."""
    left = [path.name for path in (where / "server" / "incoming").iterdir()]
    assert not left, f"left in incoming: {left}"
    for kind in ("videos", "fits", "dubs"):
        for folder in (where / "server" / kind).iterdir():
            assert (folder / "record.json").is_file(), f"{kind}: a folder without a record was left"


def send(client: Any, asked: Asked, where: Path) -> Any:
    """Send a request and judge the response.

    Raises:
        TalkheadError: The request was refused, as it should be.
        AssertionError: The response is not as the API promises.
    """
    answer = client.request(
        asked.method, asked.path, content=asked.content, headers=list(asked.headers)
    )
    said = answer.content
    shown = f"{asked.method} {asked.path[:60]!r}: {answer.status_code} {said[:200]!r}"
    assert b"Traceback" not in said and str(where).encode() not in said, shown
    if answer.status_code == 503:
        assert "retry-after" in answer.headers, shown
    else:
        assert answer.status_code < 500, shown
    if answer.headers.get("content-type", "").endswith("json") and said:
        strict_json(said.decode())
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json", shown
        if asked.method != "HEAD":
            problem = answer.json()
            assert problem["status"] == answer.status_code and problem["detail"], shown
            raise TalkheadError(f"{problem['status']} {problem['detail']}")
        raise TalkheadError(str(answer.status_code))
    return answer


def strict_json(text: str) -> Any:
    """Parse JSON as browsers do. Raises AssertionError for numbers that are none, and surrogates."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in JSON")

    text.encode()
    return json.loads(text, parse_constant=refuse)


# ------------------------------------------------------------------------------------- HTTP


def api(setting: Setting) -> Trial:
    """Draw a request: a form with hostile fields or damaged bytes, JSON, an address, headers."""
    where = home(setting)
    draw = setting.rng.choice((_form, _form, _form, _json, _address))
    asked = draw(setting)
    if setting.chance(0.25):
        asked = _with_header(setting, asked)

    def run() -> None:
        with serving(where) as client:
            send(client, asked, where)

    return Trial(run, changes=ALLOWED)


def _form(setting: Setting) -> Asked:
    path = setting.rng.choice(sorted(FORMS))
    fields = [(name, value) for name, value in FORMS[path].items()]
    for _ in range(0 if setting.plain else setting.rng.choice((0, 1, 1, 2))):
        fields.append((setting.rng.choice(FIELDS), _value(setting.rng)))
        setting.note(f"{fields[-1][0]}={fields[-1][1][:30]!r}")
    if setting.chance(0.2):
        fields.pop(setting.rng.randrange(len(fields)))
        setting.note("a field is missing")
    content = b"".join(_part(setting, path, name, value) for name, value in fields)
    content += f"--{BOUNDARY}--\r\n".encode()
    if setting.chance(0.4):
        content = setting.damage(content, raw.mutate)
    return Asked("POST", path, content, (("Content-Type", _multipart()),))


def _multipart() -> bytes:
    return f"multipart/form-data; boundary={BOUNDARY}".encode()


def _part(setting: Setting, path: str, name: str, value: str) -> bytes:
    """A part of a form; a file if the field takes one."""
    data, file = value.encode("utf-8", "surrogatepass"), b""
    if name in FILES:
        given, data = value, b"sound"
        if value in VALID_FILES:
            data = setting.base(value)
            if path == "/v1/dubs" and name == "table":
                data = b"audio,output,identity\nline.wav,1.mp4,anna\n"
            if setting.chance(0.4):
                data = setting.damage(data, texts.mutate if name == "table" else raw.mutate)
        if setting.chance(0.2):
            given = hostile.text(setting.rng)
            setting.note(f"called {given[:30]!r}")
        file = b'; filename="' + _header_text(given) + b'"'
    head = b'Content-Disposition: form-data; name="' + _header_text(name) + b'"' + file
    return f"--{BOUNDARY}\r\n".encode() + head + b"\r\n\r\n" + data + b"\r\n"


def _header_text(text: str) -> bytes:
    return (
        text.encode("utf-8", "surrogatepass").replace(b"\r", b"%0D").replace(b"\n", b"%0A")[:20_000]
    )


def _value(rng: Random) -> str:
    """A value of a field: a text, a number, a path of the server."""
    draws: tuple[Callable[[Random], str], ...] = (
        hostile.text, hostile.number_text, lambda rng: rng.choice(hostile.PATHS),
        lambda rng: f"../identities/{people.NAME}", lambda rng: "<script>alert(1)</script>",
    )  # fmt: skip
    return rng.choice(draws)(rng)


def _json(setting: Setting) -> Asked:
    data = setting.damage(json.dumps(LIVE).encode(), trees.mutate)
    if setting.chance(0.2):
        data = setting.damage(data, raw.mutate)
    return Asked("POST", "/v1/live", data, (("Content-Type", b"application/json"),))


def _address(setting: Setting) -> Asked:
    if setting.plain:
        return Asked("GET", f"/v1/identities/{people.NAME}/portrait")
    rng = setting.rng
    place = rng.choice(PLACES)
    known = rng.choice((people.NAME, f"video_{'0' * 24}", "dub_" + "f" * 24))
    value = rng.choice((known, hostile.within(known, rng), _value(rng)))[:20_000]
    quoted = quote(value.encode("utf-8", "surrogatepass"), safe=rng.choice(("", "/", "/.%")))
    setting.note(f"{place} {value[:40]!r}")
    return Asked(rng.choice(METHODS), place.replace("{}", quoted))


def _with_header(setting: Setting, asked: Asked) -> Asked:
    name = setting.rng.choice(HEADERS)
    value = setting.rng.choice(HEADER_VALUES)
    if setting.chance(0.3):
        value = hostile.text(setting.rng).encode("utf-8", "surrogatepass")
    value = re.sub(rb"[\r\n\0]", b"", value)[:60_000]
    setting.note(f"{name}: {value[:30]!r}")
    kept = tuple(one for one in asked.headers if one[0] != name)
    return Asked(asked.method, asked.path, asked.content, (*kept, (name, value)))


# ------------------------------------------------------------------------------------- live


def live(setting: Setting) -> Trial:
    """Draw messages to a live session: sound of wrong sizes, damaged commands, other types."""
    where = home(setting)
    rng = setting.rng
    messages: list[str | bytes] = [*map(json.dumps, COMMANDS), bytes(3200)]
    if not setting.plain:
        messages = [_message(setting) for _ in range(rng.randint(1, N_MESSAGES))]
    return Trial(lambda: _talk(where, messages), changes=ALLOWED)


def _message(setting: Setting) -> str | bytes:
    rng = setting.rng
    how = rng.choice(("sound", "sound", "command", "odd", "odd", "large"))
    if how == "sound":
        size = rng.choice((0, 1, 3, 320, 641, 9_601, 65_535))
        setting.note(f"{size} bytes")
        return (
            rng.randbytes(size)
            if rng.random() < 0.5
            else b"\xff\x7f" * (size // 2) + b"\x00" * (size % 2)
        )
    if how == "command":
        data, what = trees.mutate(json.dumps(rng.choice(COMMANDS)).encode(), rng)
        setting.note(what)
        return data.decode("utf-8", "replace")[:200_000]
    if how == "large":
        setting.note("more than a message may have")
        return bytes((1 << 20) + 1) if rng.random() < 0.5 else "x" * ((1 << 20) + 1)
    message = rng.choice(MESSAGES)
    setting.note(message[:40])
    return message


def _talk(where: Path, messages: list[str | bytes]) -> None:
    """Send messages to a session. After each, it answers a ping, or has closed for a stated reason."""
    from starlette.websockets import WebSocketDisconnect

    from talkhead.app.server.live import MAX_MESSAGE_BYTES, POLICY_VIOLATION, PROTOCOL

    with serving(where) as client:
        begun = client.post("/v1/live", json=LIVE)
        assert begun.status_code == 201, begun.text
        address = f"ws{ADDRESS.removeprefix('http')}{begun.json()['url']}"
        errors: list[str] = []
        with client.websocket_connect(address, [PROTOCOL, f"bearer.{TOKEN}"]) as socket:
            for number, message in enumerate(messages):
                if isinstance(message, bytes):
                    socket.send_bytes(message)
                else:
                    socket.send_text(message)
                socket.send_text(json.dumps({"type": "ping", "time": 1000 + number}))
                try:
                    errors += _until_pong(socket, 1000 + number)
                except WebSocketDisconnect as end:
                    assert end.code == POLICY_VIOLATION, f"closed with {end.code} {end.reason!r}"
                    assert len(message) > MAX_MESSAGE_BYTES, f"closed after {message[:60]!r}"
                    break
    if errors:
        raise TalkheadError("; ".join(errors)[:2000])


def _until_pong(socket: Any, number: int) -> list[str]:
    """Receive until a ping is answered; return the errors before it."""
    errors = []
    while True:
        message = socket.receive()
        socket._raise_on_close(message)
        if message.get("text") is None:
            continue
        found = strict_json(message["text"])
        assert found["type"] in ("session", "pong", "error", "statistics"), found
        if found["type"] == "error":
            assert found["detail"] and "Traceback" not in found["detail"], found
            errors.append(found["detail"])
        if found["type"] == "pong" and found["time"] == number:
            return errors


KINDS = (Kind("api", api, 1.5), Kind("live", live, 0.7))
