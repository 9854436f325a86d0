"""`talkhead dub`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from talkhead.app.cli.console import print_json, print_lines
from talkhead.app.cli.options import HomeOption, JsonOption, QuietOption


def dub(
    table: Annotated[
        Path | None,
        typer.Argument(
            metavar="JOBS",
            help="Table of jobs, or one job: .csv, .jsonl or .yaml. (default: the jobs already queued)",
        ),
    ] = None,
    workers: Annotated[
        str,
        typer.Option(
            "--workers", help="Number of processes. auto: one per GPU or, without one, per core."
        ),
    ] = "auto",
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", help="Run on a Ray cluster: give its address, or auto."),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Skip invalid rows, and dub the others.")
    ] = False,
    tries: Annotated[
        int, typer.Option("--tries", min=1, help="Give up on a job after this many failures.")
    ] = 3,
    results: Annotated[
        Path | None,
        typer.Option("--results", help="File for the results. (default: JOBS.results.jsonl)"),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, cuda or cuda:0. auto uses all GPUs.")
    ] = "auto",
    home: HomeOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Lip-sync many people to many recordings, listed in a table. An interrupted run resumes.

    Required columns: audio, output, and either identity or video (which is fitted first if necessary).
    Optional columns: mode, renderer, preset, and the options of speak, such as timeline (source: re-lip
    that video, frame by frame), codec, height, background, yaw, pitch, zoom, head_motion, intensity and
    subtitles. Paths are relative to the table.

    A row can dub a whole video: it has video, output, lines (a .srt, .vtt or .json file with timed lines)
    instead of audio, and identity or speakers. Optional: bed, max_speed, max_early, overflow, overlaps.

    The exit code is 0 if every row has been dubbed, in this run or an earlier one. It is 1 if rows were
    skipped with --skip-bad, jobs failed or were cancelled, or the table cannot be read. Without
    --skip-bad, nothing starts while any row is invalid.

    [bold]Examples[/bold]

      talkhead dub lines.csv

      talkhead dub lines.yaml --workers 2 --skip-bad

      talkhead dub movie.yaml

      talkhead dub lines.jsonl --cluster 10.0.0.5:6379
    """
    from talkhead.app.dub import AUTO
    from talkhead.app.dub import dub as run

    if workers != AUTO and not (workers.isdecimal() and int(workers) > 0):
        raise typer.BadParameter("--workers must be auto or an integer of at least 1")
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
    if not result.is_complete:
        raise typer.Exit(1)
