"""What the routes of the API have in common."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Header, Request

from talkhead.app.dubbing.job import DONE, QUEUED, RUNNING, Job
from talkhead.app.server.models import Status
from talkhead.app.server.problems import public_message
from talkhead.app.server.service import Service

Responses = dict[int | str, dict[str, Any]]

PROBLEMS: Responses = {
    401: {"description": "The token is missing or wrong"},
    413: {"description": "The upload is too large"},
    422: {"description": "A value is not valid; `detail` says which, and what to do"},
    503: {"description": "The queue is full; try again after `Retry-After` seconds"},
}
"""Responses of uploads, for /openapi.json."""
NOT_FOUND: Responses = {404: {"description": "There is nothing of that name"}}

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
    """Say why a job has failed.

    Args:
        service: The service.
        job: The job; None if its file was removed.

    Returns:
        The reason.
    """
    if job is None:
        return "its job was removed"
    return public_message(job.reason or job.status, service.home.path)
