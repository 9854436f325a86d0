"""Settings and limits of the server."""

from __future__ import annotations

import ipaddress
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from talkhead.errors import TalkheadError

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8730
AUTO = "auto"
MIN_TOKEN_CHARS = 16
_TOKEN = re.compile(r"[A-Za-z0-9._~-]+")
MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class Limits:
    """What the server accepts.

    Attributes:
        footage_bytes: Largest upload of footage.
        footage_s: Longest footage in seconds.
        audio_bytes: Largest upload of audio, with a background and a transcript.
        audio_s: Longest audio in seconds.
        line_bytes: Largest upload of audio of a line for a web page.
        line_s: Longest audio of such a line in seconds.
        table_bytes: Largest upload of a table with its files.
        form_bytes: Largest body of any other request.
        n_files: Largest number of files in one request.
        n_queued: Number of jobs that are queued or running before new ones are refused.
        n_connections: Number of connections at once, besides one for each of `n_viewers`. It also counts
            those over which pages of broadcasts load their files.
        n_viewers: Number of viewers of broadcasts at once.
        free_bytes: Space on the disk that uploads must leave free.
        idle_s: Seconds without data after which an upload is ended.
        bytes_per_s: Slowest mean rate of an upload.
        preview_s: Seconds that a preview or a line for a web page may wait for others.
    """

    footage_bytes: int = 4 * GIB
    footage_s: float = 1800.0
    audio_bytes: int = 512 * MIB
    audio_s: float = 3600.0
    line_bytes: int = 64 * MIB
    line_s: float = 60.0
    table_bytes: int = 4 * GIB
    form_bytes: int = MIB
    n_files: int = 1000
    n_queued: int = 200
    n_connections: int = 200
    n_viewers: int = 500
    free_bytes: int = GIB
    idle_s: float = 30.0
    bytes_per_s: float = 4096.0
    preview_s: float = 60.0


@dataclass(frozen=True)
class Callbacks:
    """Whether and where the server reports finished jobs.

    Attributes:
        secret: Key of the signature. b"": callbacks are refused.
        allow_private: Accept addresses of private networks and of this machine.
    """

    secret: bytes = field(default=b"", repr=False)
    allow_private: bool = False


@dataclass(frozen=True)
class ServerSettings:
    """Settings of a server.

    Attributes:
        home: The home folder.
        host: Address to listen on.
        port: Port to listen on; 0 chooses a free one.
        token: The bearer token. "": none is needed, which only a loopback address allows.
        uses_tls: Serve HTTPS with a certificate made on this machine.
        allowed_hosts: Additional names by which browsers may call the server.
        workers: Number of processes that run jobs, or "auto".
        device: "auto", "cpu", "cuda" or "cuda:N".
        voice_url: Address of the voice server that speaks text. None: the installed voice.
        tries: Number of failures after which a job is marked as failed.
        limits: What is accepted.
        callbacks: Settings of callbacks.
        live_badge: Mark every picture of live sessions as made by a machine.

    Raises:
        TalkheadError: The token is missing or too weak.
    """

    home: Path
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    token: str = field(default="", repr=False)
    uses_tls: bool = False
    allowed_hosts: tuple[str, ...] = ()
    workers: int | str = AUTO
    device: str = AUTO
    voice_url: str | None = None
    tries: int = 2
    limits: Limits = field(default_factory=Limits)
    callbacks: Callbacks = field(default_factory=Callbacks)
    live_badge: bool = True

    def __post_init__(self) -> None:
        """Check the token.

        Raises:
            TalkheadError: It is missing for an address that is not loopback, is too short, or
                contains characters that are not allowed in URLs.
        """
        if not self.token and not is_loopback(self.host):
            raise TalkheadError(
                f"{self.host} can be reached from other machines, so a token is needed. Leave out "
                "--token to have one made, or pass one"
            )
        if self.token and (not _TOKEN.fullmatch(self.token) or len(self.token) < MIN_TOKEN_CHARS):
            raise TalkheadError(
                f"the token is not usable. Choose at least {MIN_TOKEN_CHARS} letters, digits, '-', "
                "'_', '.' and '~'"
            )

    @property
    def scheme(self) -> str:
        """ "http" or "https"."""
        return "https" if self.uses_tls else "http"


def new_token() -> str:
    """Make a random token.

    Returns:
        43 characters that URLs can contain, 256 bits.
    """
    return secrets.token_urlsafe(32)


def is_loopback(host: str) -> bool:
    """Check whether an address can be reached from this machine only.

    Args:
        host: A name or an IP address.

    Returns:
        True for "localhost" and addresses such as 127.0.0.1 and ::1.
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
