"""The data that flows between stages. Read this first.

Conventions: images are RGB, channels last; pixels have their centres at +0.5; cameras are pinholes
with OpenCV axes (x right, y down, z forward); the world's unit is the distance between the outer
eye corners of the face template.
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
    Int16 = npt.NDArray[np.int16]
    Bool = npt.NDArray[np.bool_]
    Int = npt.NDArray[np.int64]
else:
    _ARRAYS = {
        "Float32": "float32",
        "Float64": "float64",
        "UInt8": "uint8",
        "Int16": "int16",
        "Bool": "bool_",
        "Int": "int64",
    }

    def __getattr__(name: str) -> Any:
        """The array types, made on first use: what is wrong with a command is told without numpy."""
        if name not in _ARRAYS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import numpy as np
        import numpy.typing as npt

        return globals().setdefault(name, npt.NDArray[getattr(np, _ARRAYS[name])])


FRAME_RATE = 25
"""Frames a second of everything between the reader and the writer."""

MAX_SIDE_PX = 16_384
"""Of a source image's sides."""

SAMPLE_RATE = 16_000
"""Samples a second of the waveforms that encoders hear."""


@dataclass(frozen=True)
class MediaInfo:
    """What a media file holds. Sizes are as displayed, that is after rotation."""

    path: Path
    duration_s: float
    width: int  # 0 without video
    height: int
    frame_rate: float  # average; 0 without video
    rotation: int  # degrees clockwise that the container asks for: 0, 90, 180, 270
    audio_rate: int  # 0 without sound
    audio_channels: int

    @property
    def has_video(self) -> bool:
        return self.width > 0

    @property
    def has_audio(self) -> bool:
        return self.audio_rate > 0


@dataclass(frozen=True)
class Tracking:
    """Face landmarks of a clip.

    landmarks: [F, 478, 3] float32, x and y in pixels of the source image, z in the same scale,
    smaller is nearer (mediapipe's face landmarks with irises). Values of frames without a face are
    interpolated over short gaps, else zero.
    blendshapes: [F, 52] float32 in [0, 1], expression coefficients in the order of
    `talkhead.face.BLENDSHAPES`; without a face as landmarks.
    found: [F] bool, a face was seen in this very frame.
    """

    landmarks: Float32
    blendshapes: Float32
    found: Bool

    def __len__(self) -> int:
        return len(self.found)


@dataclass(frozen=True)
class HeadPoses:
    """Rigid head motion: viewmats [F, 4, 4] (template space to camera), residual_px [F]."""

    viewmats: Float32
    residual_px: Float32


@dataclass(frozen=True)
class SpeechFeatures:
    """What an encoder hears: values [F, D] float32, one vector every 1 / rate seconds.

    Vector i describes the moment i / rate (its centre), so that vector 0 belongs to second 0. Sound
    up to lookahead_s after that moment has a say in it.
    """

    values: Float32
    rate: float
    lookahead_s: float = 0.0

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Rendering:
    """Rendered heads: rgb [B, H, W, 3] premultiplied by alpha, alpha [B, H, W, 1], in [0, 1]."""

    rgb: Tensor
    alpha: Tensor
