"""What each stage of a fit took on this machine: seconds and memory, kept beside the work."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from talkhead.config import read_object
from talkhead.errors import PackageError
from talkhead.storage import write_json


class StageClock:
    """Times stages and keeps what they took in a file.

    A stage that was interrupted and is gone on with adds up; what a kill cut off is lost. One that is
    run again keeps the longer time: done work is only read. peak_mib: the process's, until then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stages = {stage.name: stage for stage in read_stages(path)}
        self._cut = set(_read(path).interrupted)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block under a name, also when it ends by an error or Ctrl-C."""
        start = time.perf_counter()
        done = False
        try:
            yield
            done = True
        finally:
            before = self._stages.get(name, Stage(name, 0.0, 0.0))
            own = time.perf_counter() - start
            seconds = before.seconds + own if name in self._cut else max(before.seconds, own)
            self._stages[name] = Stage(name, round(seconds, 2), max(before.peak_mib, peak_mib()))
            self._cut = self._cut - {name} if done else self._cut | {name}
            stages = [asdict(stage) for stage in self._stages.values()]
            write_json(self._path, {"stages": stages, "interrupted": sorted(self._cut)})


def read_stages(path: Path) -> tuple[Stage, ...]:
    """What the stages took; nothing where the file is missing or damaged."""
    return _read(path).stages


@dataclass(frozen=True)
class _Held:
    """What the file holds: the stages, and the names of those that were interrupted."""

    stages: tuple[Stage, ...] = ()
    interrupted: tuple[str, ...] = ()


def _read(path: Path) -> _Held:
    try:
        return read_object(path, _Held, "") if path.exists() else _Held()
    except PackageError:
        return _Held()


def peak_mib() -> float:
    """The most memory that this process has held so far, MiB; 0 where the system doesn't tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


@dataclass(frozen=True)
class Stage:
    """What a stage took on this machine. frames_per_s: None where no frames are made."""

    name: str
    seconds: float
    peak_mib: float
    frames_per_s: float | None = None
