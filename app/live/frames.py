"""Frames of live speech, and facts and statistics of a session; none of it imports PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from talkhead.encoder.extract import RATES
from talkhead.errors import TalkheadError
from talkhead.types import FRAME_RATE, Float32, Int16, UInt8

FRAME_S = 1.0 / FRAME_RATE
ARRIVAL_AHEAD = 0
"""Frames that a prediction waits for where every millisecond counts: their features are approximated."""
MAX_WAITING_S = 600.0
"""Most sound that may wait to be spoken."""
NO_PICTURE: UInt8 = np.zeros((0, 0, 3), np.uint8)
"""The picture of a session that does not render."""


@dataclass(frozen=True)
class LiveFrame:
    """A picture with its sound.

    Attributes:
        image: Picture [H, W, 3], RGB; [H, W, 4] with a transparent background; [0, 0, 3] if the session
            does not render.
        audio: Sound of its 40 ms, [n], one channel.
        sample_rate: Samples per second of the sound.
        index: Number of the frame since the beginning.
        epoch: Number of interruptions before it. A player drops what it still holds of older ones.
        sound_index: Number of frames of sound that were given out before it since the beginning of its
            line; the frames of rest between them don't count.
        is_speech: True if it belongs to a line, False while the mouth is at rest.
        end_of_speech: True for the last frame of a line.
        code: Motion code of the mouth, [K].
    """

    image: UInt8
    audio: Int16
    sample_rate: int
    index: int
    epoch: int
    sound_index: int
    is_speech: bool
    end_of_speech: bool
    code: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def time_s(self) -> float:
        """Seconds since the beginning."""
        return self.index * FRAME_S


@dataclass(frozen=True)
class LiveStatistics:
    """What a session has done so far.

    Attributes:
        n_frames: Frames given out.
        n_speech: Frames of lines among them.
        n_repeated: Frames that repeat the picture before, because rendering was too slow.
        n_dropped: Frames that were left out with their sound, because the sound, of a microphone, had
            waited for too long.
        n_interruptions: Interruptions.
        behind_ms: How late the last frame was.
        waiting_s: Seconds of sound that wait.
        busy_ms: Time that a frame takes, a moving average; of 40 ms.
        first_frame_ms: From the first sound of the newest line to its first frame.
    """

    n_frames: int = 0
    n_speech: int = 0
    n_repeated: int = 0
    n_dropped: int = 0
    n_interruptions: int = 0
    behind_ms: float = 0.0
    waiting_s: float = 0.0
    busy_ms: float = 0.0
    first_frame_ms: float | None = None


@dataclass(frozen=True)
class LiveFacts:
    """Facts about the person and the pictures of a session.

    Attributes:
        identity: Name of the identity.
        consent: The person's statement of consent. None: none was stored.
        note: What the pictures cannot show as requested; "" if there is nothing.
        reach: Largest absolute value of each of the K components of a mouth code.
        rest: Code of the mouth at rest, [K].
    """

    identity: str
    consent: str | None
    note: str
    reach: tuple[float, ...]
    rest: tuple[float, ...]


def check_sound(samples: Float32, sample_rate: int) -> None:
    """Check sound that is to be spoken.

    Args:
        samples: [n], one channel.
        sample_rate: Samples per second.

    Raises:
        TalkheadError: For an impossible sample rate, or samples that are not numbers.
    """
    if not RATES[0] <= sample_rate <= RATES[1]:
        raise TalkheadError(
            f"a sample rate of {sample_rate} Hz: from {RATES[0]} to {RATES[1]} is needed"
        )
    if not bool(np.isfinite(samples).all()):
        raise TalkheadError("the sound has samples that are not numbers. Send valid PCM")


def check_waiting(seconds: float) -> None:
    """Check how much sound waits to be spoken.

    Args:
        seconds: Its duration.

    Raises:
        TalkheadError: It is longer than MAX_WAITING_S.
    """
    if seconds > MAX_WAITING_S:
        raise TalkheadError(
            f"more than {MAX_WAITING_S:g} s of sound wait to be spoken. Send it in real time"
        )
