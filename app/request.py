"""What a line is made of, and the options of its output."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from talkhead.app.choices import ALPHA, background_file
from talkhead.errors import TalkheadError
from talkhead.media.codecs import Codec, choose_codec
from talkhead.storage import (
    existing_file,
)

NONE, BURN, TRACK, SRT = "none", "burn", "track", "srt"


SUBTITLES = (NONE, BURN, TRACK, SRT)


MIN_HEIGHT, MAX_HEIGHT = 16, 8192


MAX_TURN_DEG = 45.0


MIN_ZOOM, MAX_ZOOM = 0.5, 2.0


LOUDNESS_LUFS = (-70.0, -5.0)


SUBTITLE_FILES = (".srt", ".vtt")


TEXT_FILES = (".txt", *SUBTITLE_FILES)
"""How files end that a transcript may name; the former have times."""


@dataclass(frozen=True)
class OutputOptions:
    """What is wanted of a finished file.

    codec: of `codecs.CODECS`; None: what the output's suffix means. height: pixels; None: the
    source's. background: of mode head: None (transparent where the codec can, else the person's
    own), "own", "alpha", a colour, an image or a video. yaw, pitch: of mode head: degrees that the
    head is turned to the picture's right, and up; zoom: factor of its size; all three as far as the
    footage shows it. subtitles: of SUBTITLES; where there are any, an .srt file lies beside the
    output too. transcript: what is said, or a file with it; None: English is recognised. language:
    of the speech, ISO 639-1. overwrite: replace an .srt file beside the output that was not made with
    it. loudness: LUFS; None leaves it alone. provenance: whether a signed
    statement of what the file is goes with it; certificate, key: PEM files to sign with; None:
    talkhead's own, made on this machine.
    """

    codec: str | None = None
    height: int | None = None
    background: str | None = None
    yaw: float = 0.0
    pitch: float = 0.0
    zoom: float = 1.0
    subtitles: str = NONE
    transcript: str | None = None
    language: str = "en"
    overwrite: bool = False
    loudness: float | None = None
    provenance: bool = True
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        """Raises TalkheadError for what can't be wanted."""
        if self.subtitles not in SUBTITLES:
            raise TalkheadError(
                f"there are no subtitles {self.subtitles!r}. Choose one of: {', '.join(SUBTITLES)}"
            )
        if self.height is not None and not MIN_HEIGHT <= self.height <= MAX_HEIGHT:
            raise TalkheadError(
                f"a height of {self.height} pixels is not possible. "
                f"Choose {MIN_HEIGHT} to {MAX_HEIGHT}"
            )
        for name, turn in (("yaw", self.yaw), ("pitch", self.pitch)):
            if not abs(turn) <= MAX_TURN_DEG:
                raise TalkheadError(
                    f"a {name} of {turn:g} degrees is not possible. "
                    f"Choose {-MAX_TURN_DEG:g} to {MAX_TURN_DEG:g}"
                )
        if not MIN_ZOOM <= self.zoom <= MAX_ZOOM:
            raise TalkheadError(
                f"a zoom of {self.zoom:g} is not possible. Choose {MIN_ZOOM:g} to {MAX_ZOOM:g}"
            )
        least, most = LOUDNESS_LUFS
        if self.loudness is not None and not least <= self.loudness <= most:
            raise TalkheadError(
                f"a loudness of {self.loudness:g} LUFS is not possible. Choose {least:g} to "
                f"{most:g}; broadcasts have -23, the web -16 to -14"
            )
        if (self.certificate is None) != (self.key is None):
            raise TalkheadError("certificate and key belong together. Give both, or neither")

    @property
    def moves_the_head(self) -> bool:
        """Whether the head is to be shown otherwise than the footage does."""
        return (self.yaw, self.pitch, self.zoom) != (0.0, 0.0, 1.0)


def check_options(options: OutputOptions, output: Path, mode: str) -> Codec:
    """The codec of an output. Raises TalkheadError where codec, file, mode and options don't fit."""
    codec = choose_codec(options.codec, output)
    if options.background is not None and mode != "head":
        raise TalkheadError(
            f"a background needs --mode head: {mode} keeps the person's own footage"
        )
    if mode != "head" and options.moves_the_head:
        raise TalkheadError(
            f"yaw, pitch and zoom need --mode head: {mode} keeps the head of the person's own footage"
        )
    if options.background is not None and background_file(options.background) is not None:
        from talkhead.app.composer.backgrounds import (
            check_background,  # needs OpenCV, which takes its time
        )

        check_background(options.background)
    if options.background == ALPHA and not codec.alpha:
        raise TalkheadError(
            f"{codec.title} can't keep alpha. Choose prores, vp9 or png, or another background"
        )
    transcript = transcript_file(options.transcript)
    if options.subtitles != NONE and transcript is not None:
        _check_not_written_over(transcript, srt_path(output))
    if codec.is_folder:
        check_folder(output)
    if codec.is_folder and options.subtitles == TRACK:
        raise TalkheadError(f"{codec.title} have no track for subtitles. Choose burn or srt")
    return codec


def _check_not_written_over(transcript: Path, srt: Path) -> None:
    """Raises TalkheadError where the subtitles beside an output would replace the transcript."""
    if srt.exists() and srt.samefile(transcript):
        raise TalkheadError(
            f"{transcript}: the subtitles of this output would be written over it. Rename the "
            "transcript, or choose another output"
        )


def transcript_file(transcript: str | None) -> Path | None:
    """The file that a transcript names; None where it is the text itself, or there is none.

    Raises TalkheadError where it names one that is not there, or is no text that can be written.
    """
    found = existing_file(transcript)
    if found is not None or transcript is None:
        return found
    if any("\ud800" <= c <= "\udfff" for c in transcript):
        raise TalkheadError("the transcript is no text in UTF-8. Give it as such, or in a file")
    if Path(transcript).suffix.lower() in TEXT_FILES and " " not in transcript.strip():
        raise TalkheadError(
            f"{transcript}: there is no such file. Check the path, or give the text"
        )
    return None


def srt_path(output: Path) -> Path:
    """Where the subtitles of an output lie that is a file."""
    return output.with_suffix(".srt")


def keeps_alpha(options: OutputOptions, codec: Codec, mode: str) -> bool:
    """Whether the pictures are transparent where the head is not."""
    return mode == "head" and codec.alpha and options.background in (None, ALPHA)


def check_folder(output: Path) -> None:
    """Raises TalkheadError where a folder holds other files than those that would be replaced."""
    if not output.exists():
        return
    if not output.is_dir():
        raise TalkheadError(f"{output}: is a file. Give the name of a folder for the images")
    foreign = [f.name for f in output.iterdir() if not _OURS.fullmatch(f.name)]
    if foreign:
        raise TalkheadError(
            f"{output}: holds other files ({sorted(foreign)[0]}). Give a new folder for the images"
        )


_OURS = re.compile(r"\d{6,}\.png|sound\.wav|subtitles\.srt")


@dataclass(frozen=True)
class RenderRequest:
    """What is to be said and how it is shown. mode: "paste" or "head". output: the finished file.

    source: the footage that the person was fitted on, to keep its timeline; None: the idle clip.
    """

    audio: Path
    output: Path
    mode: str = "paste"
    source: Path | None = None
    options: OutputOptions = field(default_factory=OutputOptions)
