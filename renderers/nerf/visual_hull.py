"""Where the person can be at all: the cells of the resting head that masks of training frames allow.

A visual hull (Laurentini 1994): what lies outside the person's mask in most frames is background,
and need neither be learnt nor ever be looked at.
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
MIN_FRACTION = 0.5
"""A cell is kept that is on the person in at least so many of the frames that show it."""


def visual_hull(dataset: IdentityDataset, space: HeadSpace, places: Tensor, reach: float) -> Tensor:
    """Which places [N, 3] of the resting head may hold something, [N] bool.

    reach: world units by which masks are widened: half a cell and what tracking errs.
    """
    tracks, info = dataset.tracks, dataset.info
    chosen = spread_frames(tracks.learnt, N_FRAMES)
    seen, inside = np.zeros(len(places)), np.zeros(len(places))
    for i in chosen:
        view = torch.from_numpy(tracks.viewmats[i : i + 1])
        posed = space.posed(places, torch.from_numpy(tracks.codes[i : i + 1]), view)
        pixels = project(
            posed.double().numpy()[None], view.double().numpy(), dataset.crop_ks[i].astype(float)
        )[0]
        column, row = np.floor(pixels).astype(np.int64).T
        shown = (column >= 0) & (column < info.crop_width) & (row >= 0) & (row < info.crop_height)
        radius = int(np.ceil(reach * dataset.crop_ks[i, 0, 0] / tracks.viewmats[i, 2, 3]))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
        person = cv2.dilate(dataset.masks[i], kernel) > 127
        seen += shown
        inside[shown] += person[row[shown], column[shown]]
    hull = (seen > 0) & (inside >= MIN_FRACTION * seen)
    return torch.from_numpy(hull) | space.is_mouth(places)
