"""The API does what its OpenAPI document says: schemathesis draws requests and checks the answers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from serving import LINE, TOKEN, Serve, speak, until
from test_live import make

from talkhead.app.server import live, live_sessions, voice
from talkhead.app.server.application import make_application
from talkhead.app.server.service import Service
from talkhead.app.server.settings import Limits, ServerSettings

schemathesis = pytest.importorskip("schemathesis")  # it needs Python 3.11
from schemathesis.checks import CHECKS, load_all_checks  # noqa: E402

load_all_checks()
schemathesis.serializer.alias("application/sdp", "text/plain")
ADDRESS = "http://127.0.0.1:8730"
ANY_BYTES = CHECKS.get_one("positive_data_acceptance")
"""Not for forms: the document cannot say that a file must be a recording of speech."""


@schemathesis.serializer("application/sdp")
def write_sdp(context: Any, value: Any) -> bytes:
    """Write the body of an offer of WebRTC, which schemathesis does not know."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


class Server:
    """An ASGI application: the server of the test that is running."""

    def __init__(self) -> None:
        self.app: Any = make_application(Service(ServerSettings(Path("unused"), token=TOKEN)))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"  # the fixture starts and stops the server
        await self.app(scope, receive, send)


server = Server()
schema = schemathesis.openapi.from_asgi(
    "/openapi.json",
    server,
    config=schemathesis.Config(seed=1),
    headers={"Host": "127.0.0.1:8730"},
)
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
schema.config.update(base_url=ADDRESS, headers=HEADERS)


@pytest.fixture(autouse=True)
def client(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server that is never full, and whose voice says the same line whatever the text is."""
    monkeypatch.setattr(
        voice, "synthesize", lambda text, folder, url: shutil.copy(LINE, folder / "text.wav")
    )
    monkeypatch.setattr(live, "synthesize", lambda text, url: (np.zeros(9, np.int16), 16_000))
    with serve(Limits(n_queued=10**6)) as client:
        client.app.state.live = live_sessions.LiveSessions(make, n_most=10**6, n_cores=10**6)  # type: ignore[attr-defined]
        monkeypatch.setattr(server, "app", client.app)
        yield client


@schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_requests_are_answered_as_described(case: Any) -> None:
    excluded = [ANY_BYTES] if case.method == "POST" else []
    case.call_and_validate(excluded_checks=excluded)


def test_objects_are_as_described(client: Any) -> None:
    """Random requests find no objects: these ask for those that there are."""
    files = {"table": ("t.csv", b"audio,output,identity\na.wav,a.mp4,anna\n")}
    dub = client.post("/v1/dubs", files={**files, "files": ("a.wav", LINE.read_bytes())}).json()
    video = speak(client, height="120", background="#00ff00", mode="head")
    until(client, f"/v1/videos/{video['id']}", "completed")
    session = client.post("/v1/live", json={"sample_rate": 16_000}).json()
    known = {"videos": video["id"], "dubs": dub["id"], "identities": "anna"}
    answered = []
    for result in schema.get_all_operations():
        operation = result.ok()
        kind = operation.path.removeprefix("/v1/").partition("/")[0]
        if operation.method.upper() != "GET":
            continue
        given = {"session_id": session["id"], "name": "anna", "id": known.get(kind), "file": "a.js"}
        names = [one.name for one in operation.path_parameters]
        case = operation.Case(path_parameters={name: given[name] for name in names})
        answer = case.call_and_validate(headers=HEADERS)
        answered.append((answer.status_code, operation.path))
    refused = {path.rpartition("/")[2] for status, path in answered if status != 200}
    without = {"subtitles", "portrait", "report", "web", "{file}"}  # the fakes have none
    assert refused == without, answered
    paths = schema.raw_schema["paths"].values()
    assert len(answered) == sum("get" in one for one in paths) > 0, answered
