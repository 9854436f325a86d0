"""Head and body pose as features that renderers are conditioned on, and the motion of the body."""

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
"""Features are clamped to this many standard deviations from their mean: there is no training data
beyond that.
"""
MIN_SCALE = 0.003
"""Minimum standard deviation, so that tracking noise is not taken for motion."""
POSE_TENSORS = {
    "pose_mean": TensorSpec((N_POSE,)),
    "pose_scale": TensorSpec((N_POSE,), minimum=MIN_SCALE / 2),
}
"""The result of pose_statistics as renderers store it."""
VIEW_SPEC = TensorSpec((4, 4), minimum=-WORLD, maximum=WORLD, fault=view_fault)
"""A head pose."""


def pose_vector(viewmats: Tensor, motion: Tensor) -> Tensor:
    """Describe head and body pose by smooth numbers.

    Args:
        viewmats: [B, 4, 4], world to camera.
        motion: [B, K], motion codes; the last components are the body's.

    Returns:
        [B, 12]: rotation (3), position in the image (2), logarithm of depth (1), body (6). The
        rotation is given by its antisymmetric part, which is one-to-one for heads turned by less
        than 60 degrees.
    """
    r, t = viewmats[:, :3, :3], viewmats[:, :3, 3]
    turn = torch.stack(
        [r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]], dim=1
    )
    return torch.cat([turn, t[:, :2] / t[:, 2:], t[:, 2:].log(), motion[:, -N_BODY:]], dim=1)


def pose_statistics(dataset: IdentityDataset) -> tuple[Tensor, Tensor]:
    """Compute mean and standard deviation of the pose vectors of the training frames.

    Args:
        dataset: The person's footage.

    Returns:
        mean and scale, both [12]. The scale is at least MIN_SCALE.
    """
    usable = dataset.tracks.trainable
    tracks = dataset.tracks
    vectors = pose_vector(
        torch.from_numpy(tracks.viewmats[usable]), torch.from_numpy(tracks.codes[usable])
    )
    return vectors.mean(0), vectors.std(0).clamp(min=MIN_SCALE)


def pose_code(viewmats: Tensor, motion: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Normalize poses.

    Args:
        viewmats: [B, 4, 4], world to camera.
        motion: [B, K], motion codes.
        mean: [12], of pose_statistics.
        scale: [12], of pose_statistics.

    Returns:
        [B, 12], pose vectors in standard deviations, clamped to POSE_RANGE.
    """
    return ((pose_vector(viewmats, motion) - mean) / scale).clamp(-POSE_RANGE, POSE_RANGE)


def mean_view(dataset: IdentityDataset) -> Float64:
    """Average the head poses of the training frames.

    Args:
        dataset: The person's footage.

    Returns:
        View matrix [4, 4].
    """
    views = dataset.tracks.viewmats[dataset.tracks.trainable]
    view = np.eye(4)
    view[:3, :3] = Rotation.from_matrix(views[:, :3, :3]).mean().as_matrix()
    view[:3, 3] = views[:, :3, 3].mean(0)
    return view


def body_frame(motion: Tensor, viewmats: Tensor, rest_view: Tensor) -> tuple[Tensor, Tensor]:
    """Express the body's motion in head space: x = F x_rest + o.

    Args:
        motion: [B, K], motion codes.
        viewmats: [B, 4, 4], head poses.
        rest_view: [4, 4], the head pose in which body and head coincide (mean_view).

    Returns:
        Gradients F [B, 3, 3] and origins o [B, 3].
    """
    back, sway = viewmats[:, :3, :3].transpose(1, 2), body_matrix(motion)
    gradient = back @ sway @ rest_view[:3, :3]
    translation = sway @ rest_view[:3, 3] - viewmats[:, :3, 3]
    return gradient, (back @ translation[..., None])[..., 0]
