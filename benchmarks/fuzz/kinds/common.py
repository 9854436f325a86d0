"""Helpers of several kinds: running a command, a home with an identity, checking a finished video."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

from benchmarks.fuzz import people
from benchmarks.fuzz.bases import SOUND_S
from benchmarks.fuzz.mutations import playlists
from benchmarks.fuzz.trial import Setting
from talkhead import media

RENDERERS = ("warp", "warp", "gaussian", "nerf")
SPOKEN_FRAMES = round(25 * SOUND_S)


def command(*arguments: object) -> None:
    """Run the command line in this process."""
    from talkhead.app.cli.main import app

    app([str(argument) for argument in arguments], prog_name="talkhead")


def home(setting: Setting) -> Path:
    """A copy of the home with the identity."""
    return Path(shutil.copytree(setting.bases / "home", setting.folder / "home"))


def read_home(setting: Setting) -> Path:
    """The home with the identity itself, for commands that do not write there."""
    return setting.bases / "home"


def sound(setting: Setting) -> Path:
    """A valid audio file."""
    return setting.place("in/line.wav", setting.base("line.wav"))


def output(setting: Setting, name: str = "line.mp4") -> Path:
    """Path of an output, whose folder exists."""
    folder = setting.folder / "out"
    folder.mkdir(exist_ok=True)
    return folder / name


def check_video(path: Path) -> None:
    """Raise AssertionError for a video that cannot be read to its end."""

    about = media.probe(path)
    n_frames = sum(1 for _ in media.read_frames(path))
    assert n_frames > 0, f"{path}: no picture"
    assert abs(n_frames / 25 - about.duration_s) < 0.2, f"{path}: {n_frames} frames"


def speak_arguments(setting: Setting, audio: Path, target: Path, *more: object) -> list[object]:
    """A speak command, usually with the cheapest renderer."""
    head = setting.rng.choice(RENDERERS) if "--renderer" not in more else None
    renderer = ["--renderer", head] if head else []
    return ["speak", "--audio", audio, "-o", target, "--home", read_home(setting), *renderer,
            "--device", "cpu", *quietly(setting.rng), *more]  # fmt: skip


def quietly(rng: Random) -> list[str]:
    """Options of progress."""
    return rng.choice(([], ["--quiet"], ["--json"]))


def odd_file(setting: Setting, name: str) -> tuple[Path, bool]:
    """A file of another type instead of a media file, and whether it must be refused."""
    path = setting.folder / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    how = setting.rng.choice(("playlist",) * 6 + ("pipe", "device", "folder", "empty", "text"))
    if how == "playlist":
        data, what = playlists.make(setting.rng, setting.traps)
        path.write_bytes(data)
        setting.note(what)
        return path, True
    setting.note(f"a {how}")
    if how == "pipe":
        os.mkfifo(path)
    elif how == "device":
        path.symlink_to(setting.rng.choice(("/dev/zero", "/dev/null", "/dev/full")))
    elif how == "folder":
        path.mkdir()
    else:
        path.write_text("" if how == "empty" else "Remember to record the line.\n" * 40)
    return path, True


def placed_or_odd(setting: Setting, name: str, data: bytes) -> Path:
    """An input of the case; sometimes a pipe, a device or another file instead."""
    return odd_file(setting, name)[0] if setting.chance(0.04) else setting.place(f"in/{name}", data)


def fitted(setting: Setting) -> Path:
    """The identity's package."""
    return setting.bases / "home" / "identities" / people.NAME
