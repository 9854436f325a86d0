"""Encode the motion codes of a live session in 8 bits, for viewers that draw the head themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from talkhead.app.live.video_encoder import Codec, EncodedPicture
from talkhead.errors import TalkheadError

if TYPE_CHECKING:  # it imports PyTorch, which takes seconds
    from talkhead.app.live.frames import LiveFrame

MAX_LEVEL = 127
LEAST_STEP = 1e-6
CODES: Codec = "codes"
"""The codec of these codes."""


class CodeEncoder:
    """Takes the place of a `VideoEncoder` in a session that does not render.

    Attributes:
        codec: The codec.
        problem: None: encoding does not fail.
        scale: Factor of each of the K levels.
    """

    codec: Codec = CODES
    problem = None

    def __init__(self, reach: Sequence[float]) -> None:
        """Prepare to encode.

        Args:
            reach: Largest absolute value of each component of a code, [K].
        """
        steps = np.asarray(reach, np.float32) / np.float32(MAX_LEVEL)
        self._steps = np.maximum(steps, np.float32(LEAST_STEP))
        self.scale: tuple[float, ...] = tuple(self._steps.tolist())

    def encode(self, frame: LiveFrame) -> EncodedPicture:
        """Encode the code of a frame.

        Args:
            frame: The frame.

        Returns:
            Levels [K] from -127 to 127, int8, as the picture of the frame.
        """
        levels = np.clip(np.rint(frame.code / self._steps), -MAX_LEVEL, MAX_LEVEL)
        return EncodedPicture(CODES, levels.astype(np.int8).tobytes(), True)

    def request_key_frame(self) -> None:
        """Do nothing: every code can be decoded without those before it."""

    def use_jpeg(self) -> None:
        """Refuse to encode pictures.

        Raises:
            TalkheadError: Always.
        """
        raise TalkheadError("this session has no pictures. Begin one with the codec jpeg or vp8")

    def close(self) -> None:
        """Do nothing."""
