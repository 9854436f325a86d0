"""The command line: parse, call one function, print its result on stdout."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from talkhead import __version__
from talkhead.app.cli.console import LineHandler, print_line, print_lines
from talkhead.app.cli.doctor import doctor
from talkhead.app.cli.dub import dub
from talkhead.app.cli.evaluate import evaluate
from talkhead.app.cli.export_web import export_web
from talkhead.app.cli.fit import fit
from talkhead.app.cli.identities import identities_app
from talkhead.app.cli.jobs import jobs_app
from talkhead.app.cli.serve import serve
from talkhead.app.cli.speak import speak
from talkhead.app.cli.verify import verify
from talkhead.errors import TalkheadError, one_line
from talkhead.terminal import printable

UsageError: type[Any] = typer.BadParameter.__bases__[
    0
]  # of click, which recent versions of typer include
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class Commands(TyperGroup):
    """The commands. Expected errors are printed as one line, with an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Args:
            ctx: Context of click. With --debug, errors are raised with their traceback.

        Returns:
            The result of the command.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _fail_interrupted(ctx)
        except SystemError as error:
            signalled = _signal_behind(error)
            if isinstance(signalled, KeyboardInterrupt):
                _fail_interrupted(ctx)
            raise signalled or error from None
        except UsageError as error:
            error.message = printable(_plain(error.message))  # it may quote a file name
            raise
        except (TalkheadError, ImportError, OSError, MemoryError) as error:
            if ctx.params.get("debug"):
                raise
            _fail(_explain(error))


def _plain(message: str) -> str:
    """Remove the wording of the validation library from a message about an option."""
    return message.removeprefix("Value error, ").replace("Input should be", "should be")


def _signal_behind(error: BaseException) -> BaseException | None:
    """Return the exception that a signal raised inside a numba kernel, which wraps it in
    SystemErrors; None for other errors."""
    cause: BaseException | None = error
    while isinstance(cause, SystemError):
        cause = cause.__cause__
    return cause if isinstance(cause, KeyboardInterrupt | SystemExit) else None


def _fail_interrupted(ctx: Any) -> NoReturn:
    resumes = " Run the same command again to resume"
    _fail(
        f"interrupted.{resumes if ctx.invoked_subcommand in ('fit', 'dub') else ''}",
        EXIT_INTERRUPTED,
    )


def _explain(error: Exception) -> str:
    """Format an expected error as one line; others are raised again."""
    if isinstance(error, TalkheadError):
        return one_line(error)
    if isinstance(error, MemoryError):
        return "not enough memory. Close other programs, or use a shorter or smaller video"
    if isinstance(error, ImportError):
        from talkhead.app.doctor.installation import library_error

        explained = library_error(error)
        if explained is None:
            raise error
        return str(explained)
    if isinstance(error, OSError) and isinstance(error.filename, str):
        from talkhead.storage import explain_os_error

        return f"{error.filename}: {explain_os_error(error, Path(error.filename))}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror or error}. Free some space and run the same command again"
    raise error


def _fail(message: str, status: int = 1) -> NoReturn:
    print_line(f"talkhead: {message}", sys.stderr)
    raise SystemExit(status)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (fit, speak, dub, serve, export_web, evaluate, verify, doctor):
    app.command()(command)
app.add_typer(identities_app, name="identities")
app.add_typer(jobs_app, name="jobs")


def _show_version(wanted: bool) -> None:
    if wanted:
        print_line(f"talkhead {__version__}")
        raise typer.Exit


@app.callback()
def talkhead(
    debug: Annotated[bool, typer.Option("--debug", help="Show errors with a traceback.")] = False,
    ffmpeg: Annotated[
        Path | None,
        typer.Option("--ffmpeg", help="Use this ffmpeg program instead of the included one."),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Turn one minute of video of a person into a talking head that lip-syncs to any audio, on a
    laptop CPU.

    [bold]Start here[/bold]

      talkhead fit   --video person.mp4    once per person; takes minutes
      talkhead speak --audio line.wav      any number of times; writes line.mp4

    The video should show one person up close, facing the camera, speaking for half a minute or more.
    `talkhead COMMAND --help` describes each command.
    """
    if ffmpeg is not None:
        os.environ["TALKHEAD_FFMPEG"] = str(ffmpeg)


def _exit_on_signal(signum: int, frame: object) -> NoReturn:
    """Exit on SIGTERM as on Ctrl-C, so that context managers clean up."""
    raise SystemExit(EXIT_TERMINATED)


def _print_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print a traceback, with escaped control characters: messages may quote a file."""
    for part in traceback.format_exception(kind, error, trace):
        print_lines(part.removesuffix("\n"), sys.stderr)


def main() -> None:
    """Run the command line, and exit: 0 done, 1 expected error, 2 wrong usage, 130 interrupted."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: waiting threads must sleep
    signal.signal(signal.SIGTERM, _exit_on_signal)
    LineHandler.install()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # as stderr does: not every terminal encodes all characters
    try:
        app(prog_name="talkhead")
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    finally:
        sys.excepthook = _print_traceback  # typer has replaced it


if __name__ == "__main__":
    main()
