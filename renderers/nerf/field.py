"""The radiance field of the resting head: features of a place and of the code -> density, colour.

Static features by three planes or a hash grid; four planes that change with the code, each where it
is heard: mouth and jaw with the mouth's components, the space behind the lips with the same, the eyes
with theirs, and everything with the pose of head and body. Regions that listen to their own
part of the code are what ER-NeRF (arXiv 2307.09323, section 3.2) learns as attention; here they
are given. A network of two hidden layers reads them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.face import INNER_LIPS, LEFT_BROW, LEFT_EYE, N_BODY, RIGHT_BROW, RIGHT_EYE, FaceModel
from talkhead.renderers.nerf.config import HASH, NerfConfig
from talkhead.renderers.nerf.hash_grid import HashGrid, n_parameters
from talkhead.renderers.nerf.planes import PlaneSpec, sample_planes
from talkhead.renderers.nerf.rays import MOUTH_HALF, HeadSpace
from talkhead.renderers.pose_features import N_POSE
from talkhead.tensors import TensorSpec

MAX_LOG_DENSITY = 7.0
FIRST_LOG_DENSITY = 1.5


def plane_specs(space: HeadSpace, n_mouth: int, config: NerfConfig) -> tuple[PlaneSpec, ...]:
    """All planes of a head."""
    low, high = space.box[0].tolist(), space.box[1].tolist()
    template, n_codes = space.template, len(space.basis)
    n_motion = n_codes - N_BODY
    mouth, eyes, pose = (0, n_mouth), (n_mouth, n_motion), (n_codes, n_codes + N_POSE)
    lips = template[list(INNER_LIPS)].mean(0).tolist()
    around = template[list(LEFT_EYE + RIGHT_EYE + LEFT_BROW + RIGHT_BROW)]
    inner = [lips[i] + space.mouth_shift[i].item() for i in range(2)]
    head_high = [high[0], high[1] - 2.0 * MOUTH_HALF[1]]
    fine, blend = config.fine_unit, config.blend_unit
    boxes: list[tuple[str, tuple[int, int], list[float], list[float], float, int, Any]] = [
        ("mouth", (0, 1), [lips[0] - 0.95, lips[1] - 0.5], [lips[0] + 0.95, lips[1] + 1.0],
         blend, config.n_blend, mouth),
        ("inside", (0, 1), [inner[0] - MOUTH_HALF[0], inner[1] - MOUTH_HALF[1]],
         [inner[0] + MOUTH_HALF[0], inner[1] + MOUTH_HALF[1]], blend, config.n_blend, mouth),
        ("eyes", (0, 1), (around.amin(0)[:2] - 0.12).tolist(), (around.amax(0)[:2] + 0.12).tolist(),
         blend, config.n_blend, eyes),
        ("pose", (0, 1), low[:2], head_high, config.pose_unit, config.n_blend, pose),
    ]  # fmt: skip
    if config.encoding == "planes":
        boxes += [
            ("front", (0, 1), low[:2], high[:2], fine, config.n_front, None),
            ("top", (0, 2), [low[0], low[2]], [high[0], high[2]], 3 * fine, config.n_side, None),
            ("side", (1, 2), [low[1], low[2]], [high[1], high[2]], 3 * fine, config.n_side, None),
        ]
    return tuple(_spec(*box) for box in boxes)


def _spec(
    name: str,
    axes: tuple[int, int],
    low: list[float],
    high: list[float],
    unit: float,
    n_channels: int,
    listens: tuple[int, int] | None,
) -> PlaneSpec:
    width, height = (max(2, math.ceil((high[i] - low[i]) / unit) + 1) for i in range(2))
    return PlaneSpec(
        name, axes, (low[0], low[1]), (high[0], high[1]), height, width, n_channels, listens
    )


class Field:
    """Parameters are plain tensors with requires_grad, by name in `parameters`."""

    def __init__(
        self,
        space: HeadSpace,
        n_mouth: int,
        state: Mapping[str, Tensor],
        config: NerfConfig,
    ) -> None:
        self.specs = plane_specs(space, n_mouth, config)
        names = [name for name, _ in _shapes(self.specs, config)]
        self.parameters = {name: state[name].clone().requires_grad_() for name in names}
        self.hash = HashGrid(space.box, HASH) if config.encoding == "hash" else None

    @classmethod
    def initial_state(
        cls, face: FaceModel, space: HeadSpace, config: NerfConfig, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Parameters to begin with."""
        state = {}
        for name, shape in _shapes(plane_specs(space, face.n_mouth, config), config):
            kind = name.split(".")[0]
            if kind == "weight":
                scale = math.sqrt(2.0 / shape[1])
            else:
                scale = {"base": 0.1, "table": 1e-4}.get(kind, 0.0)
            state[name] = scale * torch.randn(shape, generator=generator)
        state["bias.2"][0] = FIRST_LOG_DENSITY
        state["weight.2"] *= 0.3
        return state

    def param_groups(self, config: NerfConfig) -> list[dict[str, Any]]:
        """Parameters by kind, with their learning rates."""
        rates = {
            "base": config.base_rate,
            "table": config.base_rate,
            "deltas": config.delta_rate,
            "weight": config.net_rate,
            "bias": config.net_rate,
        }
        groups: dict[str, list[Tensor]] = {kind: [] for kind in rates}
        for name, tensor in self.parameters.items():
            groups[name.split(".")[0]].append(tensor)
        return [{"params": p, "lr": rates[kind]} for kind, p in groups.items() if p]

    def contract(self, code: Tensor) -> list[Tensor]:
        """The planes of images whose code is [B, K + 12]: each [B or 1, h, w, C]."""
        planes = []
        for spec in self.specs:
            base = self.parameters[f"base.{spec.name}"]
            if spec.listens is None:
                planes.append(base[None])
                continue
            heard = code[:, spec.listens[0] : spec.listens[1]]
            change = heard @ self.parameters[f"deltas.{spec.name}"]
            planes.append(base + change.view(-1, *spec.shape))
        return planes

    def look(self, points: Tensor, image: Tensor, planes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Density [N] and colour [N, 3] at points [N, 3] of images [N]."""
        values = sample_planes(points, image, planes, self.specs)
        if self.hash is not None:
            values = torch.cat([values, self.hash(points, self.parameters["table"])], dim=1)
        for layer in range(2):
            values = F.relu(F.linear(values, *self._layer(layer)))
        out = F.linear(values, *self._layer(2))
        return out[:, 0].clamp(max=MAX_LOG_DENSITY).exp(), torch.sigmoid(out[:, 1:])

    def _layer(self, number: int) -> tuple[Tensor, Tensor]:
        return self.parameters[f"weight.{number}"], self.parameters[f"bias.{number}"]


def tensor_specs(space: HeadSpace, n_mouth: int, config: NerfConfig) -> dict[str, TensorSpec]:
    """What the parameters of a field must be."""
    shapes = _shapes(plane_specs(space, n_mouth, config), config)
    return {name: TensorSpec(shape) for name, shape in shapes}


def _shapes(specs: tuple[PlaneSpec, ...], config: NerfConfig) -> list[tuple[str, tuple[int, ...]]]:
    """Name and shape of each parameter."""
    shapes: list[tuple[str, tuple[int, ...]]] = []
    n_values = sum(spec.n_channels for spec in specs)
    for spec in specs:
        shapes.append((f"base.{spec.name}", spec.shape))
        if spec.listens is not None:
            n_heard = spec.listens[1] - spec.listens[0]
            shapes.append((f"deltas.{spec.name}", (n_heard, math.prod(spec.shape))))
    if config.encoding == "hash":
        shapes.append(("table", (n_parameters(HASH),)))
        n_values += HASH.n_values
    widths = [n_values, config.n_hidden, config.n_hidden, 4]
    for layer in range(3):
        shapes.append((f"weight.{layer}", (widths[layer + 1], widths[layer])))
        shapes.append((f"bias.{layer}", (widths[layer + 1],)))
    return shapes
