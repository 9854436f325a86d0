"""The cheap baseline: the person's own frame of nearest motion code, warped to the wanted mouth.

Nothing is trained. A few hundred training frames are kept; rendering takes the one whose code and
pose lie nearest, moves it by the affine map between the two meshes and bends it by what is left
at the vertices, interpolated by normalised Gaussian weights (Shepard 1968).
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
from talkhead.tensors import Size, TensorSpec, check_tensors, within
from talkhead.types import Float32, Int, Rendering, UInt8

STATE = ("images", "masks", "ends", "codes", "viewmats", "ks")
GRID_PX = 8
N_DECODED = 64
"""Exemplars whose images are kept as pixels."""
BEND_FRACTION = 0.045
"""Reach of a vertex's displacement over the distance of the outer eye corners."""
POSE_FRACTION = 4.0
"""How much a radian of head turn counts against a unit of code, choosing a frame."""


@dataclass(frozen=True)
class WarpConfig:
    """n_exemplars: frames kept. jpeg_quality: of their images."""

    n_exemplars: int = bounded(200, 1, 2000)
    jpeg_quality: int = bounded(95, 1, 100)


PRESETS: Mapping[str, WarpConfig] = {
    "preview": WarpConfig(n_exemplars=100),
    "standard": WarpConfig(),
    "high": WarpConfig(n_exemplars=400),
}


MAX_IMAGE_BYTES = 256 << 20
"""Of all exemplars' images together; 400 of 512x512 have 30 MB."""
MAX_EXEMPLAR_PIXELS = 1 << 21
"""Of one image: several are kept decoded."""
EXEMPLARS = Size("N", 1, 2000)
TENSORS = {
    "images": TensorSpec((Size("B", 1, MAX_IMAGE_BYTES),), torch.uint8),
    "masks": TensorSpec((Size("C", 1, MAX_IMAGE_BYTES),), torch.uint8),
    "ends": TensorSpec((EXEMPLARS, 2), torch.int64, least=1, most=MAX_IMAGE_BYTES),
    "codes": TensorSpec((EXEMPLARS, CODES), least=-MAX_CODE, most=MAX_CODE),
    "viewmats": TensorSpec((EXEMPLARS, 4, 4), least=-WORLD, most=WORLD, fault=view_fault),
    "ks": TensorSpec((EXEMPLARS, 3, 3), least=-MAX_PX, most=MAX_PX),
}
"""All but those of the face model."""
FACE = "face."
"""What the names of the face model's tensors begin with."""


class WarpRenderer(RendererBase):
    """Exemplar frames and the face model that warps them."""

    name: ClassVar[str] = "warp"
    config_class: ClassVar[type[WarpConfig]] = WarpConfig
    presets: ClassVar[Mapping[str, WarpConfig]] = PRESETS
    test_config: ClassVar[WarpConfig] = WarpConfig(n_exemplars=12)

    def __init__(self, face: FaceModel, state: Mapping[str, Tensor], config: WarpConfig) -> None:
        """state: images, masks: concatenated JPEGs, ends [N, 2] of each; codes [N, K],
        viewmats [N, 4, 4], ks [N, 3, 3]."""
        self.config = config
        self.face = face
        self._state = {name: state[name] for name in STATE}
        self._codes = state["codes"].cpu().numpy()
        self._viewmats = state["viewmats"].cpu().numpy().astype(np.float64)
        self._ks = state["ks"].cpu().numpy().astype(np.float64)
        self._decode = lru_cache(maxsize=N_DECODED)(self._decode_uncached)

    @classmethod
    def from_dataset(cls, dataset: IdentityDataset, config: WarpConfig, seed: int) -> WarpRenderer:
        """Clear training frames that cover the range of codes and poses, farthest first."""
        usable = np.flatnonzero(dataset.tracks.clear & dataset.tracks.learnt)
        places = _places(
            dataset.tracks.codes[usable], dataset.tracks.viewmats[usable], dataset.face.n_mouth
        )
        chosen = usable[_farthest(places, config.n_exemplars, seed)]
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
        """The renderer back from tensors(). Raises ContentError for any that tensors() doesn't give."""
        face = FaceModel.from_tensors({k: t.cpu() for k, t in within(tensors, FACE).items()})
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
        """All that from_tensors needs."""
        return {**self._state, **{FACE + k: t for k, t in self.face.tensors().items()}}

    def render(
        self, motion: Tensor, viewmats: Tensor, ks: Tensor, height: int, width: int
    ) -> Rendering:
        """Images of motion codes [B, K] seen by viewmats [B, 4, 4] through ks [B, 3, 3]."""
        codes, views, cameras = (t.detach().cpu().numpy() for t in (motion, viewmats, ks))
        made = [
            self._render_one(code, view.astype(np.float64), k.astype(np.float64), (height, width))
            for code, view, k in zip(codes, views, cameras, strict=True)
        ]
        images = torch.from_numpy(np.stack(made)).to(motion.device)
        alpha = images[..., 3:]
        return Rendering(images[..., :3] * alpha, alpha)

    def _render_one(self, code: Float32, view: Any, k: Any, size: tuple[int, int]) -> Float32:
        """rgb and alpha [H, W, 4] in [0, 1]."""
        number = self._nearest(code, view)
        wanted = self._vertices(code, view, k)
        kept = self._vertices(self._codes[number], self._viewmats[number], self._ks[number])
        lookup = warp_lookup(wanted, kept, size)
        image = cv2.remap(
            self._decode(number), lookup, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(image, np.float32) / np.float32(255.0)

    def _nearest(self, code: Float32, view: Any) -> int:
        kept = _places(self._codes, self._viewmats, self.face.n_mouth)
        wanted = _places(code[None], view[None], self.face.n_mouth)
        return int(((kept - wanted) ** 2).sum(1).argmin())

    def _vertices(self, code: Float32, view: Any, k: Any) -> Float32:
        vertices = self.face.vertices(code[None]).astype(np.float64)
        return project(vertices, view[None], k)[0, :N_SURFACE].astype(np.float32)

    def _decode_uncached(self, number: int) -> UInt8:
        """Image and mask [H, W, 4] of an exemplar."""
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
    return PackageError(f"exemplar {number} of the head is damaged. Fit it again")


def warp_lookup(wanted: Float32, kept: Float32, size: tuple[int, int]) -> Float32:
    """Where each pixel of the wanted image comes from, [H, W, 2] x, y in the kept one.

    wanted, kept: [V, 2] the same vertices in either image, pixels with centres at +0.5.
    """
    n = len(wanted)
    design = np.concatenate([wanted, np.ones((n, 1), np.float32)], axis=1)
    affine = np.linalg.lstsq(design, kept, rcond=None)[0].astype(np.float32)
    rest = kept - design @ affine
    reach = BEND_FRACTION * np.linalg.norm(wanted[33] - wanted[263])
    rows, columns = (np.arange(0, length + GRID_PX, GRID_PX, dtype=np.float32) for length in size)
    grid = np.stack(np.meshgrid(columns, rows), axis=-1)
    bend = _shepard(grid.reshape(-1, 2), wanted, rest, float(reach)).reshape(grid.shape)
    matrix = np.array([[1 / GRID_PX, 0, 0.5 / GRID_PX], [0, 1 / GRID_PX, 0.5 / GRID_PX]])
    dense = cv2.warpAffine(
        bend,
        matrix,
        (size[1], size[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    x, y = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5)
    pixels = np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float32)
    return np.asarray(pixels @ affine + dense - 0.5, dtype=np.float32)


def _shepard(points: Float32, at: Float32, values: Float32, reach: float) -> Float32:
    """Values [n, 2] at points [n, 2] from those at scattered places, fading to zero away from them."""
    distance = ((points[:, None] - at[None]) ** 2).sum(-1)
    weights = np.exp(-distance / (2.0 * reach**2))
    return np.asarray(weights @ values / (weights.sum(1, keepdims=True) + 0.05), np.float32)


def _places(codes: Float32, viewmats: Any, n_mouth: int) -> Float32:
    """Where frames lie for the choice of an exemplar, [N, n_mouth + 2]: mouth code, yaw and pitch."""
    turn = POSE_FRACTION * viewmats[:, :2, 2]
    return np.concatenate([codes[:, :n_mouth], turn], axis=1).astype(np.float32)


def _farthest(places: Float32, n: int, seed: int) -> Int:
    """Up to n rows, each the farthest from those before it, in rising order."""
    first = int(np.random.default_rng(seed).integers(len(places)))
    known = np.arange(len(places)) == first
    return np.sort(np.append(farthest_first(places, known, n - 1), first))


def _ends(parts: list[UInt8]) -> Int:
    return np.cumsum([len(part) for part in parts], dtype=np.int64)


def _jpeg(image: UInt8, quality: int) -> UInt8:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.reshape(-1)
