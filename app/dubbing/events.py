"""What a worker reports of its job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class JobStarted:
    """A worker has claimed a job."""

    job_id: str


@dataclass(frozen=True)
class JobProgressed:
    """How far a job is in a stage; total 0: not known."""

    job_id: str
    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class JobFinished:
    """What became of a job: its status is that of its file now; "" if it was not to be had.

    halt: why nothing else can be done either, as on a full disk; "" else.
    """

    job_id: str
    status: str = ""
    reason: str = ""
    retry_at: float = 0.0
    result: Mapping[str, Any] = field(default_factory=dict)
    halt: str = ""


Event = JobStarted | JobProgressed | JobFinished
