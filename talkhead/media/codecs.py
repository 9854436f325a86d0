"""Codecs of finished videos: which one fits which file, and its settings.

Segments of the same codec and size can be joined by stream copy: each group of pictures is closed,
and the settings that are stored in the stream's header are fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talkhead.errors import MediaError

DEFAULT = "h264"


@dataclass(frozen=True)
class Codec:
    """One way to encode pictures.

    Attributes:
        name: Its name in options.
        title: Its name in messages.
        suffixes: Suffixes of its files, the usual one first; "" is a folder of images.
        picture_suffix: Suffix of its picture-only files (`VideoWriter`), from which the output is made.
        pixel_format: Pixel format of opaque pictures.
        options: Settings of ffmpeg.
        sound: Settings of ffmpeg for its audio track.
        alpha_format: Pixel format of pictures with alpha; "" if it has none.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    picture_suffix: str
    pixel_format: str
    options: Mapping[str, Any]
    sound: Mapping[str, Any]
    alpha_format: str = ""

    @property
    def alpha(self) -> bool:
        """True if it can keep transparency."""
        return bool(self.alpha_format)

    @property
    def is_folder(self) -> bool:
        """True if its output is a folder of images, not a file."""
        return self.suffixes == ("",)


_AAC = {"c:a": "aac", "b:a": "192k"}
_PCM = {"c:a": "pcm_s24le"}
_OPUS = {"c:a": "libopus", "b:a": "128k"}

CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        Codec(
            "h264", "H.264", (".mp4", ".mov", ".m4v"), ".mp4", "yuv420p",
            {
                "c:v": "libx264", "crf": 18, "preset": "veryfast",
                # Otherwise x264 occasionally writes different bytes for the same pictures.
                "x264-params": "sync-lookahead=0",
            },
            sound=_AAC,
        ),
        Codec(
            "hevc", "HEVC", (".mp4", ".mov", ".m4v"), ".mp4", "yuv420p",
            {
                "c:v": "libx265", "crf": 20, "preset": "veryfast",
                "x265-params": "open-gop=0:log-level=error",
                "tag:v": "hvc1",  # required by Apple's players
            },
            sound=_AAC,
        ),
        Codec(
            "av1", "AV1", (".mp4",), ".mp4", "yuv420p",
            {
                "c:v": "libaom-av1", "crf": 26, "b:v": 0, "cpu-used": 8, "usage": "realtime",
                "row-mt": 1, "lag-in-frames": 0, "g": 250,
            },
            sound=_AAC,
        ),
        Codec(
            "prores", "ProRes 4444", (".mov",), ".mov", "yuv444p10le",
            {"c:v": "prores_ks", "profile:v": "4444", "vendor": "apl0"},
            alpha_format="yuva444p10le", sound=_PCM,
        ),
        Codec(
            "vp9", "VP9", (".webm",), ".webm", "yuv420p",
            {
                "c:v": "libvpx-vp9", "crf": 24, "b:v": 0, "deadline": "good", "cpu-used": 5,
                "row-mt": 1, "g": 250,
                "auto-alt-ref": 0,  # otherwise it cannot encode alpha
            },
            alpha_format="yuva420p", sound=_OPUS,
        ),
        Codec(
            "png", "PNG images", ("",), ".mov", "rgb24",
            {"c:v": "png", "compression_level": 4, "pred": "mixed"},
            alpha_format="rgba", sound=_PCM,
        ),
    )
}  # fmt: skip
"""All codecs by name."""

SUFFIX_CODECS = {".mp4": "h264", ".m4v": "h264", ".mov": "prores", ".webm": "vp9"}
"""The codec of each suffix, if no codec is named."""


def list_codecs() -> str:
    """Return one sentence that lists the codecs with their file extensions, for help texts."""
    files = {
        name: "a folder of images" if codec.is_folder else codec.suffixes[0]
        for name, codec in CODECS.items()
    }
    alpha = [name for name, codec in CODECS.items() if codec.alpha]
    return (
        f"{_list(f'{name} ({file})' for name, file in files.items())}. "
        f"Alpha in mode head: {_list(alpha)}."
    )


def choose_codec(name: str | None, output: Path | None = None) -> Codec:
    """Return the codec with a name, otherwise that of the output's suffix, otherwise H.264.

    Args:
        name: Name of a codec, None to choose by suffix.
        output: The finished video; None if unknown, or for picture files of any name.

    Returns:
        The codec.

    Raises:
        MediaError: The name or suffix is unknown, or the codec does not fit the file.
    """
    if name is not None and name not in CODECS:
        raise MediaError(f"there is no codec {name!r}. Choose one of: {', '.join(CODECS)}")
    if output is None:
        return CODECS[name or DEFAULT]
    suffix = output.suffix.lower()
    if name is None and suffix not in SUFFIX_CODECS:
        raise MediaError(
            f"{output}: unsupported file extension. End the name with {_list(SUFFIX_CODECS)}, "
            "or name a codec: png writes a folder of images"
        )
    codec = CODECS[name or SUFFIX_CODECS[suffix]]
    if codec.is_folder and suffix in SUFFIX_CODECS:
        raise MediaError(
            f"{output}: {codec.title} go into a folder. Pass the name of one, without {suffix}"
        )
    if not codec.is_folder and suffix not in codec.suffixes:
        raise MediaError(
            f"{output}: {codec.title} doesn't go into such a file. "
            f"End the name with {_list(codec.suffixes)}, or choose another codec"
        )
    return codec


def default_name(stem: str, codec: Codec) -> Path:
    """Return the default name of an output.

    Args:
        stem: Name without suffix.
        codec: The codec.

    Returns:
        The name, such as stem.mp4, or stem-frames for a folder of images.
    """
    return Path(f"{stem}-frames" if codec.is_folder else f"{stem}{codec.suffixes[0]}")


def _list(names: Any) -> str:
    """Join names as "a", "a or b", or "a, b or c"."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else str(last)
