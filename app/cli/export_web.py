"""`talkhead export-web`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from talkhead.app.cli.console import show
from talkhead.app.cli.options import (
    ConsentOption,
    HomeOption,
    JsonOption,
    QuietOption,
    YesOption,
    ask_consent,
    loading,
    make_progress_for,
)

QUESTION = (
    "Anyone who opens the page can copy this person's likeness. Who is shown, and how did they consent "
    "to that? The statement is part of the export (Enter: none)"
)
LIVE_QUESTION = (
    "With live speech, anybody who has the page can make this person say anything. Who is shown, and "
    "how did they consent to that? The statement is part of the export (Enter: none)"
)


def export_web(
    name: Annotated[
        str | None, typer.Argument(help="Name of the identity. (default: the one fitted last)")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder to write, or file. (default: NAME-web, or NAME.html)"
        ),
    ] = None,
    lines: Annotated[
        list[Path] | None,
        typer.Option(
            "--line",
            help="Recording that the page can say, named after the file. Repeat it for more lines.",
        ),
    ] = None,
    single_file: Annotated[
        bool,
        typer.Option(
            "--single-file", help="Write one page that contains everything and needs no server."
        ),
    ] = False,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="The page can also speak live, as a microphone or a recording does. Anybody who has "
            "it can then make the person say anything.",
        ),
    ] = False,
    consent: ConsentOption = None,
    yes: YesOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Export a person as a web page: a folder for any web server, with nothing to run on it.

    The head is rendered in the browser, in sync with the sound of the lines, and is idle in between.
    Other pages show it as <talking-head src="site/">; docs/web.md describes its methods and events.

    The export contains the person's likeness: whoever can open the page can copy it, and make it say
    anything.

    [bold]Examples[/bold]

      talkhead export-web anna --line hello.wav --line goodbye.wav --output site

      talkhead export-web anna --line hello.wav --single-file -o anna.html

      talkhead export-web anna --live --output site

      python -m http.server --directory site
    """
    from talkhead.app.web_export.request import check_web

    lines = lines or []
    output = output or _default_output(name, single_file, home)
    request, manifest = check_web(
        output,
        lines,
        identity=name,
        single_file=single_file,
        live=live,
        consent=consent,
        home=home,
    )
    # The identity's statement does not cover live speech.
    agreed = request.live_consent if live else request.consent
    if agreed is None and not yes and sys.stdin.isatty():
        consent = ask_consent(LIVE_QUESTION if live else QUESTION)
    progress = make_progress_for(as_json, quiet)
    with loading(progress):
        from talkhead.app.web_export.export import export_web as run
    result = run(
        name or manifest.name,
        output=output,
        lines=lines,
        single_file=single_file,
        live=live,
        consent=consent,
        home=home,
        progress=progress,
    )
    show(result, as_json)


def _default_output(name: str | None, is_single: bool, home: Path | None) -> Path:
    from talkhead.app.checks import check_identity

    name = check_identity(name, None, home).name
    return Path(f"{name}.html" if is_single else f"{name}-web")
