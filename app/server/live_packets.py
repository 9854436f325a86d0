"""Binary packets of live frames, as docs/live.md describes them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from talkhead.app.live.video_encoder import EncodedPicture

if TYPE_CHECKING:
    from talkhead.app.live.frames import LiveFrame

HEADER = struct.Struct("<IIIBBHI")
"""Frame number, epoch, number of its audio, flags, codec, zero, bytes of the picture."""
SPEECH, END_OF_SPEECH, SAME_PICTURE, KEY_PICTURE = 1, 2, 4, 8
"""Flags."""
CODECS = {"jpeg": 0, "vp8": 1, "codes": 2}
"""Codecs of the pictures."""


def pack(frame: LiveFrame, picture: EncodedPicture) -> bytes:
    """Combine a frame and its encoded picture for the client.

    Args:
        frame: The frame.
        picture: Its picture.

    Returns:
        HEADER, picture and audio; after motion codes, silence is left out.
    """
    flags = (
        SPEECH * frame.is_speech
        + END_OF_SPEECH * frame.end_of_speech
        + SAME_PICTURE * picture.is_repeated
        + KEY_PICTURE * picture.is_key
    )
    header = HEADER.pack(
        frame.index,
        frame.epoch,
        frame.sound_index,
        flags,
        CODECS[picture.codec],
        0,
        len(picture.content),
    )
    is_left_out = picture.codec == "codes" and not frame.audio.any()
    audio = b"" if is_left_out else frame.audio.astype("<i2").tobytes()
    return header + picture.content + audio
