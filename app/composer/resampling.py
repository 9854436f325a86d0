"""Resampling of motion in time."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from talkhead.app.composer.idle_clip import IdleClip
from talkhead.types import FRAME_RATE, Float32, Float64, Int


def positions(n_frames: int, rate: Fraction) -> Float64:
    """Return at which frames of 25 per second the frames of another rate are.

    Args:
        n_frames: Number of frames N at 25 per second, at least 1.
        rate: Frames per second.

    Returns:
        Positions [M], for at least the same length.
    """
    n_wanted = ceil(n_frames * rate / FRAME_RATE)
    return np.arange(n_wanted, dtype=np.float64) * float(FRAME_RATE / rate)


def resampled_codes(codes: Float32, rate: Fraction) -> Float32:
    """Resample motion codes from 25 per second to another rate.

    Args:
        codes: Motion codes [N, K].
        rate: Frames per second.

    Returns:
        Motion codes [M, K]; the same ones at 25 per second.
    """
    if rate == FRAME_RATE:
        return codes
    return interpolated(codes, np.arange(len(codes), dtype=np.float64), positions(len(codes), rate))


def resampled_clip(clip: IdleClip, rate: Fraction) -> IdleClip:
    """Resample the motion of a clip from 25 per second to another rate, for mode head.

    Args:
        clip: The clip.
        rate: Frames per second.

    Returns:
        The clip with other codes, viewmats and blendshapes; its origins and masks are unchanged, and no
        longer those of its frames. The same clip at 25 per second.
    """
    if rate == FRAME_RATE:
        return clip
    at, wanted = np.arange(len(clip), dtype=np.float64), positions(len(clip), rate)
    shapes = clip.blendshapes
    return replace(
        clip,
        codes=interpolated(clip.codes, at, wanted),
        viewmats=interpolated_poses(clip.viewmats, at, wanted),
        blendshapes=None if shapes is None else interpolated(shapes, at, wanted),
    )


def picked_clip(clip: IdleClip, frames: Int) -> IdleClip:
    """Pick the motion of frames of a clip, for mode head.

    Args:
        clip: The clip.
        frames: Frames [M].

    Returns:
        The clip with codes, viewmats and blendshapes of M frames; its origins and masks are unchanged,
        and no longer those of its frames.
    """
    shapes = clip.blendshapes
    return replace(
        clip,
        codes=clip.codes[frames],
        viewmats=clip.viewmats[frames],
        blendshapes=None if shapes is None else shapes[frames],
    )


def interpolated(values: Float32, at: Float64, wanted: Float64) -> Float32:
    """Interpolate values linearly; beyond the ends they are constant.

    Args:
        values: Values [N, K].
        at: Their times [N], ascending.
        wanted: Times [M].

    Returns:
        Values [M, K].
    """
    after = np.clip(np.searchsorted(at, wanted), 1, max(1, len(at) - 1))
    before = after - 1
    after = np.minimum(after, len(at) - 1)
    span = np.maximum(at[after] - at[before], 1e-9)
    share = np.clip((wanted - at[before]) / span, 0.0, 1.0)[:, None].astype(np.float32)
    return np.asarray(values[before] * (1.0 - share) + values[after] * share, np.float32)


def interpolated_poses(viewmats: Float32, at: Float64, wanted: Float64) -> Float32:
    """Interpolate poses: rotations by slerp, translations linearly.

    Args:
        viewmats: Poses [N, 4, 4].
        at: Their times [N], ascending.
        wanted: Times [M].

    Returns:
        Poses [M, 4, 4].
    """
    held = np.clip(wanted, at[0], at[-1])
    poses = np.repeat(np.eye(4, dtype=np.float32)[None], len(wanted), axis=0)
    poses[:, :3, 3] = interpolated(viewmats[:, :3, 3], at, wanted)
    turns = Rotation.from_matrix(viewmats[:, :3, :3].astype(np.float64))
    if len(at) > 1:
        poses[:, :3, :3] = Slerp(at, turns)(held).as_matrix()
    else:
        poses[:, :3, :3] = turns.as_matrix()
    return poses


def nearest_index(at: Float64, wanted: Float64) -> Int:
    """Find the nearest of some times.

    Args:
        at: Times [N], ascending.
        wanted: Times [M].

    Returns:
        Index in at of the time nearest to each wanted one [M]; of two, the earlier.
    """
    after = np.clip(np.searchsorted(at, wanted), 0, len(at) - 1)
    before = np.maximum(after - 1, 0)
    is_before = np.abs(wanted - at[before]) <= np.abs(at[after] - wanted)
    return np.where(is_before, before, after).astype(np.int64)
