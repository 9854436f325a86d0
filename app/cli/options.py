"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from talkhead.app.options import Option
from talkhead.app.request import declared_options

if TYPE_CHECKING:
    from talkhead.progress import Progress

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of identities and jobs. (default: your data folder)"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
RendererOption = Annotated[
    str | None,
    typer.Option("--renderer", help="Renderer to use. (default: the identity's own)"),
]
DeviceOption = Annotated[
    str,
    typer.Option("--device", help="auto, cpu, cuda or cuda:0. auto uses a GPU if there is one."),
]
ConsentOption = Annotated[
    str | None,
    typer.Option(
        "--consent",
        help="Statement of consent; stored with the identity or export, and included in its videos.",
    ),
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Don't ask for a statement of consent.")
]


def ask_consent(question: str) -> str | None:
    """Ask at the terminal for a statement of consent.

    Args:
        question: The question.

    Returns:
        The statement; None if none is given.
    """
    answer = typer.prompt(question, default="", show_default=False, err=True)
    return str(answer).strip() or None


def make_progress_for(as_json: bool, quiet: bool) -> Progress:
    """Make the progress of a command, shown on stderr.

    Args:
        as_json: Show the progress as JSON lines, to match a JSON result.
        quiet: Show nothing.

    Returns:
        The progress; bars by default.
    """
    from talkhead.progress import make_progress

    if quiet:
        return make_progress("silent")
    return make_progress("json" if as_json else "bars")


@contextmanager
def loading(progress: Progress) -> Iterator[None]:
    """Show a progress step while PyTorch is imported, which takes seconds.

    Args:
        progress: Receives the step.

    Yields:
        Once, before the import.
    """
    if "torch" in sys.modules:
        yield
        return
    with progress.step("Loading PyTorch", total=1) as step:
        yield
        step.advance()


def with_output_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `OutputOptions`.

    Args:
        command: A function with a parameter **values, which gets the value of each option by name.

    Returns:
        The command with a signature that typer reads: the options take the place of **values.
    """
    options = declared_options()
    own = inspect.signature(command, eval_str=True).parameters.values()
    kept = [one for one in own if one.kind is not inspect.Parameter.VAR_KEYWORD]
    added = [_parameter(one) for one in options.values()]

    @functools.wraps(command)
    def run(*given: Any, **named: Any) -> None:
        values = {name: _plain(named.pop(name)) for name in options if name in named}
        command(*given, **named, **values)

    run.__signature__ = inspect.Signature([*kept, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in [*kept, *added]}
    return run


def _parameter(option: Option) -> inspect.Parameter:
    """Make the parameter of a command for an option."""
    annotation, default = option.annotation, option.default
    if option.choices:
        choices = Enum(f"{option.name}_choices", {one: one for one in option.choices}, type=str)  # type: ignore[misc]
        annotation, default = choices, choices(default)
    described = typer.Option(
        option.flag,
        help=option.help,
        rich_help_panel=option.panel,
        show_default=option.show_default,
    )
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[annotation, described],
    )


def _plain(value: Any) -> Any:
    """Return the value of a choice, and any other value as it is."""
    return value.value if isinstance(value, Enum) else value
