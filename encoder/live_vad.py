"""Voice activity and level of live speech, from the samples so far.

The same two signals decide as for files (`talkhead.encoder.vad`): loudness relative to the noise
floor and the peak, here of the last seconds, and the phones' posterior of silence, here of the small
model, which looks 52.5 ms ahead.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import scipy.signal

from talkhead.audio import POWER_FLOOR, speech_threshold_db
from talkhead.encoder.base import speech_gain
from talkhead.encoder.pase.encoder import PaseEncoder
from talkhead.encoder.phones import PHONES, SILENCE
from talkhead.encoder.vad import MIN_SILENCE_POSTERIOR
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32

SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
HISTORY_FRAMES = 10 * FRAME_RATE
"""Frames whose loudness counts for the noise floor, the peak and the level of speech."""
MIN_SOUNDING = 3
"""Frames with sound that are needed to measure the level."""
N_SMOOTHED = 3
"""Frames over which the posterior of silence is averaged: a frame and those before it."""
MAX_SPEECH_POSTERIOR = 0.1
"""Posterior of silence below which a frame has speech although it is no louder than what was before. It
is lower than for files: chords that go on have 0.25, speech hardly ever more than 0.1.
"""
HUM_HZ = 100.0


class LiveLevel:
    """Brings live speech to the level that encoders expect, frame by frame.

    Attributes:
        gain: Factor on the samples of the last frame.
    """

    def __init__(self) -> None:
        """Begin without samples."""
        self.gain = 1.0
        self._filter = scipy.signal.butter(4, HUM_HZ, "highpass", fs=SAMPLE_RATE, output="sos")
        self._state = np.zeros((self._filter.shape[0], 2))
        self._energies: deque[float] = deque(maxlen=HISTORY_FRAMES)
        self._powers: deque[float] = deque(maxlen=HISTORY_FRAMES)

    def push(self, frame: Float32) -> tuple[Float32, bool]:
        """Add a frame.

        Args:
            frame: Samples [SAMPLES_PER_FRAME] in [-1, 1] at 16 kHz.

        Returns:
            The frame at the level of speech, and True if it is too quiet to have sound. The gain
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

    A frame is known once the posteriors of the next one are: a single frame with sound is a click.

    Attributes:
        lookahead_s: Seconds after its moment that a frame's flag depends on.
    """

    def __init__(self) -> None:
        """Begin without samples.

        Raises:
            PackageError: If the weights of the small model are missing or damaged.
        """
        encoder = PaseEncoder.live()
        self._stream, self._per_frame = encoder.phone_stream(), round(encoder.rate / FRAME_RATE)
        self.lookahead_s = encoder.lookahead_s + (2 * self._per_frame - 1) / encoder.rate
        self._index = PHONES.index(SILENCE)
        self._posteriors = np.zeros(0, np.float32)
        self._recent: deque[float] = deque(maxlen=N_SMOOTHED)
        self._quiet: deque[bool] = deque()
        self._spoken: list[bool] = []  # of the last known frames: before the next, and the next
        self._n_before = 0

    def push(self, leveled: Float32, quiet: list[bool]) -> list[bool]:
        """Add frames.

        Args:
            leveled: Samples [n * SAMPLES_PER_FRAME] at the level of speech.
            quiet: For each of the n frames, whether it is too quiet to have sound.

        Returns:
            The next frames' flags that are known now, True without speech.
        """
        self._quiet.extend(quiet)
        return self._flags(self._stream.push(leveled))

    def finish(self) -> list[bool]:
        """End the waveform; returns the flags of the frames that were still waiting."""
        flags = self._flags(self._stream.finish())
        return flags + [not self._is_speech(after=False) for _ in self._spoken[self._n_before :]]

    def _flags(self, phones: Float32) -> list[bool]:
        """Flags of the frames that posteriors [m, P] complete."""
        self._posteriors = np.concatenate([self._posteriors, phones[:, self._index]])
        n = min(len(self._posteriors) // self._per_frame, len(self._quiet))
        used = n * self._per_frame
        frames = self._posteriors[:used].reshape(n, self._per_frame).mean(1)
        self._posteriors = self._posteriors[used:]
        flags = []
        for value in frames:
            self._recent.append(float(value))
            mean = sum(self._recent) / len(self._recent)
            limit = MAX_SPEECH_POSTERIOR if self._quiet.popleft() else MIN_SILENCE_POSTERIOR
            spoken = mean <= limit
            if len(self._spoken) > self._n_before:
                flags.append(not self._is_speech(after=spoken))
                self._spoken = self._spoken[-1:]
                self._n_before = 1
            self._spoken.append(spoken)
        return flags

    def _is_speech(self, after: bool) -> bool:
        """Whether the oldest unknown frame has speech: it and one of its neighbors sound like it."""
        before = self._spoken[0] if self._n_before else False
        return self._spoken[self._n_before] and (before or after)
