"""Picture files of one kind, joined end to end without encoding them again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from talkhead.errors import MediaError
from talkhead.inputs import file_url, list_input
from talkhead.muxing import container_of, container_options, run_to_end
from talkhead.storage import atomic_path


def join_segments(paths: Sequence[Path], output: Path) -> None:
    """Write to output the pictures of all the files, in order, each as it was encoded.

    The files are VideoWriter's, of one codec, size, frame rate and alpha, without sound. Raises
    MediaError when ffmpeg can't or finds one damaged, TalkheadError when output can't be written.
    """
    if not paths:
        raise MediaError(f"{output}: there are no segments to join")
    container = container_of(output)
    with atomic_path(output) as part:
        listing = part.with_suffix(".txt")
        try:
            names = [_quoted(os.path.relpath(path, listing.parent)) for path in paths]
            listing.write_text("".join(f"file '{name}'\n" for name in names), "utf-8")
            source = list_input(listing)["v:0"]
            options = {"c": "copy", **container_options(container)}
            # Strict: of a segment that can't be read ffmpeg complains, leaves it out and succeeds.
            run_to_end(source.output(file_url(part), f=container, **options), part, strict=True)
        finally:
            listing.unlink(missing_ok=True)


def _quoted(path: str) -> str:
    """A relative path inside single quotes, in the language of ffmpeg's lists. They have no way to write
    the end of a line, which a folder's name may have: so the folder of the list is left out."""
    return f"./{path}".replace("'", "'\\''")
