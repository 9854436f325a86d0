"""Motion refinement: correct tracked codes and poses by aligning a rendered head with each frame.

Landmarks are a fraction of a pixel off in each frame, and their finer components are mostly noise.
A quick head, fitted to the motion as tracked, allows a more precise alignment. From the tracked
motion, each frame is aligned by one Gauss-Newton step, first for head pose and eyes, then for the
mouth, then for body and clothes; a second step gains nothing. The Hessian is averaged over a few training
frames and used for all (after the constant Hessian of Baker and Matthews, "Lucas-Kanade 20 years
on", 2004, section 3.2). A prior keeps the tracked value where the pixels do not determine it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

import cv2
import numpy as np
import torch
from torch import Tensor

from talkhead.crops import body_area
from talkhead.dataset import IdentityDataset, Tracks
from talkhead.device import kernel_concurrency, map_concurrently
from talkhead.face import FACE_OVAL, OUTER_LIPS
from talkhead.frame_selection import spread_frames
from talkhead.progress import Progress
from talkhead.renderers.color_match import ColorMatch
from talkhead.renderers.gaussian.model import GaussianRenderer, twist_matrix
from talkhead.types import Float32, UInt8

PRIOR = 5e-5
"""Weight of a squared change, in its units, relative to the pixels' mean squared error."""
TWIST_UNITS = (0.012, 0.012, 0.012, 0.006, 0.006, 0.012)
"""Expected error of head poses: radians, and world units, of which depth is the least certain."""
BODY_UNITS = 2 * (0.004, 0.004, 0.001)
"""Expected error of the body's matrix: less than a pixel."""
MIN_SPREAD = 0.02
"""The unit of a component is its standard deviation in training, but at least this."""
MAX_UNITS = 3.0
"""Maximum change of an unknown, in units; the largest observed one is two."""
TRUSTED_UNITS = 2.0
"""Length of a step of the face, in units, up to which it is kept without comparing losses: of 2902 steps
in three clips, none raised the loss. Some steps of clothes and body do, and up to 12 % of the mouth's.
"""
N_PROBED = 20
MIN_PROBED, PROBED_SHARE = 8, 0.05
"""The Hessian is averaged over N_PROBED frames, or over this share of further footage, whose frames
are alike, and at least MIN_PROBED; with 10 instead of 20 of 250 frames, refined poses differ by 2 % of
the refinement.
"""
PROBE = 0.25
"""Step of the finite differences from which the Hessian is computed, in units."""
MOUTH_MARGIN = 0.4
"""Margin around the lips, relative to the mouth's width: chin and cheek folds also show the shape of
the mouth.
"""
SPLAT_MARGIN_PX = 12


def refine_motion(
    renderer: GaussianRenderer,
    dataset: IdentityDataset,
    progress: Progress,
    colors: ColorMatch | None = None,
) -> IdentityDataset:
    """Refine codes and head poses of a dataset.

    Args:
        renderer: A renderer fitted on the dataset's training frames. Held-out frames are aligned
            with it as well: it was not trained on them.
        dataset: The person's footage.
        progress: Shows the frames.
        colors: Appearance of the renderer's colors in footage that it was not fitted on; there, neither
            body and clothes, which may be others, nor the mouth, which is replaced, are aligned.

    Returns:
        The dataset with refined codes and view matrices, in frames that are tracked and whose image
        is stored.
    """
    tracks, landmarks = dataset.tracks, dataset.crop_landmarks()
    kinds = (_Face, _Mouth, _Body) if colors is None else (_Face,)
    parts = [kind(dataset, landmarks, colors) for kind in kinds]
    alignments = [_Alignment.from_part(renderer, part) for part in parts]
    n_threads = kernel_concurrency(renderer.base.device)
    codes, viewmats = tracks.codes.copy(), tracks.viewmats.copy()
    frames = np.flatnonzero(tracks.usable & tracks.has_image).tolist()
    refined = map_concurrently(partial(_refine, alignments, tracks), frames, n_threads)
    with closing(refined) as motions, progress.step("Refining the motion", len(frames)) as bar:
        for frame, motion in zip(frames, motions, strict=True):
            codes[frame], viewmats[frame] = motion
            bar.advance()
    return replace(dataset, tracks=replace(tracks, codes=codes, viewmats=viewmats))


def _refine(
    alignments: Sequence[_Alignment], tracks: Tracks, frame: int
) -> tuple[Float32, Float32]:
    """Return the code [K] and pose [4, 4] of a frame after all alignments, in turn."""
    code, viewmat = tracks.codes[frame], tracks.viewmats[frame]
    for alignment in alignments:
        code, viewmat = alignment.refine(frame, code, viewmat)
    return code, viewmat


# ------------------------------------------------------------- parts of the image


@dataclass(frozen=True)
class _Window:
    """A part of a frame.

    Attributes:
        k: [1, 3, 3], its camera.
        image: [h, w, 3] in [0, 1].
        weights: [h, w, 1], weights of the pixels with mean 1.
    """

    k: Tensor
    image: Tensor
    weights: Tensor


class _Part:
    """A part of the image that determines a part of the motion.

    Attributes:
        components: The components of the code that are refined.
        moves_head: True if the head pose is refined, too.
        step: Crop pixels per pixel that is compared.
        trusted: Length of a change, in units, up to which it is kept without comparing losses.
    """

    components: slice
    moves_head: bool
    step: int
    trusted: float

    def __init__(
        self, dataset: IdentityDataset, landmarks: Float32, colors: ColorMatch | None
    ) -> None:
        """Choose the components. landmarks: [F, 478, 2], crop pixels."""
        self.dataset, self.landmarks, self._colors = dataset, landmarks, colors

    def n_probed(self) -> int:
        """Return the number of frames that the Hessian is averaged over."""
        if self._colors is None:
            return N_PROBED
        return min(N_PROBED, max(MIN_PROBED, ceil(PROBED_SHARE * len(self.dataset))))

    def units(self) -> Tensor:
        """Return the unit of each unknown, [P]: standard deviation in training, or expected error."""
        tracks = self.dataset.tracks
        training = tracks.unoccluded & tracks.trainable
        units = torch.from_numpy(tracks.codes[training, self.components].std(0)).clamp(MIN_SPREAD)
        return torch.cat([units, torch.tensor(TWIST_UNITS)]) if self.moves_head else units

    def area(self, frame: int) -> UInt8:
        """Return the area of the crop that is compared, [H, W], 0 or 255."""
        raise NotImplementedError

    def window(self, frame: int) -> _Window:
        """Cut the smallest window that holds the area out of a frame."""
        # The area, inside the person and without occluders.
        dataset, step = self.dataset, self.step
        area = cv2.min(self.area(frame), dataset.masks[frame])
        if dataset.tracks.occluded[frame].any():
            area[dataset.occluded_area(frame)] = 0
        # Its bounding box, reduced by `step`.
        left, top, width, height = cv2.boundingRect(area)
        size = (max(width // step, 1), max(height // step, 1))
        inside = (slice(top, top + step * size[1]), slice(left, left + step * size[0]))
        image, weights = (
            cv2.resize(full[inside], size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0
            for full in (dataset.frames[frame], area)
        )
        if self._colors is not None:
            points = (self.landmarks[frame] - np.array([left, top], np.float32)) / np.float32(step)
            image = image / self._colors.field(points, (image.shape[0], image.shape[1]))
        # The camera of the window.
        k = dataset.crop_ks[frame].copy()
        k[:2, 2] -= (left, top)
        k[:2] /= step
        weights /= max(float(weights.mean()), 1e-3)
        return _Window(*map(torch.from_numpy, (k[None], image, weights[..., None])))

    def _empty(self) -> UInt8:
        """Return an empty area [H, W]."""
        return np.zeros((self.dataset.info.crop_height, self.dataset.info.crop_width), np.uint8)

    def _fill_mouth(self, frame: int, value: int, area: UInt8) -> None:
        """Write value into the area [H, W] around the mouth."""
        lips = self.landmarks[frame, list(OUTER_LIPS)]
        margin = MOUTH_MARGIN * np.ptp(lips[:, 0])
        left, top = np.maximum(np.floor(lips.min(0) - margin).astype(int), 0)
        right, bottom = np.maximum(np.ceil(lips.max(0) + margin).astype(int), 0)
        area[top:bottom, left:right] = value


class _Face(_Part):
    """The face without the mouth, at half its size: head pose, eyes and brows."""

    moves_head, step, trusted = True, 2, TRUSTED_UNITS

    def __init__(
        self, dataset: IdentityDataset, landmarks: Float32, colors: ColorMatch | None
    ) -> None:
        """Choose the components. landmarks: [F, 478, 2], crop pixels."""
        super().__init__(dataset, landmarks, colors)
        self.components = dataset.face.eyes

    def area(self, frame: int) -> UInt8:
        """Return the face's oval without the mouth, [H, W]."""
        area = self._empty()
        oval = self.landmarks[frame, list(FACE_OVAL)].round().astype(np.int32)
        cv2.fillPoly(area, [oval], 255)
        area = np.asarray(cv2.erode(area, np.ones((5, 5), np.uint8)), np.uint8)
        self._fill_mouth(frame, 0, area)
        return area


class _Body(_Part):
    """Neck and clothes, well below the jaw, at half their size: clothes and position of the body."""

    moves_head, step, trusted = False, 2, 0.0

    def __init__(
        self, dataset: IdentityDataset, landmarks: Float32, colors: ColorMatch | None
    ) -> None:
        """Choose the components. landmarks: [F, 478, 2], crop pixels."""
        super().__init__(dataset, landmarks, colors)
        self.components = slice(dataset.face.clothes.start, dataset.face.n_codes)

    def units(self) -> Tensor:
        """Return the units of the clothes' components and the expected errors of the body's, [P]."""
        return torch.cat([super().units()[: -len(BODY_UNITS)], torch.tensor(BODY_UNITS)])

    def area(self, frame: int) -> UInt8:
        """Return the person below the jaw, [H, W]."""
        mask = self.dataset.masks[frame]
        area = body_area(self.landmarks[frame], (mask.shape[0], mask.shape[1]))
        person = cv2.erode(mask, np.ones((5, 5), np.uint8))
        return np.asarray(cv2.min(area, person), np.uint8)


class _Mouth(_Part):
    """The mouth, the chin and the folds around it."""

    moves_head, step, trusted = False, 1, 0.0

    def __init__(
        self, dataset: IdentityDataset, landmarks: Float32, colors: ColorMatch | None
    ) -> None:
        """Choose the components. landmarks: [F, 478, 2], crop pixels."""
        super().__init__(dataset, landmarks, colors)
        self.components = slice(0, dataset.face.n_mouth)

    def area(self, frame: int) -> UInt8:
        """Return the surroundings of the mouth, [H, W]."""
        area = self._empty()
        self._fill_mouth(frame, 255, area)
        return area


# --------------------------------------------------------------------- alignment


@dataclass(frozen=True)
class _Alignment:
    """The alignment of one part.

    Attributes:
        renderer: The Gaussians near the part.
        part: The part.
        units: [P], units of the unknowns: components of the code and, last, the head's twist.
        solver: [P, P], the inverse of Hessian and prior.
    """

    renderer: GaussianRenderer
    part: _Part
    units: Tensor
    solver: Tensor

    @classmethod
    def from_part(cls, renderer: GaussianRenderer, part: _Part) -> _Alignment:
        """Prepare the alignment of a part: select its Gaussians and average its Hessian."""
        tracks, device = part.dataset.tracks, renderer.base.device
        probed = spread_frames(tracks.unoccluded & tracks.trainable, part.n_probed()).tolist()
        nearby, units = renderer.subset(_nearby_gaussians(renderer, part, probed)), part.units()
        unknowns = torch.eye(len(units), device=device)
        alignment = cls(nearby, part, units.to(device), unknowns)
        n_threads = kernel_concurrency(device)
        hessians = list(map_concurrently(alignment.hessian, probed, n_threads))
        hessian = torch.stack(hessians).mean(0)
        return replace(alignment, solver=torch.linalg.inv(hessian + PRIOR * unknowns))

    def motion(self, code: Float32, viewmat: Float32) -> tuple[Tensor, Tensor]:
        """Return a code [1, K] and a pose [1, 4, 4] on the renderer's device."""
        first, second = (torch.from_numpy(a[None].copy()) for a in (code, viewmat))
        return first.to(self.units.device), second.to(self.units.device)

    def window(self, frame: int) -> _Window:
        """Cut the part out of a frame, on the renderer's device."""
        return _Window(
            **{k: v.to(self.units.device) for k, v in vars(self.part.window(frame)).items()}
        )

    def split(self, change: Tensor) -> tuple[Tensor, Tensor | None]:
        """Split a change [P] into that of the code's components [n] and the twist [6], if any."""
        moved = change * self.units
        return (moved[:-6], moved[-6:]) if self.part.moves_head else (moved, None)

    def render(self, window: _Window, motion: tuple[Tensor, Tensor], change: Tensor) -> Tensor:
        """Render the part [h, w, 3] with a motion changed by `change` [P]."""
        (code, viewmat), (added, twist) = motion, self.split(change)
        chosen = self.part.components
        sides = (chosen.start, code.shape[1] - chosen.stop)
        code = code + torch.nn.functional.pad(added, sides)
        size = (window.image.shape[0], window.image.shape[1])
        return self.renderer.render_raw(code, viewmat, window.k, size, twist).rgb[0]

    @torch.no_grad()
    def hessian(self, frame: int) -> Tensor:
        """Compute the Gauss-Newton Hessian [P, P] of a frame's loss by finite differences."""
        # Derivative of the residuals by each unknown, [P, h * w * 3].
        tracks, window = self.part.dataset.tracks, self.window(frame)
        motion = self.motion(tracks.codes[frame], tracks.viewmats[frame])
        unchanged = self.render(window, motion, torch.zeros_like(self.units))
        scale = window.weights.sqrt() / PROBE
        probes = PROBE * torch.eye(len(self.units)).to(self.units)
        slopes = torch.stack(
            [(scale * (self.render(window, motion, p) - unchanged)).flatten() for p in probes]
        )
        return slopes @ slopes.T / slopes.shape[1]

    def refine(self, frame: int, code: Float32, viewmat: Float32) -> tuple[Float32, Float32]:
        """Return the refined code [K] and pose [4, 4], or the given ones if the loss would not fall."""
        # The loss and its gradient [P] at the tracked motion.
        window, motion = self.window(frame), self.motion(code, viewmat)
        unchanged = torch.zeros_like(self.units).requires_grad_()
        cost = _loss(window, self.render(window, motion, unchanged))
        (slope,) = torch.autograd.grad(cost, unchanged)
        with torch.no_grad():
            # One Gauss-Newton step. Unless it is short, it is kept only if the loss falls.
            change = (-self.solver @ slope).clamp(-MAX_UNITS, MAX_UNITS)
            if float(change.norm()) > self.part.trusted:
                after = _loss(window, self.render(window, motion, change))
                after += 0.5 * PRIOR * change.square().sum()
                if float(after) >= float(cost):
                    return code, viewmat
            added, twist = self.split(change)
            code = code.copy()
            code[self.part.components] += added.cpu().numpy()
            if twist is not None:
                viewmat = (motion[1][0] @ twist_matrix(twist)).cpu().numpy()
        return code, viewmat


def _loss(window: _Window, rendered: Tensor) -> Tensor:
    """Return half the weighted mean squared error of an image [h, w, 3], a scalar."""
    return 0.5 * (window.weights * (rendered - window.image).square()).mean()


def _nearby_gaussians(renderer: GaussianRenderer, part: _Part, frames: Sequence[int]) -> Tensor:
    """Return the indices [n] of Gaussians that project into or near the part in any of the frames."""
    tracks, device = part.dataset.tracks, renderer.base.device
    nearby = torch.zeros(len(renderer.index), dtype=torch.bool, device=device)
    for frame in frames:
        window = part.window(frame)
        code, view = (torch.from_numpy(a[[frame]]) for a in (tracks.codes, tracks.viewmats))
        # Project the means and compare them with the window.
        with torch.no_grad():
            means = renderer.gaussian_means(code.to(device), view.to(device))[0].cpu()
        camera = (means @ view[0, :3, :3].T + view[0, :3, 3]) @ window.k[0].T
        inside = torch.ones(len(means), dtype=torch.bool)
        for axis, size in ((0, window.image.shape[1]), (1, window.image.shape[0])):
            pixel = camera[:, axis] / camera[:, 2]
            inside &= (pixel > -SPLAT_MARGIN_PX) & (pixel < size + SPLAT_MARGIN_PX)
        nearby |= inside.to(device)
    return nearby.nonzero()[:, 0]
