"""Motion codes of live speech: level, features, voice activity and prediction, piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import numpy as np

from talkhead.encoder.base import ApproximatingStream, SpeechEncoder
from talkhead.encoder.live_vad import SAMPLES_PER_FRAME, LiveLevel, LiveVad
from talkhead.encoder.predictor.model import MotionPredictor
from talkhead.encoder.predictor.stream import MotionStream
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32


class LiveSpeech:
    """Turns the audio of one line into motion codes as it arrives.

    The codes do not depend on how the audio is cut into pieces.

    Attributes:
        lookahead_s: Seconds after a frame's moment that must have arrived before it is predicted.
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        predictor: MotionPredictor,
        *,
        ahead: int | None = None,
        intensity: float = 1.0,
    ) -> None:
        """Begin a line.

        Args:
            encoder: Speech encoder with the features that the predictor was fitted with.
            predictor: The person's predictor.
            ahead: Frames that a prediction waits for (`MotionStream`). None: as trained.
            intensity: Factor on the motion of the mouth; closed lips stay closed.

        Raises:
            PackageError: If the weights of pase-live, which detects speech, are missing or damaged.
        """
        self._level, self._vad = LiveLevel(), LiveVad()
        self._encoder = encoder.stream()
        self._approximate: Callable[[], Float32] | None = None
        per_frame = predictor.scaling.vectors_per_frame
        features_s = encoder.lookahead_s + (per_frame - 1) / encoder.rate
        self._motion = MotionStream(predictor, ahead=ahead, intensity=intensity)
        features_s += self._motion.ahead / FRAME_RATE
        if self._motion.ahead < predictor.view.ahead and isinstance(
            self._encoder, ApproximatingStream
        ):
            self._approximate = self._encoder.pending
        spare_s = features_s - self._vad.lookahead_s
        self._motion.horizon = max(0, int(spare_s * FRAME_RATE + 1e-6))
        self.lookahead_s = max(features_s, self._vad.lookahead_s)
        # Sound is taken in pieces of a frame that end where the sound ends that a prediction waits for:
        # if they ended with the frames, it would wait for the rest of one, too.
        self._n_before = -ceil(self.lookahead_s * SAMPLE_RATE - 1e-6) % SAMPLES_PER_FRAME
        self._waiting = np.zeros(self._n_before, np.float32)
        self._n_pushed = self._n_leveled = 0
        self._n_codes = len(predictor.scaling.rest)

    def push(self, samples: Float32) -> Float32:
        """Add audio.

        Args:
            samples: The next samples [n] in [-1, 1] at 16 kHz.

        Returns:
            Motion codes [m, n_codes] of the frames that are complete.
        """
        self._waiting = np.concatenate([self._waiting, samples])
        self._n_pushed += len(samples)
        n_frames = len(self._waiting) // SAMPLES_PER_FRAME
        if n_frames == 0:  # a microphone's blocks are shorter than a frame
            return np.zeros((0, self._n_codes), np.float32)
        used, self._waiting = np.split(self._waiting, [n_frames * SAMPLES_PER_FRAME])
        return self._advance(used)

    def finish(self) -> Float32:
        """End the line.

        Returns:
            Motion codes [m, n_codes] of the frames that were still waiting, the last of which may
            have audio only for part of its duration.
        """
        missing = -len(self._waiting) % SAMPLES_PER_FRAME
        n_left = -(-self._n_pushed // SAMPLES_PER_FRAME) * SAMPLES_PER_FRAME - self._n_leveled
        leveled, quiet = self._leveled(np.pad(self._waiting, (0, missing)))
        leveled = np.pad(leveled, (0, n_left))[:n_left]
        self._waiting = np.zeros(0, np.float32)
        silent = self._vad.push(leveled, quiet) + self._vad.finish()
        vectors = np.concatenate([self._encoder.push(leveled), self._encoder.finish()])
        codes = self._motion.push(vectors, silent, vectors[:0])  # nothing is left to approximate
        return np.concatenate([codes, self._motion.finish()])

    def _advance(self, samples: Float32) -> Float32:
        """Motion codes [m, n_codes] that whole pieces of samples [n] complete."""
        if self._approximate is None:
            return self._advance_at_once(samples)
        # Approximations depend on where the sound ends, so it is always encoded piece by piece.
        pieces = samples.reshape(-1, SAMPLES_PER_FRAME)
        return np.concatenate([self._advance_at_once(piece) for piece in pieces])

    def _advance_at_once(self, samples: Float32) -> Float32:
        """The same, without a stop between pieces."""
        leveled, quiet = self._leveled(samples)
        silent = self._vad.push(leveled, quiet)
        vectors = self._encoder.push(leveled)
        pending = None if self._approximate is None else self._approximate()
        return self._motion.push(vectors, silent, pending)

    def _leveled(self, samples: Float32) -> tuple[Float32, list[bool]]:
        """Bring whole pieces of samples [n] to the level of speech, and tell which are quiet."""
        pairs = [self._level.push(piece) for piece in samples.reshape(-1, SAMPLES_PER_FRAME)]
        leveled = np.concatenate([np.zeros(0, np.float32), *(piece for piece, _ in pairs)])
        if self._n_leveled == 0:
            leveled = leveled[self._n_before :]
        self._n_leveled += len(leveled)
        return leveled, [quiet for _, quiet in pairs]
