"""Speech from text, with the installed voice or a voice server."""

from __future__ import annotations

from pathlib import Path

from talkhead.app import text_to_speech
from talkhead.app.request import audio_path


def is_available(url: str | None) -> bool:
    """Check whether text can be spoken.

    Args:
        url: Address of a voice server; None for the installed voice.

    Returns:
        True if `synthesize` works.
    """
    return text_to_speech.is_available(url)


def synthesize(text: str, folder: Path, url: str | None) -> Path:
    """Speak a text.

    Args:
        text: The text.
        folder: Folder for the audio.
        url: Address of a voice server, to which the text is sent; None for the installed voice.

    Returns:
        A .wav file in the folder.

    Raises:
        TalkheadError: The text is empty or too long, or no voice is installed.
    """
    return audio_path(text_to_speech.synthesize(text, url=url), folder)
