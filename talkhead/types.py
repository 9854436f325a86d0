"""The data that flows between stages. Read this first.

Conventions: images are RGB, channels last; pixels have their centers at +0.5; cameras are pinholes with
OpenCV axes (x right, y down, z forward); the world's unit is the distance between the outer eye corners
of the face template.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    Float32 = npt.NDArray[np.float32]
    Float64 = npt.NDArray[np.float64]
    UInt8 = npt.NDArray[np.uint8]
    Int8 = npt.NDArray[np.int8]
    Int16 = npt.NDArray[np.int16]
    Bool = npt.NDArray[np.bool_]
    Int = npt.NDArray[np.int64]
else:
    _ARRAYS = {
        "Float32": "float32",
        "Float64": "float64",
        "UInt8": "uint8",
        "Int8": "int8",
        "Int16": "int16",
        "Bool": "bool_",
        "Int": "int64",
    }

    def __getattr__(name: str) -> Any:
        """Make an array type on first use, so that usage errors need no import of numpy."""
        if name not in _ARRAYS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import numpy as np
        import numpy.typing as npt

        return globals().setdefault(name, npt.NDArray[getattr(np, _ARRAYS[name])])


FRAME_RATE = 25
"""Frames per second of everything between the reader and the writer."""

MAX_SIDE_PX = 16_384
"""Largest side of a source image."""

SAMPLE_RATE = 16_000
"""Samples per second of the waveforms that encoders process."""


@dataclass(frozen=True)
class MediaInfo:
    """Properties of a media file.

    Attributes:
        path: The file.
        duration_s: Duration, seconds.
        width: Width in pixels as displayed, that is after rotation; 0 without video.
        height: Height in pixels as displayed; 0 without video.
        frame_rate: Average frames per second; 0 without video.
        rotation: Clockwise rotation that the container specifies, degrees: 0, 90, 180 or 270.
        audio_rate: Samples per second; 0 without audio.
        audio_channels: Number of channels.
    """

    path: Path
    duration_s: float
    width: int
    height: int
    frame_rate: float
    rotation: int
    audio_rate: int
    audio_channels: int

    @property
    def has_video(self) -> bool:
        """The file has a picture."""
        return self.width > 0

    @property
    def has_audio(self) -> bool:
        """The file has audio."""
        return self.audio_rate > 0


@dataclass(frozen=True)
class Tracking:
    """Face landmarks of a clip of F frames.

    Attributes:
        landmarks: [F, 478, 3] float32, x and y in pixels of the source image, z in the same scale,
            smaller is nearer (mediapipe's face landmarks with irises). In frames without a face, short
            gaps are interpolated; otherwise 0.
        blendshapes: [F, 52] float32 in [0, 1], expression coefficients in the order of
            `talkhead.blendshapes.BLENDSHAPES`; frames without a face are handled like those of landmarks.
        detected: [F] bool, the face was detected in this frame itself.
    """

    landmarks: Float32
    blendshapes: Float32
    detected: Bool

    def __len__(self) -> int:
        return len(self.detected)


@dataclass(frozen=True)
class HeadPoses:
    """Rigid head motion of F frames.

    Attributes:
        viewmats: [F, 4, 4] template space to camera.
        residual_px: [F] residual of the pose, source pixels.
    """

    viewmats: Float32
    residual_px: Float32


@dataclass(frozen=True)
class SpeechFeatures:
    """Output of a speech encoder, one vector every 1 / rate seconds.

    Vector i describes the moment i / rate (its center), so that vector 0 belongs to second 0. It depends
    on the audio up to lookahead_s after that moment.

    Attributes:
        values: [F, D] float32.
        rate: Vectors per second.
        lookahead_s: Seconds.
    """

    values: Float32
    rate: float
    lookahead_s: float = 0.0

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Rendering:
    """Rendered heads.

    Attributes:
        rgb: [B, H, W, 3] in [0, 1], premultiplied by alpha.
        alpha: [B, H, W, 1] in [0, 1].
    """

    rgb: Tensor
    alpha: Tensor
