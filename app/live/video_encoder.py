"""Encode the pictures of a live session: VP8 in a separate program, or JPEG."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2

from talkhead.errors import MediaError
from talkhead.media.live_encoder import LiveEncoder
from talkhead.types import UInt8

if TYPE_CHECKING:  # it imports PyTorch, which takes seconds
    from talkhead.app.live.frames import LiveFrame

Codec = Literal["jpeg", "vp8", "codes"]
"""How pictures are encoded; "codes": none is rendered, and motion codes are encoded (`CodeEncoder`)."""
JPEG_QUALITY = 85


@dataclass(frozen=True)
class EncodedPicture:
    """The encoded picture of a frame.

    Attributes:
        codec: How it is encoded.
        content: Its bytes; none if it is the picture of the frame before.
        is_key: True if it can be decoded without those before it.
    """

    codec: Codec
    content: bytes
    is_key: bool

    @property
    def is_repeated(self) -> bool:
        """True if it is the picture of the frame before."""
        return not self.content


class VideoEncoder:
    """Encodes the pictures of one receiver.

    The first picture with VP8 is a key frame, as is the first after an interruption, because a receiver
    drops the frames before it, and the first after `request_key_frame`. If the program that encodes VP8
    fails, the pictures from then on are JPEG. Methods may be called from any thread, `encode` from one
    at a time.
    """

    def __init__(self, size: tuple[int, int], codec: Codec = "jpeg") -> None:
        """Start to encode.

        Args:
            size: Width and height of the pictures.
            codec: How to encode: "jpeg" or "vp8".
        """
        self._lock = threading.Lock()
        self._last: UInt8 | None = None
        self._epoch = 0
        self._wants_key = False
        self._vp8: LiveEncoder | None = None
        self.problem: str | None = None
        if codec == "vp8":
            try:
                self._vp8 = LiveEncoder(size)
            except MediaError as error:
                self.problem = str(error)

    @property
    def codec(self) -> Codec:
        """Codec of the pictures to come. If it is not the one asked for, `problem` has the reason."""
        return "jpeg" if self._vp8 is None else "vp8"

    def encode(self, frame: LiveFrame) -> EncodedPicture:
        """Encode the picture of the next frame. This takes milliseconds.

        Args:
            frame: The frame.

        Returns:
            The encoded picture.
        """
        with self._lock:
            vp8, is_key = self._vp8, self._wants_key or frame.epoch != self._epoch
            self._wants_key = False
        is_same = frame.image is self._last and not is_key
        self._last, self._epoch = frame.image, frame.epoch
        if is_same:
            return EncodedPicture(self.codec, b"", False)
        if vp8 is not None:
            try:
                return EncodedPicture("vp8", *vp8.encode(frame.image, as_key=is_key))
            except MediaError as error:
                self._give_up(str(error))
        return EncodedPicture("jpeg", encode_jpeg(frame.image), True)

    def request_key_frame(self) -> None:
        """Make the next picture one that can be decoded without those before it."""
        with self._lock:
            self._wants_key = True

    def use_jpeg(self) -> None:
        """Encode JPEG from the next picture on, for a receiver that cannot decode VP8."""
        self.request_key_frame()  # the next picture is sent even if it is the same
        self.close()

    def close(self) -> None:
        """End the program. Pictures that are encoded after this are JPEG. This takes milliseconds."""
        with self._lock:
            vp8, self._vp8 = self._vp8, None
        if vp8 is not None:
            vp8.close()

    def _give_up(self, problem: str) -> None:
        """Note why VP8 failed, unless it was ended on purpose."""
        with self._lock:
            if self._vp8 is not None:
                self.problem = problem
        self.close()


def encode_jpeg(picture: UInt8) -> bytes:
    """Encode a picture as JPEG.

    Args:
        picture: [H, W, 3], RGB.

    Returns:
        The bytes of a JPEG file.
    """
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    content: bytes = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[
        1
    ].tobytes()
    return content
