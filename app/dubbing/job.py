"""Tasks and jobs of batch dubbing, as they are stored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from talkhead.app.dubbing.video_dub import LineSettings
from talkhead.app.home.identities import name_from_video
from talkhead.app.request import named_files
from talkhead.config import bounded
from talkhead.storage import fingerprint, fingerprint_of_text

STATUSES = ("queued", "running", "done", "failed", "cancelled")
QUEUED, RUNNING, DONE, FAILED, CANCELLED = STATUSES
FORMAT = 1
SPEAK, FIT, DUB = "line", "fit", "dub"
"""Kinds of tasks, as they are stored."""
FIT_PREFIX = f"{FIT}-"
"""Prefix of the IDs of fits."""
PACKAGE = "package"
"""Key in the result: the `package_fingerprint` of the identity package that the job used."""


@dataclass(frozen=True)
class Task:
    """Description of the work of a job. Paths are absolute; "" means that a value is not set.

    Attributes:
        kind: SPEAK, to render a video, FIT, to fit an identity, or DUB, to dub a whole video.
        identity: Name of the identity, or the folder of its package; of the first speaker if there are
            several.
        audio: The speech.
        output: The video to write; "" for a fit.
        video: The footage to fit, or the footage that is re-lipped frame by frame.
        digest: SHA-256 of the footage to fit.
        renderer: Name of the renderer; "" is the identity's default.
        mode: Mode of `speak`.
        preset: Preset of a fit.
        options: The fields of OutputOptions, or of FitOptions for a fit, that were given, as JSON
            values.
        needs: ID of the job that must be done before this one.
        dub: The lines of a whole video.
    """

    kind: str
    identity: str
    audio: str = ""
    output: str = ""
    video: str = ""
    digest: str = ""
    renderer: str = ""
    mode: str = "paste"
    preset: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: str = ""
    dub: LineSettings | None = None

    @property
    def identities(self) -> tuple[str, ...]:
        """All identities that the task uses, each once."""
        speakers = () if self.dub is None else self.dub.speakers.values()
        return tuple(dict.fromkeys((self.identity, *speakers)))

    @property
    def id(self) -> str:
        """Readable ID of the job: the same for every task with this output. The ID of a fit is derived
        from the identity, the renderer and the checksum of the footage."""
        is_fit = self.kind == FIT
        goal = Path(self.identity if is_fit else self.output)
        what = f"{FIT} {self.renderer} {self.digest}" if is_fit else SPEAK
        digest = fingerprint_of_text(f"{what} {goal}")[:10]
        return f"{FIT_PREFIX if is_fit else ''}{name_from_video(goal)[:40]}-{digest}"

    @property
    def files(self) -> list[Path]:
        """The input files: audio, footage, lines with what they name, and files that the options name."""
        return [
            *(Path(path) for path in (self.audio, self.video) if path),
            *([] if self.dub is None else self.dub.files),
            *named_files(self.options),
        ]

    def with_identities(self, places: Mapping[str, str]) -> Task:
        """Replace identities.

        Args:
            places: New names or folders by the old ones.

        Returns:
            The task.
        """
        dub = self.dub
        if dub is not None:
            speakers = {name: places.get(one, one) for name, one in dub.speakers.items()}
            dub = replace(dub, speakers=speakers)
        return replace(self, identity=places.get(self.identity, self.identity), dub=dub)

    def fingerprint(self) -> str:
        """Hash the task together with the size and modification time of its input files.

        Returns:
            16 hexadecimal digits.
        """
        files = [_file_state(path) for path in self.files]
        what = {name: value for name, value in asdict(self).items() if name != "needs"}
        if self.dub is None:  # as before there were whole videos: jobs that are done stay so
            del what["dub"]
        return fingerprint([what, files], ensure_ascii=False)[:16]


def _file_state(path: Path) -> list[int]:
    """Return size in bytes and modification time in ns; nothing for a missing file."""
    try:
        state = os.stat(path)
    except OSError:
        return []
    return [state.st_size, state.st_mtime_ns]


@dataclass(frozen=True)
class Job:
    """A task and its state.

    Attributes:
        id: The task's ID.
        status: One of STATUSES; the folder that holds the job's file.
        task: The work to do.
        order: Position in the queue.
        made_of: The task's fingerprint when the job was added.
        tries: Number of failures.
        retry_at: Unix time before which the job is not retried.
        reason: Reason of the last failure.
        result: Values recorded when the job was done; empty until then.
    """

    id: str
    status: str
    task: Task
    order: int
    made_of: str
    tries: int = bounded(0, 0, 1_000_000)
    retry_at: float = bounded(0.0, 0.0, 1e12)
    reason: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the job's file. The status is given by the folder alone."""
        return {"format": FORMAT, **{k: v for k, v in asdict(self).items() if k != "status"}}
