"""The errors a person sees: what was wrong with what was given, then what to do."""

from __future__ import annotations

from textwrap import shorten

MAX_ERROR_CHARS = 400
"""What is told at most of an error that nobody foresaw: some bring their whole stack."""


class TalkheadError(Exception):
    """Something the person can act on. The command line prints its one line and exits with 1."""


class MediaError(TalkheadError):
    """A video or sound that can't be read or written."""


class FootageError(TalkheadError):
    """Footage that reads well but from which no head can be made (no face, no sound, too short)."""


class PackageError(TalkheadError):
    """An identity package or dataset that is missing, damaged or of another version."""


def one_line(error: BaseException) -> str:
    """An error as one line; of one that nobody foresaw its kind, too."""
    if isinstance(error, TalkheadError):
        return " ".join(str(error).split())
    text = shorten(str(error), MAX_ERROR_CHARS, placeholder=" ...")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
