"""The radiance field of the head at rest: density and color of a point, given the code.

Static features come from three planes or a hash grid. Four further planes change with the code,
each with one part of it in one region: mouth and jaw with the components of the mouth, the space
behind the lips also with these, the eyes with the components of the eyes, and everything with the
pose of head and body.
ER-NeRF (arXiv 2307.09323, section 3.2) learns such regions as attention; here they are fixed. A
network with two hidden layers maps the features to density and color.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.face import (
    INNER_LIPS,
    LEFT_BROW,
    LEFT_EYE,
    RIGHT_BROW,
    RIGHT_EYE,
    FaceModel,
    clothes_components,
)
from talkhead.renderers.nerf.config import HASH, NerfConfig
from talkhead.renderers.nerf.hash_grid import HashGrid, n_parameters
from talkhead.renderers.nerf.planes import PlaneSpec, sample_planes
from talkhead.renderers.nerf.rays import MOUTH_HALF, HeadSpace
from talkhead.renderers.pose_features import N_POSE
from talkhead.tensors import TensorSpec

MAX_LOG_DENSITY = 7.0
"""Upper bound of the logarithm of density."""
FIRST_LOG_DENSITY = 1.5
"""Bias of the logarithm of density at initialization."""


def plane_specs(space: HeadSpace, n_mouth: int, config: NerfConfig) -> tuple[PlaneSpec, ...]:
    """List the planes of a head.

    Args:
        space: The space of the head at rest.
        n_mouth: Number of mouth components of the code.
        config: The settings.

    Returns:
        The planes that depend on the code, then, without a hash grid, the static ones.
    """
    # The parts of the code: mouth, eyes and brows, pose. Clothes do not depend on the code.
    low, high = space.box[0].tolist(), space.box[1].tolist()
    template, n_codes = space.template, len(space.basis)
    n_face = clothes_components(space.basis).start
    mouth, eyes, pose = (0, n_mouth), (n_mouth, n_face), (n_codes, n_codes + N_POSE)
    # The regions, in world units of the head at rest.
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
    code_range: tuple[int, int] | None,
) -> PlaneSpec:
    """Create the description of a plane from its bounds and the distance between its nodes."""
    width, height = (max(2, math.ceil((high[i] - low[i]) / unit) + 1) for i in range(2))
    return PlaneSpec(
        name, axes, (low[0], low[1]), (high[0], high[1]), height, width, n_channels, code_range
    )


class Field:
    """The radiance field. Its parameters are plain tensors with requires_grad.

    Attributes:
        specs: The planes.
        parameters: Parameters by name.
        hash: The hash grid, if there is one.
    """

    def __init__(
        self,
        space: HeadSpace,
        n_mouth: int,
        state: Mapping[str, Tensor],
        config: NerfConfig,
    ) -> None:
        """Create a field from its state.

        Args:
            space: The space of the head at rest.
            n_mouth: Number of mouth components of the code.
            state: Parameters by name, each of the shape in tensor_specs.
            config: The settings.
        """
        self.specs = plane_specs(space, n_mouth, config)
        names = [name for name, _ in _shapes(self.specs, config)]
        self.parameters = {name: state[name].clone().requires_grad_() for name in names}
        self.hash = HashGrid(space.box, HASH) if config.encoding == "hash" else None

    @classmethod
    def initial_state(
        cls, face: FaceModel, space: HeadSpace, config: NerfConfig, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Initialize the parameters.

        Args:
            face: The face model.
            space: The space of the head at rest.
            config: The settings.
            generator: Draws the parameters.

        Returns:
            Parameters by name; tensor_specs gives the shape of each.
        """
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
        """Group the parameters by kind.

        Args:
            config: Settings that include their learning rates.

        Returns:
            Parameter groups as those of torch.optim.
        """
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

    def blend(self, code: Tensor) -> list[Tensor]:
        """Blend the planes of each image.

        Args:
            code: [B, K + 12], motion and pose.

        Returns:
            One tensor per plane, [B, h, w, C], or [1, h, w, C] if it does not depend on the code.
        """
        planes = []
        for spec in self.specs:
            base = self.parameters[f"base.{spec.name}"]
            if spec.code_range is None:
                planes.append(base[None])
                continue
            part = code[:, spec.code_range[0] : spec.code_range[1]]
            change = part @ self.parameters[f"deltas.{spec.name}"]
            planes.append(base + change.view(-1, *spec.shape))
        return planes

    def evaluate(
        self, points: Tensor, image: Tensor, planes: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Evaluate the field.

        Args:
            points: [N, 3], points of the head at rest.
            image: [N], int64, the image that each point belongs to.
            planes: Returned by blend.

        Returns:
            Density [N] and color [N, 3] in [0, 1].
        """
        values = sample_planes(points, image, planes, self.specs)  # [N, D]
        if self.hash is not None:
            values = torch.cat([values, self.hash(points, self.parameters["table"])], dim=1)
        for layer in range(2):
            values = F.relu(F.linear(values, *self._layer(layer)))
        out = F.linear(values, *self._layer(2))  # [N, 4]: log density, color logits
        return out[:, 0].clamp(max=MAX_LOG_DENSITY).exp(), torch.sigmoid(out[:, 1:])

    def _layer(self, number: int) -> tuple[Tensor, Tensor]:
        """Return weight [out, in] and bias [out] of a layer."""
        return self.parameters[f"weight.{number}"], self.parameters[f"bias.{number}"]


def tensor_specs(space: HeadSpace, n_mouth: int, config: NerfConfig) -> dict[str, TensorSpec]:
    """Describe the parameters of a field.

    Args:
        space: The space of the head at rest.
        n_mouth: Number of mouth components of the code.
        config: The settings.

    Returns:
        Specs by name.
    """
    shapes = _shapes(plane_specs(space, n_mouth, config), config)
    return {name: TensorSpec(shape) for name, shape in shapes}


def _shapes(specs: tuple[PlaneSpec, ...], config: NerfConfig) -> list[tuple[str, tuple[int, ...]]]:
    """List name and shape of each parameter."""
    shapes: list[tuple[str, tuple[int, ...]]] = []
    n_values = sum(spec.n_channels for spec in specs)
    for spec in specs:
        shapes.append((f"base.{spec.name}", spec.shape))
        if spec.code_range is not None:
            n_components = spec.code_range[1] - spec.code_range[0]
            shapes.append((f"deltas.{spec.name}", (n_components, math.prod(spec.shape))))
    if config.encoding == "hash":
        shapes.append(("table", (n_parameters(HASH),)))
        n_values += HASH.n_values
    widths = [n_values, config.n_hidden, config.n_hidden, 4]
    for layer in range(3):
        shapes.append((f"weight.{layer}", (widths[layer + 1], widths[layer])))
        shapes.append((f"bias.{layer}", (widths[layer + 1],)))
    return shapes
