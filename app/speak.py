"""An identity and a line of sound -> a lip-synced video."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from talkhead.app.checks import check_speak
from talkhead.app.identities import Home
from talkhead.app.lines import Line, render_line
from talkhead.app.output import OutputOptions, srt_of, tell_old_subtitles
from talkhead.app.person import load_person
from talkhead.app.publishing import publish_all
from talkhead.app.scratch import scratch_folder
from talkhead.device import resolve_device, set_threads
from talkhead.identity import Manifest
from talkhead.probing import probe
from talkhead.progress import Progress, SilentProgress
from talkhead.storage import make_folder
from talkhead.types import FRAME_RATE


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
    audio: Path | str,
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
    """A video of a fitted person saying what is in `audio`, any file with sound.

    identity: a name, a package's folder, or None for the one fitted last. output: by default named
    as the audio, in the current folder. mode: "paste" into the person's own footage, or "head" alone.
    work: a folder to work in, which stays: the same call goes on there where it was interrupted; by
    default one in the home folder, which goes. Raises TalkheadError with what to do about it.
    """
    audio, progress, options = Path(audio), progress or SilentProgress(), options or OutputOptions()
    output = check_speak(
        audio,
        None if output is None else Path(output),
        identity=identity,
        mode=mode,
        renderer=renderer,
        options=options,
        device=device,
        home=home,
    )
    set_threads()
    store = Home.locate(home)
    person = load_person(store.load(identity), renderer, resolve_device(device))
    with scratch_folder(store) as scratch:  # not beside output: a kill leaves the person's pictures
        products = make_folder(scratch / "finished")
        line = Line(audio, products / output.name, mode, options=options)
        n_frames, duration_s = render_line(
            person, line, work or scratch / "line", store.path, progress
        )
        if not srt_of(line.output).exists():
            tell_old_subtitles(output, progress)
        picture = _picture(line, person.package.manifest)
        publish_all(products, output)
    return SpeakResult(output, person.name, person.renderer_name, n_frames, duration_s, picture)


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
