"""Log of the server: one JSON object per line on stderr, without tokens, texts and names of files."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import datetime, timezone
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from talkhead.app.cli.console import print_line
from talkhead.app.server.metrics import Metrics
from talkhead.app.server.security import public_path
from talkhead.app.server.tickets import without_ticket
from talkhead.errors import TalkheadError, one_line
from talkhead.terminal import printable_json

FIELDS = "fields"
"""Attribute of a log record with further fields of its line."""
_LOG = logging.getLogger("talkhead.server")


def log(event: str, **fields: Any) -> None:
    """Write a line to the log.

    Args:
        event: What has happened.
        **fields: Further values of JSON types.
    """
    _LOG.info(event, extra={FIELDS: fields})


def log_error(event: str, error: Exception, **fields: Any) -> None:
    """Write a line about a failure to the log, with the traceback of an unexpected error.

    Args:
        event: What has failed.
        error: Why.
        **fields: Further values of JSON types.
    """
    unexpected = None if isinstance(error, TalkheadError) else error
    _LOG.error(event, exc_info=unexpected, extra={FIELDS: {**fields, "reason": one_line(error)}})


class JsonLines(logging.Handler):
    """Prints log records as JSON lines on stderr."""

    @classmethod
    def install(cls) -> None:
        """Use this handler for the server's log and for uvicorn's errors."""
        for name in ("talkhead.server", "uvicorn.error"):
            logger = logging.getLogger(name)
            logger.handlers[:] = [cls()]
            logger.propagate = False
        _LOG.setLevel(logging.INFO)
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record.

        Args:
            record: The record.
        """
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["traceback"] = logging.Formatter().formatException(record.exc_info)
        print_line(printable_json(json.dumps(line, ensure_ascii=False)), sys.stderr)


class AccessLog:
    """Middleware that logs and counts requests: method, path without query, status, duration.

    Args:
        app: The application.
        metrics: Counts the requests.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and log its end."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def send_noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", 0) or status
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        finally:
            method = scope.get("method", "WEBSOCKET")
            self._metrics.count_request(method, status)
            log(
                "request",
                method=method,
                path=public_path(without_ticket(scope["path"])),
                status=status,
                ms=round(1000 * (time.perf_counter() - started), 1),
            )
