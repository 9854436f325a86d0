"""The command that reads what a file says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from talkhead.app.cli.console import print_json, print_lines
from talkhead.app.cli.options import HomeOption, JsonOption


def verify(
    file: Annotated[Path, typer.Argument(help="A video, an image, or a folder of images.")],
    trust: Annotated[
        Path | None,
        typer.Option("--trust", help="PEM with the root certificates that you trust."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what a file says of where it comes from, and whether it was changed since.

    Reads the signed statement (C2PA) in the file, or in NAME.c2pa beside it, of talkhead or any other
    tool. The exit code is 0 where it holds, and 1 where it doesn't: the file was changed or is
    damaged, the signer's certificate has expired, nothing is said, files of a folder are missing or
    were added, or, with --trust, the signer is none that you trust.

    [bold]Examples[/bold]

      talkhead verify line.mp4

      talkhead verify line.mp4 --json

      talkhead verify line.mp4 --trust roots.pem
    """
    from talkhead.app.output import provenance

    verdict = provenance.verify(file, trust, home)
    if as_json:
        print_json(verdict)
    else:
        print_lines(provenance.describe(verdict))
    if not verdict.ok:
        raise typer.Exit(1)
