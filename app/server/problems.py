"""Errors of the API as problem details, RFC 9457: what was wrong with the request, and what to do."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from talkhead.errors import TalkheadError, one_line
from talkhead.terminal import printable

METHODS = ("GET", "HEAD", "POST", "DELETE")
"""Methods of the API."""
MEDIA_TYPE = "application/problem+json"
_LOG = logging.getLogger("talkhead.server")


class Problem(Exception):
    """A request that is refused.

    Args:
        status: Status code of HTTP.
        detail: What was wrong with the request, and what to do.
        headers: Further headers of the response.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})

    def response(self) -> Response:
        """Make the response.

        Returns:
            A response with the fields type, title, status and detail.
        """
        content = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        return JSONResponse(content, self.status, self.headers, MEDIA_TYPE)


def without_paths(text: str, *folders: Path) -> str:
    """Shorten paths in a message to names, so that it does not reveal folders of the server.

    Args:
        text: The message.
        folders: Folders whose paths are shortened.

    Returns:
        The message, with "line.wav" instead of "/home/anna/talkhead/server/line.wav".
    """
    for folder in folders:
        text = re.sub(rf"{re.escape(str(folder))}/(?:[^\s:/]+/)*", "", text)
    return text


def public_message(text: str, home: Path) -> str:
    """Rewrite a message of talkhead for callers of the API.

    Args:
        text: The message.
        home: The home folder.

    Returns:
        The message without paths of the server and flags of the command line.
    """
    return printable(in_words_of_the_api(without_paths(text, home)))


def in_words_of_the_api(text: str) -> str:
    """Replace the flags of the command line in a message by the names of the API's fields.

    Args:
        text: The message, such as "a driving video needs --mode head".

    Returns:
        The message, such as "a driving video needs mode head".
    """
    return _FLAG.sub(lambda found: found[1].replace("-", "_"), text)


_FLAG = re.compile(r"(?<!\S)--([a-z][a-z-]*)")


def install(app: FastAPI, home: Path) -> None:
    """Make an application respond to all errors with problem details.

    Args:
        app: The application.
        home: The home folder, whose path is left out of messages.
    """

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def unusable(request: Request, error: Exception) -> Response:
        return Problem(422, public_message(one_line(error), home)).response()

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return Problem(422, "; ".join(_describe(one) for one in error.errors())).response()

    async def other(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_allowed(request))
        return Problem(error.status_code, _detail(error, request), headers).response()

    async def vanished(request: Request, error: Exception) -> Response:
        return Problem(400, "the connection ended before the whole request had arrived").response()

    async def unexpected(request: Request, error: Exception) -> Response:
        _LOG.error("unexpected error", exc_info=error)
        detail = "internal error, see the server's log. Try again, or report it"
        return Problem(500, detail).response()

    app.add_exception_handler(Problem, refused)
    app.add_exception_handler(TalkheadError, unusable)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, other)
    app.add_exception_handler(ClientDisconnect, vanished)
    app.add_exception_handler(Exception, unexpected)


def _describe(error: Mapping[str, Any]) -> str:
    """Describe an invalid parameter: its name, and what is wrong with it."""
    name = str(error["loc"][-1]) if error.get("loc") else "request"
    message = str(error.get("msg", "is not valid")).removeprefix("Value error, ")
    if error.get("type") == "json_invalid":
        return "the body is not JSON. Send an object, as /openapi.json describes"
    if error.get("type") == "missing":
        return printable(f"{name} is missing, but required")
    return printable(f"{name}: {message[0].lower()}{message[1:]}")


def _allowed(request: Request) -> list[str]:
    """List the methods that an address supports. The framework only looks at one of its routes."""
    routes = request.app.routes
    asked = {name: {**request.scope, "method": name} for name in METHODS}
    return [
        name
        for name, scope in asked.items()
        if any(route.matches(scope)[0] == Match.FULL for route in routes)
    ]


def _detail(error: HTTPException, request: Request) -> str:
    """Describe an error of the web framework."""
    if error.status_code == 404:
        return (
            f"there is nothing at {printable(request.url.path)}. /openapi.json lists the addresses"
        )
    if error.status_code == 405:
        return f"{request.method} is not possible for {printable(request.url.path)}"
    if error.status_code == 400:  # all are about the body
        return (
            f"the body cannot be read: {printable(str(error.detail)).rstrip('.').lower()}. Send JSON "
            "in UTF-8 or a complete form, as /openapi.json describes"
        )
    return str(error.detail)
