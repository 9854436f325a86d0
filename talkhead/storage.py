"""Files that are whole or not there: a temporary name in the same folder, fsync, rename."""

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
from talkhead.terminal import printable_json

if TYPE_CHECKING:
    from torch import Tensor

MAX_TEXT_BYTES = 64 << 20
"""What is read of a text at most, unless its reader says less."""
STALE_S = 3600.0
"""A temporary file untouched for so long belongs to a process that was killed."""
MAX_JSON_BYTES = 32 << 20
"""Of a JSON file: in memory it takes 20 times as much at worst."""
MAX_JSON_DEPTH = 64
"""Lists and objects in each other; what talkhead writes has 6."""
MAX_SHOWN = 60
"""Characters of a wrong value that an error shows."""
MAX_TENSOR_BYTES = 8 << 30
"""Of a safetensors file: the tracks of hours of footage, a corpus."""
MAX_HEADER_BYTES = 1 << 20
"""Of a safetensors file's list of tensors; a checkpoint's has 20 kB."""


class ContentError(PackageError):
    """Content that is not what its reader needs. The reader does not know which file it is from."""


@contextmanager
def content_errors(path: Path, advice: str) -> Iterator[None]:
    """A block that makes something of what the file at path holds: errors name it and say what to do."""
    try:
        yield
    except ContentError as error:
        raise PackageError(f"{path}: {error}. {advice}") from error


@contextmanager
def translate_os_errors(path: Path, *, made: bool = False) -> Iterator[None]:
    """Turn the operating system's errors inside the block into one clear TalkheadError on path.

    An error on a file in another folder is reported under that file's own name. made: path is to be
    made, so it is no news that it is not there.
    """
    try:
        yield
    except OSError as error:
        named = isinstance(error.filename, str) and Path(error.filename).parent != path.parent
        blamed = Path(error.filename) if named else path
        raise TalkheadError(f"{blamed}: {explain_os_error(error, blamed, made=made)}") from error


def explain_os_error(error: OSError, path: Path, *, made: bool = False) -> str:
    """What went wrong with path and what to do about it, as one line without the path. made: it was to
    be made."""
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
            return "can't be made here. Choose another place"
        case errno.ENOENT:
            return "there is no such file"
        case errno.ENOTDIR | errno.EEXIST if not path.parent.is_dir():
            return f"{path.parent} is a file, not a folder. Choose another place"
        case errno.EISDIR:
            return "this is a folder. Give the name of a file"
    return (error.strerror or str(error)).lower()


def make_folder(path: Path) -> Path:
    """path, now an existing folder. Raises TalkheadError when it can't be made."""
    with translate_os_errors(path, made=True):
        path.mkdir(parents=True, exist_ok=True)
    return path


def temp_path_for(path: Path) -> Path:
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
    with translate_os_errors(path, made=True):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        temporary = temp_path_for(path)
        temporary.touch()  # a missing folder or permission shows before the work, not after it
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)


@contextmanager
def replace_directory(path: Path, aside: Path) -> Iterator[None]:
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
    """The value in a JSON file. Raises TalkheadError when it can't be read, PackageError for no JSON."""
    try:
        return decode_json(read_bytes(path, MAX_JSON_BYTES))
    except ValueError as error:
        raise PackageError(f"{path}: damaged, this is no JSON ({error})") from error


def check_format(path: Path, what: str, version: Any, known: int, advice: str) -> None:
    """Raises PackageError unless a file of some kind (what) is of the format version that is known.

    advice: what to do about one that an older talkhead wrote.
    """
    if type(version) is int and version == known:
        return
    is_newer = type(version) is int and version > known
    raise PackageError(
        f"{path}: {what} of format version {shown(version)}, this talkhead {__version__} reads version "
        f"{known}. {'Upgrade talkhead' if is_newer else advice}"
    )


def decode_json(data: bytes | str) -> Any:
    """The value of JSON text; every JSON that talkhead reads goes through here.

    Raises ValueError, and nothing else, for what is no JSON, longer than MAX_JSON_BYTES or nested deeper
    than MAX_JSON_DEPTH. NaN and infinity are no JSON.
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


def shown(value: Any) -> str:
    """A value from a file as an error shows it: short, control characters as escapes."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _inner(value: Any) -> Iterable[Any]:
    """What is directly inside a list or object."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def check_ordinary(path: Path) -> None:
    """Raises TalkheadError for a pipe or a device, of which reading might never end; OSError where there
    is nothing."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise TalkheadError(f"{path}: is no ordinary file. Give the name of one")


def read_bytes(path: Path, most: int) -> bytes:
    """The content of an ordinary file. Raises TalkheadError, PackageError for more than `most` bytes."""
    with translate_os_errors(path):
        check_ordinary(path)
        with path.open("rb") as stream:
            data = stream.read(most + 1) if path.stat().st_size <= most else None
    if data is None or len(data) > most:
        raise PackageError(
            f"{path}: has more than {most / 2**20:g} MiB, the most that is read of such a file"
        )
    return data


def inflate(data: bytes, n_bytes: int) -> bytes:
    """What zlib compressed, which must be n_bytes; no more than these are ever made.

    Raises ValueError where it isn't.
    """
    stream = zlib.decompressobj()
    try:
        made = stream.decompress(data, n_bytes) if n_bytes else b""
        rest = stream.decompress(stream.unconsumed_tail or (b"" if n_bytes else data), 1)
    except zlib.error as error:
        raise ValueError(f"not what zlib wrote ({error})") from error
    if len(made) != n_bytes or rest or stream.unused_data or not stream.eof:
        raise ValueError(f"compressed data that is not the {n_bytes:,} bytes it should be")
    return made


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, the same bytes for the same values. Raises TalkheadError.

    Metadata is left out on purpose: its order in the file is not fixed.
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
        temporary.chmod(mode)  # save_file lets nobody else read it


_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How Rust names the number of a system's error."""


def _os_error(error: Exception) -> OSError:
    """What the system said in an error of safetensors, which has no kind of its own for it."""
    found = _OS_ERROR.search(str(error))
    if found is None:
        return OSError(f"could not be written ({error})")
    return OSError(int(found[1]), os.strerror(int(found[1])))


_MALFORMED = (ValueError, KeyError, TypeError, OverflowError, RuntimeError, AssertionError)
"""What safetensors.torch raises for shapes and types that its own check lets pass."""


def read_tensors(path: Path, most_bytes: int = MAX_TENSOR_BYTES) -> dict[str, Tensor]:
    """The tensors of a safetensors file of at most so many bytes, on the CPU.

    Raises TalkheadError when it can't be read, PackageError when it is none or too large.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = read_bytes(path, most_bytes)
    if int.from_bytes(data[:8], "little") > MAX_HEADER_BYTES:
        raise PackageError(
            f"{path}: damaged, this is no safetensors file (its header is too large)"
        )
    try:
        tensors: dict[str, Tensor] = load(data)
    except (SafetensorError, *_MALFORMED) as error:
        reason = ascii(str(error)[:200])
        raise PackageError(f"{path}: damaged, this is no safetensors file ({reason})") from error
    return tensors


def read_text(path: Path, most_bytes: int = MAX_TEXT_BYTES) -> str:
    """The text of a file in UTF-8, its lines ended by newlines; a byte order mark is none of it.

    Raises TalkheadError when it can't be read, is longer than most_bytes or in another encoding.
    """
    data = read_bytes(path, most_bytes)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TalkheadError(f"{path}: is no text in UTF-8. Save it as such") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def expanded(path: Path | str) -> Path:
    """A path in which ~ is a user's folder. Raises TalkheadError where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise TalkheadError(f"{path}: there is no such user. Give the whole path") from error


def existing_file(text: str | None) -> Path | None:
    """The file that a text names; None where there is none, as when it is no path but says something."""
    try:
        return Path(text) if text and Path(text).is_file() else None
    except (OSError, ValueError):  # longer than any name, or with characters that none has
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
    """The SHA-256 of a file's content, as 64 hex digits. Raises TalkheadError, also for a pipe or a
    device, which may have no end."""
    digest = hashlib.sha256()
    if path.exists() and not path.is_file() and not path.is_dir():
        raise TalkheadError(f"{path}: is a pipe or a device. Save what it gives to a file first")
    with translate_os_errors(path), path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
