"""How much of this machine a live session needs, and how many sessions keep their pace."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from talkhead.types import FRAME_RATE

PERIOD_MS = 1000.0 / FRAME_RATE
LATEST_MS = 0.75 * PERIOD_MS
"""Time for a frame beyond which a further session is not accepted: other programs are busy, too."""
SHARE = 0.75
"""Part of the processor cores that sessions may use. The rest encodes pictures and serves requests."""
N_FIRST, N_MEASURED = 5, 15
"""Frames that are rendered before the measurement, while kernels are loaded, and for it."""


@dataclass(frozen=True)
class FrameCost:
    """What a frame of speech costs.

    Attributes:
        wall_ms: Time until it is ready.
        processor_ms: Processor time, of all threads.
    """

    wall_ms: float
    processor_ms: float


def measure(rehearse: Callable[[int], None], n_others: Callable[[], int]) -> FrameCost:
    """Measure what a frame of speech costs, while other sessions of this process may speak.

    Args:
        rehearse: Function that renders a number of frames.
        n_others: Function that returns how many frames of speech other sessions of this process have
            rendered so far.

    Returns:
        The cost.
    """
    rehearse(N_FIRST)
    n_before, wall_s, processor_s = n_others(), time.perf_counter(), time.process_time()
    rehearse(N_MEASURED)
    wall_s, processor_s = time.perf_counter() - wall_s, time.process_time() - processor_s
    n_frames = N_MEASURED + n_others() - n_before
    return FrameCost(1000.0 * wall_s / N_MEASURED, 1000.0 * processor_s / n_frames)


def keep_pace(n_sessions: int, cost: FrameCost, n_cores: int) -> bool:
    """Estimate whether sessions keep 25 frames a second when all of them speak.

    Args:
        n_sessions: Number of sessions.
        cost: What a frame costs now.
        n_cores: Number of processor cores.

    Returns:
        True if they do.
    """
    needed_ms = n_sessions * cost.processor_ms
    return cost.wall_ms <= LATEST_MS and needed_ms <= SHARE * PERIOD_MS * n_cores
