"""Motion codes that put the rendered mouth where the image has it: analysis by synthesis.

Landmarks are a fraction of a pixel off, frame by frame, and their finer components mostly noise. A quick
head, fitted to the codes as tracked, knows better: its mouth is brought onto each frame's by a
Gauss-Newton step from the tracked code; a second one gains nothing. The Hessian is that of a few
training frames for all (after the constant one of Baker & Matthews, "Lucas-Kanade 20 years on", 2004,
section 3.2), and a prior keeps what the pixels don't tell as it was tracked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from talkhead.dataset import IdentityDataset, spread_frames
from talkhead.face import OUTER_LIPS
from talkhead.progress import Progress
from talkhead.renderers.gaussian.model import GaussianRenderer
from talkhead.types import Float32, Int

PRIOR = 5e-5
"""Weight of a code's squared change, in training deviations, against the pixels' mean squared error."""
N_PROBED = 20
PROBE = 0.25
"""Training frames whose Hessians are averaged; how far codes are moved for it, in deviations."""
LEAST_SPREAD = 0.02
WINDOW_MARGIN = 0.4
"""Of the mouth's width, around the lips: the chin and the folds beside the mouth tell of its shape."""
SPLAT_MARGIN_PX = 12


def refine_motion(
    renderer: GaussianRenderer, dataset: IdentityDataset, progress: Progress
) -> Float32:
    """The motion codes [F, K] of a dataset, refined where the face is tracked; only mouths change.

    renderer: fitted on the dataset's training frames. Held-out frames are tracked with it like
    the others: it has not learnt from them.
    """
    fitting = _Fitting.of(renderer, dataset)
    codes = dataset.tracks.codes.copy()
    frames = np.flatnonzero(dataset.tracks.usable)
    with progress.step("Refining the motion", total=len(frames)) as bar:
        for frame in frames:
            codes[frame] = fitting.refined(int(frame))
            bar.advance()
    return codes


@dataclass(frozen=True)
class _Mouth:
    """A frame's mouth: code [1, K], camera, image [h, w, 3] in [0, 1], weights [h, w, 1] of mean 1."""

    code: Tensor
    viewmat: Tensor
    k: Tensor
    image: Tensor
    weights: Tensor

    def loss(self, rendered: Tensor) -> Tensor:
        """Half the mean squared error of an image [h, w, 3]."""
        return 0.5 * (self.weights * (rendered - self.image).square()).mean()


@dataclass(frozen=True)
class _Fitting:
    """renderer: the Gaussians near the mouth. spread: [n_mouth] the unit of a change. solver: [n_mouth,
    n_mouth] the inverse of Hessian and prior."""

    renderer: GaussianRenderer
    dataset: IdentityDataset
    landmarks: Float32
    spread: Tensor
    solver: Tensor

    @classmethod
    def of(cls, renderer: GaussianRenderer, dataset: IdentityDataset) -> _Fitting:
        tracks, n_mouth = dataset.tracks, dataset.face.n_mouth
        device, landmarks = renderer.base.device, dataset.crop_landmarks()
        learnt = tracks.clear & tracks.train
        probed = spread_frames(learnt, N_PROBED)
        spread = torch.from_numpy(tracks.codes[learnt, :n_mouth].std(0)).clamp(min=LEAST_SPREAD)
        near = renderer.part(_near_mouths(renderer, dataset, landmarks, probed))
        fitting = cls(near, dataset, landmarks, spread.to(device), torch.eye(n_mouth).to(device))
        with torch.no_grad():
            hessian = torch.stack([fitting.hessian(int(i)) for i in probed]).mean(0)
        prior = PRIOR * torch.eye(n_mouth, device=device)
        return cls(near, dataset, landmarks, fitting.spread, torch.linalg.inv(hessian + prior))

    def mouth(self, frame: int) -> _Mouth:
        dataset, device = self.dataset, self.spread.device
        rows, columns = _window(self.landmarks[frame], dataset)
        weights = dataset.masks[frame][rows, columns].astype(np.float32) / np.float32(255.0)
        if dataset.tracks.hidden[frame].any():
            weights *= ~dataset.hidden_area(frame)[rows, columns]
        k = dataset.crop_ks[frame].copy()
        k[:2, 2] -= (columns.start, rows.start)
        image = dataset.frames[frame][rows, columns].astype(np.float32) / np.float32(255.0)
        arrays = (dataset.tracks.codes[frame], dataset.tracks.viewmats[frame], k)
        code, viewmat, camera = (torch.from_numpy(array[None]).to(device) for array in arrays)
        weights /= max(float(weights.mean()), 1e-3)
        shown, counted = (torch.from_numpy(a).to(device) for a in (image, weights[..., None]))
        return _Mouth(code, viewmat, camera, shown, counted)

    def render(self, mouth: _Mouth, change: Tensor) -> Tensor:
        """The image [h, w, 3] of a mouth whose code is changed by `change` [n_mouth] deviations."""
        moved = (change * self.spread)[None]
        code = mouth.code + torch.nn.functional.pad(moved, (0, mouth.code.shape[1] - len(change)))
        size = (mouth.image.shape[0], mouth.image.shape[1])
        return self.renderer.draw(code, mouth.viewmat, mouth.k, size).rgb[0]

    def hessian(self, frame: int) -> Tensor:
        """Of the loss by a change, as Gauss-Newton has it, [n_mouth, n_mouth]."""
        mouth, probes = self.mouth(frame), PROBE * torch.eye(len(self.spread))
        still = self.render(mouth, torch.zeros_like(self.spread))
        scale = mouth.weights.sqrt() / PROBE
        slopes = torch.stack(
            [
                (scale * (self.render(mouth, probe) - still)).flatten()
                for probe in probes.to(self.spread)
            ]
        )
        return slopes @ slopes.T / slopes.shape[1]

    def refined(self, frame: int) -> Float32:
        """The code [K] of a frame, refined; as it was where that shows the mouth no better."""
        mouth, still = self.mouth(frame), torch.zeros_like(self.spread).requires_grad_()
        cost = mouth.loss(self.render(mouth, still))
        (slope,) = torch.autograd.grad(cost, still)
        change = -self.solver @ slope
        with torch.no_grad():
            after = mouth.loss(self.render(mouth, change)) + 0.5 * PRIOR * change.square().sum()
        code = self.dataset.tracks.codes[frame].copy()
        if float(after) < float(cost.detach()):
            code[: len(change)] += (change * self.spread).cpu().numpy()
        return code


def _window(landmarks: Float32, dataset: IdentityDataset) -> tuple[slice, slice]:
    """Rows and columns of the crop around a mouth: landmarks [478, 2] crop pixels."""
    lips = landmarks[list(OUTER_LIPS)]
    low, high = lips.min(0), lips.max(0)
    margin = WINDOW_MARGIN * (high - low)[0]
    left, top = np.maximum(np.floor(low - margin).astype(int), 0)
    right, bottom = np.ceil(high + margin).astype(int)
    info = dataset.info
    rows = slice(min(top, info.crop_height - 1), min(max(bottom, top + 1), info.crop_height))
    return rows, slice(min(left, info.crop_width - 1), min(max(right, left + 1), info.crop_width))


def _near_mouths(
    renderer: GaussianRenderer, dataset: IdentityDataset, landmarks: Float32, frames: Int
) -> Tensor:
    """Which Gaussians lie in the mouth's window, or next to it, in any of the frames, [n] rising."""
    near = torch.zeros(len(renderer.index), dtype=torch.bool, device=renderer.base.device)
    for frame in frames:
        arrays = (dataset.tracks.codes, dataset.tracks.viewmats, dataset.crop_ks)
        code, view, k = (torch.from_numpy(a[frame : frame + 1]).to(near.device) for a in arrays)
        with torch.no_grad():
            places = renderer.places(code, view)[0]
        camera = (places @ view[0, :3, :3].T + view[0, :3, 3]) @ k[0].T
        rows, columns = _window(landmarks[frame], dataset)
        inside = torch.ones_like(near)
        for axis, span in ((0, columns), (1, rows)):
            pixel = camera[:, axis] / camera[:, 2]
            inside &= (pixel > span.start - SPLAT_MARGIN_PX) & (pixel < span.stop + SPLAT_MARGIN_PX)
        near |= inside
    return near.nonzero()[:, 0]
