"""`talkhead doctor`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from talkhead.app.cli.console import print_json, print_line, print_lines
from talkhead.app.cli.identities import _home
from talkhead.app.cli.options import (
    HomeOption,
    JsonOption,
)


def doctor(
    identity: Annotated[
        str | None,
        typer.Option(
            "--identity", help="Identity whose speed is measured. (default: the one fitted last)"
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is installed, what is usable and why not, and how fast this machine is."""
    from talkhead.app.doctor import installation as diagnosis

    print_line("Checking this machine: takes a few seconds, a minute the first time.", sys.stderr)
    report = diagnosis.examine(_home(home), identity)
    if as_json:
        print_json(report.as_json())
    else:
        print_lines(diagnosis.describe(report))
    if not report.ok:
        raise typer.Exit(1)
