"""How head and body stand, as renderers hear it: smooth numbers, their spread, where the body is."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from talkhead.cameras import view_fault
from talkhead.dataset import IdentityDataset
from talkhead.face import N_BODY, WORLD, body_matrix
from talkhead.tensors import TensorSpec
from talkhead.types import Float64

N_POSE = 6 + N_BODY
POSE_RANGE = 2.5
"""Poses count up to so many standard deviations from their mean: beyond them nothing was seen."""
MIN_SCALE = 0.003
"""Never a scale so small that noise of tracking would look like motion."""
POSE_TENSORS = {
    "pose_mean": TensorSpec((N_POSE,)),
    "pose_scale": TensorSpec((N_POSE,), least=MIN_SCALE / 2),
}
"""What renderers keep of pose_statistics."""
VIEW_SPEC = TensorSpec((4, 4), least=-WORLD, most=WORLD, fault=view_fault)
"""A head pose."""


def pose_vector(viewmats: Tensor, motion: Tensor) -> Tensor:
    """Head and body pose as smooth numbers [B, 12]: rotation, place in the image, log depth, body.

    The rotation by its antisymmetric part, which for heads within 60 degrees is one-to-one.
    """
    r, t = viewmats[:, :3, :3], viewmats[:, :3, 3]
    turn = torch.stack(
        [r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]], dim=1
    )
    return torch.cat([turn, t[:, :2] / t[:, 2:], t[:, 2:].log(), motion[:, -N_BODY:]], dim=1)


def pose_statistics(dataset: IdentityDataset) -> tuple[Tensor, Tensor]:
    """Mean and scale [12] of the training frames' pose vectors, the latter MIN_SCALE at least."""
    usable = dataset.tracks.learnt
    tracks = dataset.tracks
    vectors = pose_vector(
        torch.from_numpy(tracks.viewmats[usable]), torch.from_numpy(tracks.codes[usable])
    )
    return vectors.mean(0), vectors.std(0).clamp(min=MIN_SCALE)


def pose_code(viewmats: Tensor, motion: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Poses [B, 12] in standard deviations, clamped; mean, scale [12] of pose_statistics."""
    return ((pose_vector(viewmats, motion) - mean) / scale).clamp(-POSE_RANGE, POSE_RANGE)


def mean_view(dataset: IdentityDataset) -> Float64:
    """The mean head pose [4, 4] of the training frames."""
    views = dataset.tracks.viewmats[dataset.tracks.learnt]
    view = np.eye(4)
    view[:3, :3] = Rotation.from_matrix(views[:, :3, :3]).mean().as_matrix()
    view[:3, 3] = views[:, :3, 3].mean(0)
    return view


def body_frame(motion: Tensor, viewmats: Tensor, rest_view: Tensor) -> tuple[Tensor, Tensor]:
    """The body in head space: gradients F [B, 3, 3] and origins o [B, 3], x = F x_rest + o.

    rest_view: [4, 4] the head pose in which body and head coincide (mean_view).
    """
    back, sway = viewmats[:, :3, :3].transpose(1, 2), body_matrix(motion)
    gradient = back @ sway @ rest_view[:3, :3]
    place = sway @ rest_view[:3, 3] - viewmats[:, :3, 3]
    return gradient, (back @ place[..., None])[..., 0]
