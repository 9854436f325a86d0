"""Voice activity and level of live speech, from the samples so far.

The decision is based on the same two signals as for files (`talkhead.encoder.vad`): loudness relative
to the noise floor and the peak, here of the last 10 s, and the posterior of silence, here from the
small model, whose look-ahead is 52.5 ms.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import scipy.signal

from talkhead.audio import POWER_FLOOR, hum_filter, speech_threshold_db
from talkhead.encoder.base import speech_gain
from talkhead.encoder.pase.encoder import PaseEncoder
from talkhead.encoder.phones import PHONES, SILENCE
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32

SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
HISTORY_FRAMES = 10 * FRAME_RATE
"""Number of last frames from which the noise floor, the peak and the level of speech are measured."""
MIN_SOUNDING = 3
"""Smallest number of frames with sound from which the level is measured."""
N_SMOOTHED = 3
"""Frames over which the posterior of silence is averaged: a frame and those before it."""
MAX_POSTERIOR, MAX_QUIET_POSTERIOR = 0.1, 0.05
"""Largest posterior of silence of a loud frame with speech, and of a quiet one. Speech is hardly ever
above these; chords are at 0.25, a fan at 0.7.
"""
MIN_RUN = 2
"""Smallest number of consecutive frames with speech: a single one is often a click."""


class LiveLevel:
    """Brings live speech to the level that encoders expect, frame by frame.

    Attributes:
        gain: Factor on the samples of the last frame.
    """

    def __init__(self) -> None:
        """Create a stream without samples."""
        self.gain = 1.0
        self._filter = hum_filter(SAMPLE_RATE)
        self._state = np.zeros((self._filter.shape[0], 2))
        self._energies: deque[float] = deque(maxlen=HISTORY_FRAMES)
        self._powers: deque[float] = deque(maxlen=HISTORY_FRAMES)

    def push(self, frame: Float32) -> tuple[Float32, bool]:
        """Add a frame.

        Args:
            frame: Samples [SAMPLES_PER_FRAME] in [-1, 1] at 16 kHz.

        Returns:
            The frame at the level of speech, and True if it is too quiet for speech. The gain
            changes gradually within the frame.
        """
        filtered, self._state = scipy.signal.sosfilt(self._filter, frame, zi=self._state)
        power = max(float(np.square(filtered).mean()), POWER_FLOOR)
        self._energies.append(10.0 * float(np.log10(power)))
        energies = np.array(self._energies, np.float32)
        threshold = speech_threshold_db(energies)
        quiet = self._energies[-1] <= threshold
        if not quiet:
            self._powers.append(float(np.square(frame, dtype=np.float64).mean()))
        before = self.gain
        if len(self._powers) >= MIN_SOUNDING:
            powers = np.array(self._powers)
            self.gain = speech_gain(powers, np.zeros(len(powers), dtype=bool))
        gains = np.linspace(before, self.gain, len(frame) + 1, dtype=np.float32)[1:]
        return np.clip(gains * frame, -1.0, 1.0), quiet


class LiveVad:
    """Finds the frames without speech.

    A frame has speech if it is one of at least MIN_RUN consecutive frames that sound like speech; so
    its flag is determined MIN_RUN - 1 frames later.

    Attributes:
        lookahead_s: Seconds of audio after a frame that its flag depends on.
    """

    def __init__(self) -> None:
        """Create a stream without samples.

        Raises:
            PackageError: If the weights of the small model are missing or damaged.
        """
        encoder = PaseEncoder.live()
        self._stream, self._per_frame = encoder.phone_stream(), round(encoder.rate / FRAME_RATE)
        self.lookahead_s = encoder.lookahead_s + (MIN_RUN * self._per_frame - 1) / encoder.rate
        self._index = PHONES.index(SILENCE)
        self._posteriors = np.zeros(0, np.float32)
        self._recent: deque[float] = deque(maxlen=N_SMOOTHED)
        self._quiet: deque[bool] = deque()
        # Whether frames sound like speech, from MIN_RUN - 1 frames before the next one to flag.
        self._spoken = [False] * (MIN_RUN - 1)

    def push(self, leveled: Float32, quiet: list[bool]) -> list[bool]:
        """Add frames.

        Args:
            leveled: Samples [n * SAMPLES_PER_FRAME] at the level of speech.
            quiet: For each of the n frames, whether it is too quiet to have sound.

        Returns:
            The flags of the next frames that are determined now, True without speech.
        """
        self._quiet.extend(quiet)
        self._listen(self._stream.push(leveled))
        return self._flags()

    def finish(self) -> list[bool]:
        """End the waveform; returns the flags of the frames that were still waiting."""
        self._listen(self._stream.finish())
        self._spoken += [False] * (MIN_RUN - 1)
        return self._flags()

    def _listen(self, phones: Float32) -> None:
        """Decide whether the frames that are completed by posteriors [m, P] sound like speech."""
        self._posteriors = np.concatenate([self._posteriors, phones[:, self._index]])
        n = min(len(self._posteriors) // self._per_frame, len(self._quiet))
        used = n * self._per_frame
        frames = self._posteriors[:used].reshape(n, self._per_frame).mean(1)
        self._posteriors = self._posteriors[used:]
        for value in frames:
            self._recent.append(float(value))
            limit = MAX_QUIET_POSTERIOR if self._quiet.popleft() else MAX_POSTERIOR
            self._spoken.append(sum(self._recent) <= limit * len(self._recent))

    def _flags(self) -> list[bool]:
        """Return the flags of the frames that are determined now."""
        n = len(self._spoken) - 2 * (MIN_RUN - 1)
        flags = []
        for frame in range(max(0, n)):
            runs = (self._spoken[frame + i : frame + i + MIN_RUN] for i in range(MIN_RUN))
            flags.append(not any(all(run) for run in runs))
        self._spoken = self._spoken[len(flags) :]
        return flags
