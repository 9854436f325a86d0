"""Read and write video and audio files: the only package that runs ffmpeg.

`inputs` decides what ffmpeg may open, `process` runs it, `probing` describes files, `reader` and `writer`
convert files to arrays and arrays to files, `mux` combines pictures with audio, `codecs` lists the
formats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from talkhead.lazy import lazy_attributes

__all__ = [
    "Captions",
    "VideoWriter",
    "audio_duration",
    "exact_rate",
    "ffmpeg_path",
    "probe",
    "read_audio",
    "read_audio_chunks",
    "read_frames",
    "read_tags",
    "scaled_size",
    "set_ffmpeg",
    "write_video",
]

if TYPE_CHECKING:
    from talkhead.media.probing import exact_rate, probe, read_tags
    from talkhead.media.process import ffmpeg_path, set_ffmpeg
    from talkhead.media.reader import (
        audio_duration,
        read_audio,
        read_audio_chunks,
        read_frames,
    )
    from talkhead.media.writer import Captions, VideoWriter, scaled_size, write_video
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "talkhead.media.process": ("ffmpeg_path", "set_ffmpeg"),
            "talkhead.media.probing": ("exact_rate", "probe", "read_tags"),
            "talkhead.media.reader": (
                "audio_duration",
                "read_audio",
                "read_audio_chunks",
                "read_frames",
            ),
            "talkhead.media.writer": ("Captions", "VideoWriter", "scaled_size", "write_video"),
        },
    )


def __dir__() -> list[str]:
    """List all names, whether they are imported yet or not."""
    return sorted({*globals(), *__all__})
