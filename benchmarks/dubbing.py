"""Dubbing at scale: throughput, start-up of a job, kills, an hour of audio, many jobs in the store.

    python -m benchmarks.dubbing --home HOME [throughput startup kills long store] [--jobs 100]

HOME has a fitted identity. Prints JSON lines. Commands run in separate processes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.__main__ import SAMPLES, line_of, run
from talkhead.app.dubbing.job import Task
from talkhead.app.dubbing.job_store import JobStore
from talkhead.processors import n_cores
from talkhead.types import FRAME_RATE

LINE_S = 5.0
HELPERS = Path(__file__).parents[1] / "tests" / "helpers"


def table_of(folder: Path, identity: str, audio: Path, n_jobs: int) -> Path:
    """Write a table of n_jobs rows, all with the same audio."""
    rows = [f"{identity},{audio},out/{number}.mp4" for number in range(n_jobs)]
    path = folder / "jobs.csv"
    path.write_text("\n".join(["identity,audio,output", *rows]) + "\n")
    return path


@contextmanager
def fresh_jobs(home: Path) -> Any:
    """Make a home with the same identities, as links, and no jobs."""
    with tempfile.TemporaryDirectory(prefix="talkhead-bench-") as name:
        (Path(name) / "identities").symlink_to(home / "identities")
        (Path(name) / "latest.json").write_bytes((home / "latest.json").read_bytes())
        yield Path(name)


def identity_of(home: Path) -> str:
    return str(json.loads((home / "latest.json").read_text())["name"])


# ----------------------------------------------------------------------------- throughput


def bench_throughput(home: Path, n_jobs: int) -> Mapping[str, Any]:
    """Compare dub with n_jobs rows to one speak process per core with the same total length.

    Measures wall-clock time, including start-up, and the processor time of all processes, which
    other programs on the machine affect less. ratio: dub's throughput divided by that of speak, by
    wall-clock time and by processor time.
    """
    cores = n_cores()
    with fresh_jobs(home) as own:
        audio = line_of(SAMPLES / "line.wav", LINE_S, own)
        line = line_of(SAMPLES / "line.wav", LINE_S * n_jobs / cores, own)
        table = table_of(own, identity_of(home), audio, n_jobs)
        common = ["--home", str(own), "--quiet"]
        speak = side_by_side(
            [
                ["speak", "--audio", str(line), "-o", str(own / f"{n}.mp4"), *common]
                for n in range(cores)
            ],
            {"OMP_NUM_THREADS": "1"},
        )
        dub = side_by_side([["dub", str(table), "--workers", str(cores), *common]], {})
    n_frames = round(LINE_S * FRAME_RATE) * n_jobs
    return {
        "benchmark": "dubbing throughput",
        "jobs": n_jobs,
        "workers": cores,
        "dub_s": round(dub[0], 1),
        "dub_frames_per_s": round(n_frames / dub[0], 1),
        "dub_cpu_ms_per_frame": round(1e3 * dub[1] / n_frames, 2),
        "speak_s": round(speak[0], 1),
        "speak_frames_per_s": round(n_frames / speak[0], 1),
        "speak_cpu_ms_per_frame": round(1e3 * speak[1] / n_frames, 2),
        "ratio_wall": round(speak[0] / dub[0], 3),
        "ratio_cpu": round(speak[1] / dub[1], 3),
    }


def side_by_side(commands: list[list[str]], environment: Mapping[str, str]) -> tuple[float, float]:
    """Run talkhead commands at the same time; returns wall-clock time and processor time of all
    their processes, in seconds.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "talkhead.app.cli.main", *command],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
        )
        for command in commands
    ]
    if any(process.wait() for process in processes):
        raise SystemExit("talkhead failed")
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# -------------------------------------------------------------------------------- start-up


class _Moments:
    """A Progress that records when the first and the last frame were rendered."""

    def __init__(self) -> None:
        self.first = self.last = 0.0

    @contextmanager
    def step(self, name: str, total: int | None = None, done: int = 0) -> Any:
        self._is_rendering = name == "Rendering"
        yield self

    def advance(self, n: int = 1) -> None:
        if self._is_rendering:
            self.last = time.perf_counter()
            self.first = self.first or self.last

    def detail(self, text: str) -> None:
        pass

    def skip(self, reason: str) -> None:
        pass

    def message(self, text: str) -> None:
        pass


def bench_startup(home: Path) -> Mapping[str, Any]:
    """Measure the overhead of a job in a worker that has loaded the identity; medians of 9.

    to_first_frame_s: from the job's start to its first frame, which includes encoding the whole
    audio. after_last_frame_s: the end of video encoding, joining, audio, tags, signature.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    from talkhead.app.dubbing.task_runner import TaskRunner

    run_task, figures = TaskRunner(home, "cpu"), []
    with tempfile.TemporaryDirectory(prefix="talkhead-bench-") as name:
        audio = line_of(SAMPLES / "line.wav", LINE_S, Path(name))
        for number in range(10):
            work = Path(name) / str(number)
            (work / "products").mkdir(parents=True)
            task = Task("line", identity_of(home), audio=str(audio), output="line.mp4")
            moments, start = _Moments(), time.perf_counter()
            run_task(task, work, work / "products", moments)
            end = time.perf_counter()
            figures.append((moments.first - start, end - moments.last, end - start))
    first, *rest = figures
    median = [sorted(column)[len(rest) // 2] for column in zip(*rest, strict=True)]
    return {
        "benchmark": "start-up of a job",
        "audio_s": LINE_S,
        "first_job_to_first_frame_s": round(first[0], 3),
        "to_first_frame_s": round(median[0], 3),
        "after_last_frame_s": round(median[1], 3),
        "whole_job_s": round(median[2], 3),
    }


# ------------------------------------------------------------------------ kills, long, store


def bench_kills(home: Path, n_kills: int = 500) -> Mapping[str, Any]:
    """Run small jobs with a cheap renderer under random kills: each must be done exactly once."""
    sys.path.insert(0, str(HELPERS))
    from killing import run_with_kills

    with tempfile.TemporaryDirectory(prefix="talkhead-bench-") as name:
        outcome = run_with_kills(Path(name) / "home", n_kills, n_kills, seed=1, chance=0.02)
    return {"benchmark": "kills", **asdict(outcome), "seconds": round(outcome.seconds, 1)}


def bench_long(home: Path, minutes: tuple[float, ...] = (1.0, 60.0)) -> list[Mapping[str, Any]]:
    """Measure peak memory of speak, and the difference in length between picture and audio."""
    from talkhead.media.reader import probe, read_audio_chunks

    results = []
    with tempfile.TemporaryDirectory(prefix="talkhead-bench-") as name:
        for minute in minutes:
            line = line_of(SAMPLES / "line.wav", 60.0 * minute, Path(name))
            output = Path(name) / "long.mp4"
            words = ["speak", "--audio", str(line), "-o", str(output), "--home", str(home)]
            cost, printed = run([*words, "--quiet", "--json"])
            n_frames = json.loads(printed)["n_frames"]
            n_samples = sum(len(chunk) for chunk in read_audio_chunks(output))
            results.append(
                {
                    "benchmark": "long audio",
                    "audio_s": 60.0 * minute,
                    "seconds": cost.seconds,
                    "frames_per_s": round(n_frames / cost.seconds, 1),
                    "peak_mib": cost.peak_mib,
                    "sound_minus_picture_s": round(n_samples / 16_000 - n_frames / FRAME_RATE, 4),
                    "container_s": probe(output).duration_s,
                }
            )
    return results


def bench_store(home: Path, n_jobs: int = 10_000) -> Mapping[str, Any]:
    """Measure reading a table of n_jobs rows, adding its jobs, listing them, and adding them again."""
    from talkhead.app.dubbing.planner import plan
    from talkhead.app.dubbing.table import read_table
    from talkhead.app.home.identities import Home

    with tempfile.TemporaryDirectory(prefix="talkhead-bench-") as name:
        folder = Path(name)
        rows = []
        for number in range(n_jobs):
            (folder / f"{number}.wav").write_bytes(b"sound")
            rows.append(f"anna,{number}.wav,out/{number}.mp4")
        (folder / "t.csv").write_text("\n".join(["identity,audio,output", *rows]))
        store = JobStore(folder / "jobs")
        seconds: dict[str, float] = {}

        def timed(what: str, call: Callable[[], Any]) -> Any:
            start = time.perf_counter()
            result = call()
            seconds[what] = round(time.perf_counter() - start, 2)
            return result

        table = timed("read_table_s", lambda: read_table(folder / "t.csv", lambda text, path: text))
        tasks = plan(table.rows, Home(folder))
        timed("first_add_s", lambda: store.add(tasks))
        timed("list_s", store.jobs)
        timed("resume_s", lambda: (store.recover(), store.add(tasks), store.jobs()))
    return {"benchmark": "job store", "jobs": n_jobs, **seconds}


def main() -> None:
    """Print the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dubbing", description=__doc__)
    names = ("store", "startup", "throughput", "kills", "long")
    parser.add_argument("what", nargs="*", default=[], help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=100)
    chosen = parser.parse_args()
    for what in chosen.what or names:
        if what == "throughput":
            results: Any = bench_throughput(chosen.home, chosen.jobs)
        else:
            benches: dict[str, Callable[[Path], Any]] = {
                "startup": bench_startup, "kills": bench_kills, "long": bench_long,
                "store": bench_store,
            }  # fmt: skip
            results = benches[what](chosen.home)
        for result in results if isinstance(results, list) else [results]:
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
