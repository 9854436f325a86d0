"""Definitions that the routes of the API share."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Header, Request

from talkhead.app.dubbing.job import DONE, QUEUED, RUNNING, Job
from talkhead.app.server.models import Status
from talkhead.app.server.problems import MEDIA_TYPE, public_message
from talkhead.app.server.service import Service

Responses = dict[int | str, dict[str, Any]]

_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was wrong, and what to do"},
    },
}


def problem(description: str) -> dict[str, Any]:
    """Describe a response with problem details for /openapi.json.

    Args:
        description: When it is sent.

    Returns:
        The value of `responses` for its status.
    """
    return {"description": description, "content": {MEDIA_TYPE: {"schema": _SCHEMA}}}


EVERYWHERE: Responses = {
    401: problem("The token is missing or wrong"),
    422: problem("A value is not valid"),
}
"""Problems of all routes."""
PROBLEMS: Responses = {
    400: problem("The form is damaged or incomplete"),
    408: problem("The upload is too slow"),
    409: problem("The name or key is taken, or in use by another request"),
    413: problem("The upload is too large"),
    503: problem("The queue is full; try again after `Retry-After` seconds"),
    507: problem("The disk is nearly full"),
}
"""Problems of uploads."""
NOT_FOUND: Responses = {404: problem("There is no object with this name or ID")}
NOT_NOW: Responses = {409: problem("It is not finished, or still being stopped")}

IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        description="A request that is repeated with the same key is carried out once.",
    ),
]


def get_service(request: Request) -> Service:
    """Return the service of the application.

    Args:
        request: The request.

    Returns:
        The service.
    """
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(get_service)]


def status_of(job: Job | None) -> Status:
    """Translate the status of a job.

    Args:
        job: The job; None if its file was removed.

    Returns:
        The API's status.
    """
    if job is None:
        return "failed"
    known: dict[str, Status] = {QUEUED: "queued", RUNNING: "in_progress", DONE: "completed"}
    return known.get(job.status, "failed")


def error_of(service: Service, job: Job | None) -> str:
    """Return why a job has failed.

    Args:
        service: The service.
        job: The job; None if its file was removed.

    Returns:
        The reason.
    """
    if job is None:
        return "its job was removed"
    return public_message(job.reason or job.status, service.home.path)
