"""Callbacks: signature, private addresses, retries."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from serving import Serve, Work, speak, until

from talkhead.app.server import callbacks
from talkhead.app.server.callbacks import check_url, read_secret, sign
from talkhead.app.server.settings import Callbacks
from talkhead.errors import TalkheadError

SECRET = b"a secret of twenty-four b"


class Receiver(HTTPServer):
    """Stores the messages that it receives, and responds with the given statuses in turn."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int] = []


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.got.append((self.path, headers, body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()

    def log_message(self, *values: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("answers", [[200], [500, 200], [302]])
def test_a_callback(
    serve: Serve, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, answers: list[int]
) -> None:
    monkeypatch.setattr(callbacks, "WAITS_S", (0.0, 0.01, 0.01))
    receiver.answers = list(answers)
    address = f"http://127.0.0.1:{receiver.server_port}/done?x=1"
    with serve(callbacks=Callbacks(SECRET, allow_private=True)) as client:
        made = speak(client, callback_url=address)
        until(client, f"/v1/videos/{made['id']}", "completed")
        service = client.app.state.service  # type: ignore[attr-defined]
        for _ in range(500):
            if service.videos.find(made["id"]).origin.is_notified:
                break
            time.sleep(0.01)
    assert len(receiver.got) == len(answers)
    path, headers, body = receiver.got[-1]
    assert path == "/done?x=1"
    message = json.loads(body)
    assert message["type"] == "video.completed"
    assert message["data"] == {"id": made["id"], "error": ""}
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 1
    with serve(callbacks=Callbacks(SECRET, allow_private=True)):
        time.sleep(0.1)
    assert len(receiver.got) == len(answers)  # the callback was sent once


def test_a_callback_about_a_failure(serve: Serve, receiver: Receiver, work: Work) -> None:
    work.error = TalkheadError("no. Do something else")
    with serve(callbacks=Callbacks(SECRET, allow_private=True), tries=1) as client:
        speak(client, callback_url=f"http://127.0.0.1:{receiver.server_port}/")
        for _ in range(500):
            if receiver.got:
                break
            time.sleep(0.01)
    message = json.loads(receiver.got[0][2])
    assert message["type"] == "video.failed" and message["data"]["error"].startswith("no.")


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "http://127.0.0.1:8730/v1/videos",
        "http://10.0.0.1/",
        "http://192.168.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://0.0.0.0/",
        "http://2130706433/",
    ],
)
def test_private_addresses_are_refused(url: str) -> None:
    with pytest.raises(TalkheadError, match="is in a private network"):
        check_url(url, Callbacks(SECRET))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://",
        "https://user:word@93.184.215.14/",
        "https://93.184.215.14:99999/",
        "http://93.184.215.14/\r\nX: y",
        "http://93.184.215.14/" + "a" * 3000,
        "javascript:alert(1)",
        "http://[::1",
    ],
)
def test_invalid_addresses(url: str) -> None:
    with pytest.raises(TalkheadError, match="not an address that can be called"):
        check_url(url, Callbacks(SECRET))


def test_a_public_address() -> None:
    check_url("https://93.184.215.14/done", Callbacks(SECRET))
    with pytest.raises(TalkheadError, match="callbacks are off"):
        check_url("https://93.184.215.14/done", Callbacks())


def test_the_signature_of_the_specification() -> None:
    """The example of https://github.com/standard-webhooks/standard-webhooks, section Signature."""
    secret = read_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    payload = b'{"test": 2432232314}'
    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, payload)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("text", ["short", "whsec_%%%"])
def test_secrets_that_are_refused(text: str) -> None:
    with pytest.raises(TalkheadError, match="callback secret"):
        read_secret(text)
