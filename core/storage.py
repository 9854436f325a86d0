"""Files that are whole or not there: a temporary name in the same folder, fsync, rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkhead.errors import PackageError, TalkheadError
from talkhead.terminal import printable_json

if TYPE_CHECKING:
    from torch import Tensor

MOST_TEXT_BYTES = 64 << 20
"""What is read of a text at most, unless its reader says less."""
STALE_S = 3600.0
"""A temporary file untouched for so long belongs to a process that was killed."""


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors inside the block into one clear TalkheadError on path.

    An error on a file in another folder is reported under that file's own name.
    """
    try:
        yield
    except OSError as error:
        named = isinstance(error.filename, str) and Path(error.filename).parent != path.parent
        blamed = Path(error.filename) if named else path
        raise TalkheadError(f"{blamed}: {explain_os_error(error, blamed)}") from error


def explain_os_error(error: OSError, path: Path) -> str:
    """What went wrong with path and what to do about it, as one line without the path."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "the disk is full. Free some space and run the same command again"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "no permission. Choose a place that you may write to"
        case errno.ENOENT if not path.parent.is_dir():
            return f"the folder {path.parent} does not exist. Create it first"
        case errno.ENOENT:
            return "there is no such file"
        case errno.ENOTDIR | errno.EEXIST if not path.parent.is_dir():
            return f"{path.parent} is a file, not a folder. Choose another place"
        case errno.EISDIR:
            return "this is a folder. Give the name of a file"
    return (error.strerror or str(error)).lower()


def make_folder(path: Path) -> Path:
    """path, now an existing folder. Raises TalkheadError when it can't be made."""
    with file_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def temporary_beside(path: Path) -> Path:
    """A fresh hidden name in path's folder, with path's suffix; leftovers of killed runs go."""
    prefix = f".{path.stem}.tmp-"
    remove_stale(path.parent, prefix)
    return path.with_name(f"{prefix}{secrets.token_hex(4)}{path.suffix}")


def remove_stale(folder: Path, prefix: str) -> None:
    """Remove what killed runs left in folder under names that begin with prefix."""
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        with suppress(FileNotFoundError):  # another process may be tidying up too
            if entry.name.startswith(prefix) and time.time() - entry.lstat().st_mtime > STALE_S:
                remove(entry)


def remove(path: Path) -> None:
    """Remove a file or a whole folder; one that is not there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the system write a file or a folder's entries to the disk."""
    if path.is_dir() and os.name == "nt":  # Windows can't open folders
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which becomes path when the block ends without an error.

    It has path's suffix (programs choose a format by it). On any exception, Ctrl-C included, the
    temporary file is removed and path stays as it was. Raises TalkheadError on a full disk, a
    missing folder or a missing permission.
    """
    with file_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        temporary = temporary_beside(path)
        temporary.touch()  # a missing folder or permission shows before the work, not after it
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)


@contextmanager
def set_aside(path: Path, aside: Path) -> Iterator[None]:
    """A block that puts something new at path: a folder that is there waits under the name aside.

    It is back when the block fails, and removed when it doesn't, also one that a killed call left.
    """
    if path.is_dir():
        remove(aside)
        os.replace(path, aside)
    try:
        yield
    except BaseException:
        if aside.exists() and not path.exists():
            os.replace(aside, path)
        raise
    sync(path.parent)
    remove(aside)


def write_bytes(path: Path, data: bytes) -> None:
    """Write data to path, whole or not at all. Raises TalkheadError like atomic_path."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write value as indented JSON, whole or not at all. Raises TalkheadError like atomic_path.

    Characters that would act where the file is shown are escaped, and lone surrogates, as names of
    files that are no UTF-8 have. NaN and infinity are not JSON: ValueError.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{printable_json(text)}\n".encode())


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises TalkheadError when it can't be read or is no JSON."""
    with file_errors(path):
        data = path.read_bytes()
    try:
        return json.loads(data)
    except ValueError as error:
        raise PackageError(f"{path}: damaged, this is no JSON ({error})") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, the same bytes for the same values. Raises TalkheadError.

    Metadata is left out on purpose: its order in the file is not fixed.
    """
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        mode = temporary.stat().st_mode
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary)
        temporary.chmod(mode)  # save_file lets nobody else read it


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises TalkheadError, PackageError."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    with file_errors(path):
        data = path.read_bytes()
    try:
        tensors: dict[str, Tensor] = load(data)
    except SafetensorError as error:
        raise PackageError(f"{path}: damaged, this is no safetensors file ({error})") from error
    return tensors


def read_text(path: Path, most_bytes: int = MOST_TEXT_BYTES) -> str:
    """The text of a file in UTF-8, its lines ended by newlines; a byte order mark is none of it.

    Raises TalkheadError when it can't be read, is longer than most_bytes or in another encoding.
    """
    with file_errors(path):
        if path.exists() and not (path.is_file() or path.is_dir()):  # reading might never end
            raise TalkheadError(f"{path}: is no ordinary file. Give the name of one")
        with path.open("rb") as stream:
            data = stream.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise TalkheadError(
            f"{path}: has more than {most_bytes / 2**20:g} MiB, the most that is read of such a text"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TalkheadError(f"{path}: is no text in UTF-8. Save it as such") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def named_file(text: str | None) -> Path | None:
    """The file that a text names; None where there is none, as when it is no path but says something."""
    try:
        return Path(text) if text and Path(text).is_file() else None
    except (OSError, ValueError):  # longer than any name, or with characters that none has
        return None


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, as 64 hex digits. Raises TalkheadError, also for a pipe or a
    device, which may have no end."""
    digest = hashlib.sha256()
    if path.exists() and not path.is_file() and not path.is_dir():
        raise TalkheadError(f"{path}: is a pipe or a device. Save what it gives to a file first")
    with file_errors(path), path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
