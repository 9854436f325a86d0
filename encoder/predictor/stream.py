"""Motion codes of live speech: a MotionPredictor that receives features as they arrive.

A file is available as a whole, live speech is not. So the transitions of the mouth to and from rest
depend only on the frames that are available when a frame is predicted; everything else is as for files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from talkhead.easing import smooth_step
from talkhead.encoder.predictor.lip_range import scale_motion
from talkhead.encoder.predictor.model import MotionPredictor
from talkhead.encoder.predictor.network import frame_inputs
from talkhead.encoder.predictor.rest import CLOSING_FRAMES, rest_ramp, speech_ramp
from talkhead.types import Float32


class MotionStream:
    """Predicts the motion codes of speech that arrives in pieces, whose size does not affect the codes.

    Attributes:
        ahead: Number of frames after a frame whose features are needed to predict it.
        horizon: Number of frames after a frame whose silence flags are needed to predict it.
    """

    def __init__(
        self,
        predictor: MotionPredictor,
        *,
        ahead: int | None = None,
        horizon: int = 0,
        intensity: float = 1.0,
    ) -> None:
        """Begin a line.

        Args:
            predictor: The person's predictor.
            ahead: Number of frames after a frame whose features are needed to predict it. The networks
                were trained with `predictor.view.ahead` frames; if there are fewer, approximations are
                used or the newest features are repeated. None for the number in training.
            horizon: Number of frames after a frame whose silence flags are needed to predict it.
            intensity: Factor on the motion of the mouth; closed lips stay closed.
        """
        self.ahead = predictor.view.ahead if ahead is None else min(ahead, predictor.view.ahead)
        self.horizon = horizon
        self._predictor, self._intensity = predictor, intensity
        self._per_frame = predictor.scaling.vectors_per_frame
        # Normalized features from the first frame that later ones need.
        self._held = np.zeros((0, len(predictor.scaling.mean)), np.float32)
        self._pending: Float32 | None = None
        self._silent: list[bool] = []  # from the next frame on
        self._since = np.inf
        self._rest = 1.0
        self._line = None if predictor.lip_range is None else predictor.lip_range.line()

    def push(
        self, vectors: Float32, silent: Sequence[bool], pending: Float32 | None = None
    ) -> Float32:
        """Add features and flags, and predict the frames that are complete.

        Args:
            vectors: The next feature vectors, [m, D].
            silent: The next frames' flags, True without speech.
            pending: Approximations of the vectors that follow, [p, D], for the frames that are
                predicted now. None: only the `ahead` frames are used, so that the codes do not depend
                on the size of the pieces.

        Returns:
            Motion codes [n, n_codes] of the next frames.
        """
        scaling = self._predictor.scaling
        if len(vectors):
            new = scaling.normalized(vectors)
            if len(self._held) == 0:
                # The first vector is repeated, as at the beginning of a file.
                n_before = self._predictor.view.behind * self._per_frame
                new = np.concatenate([np.repeat(new[:1], n_before, axis=0), new])
            self._held = np.concatenate([self._held, new])
        self._silent.extend(bool(flag) for flag in silent)
        n_features = len(self._held) // self._per_frame - self._predictor.view.behind - self.ahead
        self._pending = None if pending is None else scaling.normalized(pending)
        return self._frames(min(n_features, len(self._silent) - self.horizon))

    def finish(self) -> Float32:
        """End the line, as if silence followed.

        Returns:
            Motion codes [n, n_codes] of the frames that were still waiting.
        """
        if len(self._held) == 0:
            return self._frames(0)
        self._pending = self._held[:0]
        n_left = -(-len(self._held) // self._per_frame) - self._predictor.view.behind
        n_missing = (n_left + self._predictor.view.behind) * self._per_frame
        self._held = _lengthened(self._held, n_missing)
        n_flags = n_left + self.horizon
        self._silent = (self._silent + [True] * n_flags)[: max(n_flags, 0)]
        return self._frames(n_left)

    def _frames(self, n: int) -> Float32:
        """Return the motion codes [n, n_codes] of the next frames."""
        rest = self._predictor.scaling.rest
        if n <= 0:
            return np.zeros((0, len(rest)), np.float32)
        scaling, lips = self._predictor.scaling, self._predictor.lip_range
        codes = self._raw_codes(n)
        shares, near = self._shares(n)
        if self._line is not None:
            codes = self._line.correct(codes, near, ~np.array(self._silent[:n]))
        codes = np.clip(codes, scaling.low, scaling.high)
        codes = scale_motion(codes, rest[: codes.shape[1]], lips, self._intensity)
        result = shares[:, None] * rest
        result[:, : codes.shape[1]] += (1.0 - shares[:, None]) * codes
        self._held = self._held[n * self._per_frame :]
        del self._silent[:n]
        return np.asarray(result, np.float32)

    def _raw_codes(self, n: int) -> Float32:
        """Return the mouth codes [n, K] as predicted, each from a separate window."""
        view, size = self._predictor.view, self._per_frame
        n_window = (view.behind + 1 + view.ahead) * size
        known, n_known = self._held, (view.behind + 1 + self.ahead) * size
        if self._pending is not None:
            known, n_known = np.concatenate([known, self._pending]), n_window
        windows = np.stack(
            [_lengthened(known[i * size : i * size + n_known], n_window) for i in range(n)]
        )
        inputs = frame_inputs(torch.from_numpy(np.ascontiguousarray(windows)), size)
        nets = self._predictor.nets
        with torch.no_grad():
            mean = nets(inputs[None].expand(len(nets), -1, -1, -1))[:, :, 0].mean(0)
        scaling = self._predictor.scaling
        return np.asarray(scaling.centre + scaling.gain * mean.numpy(), np.float32)

    def _shares(self, n: int) -> tuple[Float32, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
        """Return to what degree the next frames are at rest, [n], and belong to speech, [n]."""
        since, until = np.zeros(n), np.zeros(n)
        for frame in range(n):
            known = self._silent[frame : frame + self.horizon + 1]
            until[frame] = known.index(False) if False in known else np.inf
            self._since = 0 if until[frame] == 0 else self._since + 1
            since[frame] = self._since
        shares = rest_ramp(since, until)
        for frame in range(n):
            # Speech that was not known in advance: the mouth still takes CLOSING_FRAMES to leave rest.
            shares[frame] = self._rest = max(shares[frame], self._rest - 1.0 / CLOSING_FRAMES)
        near = speech_ramp(np.minimum(since, until))
        return smooth_step(shares).astype(np.float32), near


def _lengthened(vectors: Float32, n: int) -> Float32:
    """Repeat the last of vectors [m, D], so that there are at least n."""
    n_missing = max(0, n - len(vectors))
    return np.concatenate([vectors, np.repeat(vectors[-1:], n_missing, axis=0)])
