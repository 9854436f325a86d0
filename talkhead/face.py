"""The face shared by all stages: named parts of the mesh, and a linear model of its motion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from talkhead.storage import ContentError
from talkhead.tensors import Size, TensorSpec, check_tensors
from talkhead.types import Float32, Int

# Indices into mediapipe's 478-point face mesh (468 of the surface, 10 of the irises).
N_SURFACE = 468
N_LANDMARKS = 478
OUTER_EYE_CORNERS = (33, 263)  # image left, image right
NOSE_BOTTOM = 2
CHIN = 152
FOREHEAD = 10
INNER_LIP_TOP, INNER_LIP_BOTTOM = 13, 14
OUTER_LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
)  # fmt: skip
INNER_LIPS = (
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191,
)  # fmt: skip
LIPS = OUTER_LIPS + INNER_LIPS
LIP_PAIRS = ((13, 14), (82, 87), (312, 317))
"""Upper and lower points of the middle of the inner lips."""
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
JAW_LINE = FACE_OVAL[8:29]
"""The lower half of the oval, from the image's right ear (454) over the chin to the left (234)."""
MOUTH_POINTS = LIPS + JAW_LINE
"""Points that speech moves, on which predictors and their prior are evaluated, in this order."""
LEFT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
RIGHT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
LEFT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
RIGHT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
IRISES = tuple(range(N_SURFACE, N_LANDMARKS))


def cap_triangles() -> Int:
    """Return triangles across the inner lips, from corner to corner.

    Returns:
        [18, 3] vertex indices.
    """
    lower, upper = list(INNER_LIPS[:11]), [INNER_LIPS[0], *INNER_LIPS[:9:-1]]
    triangles = []
    for i in range(10):
        if i > 0:
            triangles.append((lower[i], upper[i], lower[i + 1]))
        if i < 9:
            triangles.append((upper[i], upper[i + 1], lower[i + 1]))
    return np.array(triangles, dtype=np.int64)


N_INNER = 3
"""Number of components of the inner mouth, the last ones of the mouth."""
N_CLOTHES = 12
"""Number of components of the clothes, before the body's; packages of older versions have none."""
N_BODY = 6
"""Number of components of the body, at the end of every motion code."""


def body_matrix(codes: Tensor) -> Tensor:
    """Return the pose of the body as matrices in camera space, exact for points at any depth.

    The code is an affine map of normalized image coordinates minus the identity (x from x, x from y,
    shift of x; then the same three for y).

    Args:
        codes: [B, K] motion codes.

    Returns:
        [B, 3, 3].
    """
    rows = torch.nn.functional.pad(codes[:, -N_BODY:].reshape(-1, 2, 3), (0, 0, 0, 1))
    return rows + torch.eye(3, dtype=codes.dtype, device=codes.device)


def clothes_components(basis: Tensor) -> slice:
    """Find the components of the clothes: those between the eyes' and the body's, which move no vertex.

    Args:
        basis: [K, V, 3] vertex offsets per unit of code.

    Returns:
        The components; empty in models of older versions, which have none.
    """
    moving = basis.flatten(1).any(1).nonzero()
    end = len(basis) - N_BODY
    return slice(min(int(moving[-1]) + 1, end) if len(moving) else end, end)


MAX_CODES = 256
"""Largest number of components of a motion code; usually about 50."""
MAX_TRIANGLES = 4096
WORLD = 1000.0
"""Largest coordinate of a head, in eye distances."""
CODES, TRIANGLES = Size("K", N_BODY + 1, MAX_CODES), Size("T", 1, MAX_TRIANGLES)
TEMPLATE_SPEC = TensorSpec((N_LANDMARKS, 3), minimum=-WORLD, maximum=WORLD)
BASIS_SPEC = TensorSpec((CODES, N_LANDMARKS, 3), minimum=-WORLD, maximum=WORLD)
MAX_CODE = 1e4
"""Largest component of a motion code, in standard deviations."""
TENSORS = {
    "template": TEMPLATE_SPEC,
    "basis": BASIS_SPEC,
    "triangles": TensorSpec((TRIANGLES, 3), torch.int32, index_of=N_SURFACE),
    "silence": TensorSpec((CODES,), minimum=-MAX_CODE, maximum=MAX_CODE),
    "n_mouth": TensorSpec((1,), torch.int32, minimum=1, maximum=MAX_CODES),
}


@dataclass(frozen=True)
class FaceModel:
    """A person's face mesh, linear in the motion code: vertices = template + code @ basis.

    Attributes:
        template: [478, 3] mean face, world units (outer eye corners 1 apart, origin between them, OpenCV
            axes, looking towards -z).
        basis: [K, 478, 3] vertex offsets per unit of code. The first n_mouth components move mouth and
            jaw, the next ones eyes and brows; within a part, all have the same scale, and the first has
            standard deviation 1 on the training frames. Three kinds move no vertex: the last N_INNER of
            the mouth's, which describe the inner mouth; those after the eyes', which describe the clothes
            where they do not follow the body; and the last N_BODY, the pose of the body, see body_matrix.
        n_mouth: Number of components of the mouth.
        triangles: [T, 3] of the surface, consistently wound.
        silence: [K] rest code: this person's closed mouth (eyes 0).
    """

    template: Float32
    basis: Float32
    n_mouth: int
    triangles: Int
    silence: Float32

    @property
    def n_codes(self) -> int:
        """Number of components K of a motion code."""
        return len(self.basis)

    @cached_property
    def clothes(self) -> slice:
        """The components of the clothes, which may be none."""
        found = clothes_components(torch.from_numpy(self.basis))
        return slice(max(found.start, self.n_mouth), found.stop)

    @property
    def eyes(self) -> slice:
        """The components of eyes and brows."""
        return slice(self.n_mouth, self.clothes.start)

    def vertices(self, codes: Float32) -> Float32:
        """Compute mesh vertices.

        Args:
            codes: [F, K] motion codes.

        Returns:
            [F, 478, 3] in world units.
        """
        flat = codes @ self.basis.reshape(self.n_codes, -1)
        return np.asarray(self.template + flat.reshape(len(codes), -1, 3), dtype=np.float32)

    def tensors(self) -> dict[str, Tensor]:
        """Return the model as tensors for a safetensors file.

        Returns:
            Template [478, 3], basis [K, 478, 3], triangles [T, 3], silence [K] and n_mouth [1].
        """
        return {
            "template": torch.from_numpy(self.template.copy()),
            "basis": torch.from_numpy(self.basis.copy()),
            "triangles": torch.from_numpy(self.triangles.astype(np.int32)),
            "silence": torch.from_numpy(self.silence.copy()),
            "n_mouth": torch.tensor([self.n_mouth], dtype=torch.int32),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> FaceModel:
        """Restore the model of `tensors`.

        Args:
            tensors: Template [478, 3], basis [K, 478, 3], triangles [T, 3], silence [K] and n_mouth [1].

        Returns:
            The model.

        Raises:
            ContentError: A tensor is missing or invalid.
        """
        check_tensors(tensors, TENSORS)
        check_n_mouth(int(tensors["n_mouth"][0]), len(tensors["basis"]))
        return cls(
            template=tensors["template"].numpy(),
            basis=tensors["basis"].numpy(),
            n_mouth=int(tensors["n_mouth"][0]),
            triangles=tensors["triangles"].numpy().astype(np.int64),
            silence=tensors["silence"].numpy(),
        )


def check_n_mouth(n_mouth: int, n_codes: int) -> None:
    """Check the number of mouth components.

    Args:
        n_mouth: Number of components of the mouth.
        n_codes: Number of components of a code, N_BODY of which are the body's.

    Raises:
        ContentError: The number is out of range.
    """
    if not 1 <= n_mouth <= n_codes - N_BODY:
        raise ContentError(
            f"the tensor n_mouth holds {n_mouth}, where 1 to {n_codes - N_BODY} is allowed"
        )


def lip_aperture(points: Float32) -> Float32:
    """Return the inner-lip gap over the distance between the outer eye corners.

    It is the mean of the three middle pairs of points, which is steadier than one pair.

    Args:
        points: [F, 478, 2 or 3] landmarks or vertices, any unit.

    Returns:
        [F].
    """
    gaps = [points[:, top] - points[:, low] for top, low in LIP_PAIRS]
    gap = np.mean([np.linalg.norm(g[..., :2], axis=-1) for g in gaps], axis=0)
    left, right = OUTER_EYE_CORNERS
    return np.asarray(gap / np.linalg.norm(points[:, left, :2] - points[:, right, :2], axis=-1))
