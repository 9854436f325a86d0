"""Speech from text. No voice is part of talkhead yet: this is where one is connected."""

from __future__ import annotations

from pathlib import Path

from talkhead.errors import TalkheadError


def is_available() -> bool:
    """Check whether text can be spoken.

    Returns:
        True if `synthesize` works.
    """
    return False


def synthesize(text: str, path: Path) -> None:
    """Speak a text.

    Args:
        text: The text.
        path: The .wav file to write.

    Raises:
        TalkheadError: No voice is installed.
    """
    raise TalkheadError(
        "text: this server has no voice installed, so it cannot speak text. Upload audio instead"
    )
