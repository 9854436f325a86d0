"""Resume: a work folder in which a request is rendered in segments.

    work/
      line.json               what the request consists of; work on another one is discarded
      codes.safetensors       the predicted motion
      codes.json              checksum of that file
      segment-00000.mp4       encoded frames
      segment-00000.json      the state after them and the file's checksum; written last, it makes the
                              segment valid
      driver.safetensors      tracks of the driving video, if there is one
      picture.mp4             all segments, joined without re-encoding

The audio is encoded once, at the end.
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
"""Frames in a segment: an interruption costs at most 30 s of the video."""
REQUEST, CODES, CODES_RECORD = "line.json", "codes.safetensors", "codes.json"
RENDER_VERSION = 4
"""Increase it when the same request would produce different frames."""
_MARK = "talkhead"
"""Key in REQUEST that shows that the folder is a work folder."""
_OWN_FILES = re.compile(
    r"\.?(line|codes|driver|segment-\d{5}|picture|subtitles|captions)\..+|driver"
)
"""Files in a work folder. Those with a leading dot were left by an interrupted write."""


def enter_work_folder(work: Path, avatar: Avatar, request: RenderRequest) -> None:
    """Make the work folder of a request, and discard the work on any other request.

    Args:
        work: Folder to work in.
        avatar: The person.
        request: The request.

    Raises:
        TalkheadError: The folder contains files that do not belong to a request.
    """
    key = resume_key(avatar, request)
    held = _read_record(work / REQUEST)
    if held == key:
        return
    if _MARK not in held and work.is_dir() and _names(work):
        raise TalkheadError(f"{work}: contains other files. Pass a new or empty folder to work in")
    make_folder(work)
    old = [e for e in work.iterdir() if e.name != REQUEST and _OWN_FILES.fullmatch(e.name)]
    if old:  # if killed after this, the folder is still a work folder, but of no request
        write_json(work / REQUEST, {_MARK: ""})
    for entry in old:
        remove(entry)
    write_json(work / REQUEST, key)


def resume_key(avatar: Avatar, request: RenderRequest) -> dict[str, str]:
    """Describe everything that the frames of a request depend on.

    Args:
        avatar: The person.
        request: The request.

    Returns:
        Versions and checksums by name. Work is resumed if they are equal.
    """
    options = json.dumps(asdict(request.options), sort_keys=True, default=str)
    for path in frame_files(request.options):
        options += sha256_of(path)
    return {
        _MARK: f"{__version__}-{RENDER_VERSION}",
        "person": sha256_of(avatar.package.path / MANIFEST_NAME),
        "renderer": avatar.renderer_name,
        "audio": sha256_of(request.audio),
        "mode": request.mode,
        "source": "" if request.source is None else sha256_of(request.source),
        "options": fingerprint_of_text(options),
        "segment": str(SEGMENT_FRAMES),
    }


def _names(folder: Path) -> list[str]:
    """List the names in a folder, except those with a leading dot, left by killed processes."""
    return [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]


def _read_record(path: Path) -> dict[str, str]:
    """Read the record of a work folder; empty if there is none, or another program wrote it.

    If the record is damaged, and the folder contains predicted motion and no files of other
    programs, it is read as a record that matches no request.
    """
    try:
        held = read_json(path) if path.exists() else {}
    except PackageError:
        held = None
    if isinstance(held, dict):
        return held
    names = _names(path.parent)
    is_own = CODES in names and all(_OWN_FILES.fullmatch(name) for name in names)
    return {_MARK: ""} if is_own else {}


def read_kept_codes(path: Path, n_codes: int, n_frames: int | None) -> Float32 | None:
    """Read the motion codes that an interrupted call has predicted.

    Args:
        path: File with the codes.
        n_codes: Components K of a motion code.
        n_frames: Number of frames F. None: any.

    Returns:
        Motion codes [F, K]; None if there are none, or the file has changed since it was written.
    """
    record = _read_record(path.with_name(CODES_RECORD))
    if not path.is_file() or record.get("sha256") != sha256_of(path):
        return None
    sizes = {N_CODES.name: n_codes, **({} if n_frames is None else {ALL_FRAMES.name: n_frames})}
    specs = {"codes": TensorSpec((ALL_FRAMES, N_CODES), minimum=-MAX_CODE, maximum=MAX_CODE)}
    try:
        return read_checked(path, specs, "", sizes)["codes"].numpy()
    except PackageError:
        return None


@dataclass(frozen=True)
class Segments:
    """The encoded segments in a work folder.

    Attributes:
        work: Work folder.
        codec: Codec of the segments.
        options: Options of the output.
        captions: Subtitles to burn in, if any.
    """

    work: Path
    codec: Codec
    options: OutputOptions
    captions: Captions | None = None

    def render(self, frames: FrameRenderer, progress: Progress) -> list[Path]:
        """Render and encode all segments, except those that exist already.

        Args:
            frames: Renders the frames.
            progress: Receives the number of finished frames.

        Returns:
            The files of the segments in order.

        Raises:
            MediaError: A segment cannot be written.
        """
        spans = list(segment_spans(len(frames)))
        kept = [self._kept(number, span) for number, span in enumerate(spans)]
        n_kept = sum(after - first for (first, after), one in zip(spans, kept, strict=True) if one)
        with progress.step("Rendering", total=len(frames), done=n_kept) as step:
            state: State = []
            for number, (span, one) in enumerate(zip(spans, kept, strict=True)):
                if number:
                    frames.state = state
                if one:
                    state = list(one.state)
                else:
                    state = self._render(frames, number, span, step)
                    if len(spans) > 1:  # a single segment is checked as the finished file
                        _check_length(self._path(number), span[1] - span[0])
                    self._write_checkpoint(number, span, state)
        return [self._path(number) for number in range(len(spans))]

    def _kept(self, number: int, span: tuple[int, int]) -> _Checkpoint | None:
        """Read the checkpoint of a segment; None if there is none, or the file has changed."""
        checkpoint = _Checkpoint.read(self._checkpoint_path(number))
        path = self._path(number)
        if checkpoint is None or checkpoint.frames != span or not path.is_file():
            return None
        return checkpoint if sha256_of(path) == checkpoint.sha256 else None

    def _render(
        self, frames: FrameRenderer, number: int, span: tuple[int, int], step: Step
    ) -> State:
        """Render and encode a segment; return the state after its last frame."""
        with (
            closing(frames.frames(*span)) as images,
            VideoWriter(
                self._path(number),
                codec=self.codec.name,
                frame_rate=frames.frame_rate,
                height=self.options.height,
                captions=self._captions(span[0], frames),
            ) as video,
        ):
            for image in images:
                video.write(image)
                step.advance()
        return frames.state

    def _write_checkpoint(self, number: int, span: tuple[int, int], state: State) -> None:
        made = _Checkpoint(span, tuple(state), sha256_of(self._path(number)))
        write_json(self._checkpoint_path(number), asdict(made))

    def _captions(self, first: int, frames: FrameRenderer) -> Captions | None:
        if self.captions is None:
            return None
        return replace(self.captions, start_s=float(first / frames.frame_rate))

    def joined(self, paths: list[Path], n_frames: int) -> Path:
        """Join segments.

        Args:
            paths: Files of the segments.
            n_frames: Number of frames of all segments.

        Returns:
            One file with all frames.

        Raises:
            MediaError: The file has a different number of frames.
        """
        if len(paths) == 1:
            return paths[0]
        joined = self.work / f"picture{self.codec.picture_suffix}"
        join_segments(paths, joined)
        _check_length(joined, n_frames)
        return joined

    def _path(self, number: int) -> Path:
        return self.work / f"segment-{number:05d}{self.codec.picture_suffix}"

    def _checkpoint_path(self, number: int) -> Path:
        return self.work / f"segment-{number:05d}.json"


@dataclass(frozen=True)
class _Checkpoint:
    """Record of a finished segment.

    Attributes:
        frames: First frame, and the frame after the last one.
        state: State after the last frame.
        sha256: Checksum of the file.
    """

    frames: tuple[int, int]
    state: tuple[float, ...]
    sha256: str

    @classmethod
    def read(cls, path: Path) -> _Checkpoint | None:
        """Read a checkpoint; None if there is none, or another version wrote it."""
        try:
            return read_object(path, cls, "") if path.exists() else None
        except PackageError:
            return None


def _check_length(path: Path, n_frames: int) -> None:
    """Raise MediaError if a file that was just written has a different number of frames."""
    n_found = len(frame_times(path))
    if n_found != n_frames:
        raise MediaError(
            f"{path}: has {n_found} of {n_frames} frames. Check the disk, and run the same command "
            "again"
        )


def segment_spans(n_frames: int) -> Iterator[tuple[int, int]]:
    """Divide frames into segments.

    Args:
        n_frames: Number of frames.

    Yields:
        First frame of each segment, and the frame after its last one.
    """
    for first in range(0, n_frames, SEGMENT_FRAMES):
        yield first, min(first + SEGMENT_FRAMES, n_frames)
