"""Stage times are stored and added; a damaged file is ignored."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from talkhead.stage_timer import StageClock, peak_mib, read_stages


def test_stages_are_kept_in_their_order(tmp_path: Path) -> None:
    clock = StageClock(tmp_path / "stages.json")
    with clock.stage("tracking"):
        time.sleep(0.02)
    with clock.stage("training"):
        pass
    first, second = read_stages(tmp_path / "stages.json")
    assert (first.name, second.name) == ("tracking", "training")
    assert first.seconds >= 0.02 and first.peak_mib == pytest.approx(peak_mib(), rel=0.5)


def test_times_of_a_resumed_stage_are_added(tmp_path: Path) -> None:
    path = tmp_path / "stages.json"
    with pytest.raises(KeyboardInterrupt), StageClock(path).stage("training"):
        time.sleep(0.02)
        raise KeyboardInterrupt
    cut = read_stages(path)[0].seconds
    with StageClock(path).stage("training"):
        time.sleep(0.02)
    (whole,) = read_stages(path)
    assert cut >= 0.02 and whole.seconds >= cut + 0.02


def test_a_stage_that_is_run_again_keeps_its_time(tmp_path: Path) -> None:
    path = tmp_path / "stages.json"
    with StageClock(path).stage("training"):
        time.sleep(0.05)
    (first,) = read_stages(path)
    for _ in range(3):
        with StageClock(path).stage("training"):
            time.sleep(0.01)
    assert read_stages(path)[0].seconds == first.seconds


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        '{"stages": [{"name": 1}]}',
        '{"stages": [1]}',
        "[1]",
        "[" * 100_000,
        '{"stages": 5}',
        '{"stages": [{"name": "a", "seconds": "x", "peak_mib": 1}]}',
        '{"stages": [], "interrupted": [[]]}',
    ],
)
def test_a_damaged_file_counts_as_missing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "stages.json"
    path.write_text(content)
    assert read_stages(path) == ()
    with StageClock(path).stage("training"):
        pass
    assert [stage.name for stage in read_stages(path)] == ["training"]
    assert read_stages(tmp_path / "none.json") == ()
