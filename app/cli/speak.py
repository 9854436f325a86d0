"""`talkhead speak`."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
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
from talkhead.app.options import PICTURE_PANEL
from talkhead.errors import TalkheadError

Mode = Enum("Mode", {one: one for one in MODES}, type=str)  # type: ignore[misc]
"""Values of --mode."""


@with_output_options
def speak(
    audio: Annotated[
        Path | None,
        typer.Option("--audio", help="Recording to speak: an audio file, or a video with audio."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", help="Text to speak instead, with an installed voice (English)."),
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option(
            "--identity",
            help="Name of the identity, or folder of a package. (default: the one fitted last)",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The file to write. (default: named after the recording or the text)",
        ),
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(help="paste: into the person's own footage; head: the head alone."),
    ] = Mode[DEFAULT_MODE],
    video: Annotated[
        Path | None,
        typer.Option(
            "--video",
            help="Timeline source: the footage, if it has been moved since the fit.",
            rich_help_panel=PICTURE_PANEL,
        ),
    ] = None,
    voice_url: Annotated[
        str | None,
        typer.Option(
            envvar="TALKHEAD_VOICE_URL",
            help="Address of a voice server, to which TEXT is sent. (default: the installed voice)",
        ),
    ] = None,
    voice: Annotated[str | None, typer.Option(help="Name of a voice of that server.")] = None,
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

      talkhead speak --text "Good morning. It is 9:30." --subtitles burn

      talkhead speak --audio line.wav --timeline source

      talkhead speak --audio line.wav --mode head -o line.mov

      talkhead speak --audio line.wav --mode head --yaw 5 --zoom 1.2 --background beach.mp4

      talkhead speak --audio line.wav --expression "0:smile=0; 2:smile=0.8" --blinks 12

      talkhead speak --drive actor.mp4 --mode head
    """
    from talkhead.app import checks
    from talkhead.app.home.identities import Home
    from talkhead.app.home.scratch import scratch_folder

    options = request.OutputOptions(**values)
    chosen: dict[str, Any] = {"identity": identity, "mode": mode.value, "home": home}
    progress = make_progress_for(as_json, quiet)
    with scratch_folder(Home.locate(home)) if text is not None else nullcontext() as folder:
        if folder is not None:
            if audio is not None:
                raise TalkheadError("speak: --audio and --text were both given. Pass one of them")
            audio, output, options = _spoken(text, output, options, voice, voice_url, folder)
        audio = audio or options.drive
        if audio is None:
            raise TalkheadError(
                "speak: nothing to speak. Pass --audio FILE, or --text with the words to say"
            )
        files = checks.check_speak(
            audio, output, video=video, renderer=renderer, options=options, device=device, **chosen
        )
        with loading(progress):
            from talkhead.app.speak import speak_checked
        settings = request.SpeakSettings(options, renderer, device)
        result = speak_checked(audio, files, settings=settings, progress=progress, **chosen)
    show(result, as_json)


def _spoken(
    text: str | None,
    output: Path | None,
    options: request.OutputOptions,
    voice: str | None,
    voice_url: str | None,
    folder: Path,
) -> tuple[Path, Path | None, request.OutputOptions]:
    """Speak a text into a file of a folder; the text becomes the transcript of the subtitles.

    Returns:
        The audio, the output, and the options.

    Raises:
        TalkheadError: The text cannot be spoken.
    """
    from talkhead.app.text_to_speech import file_stem, synthesize
    from talkhead.media.codecs import choose_codec, default_name

    assert text is not None
    if output is None:
        output = default_name(file_stem(text), choose_codec(options.codec))
    audio = request.audio_path(synthesize(text, voice=voice, url=voice_url), folder)
    if options.subtitles != request.NONE and options.transcript is None:
        options = replace(options, transcript=text)
    return audio, output, options
