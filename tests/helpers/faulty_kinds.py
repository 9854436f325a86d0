"""A fuzzing suite of cases with forbidden effects, each of which must be detected."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.fuzz.mutations.hostile import FORGED
from benchmarks.fuzz.trial import DONE, REFUSED, USAGE, EnoughError, Kind, Setting, Suite, Trial
from talkhead.errors import TalkheadError


def build(folder: Path, traps: Any) -> None:
    (folder / "base.txt").write_text("base")
    traps.place(b"RIFF")


def _raise(error: BaseException) -> None:
    raise error


def _write(setting: Setting, name: str, text: str = "x") -> None:
    path = setting.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _message_and_error(error: Exception) -> None:
    print("talkhead: no", file=sys.stderr)
    raise error


def _connect(setting: Setting) -> None:
    socket.create_connection(("127.0.0.1", setting.traps.port)).close()


def _child_connects(setting: Setting) -> None:
    """Connect from a child process, which the audit hook does not observe."""
    fetch = f"import urllib.request as u; u.urlopen({setting.traps.url!r})"
    subprocess.run([sys.executable, "-c", fetch], check=False, stderr=subprocess.DEVNULL)


def _look_up() -> None:
    urllib.request.urlopen("http://nowhere.invalid/")


def _grow() -> None:
    held = bytearray(600 << 20)
    for at in range(0, len(held), 4096):
        held[at] = 1
    time.sleep(5)


def _write_outside() -> None:
    Path("/tmp/talkhead-fuzz-outside").write_text("x")


def _command() -> None:
    from talkhead.app.cli.main import app

    app(["--version"], prog_name="talkhead")


def _flood(number: int) -> None:
    os.write(number, b"\x1b[2J")


DOES: dict[str, Any] = {
    "works": lambda s: lambda: print("done"),
    "exits": lambda s: lambda: sys.exit(0),
    "refuses": lambda s: lambda: _raise(TalkheadError("x.wav: is none. Give another")),
    "refuses what is valid": lambda s: lambda: _raise(TalkheadError("x.wav: is none")),
    "usage": lambda s: lambda: sys.exit(2),
    "real command": lambda s: _command,
    "enough": lambda s: lambda: _raise(EnoughError("far")),
    "raises": lambda s: lambda: _raise(ValueError("x")),
    "odd status": lambda s: lambda: sys.exit(7),
    "silent": lambda s: lambda: sys.exit(1),
    "printed trace": lambda s: lambda: print("Traceback (most recent call last):"),
    "no memory": lambda s: lambda: _raise(MemoryError()),
    "reported no memory": lambda s: lambda: _message_and_error(TalkheadError("not enough memory")),
    "grows": lambda s: _grow,
    "hangs": lambda s: lambda: time.sleep(30),
    "dies": lambda s: lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "leaves": lambda s: lambda: _write(s, "out/.line.tmp-1234.mp4"),
    "leaves in a folder of its own": lambda s: lambda: _write(s, "free/.line.tmp-1234.mp4"),
    "leaves a job": lambda s: lambda: _write(s, "free/temporary/x.json"),
    "leaves parts": lambda s: lambda: _write(s, "free/tracking.part00000.safetensors"),
    "writes elsewhere": lambda s: lambda: _write(s, "in/x"),
    "changes its input": lambda s: lambda: _write(s, "in/given.txt", "changed"),
    "writes where it may": lambda s: lambda: _write(s, "free/x"),
    "leaves an output though it fails": lambda s: lambda: (
        _write(s, "out/line.mp4"), _raise(TalkheadError("no"))
    ),
    "makes an output": lambda s: lambda: _write(s, "out/line.mp4"),
    "bad output": lambda s: lambda: _write(s, "out/line.mp4", "bad"),
    "escapes": lambda s: lambda: print("\x1b[2J"),
    "escapes below Python": lambda s: lambda: _flood(2),
    "forges": lambda s: lambda: print(f"file\n{FORGED}"),
    "no text": lambda s: lambda: os.write(1, b"\xff\xfe"),
    "surrogate": lambda s: lambda: print("\ud800"),
    "connects": lambda s: lambda: _connect(s),
    "child connects": lambda s: lambda: _child_connects(s),
    "looks up": lambda s: _look_up,
    "reads a canary": lambda s: lambda: s.traps.text.read_text(),
    "changes a base": lambda s: lambda: (s.bases / "base.txt").write_text("other"),
    "writes outside": lambda s: _write_outside,
    "starts a program": lambda s: lambda: subprocess.run(["true"], check=True),
    "accepts": lambda s: lambda: None,
}  # fmt: skip


def _check(setting: Setting) -> None:
    path = setting.folder / "out" / "line.mp4"
    assert not path.exists() or path.read_text() != "bad", "a bad output"


def _maker(name: str) -> Any:
    def make(setting: Setting) -> Trial:
        setting.place("in/given.txt", b"given")
        return Trial(
            DOES[name](setting),
            (DONE,) if name == "refuses what is valid" else (DONE, REFUSED, USAGE),
            must_fail=name == "accepts",
            changes=("free/*",),
            products=("out/line.mp4",),
            check=lambda: _check(setting),
        )

    return make


def _broken(setting: Setting) -> Trial:
    raise RuntimeError("a mistake in the suite")


SUITE = Suite(
    (*(Kind(name, _maker(name)) for name in DOES), Kind("broken", _broken)),
    build,
)
