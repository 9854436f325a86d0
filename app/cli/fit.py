"""`talkhead fit`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from talkhead.app.choices import DEFAULT_PRESET, DEFAULT_RENDERER, MAX_SEED, PRESETS
from talkhead.app.cli.console import print_line
from talkhead.app.cli.console import show as show_result
from talkhead.app.cli.options import (
    ConsentOption,
    DeviceOption,
    HomeOption,
    JsonOption,
    QuietOption,
    YesOption,
    ask_consent,
    loading,
    make_progress_for,
)
from talkhead.app.options import FitOptions
from talkhead.encoder.registry import DEFAULT_ENCODER, ENCODERS, WEIGHTS_SUFFIX
from talkhead.renderers.registry import RENDERERS

Preset = Enum("Preset", {one: one for one in PRESETS}, type=str)  # type: ignore[misc]
"""Values of --preset."""
QUESTION = (
    "Who is shown in the footage, and how did they consent? The statement is stored with the identity "
    "and included in its videos (Enter: none)"
)

VideosOption = Annotated[
    list[Path],
    typer.Option(
        "--video",
        help="Video of the person, with audio. Repeat it for more clips of the same person; the "
        "first one determines how they look.",
    ),
]
SpeechCheckOption = Annotated[
    bool,
    typer.Option(
        "--speech-check/--no-speech-check", help="Refuse footage that contains hardly any speech."
    ),
]
WaitOption = Annotated[
    bool,
    typer.Option(
        "--wait/--no-wait",
        help="If another process is fitting an identity of this name, wait for it or refuse.",
    ),
]


def fit(
    videos: VideosOption,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the identity. (default: from the video's name)"),
    ] = None,
    preset: Annotated[
        Preset, typer.Option("--preset", help="How long to train; high is slowest and best.")
    ] = Preset[DEFAULT_PRESET],
    renderer: Annotated[
        str | None,
        typer.Option(
            "--renderer", help=f"Renderer: {', '.join(RENDERERS)}. (default: {DEFAULT_RENDERER})"
        ),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            help=f"Speech encoder: {', '.join(ENCODERS)}, or a {WEIGHTS_SUFFIX} file of weights.",
        ),
    ] = DEFAULT_ENCODER,
    device: DeviceOption = "auto",
    home: HomeOption = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", min=0, max=MAX_SEED, help="Random seed; the same seed gives the same result."
        ),
    ] = 0,
    consent: ConsentOption = None,
    yes: YesOption = False,
    use_all_frames: Annotated[
        bool,
        typer.Option(
            "--use-all-frames",
            help="Train on the last 1/11 (of the first clip) too, otherwise held out for evaluation.",
        ),
    ] = False,
    min_face: Annotated[
        float,
        typer.Option(
            "--min-face",
            min=0.0,
            max=1.0,
            help="Share of frames in which a face must be found.",
        ),
    ] = 0.8,
    speech_check: SpeechCheckOption = True,
    wait: WaitOption = True,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fit an identity to a video of a person.

    If interrupted, the same command resumes where it stopped.

    [bold]Examples[/bold]

      talkhead fit --video anna.mp4

      talkhead fit --video anna.mp4 --preset preview --name anna-draft

      talkhead fit --video anna.mp4 --video anna-again.mp4

      talkhead fit --video anna.mp4 --consent "Anna B., in writing, 3 May 2025"
    """
    from talkhead.app import checks
    from talkhead.app.home.identities import name_from_video

    options = FitOptions(
        preset=preset.value,
        renderer=renderer or DEFAULT_RENDERER,
        encoder=encoder,
        seed=seed,
        consent=consent,
        use_all_frames=use_all_frames,
        min_face=min_face,
        check_speech=speech_check,
        wait=wait,
    )
    checks.check_fit(videos, name, device=device, home=home)
    if consent is None and not yes and sys.stdin.isatty():
        options = replace(options, consent=ask_consent(QUESTION))
    progress = make_progress_for(as_json, quiet)
    with loading(progress):
        from talkhead.app.fit import fit as run
    result = run(videos, name=name, options=options, device=device, home=home, progress=progress)
    show_result(result, as_json)
    if not quiet and not as_json:
        _print_next_step(name or name_from_video(videos[0]), home)


def _print_next_step(name: str, home: Path | None) -> None:
    elsewhere = f" --home {shlex.quote(str(home))}" if home is not None else ""
    print_line("", sys.stderr)
    print_line(f"Next: talkhead speak --audio LINE.wav --identity {name}{elsewhere}", sys.stderr)
