"""Requests: what `speak` and `dub` render, and the checks that need no model.

Each option of an output is declared once, as a field of `OutputOptions` with `option()`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from talkhead.app.choices import (
    ALPHA,
    FOOTAGE_ENDS,
    IDLE,
    REFUSE,
    SOURCE,
    TIMELINES,
    check_choice,
    parse_rate,
)
from talkhead.app.composer.expression_track import check_track, track_file
from talkhead.app.options import (
    PICTURE_PANEL,
    FaceOptions,
    Option,
    PictureOptions,
    check_keywords,
    option,
    read_declarations,
)
from talkhead.errors import TalkheadError
from talkhead.media.codecs import Codec, choose_codec, list_codecs
from talkhead.storage import existing_file
from talkhead.types import FRAME_RATE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Audio = Path | str | tuple[npt.NDArray[np.generic], int]
    """A file with audio, or a waveform [n] or [n, channels], int16 or floats in [-1, 1], with its sample
    rate in Hz."""

MIN_RATE, MAX_RATE = 4_000, 384_000
"""Sample rates of a waveform, Hz."""
NONE, BURN, TRACK, SRT = "none", "burn", "track", "srt"
SUBTITLES = (NONE, BURN, TRACK, SRT)
LOUDNESS_LUFS = (-70.0, -5.0)
SUBTITLE_FILES = (".srt", ".vtt")
TEXT_FILES = (".txt", *SUBTITLE_FILES)
"""Suffixes of the files that a transcript may name. Those of SUBTITLE_FILES contain times."""
SUBTITLES_PANEL, SOUND_PANEL, PROVENANCE_PANEL = "Subtitles", "Sound", "Provenance"
"""Panels of `talkhead speak --help`."""


def declared_options() -> Mapping[str, Option]:
    """List the options of an output.

    Returns:
        The options by name, in the order of the fields of `OutputOptions`.
    """
    return read_declarations(OutputOptions)


def named_files(values: Mapping[str, Any]) -> list[Path]:
    """List the existing files that options name.

    Args:
        values: Values of options by name; those that are not given are left out or None.

    Returns:
        Paths, in the order of declaration.
    """
    names = [name for name, one in declared_options().items() if one.names_file]
    found = (existing_file(values.get(name)) for name in names)
    return [path for path in found if path is not None]


def secret_files(values: Mapping[str, Any]) -> list[Path]:
    """List the files named by options that must not leave the machine, whether they exist or not.

    Args:
        values: Values of options by name.

    Returns:
        Paths, in the order of declaration.
    """
    names = [name for name, one in declared_options().items() if one.secret]
    return [Path(values[name]) for name in names if values.get(name) is not None]


def frame_files(options: OutputOptions) -> list[Path]:
    """List the existing files named by options whose content the frames depend on.

    Args:
        options: Options of an output.

    Returns:
        Paths, in the order of declaration.
    """
    chosen = (one for one in declared_options().values() if one.names_file and one.in_frames)
    found = (existing_file(getattr(options, one.name)) for one in chosen)
    return [path for path in found if path is not None]


@dataclass(frozen=True)
class OutputOptions(FaceOptions, PictureOptions):
    """Options of a finished file.

    Attributes:
        codec: Name of a codec of `talkhead.media.codecs.CODECS`. None: chosen by the output's
            suffix.
        timeline: "idle" plays the idle clip; "source" re-lips footage of the person frame by frame, in
            mode "paste".
        footage_end: What happens if the audio is longer than footage with the timeline "source": "refuse"
            raises an error, "bounce" plays the footage on, backward and forward, "stop" cuts the audio.
        fps: Frames per second in mode "head": a number, 10 to 120, or "source" for that of the footage.
            None: 25. In mode "paste" the footage determines it.
        height: Height in pixels, 16 to 8192. None: the source's.
        background: "own", "alpha", a color, an image or a video. None: in mode "head" transparent
            where the codec supports it, otherwise, and in mode "paste", the person's own.
        yaw: Turn of the head to the right of the picture in mode "head", in degrees, limited to
            what the footage shows.
        pitch: Upward turn of the head in mode "head", in degrees, with the same limit.
        zoom: Scale of the head in mode "head", 0.5 to 2.
        head_motion: Factor on the motion of head and body in mode "head", 0 (still) to 1.
        intensity: Factor on the motion of the mouth, 0 to 2. 1 is the person's own; closed lips stay
            closed.
        expression: Expressions by time: a .csv or .json file, or a text such as "1.5: smile=0.6".
            None: as filmed and spoken.
        blinks: "filmed", "none", or a number per minute, 0 to 60.
        drive: Video of anybody whose expressions and head motion the head takes in mode "head". If the
            audio is the same file, the mouth follows the face in it, too.
        subtitles: "none", "burn", "track" or "srt". With any value except "none", an .srt file is
            written next to the output, too.
        transcript: The spoken text, or the path of a file with it. None: English is recognized.
        language: Language of the speech, ISO 639-1.
        overwrite: Replace an .srt file next to the output that was not made with it.
        loudness: Integrated loudness in LUFS. None: unchanged.
        provenance: Sign the file with a C2PA manifest that states that it is synthetic.
        certificate: PEM file with the certificate to sign with. None: a local one, made on first
            use.
        key: PEM file with the certificate's private key.

    Raises:
        TalkheadError: A value is out of range, or only one of certificate and key is given.
    """

    codec: str | None = field(
        default=None,
        metadata=option(
            "--codec",
            f"{list_codecs()} (default: chosen by the file extension of the output)",
            PICTURE_PANEL,
        ),
    )
    timeline: str = field(
        default=IDLE,
        metadata=option(
            "--timeline",
            "idle: the idle clip, played forward and backward; source: footage of the person as "
            "filmed, in which only the mouth follows the sound, with its own frame rate and length, in "
            "mode paste.",
            PICTURE_PANEL,
            choices=TIMELINES,
        ),
    )
    footage_end: str = field(
        default=REFUSE,
        metadata=option(
            "--footage-end",
            "Timeline source, if the sound is longer than the footage. refuse: an error; bounce: the "
            "footage goes on, backward and forward; stop: the sound is cut where the footage ends.",
            PICTURE_PANEL,
            choices=FOOTAGE_ENDS,
        ),
    )
    fps: str | None = field(
        default=None,
        metadata=option(
            "--fps",
            "Mode head: frames per second, 10 to 120, or source for that of the footage. (default: 25)",
            PICTURE_PANEL,
        ),
    )
    subtitles: str = field(
        default=NONE,
        metadata=option(
            "--subtitles",
            "burn: into the picture; track: as a subtitle track; srt: as an .srt file, which burn "
            "and track write, too.",
            SUBTITLES_PANEL,
            choices=SUBTITLES,
        ),
    )
    transcript: str | None = field(
        default=None,
        metadata=option(
            "--transcript",
            "The spoken text, or a file with it. (default: English is recognized, with errors)",
            SUBTITLES_PANEL,
            names_file=True,
            in_frames=True,
        ),
    )
    language: str = field(
        default="en",
        metadata=option(
            "--language",
            "Language of the speech: en, fr, zh ... Only English is aligned exactly.",
            SUBTITLES_PANEL,
        ),
    )
    overwrite: bool = field(
        default=False,
        metadata=option(
            "--overwrite",
            "Replace the .srt file next to the output even if it was not made with it.",
            SUBTITLES_PANEL,
        ),
    )
    loudness: float | None = field(
        default=None,
        metadata=option(
            "--loudness", "Loudness in LUFS, for example -16. (default: unchanged)", SOUND_PANEL
        ),
    )
    provenance: bool = field(
        default=True,
        metadata=option(
            "--provenance/--no-provenance",
            "Sign a C2PA manifest that states that the file is synthetic, which tool made it, and when.",
            PROVENANCE_PANEL,
        ),
    )
    certificate: Path | None = field(
        default=None,
        metadata=option(
            "--certificate",
            "PEM file with the certificate to sign with. (default: one made on this machine)",
            PROVENANCE_PANEL,
            names_file=True,
        ),
    )
    key: Path | None = field(
        default=None,
        metadata=option(
            "--key",
            "PEM file with the certificate's private key.",
            PROVENANCE_PANEL,
            names_file=True,
            secret=True,
        ),
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            TalkheadError: A value is out of range, or only one of certificate and key is given.
        """
        super().__post_init__()
        check_choice("timeline", self.timeline, TIMELINES)
        check_choice("footage end", self.footage_end, FOOTAGE_ENDS)
        if self.fps is not None:
            parse_rate(self.fps, FRAME_RATE)
        if self.subtitles not in SUBTITLES:
            raise TalkheadError(
                f"there is no subtitle mode {self.subtitles!r}. Choose one of: {', '.join(SUBTITLES)}"
            )
        least, most = LOUDNESS_LUFS
        if self.loudness is not None and not least <= self.loudness <= most:
            raise TalkheadError(
                f"a loudness of {self.loudness:g} LUFS is not allowed. Choose {least:g} to "
                f"{most:g}; broadcasts use -23, the web -16 to -14"
            )
        if (self.certificate is None) != (self.key is None):
            raise TalkheadError("certificate and key belong together. Pass both, or neither")

    @property
    def keeps_footage(self) -> bool:
        """True if the person's own footage is re-lipped frame by frame."""
        return self.timeline == SOURCE


class SpeakKeywords(TypedDict, total=False):
    """Keywords of `talkhead.speak` besides its parameters: three settings and the fields of
    `OutputOptions`.

    Attributes:
        renderer: See SpeakSettings.
        device: See SpeakSettings.
        work: See SpeakSettings.
        codec: See OutputOptions, which describes this and all following keywords.
    """

    renderer: str | None
    device: str
    work: Path | None
    codec: str | None
    timeline: str
    footage_end: str
    height: int | None
    background: str | None
    yaw: float
    pitch: float
    zoom: float
    head_motion: float
    intensity: float
    fps: str | None
    expression: str | None
    blinks: str
    drive: Path | None
    subtitles: str
    transcript: str | None
    language: str
    overwrite: bool
    loudness: float | None
    provenance: bool
    certificate: Path | None
    key: Path | None


@dataclass(frozen=True)
class SpeakSettings:
    """The keywords of a call of `speak`, with defaults filled in.

    Attributes:
        options: Options of the output.
        renderer: Name of a renderer. None: the identity's own.
        device: "auto", "cpu", "cuda" or "cuda:N".
        work: Folder for unfinished work. None: a temporary one.
    """

    options: OutputOptions
    renderer: str | None = None
    device: str = "auto"
    work: Path | None = None


def speak_settings(options: OutputOptions | None, keywords: SpeakKeywords) -> SpeakSettings:
    """Sort the keywords of a call of `speak`.

    Args:
        options: Options of the output. None: the defaults.
        keywords: See SpeakKeywords. Fields of `OutputOptions` replace those of `options`.

    Returns:
        The settings.

    Raises:
        TypeError: A keyword is unknown.
        TalkheadError: The value of an option is not allowed.
    """
    names = [one.name for one in dataclasses.fields(SpeakSettings)][1:]
    own: dict[str, Any] = {name: value for name, value in keywords.items() if name in names}
    more: dict[str, Any] = {name: value for name, value in keywords.items() if name not in own}
    check_keywords("speak", more, declared_options())
    base = options or OutputOptions()
    return SpeakSettings(dataclasses.replace(base, **more) if more else base, **own)


def check_options(options: OutputOptions, output: Path, mode: str) -> Codec:
    """Check that output, codec, mode and options are compatible.

    Args:
        options: Options of the output.
        output: The output.
        mode: "paste" or "head".

    Returns:
        Codec of the output.

    Raises:
        TalkheadError: They are not.
    """
    codec = choose_codec(options.codec, output)
    if options.keeps_footage and mode != "paste":
        raise TalkheadError(
            f"timeline source needs --mode paste, not {mode}: it keeps the person's own footage"
        )
    if options.footage_end != REFUSE and not options.keeps_footage:
        raise TalkheadError(
            f"footage end {options.footage_end} needs --timeline source: the idle clip is as long as the "
            "audio"
        )
    options.check_mode(mode)
    if options.fps is not None and mode != "head":
        raise TalkheadError(
            f"a frame rate needs --mode head: {mode} keeps that of the footage it is pasted into"
        )
    if options.drive is not None and mode != "head":
        raise TalkheadError(
            f"a driving video needs --mode head: {mode} keeps the head of the person's own footage"
        )
    if options.background == ALPHA and not codec.alpha:
        raise TalkheadError(
            f"{codec.title} can't keep alpha. Choose prores, vp9 or png, or another background"
        )
    if options.expression is not None and track_file(options.expression) is None:
        check_track(options.expression, mode)
    transcript = transcript_file(options.transcript)
    if options.subtitles != NONE and transcript is not None:
        _check_not_written_over(transcript, srt_path(output))
    if codec.is_folder:
        check_folder(output)
    if codec.is_folder and options.subtitles == TRACK:
        raise TalkheadError(f"{codec.title} have no track for subtitles. Choose burn or srt")
    return codec


def _check_not_written_over(transcript: Path, srt: Path) -> None:
    """Raise TalkheadError if the subtitles next to an output would replace the transcript."""
    if srt.exists() and srt.samefile(transcript):
        raise TalkheadError(
            f"{transcript}: the subtitles of this output would overwrite it. Rename the "
            "transcript, or choose another output"
        )


def transcript_file(transcript: str | None) -> Path | None:
    """Return the file that a transcript names.

    Args:
        transcript: Value of the option `transcript`.

    Returns:
        The file; None if the transcript is the text itself, or there is none.

    Raises:
        TalkheadError: The file does not exist, or the text cannot be encoded.
    """
    found = existing_file(transcript)
    if found is not None or transcript is None:
        return found
    if any("\ud800" <= c <= "\udfff" for c in transcript):
        raise TalkheadError("the transcript is not UTF-8 text. Pass it in UTF-8, or in a file")
    if Path(transcript).suffix.lower() in TEXT_FILES and " " not in transcript.strip():
        raise TalkheadError(
            f"{transcript}: there is no such file. Check the path, or give the text"
        )
    return None


def srt_path(output: Path) -> Path:
    """Return the path of the subtitles next to an output.

    Args:
        output: A file.

    Returns:
        Path of its .srt file.
    """
    return output.with_suffix(".srt")


def keeps_alpha(options: OutputOptions, codec: Codec, mode: str) -> bool:
    """Check if the frames have an alpha channel.

    Args:
        options: Options of the output.
        codec: Codec of the output.
        mode: "paste" or "head".

    Returns:
        True if the frames are transparent outside the head, or in mode "paste" outside the person.
    """
    chosen = (None, ALPHA) if mode == "head" else (ALPHA,)
    return codec.alpha and options.background in chosen


def check_folder(output: Path) -> None:
    """Check that a folder contains no files except those that will be replaced.

    Args:
        output: Folder for images, which need not exist.

    Raises:
        TalkheadError: It contains other files, or is a file.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise TalkheadError(f"{output}: is a file. Pass the name of a folder for the images")
    foreign = [f.name for f in output.iterdir() if not _OURS.fullmatch(f.name)]
    if foreign:
        raise TalkheadError(
            f"{output}: holds other files ({sorted(foreign)[0]}). Pass a new folder for the images"
        )


_OURS = re.compile(r"\d{6,}\.png|sound\.wav|subtitles\.srt")


@dataclass(frozen=True)
class RenderRequest:
    """What to render.

    Attributes:
        audio: File with the audio.
        output: The finished file.
        mode: "paste" or "head".
        source: Footage that the person was fitted on, whose timeline is kept. None: the idle
            clip is played.
        options: Options of the output.
    """

    audio: Path
    output: Path
    mode: str = "paste"
    source: Path | None = None
    options: OutputOptions = field(default_factory=OutputOptions)


# ------------------------------------------------------------------------------- inputs


def path_of(value: Any, name: str, remedy: str) -> Path:
    """Check that a parameter is a path.

    Args:
        value: Value of the parameter.
        name: Name of the parameter.
        remedy: What to do with an array instead.

    Returns:
        The path.

    Raises:
        TalkheadError: The value is neither a path nor a string.
    """
    if isinstance(value, str | Path):
        return Path(value)
    raise TalkheadError(f"{name}: give the path of a file, not {type(value).__name__}. {remedy}")


def audio_path(audio: Audio, folder: Path | None) -> Path:
    """Return the path of audio, and write it to a file if it is an array.

    Args:
        audio: Path, or a pair (waveform, sample rate).
        folder: Folder for the file; None is allowed for a path.

    Returns:
        Path of the file.

    Raises:
        TalkheadError: The value is neither a path nor a waveform.
    """
    if not isinstance(audio, tuple):
        return path_of(audio, "audio", "A waveform needs its rate: (waveform, sample_rate)")
    import numpy as np
    from scipy.io import wavfile

    if len(audio) != 2:
        raise TalkheadError("audio: give a pair (waveform, sample_rate), or the path of a file")
    waveform, rate = np.asarray(audio[0]), audio[1]
    if not isinstance(rate, int | np.integer) or not MIN_RATE <= rate <= MAX_RATE:
        raise TalkheadError(
            f"audio: a sample rate of {rate!r} is not allowed. Pass (waveform, sample_rate) with "
            f"{MIN_RATE} to {MAX_RATE}"
        )
    if waveform.ndim not in (1, 2) or waveform.size == 0 or waveform.shape[-1] == 0:
        raise TalkheadError(
            f"audio: an array of shape {waveform.shape} is not a waveform. Pass [n_samples] or "
            "[n_samples, channels]"
        )
    if waveform.dtype != np.int16 and not np.issubdtype(waveform.dtype, np.floating):
        raise TalkheadError(
            f"audio: samples of type {waveform.dtype} are not supported. Pass int16, or floats in "
            "[-1, 1]"
        )
    if waveform.dtype != np.int16:
        waveform = waveform.astype(np.float32)
    if not np.isfinite(waveform).all():
        raise TalkheadError(
            "audio: the waveform contains values that are not finite. Pass finite ones"
        )
    assert folder is not None
    path = folder / "sound.wav"
    wavfile.write(path, int(rate), waveform)
    return path
