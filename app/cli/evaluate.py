"""`talkhead evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from talkhead.app.cli.console import print_json, print_line, print_lines
from talkhead.app.cli.options import (
    DeviceOption,
    HomeOption,
    JsonOption,
    QuietOption,
    RendererOption,
    loading,
    make_progress_for,
)
from talkhead.errors import TalkheadError
from talkhead.storage import existing_file, read_text

if TYPE_CHECKING:
    from talkhead.app.evaluate import EvaluateResult


def evaluate(
    name: Annotated[
        str | None, typer.Argument(help="Name of the identity. (default: the one fitted last)")
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option("--audio", help="Another recording to speak. (default: the sample recording)"),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Folder for report.html. (default: in the data folder)"),
    ] = None,
    pair: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--pair", help="Compare any two videos instead: the real one and the generated one."
        ),
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option("--video", help="The footage, if it has been moved since the fit."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", help="Transcript of the footage, or a file with it."),
    ] = None,
    language: Annotated[
        str,
        typer.Option(
            "--language",
            help="Language of the speech; if other than en, PASE detects the phonemes.",
        ),
    ] = "en",
    seconds: Annotated[
        float, typer.Option("--seconds", min=2.0, help="Evaluate at most this many seconds.")
    ] = 120.0,
    folds: Annotated[
        int,
        typer.Option(
            "--folds",
            help="Also cross-validate the lips over the whole clip, in 3 to 20 folds: for clips "
            "whose held-out end is too short. (default: 0, off)",
            show_default=False,
        ),
    ] = 0,
    renderer: RendererOption = None,
    device: DeviceOption = "auto",
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Evaluate an identity on held-out footage: prints metrics, writes an HTML report.

    The last 1/11 of the footage is rendered from the tracked motion and from its audio, and compared
    with the real frames and with baselines. report.html is a single file: open it in a browser.

    [bold]Examples[/bold]

      talkhead evaluate anna

      talkhead evaluate anna --audio other.wav --report anna-report

      talkhead evaluate anna --folds 10

      talkhead evaluate --pair real.mp4 made.mp4
    """
    from talkhead.app import checks
    from talkhead.app.choices import check_folds

    check_folds(folds)
    text = _text_or_file(text)
    if pair is None:
        checks.check_evaluate(
            name, audio, video, report, renderer=renderer, device=device, home=home
        )
    elif name is not None or audio is not None or video is not None or folds:
        raise typer.BadParameter(
            "--pair takes two videos, without NAME, --audio, --video or --folds"
        )
    else:
        checks.check_pair(*pair, report)
    progress = make_progress_for(as_json, quiet)
    with loading(progress):
        from talkhead.app import evaluate as evaluation
        from talkhead.app.evaluation.options import EvaluateOptions
    options = EvaluateOptions(text, language, seconds, renderer, folds, device)
    if pair is not None:
        result = evaluation.evaluate_pair(*pair, report=report, options=options, progress=progress)
    else:
        result = evaluation.evaluate(
            name,
            audio=audio,
            video=video,
            report=report,
            home=home,
            options=options,
            progress=progress,
        )
    _show(result, as_json)


def _show(result: EvaluateResult, as_json: bool) -> None:
    """Print the report, as JSON or as text."""
    from talkhead.app.evaluation.report.html import describe

    if as_json:
        print_json({"report_path": str(result.report_path), **result.report.to_json()})
    else:
        print_lines(f"{describe(result.report)}\n")
        print_line(f"report: {result.report_path}")


def _text_or_file(text: str | None) -> str | None:
    """Return the text itself, or the content of the file of that name."""
    path = existing_file(text)
    if path is not None:
        return read_text(path)
    if text is not None and " " not in text.strip() and Path(text).suffix:
        raise TalkheadError(f"{text}: there is no such file. Check the path, or give the text")
    return text
