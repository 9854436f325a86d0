"""Dubbing of a whole video: its people speak timed lines, in its footage and over its sound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from talkhead.app.dubbing.line_planner import PlacementLimits
from talkhead.app.request import OutputOptions

ORIGINAL, NO_BED = "original", "none"
"""Sound under the lines: that of the video, or nothing; otherwise the path of a file."""


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
