"""Command lines with impossible values and names of missing files."""

from __future__ import annotations

import os
from random import Random

from benchmarks.fuzz import people
from benchmarks.fuzz.kinds.common import command, home, sound
from benchmarks.fuzz.mutations import hostile
from benchmarks.fuzz.trial import DONE, REFUSED, USAGE, Kind, Setting, Trial

VALUES = {
    "speak": ("--identity", "--mode", "--renderer", "--codec", "--height", "--background", "--yaw",
              "--pitch", "--zoom", "--subtitles", "--transcript", "--language", "--loudness",
              "--certificate", "--key", "--device", "--audio", "-o", "--home"),
    "fit": ("--name", "--preset", "--renderer", "--encoder", "--device", "--seed", "--consent",
            "--min-face", "--home", "--video"),
    "dub": ("--workers", "--device", "--tries", "--results", "--home", ""),
    "evaluate": ("--audio", "--video", "--text", "--language", "--seconds", "--renderer", ""),
    "verify": ("--trust", ""),
    "identities list": ("--home",),
    "identities show": ("--home", ""),
    "identities export": ("--home", "-o", ""),
    "identities import": ("--name", ""),
    "identities remove": ("", "--home"),
    "jobs list": ("--status", "--home"),
    "jobs show": ("",),
    "jobs retry": ("",),
    "jobs cancel": ("",),
}  # fmt: skip
"""The options of each command that take a value; "" stands for a positional argument."""
NEEDED = {"fit": "--video", "speak": "--audio"}
NUMERIC = {"--height", "--yaw", "--pitch", "--zoom", "--loudness", "--seed", "--min-face",
           "--tries", "--seconds", "--workers"}  # fmt: skip
FLAGS = ("--json", "--quiet", "--yes", "-y", "--debug", "--no-provenance", "--skip-bad",
         "--use-all-frames", "--replace", "--help", "--version", "--nothing")  # fmt: skip
NONE_OF_THESE = ("/dev/full",)


def arguments(setting: Setting) -> Trial:
    """Draw a command with one to three random values of its options."""
    where = home(setting)
    name = setting.rng.choice(sorted(VALUES))
    line = sound(setting)
    (setting.folder / "out").mkdir()
    given = [*name.split(), *_values(setting, name)]
    if name in NEEDED and NEEDED[name] not in given:
        given += [NEEDED[name], str(line)]
    if name == "speak" and "-o" not in given:
        given += ["-o", str(setting.folder / "out" / "line.mp4")]
    if "--home" not in given and name not in ("verify",):
        given += ["--home", str(where)]
    if setting.plain:
        given = ["identities", "list", "--home", str(where)]
    setting.note(" ".join(repr(one) if len(one) < 40 else f"{one[:37]!r}..." for one in given))
    return Trial(lambda: command(*given), (DONE, REFUSED, USAGE), changes=("*",))


def _values(setting: Setting, name: str) -> list[str]:
    """Draw options with values, arguments and flags."""
    rng, given = setting.rng, []
    for _ in range(rng.choice((1, 1, 2, 3))):
        option = rng.choice(VALUES[name])
        value = _value(rng, option, setting)
        given += [option, value] if option else [value]
    if rng.random() < 0.3:
        given.append(rng.choice(FLAGS))
    return given


def _value(rng: Random, option: str, setting: Setting) -> str:
    """Draw a value in the form in which the system passes it: no NUL, invalid UTF-8 as surrogates."""
    if option in NUMERIC and rng.random() < 0.8:
        value = hostile.number_text(rng)
    elif rng.random() < 0.15:
        value = rng.choice((people.NAME, str(setting.folder / "in" / "line.wav")))
    elif rng.random() < 0.3:
        value = rng.choice([p for p in hostile.PATHS if p not in NONE_OF_THESE])
    else:
        value = hostile.text(rng)
    raw = value.encode("utf-8", "surrogatepass").replace(b"\x00", b"")
    if rng.random() < 0.1:
        raw += bytes(rng.choice((b"\xff", b"\xc3\x28", b"\x80")))
    return os.fsdecode(raw[:100_000])


KINDS = (Kind("arguments", arguments, 1.5),)
