"""Events that a worker emits while it runs a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class JobStarted:
    """A worker has claimed a job.

    Attributes:
        job_id: ID of the job.
    """

    job_id: str


@dataclass(frozen=True)
class JobProgressed:
    """Progress of a job within a stage.

    Attributes:
        job_id: ID of the job.
        stage: Name of the stage.
        done: Number of units that are done.
        total: Number of units of the stage; 0 if unknown.
    """

    job_id: str
    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class JobFinished:
    """Outcome of an attempt to run a job.

    Attributes:
        job_id: ID of the job.
        status: Status of the job after the attempt; "" if the job could not be claimed.
        reason: Reason of the last failure.
        retry_at: Unix time before which the job is not retried.
        result: Values recorded for a job that is done.
        halt: Reason why no other job can run either, such as a full disk; "" otherwise.
    """

    job_id: str
    status: str = ""
    reason: str = ""
    retry_at: float = 0.0
    result: Mapping[str, Any] = field(default_factory=dict)
    halt: str = ""


Event = JobStarted | JobProgressed | JobFinished
