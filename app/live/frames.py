"""Frames of live speech, and the options and statistics of a session; none of it imports PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from talkhead.encoder.extract import RATES
from talkhead.errors import TalkheadError
from talkhead.types import FRAME_RATE, Float32, Int16, UInt8

Pace = Literal["playback", "arrival"]
FRAME_S = 1.0 / FRAME_RATE
LEAD_S = 3 * FRAME_S
"""How far ahead of their time frames are given out: what is out can't be interrupted."""
ARRIVAL_AHEAD = 0
"""Frames that a prediction waits for where every millisecond counts: their features are approximated."""
MAX_WAITING_S = 600.0
"""Most sound that may wait to be spoken."""


@dataclass(frozen=True)
class LiveFrame:
    """A picture with its sound.

    Attributes:
        image: Picture [H, W, 3], RGB.
        audio: Sound of its 40 ms, [n], one channel.
        sample_rate: Samples per second of the sound.
        index: Number of the frame since the beginning.
        epoch: Number of interruptions before it. A player drops what it still holds of older ones.
        sound_index: Number of frames of sound that were given out before it since the beginning of its
            line; the frames of rest between them don't count.
        is_speech: True if it belongs to a line, False while the mouth is at rest.
        end_of_speech: True for the last frame of a line.
    """

    image: UInt8
    audio: Int16
    sample_rate: int
    index: int
    epoch: int
    sound_index: int
    is_speech: bool
    end_of_speech: bool

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
class LiveOptions:
    """Options of a live session.

    Attributes:
        sample_rate: Samples per second of the sound that is given out; a multiple of 25.
        pace: "playback" gives frames out as they are played, for sound that comes faster than that,
            such as synthetic speech; "arrival" as soon as they are ready, for a microphone.
        lead_s: With "playback", how far ahead of their time frames are given out. Infinity: as fast as
            they are ready, for players with a queue of their own.
        ahead: Frames that a prediction waits for. None: as the predictor was trained; with "arrival",
            ARRIVAL_AHEAD.
        intensity: Factor on the motion of the mouth; 1 is the person's own.
        badge: True to mark every picture as made by a machine.

    Raises:
        TalkheadError: For an impossible sample rate.
    """

    sample_rate: int = 24_000
    pace: Pace = "playback"
    lead_s: float = LEAD_S
    ahead: int | None = None
    intensity: float = 1.0
    badge: bool = True

    def __post_init__(self) -> None:
        rate = self.sample_rate
        if not RATES[0] <= rate <= RATES[1] or rate % FRAME_RATE:
            raise TalkheadError(
                f"a sample rate of {rate} Hz: a multiple of {FRAME_RATE} from {RATES[0]} to "
                f"{RATES[1]} is needed, such as 16000, 24000 or 48000"
            )


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
