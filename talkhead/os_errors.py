"""Explain errors of the operating system on files, and what to do about them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from talkhead.errors import TalkheadError


@contextmanager
def translate_os_errors(path: Path, *, made: bool = False) -> Iterator[None]:
    """Convert errors of the operating system inside the block to one clear error.

    An error on a file in another folder is reported under that file's own name.

    Args:
        path: The file that the block reads or writes.
        made: The file is to be created, so it need not exist.

    Yields:
        None.

    Raises:
        TalkheadError: The block has raised OSError.
    """
    try:
        yield
    except OSError as error:
        named = isinstance(error.filename, str) and Path(error.filename).parent != path.parent
        blamed = Path(error.filename) if named else path
        raise TalkheadError(f"{blamed}: {explain_os_error(error, blamed, made=made)}") from error


def explain_os_error(error: OSError, path: Path, *, made: bool = False) -> str:
    """Explain an error of the operating system and what to do about it.

    Args:
        error: The error.
        path: The file.
        made: The file is to be made.

    Returns:
        One line without the path.
    """
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "the disk is full. Free some space and run the same command again"
        case errno.EFBIG:
            return "the file is larger than the disk or your limit allows. Choose another place"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "no permission. Choose a place that you may write to"
        case errno.ENOENT if not path.parent.is_dir():
            return f"the folder {path.parent} does not exist. Create it first"
        case errno.ENOENT if made:
            return "cannot be created here. Choose another place"
        case errno.ENOENT:
            return "there is no such file"
        case errno.ENOTDIR | errno.EEXIST if not path.parent.is_dir():
            return f"{path.parent} is a file, not a folder. Choose another place"
        case errno.EISDIR:
            return "this is a folder. Pass the name of a file"
    return (error.strerror or str(error)).lower()
