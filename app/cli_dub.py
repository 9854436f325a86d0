"""The commands on many lines: dub, and jobs list, show, retry, cancel."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from talkhead.app.cli_options import JsonOption
from talkhead.app.printing import print_json, print_line, print_lines, show

if TYPE_CHECKING:
    from talkhead.app.jobs import Job, JobStore

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of identities and jobs. (default: your data folder)"),
]

jobs_app = typer.Typer(
    no_args_is_help=True, help="What dub has done and has to do: list, show, retry, cancel."
)


def add_commands(app: typer.Typer) -> None:
    """Let the command line have these commands."""
    app.command()(dub)
    app.add_typer(jobs_app, name="jobs")


def dub(
    table: Annotated[
        Path | None,
        typer.Argument(
            metavar="JOBS", help=".csv, .jsonl or .yaml. (default: whatever is still queued)"
        ),
    ] = None,
    workers: Annotated[
        str, typer.Option("--workers", help="Processes; auto is one a GPU, or one a core.")
    ] = "auto",
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", help="Work on a Ray cluster: its address, or auto."),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out wrong rows, and dub the others.")
    ] = False,
    tries: Annotated[
        int, typer.Option("--tries", min=1, help="Set a job aside after so many failures.")
    ] = 3,
    results: Annotated[
        Path | None,
        typer.Option("--results", help="Where to write them. (default: JOBS.results.jsonl)"),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, cuda or cuda:0. auto takes all GPUs.")
    ] = "auto",
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Dub many lines, of many people: a table in, videos out. Interrupted, it goes on where it was.

    Columns: audio, output, and who speaks: identity, or video (fitted first where need be). Further
    ones: timeline (source: re-lip that video, frame by frame), mode, renderer, preset, and the
    options of speak: codec, height, background, yaw, pitch, zoom, subtitles, transcript, ...
    Paths are relative to the table.

    The exit code is 0 when every row is dubbed, now or before; 1 when some are not: rows that were
    left out with --skip-bad, lines set aside or cancelled, or a table that can't be read. Without
    --skip-bad nothing starts while a row is wrong.

    [bold]Examples[/bold]

      talkhead dub lines.csv

      talkhead dub lines.yaml --workers 2 --skip-bad

      talkhead dub lines.jsonl --cluster 10.0.0.5:6379
    """
    from talkhead.app.dub import AUTO
    from talkhead.app.dub import dub as run

    if workers != AUTO and not (workers.isdecimal() and int(workers) > 0):
        raise typer.BadParameter("--workers is a number from 1 on, or auto")
    result = run(
        table,
        workers=workers if workers == AUTO else int(workers),
        cluster=cluster,
        home=home,
        device=device,
        skip_bad=skip_bad,
        tries=tries,
        results=results,
        style="silent" if quiet else "json" if as_json else "bars",
    )
    if as_json:
        print_json(result)
    else:
        print_lines(result.summary)
    if not result.is_whole:
        raise typer.Exit(1)


IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Jobs, or how their ids begin.")
]


@jobs_app.command("list")
def list_jobs(
    status: Annotated[
        list[str] | None,
        typer.Option("--status", help="queued, running, done, failed or cancelled. (default: all)"),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The jobs that there are, and why those set aside failed."""
    from talkhead.app.jobs import STATUSES

    if unknown := sorted(set(status or ()) - set(STATUSES)):
        raise typer.BadParameter(
            f"there is no status {unknown[0]}; there are {', '.join(STATUSES)}"
        )
    store = _store(home)
    jobs = store.jobs(status or STATUSES)
    for path in store.damaged():
        print_line(
            f"{path}: damaged, this is no job. Remove it, and run the same talkhead dub again",
            sys.stderr,
        )
    if as_json:
        print_json([dataclasses.asdict(job) for job in jobs])
        return
    for job in jobs:
        reason = f"  {job.reason}" if job.reason else ""
        print_line(f"{job.status:<9} {job.id}  {job.task.output}{reason}")
    counts = {name: sum(job.status == name for job in jobs) for name in STATUSES}
    print_line(", ".join(f"{n} {name}" for name, n in counts.items()), sys.stderr)


@jobs_app.command("show")
def show_job(
    job: Annotated[str, typer.Argument(metavar="ID", help="The job, or how its id begins.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """All that is known of a job."""
    show(_choose(_store(home), [job], ())[0], as_json)


@jobs_app.command("retry")
def retry_jobs(ids: IdsArgument = None, home: HomeOption = None) -> None:
    """Queue jobs again that were set aside or cancelled; without an ID, all that were set aside."""
    from talkhead.app.jobs import FAILED

    store = _store(home)
    moved = store.retry([job.id for job in _choose(store, ids or [], (FAILED,))])
    print_lines("\n".join(f"queued {job_id}" for job_id in moved) or "nothing to try again")


@jobs_app.command("cancel")
def cancel_jobs(ids: IdsArgument = None, home: HomeOption = None) -> None:
    """Cancel jobs, running ones too; without an ID, all that are queued or running."""
    from talkhead.app.jobs import QUEUED, RUNNING

    store = _store(home)
    moved = store.cancel([job.id for job in _choose(store, ids or [], (QUEUED, RUNNING))])
    print_lines("\n".join(f"cancelled {job_id}" for job_id in moved) or "nothing to cancel")


def _store(home: Path | None) -> JobStore:
    from talkhead.app.jobs import JobStore
    from talkhead.app.scratch import open_home

    return JobStore(open_home(home).path / "jobs")


def _choose(store: JobStore, ids: list[str], statuses: tuple[str, ...]) -> list[Job]:
    from talkhead.app.jobs import choose_jobs

    return choose_jobs(store, ids, statuses)
