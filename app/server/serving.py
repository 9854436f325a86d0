"""Serve the application until the process is asked to stop."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable
from contextlib import closing
from types import FrameType

import uvicorn

from talkhead.app.server.application import make_application
from talkhead.app.server.certificates import TlsFiles, tls_files
from talkhead.app.server.connections import SharingProtocol, TimedProtocol
from talkhead.app.server.logs import JsonLines
from talkhead.app.server.service import Service
from talkhead.app.server.settings import ServerSettings
from talkhead.errors import TalkheadError
from talkhead.storage import make_folder

GRACE_S = 10
"""Seconds that requests may take to end when the server stops."""
HEADER_BYTES = 32 << 10


class _Server(uvicorn.Server):
    """Notifies the service immediately of a stop, so that event streams end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle SIGTERM and Ctrl-C.

        Args:
            sig: Number of the signal.
            frame: Where the program was interrupted.
        """
        self._service.is_stopping = True
        super().handle_exit(sig, frame)


def serve(settings: ServerSettings, announce: Callable[[str, str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C. Jobs that are running then are resumed by the next start.

    Args:
        settings: Settings of the server.
        announce: Function that is called once the port is open, with the address of the page and the
            fingerprint of the certificate, "" without TLS.

    Raises:
        TalkheadError: The address cannot be listened on, or another server uses the home folder.
    """
    make_folder(settings.home)
    with closing(_listen(settings.host, settings.port)) as listener:
        tls = (
            tls_files(settings.home / "server" / "tls", settings.host)
            if settings.uses_tls
            else None
        )
        service = Service(settings)
        server = _Server(_config(settings, service, tls), service)
        make_folder(service.incoming)
        tempfile.tempdir = str(service.incoming)  # uploads are images of people: not into /tmp
        JsonLines.install()
        announce(page_address(settings, listener.getsockname()[1]), tls.fingerprint if tls else "")
        server.run(sockets=[listener])
        if not server.started:
            raise TalkheadError("the server could not start: the reason is in the log above")


def page_address(settings: ServerSettings, port: int) -> str:
    """Return the address of the studio page. Its token is in the fragment, which is never sent.

    Args:
        settings: Settings of the server.
        port: The port.

    Returns:
        The address.
    """
    host = settings.host
    if host in ("0.0.0.0", "::", ""):
        host = socket.gethostname()
    elif ":" in host:
        host = f"[{host.strip('[]')}]"
    fragment = f"#token={settings.token}" if settings.token else ""
    return f"{settings.scheme}://{host}:{port}/{fragment}"


def _config(settings: ServerSettings, service: Service, tls: TlsFiles | None) -> uvicorn.Config:
    return uvicorn.Config(
        make_application(service),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.limits.n_connections + settings.limits.n_viewers,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=20,
        http=TimedProtocol,
        ws=SharingProtocol,
        h11_max_incomplete_event_size=HEADER_BYTES,
        ws_max_size=1 << 20,
        ws_per_message_deflate=False,  # pictures are compressed already, and every millisecond counts
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )


def _listen(host: str, port: int) -> socket.socket:
    """Open the port. Raise TalkheadError if it is in use or not allowed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise TalkheadError(
            f"{host}:{port}: {error.strerror or error}. Pass another --port or --host"
        ) from None
    return listener
