"""Errors for users: what is wrong with their input, then what to do."""

from __future__ import annotations

from textwrap import shorten

MAX_ERROR_CHARS = 400
"""Longer messages of unexpected errors are cut: some contain a whole stack trace."""


class TalkheadError(Exception):
    """An error that the user can act on. The command line prints it in one line and exits with 1."""


class MediaError(TalkheadError):
    """A video or audio file that cannot be read or written."""


class InputError(TalkheadError):
    """Input that cannot be used as it is: the same call fails again, so it is not retried."""


class FootageError(InputError):
    """A readable video that is unsuitable for fitting (no face, no audio, too short)."""


class PackageError(TalkheadError):
    """An identity package or dataset that is missing, damaged or of another version."""


def one_line(error: BaseException) -> str:
    """Format an error as one line.

    Args:
        error: The error.

    Returns:
        Its message, preceded by its type if the error is unexpected.
    """
    if isinstance(error, TalkheadError):
        return " ".join(str(error).split())
    text = shorten(str(error), MAX_ERROR_CHARS, placeholder=" ...")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
