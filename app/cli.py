"""The command line: parses, calls one function, prints its result on stdout."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import shlex
import signal
import sys
import traceback
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from talkhead import __version__
from talkhead.app import cli_dub, cli_speak, cli_verify
from talkhead.app.choices import MOST_SEED
from talkhead.app.cli_options import (
    DeviceOption,
    HomeOption,
    JsonOption,
    QuietOption,
    loading,
    make_progress_for,
)
from talkhead.app.printing import LineHandler, print_json, print_line, print_lines
from talkhead.app.printing import show as show_result
from talkhead.errors import TalkheadError, one_line
from talkhead.storage import named_file, read_text
from talkhead.terminal import printable

if TYPE_CHECKING:
    from talkhead.app.identities import Home

UsageError: type[Any] = typer.BadParameter.__bases__[
    0
]  # click's, of which typer has one of its own
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class Preset(str, Enum):
    """How much work a fit may be."""

    preview = "preview"
    standard = "standard"
    high = "high"


class Commands(TyperGroup):
    """The commands, with every expected error turned into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. --debug lets errors through with their traceback."""
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
            error.message = printable(_plain(error.message))  # names of files are arguments, too
            raise
        except (TalkheadError, ImportError, OSError, MemoryError) as error:
            if ctx.params.get("debug"):
                raise
            _fail(_explain(error))


def _plain(message: str) -> str:
    """What is wrong with an option, without the words of the library that checks types for typer."""
    return message.removeprefix("Value error, ").replace("Input should be", "should be")


def _signal_behind(error: BaseException) -> BaseException | None:
    """What a signal raised inside a numba kernel: it comes as the cause of some SystemErrors."""
    cause: BaseException | None = error
    while isinstance(cause, SystemError):
        cause = cause.__cause__
    return cause if isinstance(cause, KeyboardInterrupt | SystemExit) else None


def _fail_interrupted(ctx: Any) -> NoReturn:
    resumes = " Run the same command again: it goes on where it stopped"
    _fail(
        f"interrupted.{resumes if ctx.invoked_subcommand in ('fit', 'dub') else ''}",
        EXIT_INTERRUPTED,
    )


def _explain(error: Exception) -> str:
    """One line for an expected error; others are raised again."""
    if isinstance(error, TalkheadError):
        return one_line(error)
    if isinstance(error, MemoryError):
        return "not enough memory. Close other programs, or take a shorter or smaller video"
    if isinstance(error, ImportError):
        from talkhead.app.doctor import library_error

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
identities_app = typer.Typer(
    no_args_is_help=True, help="The people you have fitted: list, show, remove, export, import."
)
app.add_typer(identities_app, name="identities")
cli_dub.add_commands(app)
cli_speak.add_commands(app)
cli_verify.add_commands(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        print_line(f"talkhead {__version__}")
        raise typer.Exit


@app.callback()
def talkhead(
    debug: Annotated[bool, typer.Option("--debug", help="Show errors with traceback.")] = False,
    ffmpeg: Annotated[
        Path | None, typer.Option("--ffmpeg", help="Use this ffmpeg program, not the built-in one.")
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """From a minute of footage of a person, a head that says anything in sync.

    [bold]Start here[/bold]

      talkhead fit   --video person.mp4    once per person, some minutes
      talkhead speak --audio line.wav      as often as you like: makes line.mp4

    The video should show one face, frontal and near, that speaks for half a minute or more.
    `talkhead COMMAND --help` tells more about each command.
    """
    if ffmpeg is not None:
        os.environ["TALKHEAD_FFMPEG"] = str(ffmpeg)


@app.command()
def fit(
    video: Annotated[Path, typer.Option("--video", help="Footage of the person, with sound.")],
    name: Annotated[
        str | None, typer.Option("--name", help="The identity's name. (default: the video's)")
    ] = None,
    preset: Annotated[
        Preset, typer.Option("--preset", help="How long to train; high is slowest and best.")
    ] = Preset.standard,
    renderer: Annotated[
        str | None, typer.Option("--renderer", help="gaussian, nerf or warp. (default: gaussian)")
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder", help="Which ears: pase, mel, mfcc, or a file of your own weights."
        ),
    ] = "pase",
    device: DeviceOption = "auto",
    home: HomeOption = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=MOST_SEED, help="Same seed, same result.")
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
    from talkhead.app.identities import name_from_video

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
        print_line(
            f"\nNext: talkhead speak --audio LINE.wav --identity {name}{elsewhere}", sys.stderr
        )


def _ask_consent() -> str | None:
    """The statement that a person at the terminal types, if any."""
    question = (
        "Who is seen in the footage, and how did they agree to this? It is stored with the identity "
        "and said in its videos (Enter: say nothing)"
    )
    answer = typer.prompt(question, default="", show_default=False, err=True)
    return str(answer).strip() or None


@app.command()
def evaluate(
    name: Annotated[
        str | None, typer.Argument(help="The identity. (default: the one fitted last)")
    ] = None,
    audio: Annotated[
        Path | None, typer.Option("--audio", help="Another line to say. (default: the sample's)")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Folder for report.html. (default: in the data folder)"),
    ] = None,
    pair: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--pair", help="Judge any two videos instead: the real one, the made one."),
    ] = None,
    video: Annotated[
        Path | None, typer.Option("--video", help="The footage, if it is not where fit found it.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", help="All that is said in the footage, or a file with it."),
    ] = None,
    language: Annotated[
        str,
        typer.Option(
            "--language", help="Of the speech; in others than en, PASE hears the phonemes."
        ),
    ] = "en",
    seconds: Annotated[
        float, typer.Option("--seconds", min=2.0, help="Judge at most so much.")
    ] = 120.0,
    renderer: Annotated[
        str | None, typer.Option("--renderer", help="(default: the identity's own)")
    ] = None,
    device: DeviceOption = "auto",
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Tell how good an identity is: figures on footage it never saw, and a report to read.

    The last 1/11 of the footage is rendered from the true motion and from its sound, compared with
    the real frames, and put beside baselines. report.html is one file: open it in a browser.

    [bold]Examples[/bold]

      talkhead evaluate anna

      talkhead evaluate anna --audio other.wav --report anna-report

      talkhead evaluate --pair real.mp4 made.mp4
    """
    from talkhead.app import checks

    text = _text_or_file(text)
    if pair is None:
        checks.check_evaluate(
            name, audio, video, report, renderer=renderer, device=device, home=home
        )
    elif name is not None or audio is not None or video is not None:
        raise typer.BadParameter("--pair takes two videos and neither NAME, --audio nor --video")
    else:
        checks.check_pair(*pair, report)
    progress = make_progress_for(as_json, quiet)
    with loading(progress):
        from talkhead.app import evaluate as evaluation
        from talkhead.app.evaluation.report import describe
    options = evaluation.EvaluateOptions(text, language, seconds)
    if pair is not None:
        result = evaluation.evaluate_pair(*pair, report=report, options=options, progress=progress)
    else:
        result = evaluation.evaluate(
            name,
            audio=audio,
            video=video,
            report=report,
            renderer=renderer,
            device=device,
            home=home,
            options=options,
            progress=progress,
        )
    if as_json:
        print_json({"report_path": str(result.report_path), **result.report.to_json()})
    else:
        print_lines(f"{describe(result.report)}\n")
        print_line(f"report: {result.report_path}")


def _text_or_file(text: str | None) -> str | None:
    """What is said: the text itself, or what is in the file of that name."""
    path = named_file(text)
    if path is not None:
        return read_text(path)
    if text is not None and " " not in text.strip() and Path(text).suffix:
        raise TalkheadError(f"{text}: there is no such file. Check the path, or give the text")
    return text


@app.command()
def doctor(
    identity: Annotated[
        str | None,
        typer.Option("--identity", help="Whose speed is measured. (default: the one fitted last)"),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what is installed, what is usable and why not, and how fast this machine speaks."""
    from talkhead.app import doctor as examination

    print_line("Looking around; this takes some seconds, at the first time a minute.", sys.stderr)
    report = examination.examine(_home(home), identity)
    if as_json:
        print_json(report.as_json())
    else:
        print_lines(examination.describe(report))
    if not report.ok:
        raise typer.Exit(1)


@identities_app.command("list")
def list_identities(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """The identities that you have; * marks the one that speak takes by default."""
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
    name: Annotated[str | None, typer.Argument(help="(default: the one fitted last)")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """All that is known of an identity, after checking that its files are undamaged."""
    package = _home(home).load(name)
    show_result(package.manifest, as_json)


@identities_app.command()
def remove(
    name: NameArgument,
    home: HomeOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Delete an identity, finished or not: all pictures and work of its name, its jobs and results.

    Videos that it has spoken in, and the footage, are yours and stay where they are.
    """
    from talkhead.app.removal import remove_identity

    store = _home(home)
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete {printable(name)} for good?", abort=True, err=True)
    for line in remove_identity(store, name).lines():
        print_line(line)


@identities_app.command()
def export(
    name: Annotated[str | None, typer.Argument(help="(default: the one fitted last)")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="(default: NAME.talkhead)")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Pack an identity into one file, to take elsewhere."""
    print_line(str(_home(home).export(name, output)))


@identities_app.command("import")
def import_identity(
    file: Annotated[Path, typer.Argument(help="A file made by export.")],
    name: Annotated[str | None, typer.Option("--name", help="(default: the exported one)")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in place of one.")] = False,
    home: HomeOption = None,
) -> None:
    """Unpack an exported identity, which is then the one that speak takes by default."""
    print_line(str(_home(home).import_(file, name, replace=replace)))


def _home(path: Path | None) -> Home:
    from talkhead.app.scratch import open_home

    return open_home(path)


def _end_politely(signum: int, frame: object) -> NoReturn:
    """A kill, like Ctrl-C, lets blocks tidy up what is half-written."""
    raise SystemExit(EXIT_TERMINATED)


def _print_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Of what --debug lets through or nobody foresaw: its words may be those of a file, too."""
    for part in traceback.format_exception(kind, error, trace):
        print_lines(part.removesuffix("\n"), sys.stderr)


def main() -> None:
    """Run the command line and exit: 0 done, 1 told what was wrong, 2 usage, 130 interrupted."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: waiting threads must sleep
    signal.signal(signal.SIGTERM, _end_politely)
    LineHandler.install()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: not all can write any letter
    try:
        app(prog_name="talkhead")
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    finally:
        sys.excepthook = _print_traceback  # typer has put one of its own there


if __name__ == "__main__":
    main()
