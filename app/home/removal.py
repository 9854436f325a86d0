"""Removal of an identity with all data of the person: images, work, jobs and paths."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from talkhead.app.dub import results_path
from talkhead.app.dubbing.job import FIT, Job
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.dubbing.planner import Checksums
from talkhead.app.home.identities import Home
from talkhead.errors import TalkheadError
from talkhead.identity import MANIFEST_NAME, read_manifest
from talkhead.storage import decode_json, read_json, read_text, write_bytes


@dataclass(frozen=True)
class Removed:
    """What was removed with an identity.

    Attributes:
        folders: Folders of the package, the work and the report.
        jobs: IDs of jobs.
        n_results: Number of lines removed from the results that `dub` keeps in the home folder.
        videos: Videos whose cached checksums were removed.
    """

    folders: tuple[Path, ...]
    jobs: tuple[str, ...]
    n_results: int
    videos: tuple[str, ...]

    def lines(self) -> list[str]:
        """Format the removed items as text.

        Returns:
            One line for each item.
        """
        lines = [f"removed {folder}" for folder in self.folders]
        lines += [f"removed job {job}" for job in self.jobs]
        if self.n_results:
            lines.append(f"removed {self.n_results} lines of results")
        return lines + [f"removed the checksum of {video}" for video in self.videos]


def remove_identity(home: Home, name: str) -> Removed:
    """Remove an identity, finished or not, with its jobs and their results.

    Args:
        home: Folder of the identities.
        name: Name of the identity.

    Returns:
        What was removed.

    Raises:
        PackageError: There is no identity with this name.
        TalkheadError: Permission is missing, or another process works on the identity or one of
            its jobs.
    """
    store = JobStore(home.path / "jobs")
    jobs = _jobs_of(store, home, name)
    if not (home.has(name) or jobs):
        home.remove(name)  # raises: there is none
    digests = {*_digests(home, [name]), *(job.task.digest for job in jobs if job.task.kind == FIT)}
    digests |= {digest for _, digest in home.sources(name)}
    with store.removing(jobs):
        folders = home.remove(name) if home.has(name) else []
    others = _digests(home, home.names())
    others |= {digest for other in home.unfinished() for _, digest in home.sources(other)}
    return Removed(
        tuple(folders),
        tuple(job.id for job in jobs),
        _remove_results(results_path(home), {name, *(job.id for job in jobs)}),
        tuple(Checksums.of_home(home).forget(digests - others - {""})),
    )


def _jobs_of(store: JobStore, home: Home, name: str) -> list[Job]:
    """List the jobs of an identity, whether they give its name or its folder."""
    names = {name, str(home.identities_dir / name)}
    return [job for job in store.jobs() if names & {*job.task.identities}]


def _digests(home: Home, names: Iterable[str]) -> set[str]:
    """Collect the SHA-256 of the footage of identities, as far as their packages can be read."""
    found = set()
    for name in names:
        path = home.identities_dir / name
        try:
            found.add(read_manifest(read_json(path / MANIFEST_NAME), path).source.sha256)
        except TalkheadError:  # there is none, or it is damaged
            continue
    return found


def _remove_results(path: Path, names: Collection[str]) -> int:
    """Remove the results of identities or jobs of these names; return the number of lines removed."""
    if not path.is_file():
        return 0
    lines = read_text(path).splitlines(keepends=True)
    kept = [line for line in lines if not _is_about(line, names)]
    if len(kept) < len(lines):
        write_bytes(path, "".join(kept).encode())
    return len(lines) - len(kept)


def _is_about(line: str, names: Collection[str]) -> bool:
    try:
        record = decode_json(line)
    except ValueError:
        return False
    return isinstance(record, dict) and any(
        str(record.get(key)) in names for key in ("identity", "id")
    )
