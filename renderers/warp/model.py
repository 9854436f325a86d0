"""The warp baseline: the person's own frame of nearest motion code, warped to the target mouth.

Nothing is trained. A few hundred training frames are stored. To render, the one nearest in code and
pose is mapped by the affine map between the two meshes; the remaining offset at the vertices is
interpolated by normalized Gaussian weights (Shepard, "A two-dimensional interpolation function for
irregularly-spaced data", 1968) and added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor

from talkhead.cameras import MAX_PX, project, view_fault
from talkhead.config import bounded
from talkhead.dataset import IdentityDataset
from talkhead.errors import MediaError, PackageError
from talkhead.face import CODES, MAX_CODE, N_SURFACE, WORLD, FaceModel
from talkhead.frame_selection import farthest_first
from talkhead.images import JPEG, decode_image
from talkhead.renderers.base import RendererBase
from talkhead.storage import ContentError
from talkhead.tensors import Size, TensorSpec, check_tensors, strip_prefix
from talkhead.types import Float32, Int, Rendering, UInt8

STATE = ("images", "masks", "ends", "codes", "viewmats", "ks")
GRID_PX = 8
N_DECODED = 64
"""Number of exemplars that are cached as decoded images."""
BEND_FRACTION = 0.045
"""Standard deviation of a vertex's weight, relative to the distance between the outer eye corners."""
POSE_FRACTION = 4.0
"""Weight of a radian of head rotation against a unit of the code when the nearest frame is chosen."""


@dataclass(frozen=True)
class WarpConfig:
    """Settings of the warp baseline.

    Attributes:
        n_exemplars: Number of frames that are stored.
        jpeg_quality: JPEG quality of their images.
    """

    n_exemplars: int = bounded(200, 1, 2000)
    jpeg_quality: int = bounded(95, 1, 100)


PRESETS: Mapping[str, WarpConfig] = {
    "preview": WarpConfig(n_exemplars=100),
    "standard": WarpConfig(),
    "high": WarpConfig(n_exemplars=400),
}


MAX_IMAGE_BYTES = 256 << 20
"""Maximum size of all exemplars' images together; 400 of 512x512 take 30 MB."""
MAX_EXEMPLAR_PIXELS = 1 << 21
"""Maximum number of pixels in one image; limited because several decoded images are cached."""
EXEMPLARS = Size("N", 1, 2000)
TENSORS = {
    "images": TensorSpec((Size("B", 1, MAX_IMAGE_BYTES),), torch.uint8),
    "masks": TensorSpec((Size("C", 1, MAX_IMAGE_BYTES),), torch.uint8),
    "ends": TensorSpec((EXEMPLARS, 2), torch.int64, minimum=1, maximum=MAX_IMAGE_BYTES),
    "codes": TensorSpec((EXEMPLARS, CODES), minimum=-MAX_CODE, maximum=MAX_CODE),
    "viewmats": TensorSpec((EXEMPLARS, 4, 4), minimum=-WORLD, maximum=WORLD, fault=view_fault),
    "ks": TensorSpec((EXEMPLARS, 3, 3), minimum=-MAX_PX, maximum=MAX_PX),
}
"""The tensors apart from those of the face model."""
FACE = "face."
"""Prefix of the names of the face model's tensors."""


class WarpRenderer(RendererBase):
    """Exemplar frames and the face model by which they are warped."""

    name: ClassVar[str] = "warp"
    config_class: ClassVar[type[WarpConfig]] = WarpConfig
    presets: ClassVar[Mapping[str, WarpConfig]] = PRESETS
    test_config: ClassVar[WarpConfig] = WarpConfig(n_exemplars=12)

    def __init__(self, face: FaceModel, state: Mapping[str, Tensor], config: WarpConfig) -> None:
        """Create a renderer from its state.

        Args:
            face: The face model.
            state: images and masks: concatenated JPEGs, uint8; ends [N, 2]: where each of them
                ends; codes [N, K]; viewmats [N, 4, 4]; ks [N, 3, 3].
            config: The settings.
        """
        self.config = config
        self.face = face
        self._state = {name: state[name] for name in STATE}
        self._codes = state["codes"].cpu().numpy()
        self._viewmats = state["viewmats"].cpu().numpy().astype(np.float64)
        self._ks = state["ks"].cpu().numpy().astype(np.float64)
        self._decode = lru_cache(maxsize=N_DECODED)(self._decode_uncached)

    @classmethod
    def from_dataset(cls, dataset: IdentityDataset, config: WarpConfig, seed: int) -> WarpRenderer:
        """Choose unoccluded training frames that cover the range of codes and poses.

        Args:
            dataset: The person's footage.
            config: The settings.
            seed: Chooses the first frame. Each further one is the farthest from those already
                chosen.

        Returns:
            The finished renderer.
        """
        usable = np.flatnonzero(dataset.tracks.unoccluded & dataset.tracks.trainable)
        coordinates = _pose_coordinates(
            dataset.tracks.codes[usable], dataset.tracks.viewmats[usable], dataset.face.n_mouth
        )
        chosen = usable[_farthest_points(coordinates, config.n_exemplars, seed)]
        images = [_jpeg(dataset.frames[i][..., ::-1], config.jpeg_quality) for i in chosen]
        masks = [_jpeg(dataset.masks[i], config.jpeg_quality) for i in chosen]
        state = {
            "images": torch.from_numpy(np.concatenate(images)),
            "masks": torch.from_numpy(np.concatenate(masks)),
            "ends": torch.from_numpy(np.stack([_ends(images), _ends(masks)], axis=1)),
            "codes": torch.from_numpy(dataset.tracks.codes[chosen]),
            "viewmats": torch.from_numpy(dataset.tracks.viewmats[chosen]),
            "ks": torch.from_numpy(dataset.crop_ks[chosen]),
        }
        return cls(dataset.face, state, config)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], config: WarpConfig) -> WarpRenderer:
        """Restore a renderer.

        Args:
            tensors: What tensors() returned. Name, type, shape and range of each are checked.
            config: The settings.

        Returns:
            The renderer.

        Raises:
            ContentError: If a tensor is missing, unknown or malformed.
        """
        face = FaceModel.from_tensors({k: t.cpu() for k, t in strip_prefix(tensors, FACE).items()})
        state = {k: t for k, t in tensors.items() if not k.startswith(FACE)}
        check_tensors(state, TENSORS, {CODES.name: face.n_codes})
        for column, name in enumerate(("images", "masks")):
            ends = torch.cat([torch.zeros(1, dtype=torch.int64), state["ends"][:, column].cpu()])
            if not (ends.diff() > 0).all() or ends[-1] != len(state[name]):
                raise ContentError(f"the tensor ends does not divide {name} into images")
        return cls(face, state, config)

    @property
    def n_codes(self) -> int:
        """Components of the motion codes that it renders."""
        return self.face.n_codes

    def tensors(self) -> dict[str, Tensor]:
        """Return the exemplars and the face model; TENSORS gives the shape of each."""
        return {**self._state, **{FACE + k: t for k, t in self.face.tensors().items()}}

    def render(
        self, motion: Tensor, viewmats: Tensor, ks: Tensor, height: int, width: int
    ) -> Rendering:
        """Render images on the CPU.

        Args:
            motion: [B, K], motion codes.
            viewmats: [B, 4, 4], world to camera.
            ks: [B, 3, 3], intrinsics, pixels.
            height: Height of the images, pixels.
            width: Width of the images, pixels.

        Returns:
            rgb [B, H, W, 3], premultiplied, and alpha [B, H, W, 1], on the device of motion.

        Raises:
            PackageError: If an exemplar's image is damaged.
        """
        codes, views, cameras = (t.detach().cpu().numpy() for t in (motion, viewmats, ks))
        made = [
            self._render_one(code, view.astype(np.float64), k.astype(np.float64), (height, width))
            for code, view, k in zip(codes, views, cameras, strict=True)
        ]
        images = torch.from_numpy(np.stack(made)).to(motion.device)
        alpha = images[..., 3:]
        return Rendering(images[..., :3] * alpha, alpha)

    def _render_one(self, code: Float32, view: Any, k: Any, size: tuple[int, int]) -> Float32:
        """Render rgb and alpha [H, W, 4] in [0, 1] of a code [K], view [4, 4] and intrinsics [3, 3]."""
        # Choose the exemplar and project the mesh into both images, [V, 2].
        number = self._nearest(code, view)
        target = self._vertices(code, view, k)
        source = self._vertices(self._codes[number], self._viewmats[number], self._ks[number])
        lookup = warp_lookup(target, source, size)
        image = cv2.remap(
            self._decode(number), lookup, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(image, np.float32) / np.float32(255.0)

    def _nearest(self, code: Float32, view: Any) -> int:
        """Return the index of the exemplar nearest to a code [K] and view [4, 4]."""
        source = _pose_coordinates(self._codes, self._viewmats, self.face.n_mouth)
        target = _pose_coordinates(code[None], view[None], self.face.n_mouth)
        return int(((source - target) ** 2).sum(1).argmin())

    def _vertices(self, code: Float32, view: Any, k: Any) -> Float32:
        """Project the face's vertices of a code [K] to pixels [V, 2]."""
        vertices = self.face.vertices(code[None]).astype(np.float64)
        return project(vertices, view[None], k)[0, :N_SURFACE].astype(np.float32)

    def _decode_uncached(self, number: int) -> UInt8:
        """Decode image and mask [H, W, 4] of an exemplar. Raises PackageError."""
        flags = {"images": cv2.IMREAD_COLOR, "masks": cv2.IMREAD_GRAYSCALE}
        parts = []
        for column, (name, flag) in enumerate(flags.items()):
            ends = self._state["ends"][:, column].tolist()
            start = ends[number - 1] if number else 0
            data = self._state[name][start : ends[number]].cpu().numpy()
            try:
                parts.append(decode_image(data.tobytes(), name, (JPEG,), flag))
            except MediaError as error:
                raise _damaged(number) from error
        image, mask = parts
        if image.shape[:2] != mask.shape or mask.size > MAX_EXEMPLAR_PIXELS:
            raise _damaged(number)
        return np.dstack([image[..., ::-1], mask])


def _damaged(number: int) -> PackageError:
    """Make the error for an exemplar whose image is damaged."""
    return PackageError(f"image {number} of the warp renderer is damaged. Fit the renderer again")


def warp_lookup(target: Float32, source: Float32, size: tuple[int, int]) -> Float32:
    """Compute from where in the source image each pixel of the target image is taken.

    Args:
        target: [V, 2], vertices in the target image, pixels with centers at +0.5.
        source: [V, 2], the same vertices in the source image.
        size: Height and width of the target image.

    Returns:
        [H, W, 2], x and y in the source image, with pixel centers at integers as cv2.remap expects.
    """
    # The affine map that fits the vertices best, and the remaining offsets.
    n = len(target)
    design = np.concatenate([target, np.ones((n, 1), np.float32)], axis=1)
    affine = np.linalg.lstsq(design, source, rcond=None)[0].astype(np.float32)
    remainder = source - design @ affine  # [V, 2]
    # Interpolate the remainder on a coarse grid, and the grid to all pixels.
    reach = BEND_FRACTION * np.linalg.norm(target[33] - target[263])
    rows, columns = (np.arange(0, length + GRID_PX, GRID_PX, dtype=np.float32) for length in size)
    grid = np.stack(np.meshgrid(columns, rows), axis=-1)
    bend = _shepard(grid.reshape(-1, 2), target, remainder, float(reach)).reshape(grid.shape)
    matrix = np.array([[1 / GRID_PX, 0, 0.5 / GRID_PX], [0, 1 / GRID_PX, 0.5 / GRID_PX]])
    dense = cv2.warpAffine(
        bend,
        matrix,
        (size[1], size[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    # Map every pixel's center: affine part, remainder, and cv2's convention of pixel centers.
    x, y = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5)
    pixels = np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float32)
    return np.asarray(pixels @ affine + dense - 0.5, dtype=np.float32)


def _shepard(points: Float32, at: Float32, values: Float32, reach: float) -> Float32:
    """Interpolate values [V, 2] at positions [V, 2] to points [n, 2]; they fade out with distance."""
    distance = ((points[:, None] - at[None]) ** 2).sum(-1)
    weights = np.exp(-distance / (2.0 * reach**2))
    return np.asarray(weights @ values / (weights.sum(1, keepdims=True) + 0.05), np.float32)


def _pose_coordinates(codes: Float32, viewmats: Any, n_mouth: int) -> Float32:
    """Return mouth code, yaw and pitch [N, n_mouth + 2], in which exemplars are compared."""
    turn = POSE_FRACTION * viewmats[:, :2, 2]
    return np.concatenate([codes[:, :n_mouth], turn], axis=1).astype(np.float32)


def _farthest_points(coordinates: Float32, n: int, seed: int) -> Int:
    """Choose up to n rows of coordinates [N, d], each the farthest from those before; returns indices
    [n].
    """
    first = int(np.random.default_rng(seed).integers(len(coordinates)))
    known = np.arange(len(coordinates)) == first
    return np.sort(np.append(farthest_first(coordinates, known, n - 1), first))


def _ends(parts: list[UInt8]) -> Int:
    """Return where each of several arrays of bytes ends in their concatenation, [N]."""
    return np.cumsum([len(part) for part in parts], dtype=np.int64)


def _jpeg(image: UInt8, quality: int) -> UInt8:
    """Encode an image, [H, W] or [H, W, 3], as bytes [n]."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.reshape(-1)
