"""An identity and a line of sound -> a lip-synced video."""

from __future__ import annotations

import struct
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from talkhead.app.arrays import path_of, sound_path
from talkhead.app.backgrounds import backgrounds_of
from talkhead.app.checks import check_speak
from talkhead.app.choices import MODES, OWN, check_choice
from talkhead.app.identities import Home
from talkhead.app.lines import Line, render_line
from talkhead.app.output import OutputOptions, srt_of, tell_old_subtitles
from talkhead.app.person import hear_line, load_person
from talkhead.app.publishing import publish_all
from talkhead.app.scratch import scratch_folder
from talkhead.app.shots import HeadShot, own_background, pasted_line
from talkhead.device import resolve_device, set_threads
from talkhead.errors import TalkheadError
from talkhead.identity import Manifest
from talkhead.probing import probe
from talkhead.progress import Progress, SilentProgress
from talkhead.storage import make_folder
from talkhead.types import FRAME_RATE, UInt8

if TYPE_CHECKING:
    from talkhead.app.arrays import Sound


@dataclass(frozen=True)
class SpeakResult:
    """The video that was made. picture: its size and frame rate, and where they come from."""

    output_path: Path
    identity: str
    renderer: str
    n_frames: int
    duration_s: float
    picture: str = ""


def speak(
    audio: Sound,
    *,
    identity: str | Path | None = None,
    output: Path | str | None = None,
    mode: str = "paste",
    renderer: str | None = None,
    options: OutputOptions | None = None,
    device: str = "auto",
    home: Path | str | None = None,
    work: Path | None = None,
    progress: Progress | None = None,
) -> SpeakResult:
    """A video of a fitted person saying what is in `audio`: any file with sound, or a waveform [n] or
    [n, channels] with its samples a second, (waveform, 16000).

    identity: a name, a package's folder, or None for the one fitted last. output: by default named
    as the audio, in the current folder. mode: "paste" into the person's own footage, or "head" alone.
    work: a folder to work in, which stays: the same call goes on there where it was interrupted; by
    default one in the home folder, which goes. Raises TalkheadError with what to do about it.
    """
    progress, options = progress or SilentProgress(), options or OutputOptions()
    store = Home.locate(home)
    with ExitStack() as stack:
        # Not beside output: a kill leaves the person's pictures.
        scratch = stack.enter_context(scratch_folder(store)) if isinstance(audio, tuple) else None
        path = sound_path(audio, scratch)
        if output is None and scratch is not None:
            raise TalkheadError("output: a waveform has no name. Say where the video is to go")
        output = check_speak(
            path,
            None if output is None else path_of(output, "output", FRAMES_REMEDY),
            identity=identity,
            mode=mode,
            renderer=renderer,
            options=options,
            device=device,
            home=home,
        )
        set_threads()
        person = load_person(store.load(identity), renderer, resolve_device(device))
        scratch = scratch or stack.enter_context(scratch_folder(store))
        line = Line(path, make_folder(scratch / "finished") / output.name, mode, options=options)
        n_frames, duration_s = render_line(
            person, line, work or scratch / "line", store.path, progress
        )
        if not srt_of(line.output).exists():
            tell_old_subtitles(output, progress)
        picture = _picture(line, person.package.manifest)
        publish_all(line.output.parent, output)
    return SpeakResult(output, person.name, person.renderer_name, n_frames, duration_s, picture)


FRAMES_REMEDY = "speak_frames gives pictures as arrays"


def speak_frames(
    audio: Sound,
    *,
    identity: str | Path | None = None,
    mode: str = "paste",
    renderer: str | None = None,
    device: str = "auto",
    home: Path | str | None = None,
) -> Generator[UInt8, None, None]:
    """The pictures of a person saying what is in `audio`, one after the other as arrays [H, W, 3]
    uint8 RGB, 25 a second; no file is written.

    They bear no mark that they are synthetic: say so where they are shown. The parameters are those of
    `speak`; mode "head" is over the person's own background. Raises TalkheadError at once.
    """
    check_choice("mode", mode, MODES)
    store = Home.locate(home)
    set_threads()
    person = load_person(store.load(identity), renderer, resolve_device(device))
    with scratch_folder(store) as scratch:
        codes = hear_line(sound_path(audio, scratch), person.ears, person.predictor)
    if mode == "paste":
        return pasted_line(person.renderer, person.idle, codes)
    behind = backgrounds_of(OWN, own_background(person.idle), len(codes))
    return HeadShot(person.renderer, person.idle, codes, behind).frames(0, len(codes))


def _picture(line: Line, manifest: Manifest) -> str:
    """Size and frame rate of a finished line, and why they are these."""
    width, height = _size(line.output)
    source = manifest.source
    if line.mode == "head":
        size = f"the head alone, cut out of {source.width}x{source.height}"
    else:
        size = f"as the footage, {source.width}x{source.height}"
    if line.options.height is not None:
        size += f", scaled to the height of {line.options.height}"
    rate = f"{FRAME_RATE} frames a second, as all that is made"
    if round(source.frame_rate, 2) != FRAME_RATE:
        rate += f"; the footage has {source.frame_rate:.4g}"
    return f"{width}x{height} ({size}), {rate}"


def _size(output: Path) -> tuple[int, int]:
    """Width and height of a finished video, or of a folder of PNG images."""
    if not output.is_dir():
        info = probe(output)
        return info.width, info.height
    with next(output.glob("*.png")).open("rb") as image:
        width, height = struct.unpack(">16x2I", image.read(24))  # PNG specification, 11.2.2
    return width, height
