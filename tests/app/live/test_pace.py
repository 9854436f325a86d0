"""What a frame costs, and how many sessions keep their pace."""

from __future__ import annotations

import numpy as np
import pytest
from live_fakes import REST, make_engine

from talkhead.app.live import pace
from talkhead.app.live.pace import N_FIRST, N_MEASURED, FrameCost, keep_pace, measure


def test_frames_of_other_sessions_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of 8 ms of processor time and 20 ms of wall-clock time for each frame of anyone."""
    n = [0]
    monkeypatch.setattr(pace.time, "process_time", lambda: 0.008 * n[0])
    monkeypatch.setattr(pace.time, "perf_counter", lambda: 0.020 * n[0])

    def rehearse(n_frames: int) -> None:
        n[0] += 2 * n_frames  # another session renders as many

    cost = measure(rehearse, lambda: n[0] // 2)
    assert n[0] == 2 * (N_FIRST + N_MEASURED)
    assert (cost.processor_ms, cost.wall_ms) == (pytest.approx(8.0), pytest.approx(40.0))


def test_a_rehearsal_renders_speech_and_gives_nothing_out() -> None:
    engine, pictures = make_engine()
    engine.rehearse(15)
    assert len(pictures.codes) == 15
    assert not any(np.array_equal(code, REST) for code in pictures.codes)
    assert engine.statistics.n_frames == 0
    frame = engine.step(0.0)
    assert frame is not None and frame.index == 0 and not frame.is_speech


@pytest.mark.parametrize(
    ("n_sessions", "cost", "n_cores", "is_kept"),
    [
        (2, FrameCost(20.0, 29.0), 2, True),
        (2, FrameCost(20.0, 31.0), 2, False),
        (3, FrameCost(20.0, 29.0), 2, False),
        (3, FrameCost(20.0, 29.0), 3, True),
        (1, FrameCost(31.0, 1.0), 64, False),  # other programs use the cores
    ],
)
def test_sessions_that_keep_their_pace(
    n_sessions: int, cost: FrameCost, n_cores: int, is_kept: bool
) -> None:
    assert keep_pace(n_sessions, cost, n_cores) is is_kept
