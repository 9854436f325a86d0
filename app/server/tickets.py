"""Tickets: addresses of single files that work for some hours without the token.

A browser cannot send a header for `<video src>`. A ticket in the address allows one path to be read, and
nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from urllib.parse import quote

LIFETIME_S = 6 * 3600
PARAMETER = "ticket"


class Tickets:
    """Makes and checks tickets. They become invalid when the process that made them ends.

    Args:
        clock: Function that returns Unix time.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._key, self._clock = secrets.token_bytes(32), clock

    def link(self, path: str) -> str:
        """Make an address with a ticket. It stays the same for an hour, so that browsers can cache
        the file.

        Args:
            path: Path of a file of the API, not quoted.

        Returns:
            The quoted path with its ticket.
        """
        until = (int(self._clock()) // 3600 + 1) * 3600 + LIFETIME_S
        return f"{quote(path)}?{PARAMETER}={until}-{self._sign(path, until)}"

    def is_valid(self, path: str, ticket: str) -> bool:
        """Check a ticket.

        Args:
            path: The path that is requested, not quoted.
            ticket: The text from the address.

        Returns:
            True if it was made for this path and is not too old.
        """
        until, _, signature = ticket.partition("-")
        if not (until.isdecimal() and until.isascii() and len(until) < 16):
            return False
        expected = self._sign(path, int(until))
        return hmac.compare_digest(signature.encode(), expected.encode()) and (
            int(until) >= self._clock()
        )

    def _sign(self, path: str, until: int) -> str:
        message = f"{until} {path}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()
