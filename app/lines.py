"""A person says a line: the one renderer of lines, short or an hour long, fresh or gone on with.

Pictures are made in segments, each a file in the line's work folder with a checkpoint beside it:

    work/
      line.json               what the line is made of; work on anything else is thrown away
      codes.safetensors       the motion, heard once
      segment-00000.mp4       pictures as encoded
      segment-00000.json      the state after them; it is written last, and makes the segment count
      picture.mp4             all of them, joined without encoding again

The sound is encoded once, at the end.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from talkhead import __version__, media
from talkhead.app.backgrounds import backgrounds_of
from talkhead.app.output import (
    NONE,
    OutputFacts,
    OutputOptions,
    check_options,
    finish_video,
    keeps_alpha,
    signer_of,
    tell_old_subtitles,
)
from talkhead.app.person import Person, hear_line
from talkhead.app.shots import HeadShot, IdleFootage, PastedShot, Shot, own_background
from talkhead.app.subtitles import LineSubtitles, prepare_subtitles
from talkhead.app.timeline import LONGER_S, SourceFootage, source_footage
from talkhead.app.unseen import tell_unseen
from talkhead.app.views import View, beyond_seen
from talkhead.codecs import Codec
from talkhead.errors import PackageError, TalkheadError
from talkhead.identity import MANIFEST_NAME
from talkhead.joining import join_segments
from talkhead.media import Captions, VideoWriter, scaled_size
from talkhead.progress import Progress, Step
from talkhead.storage import (
    file_errors,
    make_folder,
    named_file,
    read_json,
    remove,
    sha256_of,
    write_json,
    write_tensors,
)
from talkhead.types import FRAME_RATE, Float32

SEGMENT_FRAMES = 30 * FRAME_RATE
"""Pictures in a segment: what a kill costs at most, 30 s of the line."""
LINE, CODES = "line.json", "codes.safetensors"
WORK_VERSION = 3
"""Raise it when the same line would be rendered otherwise."""


@dataclass(frozen=True)
class Line:
    """What is to be said and how it is shown. mode: "paste" or "head". output: the finished file.

    source: the footage that the person was fitted on, to keep its timeline; None: the idle clip.
    """

    audio: Path
    output: Path
    mode: str = "paste"
    source: Path | None = None
    options: OutputOptions = field(default_factory=OutputOptions)


def render_line(
    person: Person, line: Line, work: Path, home: Path, progress: Progress
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
    if told := tell_unseen(codes, person.idle):
        progress.message(told)
    shot = _shot(person, line, codec, codes, footage, progress)
    subtitles = _subtitled(line, shot, work, progress)
    segments = Segments(
        work, codec, line.options, None if subtitles is None else subtitles.captions
    )
    picture = segments.joined(segments.render(shot, progress))
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
        tell_old_subtitles(line.output, progress)
    return len(shot), facts.length_s


def _enter(work: Path, person: Person, line: Line) -> None:
    """Have the work folder, and nothing in it of any other line."""
    made_of = _made_of(person, line)
    held = _held(work / LINE)
    if held == made_of:
        return
    if _MARK not in held and work.is_dir() and _names(work):
        raise TalkheadError(f"{work}: holds files of others. Give a new or empty folder to work in")
    make_folder(work)
    old = [entry for entry in work.iterdir() if entry.name != LINE and _OURS.fullmatch(entry.name)]
    if old:  # killed from here on, the folder is still ours, and of no line
        write_json(work / LINE, {_MARK: ""})
    for entry in old:
        remove(entry)
    write_json(work / LINE, made_of)


_MARK = "talkhead"
"""In line.json: says that the folder is one to work in."""
_OURS = re.compile(r"\.?(line|codes|segment-\d{5}|picture|subtitles|captions)\..+")
"""What lies in a work folder; with a dot before it what a kill left of it."""


def _names(folder: Path) -> list[str]:
    """What is in a folder; what begins with a dot a kill may have left."""
    return [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]


def _held(path: Path) -> dict[str, str]:
    """What the folder's file says; nothing where it is another program's, or not there."""
    try:
        held = read_json(path) if path.exists() else {}
    except PackageError:
        return {}
    return held if isinstance(held, dict) else {}


def _made_of(person: Person, line: Line) -> dict[str, str]:
    """Everything that the pictures depend on."""
    options = json.dumps(asdict(line.options), sort_keys=True, default=str)
    for named in (line.options.background, line.options.transcript):
        if (path := named_file(named)) is not None:
            options += sha256_of(path)
    return {
        _MARK: f"{__version__}-{WORK_VERSION}",
        "person": sha256_of(person.package.path / MANIFEST_NAME),
        "renderer": person.renderer_name,
        "audio": sha256_of(line.audio),
        "mode": line.mode,
        "source": "" if line.source is None else sha256_of(line.source),
        "options": hashlib.sha256(options.encode()).hexdigest(),
        "segment": str(SEGMENT_FRAMES),
    }


def _source(person: Person, line: Line, home: Path, progress: Progress) -> SourceFootage | None:
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
    person: Person, audio: Path, n_frames: int | None, work: Path, progress: Progress
) -> Float32:
    """Motion codes [F, K] at 25 a second, kept in the work folder. n_frames: None is the sound's."""
    path = work / CODES
    with progress.step("Listening", total=1) as step:
        if path.exists():
            step.skip("heard before")
        else:
            codes = torch.from_numpy(hear_line(audio, person.ears, person.predictor, n_frames))
            write_tensors(path, {"codes": codes})
            step.advance()
    with file_errors(path), safe_open(path, framework="numpy") as file:
        return np.asarray(file.get_tensor("codes"), np.float32)


def _shot(
    person: Person,
    line: Line,
    codec: Codec,
    codes: Float32,
    footage: SourceFootage | None,
    progress: Progress,
) -> Shot:
    """The line's pictures, none of which is made yet."""
    if footage is not None:
        return PastedShot(person.renderer, footage, footage.codes(codes))
    if line.mode == "paste":
        return PastedShot(person.renderer, IdleFootage(person.idle), codes)
    options, behind = line.options, None
    view = View(options.yaw, options.pitch, options.zoom)
    if not keeps_alpha(options, codec, line.mode):
        behind = backgrounds_of(options.background, own_background(person.idle), len(codes))
    if told := beyond_seen(person.idle, view):
        progress.message(told)
    return HeadShot(person.renderer, person.idle, codes, behind, view)


def _subtitled(line: Line, shot: Shot, work: Path, progress: Progress) -> LineSubtitles | None:
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


@dataclass(frozen=True)
class Segments:
    """The segments of a line's pictures in its work folder."""

    work: Path
    codec: Codec
    options: OutputOptions
    captions: Captions | None = None

    def render(self, shot: Shot, progress: Progress) -> list[Path]:
        """The files of all segments; those whose checkpoint is there are not made again."""
        spans = list(segment_spans(len(shot)))
        done = 0
        while done < len(spans) and self._checkpoint(done).exists():
            done += 1
        if done:
            shot.state = read_json(self._checkpoint(done - 1))["state"]
        n_done = spans[done][0] if done < len(spans) else len(shot)
        with progress.step("Speaking", total=len(shot), done=n_done) as step:
            for number in range(done, len(spans)):
                self._render(shot, number, *spans[number], step)
        return [self._path(number) for number in range(len(spans))]

    def _render(self, shot: Shot, number: int, first: int, after: int, step: Step) -> None:
        with (
            closing(shot.frames(first, after)) as images,
            VideoWriter(
                self._path(number),
                codec=self.codec.name,
                frame_rate=shot.frame_rate,
                height=self.options.height,
                captions=self._captions(first, shot),
            ) as video,
        ):
            for image in images:
                video.write(image)
                step.advance()
        write_json(self._checkpoint(number), {"frames": [first, after], "state": shot.state})

    def _captions(self, first: int, shot: Shot) -> Captions | None:
        if self.captions is None:
            return None
        return replace(self.captions, start_s=float(first / shot.frame_rate))

    def joined(self, paths: list[Path]) -> Path:
        """One file with all pictures."""
        if len(paths) == 1:
            return paths[0]
        joined = self.work / f"picture{self.codec.picture_suffix}"
        join_segments(paths, joined)
        return joined

    def _path(self, number: int) -> Path:
        return self.work / f"segment-{number:05d}{self.codec.picture_suffix}"

    def _checkpoint(self, number: int) -> Path:
        return self.work / f"segment-{number:05d}.json"


def segment_spans(n_frames: int) -> Iterator[tuple[int, int]]:
    """First and after-last frame of each segment."""
    for first in range(0, n_frames, SEGMENT_FRAMES):
        yield first, min(first + SEGMENT_FRAMES, n_frames)
