"""Options that several commands have."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from talkhead.progress import Progress

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of identities and jobs. (default: your data folder)"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
DeviceOption = Annotated[
    str,
    typer.Option("--device", help="auto, cpu, cuda or cuda:0. auto takes a GPU if there is one."),
]


def make_progress_for(as_json: bool, quiet: bool) -> Progress:
    """Progress on stderr: none when quiet, JSON lines beside a JSON result, else bars."""
    from talkhead.progress import make_progress

    if quiet:
        return make_progress("silent")
    return make_progress("json" if as_json else "bars")


@contextmanager
def loading(progress: Progress) -> Iterator[None]:
    """A block that imports PyTorch: a step shows that something goes on meanwhile, it takes seconds."""
    if "torch" in sys.modules:
        yield
        return
    with progress.step("Loading PyTorch", total=1) as step:
        yield
        step.advance()
