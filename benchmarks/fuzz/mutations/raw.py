"""Damage to bytes, at random or guided by the boxes, chunks and numbers that most formats have."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from random import Random

Mutated = tuple[bytes, str]
"""The new bytes, and a description of the change."""
EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
MARKS = (
    b"ftyp", b"moov", b"mvhd", b"trak", b"tkhd", b"mdia", b"mdhd", b"hdlr", b"minf", b"dref",
    b"stbl", b"stsd", b"stts", b"ctts", b"stsc", b"stsz", b"stco", b"stss", b"elst", b"avcC",
    b"esds", b"udta", b"meta", b"uuid", b"jumb", b"mdat", b"moof", b"RIFF", b"fmt ", b"data",
    b"LIST", b"avih", b"strh", b"strf", b"idx1", b"fLaC", b"OggS", b"vorbis", b"Opus", b"ID3",
    b"Xing", b"Info", b"IHDR", b"IDAT", b"PLTE", b"caBX", b"iCCP", b"VP8 ", b"VP8L", b"VP8X",
    b"ALPH", b"\xff\xc0", b"\xff\xda", b"\xff\xe1", b"\x1a\x45\xdf\xa3", b"\x16\x54\xae\x6b",
    b"\x1f\x43\xb6\x75", b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"\x47\x40",
)  # fmt: skip
"""Names of parts in various formats: changing a byte near one usually has an effect."""


def mutate(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> Mutated:
    """Damage bytes in one to four ways. others: files from which pieces are taken."""
    said = []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        damage = rng.choice(_DAMAGES)
        if not data:
            break
        data, what = damage(data, rng)
        said.append(what)
    if others and data and rng.random() < 0.08:
        data, what = _splice(data, rng, rng.choice(others))
        said.append(what)
    return data, "; ".join(said) or "nothing left to damage"


def _place(data: bytes, rng: Random) -> int:
    """Draw a position: near the name of a part, in the header, or anywhere."""
    chance = rng.random()
    if chance < 0.5:
        found = [at for mark in MARKS if (at := data.find(mark)) >= 0]
        if found:
            return min(len(data) - 1, max(0, rng.choice(found) + rng.randint(-4, 40)))
    return rng.randrange(min(len(data), 4096)) if chance < 0.75 else rng.randrange(len(data))


def _flip_bits(data: bytes, rng: Random) -> Mutated:
    changed, count = bytearray(data), rng.choice((1, 1, 2, 8, 64))
    for _ in range(count):
        changed[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed), f"{count} bits flipped"


def _set_number(data: bytes, rng: Random) -> Mutated:
    """Write an integer of 1, 2, 4 or 8 bytes, in either order."""
    width, order = rng.choice((1, 2, 4, 4, 8)), rng.choice(("big", "little"))
    at, value = _place(data, rng), rng.choice(EXTREMES) % (1 << (8 * min(width, 4)))
    if width == 8 and rng.random() < 0.5:
        value = (1 << 64) - 1 - value
    number = value.to_bytes(width, order)
    return data[:at] + number + data[at + width :], f"{value:#x} in {width} bytes at {at}"


def _truncate(data: bytes, rng: Random) -> Mutated:
    size = rng.choice((0, 1, 4, rng.randrange(len(data)), len(data) - 1, len(data) // 2))
    return data[:size], f"cut to {size} bytes"


def _remove(data: bytes, rng: Random) -> Mutated:
    at, size = _place(data, rng), rng.choice((1, 4, 16, 512, 4096))
    return data[:at] + data[at + size :], f"{size} bytes removed at {at}"


def _double(data: bytes, rng: Random) -> Mutated:
    at, size, times = _place(data, rng), rng.choice((4, 64, 1024)), rng.choice((1, 2, 40))
    piece = data[at : at + size]
    return data[:at] + piece * times + data[at:], f"{len(piece)} bytes at {at} {times} times more"


def _overwrite(data: bytes, rng: Random) -> Mutated:
    at, size = _place(data, rng), rng.choice((4, 16, 256, 4096))
    filling = rng.choice((b"\x00" * size, b"\xff" * size, rng.randbytes(size)))
    return data[:at] + filling + data[at + size :], f"{size} bytes overwritten at {at}"


def _insert(data: bytes, rng: Random) -> Mutated:
    at, size = _place(data, rng), rng.choice((1, 2, 7, 100))
    return data[:at] + rng.randbytes(size) + data[at:], f"{size} bytes inserted at {at}"


def _swap(data: bytes, rng: Random) -> Mutated:
    size = rng.choice((4, 64, 512))
    first, second = sorted((_place(data, rng), _place(data, rng)))
    if second - first < size:
        return data[::-1], "reversed"
    one, two = data[first : first + size], data[second : second + size]
    swapped = data[:first] + two + data[first + size : second] + one + data[second + size :]
    return swapped, f"{size} bytes at {first} and {second} swapped"


def _box(data: bytes, rng: Random) -> Mutated:
    """Change the length before the name of a part, as in MP4 and RIFF."""
    found = [at for mark in MARKS if (at := data.find(mark)) >= 4]
    if not found:
        return _set_number(data, rng)
    at, value = rng.choice(found), rng.choice(EXTREMES)
    if rng.random() < 0.5:
        where, order = at - 4, ">I"
    else:
        where, order = at + 4, "<I"
    changed = data[:where] + struct.pack(order, value) + data[where + 4 :]
    return changed, f"length of {data[at : at + 4]!r} is {value:#x}"


def _splice(data: bytes, rng: Random, other: bytes) -> Mutated:
    at, start = _place(data, rng), rng.randrange(max(1, len(other)))
    if rng.random() < 0.5:
        return data[:at] + other[start:], f"from {at} on another file"
    piece = other[start : start + 4096]
    return data[:at] + piece + data[
        at + len(piece) :
    ], f"{len(piece)} bytes of another file at {at}"


_DAMAGES: tuple[Callable[[bytes, Random], Mutated], ...] = (
    _flip_bits, _flip_bits, _flip_bits, _set_number, _set_number, _set_number, _truncate, _remove,
    _double, _overwrite, _insert, _swap, _box, _box,
)  # fmt: skip


# --------------------------------------------------------------------------------- PNG


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Name and content of the chunks of a PNG."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return chunks


def png_of(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Make a PNG from chunks, with their checksums."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, content in chunks:
        checked = zlib.crc32(name + content).to_bytes(4, "big")
        parts += [len(content).to_bytes(4, "big"), name, content, checked]
    return b"".join(parts)


def mutate_png(data: bytes, rng: Random) -> Mutated:
    """Change chunks of a PNG, with correct checksums."""
    chunks = png_chunks(data)
    number = rng.randrange(len(chunks))
    name, content = chunks[number]
    how = rng.choice(("size", "size", "content", "drop", "twice", "bomb", "text"))
    if how == "size":
        width, height = (rng.choice((0, 1, 7, 4096, 16384, 65535, 2**31 - 1)) for _ in range(2))
        chunks[0] = (b"IHDR", struct.pack(">II", width, height) + chunks[0][1][8:])
        return png_of(chunks), f"PNG of {width}x{height}"
    if how == "bomb":
        side = rng.choice((4096, 16384))
        packed = zeros(side * (3 * side + 1))
        head = (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        return png_of([head, (b"IDAT", packed), (b"IEND", b"")]), f"PNG of {side}x{side} zeros"
    if how == "content" and content:
        changed, what = mutate(content, rng)
        chunks[number] = (name, changed)
        return png_of(chunks), f"chunk {name!r}: {what}"
    if how == "text":
        chunks.insert(1, (rng.choice((b"tEXt", b"zTXt", b"iCCP", b"eXIf")), rng.randbytes(300)))
        return png_of(chunks), "a chunk of noise"
    if how == "drop":
        return png_of(chunks[:number] + chunks[number + 1 :]), f"without chunk {name!r}"
    return png_of([*chunks[:number], chunks[number], *chunks[number:]]), f"chunk {name!r} twice"


def zeros(count: int) -> bytes:
    """The smallest zlib stream of `count` zeros, made quickly even for large counts."""
    size = 1 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(size)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    tail = rest.compress(bytes(count % size)) + rest.flush()
    adler = (count % 65521) << 16 | 1
    return b"\x78\xda" + block * (count // size) + tail + adler.to_bytes(4, "big")
