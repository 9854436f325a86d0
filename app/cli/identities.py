"""`talkhead identities`: list, show, remove, export and import."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from talkhead.app.cli.console import print_json, print_line
from talkhead.app.cli.console import show as show_result
from talkhead.app.cli.options import (
    HomeOption,
    JsonOption,
)
from talkhead.terminal import printable

if TYPE_CHECKING:
    from talkhead.app.home.identities import Home

identities_app = typer.Typer(
    no_args_is_help=True, help="Fitted identities: list, show, remove, export, import."
)


@identities_app.command("list")
def list_identities(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the identities; * marks the one that speak uses by default."""
    store = _home(home)
    summaries = store.summaries()
    if as_json:
        print_json([dataclasses.asdict(summary) for summary in summaries])
        return
    if not summaries:
        print_line(f"None in {store.path} yet: talkhead fit --video person.mp4", sys.stderr)
    for one in summaries:
        state = one.problem or f"{one.preset}, {', '.join(one.renderers)}, {one.created}"
        mark = "*" if one.is_latest else " "
        print_line(f"{mark} {one.name:<24} {one.size_bytes / 2**20:6.1f} MiB  {state}")


NameArgument = Annotated[str, typer.Argument(help="The identity's name.")]


@identities_app.command()
def show(
    name: Annotated[
        str | None, typer.Argument(help="Name. (default: the identity fitted last)")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify the files of an identity, and show its details."""
    package = _home(home).load(name)
    show_result(package.manifest, as_json)


@identities_app.command()
def remove(
    name: NameArgument,
    home: HomeOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Delete an identity, finished or not, with all its images, work, jobs and results.

    The footage, and the videos made with the identity, are not deleted.
    """
    from talkhead.app.home.removal import remove_identity

    store = _home(home)
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete {printable(name)} permanently?", abort=True, err=True)
    for line in remove_identity(store, name).lines():
        print_line(line)


@identities_app.command()
def export(
    name: Annotated[
        str | None, typer.Argument(help="Name. (default: the identity fitted last)")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. (default: NAME.talkhead)")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Export an identity to a single file."""
    print_line(str(_home(home).export(name, output)))


@identities_app.command("import")
def import_identity(
    file: Annotated[Path, typer.Argument(help="A file made by export.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name. (default: the exported one)")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace an identity of that name.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Import an exported identity, which speak then uses by default."""
    print_line(str(_home(home).import_(file, name, replace=replace)))


def _home(path: Path | None) -> Home:
    from talkhead.app.home.scratch import open_home

    return open_home(path)
