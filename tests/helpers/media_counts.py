"""Count how often a video is hashed, probed and decoded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from talkhead import storage
from talkhead.media import probing, process, reader


@dataclass
class MediaCounts:
    """Accesses to one video.

    Attributes:
        video: The video whose accesses are counted.
        n_hashed: Calls of sha256_of.
        n_probed: Calls of probe, including those of probe_footage.
        n_described: Runs of ffmpeg that list its streams.
        decoded: Each decoding of the picture, as (first frame, number of frames read).
        n_sound: Decodings of the audio.
    """

    video: Path
    n_hashed: int = 0
    n_probed: int = 0
    n_described: int = 0
    decoded: list[tuple[int, int]] = field(default_factory=list)
    n_sound: int = 0

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        """Count from now on, until the patch is undone."""
        sha256_of, probe, report = storage.sha256_of, probing.probe, process.report
        frames, chunks = reader._frames, reader._chunks

        def counted_sha256_of(path: Path) -> str:
            self.n_hashed += self._is_video(path)
            return sha256_of(path)

        def counted_probe(path: Any) -> Any:
            self.n_probed += self._is_video(path)
            return probe(path)

        def counted_report(*arguments: str, **options: Any) -> str:
            self.n_described += any(str(self.video) in argument for argument in arguments)
            return report(*arguments, **options)

        def counted_frames(about: Any, first: int, *more: Any) -> Iterator[Any]:
            n_read = 0
            try:
                for frame in (source := frames(about, first, *more)):
                    n_read += 1
                    yield frame
            finally:
                source.close()
                if self._is_video(about.info.path):
                    self.decoded.append((first, n_read))

        def counted_chunks(info: Any, *more: Any) -> Iterator[Any]:
            self.n_sound += self._is_video(info.path)
            yield from chunks(info, *more)

        _replace_everywhere(patch, sha256_of, counted_sha256_of)
        _replace_everywhere(patch, probe, counted_probe)
        _replace_everywhere(patch, report, counted_report)
        _replace_everywhere(patch, frames, counted_frames)
        _replace_everywhere(patch, chunks, counted_chunks)

    def _is_video(self, path: Any) -> bool:
        return Path(path).resolve() == self.video.resolve()


def _replace_everywhere(
    patch: pytest.MonkeyPatch, original: Callable[..., Any], wrapper: Callable[..., Any]
) -> None:
    """Replace a function under every name by which modules of talkhead refer to it."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("talkhead"):
            for name, value in list(vars(module).items()):
                if value is original:
                    patch.setattr(module, name, wrapper)
