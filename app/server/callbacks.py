"""Callbacks: report the end of a job to an address that the request named.

Headers and signature are those of Standard Webhooks (https://www.standardwebhooks.com). Nothing is sent
unless the server was started with a secret. Redirects are not followed, and an address is called
only if all addresses that its name resolves to are public.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ipaddress
import json
import queue
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from talkhead.app.server.logs import log
from talkhead.app.server.settings import Callbacks
from talkhead.errors import TalkheadError, one_line

SECRET_PREFIX = "whsec_"
WAITS_S = (0.0, 5.0, 60.0)
"""Delay before each attempt."""
TIMEOUT_S = 10.0
MAX_URL_CHARS = 2000


@dataclass(frozen=True)
class _Message:
    record_id: str
    url: str
    kind: str
    data: Mapping[str, str]


def read_secret(text: str) -> bytes:
    """Read a secret of Standard Webhooks.

    Args:
        text: "whsec_" and base64, or any other text of at least 24 characters.

    Returns:
        The key.

    Raises:
        TalkheadError: It is not valid.
    """
    if not text.startswith(SECRET_PREFIX):
        if len(text) < 24:
            raise TalkheadError("the callback secret is too short. Choose at least 24 characters")
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        raise TalkheadError(
            f"the callback secret is not valid. After {SECRET_PREFIX} give base64"
        ) from None


def sign(secret: bytes, message_id: str, timestamp: int, payload: bytes) -> str:
    """Sign a message as Standard Webhooks does.

    Args:
        secret: The key.
        message_id: ID of the message.
        timestamp: Unix time.
        payload: Body of the message.

    Returns:
        Value of the header webhook-signature.
    """
    content = f"{message_id}.{timestamp}.".encode() + payload
    digest = hmac.new(secret, content, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def check_url(url: str, callbacks: Callbacks) -> None:
    """Check an address before a job is accepted.

    Args:
        url: The address.
        callbacks: Settings of callbacks.

    Raises:
        TalkheadError: Callbacks are off, or the address is not allowed.
    """
    if not callbacks.secret:
        raise TalkheadError(
            "callback_url: callbacks are off. Start the server with TALKHEAD_CALLBACK_SECRET set, or "
            "ask for the state of the job"
        )
    _addresses(_split(url), callbacks)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    is_plain = parts.scheme in ("http", "https") and parts.hostname and not parts.username
    if not is_plain or len(url) > MAX_URL_CHARS or any(c <= " " or c > "~" for c in url):
        raise TalkheadError(
            "callback_url: not an address that can be called. Pass one such as "
            "https://example.com/done, without a user name"
        )
    return parts


def _addresses(parts: SplitResult, callbacks: Callbacks) -> list[str]:
    """Resolve the name of a URL. Raise TalkheadError unless all its addresses may be called."""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError:
        raise TalkheadError(
            f"callback_url: {parts.hostname} cannot be found. Check the name"
        ) from None
    addresses = [str(one[4][0]) for one in found]
    private = [a for a in addresses if not ipaddress.ip_address(a.partition("%")[0]).is_global]
    if private and not callbacks.allow_private:
        raise TalkheadError(
            f"callback_url: {parts.hostname} is in a private network. Pass a public address, or "
            "start the server with --allow-private-callbacks"
        )
    return addresses


def post(url: str, callbacks: Callbacks, headers: Mapping[str, str], payload: bytes) -> int:
    """Send a message. The name in the URL is resolved once, so the address that is checked is
    called.

    Args:
        url: The address.
        callbacks: Settings of callbacks.
        headers: Headers of the message.
        payload: Its body.

    Returns:
        Status code of the response.

    Raises:
        TalkheadError: The address is not allowed.
        OSError: It cannot be reached.
    """
    parts = _split(url)
    address = _addresses(parts, callbacks)[0]
    is_https, host = parts.scheme == "https", str(parts.hostname)
    port = parts.port or (443 if is_https else 80)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    sock = socket.create_connection((address, port), TIMEOUT_S)
    try:
        connection.sock = (
            ssl.create_default_context().wrap_socket(sock, server_hostname=host)
            if is_https
            else sock
        )
        target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        connection.request("POST", target, payload, dict(headers))
        return connection.getresponse().status
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
        sock.close()


class CallbackSender:
    """Sends callbacks in a separate thread, with retries.

    Args:
        callbacks: Settings of callbacks.
    """

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks
        self._queue: queue.SimpleQueue[_Message | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, sent: Callable[[str], None]) -> None:
        """Begin to send.

        Args:
            sent: Function that is called with the ID of a record when its callback has ended.
        """
        if self._callbacks.secret:
            self._thread = threading.Thread(target=self._run, args=(sent,), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop. Messages that were not sent are sent after the next start."""
        self._stopping.set()
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(2 * TIMEOUT_S)

    def send(self, record_id: str, url: str, kind: str, data: Mapping[str, str]) -> None:
        """Queue a message to be sent.

        Args:
            record_id: ID of the record that it is about.
            url: The address.
            kind: Type of the message, such as "video.completed".
            data: Its data.
        """
        self._queue.put(_Message(record_id, url, kind, data))

    def _run(self, sent: Callable[[str], None]) -> None:
        while (message := self._queue.get()) is not None and not self._stopping.is_set():
            try:
                self._deliver(message)
                sent(message.record_id)
            except _StoppedError:
                return
            except Exception as error:  # the thread must survive: other callbacks wait
                log("callback failed", id=message.record_id, reason=one_line(error))

    def _deliver(self, message: _Message) -> None:
        """Send a message, several times if necessary."""
        message_id = f"msg_{secrets.token_hex(12)}"
        for wait_s in WAITS_S:
            if self._stopping.wait(wait_s):
                raise _StoppedError
            now = int(time.time())
            body = {"type": message.kind, "timestamp": now, "data": dict(message.data)}
            payload = json.dumps(body).encode()
            headers = {
                "Content-Type": "application/json",
                "User-Agent": "talkhead",
                "webhook-id": message_id,
                "webhook-timestamp": str(now),
                "webhook-signature": sign(self._callbacks.secret, message_id, now, payload),
            }
            try:
                status = post(message.url, self._callbacks, headers, payload)
            except (OSError, TalkheadError) as error:
                log("callback failed", id=message.record_id, reason=one_line(error))
                continue
            log("callback", id=message.record_id, status=status)
            if status < 500 and status != 429:
                return


class _StoppedError(Exception):
    """The server stops before a message was sent."""
