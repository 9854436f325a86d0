"""Write uploads to disk. Their names are shown and provide a suffix, but are never used as
paths."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.datastructures import UploadFile

from talkhead.app.server.problems import Problem
from talkhead.errors import MediaError, TalkheadError
from talkhead.media import probe
from talkhead.media.probing import probe_footage
from talkhead.storage import fingerprint, make_folder, remove, translate_os_errors
from talkhead.terminal import printable

MAX_TITLE_CHARS = 120
MAX_KEY_CHARS = 200
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
_BLOCK = 1 << 20


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Make a folder that is removed if the block fails.

    Args:
        path: The folder, which must not exist.

    Yields:
        The folder.

    Raises:
        TalkheadError: It cannot be made.
    """
    make_folder(path)
    try:
        yield path
    except BaseException:
        remove(path)
        raise


def save(upload: UploadFile, folder: Path, stem: str) -> Path:
    """Write an upload to a file.

    Args:
        upload: The upload.
        folder: Where to write it.
        stem: Name of the file without its suffix. The suffix of the upload is kept if it is plain.

    Returns:
        The file.

    Raises:
        Problem: The upload is empty.
        TalkheadError: The file cannot be written.
    """
    suffix = Path(upload.filename or "").suffix
    path = folder / f"{stem}{suffix.lower() if _SUFFIX.fullmatch(suffix) else ''}"
    with translate_os_errors(path), path.open("wb") as target:
        upload.file.seek(0)
        shutil.copyfileobj(upload.file, target, _BLOCK)
    if path.stat().st_size == 0:
        raise Problem(422, f"{title_of(upload.filename)} is empty (0 bytes). Choose another file")
    return path


def title_of(name: str | None) -> str:
    """Make a title of the name of an upload.

    Args:
        name: The name, which may be anything.

    Returns:
        One printable line without folders.
    """
    plain = printable(re.split(r"[/\\]", name or "")[-1]).strip()
    return plain[:MAX_TITLE_CHARS] or "upload"


def request_checksum(fields: Mapping[str, Any], *uploads: UploadFile | None) -> str:
    """Hash what a request contains.

    Args:
        fields: Fields of the form, as JSON values.
        *uploads: Uploads; None for those that were not given.

    Returns:
        64 hex digits.
    """
    digests = []
    for upload in uploads:
        digest = hashlib.sha256()
        if upload is not None:
            upload.file.seek(0)
            while block := upload.file.read(_BLOCK):
                digest.update(block)
        digests.append(digest.hexdigest())
    return fingerprint([dict(fields), digests])


def check_key(key: str) -> str:
    """Check an Idempotency-Key.

    Args:
        key: Value of the header; "" for none.

    Returns:
        The key.

    Raises:
        Problem: It is too long or not printable.
    """
    if len(key) > MAX_KEY_CHARS or not key.isprintable():
        raise Problem(
            422,
            f"the Idempotency-Key is not usable. Choose at most {MAX_KEY_CHARS} printable characters",
        )
    return key


def check_sound(path: Path, title: str, longest_s: float) -> float:
    """Check that an upload has audio and is not too long.

    Args:
        path: The file.
        title: Its name for messages.
        longest_s: Longest duration in seconds.

    Returns:
        Its duration in seconds.

    Raises:
        MediaError: It cannot be read or has no audio.
        TalkheadError: It is too long.
    """
    try:
        info = probe(path)
    except MediaError as error:
        raise MediaError(str(error).replace(str(path), title)) from error
    if not info.has_audio:
        raise MediaError(f"{title}: has no sound. Pass a recording of speech")
    return check_length(info.duration_s, title, longest_s)


def check_footage(path: Path, title: str, longest_s: float) -> float:
    """Check that a person can be fitted to an upload, as far as possible without tracking a face.

    Args:
        path: The file.
        title: Its name for messages.
        longest_s: Longest duration in seconds.

    Returns:
        Its duration in seconds.

    Raises:
        TalkheadError: It cannot be read, has no picture or audio, or is too long.
    """
    try:
        info = probe_footage(path)
    except TalkheadError as error:
        raise type(error)(str(error).replace(str(path), title)) from error
    return check_length(info.duration_s, title, longest_s)


def check_length(duration_s: float, title: str, longest_s: float) -> float:
    """Check the duration of an upload.

    Args:
        duration_s: Its duration in seconds.
        title: Its name for messages.
        longest_s: Longest duration in seconds.

    Returns:
        The duration.

    Raises:
        TalkheadError: It is too long.
    """
    if duration_s > longest_s:
        raise TalkheadError(
            f"{title}: lasts {duration_s / 60:.1f} minutes, at most {longest_s / 60:g} are accepted. "
            "Split it"
        )
    return duration_s
