"""`talkhead speak`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from talkhead.app import request
from talkhead.app.choices import DEFAULT_MODE, MODES
from talkhead.app.cli.console import show
from talkhead.app.cli.options import (
    DeviceOption,
    HomeOption,
    JsonOption,
    QuietOption,
    RendererOption,
    loading,
    make_progress_for,
    with_output_options,
)

Mode = Enum("Mode", {one: one for one in MODES}, type=str)  # type: ignore[misc]
"""Values of --mode."""


@with_output_options
def speak(
    audio: Annotated[
        Path,
        typer.Option("--audio", help="Recording to speak: an audio file, or a video with audio."),
    ],
    identity: Annotated[
        str | None,
        typer.Option(
            "--identity",
            help="Name of the identity, or folder of a package. (default: the one fitted last)",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write. (default: AUDIO.mp4)")
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(help="paste: into the person's own footage; head: the head alone."),
    ] = Mode[DEFAULT_MODE],
    renderer: RendererOption = None,
    device: DeviceOption = "auto",
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    **values: Any,
) -> None:
    """Lip-sync a fitted person to a recording: writes a video that is marked as synthetic.

    The mouth is pasted into the person's own footage; --mode head renders the head alone, over any
    background.

    [bold]Examples[/bold]

      talkhead speak --audio line.wav

      talkhead speak --audio podcast.m4a --identity anna -o anna-podcast.mp4

      talkhead speak --audio line.wav --subtitles burn --transcript line.txt

      talkhead speak --audio line.wav --mode head -o line.mov

      talkhead speak --audio line.wav --mode head --yaw 5 --zoom 1.2 --background beach.mp4
    """
    from talkhead.app import checks

    options = request.OutputOptions(**values)
    chosen: dict[str, Any] = {"identity": identity, "mode": mode.value, "home": home}
    target = checks.check_speak(
        audio, output, renderer=renderer, options=options, device=device, **chosen
    )
    progress = make_progress_for(as_json, quiet)
    with loading(progress):
        from talkhead.app.speak import speak_checked
    settings = request.SpeakSettings(options, renderer, device)
    result = speak_checked(audio, target, settings=settings, progress=progress, **chosen)
    show(result, as_json)
