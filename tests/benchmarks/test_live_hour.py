"""The benchmark of an hour: its rows come while it runs."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from live_fakes import RATE, make_engine

from benchmarks import live_hour
from benchmarks.live_hour import Hour


def test_each_minute_has_a_row_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_hour, "MINUTE_S", 0.2)
    monkeypatch.setattr(live_hour, "LiveEngine", lambda avatar, options: make_engine()[0])

    async def rows(n: int) -> list[Any]:
        found = []
        person: Any = None
        async for row in Hour(person, np.full(RATE, 0.1, np.float32), RATE, minutes=1e9).run():
            found.append(row)
            if len(found) == n:
                break
        return found

    found = asyncio.run(asyncio.wait_for(rows(3), 30.0))
    assert [row["minute"] for row in found] == [1, 2, 3]
    assert 0 < found[0]["frames"] < found[1]["frames"] < found[2]["frames"]
