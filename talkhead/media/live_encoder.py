"""Encode pictures one at a time as VP8: each is returned before the next one is given.

ffmpeg runs as a separate program. Pictures go in as IVF, and packets come out as IVF. Their time stamps
count half pictures: a picture with an odd one is encoded as a key frame, so that key frames can be
requested at any time, which ffmpeg has no command for.
"""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np

from talkhead.errors import MediaError
from talkhead.media.inputs import streamed_input
from talkhead.media.process import Process
from talkhead.types import FRAME_RATE, UInt8

_FILE_HEADER = struct.Struct("<4sHH4sHHIIII")
"""Signature, version, bytes of this header, codec, width, height, rate, scale, pictures, zero."""
_HEADER = struct.Struct("<IQ")
"""Bytes of the picture, time stamp."""
TICKS = 2
"""Time stamps in a picture."""
BITS_PER_PIXEL = 0.55
"""Bits of a pixel: the PSNR is then that of JPEG with quality 85, for the sample person."""
MIN_BITS, MAX_BITS = 400_000, 12_000_000
"""Bits per second."""
STALL_S = 2.0
"""Seconds after which a program that returns no packet is ended."""


class LiveEncoder:
    """Encodes pictures as VP8, without delay: the encoder sees no picture ahead.

    Methods may be called from any thread, `encode` from one at a time.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        """Start the encoder.

        Args:
            size: Width and height of the pictures.

        Raises:
            MediaError: The program cannot be started.
        """
        # 4:2:0 needs even sizes; the last column or row is repeated, and players cut it off.
        width, height = (n + n % 2 for n in size)
        self._size = size
        self._n = 0
        self._process = Process(_graph(width, height), fed=True, read=True, stall_s=STALL_S)
        self._pending = _FILE_HEADER.pack(
            b"DKIF", 0, _FILE_HEADER.size, b"I420", width, height, TICKS * FRAME_RATE, 1, 0, 0
        )
        self._to_skip = _FILE_HEADER.size

    def encode(self, picture: UInt8, *, as_key: bool = False) -> tuple[bytes, bool]:
        """Encode the next picture. This waits for the program: a few milliseconds.

        Args:
            picture: [H, W, 3], RGB.
            as_key: True for a key frame. The first one always is.

        Returns:
            The packet, and True if it is a key frame.

        Raises:
            MediaError: The program has failed, has ended, or takes longer than STALL_S.
            ValueError: The picture has another size.
        """
        if picture.shape != (self._size[1], self._size[0], 3):
            raise ValueError(f"a picture of shape {picture.shape}, but the size is {self._size}")
        content = _yuv420(picture)
        # ffmpeg shifts the first time stamp to 0: an odd one would make all others odd.
        time_stamp = TICKS * self._n + (as_key and self._n > 0)
        header = _HEADER.pack(len(content), time_stamp)
        try:
            self._process.feed(self._pending + header)
            self._process.feed(content)
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise self._failure() from error
        self._pending = b""
        self._n += 1
        self._read(self._to_skip)
        self._to_skip = 0
        n_bytes, _ = _HEADER.unpack(self._read(_HEADER.size))
        packet = self._read(n_bytes)
        return packet, not packet[0] & 1  # RFC 6386, section 9.1

    def close(self) -> None:
        """End the program, and with it an `encode` that is waiting in another thread."""
        self._process.stop()

    def _read(self, n_bytes: int) -> bytes:
        """Read that many bytes of output."""
        block = bytearray(n_bytes)
        try:
            n_read = self._process.fill(memoryview(block))
        except ValueError as error:  # it is closed
            raise self._failure() from error
        if n_read < n_bytes:
            raise self._failure()
        return bytes(block)

    def _failure(self) -> MediaError:
        self._process.popen.kill()
        self._process.wait()
        reason = self._process.words() or "it ended"
        return MediaError(f"the encoder of live pictures failed: {reason}")


def _graph(width: int, height: int) -> Any:
    """Make the graph of ffmpeg for pictures of a size."""
    bits = BITS_PER_PIXEL * width * height * FRAME_RATE
    options: dict[str, Any] = {
        "f": "ivf",
        "c:v": "libvpx",
        "b:v": round(min(max(bits, MIN_BITS), MAX_BITS)),
        "deadline": "realtime",
        "cpu-used": 8,
        "lag-in-frames": 0,
        "auto-alt-ref": 0,
        "g": 1 << 20,  # key frames on request only: each is as large as five others
        "threads": 1,
        "fps_mode": "passthrough",
        "enc_time_base": f"1:{TICKS * FRAME_RATE}",
        "force_key_frames": f"expr:mod(round(t*{TICKS * FRAME_RATE}),{TICKS})",
        "flush_packets": 1,
    }
    return streamed_input("ivf").output("pipe:", **options)


def _yuv420(picture: UInt8) -> bytes:
    """Convert a picture [H, W, 3] to planes of 4:2:0, BT.601, limited range; sizes become even."""
    rows, columns = picture.shape[0] % 2, picture.shape[1] % 2
    if rows or columns:
        picture = np.pad(picture, ((0, rows), (0, columns), (0, 0)), mode="edge")
    return cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420).tobytes()
