"""Audio, video, and background pictures."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from benchmarks.fuzz.bases import OTHER_PICTURES, PICTURES, SOUNDS, VIDEOS
from benchmarks.fuzz.kinds.common import (
    check_video,
    command,
    odd_file,
    output,
    quietly,
    read_home,
    sound,
    speak_arguments,
)
from benchmarks.fuzz.mutations import raw
from benchmarks.fuzz.trial import REFUSED, Kind, Setting, Trial


def _others(setting: Setting) -> list[bytes]:
    return [setting.base(setting.rng.choice((*SOUNDS, *VIDEOS, *PICTURES)))]


def _medium(setting: Setting, names: tuple[str, ...]) -> tuple[Path, bool]:
    """A damaged file or another file under its name, and whether it must be refused."""
    name = setting.rng.choice(names)
    called = setting.rng.choice(names) if setting.chance(0.1) else name
    if setting.chance(0.12):
        return odd_file(setting, called)
    setting.note(name if called == name else f"{name} called {called}")
    data = setting.damage(setting.base(name), raw.mutate, _others(setting))
    return setting.place(f"in/{called}", data), False


def audio(setting: Setting) -> Trial:
    """Damage audio, then run speak or only predict the motion."""
    path, refused = _medium(setting, tuple(SOUNDS))
    if setting.rng.random() < 0.3:
        return Trial(lambda: _codes(path, setting), must_fail=refused)
    target = output(setting)
    more = ["--loudness", "-20"] if setting.rng.random() < 0.15 else []
    arguments = speak_arguments(setting, path, target, *more)
    return Trial(
        lambda: command(*arguments),
        must_fail=refused,
        products=("out/line.mp4",),
        check=lambda: check_video(target),
    )


def _codes(path: Path, setting: Setting) -> None:
    """Predict the motion of an audio file."""
    from talkhead.app.avatar import speech_codes
    from talkhead.app.home.identities import Home

    speech_codes(path, Home(read_home(setting)).load())


def video(setting: Setting) -> Trial:
    """Damage video, then fit up to tracking, speak with its audio, or read frames at any position."""
    path, refused = _medium(setting, tuple(VIDEOS))
    how = setting.rng.choice(("fit", "fit", "sound", "pictures", "pictures", "pair"))
    if how == "fit":
        arguments = ["fit", "--video", path, "--home", setting.folder / "home", "--yes",
                     "--preset", "preview", "--encoder", "mel", "--device", "cpu",
                     *quietly(setting.rng)]  # fmt: skip
        return Trial(
            lambda: command(*arguments), (REFUSED,), refused, changes=("home/work/*", "home/*lock*")
        )
    if how == "pair":
        other = setting.place("in/real.mp4", setting.base("clip.mp4"))
        two = setting.rng.choice(([path, other], [other, path]))
        return Trial(lambda: command("evaluate", "--pair", *two), (REFUSED,), refused)
    if how == "sound":
        target = output(setting)
        arguments = speak_arguments(setting, path, target, "--renderer", "warp")
        return Trial(
            lambda: command(*arguments),
            must_fail=refused,
            products=("out/line.mp4",),
            check=lambda: check_video(target),
        )
    start, count = setting.rng.choice((0.0, 0.3, 0.8, 5.0)), setting.rng.choice((1, 5, None))
    return Trial(lambda: _pictures(path, start, count), must_fail=refused)


def _pictures(path: Path, start_s: float, n_frames: int | None) -> None:
    from talkhead import media
    from talkhead.media.probing import frame_times

    media.probe(path)
    with closing(media.read_frames(path, start_s=start_s, n_frames=n_frames)) as frames:
        for _ in frames:
            pass
    media.read_tags(path)
    frame_times(path)


def background(setting: Setting) -> Trial:
    """Damage a picture or a video behind the head."""
    path, refused = _background(setting)
    if setting.rng.random() < 0.6:
        return Trial(lambda: _behind(path), must_fail=refused)
    target, line = output(setting), sound(setting)
    options = ("--mode", "head", "--background", path)
    arguments = speak_arguments(setting, line, target, *options, "--renderer", "warp")
    return Trial(
        lambda: command(*arguments),
        must_fail=refused,
        products=("out/line.mp4",),
        check=lambda: check_video(target),
    )


def _background(setting: Setting) -> tuple[Path, bool]:
    chance = setting.rng.random()
    if setting.plain or chance < 0.55:
        name = setting.rng.choice(PICTURES)
        mutate = raw.mutate_png if name.endswith("png") and chance < 0.3 else raw.mutate
        setting.note(name)
        return setting.place(f"in/{name}", setting.damage(setting.base(name), mutate)), False
    called = setting.rng.choice(PICTURES)
    if chance < 0.65:
        name = setting.rng.choice(OTHER_PICTURES)
        setting.note(f"{name} called {called}")
        return setting.place(f"in/{called}", setting.base(name)), True
    if chance < 0.75:
        return odd_file(setting, setting.rng.choice((called, "clip.mp4", "clip.webm")))
    return _medium(setting, tuple(VIDEOS))


def _behind(path: Path) -> None:
    """Read the first frames behind a head."""
    import numpy as np

    from talkhead.app.composer.backgrounds import backgrounds_of

    own = np.zeros((96, 72, 3), np.uint8)
    pictures = list(backgrounds_of(str(path), own, 12)(2, 8))
    assert all(picture.shape == own.shape for picture in pictures), "pictures of another size"


KINDS = (
    Kind("audio", audio, 1.5),
    Kind("video", video, 1.5),
    Kind("background", background),
)
