"""Who may call the server: checks of Host, Origin and token, and headers that restrict the page.

The checks come before any body is read. WebSockets pass the same checks as requests. Addresses under
/watch/KEY, which show a broadcast, are the exception: the key, which their routes check, takes the place
of the token, and pages of other sites may open their WebSocket.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from talkhead.app.server.problems import Problem
from talkhead.app.server.settings import ServerSettings
from talkhead.app.server.tickets import PARAMETER, Tickets

BEARER_PROTOCOL = "bearer."
"""Prefix of the WebSocket subprotocol that contains the token: browsers can send no other
header."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OPEN_PATHS = ("/", "/openapi.json", "/v1/health", "/favicon.ico")
OPEN_FOLDER = "/static/"
WATCH_FOLDER = "/watch/"
"""Addresses of broadcasts. Each contains a key, which takes the place of the token."""
TICKET_ENDINGS = ("/content", "/subtitles", "/portrait", "/report")
"""Endings of the paths for which tickets are made."""
TICKET_FOLDER = "/web"
"""Ending of the folders for which tickets are made."""
POLICY_VIOLATION = 1008

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)
WEB_EXPORT_POLICY = CONTENT_SECURITY_POLICY.replace(
    "script-src 'self'", "script-src 'self' 'wasm-unsafe-eval'"
)
"""Policy of the files of web exports: their worker loads a module of WebAssembly."""
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cache-Control": "no-store",
}
"""Headers that are added to responses unless they set them."""


class Guard:
    """Middleware that lets only allowed requests pass.

    Args:
        app: The application.
        settings: Settings of the server.
        tickets: Tickets of files.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, tickets: Tickets) -> None:
        self._app, self._settings, self._tickets = app, settings, tickets
        self._names = {
            "localhost",
            socket.gethostname().lower(),
            f"{socket.gethostname().lower()}.local",
            settings.host.lower().strip("[]"),
            *(name.lower() for name in settings.allowed_hosts),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request or a WebSocket, and pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        send_safely = _with_headers(send) if scope["type"] == "http" else send
        try:
            self._check(scope)
        except Problem as problem:
            if scope["type"] == "http":
                await problem.response()(scope, receive, send_safely)
            else:
                await WebSocketClose(POLICY_VIOLATION, problem.detail)(scope, receive, send)
            return
        await self._app(scope, receive, send_safely)

    def _check(self, scope: Scope) -> None:
        """Raise Problem if a request may not pass."""
        headers = Headers(scope=scope)
        self._check_host(headers)
        if _is_watching(scope):  # from pages of other sites, too, which do not know the key
            return
        if scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS:
            _check_origin(headers)
        if not (self._is_open(scope) or self._has_token(scope, headers)):
            raise Problem(
                401,
                "the token is missing or wrong. Send the one that `talkhead serve` printed, in the "
                "header Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )

    def _check_host(self, headers: Headers) -> None:
        """Refuse names of other sites, whose pages would otherwise count as the server's own."""
        name = _host_name(headers.get("host", ""))
        if name in self._names or _is_address(name):
            return
        raise Problem(
            421,
            f"this server is not called {name!r}. Open the address that `talkhead serve` printed, or "
            "allow the name with --allowed-host",
        )

    def _is_open(self, scope: Scope) -> bool:
        """Return True for the page and its files, which contain nothing that is secret."""
        path: str = scope["path"]
        is_read = scope["type"] == "http" and scope["method"] in SAFE_METHODS
        return is_read and (path in OPEN_PATHS or path.startswith(OPEN_FOLDER))

    def _has_token(self, scope: Scope, headers: Headers) -> bool:
        """Check the token of a request, in constant time."""
        if not self._settings.token:
            return True
        if _equal(_given_token(scope, headers), self._settings.token):
            return True
        path: str = scope["path"]
        if scope["type"] != "http" or scope["method"] not in SAFE_METHODS:
            return False
        if path.endswith(TICKET_ENDINGS):
            query = parse_qs(scope["query_string"].decode("latin-1"))
            return self._tickets.is_valid(path, query.get(PARAMETER, [""])[0])
        folder, _, ticket = path.rpartition("/")[0].rpartition("/")
        return folder.endswith(TICKET_FOLDER) and self._tickets.is_valid(folder, ticket)


def _is_watching(scope: Scope) -> bool:
    """Return True for reading and watching a broadcast. Its routes check the key."""
    is_read = scope["type"] == "websocket" or scope["method"] in SAFE_METHODS
    path: str = scope["path"]
    return is_read and path.startswith(WATCH_FOLDER)


def public_path(path: str) -> str:
    """Remove the key of a broadcast from a path.

    Args:
        path: Path of a request.

    Returns:
        The path for the log.
    """
    if not path.startswith(WATCH_FOLDER):
        return path
    return f"{WATCH_FOLDER}.../{path.removeprefix(WATCH_FOLDER).partition('/')[2]}"


def _given_token(scope: Scope, headers: Headers) -> str:
    """Return the token that a request or a WebSocket contains; "" for none."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    for protocol in scope.get("subprotocols", ()):
        if protocol.startswith(BEARER_PROTOCOL):
            return str(protocol.removeprefix(BEARER_PROTOCOL))
    return ""


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _check_origin(headers: Headers) -> None:
    """Raise Problem if a page of another site makes the request. Programs send no Origin."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise Problem(403, "pages of other sites may not call this server")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Problem(403, "pages of other sites may not call this server")


def _host_name(host: str) -> str:
    """Return the name in a Host header, without port and brackets."""
    name = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host
    if not host.startswith("["):
        name = host.partition(":")[0]
    return name.lower().rstrip(".")


def _is_address(name: str) -> bool:
    """Return True for an IP address: no other site can be reached under it."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _with_headers(send: Send) -> Send:
    """Add the headers to a response."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _missing(headers).items():
                headers[name] = value
        await send(message)

    return send_with_headers


def _missing(headers: MutableHeaders) -> Mapping[str, str]:
    return {name: value for name, value in HEADERS.items() if name not in headers}
