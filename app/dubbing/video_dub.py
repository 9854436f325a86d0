"""Dubbing of a whole video: its people speak timed lines, in its footage and over its sound."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from talkhead.app.dubbing.line_planner import PlacementLimits
from talkhead.app.dubbing.timed_lines import named_audio, with_audio
from talkhead.app.request import OutputOptions
from talkhead.storage import make_folder, write_bytes

ORIGINAL, NO_BED = "original", "none"
"""Sound under the lines: that of the video, or nothing; otherwise the path of a file."""


@dataclass(frozen=True)
class LineSettings:
    """The lines of a whole video, as a table and a job describe them. Paths are absolute.

    Attributes:
        lines: File with timed lines; see `talkhead.app.dubbing.timed_lines`.
        speakers: Identity of each speaker, by their name in the lines; empty if one person speaks.
        bed: ORIGINAL, NO_BED, or the path of a file with music and effects.
        limits: How far lines may depart from their places.
    """

    lines: str
    speakers: Mapping[str, str] = field(default_factory=dict)
    bed: str = ORIGINAL
    limits: PlacementLimits = field(default_factory=PlacementLimits)

    @property
    def bed_file(self) -> Path | None:
        """The file with music and effects, if one is given."""
        return None if self.bed in (ORIGINAL, NO_BED) else Path(self.bed)

    @property
    def files(self) -> list[Path]:
        """The input files: the lines, the bed, and the audio that the lines name."""
        lines = Path(self.lines)
        bed = [] if self.bed_file is None else [self.bed_file]
        return [lines, *bed, *named_audio(lines)]

    def moved(self, places: Mapping[str, str], folder: Path) -> LineSettings:
        """Replace the paths of input files that were copied to another machine.

        Args:
            places: New paths by the old ones.
            folder: Folder of the new files. If the lines name any of them, it gets lines that name them
                relative to it: equal on every machine, so that work on them can be resumed.

        Returns:
            The settings.

        Raises:
            TalkheadError: The lines cannot be read or written.
        """
        lines = Path(places.get(self.lines, self.lines))
        moved = {
            old: os.path.relpath(new, folder)
            for old, new in places.items()
            if Path(new).is_relative_to(folder)
        }
        if lines.suffix.lower() == ".json" and moved:
            content = with_audio(lines, Path(self.lines).parent, moved)
            lines = make_folder(folder) / lines.name
            write_bytes(lines, content.encode())
        return replace(self, lines=str(lines), bed=places.get(self.bed, self.bed))


def report_path(output: Path) -> Path:
    """Return the path of the report next to a dubbed video.

    Args:
        output: The video.

    Returns:
        Path of its .report.json file.
    """
    return output.with_suffix(".report.json")


@dataclass(frozen=True)
class VideoDub:
    """A video to dub.

    Attributes:
        video: The video.
        lines: File with timed lines; see `talkhead.app.dubbing.timed_lines`.
        output: The video to write.
        speakers: Identity (a name, or the folder of a package) of each speaker, by their name in the
            lines. A video with one speaker may have the only key "".
        bed: ORIGINAL, NO_BED, or the path of a file with music and effects.
        limits: How far lines may depart from their places.
        options: Options of the output.
    """

    video: Path
    lines: Path
    output: Path
    speakers: Mapping[str, str]
    bed: str = ORIGINAL
    limits: PlacementLimits = field(default_factory=PlacementLimits)
    options: OutputOptions = field(default_factory=OutputOptions)
