"""The visual hull: the cells of the head at rest that the masks of training frames allow.

Points outside the person's mask in most frames are background, and need not be trained or sampled
(Laurentini, "The visual hull concept for silhouette-based image understanding", 1994).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from talkhead.cameras import project
from talkhead.dataset import IdentityDataset
from talkhead.frame_selection import spread_frames
from talkhead.renderers.nerf.rays import HeadSpace

N_FRAMES = 24
"""Number of frames whose masks are used."""
MIN_FRACTION = 0.5
"""A cell is kept if it is inside the mask in at least this fraction of the frames that show it."""


def visual_hull(dataset: IdentityDataset, space: HeadSpace, points: Tensor, reach: float) -> Tensor:
    """Test which points of the head at rest may have density.

    Args:
        dataset: The person's footage.
        space: The space of the head at rest.
        points: [N, 3], the points.
        reach: Distance by which masks are dilated, world units: half a cell and the error of
            tracking.

    Returns:
        [N] bool.
    """
    tracks, info = dataset.tracks, dataset.info
    chosen = spread_frames(tracks.trainable, N_FRAMES)
    n_visible, n_inside = np.zeros(len(points)), np.zeros(len(points))
    for i in chosen:
        # Project the points as posed in the frame.
        view = torch.from_numpy(tracks.viewmats[i : i + 1])
        posed = space.pose(points, torch.from_numpy(tracks.codes[i : i + 1]), view)
        pixels = project(
            posed.double().numpy()[None], view.double().numpy(), dataset.crop_ks[i].astype(float)
        )[0]
        column, row = np.floor(pixels).astype(np.int64).T
        visible = (column >= 0) & (column < info.crop_width) & (row >= 0) & (row < info.crop_height)
        # Count the frames that show a point, and those in which it is inside the dilated mask.
        radius = int(np.ceil(reach * dataset.crop_ks[i, 0, 0] / tracks.viewmats[i, 2, 3]))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
        person = cv2.dilate(dataset.masks[i], kernel) > 127
        n_visible += visible
        n_inside[visible] += person[row[visible], column[visible]]
    hull = (n_visible > 0) & (n_inside >= MIN_FRACTION * n_visible)
    return torch.from_numpy(hull) | space.is_mouth(points)
