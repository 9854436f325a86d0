"""`talkhead jobs`: list, show, retry and cancel the jobs of `dub`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from talkhead.app.cli.console import print_json, print_line, print_lines, show
from talkhead.app.cli.options import HomeOption, JsonOption

if TYPE_CHECKING:
    from talkhead.app.dubbing.job import Job
    from talkhead.app.dubbing.job_store import JobStore

jobs_app = typer.Typer(no_args_is_help=True, help="Jobs of dub: list, show, retry, cancel.")


IdsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help="IDs of jobs, or their first characters."),
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
    """List the jobs, and why they failed."""
    from talkhead.app.dubbing.job import STATUSES

    if unknown := sorted(set(status or ()) - set(STATUSES)):
        raise typer.BadParameter(
            f"there is no status {unknown[0]}; there are {', '.join(STATUSES)}"
        )
    store = _store(home)
    jobs = store.jobs(status or STATUSES)
    for path in store.damaged():
        print_line(
            f"{path}: damaged. Remove it, and run the same talkhead dub again",
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
    job: Annotated[
        str, typer.Argument(metavar="ID", help="ID of the job, or its first characters.")
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a job."""
    show(_choose(_store(home), [job], ())[0], as_json)


@jobs_app.command("retry")
def retry_jobs(ids: IdsArgument = None, home: HomeOption = None) -> None:
    """Queue failed or cancelled jobs again; without an ID, all that failed."""
    from talkhead.app.dubbing.job import FAILED

    store = _store(home)
    moved = store.retry([job.id for job in _choose(store, ids or [], (FAILED,))])
    print_lines("\n".join(f"queued {job_id}" for job_id in moved) or "nothing to retry")


@jobs_app.command("cancel")
def cancel_jobs(ids: IdsArgument = None, home: HomeOption = None) -> None:
    """Cancel jobs, including running ones; without an ID, all that are queued or running."""
    from talkhead.app.dubbing.job import QUEUED, RUNNING

    store = _store(home)
    moved = store.cancel([job.id for job in _choose(store, ids or [], (QUEUED, RUNNING))])
    print_lines("\n".join(f"cancelled {job_id}" for job_id in moved) or "nothing to cancel")


def _store(home: Path | None) -> JobStore:
    from talkhead.app.dubbing.job_store import JobStore
    from talkhead.app.home.scratch import open_home

    return JobStore(open_home(home).path / "jobs")


def _choose(store: JobStore, ids: list[str], statuses: tuple[str, ...]) -> list[Job]:
    from talkhead.app.dubbing.job_store import choose_jobs

    return choose_jobs(store, ids, statuses)
