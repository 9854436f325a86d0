"""The errors a person sees: what was wrong with what was given, then what to do."""

from __future__ import annotations


class TalkheadError(Exception):
    """Something the person can act on. The command line prints its one line and exits with 1."""


class MediaError(TalkheadError):
    """A video or sound that can't be read or written."""


class FootageError(TalkheadError):
    """Footage that reads well but from which no head can be made (no face, no sound, too short)."""


class PackageError(TalkheadError):
    """An identity package or dataset that is missing, damaged or of another version."""
