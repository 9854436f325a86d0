"""How many processor cores there are; apart from `device`, which takes a second to import."""

from __future__ import annotations

import os


def n_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
