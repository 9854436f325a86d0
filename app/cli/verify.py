"""`talkhead verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from talkhead.app.cli.console import print_json, print_lines
from talkhead.app.cli.options import HomeOption, JsonOption


def verify(
    file: Annotated[
        Path,
        typer.Argument(
            help="A video, an image, a folder of images or of a web export, or the manifest of a live "
            "session."
        ),
    ],
    trust: Annotated[
        Path | None,
        typer.Option("--trust", help="PEM file with the root certificates that you trust."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a file's C2PA provenance, and whether the file has changed since it was signed.

    Reads the signed manifest in the file, or in NAME.c2pa next to it, whether made by talkhead or by
    another tool, or the signed manifest of a live session or of a web export, whose files are then
    compared with it. The exit code is 0 if it is valid, and 1 if it is not: the file has changed or is
    damaged, the signer's certificate has expired, there is no manifest, files in a folder are missing,
    images were added to a folder of images, or, with --trust, the signer is not trusted. Other files
    that were added to a folder are only listed, as not signed.

    [bold]Examples[/bold]

      talkhead verify line.mp4

      talkhead verify line.mp4 --json

      talkhead verify line.mp4 --trust roots.pem

      talkhead verify site
    """
    from talkhead.app.output import verification

    verdict = verification.verify(file, trust, home)
    if as_json:
        print_json(verdict)
    else:
        print_lines(verification.describe(verdict))
    if not verdict.ok:
        raise typer.Exit(1)
