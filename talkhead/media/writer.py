"""Encode frames as a video, written atomically."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from talkhead.errors import MediaError
from talkhead.media.codecs import Codec, choose_codec
from talkhead.media.inputs import fed_input, file_url
from talkhead.media.mux import (
    container_of,
    container_options,
    mux,
    sound_source,
    tag_options,
    write_failure,
)
from talkhead.media.probing import exact_rate
from talkhead.media.process import Feeder, PathLike, Process
from talkhead.storage import atomic_path
from talkhead.types import FRAME_RATE, UInt8

SCALER_FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"


@dataclass(frozen=True)
class Captions:
    """Subtitles to be drawn into the pictures.

    Attributes:
        path: An .ass file, in seconds of the whole video.
        fonts_dir: Folder of its font.
        start_s: The moment of the whole video at which the written file begins.
    """

    path: Path
    fonts_dir: Path
    start_s: float = 0.0


class VideoWriter:
    """Writes a video frame by frame; the file appears only when it is complete.

        with VideoWriter("line.mp4", audio_path="line.wav", tags={"comment": "synthetic"}) as video:
            for frame in frames:
                video.write(frame)

    The number of frames determines the length: the audio begins at 0, is padded with silence or cut, and
    keeps its channels and its rate (or the next one that the codec supports). Colors are tagged BT.709,
    limited range. If the width or height is odd, the last column or row is repeated, since 4:2:0 needs
    even sizes.

    Everything is written to a hidden file in the same folder (`storage.atomic_path`) and renamed at the
    end; leaving the block by an exception of any kind removes it. ffmpeg encodes in its own process, fed
    from a thread, so that `write` waits only while 8 frames are queued.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        codec: str | None = None,
        audio_path: PathLike | None = None,
        frame_rate: float | Fraction = FRAME_RATE,
        height: int | None = None,
        captions: Captions | None = None,
        tags: Mapping[str, str] | None = None,
        **encoding: Any,
    ) -> None:
        """Check the options; ffmpeg is started with the first frame.

        Args:
            path: The video.
            codec: A name of `codecs.CODECS`; None for that of the suffix (mp4 H.264, mov ProRes, webm
                VP9; PNG images are packed into a .mov).
            audio_path: Any file with audio; None for pictures only.
            frame_rate: Frames per second.
            height: Height to scale to; the aspect ratio is kept, and sizes are rounded to even numbers.
            captions: Subtitles to draw into the pictures, after scaling.
            tags: Metadata that mp4 supports: comment, title, artist, description, copyright and so on.
            **encoding: Fields of `Encoding`, instead of the codec's own settings (250 frames between
                key frames by default).

        Raises:
            TalkheadError: The folder is missing or not writable.
            MediaError: Codec and suffix do not fit, or the audio cannot be read.
            ValueError: A tag is unknown.
        """
        self.path = Path(path)
        self.n_frames = 0
        self._container = container_of(self.path)
        self._codec = _picture_codec(codec, self.path)
        self._rate = exact_rate(frame_rate)
        self._height, self._captions = height, captions
        self._tags = dict(tags or {})
        tag_options(self._tags)
        self._sound = None if audio_path is None else sound_source(Path(audio_path))
        self._encoding = Encoding(**encoding)
        self._shape: tuple[int, ...] | None = None
        self._process: Process | None = None
        self._feeder: Feeder | None = None
        self._block = self._opened()

    def __enter__(self) -> VideoWriter:
        self._block.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._block.__exit__(kind, error, trace)

    @contextmanager
    def _opened(self) -> Iterator[None]:
        """Accept pictures inside the block, and make the file after it."""
        with atomic_path(self.path) as self._part:
            try:
                yield
                self._finish()
            finally:
                self._stop()

    def write(self, frame: UInt8) -> None:
        """Queue one picture.

        Args:
            frame: [H, W, 3 or 4] uint8, RGB or RGBA, not premultiplied; it is copied and may be reused at
                once.

        Raises:
            MediaError: ffmpeg has failed, as on a full disk.
            ValueError: The frame has the wrong type or size.
        """
        channels = (3, 4) if self._codec.alpha else (3,)
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] not in channels:
            wanted = " or ".join(map(str, channels))
            raise ValueError(
                f"frames must be uint8 [H, W, {wanted}], not {frame.dtype} {frame.shape}"
            )
        if self._shape is None:
            self._start(frame.shape)
        if frame.shape != self._shape:
            raise ValueError(f"frame {self.n_frames} is {frame.shape}, those before {self._shape}")
        assert self._feeder is not None
        if not self._feeder.put(self._padded(frame)):
            raise self._failure()
        self.n_frames += 1

    def _padded(self, frame: UInt8) -> bytes:
        """Return the bytes of a frame [H, W, C], padded to even sizes where needed."""
        rows, columns = self._odd(frame.shape)
        if rows or columns:
            frame = np.pad(frame, ((0, rows), (0, columns), (0, 0)), mode="edge")
        return frame.tobytes()

    def _odd(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return how many rows and columns must be added to make the size even, if the codec needs it."""
        halves = "420" in self._pixel_format(shape[2]) and self._height is None
        return (shape[0] % 2, shape[1] % 2) if halves else (0, 0)

    def _pixel_format(self, channels: int) -> str:
        alpha = channels == 4
        own = self._codec.alpha_format if alpha else self._codec.pixel_format
        return self._encoding.pixel_format or own

    def _start(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        rows, columns = self._odd(shape)
        size, colors = (shape[1] + columns, shape[0] + rows), "rgba" if shape[2] == 4 else "rgb24"
        picture = self._filtered(fed_input(size, self._rate, colors), shape)
        options = dict(self._codec.options) | self._encoding.options(self._codec)
        options |= {"pix_fmt": self._pixel_format(shape[2])}
        if not options["pix_fmt"].startswith("rgb"):
            options |= {"colorspace": "bt709", "color_range": "tv"}
        options |= {"color_primaries": "bt709", "color_trc": "bt709"}
        if self._sound is None:
            options |= container_options(self._container) | tag_options(self._tags)
        graph = picture.output(file_url(self._part), f=self._container, **options)
        self._process = Process(graph, fed=True)
        self._feeder = Feeder(self._process.stdin)

    def _filtered(self, picture: Any, shape: tuple[int, ...]) -> Any:
        """Scale and draw captions, both in RGB; then convert to the colors of the output."""
        if self._height is not None:
            width, height = scaled_size(shape[1], shape[0], self._height)
            picture = picture.filter("scale", w=width, h=height, flags=SCALER_FLAGS)
        if self._captions is not None:
            picture = _captioned(picture, self._captions, with_alpha=shape[2] == 4)
        if self._pixel_format(shape[2]).startswith("rgb"):
            return picture
        return picture.filter("scale", out_color_matrix="bt709", out_range="tv", flags=SCALER_FLAGS)

    def _finish(self) -> None:
        if self._process is None or self._feeder is None:
            raise MediaError(f"{self.path}: there was no frame to write. Pass one or more.")
        if not self._feeder.finish() or self._process.wait():
            raise self._failure()
        if self._sound is not None:
            # One run cannot do this: ffmpeg's -shortest overshoots by up to ten seconds.
            length_s = float(self.n_frames / self._rate)
            with atomic_path(self._part) as whole:
                mux(self._part, whole, self._codec, length_s, sound=self._sound, tags=self._tags)

    def _failure(self) -> MediaError:
        assert self._process is not None
        return write_failure(self.path, self._process)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.stop()
        if self._feeder is not None:
            self._feeder.abandon()


@dataclass(frozen=True)
class Encoding:
    """Replacements for a codec's own settings; None keeps them.

    Attributes:
        crf: Constant rate factor; lower is better and larger.
        preset: Speed preset of the codec.
        keyframe_every: Frames between key frames.
        pixel_format: ffmpeg's name of the format.
    """

    crf: float | None = None
    preset: str | None = None
    keyframe_every: int | None = None
    pixel_format: str | None = None

    def options(self, codec: Codec) -> dict[str, Any]:
        """Return the options of ffmpeg.

        Args:
            codec: The codec.

        Returns:
            Options by name.

        Raises:
            ValueError: The codec has no such setting.
        """
        if self.crf is not None and "crf" not in codec.options:
            raise ValueError(f"{codec.title} has no crf")
        if self.preset is not None and "preset" not in codec.options:
            raise ValueError(f"{codec.title} has no presets")
        chosen = {"crf": self.crf, "preset": self.preset, "g": self.keyframe_every}
        return {name: value for name, value in chosen.items() if value is not None}


def write_video(
    path: PathLike,
    frames: Iterable[UInt8],
    *,
    audio_path: PathLike | None = None,
    tags: Mapping[str, str] | None = None,
    **encoding: Any,
) -> int:
    """Write a video of an iterable of frames, see `VideoWriter`.

    Args:
        path: The video.
        frames: [H, W, 3 or 4] uint8 each.
        audio_path: A file with the audio.
        tags: Metadata.
        **encoding: Further arguments of VideoWriter.

    Returns:
        The number of frames.

    Raises:
        TalkheadError: The folder is missing or not writable.
        MediaError: As for `VideoWriter`.
        ValueError: As for `VideoWriter`.
    """
    with VideoWriter(path, audio_path=audio_path, tags=tags, **encoding) as writer:
        for frame in frames:
            writer.write(frame)
    return writer.n_frames


def scaled_size(width: int, height: int, wanted_height: int) -> tuple[int, int]:
    """Return the size of pictures scaled to about a wanted height, keeping the aspect.

    Args:
        width: Pixels.
        height: Pixels.
        wanted_height: Pixels.

    Returns:
        Width and height, both even.
    """
    scaled = max(2, round(wanted_height / 2) * 2)
    return max(2, round(width * scaled / height / 2) * 2), scaled


def _picture_codec(name: str | None, path: Path) -> Codec:
    """Return the codec of picture files. Raises MediaError if it does not fit the path."""
    codec = choose_codec(name) if name is not None else None
    if codec is not None and path.suffix.lower() == codec.picture_suffix:
        return codec
    return choose_codec(name, path)


def _captioned(picture: Any, captions: Captions, *, with_alpha: bool) -> Any:
    """Draw subtitles of the whole video, of which the pictures are a part."""
    start_s = captions.start_s
    if start_s:
        picture = picture.filter("setpts", f"PTS+{start_s:.6f}/TB")
    settings: dict[str, Any] = {"fontsdir": os.path.abspath(captions.fonts_dir)}
    if with_alpha:
        settings["alpha"] = 1
    picture = picture.filter("ass", filename=os.path.abspath(captions.path), **settings)
    return picture.filter("setpts", f"PTS-{start_s:.6f}/TB") if start_s else picture
