"""Damage to zip archives: names, methods, sizes, offsets and checksums that are wrong."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random

from benchmarks.fuzz.mutations import hostile, raw
from benchmarks.fuzz.mutations.raw import Mutated

EPOCH = (1980, 1, 1, 0, 0, 0)
NAMES = (
    "../outside.txt", "/tmp/outside.txt", "a/b/../../../outside.txt", "..\\outside.txt",
    "C:\\outside.txt", "folder/", "identity.json", "IDENTITY.JSON", "idle.mp4", ".hidden", "nul",
    "a" * 300, "a\x00b", "\x1b[2Jx", f"x\n{hostile.FORGED}", "é", "identity.json/", "./idle.mp4",
)  # fmt: skip
_CENTRAL, _LOCAL, _END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"

Members = dict[str, bytes]
_Damage = Callable[[Members, Random], Mutated]


def members(data: bytes) -> Members:
    """The files of a valid archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive_of(files: Members, method: int = zipfile.ZIP_STORED) -> bytes:
    """Make an archive from files."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content, method)
    return target.getvalue()


def mutate(data: bytes, rng: Random) -> Mutated:
    """Damage the structure of an archive."""
    return rng.choice(_DAMAGES)(members(data), rng)


def _as_bytes(files: Members, rng: Random) -> Mutated:
    return raw.mutate(archive_of(files), rng)


def _renamed(files: Members, rng: Random) -> Mutated:
    old, new = rng.choice(sorted(files)), rng.choice(NAMES)
    kept = {name: content for name, content in files.items() if name != old}
    return archive_of({**kept, new: files[old]}), f"{old} is called {new[:30]!r}"


def _one_more(files: Members, rng: Random) -> Mutated:
    name = rng.choice(NAMES)
    return archive_of({**files, name: b"more"}), f"{name[:30]!r} is there, too"


def _twice(files: Members, rng: Random) -> Mutated:
    name = rng.choice(sorted(files))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for member in (*files, name):
            info = zipfile.ZipInfo(member, EPOCH)
            archive.writestr(info, files[member]) if member != name else _write(archive, info, rng)
    return target.getvalue(), f"{name} is there twice"


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, rng: Random) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(info, rng.randbytes(20))


def _dropped(files: Members, rng: Random) -> Mutated:
    name = rng.choice(sorted(files))
    return archive_of({n: c for n, c in files.items() if n != name}), f"without {name}"


def _compressed(files: Members, rng: Random) -> Mutated:
    method = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    return archive_of(files, method), f"method {method}"


def _link(files: Members, rng: Random) -> Mutated:
    """Add a member that is a symbolic link."""
    name, target = rng.choice(sorted(files)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for member, content in files.items():
            info = zipfile.ZipInfo(member, EPOCH)
            info.create_system = 3
            info.external_attr = (0o120777 if member == name else 0o100644) << 16
            archive.writestr(info, b"/etc/passwd" if member == name else content)
    return target.getvalue(), f"{name} is a link"


def _bomb(files: Members, rng: Random) -> Mutated:
    """Add a member of many compressed zeros, with true or false sizes."""
    name, size = rng.choice(sorted(files)), rng.choice((1 << 28, 1 << 32))
    packed = raw.zeros(size)[2:-4]
    stated = rng.choice((size % (1 << 32), 10, len(packed)))
    return _by_hand(files, name, packed, stated, rng), f"{name} unpacks to {size} bytes"


def _by_hand(files: Members, name: str, packed: bytes, stated: int, rng: Random) -> bytes:
    """Make an archive with a deflated member whose stated unpacked size may be false."""
    whole = archive_of({n: (packed if n == name else c) for n, c in files.items()})
    changed = bytearray(whole)
    for mark, method_at, size_at in ((_LOCAL, 8, 22), (_CENTRAL, 10, 24)):
        at = _entry(whole, mark, name)
        if at >= 0:
            struct.pack_into("<H", changed, at + method_at, rng.choice((8, 8, 0)))
            struct.pack_into("<I", changed, at + size_at, stated)
    return bytes(changed)


def _entry(data: bytes, mark: bytes, name: str) -> int:
    """Position of a member's record of some kind; -1 if there is none."""
    head = 46 if mark == _CENTRAL else 30
    at = data.find(mark)
    while at >= 0:
        if data[at + head : at + head + len(name)] == name.encode():
            return at
        at = data.find(mark, at + 1)
    return -1


def _false_field(files: Members, rng: Random) -> Mutated:
    """Change a number of a record: flags, method, checksum, sizes, lengths, offset."""
    data = bytearray(archive_of(files))
    mark = rng.choice((_CENTRAL, _CENTRAL, _LOCAL, _END))
    places, at = [], data.find(mark)
    while at >= 0:
        places.append(at)
        at = data.find(mark, at + 1)
    at = rng.choice(places)
    span = {_CENTRAL: (4, 46), _LOCAL: (4, 30), _END: (4, 22)}[mark]
    where, width = at + rng.randrange(span[0], span[1] - 3), rng.choice((1, 2, 4))
    value = rng.choice(raw.EXTREMES) % (1 << (8 * width))
    data[where : where + width] = value.to_bytes(width, "little")
    return bytes(data), f"{mark!r} + {where - at}: {value:#x} in {width} bytes"


def _overlapping(files: Members, rng: Random) -> Mutated:
    """Make every record of the index point to the same member."""
    data = bytearray(archive_of(files))
    target = rng.choice((0, 1, len(data) - 4, rng.randrange(len(data))))
    at = data.find(_CENTRAL)
    while at >= 0:
        if rng.random() < 0.7:
            struct.pack_into("<I", data, at + 42, target)
        at = data.find(_CENTRAL, at + 1)
    return bytes(data), f"members at {target}"


def _surrounded(files: Members, rng: Random) -> Mutated:
    data, noise = archive_of(files), rng.randbytes(rng.choice((1, 500)))
    return rng.choice(
        (
            (noise + data, "noise before"),
            (data + noise, "noise behind"),
            (data[:-2] + struct.pack("<H", len(noise)) + noise, "a comment"),
            (data + data, "twice"),
            (data[:-22], "without its end"),
            (_END + bytes(18), "an empty archive"),
        )
    )


def _crc(files: Members, rng: Random) -> Mutated:
    """Change a member, with a correct checksum."""
    name = rng.choice(sorted(files))
    content, what = raw.mutate(files[name], rng)
    return archive_of({**files, name: content}), f"{name}: {what}; checksum {zlib.crc32(content):x}"


_DAMAGES: tuple[_Damage, ...] = (
    _as_bytes, _as_bytes, _renamed, _one_more, _twice, _dropped, _compressed, _link, _bomb,
    _false_field, _false_field, _false_field, _overlapping, _surrounded, _crc,
)  # fmt: skip
