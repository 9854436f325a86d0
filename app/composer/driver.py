"""Drive a head by another recording: expressions and head motion of anybody, within the person's range.

Coefficients of the expression are mapped so that the driver's range becomes the person's; head motion is
copied relative to the usual pose of each, in units of their eye distance.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from talkhead import media
from talkhead.app.composer.expression_model import RANGE_PERCENT, ExpressionModel, ridge_slopes
from talkhead.app.composer.head_view import AXES, head_angles, head_middle
from talkhead.app.composer.idle_clip import IdleClip
from talkhead.app.composer.limits import limit_smoothly
from talkhead.app.composer.resampling import nearest_index
from talkhead.cameras import default_intrinsics
from talkhead.dataset import ADVICE, ALL_FRAMES, TENSORS
from talkhead.errors import FootageError, PackageError
from talkhead.face import N_BODY
from talkhead.footage import Footage
from talkhead.preprocess.head_pose import track_head
from talkhead.preprocess.landmarks import bridge_gaps
from talkhead.preprocess.tracking import TRACKING, TRACKING_TENSORS, track_video
from talkhead.progress import Progress
from talkhead.storage import make_folder, remove, sha256_of, write_tensors
from talkhead.tensors import TensorSpec, read_checked
from talkhead.types import Bool, Float32, Float64, Tracking

MIN_FACE = 0.5
"""Least share of the driver's frames that must show a face."""
MAX_GAIN = 1.5
"""Largest factor on the driver's coefficients: a driver without expression would become one of noise."""
MIN_RANGE = 0.02
"""Smaller ranges of a coefficient are noise of the tracker."""
SMOOTH_FRAMES = 0.7
"""Standard deviation of the smoothing of the driver's coefficients, frames."""
MAX_TURN_DEG = 2.0
"""How far yaw, pitch and roll go beyond those of the footage."""
MAX_SHIFT = 0.1
"""How far the head moves beyond its places in the footage, eye distances."""
BODY_RIDGE = 0.1
DRIVER = "driver.safetensors"
"""Tracks of the driver in a work folder."""
DRIVER_TENSORS = {
    "blendshapes": TENSORS["blendshapes"],
    "viewmats": TENSORS["viewmats"],
    "known": TensorSpec((ALL_FRAMES,), TENSORS["found"].dtype),
}


@dataclass(frozen=True)
class Driver:
    """Motion of a face in a video of T frames, 25 per second.

    Attributes:
        blendshapes: Coefficients of the expression [T, 52].
        viewmats: Head poses [T, 4, 4].
        known: Frames [T] with a face; the others repeat the nearest one.
        moves_mouth: The mouth follows the face, not the speech.
    """

    blendshapes: Float32
    viewmats: Float32
    known: Bool
    moves_mouth: bool = False


def track_driver(video: Path, work: Path, progress: Progress) -> Driver:
    """Track the face in a video, or read what an interrupted call has stored.

    Args:
        video: The video. If it shows several faces, the largest and most central one is followed.
        work: Folder for the tracks.
        progress: Receives the progress.

    Returns:
        The driver.

    Raises:
        MediaError: The video cannot be read.
        FootageError: It shows a face in less than half of its frames.
    """
    path = work / DRIVER
    if path.exists():
        with suppress(PackageError):  # damaged: made again
            return _read(path)
    _track(video, work / "driver", path, progress)
    return _read(path)


def _read(path: Path) -> Driver:
    """Read a driver. Raises PackageError if the file is damaged."""
    found = read_checked(path, DRIVER_TENSORS, ADVICE)
    return Driver(
        blendshapes=found["blendshapes"].numpy(),
        viewmats=found["viewmats"].numpy(),
        known=found["known"].numpy(),
    )


def _track(video: Path, folder: Path, path: Path, progress: Progress) -> None:
    """Track the face in a video, with chunks in a folder, and write the driver to a file."""
    footage = Footage(video, sha256_of(video), media.probe(video))
    track_video(footage, make_folder(folder), progress)
    stored = read_checked(folder / TRACKING, TRACKING_TENSORS, ADVICE)
    if (n_faces := int(stored["n_faces"])) > 1:
        progress.message(
            f"{video.name} shows up to {n_faces} faces: the largest, most central one is followed"
        )
    arrays = (stored[name].numpy() for name in ("landmarks", "blendshapes", "found"))
    tracking, covered = bridge_gaps(Tracking(*arrays))
    if covered.mean() < MIN_FACE:
        raise FootageError(
            f"{video}: shows a face in {100 * covered.mean():.0f} % of its frames. Pass a video in "
            "which one face is visible, turned to the camera"
        )
    intrinsics = default_intrinsics(footage.info.width, footage.info.height)
    track = track_head(tracking.landmarks, covered, covered, intrinsics)
    frames = np.flatnonzero(covered)
    nearest = frames[nearest_index(frames.astype(np.float64), np.arange(len(covered), dtype=float))]
    tensors = {
        "blendshapes": tracking.blendshapes[nearest],
        "viewmats": track.poses.viewmats,
        "known": covered,
    }
    write_tensors(path, {name: torch.from_numpy(one.copy()) for name, one in tensors.items()})
    remove(folder)


def driven_clip(
    clip: IdleClip, model: ExpressionModel, driver: Driver
) -> tuple[IdleClip, list[str]]:
    """Give the motion of a driver to a person.

    Args:
        clip: The idle clip, for the person's range.
        model: The person's expressions.
        driver: The driver, T frames.

    Returns:
        The clip with codes [T, K], viewmats and blendshapes of the driven head, for mode head; its
        origins and masks are unchanged. And messages about motion beyond that of the person's footage.
    """
    coefficients = retargeted(driver.blendshapes.astype(np.float64), model)
    viewmats, motion, turn_deg = _driven_poses(clip, driver.viewmats)
    codes = np.median(clip.codes, axis=0) + model.code_changes(coefficients - model.usual)
    codes[:, -N_BODY:] = _body(clip, motion)
    driven = replace(
        clip,
        codes=codes.astype(np.float32),
        viewmats=viewmats,
        blendshapes=coefficients.astype(np.float32),
    )
    notes = []
    if turn_deg > 0.0:
        notes.append(
            f"the head in the driving video turns up to {turn_deg:.0f} degrees farther than this "
            "person's in the footage: it stays within their range"
        )
    return driven, notes


def retargeted(coefficients: Float64, model: ExpressionModel) -> Float64:
    """Map a driver's coefficients so that their range becomes that of a person.

    The median becomes the person's; what is above and below is scaled to the person's range, but enlarged
    at most MAX_GAIN times.

    Args:
        coefficients: The driver's [T, 52].
        model: The person's expressions.

    Returns:
        Coefficients [T, 52] within the person's range and its tolerance.
    """
    smooth = gaussian_filter1d(coefficients, SMOOTH_FRAMES, axis=0, mode="nearest")
    usual = np.median(smooth, axis=0)
    low, high = np.percentile(smooth, RANGE_PERCENT, axis=0)
    up = (model.high - model.usual) / np.maximum(high - usual, MIN_RANGE)
    down = (model.usual - model.low) / np.maximum(usual - low, MIN_RANGE)
    gain = np.minimum(np.where(smooth > usual, up, down), MAX_GAIN)
    return model.limited(model.usual + gain * (smooth - usual))


def _driven_poses(clip: IdleClip, views: Float32) -> tuple[Float32, Float64, float]:
    """Copy head motion.

    views: the driver's head poses [T, 4, 4]. Returns the person's [T, 4, 4], their angles in degrees and
    places [T, 6], and by how many degrees the driver's angles exceed the person's range.
    """
    middle = head_middle(clip)
    own_angles, own_places = head_angles(clip.viewmats), _places(clip.viewmats, middle)
    wanted = _moved(own_angles, head_angles(views))
    angles = _within(wanted, own_angles, MAX_TURN_DEG)
    shifts = _moved(own_places, _places(views, middle))
    places = _within(shifts, own_places, MAX_SHIFT)
    made = np.repeat(np.eye(4, dtype=np.float32)[None], len(views), axis=0)
    turns = Rotation.from_euler(AXES, angles, degrees=True).as_matrix()
    made[:, :3, :3] = turns
    made[:, :3, 3] = places - turns @ middle
    excess = np.abs(wanted - angles)[:, :2].max()
    return made, np.concatenate([angles, places], axis=1), float(excess if excess >= 1.0 else 0.0)


def _within(values: Float64, own: Float64, tolerance: float) -> Float64:
    """Limit values [T, n] to the range of the footage's [N, n], and a tolerance."""
    low, high = np.percentile(own, RANGE_PERCENT, axis=0)
    return limit_smoothly(values, low, high, tolerance)


def _places(views: Float32, middle: Float64) -> Float64:
    """Return the places [T, 3] of the head's middle [3] in camera space."""
    return views[:, :3, :3].astype(np.float64) @ middle + views[:, :3, 3]


def _moved(own: Float64, others: Float64) -> Float64:
    """Add the motion of another head [T, n] relative to its median to the median of one's own [N, n]."""
    return np.median(own, axis=0) + others - np.median(others, axis=0)


def _body(clip: IdleClip, motion: Float64) -> Float64:
    """Predict the body's code [T, 6] from angles and places of the head [T, 6], by ridge regression."""
    own = np.concatenate(
        [head_angles(clip.viewmats), _places(clip.viewmats, head_middle(clip))], axis=1
    )
    body = clip.codes[:, -N_BODY:]
    slopes = ridge_slopes(own, body, BODY_RIDGE, 1e-6)
    return np.asarray(body.mean(axis=0) + (motion - own.mean(axis=0)) @ slopes)
