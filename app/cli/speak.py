"""The command that lets a person speak, and what its output may be."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from talkhead.app.cli.console import show
from talkhead.app.cli.options import (
    DeviceOption,
    HomeOption,
    JsonOption,
    QuietOption,
    loading,
    make_progress_for,
)

PICTURE, SUBTITLES, SOUND, PROVENANCE = "Picture", "Subtitles", "Sound", "Provenance"
"""Panels of the help."""


class Mode(str, Enum):
    """What speak renders."""

    paste = "paste"
    head = "head"


class SubtitleKind(str, Enum):
    """Where subtitles go."""

    none = "none"
    burn = "burn"
    track = "track"
    srt = "srt"


CodecOption = Annotated[
    str | None,
    typer.Option(
        "--codec",
        help="h264, hevc or av1 (mp4); prores (mov), vp9 (webm) or png (a folder) keep alpha in "
        "mode head. (default: what the output's name ends with)",
        rich_help_panel=PICTURE,
    ),
]
HeightOption = Annotated[
    int | None,
    typer.Option("--height", help="Pixels. (default: the source's)", rich_help_panel=PICTURE),
]
BackgroundOption = Annotated[
    str | None,
    typer.Option(
        "--background",
        help="Of mode head: a colour, an image, a video that loops, own, or alpha. "
        "(default: alpha where the codec keeps it, else own)",
        rich_help_panel=PICTURE,
    ),
]
YawOption = Annotated[
    float,
    typer.Option(
        "--yaw",
        help="Of mode head: degrees that the head turns to the picture's right, as far as the "
        "footage shows it. (default: as in the footage)",
        show_default=False,
        rich_help_panel=PICTURE,
    ),
]
PitchOption = Annotated[
    float,
    typer.Option(
        "--pitch",
        help="Of mode head: degrees that the head turns up, likewise.",
        show_default=False,
        rich_help_panel=PICTURE,
    ),
]
ZoomOption = Annotated[
    float,
    typer.Option(
        "--zoom",
        help="Of mode head: 1.2 shows the head larger, 0.9 smaller, where the footage shows "
        "enough of the body.",
        show_default=False,
        rich_help_panel=PICTURE,
    ),
]
SubtitlesOption = Annotated[
    SubtitleKind,
    typer.Option(
        "--subtitles",
        help="Burned in, as a track, or as an .srt file alone, which lies beside the others too.",
        rich_help_panel=SUBTITLES,
    ),
]
TranscriptOption = Annotated[
    str | None,
    typer.Option(
        "--transcript",
        help="What is said, or a file with it. (default: English is recognised, weakly)",
        rich_help_panel=SUBTITLES,
    ),
]
LanguageOption = Annotated[
    str,
    typer.Option(
        "--language",
        help="Of the speech: en, fr, zh ... Only English is aligned exactly.",
        rich_help_panel=SUBTITLES,
    ),
]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace an .srt file that lies beside the output and was not made with it.",
        rich_help_panel=SUBTITLES,
    ),
]
LoudnessOption = Annotated[
    float | None,
    typer.Option("--loudness", help="LUFS, say -16. (default: left alone)", rich_help_panel=SOUND),
]
CertificateOption = Annotated[
    Path | None,
    typer.Option(
        "--certificate",
        help="PEM, to sign with. (default: one made on this machine)",
        rich_help_panel=PROVENANCE,
    ),
]
KeyOption = Annotated[
    Path | None,
    typer.Option("--key", help="PEM, the certificate's key.", rich_help_panel=PROVENANCE),
]
ProvenanceOption = Annotated[
    bool,
    typer.Option(
        "--provenance/--no-provenance",
        help="Sign a statement (C2PA) that the file is synthetic, by what and when.",
        rich_help_panel=PROVENANCE,
    ),
]


def speak(
    audio: Annotated[
        Path, typer.Option("--audio", help="What to say: any audio, or a video with sound.")
    ],
    identity: Annotated[
        str | None,
        typer.Option("--identity", help="A name or a folder. (default: the one fitted last)"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write. (default: AUDIO.mp4)")
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(help="paste: into the person's own footage; head: the head alone."),
    ] = Mode.paste,
    renderer: Annotated[
        str | None, typer.Option("--renderer", help="(default: the identity's own)")
    ] = None,
    codec: CodecOption = None,
    height: HeightOption = None,
    background: BackgroundOption = None,
    yaw: YawOption = 0.0,
    pitch: PitchOption = 0.0,
    zoom: ZoomOption = 1.0,
    subtitles: SubtitlesOption = SubtitleKind.none,
    transcript: TranscriptOption = None,
    language: LanguageOption = "en",
    overwrite: OverwriteOption = False,
    loudness: LoudnessOption = None,
    provenance: ProvenanceOption = True,
    certificate: CertificateOption = None,
    key: KeyOption = None,
    device: DeviceOption = "auto",
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Let a fitted person say something: writes a lip-synced video, marked as synthetic.

    [bold]Examples[/bold]

      talkhead speak --audio line.wav

      talkhead speak --audio podcast.m4a --identity anna -o anna-podcast.mp4

      talkhead speak --audio line.wav --subtitles burn --transcript line.txt

      talkhead speak --audio line.wav --mode head -o line.mov

      talkhead speak --audio line.wav --mode head --yaw 5 --zoom 1.2 --background beach.mp4
    """
    from talkhead.app import checks
    from talkhead.app.request import OutputOptions

    options = OutputOptions(
        codec=codec,
        height=height,
        background=background,
        yaw=yaw,
        pitch=pitch,
        zoom=zoom,
        subtitles=subtitles.value,
        transcript=transcript,
        language=language,
        overwrite=overwrite,
        loudness=loudness,
        provenance=provenance,
        certificate=certificate,
        key=key,
    )
    chosen: dict[str, Any] = {"identity": identity, "mode": mode.value, "renderer": renderer}
    chosen |= {"options": options, "device": device, "home": home}
    checks.check_speak(audio, output, **chosen)
    progress = make_progress_for(as_json, quiet)
    with loading(progress):
        from talkhead.app.speak import speak as run
    result = run(audio, output=output, progress=progress, **chosen)
    show(result, as_json)
