"""`talkhead fit`."""

from __future__ import annotations

import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from talkhead.app.choices import MAX_SEED
from talkhead.app.cli.console import print_line
from talkhead.app.cli.console import show as show_result
from talkhead.app.cli.options import (
    DeviceOption,
    HomeOption,
    JsonOption,
    QuietOption,
    loading,
    make_progress_for,
)
from talkhead.encoder.registry import ENCODERS, WEIGHTS_SUFFIX
from talkhead.renderers.registry import RENDERERS


class Preset(str, Enum):
    """How much work a fit may be."""

    preview = "preview"
    standard = "standard"
    high = "high"


def fit(
    video: Annotated[Path, typer.Option("--video", help="Footage of the person, with sound.")],
    name: Annotated[
        str | None, typer.Option("--name", help="The identity's name. (default: the video's)")
    ] = None,
    preset: Annotated[
        Preset, typer.Option("--preset", help="How long to train; high is slowest and best.")
    ] = Preset.standard,
    renderer: Annotated[
        str | None,
        typer.Option("--renderer", help=f"{', '.join(RENDERERS)}. (default: gaussian)"),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            help=f"Speech encoder: {', '.join(ENCODERS)}, or a {WEIGHTS_SUFFIX} file of weights.",
        ),
    ] = "pase",
    device: DeviceOption = "auto",
    home: HomeOption = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=MAX_SEED, help="Same seed, same result.")
    ] = 0,
    consent: Annotated[
        str | None,
        typer.Option(
            "--consent",
            help="Who agreed to what; stored with the identity, and said in its videos.",
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Don't ask for a statement of consent.")
    ] = False,
    use_all_frames: Annotated[
        bool, typer.Option("--use-all-frames", help="Train on the held-out last 1/11 too.")
    ] = False,
    min_face: Annotated[
        float,
        typer.Option("--min-face", min=0.0, max=1.0, help="Share of frames that need a face."),
    ] = 0.8,
    speech_check: Annotated[
        bool,
        typer.Option(
            "--speech-check/--no-speech-check", help="Refuse footage in which nobody speaks."
        ),
    ] = True,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait",
            help="Where another process fits an identity of this name: wait for it, or refuse.",
        ),
    ] = True,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Learn a person from footage: makes an identity that can speak.

    Interrupted at any moment, the same command goes on where it stopped.

    [bold]Examples[/bold]

      talkhead fit --video anna.mp4

      talkhead fit --video anna.mp4 --preset preview --name anna-draft

      talkhead fit --video anna.mp4 --consent "Anna B., in writing, 3 May 2025"
    """
    from talkhead.app import checks
    from talkhead.app.home.identities import name_from_video

    chosen: dict[str, Any] = {"preset": preset.value, "encoder": encoder, "device": device}
    chosen |= {"home": home, "seed": seed, "min_face": min_face}
    if renderer is not None:
        chosen["renderer"] = renderer
    checks.check_fit(video, name, **chosen)
    if consent is None and not yes and sys.stdin.isatty():
        consent = _ask_consent()
    progress = make_progress_for(as_json, quiet)
    with loading(progress):
        from talkhead.app.fit import fit as run
    result = run(
        video,
        name=name,
        consent=consent,
        use_all_frames=use_all_frames,
        check_speech=speech_check,
        wait=wait,
        progress=progress,
        **chosen,
    )
    show_result(result, as_json)
    if not quiet and not as_json:
        elsewhere = f" --home {shlex.quote(str(home))}" if home is not None else ""
        name = name or name_from_video(video)
        print_line("", sys.stderr)
        print_line(
            f"Next: talkhead speak --audio LINE.wav --identity {name}{elsewhere}", sys.stderr
        )


def _ask_consent() -> str | None:
    """The statement that a person at the terminal types, if any."""
    question = (
        "Who is seen in the footage, and how did they agree to this? It is stored with the identity "
        "and said in its videos (Enter: say nothing)"
    )
    answer = typer.prompt(question, default="", show_default=False, err=True)
    return str(answer).strip() or None
