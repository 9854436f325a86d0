"""Measure the duration and memory of each stage of a fit, and store them next to the work."""

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
    """Times stages and stores the results in a file.

    The times of a stage that was interrupted and resumed are added; the time of a run that was killed is
    lost. A stage that is run again keeps the longer time, since finished work is only read. The
    peak memory is that of the process up to the end of the stage.
    """

    def __init__(self, path: Path) -> None:
        """Read earlier results.

        Args:
            path: The file.
        """
        self._path = path
        self._stages = {stage.name: stage for stage in read_stages(path)}
        self._cut = set(_read(path).interrupted)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block, even if it ends with an error or Ctrl-C.

        Args:
            name: Name of the stage.

        Yields:
            None.

        Raises:
            TalkheadError: The file cannot be written.
        """
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
    """Read the stages of a file.

    Args:
        path: The file that a `StageClock` has written.

    Returns:
        Its stages; none where it is missing or damaged.
    """
    return _read(path).stages


@dataclass(frozen=True)
class _Held:
    """Content of the file: the stages, and the names of those that were interrupted."""

    stages: tuple[Stage, ...] = ()
    interrupted: tuple[str, ...] = ()


def _read(path: Path) -> _Held:
    try:
        return read_object(path, _Held, "") if path.exists() else _Held()
    except PackageError:
        return _Held()


def peak_mib() -> float:
    """Return the peak memory of this process.

    Returns:
        MiB; 0 where the system does not provide it.
    """
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


@dataclass(frozen=True)
class Stage:
    """Resources that a stage took on this machine.

    Attributes:
        name: Name of the stage.
        seconds: Duration.
        peak_mib: Peak memory of the process, MiB.
        frames_per_s: Frames made per second; None for a stage that makes no frames.
    """

    name: str
    seconds: float
    peak_mib: float
    frames_per_s: float | None = None
