"""Atomic file writes, checked reads and checksums: a temporary name in the same folder, fsync, rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkhead import __version__
from talkhead.errors import PackageError, TalkheadError
from talkhead.os_errors import explain_os_error as explain_os_error
from talkhead.os_errors import translate_os_errors as translate_os_errors
from talkhead.terminal import printable_json

if TYPE_CHECKING:
    from torch import Tensor

MAX_TEXT_BYTES = 64 << 20
"""Largest text file, unless its reader allows less."""
STALE_S = 3600.0
"""Seconds after which an unchanged temporary file is attributed to a killed process."""
MAX_JSON_BYTES = 32 << 20
"""Largest JSON file: in memory it takes up to 20 times as much."""
MAX_JSON_DEPTH = 64
"""Deepest nesting of lists and objects; talkhead writes up to 6 levels."""
MAX_SHOWN = 60
"""Largest number of characters of a wrong value that an error shows."""
MAX_TENSOR_BYTES = 8 << 30
"""Largest safetensors file: the tracks of hours of footage, a corpus."""
MAX_HEADER_BYTES = 1 << 20
"""Largest list of tensors in a safetensors file; that of a checkpoint takes 20 kB."""


class ContentError(PackageError):
    """Content that its reader cannot use. The message does not name the file; see `content_errors`."""


@contextmanager
def content_errors(path: Path, advice: str) -> Iterator[None]:
    """Convert errors in content inside the block to errors that name the file.

    Args:
        path: The file that the block reads.
        advice: What to do about it.

    Yields:
        None.

    Raises:
        PackageError: The block has raised ContentError.
    """
    try:
        yield
    except ContentError as error:
        raise PackageError(f"{path}: {error}. {advice}") from error


def make_folder(path: Path) -> Path:
    """Make a folder with its parents, unless it exists.

    Args:
        path: The folder.

    Returns:
        The folder.

    Raises:
        TalkheadError: It cannot be made.
    """
    with translate_os_errors(path, made=True):
        path.mkdir(parents=True, exist_ok=True)
    return path


def temp_path_for(path: Path) -> Path:
    """Return a new hidden name in a path's folder, with its suffix; remove stale files of killed runs.

    Args:
        path: The path that will be replaced.

    Returns:
        A path that does not exist.
    """
    prefix = f".{path.stem}.tmp-"
    remove_stale(path.parent, prefix)
    return path.with_name(f"{prefix}{secrets.token_hex(4)}{path.suffix}")


def remove_stale(folder: Path, prefix: str) -> None:
    """Remove temporary files that killed runs left.

    Args:
        folder: Where they are.
        prefix: Beginning of their names.
    """
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        with suppress(FileNotFoundError):  # another process may remove it, too
            if entry.name.startswith(prefix) and time.time() - entry.lstat().st_mtime > STALE_S:
                remove(entry)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it exists.

    Args:
        path: The file or folder.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk.

    Args:
        path: The file or folder.
    """
    if path.is_dir() and os.name == "nt":  # Windows can't open folders
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which becomes path when the block ends without an error.

    It has path's suffix (programs choose a format by it). On any exception, including Ctrl-C, the
    temporary file is removed and path remains as it was.

    Args:
        path: The file to write.

    Yields:
        The temporary path, an empty file.

    Raises:
        TalkheadError: The disk is full, the folder or a permission is missing, or path is a folder
            (IsADirectoryError inside).
    """
    with translate_os_errors(path, made=True):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        temporary = temp_path_for(path)
        temporary.touch()  # a missing folder or permission is reported before the work, not after it
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)


@contextmanager
def replace_directory(path: Path, aside: Path) -> Iterator[None]:
    """Move an existing folder aside while the block puts something new in its place.

    If the block fails, the folder is restored; otherwise it is removed. A folder that a killed call left
    behind is removed as well.

    Args:
        path: The folder to replace; it need not exist.
        aside: Temporary name for the old one.

    Yields:
        None.
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
    """Write a file atomically.

    Args:
        path: The file.
        data: Its content.

    Raises:
        TalkheadError: It cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically.

    Control characters are escaped, and so are lone surrogates, which occur in file names that are not
    UTF-8.

    Args:
        path: The file.
        value: Any JSON value.

    Raises:
        TalkheadError: The file cannot be written.
        ValueError: The value contains NaN or infinity, which are not JSON.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{printable_json(text)}\n".encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Args:
        path: The file.

    Returns:
        Its value.

    Raises:
        TalkheadError: The file cannot be read.
        PackageError: It is not JSON.
    """
    try:
        return decode_json(read_bytes(path, MAX_JSON_BYTES))
    except ValueError as error:
        raise PackageError(f"{path}: damaged, not valid JSON ({error})") from error


def check_format(path: Path, what: str, version: Any, known: int, advice: str) -> None:
    """Check the version of a file format.

    Args:
        path: The file, for messages.
        what: Kind of the file, for messages.
        version: Version in the file.
        known: Version that this talkhead reads.
        advice: What to do about a file of an older version.

    Raises:
        PackageError: The versions differ.
    """
    if type(version) is int and version == known:
        return
    is_newer = type(version) is int and version > known
    raise PackageError(
        f"{path}: {what} of format version {short_repr(version)}; this talkhead {__version__} "
        f"reads version {known}. {'Upgrade talkhead' if is_newer else advice}"
    )


def decode_json(data: bytes | str) -> Any:
    """Decode JSON. All JSON that talkhead reads is decoded here.

    Args:
        data: The text.

    Returns:
        Its value.

    Raises:
        ValueError: It is not JSON (NaN and infinity are not), longer than MAX_JSON_BYTES or nested deeper
            than MAX_JSON_DEPTH. No other error is raised.
    """
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"more than {MAX_JSON_BYTES >> 20} MiB")
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_JSON_DEPTH}") from None
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return value
    if any(isinstance(deep, dict | list) for deep in level):
        raise ValueError(f"nested deeper than {MAX_JSON_DEPTH}")
    return value


def short_repr(value: Any) -> str:
    """Format a value from a file for an error: short, control characters escaped.

    Args:
        value: Any value.

    Returns:
        At most MAX_SHOWN characters and dots.
    """
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _inner(value: Any) -> Iterable[Any]:
    """Return what is directly inside a list or object."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def check_ordinary(path: Path) -> None:
    """Check that a path is neither a pipe nor a device: reading one of these may never return.

    Args:
        path: The file.

    Raises:
        TalkheadError: The path is a pipe or a device.
        OSError: The path does not exist.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise TalkheadError(f"{path}: is not a regular file. Pass the path of one")


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Read a regular file.

    Args:
        path: The file.
        max_bytes: Largest size in bytes.

    Returns:
        Its content.

    Raises:
        TalkheadError: It cannot be read.
        PackageError: It is larger.
    """
    with translate_os_errors(path):
        check_ordinary(path)
        with path.open("rb") as stream:
            data = stream.read(max_bytes + 1) if path.stat().st_size <= max_bytes else None
    if data is None or len(data) > max_bytes:
        raise PackageError(
            f"{path}: has more than {max_bytes / 2**20:g} MiB, the limit for such files"
        )
    return data


def inflate(data: bytes, n_bytes: int) -> bytes:
    """Decompress zlib data of a known size; no more memory than that is allocated.

    Args:
        data: The compressed data.
        n_bytes: Size of the result.

    Returns:
        n_bytes bytes.

    Raises:
        ValueError: The data is not zlib, or has a different size.
    """
    stream = zlib.decompressobj()
    try:
        made = stream.decompress(data, n_bytes) if n_bytes else b""
        rest = stream.decompress(stream.unconsumed_tail or (b"" if n_bytes else data), 1)
    except zlib.error as error:
        raise ValueError(f"not zlib data ({error})") from error
    if len(made) != n_bytes or rest or stream.unused_data or not stream.eof:
        raise ValueError(f"compressed data that is not the {n_bytes:,} bytes it should be")
    return made


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically; equal values give equal bytes.

    Metadata is omitted on purpose: its order in the file is not fixed.

    Args:
        path: The file.
        tensors: Tensors of any shape by name.

    Raises:
        TalkheadError: The file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        mode = temporary.stat().st_mode
        stored = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        try:
            save_file(stored, temporary)
        except SafetensorError as error:
            raise _os_error(error) from error
        temporary.chmod(mode)  # save_file makes it private to its user


_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""Format of system error numbers in messages of Rust."""


def _os_error(error: Exception) -> OSError:
    """Convert an error of safetensors to the system's error that it reports as text."""
    found = _OS_ERROR.search(str(error))
    if found is None:
        return OSError(f"could not be written ({error})")
    return OSError(int(found[1]), os.strerror(int(found[1])))


_MALFORMED = (ValueError, KeyError, TypeError, OverflowError, RuntimeError, AssertionError)
"""Errors of safetensors.torch for shapes and types that its own check accepts."""


def read_tensors(path: Path, max_bytes: int = MAX_TENSOR_BYTES) -> dict[str, Tensor]:
    """Read a safetensors file.

    Args:
        path: The file.
        max_bytes: Largest size of the file.

    Returns:
        Its tensors by name, of any shape, on the CPU.

    Raises:
        TalkheadError: It cannot be read.
        PackageError: It is damaged or too large.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = read_bytes(path, max_bytes)
    if int.from_bytes(data[:8], "little") > MAX_HEADER_BYTES:
        raise PackageError(f"{path}: damaged, not a safetensors file (its header is too large)")
    try:
        tensors: dict[str, Tensor] = load(data)
    except (SafetensorError, *_MALFORMED) as error:
        reason = ascii(str(error)[:200])
        raise PackageError(f"{path}: damaged, not a safetensors file ({reason})") from error
    return tensors


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a text in UTF-8, with or without a byte order mark.

    Args:
        path: The file.
        max_bytes: Largest size of the file.

    Returns:
        The text, lines ended by newlines.

    Raises:
        TalkheadError: It cannot be read, is larger, or in another encoding.
    """
    data = read_bytes(path, max_bytes)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TalkheadError(f"{path}: is not UTF-8 text. Save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def expand_user(path: Path | str) -> Path:
    """Expand ~ in a path.

    Args:
        path: The path.

    Returns:
        The path with the user's folder.

    Raises:
        TalkheadError: There is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise TalkheadError(f"{path}: there is no such user. Pass the whole path") from error


def existing_file(text: str | None) -> Path | None:
    """Interpret a text as the path of a file.

    Args:
        text: A path or any other text.

    Returns:
        The path; None if there is no such file.
    """
    try:
        return Path(text) if text and Path(text).is_file() else None
    except (OSError, ValueError):  # too long for a name, or with invalid characters
        return None


def fingerprint(value: Any, *, ensure_ascii: bool = True) -> str:
    """Return a checksum of a JSON value, which is the same for equal values.

    Callers that use it in names of folders and files take its first digits.

    Args:
        value: Anything that JSON can hold; the order of keys has no effect.
        ensure_ascii: Hash characters beyond ASCII as escapes rather than as UTF-8. It selects one of two
            checksums that stored names depend on.

    Returns:
        64 hex digits.

    Raises:
        TypeError: The value cannot be represented in JSON.
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=ensure_ascii)
    return fingerprint_of_text(text)


def fingerprint_of_text(text: str) -> str:
    """Return the SHA-256 of a text.

    Args:
        text: Any text; names of files that are not UTF-8 contain lone surrogates.

    Returns:
        64 hex digits.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sha256_of(path: Path) -> str:
    """Hash a file.

    Args:
        path: The file.

    Returns:
        The SHA-256 of its content, 64 hex digits.

    Raises:
        TalkheadError: It cannot be read, or is a pipe or device, which may have no end.
    """
    digest = hashlib.sha256()
    if path.exists() and not path.is_file() and not path.is_dir():
        raise TalkheadError(f"{path}: is a pipe or a device. Save its output to a file first")
    with translate_os_errors(path), path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
