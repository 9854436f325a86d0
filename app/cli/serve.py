"""`talkhead serve`."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from talkhead.app.cli.console import print_line
from talkhead.app.cli.options import DeviceOption, HomeOption
from talkhead.errors import TalkheadError

if TYPE_CHECKING:
    from talkhead.app.server.settings import ServerSettings

SECRET_VARIABLE, TOKEN_VARIABLE = "TALKHEAD_CALLBACK_SECRET", "TALKHEAD_TOKEN"
EXTRA = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "websockets")
"""Packages of the extra `serve`."""
AUTO = "auto"
MaxQueueOption = Annotated[
    int, typer.Option("--max-queue", min=1, help="Refuse new jobs while this many are waiting.")
]
MaxViewersOption = Annotated[
    int, typer.Option("--max-viewers", min=0, help="Viewers of broadcasts at once.")
]
LiveBadgeOption = Annotated[
    bool,
    typer.Option(
        "--live-badge/--no-live-badge",
        help="Mark every picture of live speech as AI-generated. Without it, say so elsewhere; the "
        "signed manifest of a session states it in any case.",
    ),
]


def serve(
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on. 0.0.0.0: all addresses.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port; 0 chooses a free one.")
    ] = 8730,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            help=f'Token that callers must send; "" disables it, on this machine only. '
            f"(default: ${TOKEN_VARIABLE}, or a new one)",
        ),
    ] = None,
    tls: Annotated[
        bool,
        typer.Option("--tls", help="Serve HTTPS, with a certificate made on this machine."),
    ] = False,
    home: HomeOption = None,
    workers: Annotated[
        str,
        typer.Option(
            "--workers", help="Number of processes. auto: one per GPU or, without one, per core."
        ),
    ] = AUTO,
    device: DeviceOption = AUTO,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host", help="Another name of this server, for example behind a proxy."
        ),
    ] = None,
    voice_url: Annotated[
        str | None,
        typer.Option(
            "--voice-url",
            help="Address of a voice server, to which text is sent. (default: the installed voice)",
        ),
    ] = None,
    max_queue: MaxQueueOption = 200,
    max_viewers: MaxViewersOption = 500,
    allow_private_callbacks: Annotated[
        bool,
        typer.Option(
            "--allow-private-callbacks", help="Accept callback addresses of private networks."
        ),
    ] = False,
    live_badge: LiveBadgeOption = True,
) -> None:
    """Serve a page and an HTTP API for fitting people and making videos.

    It listens on this machine only, unless --host is passed, and prints the address of the page
    with its token. Jobs survive a restart.

    [bold]Examples[/bold]

      talkhead serve

      talkhead serve --host 0.0.0.0 --tls
    """
    if workers != AUTO and not (workers.isdecimal() and int(workers) > 0):
        raise typer.BadParameter("--workers must be auto or an integer of at least 1")
    _check_extra()
    from talkhead.app.home.identities import Home
    from talkhead.app.server.callbacks import read_secret
    from talkhead.app.server.serving import serve as run
    from talkhead.app.server.settings import Callbacks, Limits, ServerSettings, new_token
    from talkhead.app.text_to_speech import URL_VARIABLE
    from talkhead.processors import check_device

    check_device(device)
    secret = os.environ.get(SECRET_VARIABLE, "")
    if token is None:
        token = os.environ.get(TOKEN_VARIABLE) or new_token()
    if voice_url is not None:
        os.environ[URL_VARIABLE] = voice_url  # the workers speak the lines of whole videos
    settings = ServerSettings(
        Home.locate(home).path,
        host,
        port,
        token,
        tls,
        tuple(allowed_host or ()),
        workers if workers == AUTO else int(workers),
        device,
        voice_url,
        limits=Limits(n_queued=max_queue, n_viewers=max_viewers),
        callbacks=Callbacks(read_secret(secret) if secret else b"", allow_private_callbacks),
        live_badge=live_badge,
    )
    try:
        run(settings, lambda address, mark: _announce(settings, address, mark))
    except KeyboardInterrupt:
        pass  # Ctrl-C is the usual way to stop it
    except SystemExit as stop:
        if stop.code != 143:  # 143: SIGTERM, after which everything was shut down in order
            raise
    print_line("stopped; jobs that were running resume at the next start", sys.stderr)


def _check_extra() -> None:
    """Raise TalkheadError if a package of the extra is missing."""
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise TalkheadError(
            f"serve needs the package {missing[0]}, which is not installed. Install the extra: pip "
            "install 'talkhead[serve]'"
        )


def _announce(settings: ServerSettings, address: str, mark: str) -> None:
    from talkhead.app.server.settings import is_loopback

    print_line(f"talkhead serves {settings.home}. Open this address in a browser:")
    print_line(f"    {address}")
    if mark:
        print_line(f"The browser asks whether to trust the certificate. Its SHA-256: {mark}")
    if not is_loopback(settings.host) and not settings.uses_tls:
        print_line(
            "Other machines can reach it without encryption, so the token and all videos can be read on "
            "the way. Pass --tls, or use a proxy that encrypts",
            sys.stderr,
        )
    print_line("Stop it with Ctrl-C.", sys.stderr)
