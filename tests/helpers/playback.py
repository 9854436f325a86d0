"""A small synthetic dataset, a renderer of known quality, and a tracker that returns true
landmarks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor

from talkhead.blendshapes import N_BLENDSHAPES
from talkhead.dataset import FRAMES, MASKS, DatasetInfo, IdentityDataset, Tracks
from talkhead.face import INNER_LIPS, N_BODY, OUTER_EYE_CORNERS, OUTER_LIPS, FaceModel
from talkhead.frame_selection import train_frames
from talkhead.types import Float32, Rendering, UInt8

N_FRAMES, HEIGHT, WIDTH, SOURCE = 66, 80, 64, 120
LEFT, TOP = 30, 70  # the crop reaches 30 px below the source image
N_CODES = 1 + N_BODY


def make_landmarks() -> Float32:
    """Make faces [F, 478, 3] in source pixels that fill most of the crop and open the mouth."""
    rng = np.random.default_rng(0)
    points = np.zeros((N_FRAMES, 478, 3), np.float32)
    points[:, :, 0] = LEFT + rng.uniform(12, 52, 478)
    points[:, :, 1] = TOP + rng.uniform(10, 60, 478)
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    opening = 3 + 2 * np.sin(np.arange(N_FRAMES))[:, None]
    for lips, width, extra in ((OUTER_LIPS, 10.0, 3.0), (INNER_LIPS, 8.0, 0.0)):
        points[:, list(lips), 0] = LEFT + 32 + width * np.cos(turn)
        points[:, list(lips), 1] = TOP + 45 + (opening + extra) * np.sin(turn)
    points[:, list(OUTER_EYE_CORNERS), 1] = TOP + 20
    points[:, list(OUTER_EYE_CORNERS), 0] = [LEFT + 15, LEFT + 49]
    return points


def before_the_camera() -> Float32:
    """Return a head pose [4, 4]."""
    view = np.eye(4, dtype=np.float32)
    view[2, 3] = 1.0
    return view


def make_dataset(folder: Path, scale: float = 1.0) -> IdentityDataset:
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (N_FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    np.stack([cv2.GaussianBlur(f, (0, 0), 2) for f in frames]).tofile(folder / FRAMES)
    np.full((N_FRAMES, HEIGHT, WIDTH), 255, np.uint8).tofile(folder / MASKS)
    background = rng.integers(0, 256, (SOURCE, SOURCE, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "plate.png"), background)
    landmarks = make_landmarks()
    origins = np.tile(np.float32([LEFT, TOP]), (N_FRAMES, 1))
    landmarks[..., :2] = (landmarks[..., :2] - origins[:, None]) / scale + origins[:, None]
    yes = np.ones(N_FRAMES, bool)
    tracks = Tracks(
        landmarks=landmarks,
        blendshapes=np.zeros((N_FRAMES, N_BLENDSHAPES), np.float32),
        detected=yes,
        usable=yes.copy(),
        train=train_frames(N_FRAMES),
        silent=~yes,
        has_image=yes.copy(),
        occluded=np.zeros((N_FRAMES, 1), dtype=bool),
        viewmats=np.tile(before_the_camera(), (N_FRAMES, 1, 1)),
        residual_px=np.zeros(N_FRAMES, np.float32),
        codes=np.pad(np.arange(N_FRAMES, dtype=np.float32)[:, None], ((0, 0), (0, N_BODY))),
        origins=origins,
    )
    size = (SOURCE, SOURCE, WIDTH, HEIGHT)
    info = DatasetInfo("clip.mp4", N_FRAMES, *size, scale, 0.0, 1, False, False)
    face = FaceModel(
        template=np.zeros((478, 3), np.float32),
        basis=np.zeros((N_CODES, 478, 3), np.float32),
        n_mouth=1,
        triangles=np.array([[0, 1, 2]], dtype=np.int64),
        silence=np.zeros(N_CODES, np.float32),
    )
    IdentityDataset.save(folder, info, face, tracks)
    return IdentityDataset.load(folder)


class PlaybackRenderer:
    """Renders the frame whose number is the first code component, shifted by `error`, with opacity
    `cover`.
    """

    name: ClassVar[str] = "playback"
    config: Any = None

    def __init__(self, dataset: IdentityDataset, error: int = 0, cover: float = 1.0) -> None:
        self.dataset, self.error, self.cover = dataset, error, cover
        self.largest_batch = 0

    @classmethod
    def from_dataset(cls, dataset: IdentityDataset, config: Any, seed: int) -> PlaybackRenderer:
        return cls(dataset)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], config: Any) -> PlaybackRenderer:
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def quantization_steps(self) -> dict[str, Tensor]:
        return {}

    def render(
        self, motion: Tensor, viewmats: Tensor, ks: Tensor, height: int, width: int
    ) -> Rendering:
        assert viewmats.shape == (len(motion), 4, 4) and ks.shape == (len(motion), 3, 3)
        self.largest_batch = max(self.largest_batch, len(motion))
        numbers = motion[:, 0].long().tolist()
        shown = np.stack([self.dataset.frames[i] for i in numbers]).astype(np.float32)
        rgb = torch.from_numpy((shown + self.error) / 255.0) * self.cover
        return Rendering(rgb, torch.full((len(motion), height, width, 1), self.cover))

    def losses(self, batch: Any, step: int) -> dict[str, Tensor]:
        return {}

    def param_groups(self) -> list[dict[str, Any]]:
        return []

    def finalize(self, batch: Any) -> None:
        pass

    def after_step(self, step: int) -> None:
        pass


class KnownTracker:
    """Returns the true landmarks of the test frames in order; no face in the frames of `blind`."""

    def __init__(self, points: Float32, blind: frozenset[int] = frozenset()) -> None:
        self.points, self.blind = iter(enumerate(points)), blind
        self.shapes: set[tuple[int, ...]] = set()

    def track(self, frame: UInt8) -> Float32 | None:
        self.shapes.add(frame.shape)
        i, points = next(self.points)
        return None if i in self.blind else points

    def close(self) -> None:
        pass
