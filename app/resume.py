"""A person says a line: the one renderer of lines, short or an hour long, fresh or gone on with.

Pictures are made in segments, each a file in the line's work folder with a checkpoint beside it:

    work/
      line.json               what the line is made of; work on anything else is thrown away
      codes.safetensors       the motion, heard once
      codes.json              the checksum of that file
      segment-00000.mp4       pictures as encoded
      segment-00000.json      the state after them and the file's checksum; it is written last, and
                            makes the segment count
      picture.mp4             all of them, joined without encoding again

The sound is encoded once, at the end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from talkhead import __version__
from talkhead.app.avatar import Avatar
from talkhead.app.composer.frames import (
    FrameRenderer,
    State,
)
from talkhead.app.request import OutputOptions, RenderRequest, frame_files
from talkhead.config import read_object
from talkhead.dataset import ALL_FRAMES
from talkhead.errors import MediaError, PackageError, TalkheadError
from talkhead.face import CODES as N_CODES
from talkhead.face import MAX_CODE
from talkhead.identity import MANIFEST_NAME
from talkhead.media import Captions, VideoWriter
from talkhead.media.codecs import Codec
from talkhead.media.mux import join_segments
from talkhead.media.probing import frame_times
from talkhead.progress import Progress, Step
from talkhead.storage import (
    fingerprint_of_text,
    make_folder,
    read_json,
    remove,
    sha256_of,
    write_json,
)
from talkhead.tensors import TensorSpec, read_checked
from talkhead.types import FRAME_RATE, Float32

SEGMENT_FRAMES = 30 * FRAME_RATE
"""Pictures in a segment: what a kill costs at most, 30 s of the line."""
LINE, CODES, HEARD = "line.json", "codes.safetensors", "codes.json"
WORK_VERSION = 3
"""Raise it when the same line would be rendered otherwise."""


def _enter(work: Path, person: Avatar, line: RenderRequest) -> None:
    """Have the work folder, and nothing in it of any other line."""
    made_of = resume_key(person, line)
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
    """What the folder's file says; nothing where it is another program's, or not there.

    One that is damaged, in a folder that holds motion we heard and nothing but ours, is ours of no line.
    """
    try:
        held = read_json(path) if path.exists() else {}
    except PackageError:
        held = None
    if isinstance(held, dict):
        return held
    names = _names(path.parent)
    is_ours = CODES in names and all(_OURS.fullmatch(name) for name in names)
    return {_MARK: ""} if is_ours else {}


def resume_key(person: Avatar, line: RenderRequest) -> dict[str, str]:
    """Everything that the pictures depend on."""
    options = json.dumps(asdict(line.options), sort_keys=True, default=str)
    for path in frame_files(line.options):
        options += sha256_of(path)
    return {
        _MARK: f"{__version__}-{WORK_VERSION}",
        "person": sha256_of(person.package.path / MANIFEST_NAME),
        "renderer": person.renderer_name,
        "audio": sha256_of(line.audio),
        "mode": line.mode,
        "source": "" if line.source is None else sha256_of(line.source),
        "options": fingerprint_of_text(options),
        "segment": str(SEGMENT_FRAMES),
    }


def _kept_codes(path: Path, n_codes: int, n_frames: int | None) -> Float32 | None:
    """Motion codes that were heard before; None where they weren't, or the file is not as it was made."""
    record = _held(path.with_name(HEARD))
    if not path.is_file() or record.get("sha256") != sha256_of(path):
        return None
    sizes = {N_CODES.name: n_codes, **({} if n_frames is None else {ALL_FRAMES.name: n_frames})}
    specs = {"codes": TensorSpec((ALL_FRAMES, N_CODES), least=-MAX_CODE, most=MAX_CODE)}
    try:
        return read_checked(path, specs, "", sizes)["codes"].numpy()
    except PackageError:
        return None


@dataclass(frozen=True)
class Segments:
    """The segments of a line's pictures in its work folder."""

    work: Path
    codec: Codec
    options: OutputOptions
    captions: Captions | None = None

    def render(self, shot: FrameRenderer, progress: Progress) -> list[Path]:
        """The files of all segments; those that are there as their checkpoints say are not made again."""
        spans = list(segment_spans(len(shot)))
        kept = [self._kept(track_index, span) for track_index, span in enumerate(spans)]
        n_kept = sum(after - first for (first, after), one in zip(spans, kept, strict=True) if one)
        with progress.step("Speaking", total=len(shot), done=n_kept) as step:
            state: State = []
            for track_index, (span, one) in enumerate(zip(spans, kept, strict=True)):
                if track_index:
                    shot.state = state
                state = (
                    list(one.state)
                    if one
                    else self._render(shot, track_index, span, len(spans), step)
                )
        return [self._path(track_index) for track_index in range(len(spans))]

    def _kept(self, track_index: int, span: tuple[int, int]) -> _Checkpoint | None:
        """The checkpoint of a segment that an earlier call has made; None where there is none, or the
        file beside it is not the one that was made."""
        checkpoint = _Checkpoint.read(self._checkpoint(track_index))
        path = self._path(track_index)
        if checkpoint is None or checkpoint.frames != span or not path.is_file():
            return None
        return checkpoint if sha256_of(path) == checkpoint.sha256 else None

    def _render(
        self,
        shot: FrameRenderer,
        track_index: int,
        span: tuple[int, int],
        n_segments: int,
        step: Step,
    ) -> State:
        """What the segment leaves behind, once it and its checkpoint are there."""
        path = self._path(track_index)
        with (
            closing(shot.frames(*span)) as images,
            VideoWriter(
                path,
                codec=self.codec.name,
                frame_rate=shot.frame_rate,
                height=self.options.height,
                captions=self._captions(span[0], shot),
            ) as video,
        ):
            for image in images:
                video.write(image)
                step.advance()
        if n_segments > 1:  # one alone is what the finished file is made of, and is looked at there
            _check_length(path, span[1] - span[0])
        made = _Checkpoint(span, tuple(shot.state), sha256_of(path))
        write_json(self._checkpoint(track_index), asdict(made))
        return shot.state

    def _captions(self, first: int, shot: FrameRenderer) -> Captions | None:
        if self.captions is None:
            return None
        return replace(self.captions, start_s=float(first / shot.frame_rate))

    def joined(self, paths: list[Path], n_frames: int) -> Path:
        """One file with all pictures. Raises MediaError where they are not n_frames."""
        if len(paths) == 1:
            return paths[0]
        joined = self.work / f"picture{self.codec.picture_suffix}"
        join_segments(paths, joined)
        _check_length(joined, n_frames)
        return joined

    def _path(self, track_index: int) -> Path:
        return self.work / f"segment-{track_index:05d}{self.codec.picture_suffix}"

    def _checkpoint(self, track_index: int) -> Path:
        return self.work / f"segment-{track_index:05d}.json"


@dataclass(frozen=True)
class _Checkpoint:
    """What is known of a segment that is made: its first and after-last frame, what its pictures leave
    behind, the checksum of its file."""

    frames: tuple[int, int]
    state: tuple[float, ...]
    sha256: str

    @classmethod
    def read(cls, path: Path) -> _Checkpoint | None:
        """The one in a file; None where there is none, or none that this version has written."""
        try:
            return read_object(path, cls, "") if path.exists() else None
        except PackageError:
            return None


def _check_length(path: Path, n_frames: int) -> None:
    """Raises MediaError where a file that was just made hasn't that many pictures."""
    n_found = len(frame_times(path))
    if n_found != n_frames:
        raise MediaError(
            f"{path}: has {n_found} of {n_frames} pictures. Check the disk, and run the same command "
            "again"
        )


def segment_spans(n_frames: int) -> Iterator[tuple[int, int]]:
    """First and after-last frame of each segment."""
    for first in range(0, n_frames, SEGMENT_FRAMES):
        yield first, min(first + SEGMENT_FRAMES, n_frames)
