"""An identity and a line of sound -> a lip-synced video."""

from __future__ import annotations

import struct
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from talkhead import media
from talkhead.app.arrays import path_of, sound_path
from talkhead.app.avatar import Avatar, load_avatar, predict_motion
from talkhead.app.checks import check_speak
from talkhead.app.choices import MODES, OWN, check_choice
from talkhead.app.composer.backgrounds import backgrounds_of
from talkhead.app.composer.coverage import coverage_warning
from talkhead.app.composer.frames import (
    FrameRenderer,
    HeadFrameRenderer,
    IdleFootage,
    PasteFrameRenderer,
    own_background,
    pasted_line,
)
from talkhead.app.composer.head_view import View, out_of_range_message
from talkhead.app.composer.source_clip import LONGER_S, SourceFootage, source_footage
from talkhead.app.home.identities import Home
from talkhead.app.home.scratch import scratch_folder
from talkhead.app.output.finalize import OutputFacts, finish_video, signer_of, warn_old_subtitles
from talkhead.app.output.publish import publish_all
from talkhead.app.output.subtitles import LineSubtitles, prepare_subtitles
from talkhead.app.request import (
    NONE,
    OutputOptions,
    RenderRequest,
    check_options,
    keeps_alpha,
    srt_path,
)
from talkhead.app.resume import CODES, HEARD, Segments, _enter, _kept_codes
from talkhead.device import resolve_device, set_threads
from talkhead.errors import TalkheadError
from talkhead.identity import Manifest
from talkhead.media import probe, scaled_size
from talkhead.media.codecs import Codec
from talkhead.progress import Progress, SilentProgress
from talkhead.storage import (
    make_folder,
    sha256_of,
    write_json,
    write_tensors,
)
from talkhead.types import FRAME_RATE, Float32, UInt8

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
        person = load_avatar(store.load(identity), renderer, resolve_device(device))
        scratch = scratch or stack.enter_context(scratch_folder(store))
        line = RenderRequest(
            path, make_folder(scratch / "finished") / output.name, mode, options=options
        )
        n_frames, duration_s = render_video(
            person, line, work or scratch / "line", store.path, progress
        )
        if not srt_path(line.output).exists():
            warn_old_subtitles(output, progress)
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
    person = load_avatar(store.load(identity), renderer, resolve_device(device))
    with scratch_folder(store) as scratch:
        codes = predict_motion(sound_path(audio, scratch), person.ears, person.predictor)
    if mode == "paste":
        return pasted_line(person.renderer, person.idle, codes)
    behind = backgrounds_of(OWN, own_background(person.idle), len(codes))
    return HeadFrameRenderer(person.renderer, person.idle, codes, behind).frames(0, len(codes))


def _picture(line: RenderRequest, manifest: Manifest) -> str:
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


def render_video(
    person: Avatar, line: RenderRequest, work: Path, home: Path, progress: Progress
) -> tuple[int, float]:
    """Make line.output; the number of its frames and its seconds.

    work: the line's own folder, which may hold what an interrupted call has made of it; it stays.
    home: where the signing key lies. Raises TalkheadError.
    """
    codec = check_options(line.options, line.output, line.mode)
    if line.options.provenance:
        signer_of(line.options, home)  # what is missing shows before the work, not after it
    _enter(work, person, line)
    footage = _source(person, line, home, progress)
    n_heard = None if footage is None else ceil(len(footage) * FRAME_RATE / footage.frame_rate)
    codes = _heard(person, line.audio, n_heard, work, progress)
    if told := coverage_warning(codes, person.idle):
        progress.message(told)
    shot = _shot(person, line, codec, codes, footage, progress)
    subtitles = _subtitled(line, shot, work, progress)
    segments = Segments(
        work, codec, line.options, None if subtitles is None else subtitles.captions
    )
    picture = segments.joined(segments.render(shot, progress), len(shot))
    facts = OutputFacts(
        person.name,
        line.mode,
        len(shot),
        shot.frame_rate,
        person.package.manifest.consent,
        home,
    )
    srt = None if subtitles is None else subtitles.srt
    finish_video(picture, line.audio, line.output, line.options, facts, srt)
    if subtitles is None:
        warn_old_subtitles(line.output, progress)
    return len(shot), facts.length_s


def _source(
    person: Avatar, line: RenderRequest, home: Path, progress: Progress
) -> SourceFootage | None:
    """The footage whose timeline the line keeps."""
    if line.source is None:
        return None
    footage = source_footage(person.package, line.source, home, progress)
    length_s = float(len(footage) / footage.frame_rate)
    sound_s = media.probe(line.audio).duration_s
    if sound_s > length_s + LONGER_S:
        raise TalkheadError(
            f"{line.audio}: lasts {sound_s:.2f} s, the video whose timeline is kept {length_s:.2f} s. "
            "Shorten the sound, or leave out the timeline"
        )
    return footage


def _heard(
    person: Avatar, audio: Path, n_frames: int | None, work: Path, progress: Progress
) -> Float32:
    """Motion codes [F, K] at 25 a second, kept in the work folder. n_frames: None is the sound's."""
    path = work / CODES
    with progress.step("Listening", total=1) as step:
        kept = _kept_codes(path, person.idle.face.n_codes, n_frames)
        if kept is not None:
            step.skip("heard before")
            return kept
        codes = predict_motion(audio, person.ears, person.predictor, n_frames).astype(np.float32)
        write_tensors(path, {"codes": torch.from_numpy(codes)})
        write_json(work / HEARD, {"sha256": sha256_of(path)})
        step.advance()
    return codes


def _shot(
    person: Avatar,
    line: RenderRequest,
    codec: Codec,
    codes: Float32,
    footage: SourceFootage | None,
    progress: Progress,
) -> FrameRenderer:
    """The line's pictures, none of which is made yet."""
    if footage is not None:
        return PasteFrameRenderer(person.renderer, footage, footage.codes(codes))
    if line.mode == "paste":
        return PasteFrameRenderer(person.renderer, IdleFootage(person.idle), codes)
    options, behind = line.options, None
    view = View(options.yaw, options.pitch, options.zoom)
    if not keeps_alpha(options, codec, line.mode):
        behind = backgrounds_of(options.background, own_background(person.idle), len(codes))
    if told := out_of_range_message(person.idle, view):
        progress.message(told)
    return HeadFrameRenderer(person.renderer, person.idle, codes, behind, view)


def _subtitled(
    line: RenderRequest, shot: FrameRenderer, work: Path, progress: Progress
) -> LineSubtitles | None:
    """The line's subtitles, if any are wanted."""
    if line.options.subtitles == NONE:
        return None
    width, height = shot.size
    if line.options.height is not None:
        width, height = scaled_size(width, height, line.options.height)
    with progress.step("Subtitling", total=1) as step:
        length_s = float(len(shot) / shot.frame_rate)
        made = prepare_subtitles(line.audio, line.options, work, (width, height), length_s)
        step.advance()
    if made is not None and made.note:
        progress.message(made.note)
    return made
