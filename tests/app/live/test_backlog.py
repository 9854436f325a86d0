"""The order of waiting audio and marks, and errors of agent modules whose package is missing."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np
import pytest

from talkhead.app.live.backlog import Backlog
from talkhead.app.live.frames import LiveFrame


def frame(is_speech: bool = True, end: bool = False) -> LiveFrame:
    nothing = np.zeros(0)
    return LiveFrame(nothing, nothing, 16_000, 0, 0, 0, is_speech, end)


def test_items_come_back_after_the_sound_before_them() -> None:
    backlog: Backlog[str] = Backlog()
    backlog.add("before")
    assert backlog.due() == ["before"] and backlog.is_empty
    backlog.add_sound("first", 0.06)
    backlog.add("between")
    backlog.add_sound("second", 0.02)
    backlog.add("after")
    assert backlog.due() == [] and backlog.current == "first"
    assert backlog.advance(frame()) == []
    assert backlog.advance(frame(is_speech=False)) == []  # the sound waits for more
    assert backlog.advance(frame()) == ["between", "after"]
    assert backlog.is_empty and backlog.is_open


def test_the_end_of_a_line_comes_with_its_last_frame() -> None:
    backlog: Backlog[str] = Backlog()
    backlog.add_sound("short", 0.01)
    backlog.end_line("end")
    backlog.end_line("of nothing")
    backlog.add_sound("next", 0.04)
    backlog.end_line("next end")
    assert not backlog.is_open
    assert backlog.advance(frame()) == []  # its sound was given out, but a frame follows
    assert backlog.advance(frame(end=True)) == ["end", "of nothing"]
    assert backlog.current == "next"
    assert backlog.advance(frame()) == []
    assert backlog.advance(frame(is_speech=False, end=True)) == ["next end"]
    assert backlog.is_empty


def test_what_is_left_after_an_interruption_and_after_a_failure() -> None:
    backlog: Backlog[str] = Backlog()
    for _ in range(2):
        backlog.add_sound("sound", 0.10)
        backlog.add("mark")
        assert backlog.advance(frame()) == []
        assert backlog.clear() == ["mark"]
        assert backlog.is_empty and not backlog.is_open
    backlog.add_sound("sound", 0.10)
    backlog.add("mark")
    backlog.add_sound("more", 0.10)
    assert backlog.advance(frame()) == []
    assert backlog.rest() == [("sound", pytest.approx(0.04)), ("mark", 0.0), ("more", 0.0)]
    assert backlog.is_empty


@pytest.mark.parametrize("name", ["pipecat", "livekit"])
def test_a_missing_package_is_named_with_its_remedy(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = f"talkhead.app.live.{name}"
    for loaded in [one for one in sys.modules if one.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ImportError, match=rf"pip install 'talkhead\[{name}\]'"):
        importlib.import_module(module)
