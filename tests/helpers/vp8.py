"""Decode packets of VP8."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from talkhead.media import read_frames
from talkhead.types import UInt8


def decode(packets: Sequence[bytes], size: tuple[int, int], folder: Path) -> UInt8:
    """Decode packets of VP8 to pictures [n, H, W, 3]; sizes are rounded up to even ones."""
    width, height = (n + n % 2 for n in size)
    path = folder / "packets.ivf"
    content = struct.pack(
        "<4sHH4sHHIIII", b"DKIF", 0, 32, b"VP80", width, height, 25, 1, len(packets), 0
    )
    for i, packet in enumerate(packets):
        content += struct.pack("<IQ", len(packet), i) + packet
    path.write_bytes(content)
    return np.stack(list(read_frames(path)))


def psnr(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Peak signal to noise ratio of pictures from 0 to 255, dB."""
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))
