"""Messages between a live session and its worker, over pipes: JSON and bytes, each after its size."""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

import numpy as np

from talkhead.types import UInt8

SIZES = struct.Struct("<II")
"""Bytes of the JSON and bytes of the content."""


def write_message(stream: BinaryIO, header: dict[str, Any], *content: memoryview) -> None:
    """Write a message.

    Args:
        stream: A pipe.
        header: The part that is sent as JSON.
        content: Contiguous bytes that follow it.

    Raises:
        OSError: The other end is closed.
    """
    text = json.dumps(header).encode()
    stream.write(SIZES.pack(len(text), sum(part.nbytes for part in content)) + text)
    for part in content:
        stream.write(part)
    stream.flush()


def read_message(stream: BinaryIO) -> tuple[dict[str, Any], UInt8] | None:
    """Read a message.

    Args:
        stream: A pipe.

    Returns:
        Its JSON and its content [n]; None at the end of the stream, even within a message.
    """
    sizes = stream.read(SIZES.size)
    if len(sizes) < SIZES.size:
        return None
    n_text, n_content = SIZES.unpack(sizes)
    text = stream.read(n_text)
    content = np.empty(n_content, np.uint8)
    view, n = content.data, 0
    while n < n_content:
        n_read = stream.readinto(view[n:])  # type: ignore[attr-defined]
        if not n_read:
            return None
        n += n_read
    return (json.loads(text), content) if len(text) == n_text else None
