"""Files of sections, which the modules of web pages read.

A header (magic, version, length, CRC-32, number of sections) and a table of sections (name, type,
offset, number of values) are followed by the sections, all little endian and aligned to 16 bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

HEADER, ENTRY = struct.Struct("<8sIIII8x"), struct.Struct("<4sIII")
ALIGNMENT = 16
TYPES = {name: number for number, name in enumerate(("|u1", "|i1", "<u2", "<i2", "<i4", "<f4"))}
"""Numbers of the types of values, by numpy's names."""
Array: TypeAlias = npt.NDArray[Any]


def encode_sections(magic: bytes, version: int, sections: Sequence[tuple[str, Array]]) -> bytes:
    """Encode sections.

    Args:
        magic: First 8 bytes of the file.
        version: Version of the file.
        sections: Name of 4 letters and values of each, in their order. Names may occur repeatedly.

    Returns:
        The contents of the file, not compressed.
    """
    start = HEADER.size + ENTRY.size * len(sections)
    table, body = bytearray(), bytearray()
    for name, values in sections:
        body += bytes(-(start + len(body)) % ALIGNMENT)
        table += ENTRY.pack(name.encode(), TYPES[values.dtype.str], start + len(body), values.size)
        body += np.ascontiguousarray(values).tobytes()
    content = bytes(table + body)
    n_bytes, checksum = HEADER.size + len(content), zlib.crc32(content)
    return HEADER.pack(magic, version, n_bytes, checksum, len(sections)) + content
