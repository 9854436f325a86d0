"""The only optimisation loop for renderers: batches, schedule, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from talkhead.checkpoints import load_optimiser, optimiser_tensors
from talkhead.dataset import IdentityDataset, spread_frames
from talkhead.device import aligned
from talkhead.face import FACE_OVAL, LEFT_EYE, OUTER_LIPS, RIGHT_EYE
from talkhead.progress import Progress
from talkhead.renderers.adam import Adam
from talkhead.renderers.base import RegionWeights, Renderer, RendererKind, TrainBatch
from talkhead.renderers.matte import rim_matte
from talkhead.storage import content_errors, read_tensors, write_tensors
from talkhead.tensors import TensorSpec, check_tensors, within
from talkhead.types import Bool, Float32, Int, UInt8

VERSION = 3
"""Raise it when the same dataset and config would give another head."""
CHECKPOINT_S = 20.0
MODEL = "model."
"""What the names of a renderer's tensors begin with in a checkpoint."""
ADVICE = "Remove this file and run the same command again"
N_SPREAD = 16
"""Frames that a finished renderer is measured on."""
WARM_SHARE, LAST_RATE = 0.1, 0.03
"""The learning rate stays for the first tenth, then falls as a cosine to this share."""


def fit_renderer(
    kind: RendererKind,
    dataset: IdentityDataset,
    config: Any,
    checkpoint: Path,
    progress: Progress,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    title: str = "Fitting the renderer",
) -> Renderer:
    """A renderer fitted on the dataset's training frames.

    checkpoint: where the state is kept every 20 s; a run that finds one goes on from it and ends
    in the same renderer. Batches and noise depend on seed and step alone. title: of the progress.
    """
    device = device or torch.device("cpu")
    cls = kind.renderer()
    state = read_tensors(checkpoint) if checkpoint.exists() else None
    model = (
        cls.from_dataset(dataset, config, seed).tensors() if state is None else within(state, MODEL)
    )
    with content_errors(checkpoint, ADVICE):
        renderer = cls.from_tensors({k: aligned(t).to(device) for k, t in model.items()}, config)
    if not renderer.param_groups():
        return renderer
    return _optimise(renderer, dataset, config, state, checkpoint, progress, title, seed, device)


def _optimise(
    renderer: Renderer,
    dataset: IdentityDataset,
    config: Any,
    state: dict[str, Tensor] | None,
    checkpoint: Path,
    progress: Progress,
    title: str,
    seed: int,
    device: torch.device,
) -> Renderer:
    groups = renderer.param_groups()
    rates = [group["lr"] for group in groups]
    optimiser = Adam(groups)
    first = 0
    if state is not None:
        with content_errors(checkpoint, ADVICE):
            first = _step_of(state, config.n_steps)
            load_optimiser(optimiser, state)
    batches = _prefetched(dataset, config.batch_size, seed, first, config.n_steps)
    saved = time.monotonic()
    with progress.step(title, total=config.n_steps, done=first) as bar:
        for step, batch in zip(range(first, config.n_steps), batches, strict=False):
            share = _schedule(step / config.n_steps)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * share
            losses = _gradients(renderer, optimiser, _to(batch, device), step)
            optimiser.step()
            renderer.after_step(step)
            bar.advance()
            if step % 50 == 0:
                bar.detail(f"loss {sum(float(value.detach()) for value in losses.values()):.4f}")
            if time.monotonic() - saved > CHECKPOINT_S:
                _save(renderer, optimiser, step + 1, checkpoint)
                saved = time.monotonic()
    _save(renderer, optimiser, config.n_steps, checkpoint)
    renderer.after_fit(_to(_spread_batch(dataset), device))
    _save(renderer, optimiser, config.n_steps, checkpoint)
    return renderer


def _step_of(state: Mapping[str, Tensor], n_steps: int) -> int:
    """The step that a checkpoint goes on with. Raises ContentError."""
    spec = {"step": TensorSpec((), torch.int64, least=0, most=n_steps)}
    check_tensors({k: t for k, t in state.items() if k in spec}, spec)
    return int(state["step"])


def _gradients(
    renderer: Renderer, optimiser: torch.optim.Optimizer, batch: TrainBatch, step: int
) -> dict[str, Tensor]:
    """The losses, with their gradients in place; again with less at once where memory runs out."""
    while True:
        optimiser.zero_grad(set_to_none=True)
        try:
            losses = renderer.losses(batch, step)
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            return losses
        except torch.OutOfMemoryError:
            if not renderer.take_less_memory():
                raise


def _schedule(done: float) -> float:
    if done < WARM_SHARE:
        return 1.0
    phase = (done - WARM_SHARE) / (1.0 - WARM_SHARE)
    return LAST_RATE + (1.0 - LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * phase))


def _save(
    renderer: Renderer, optimiser: torch.optim.Optimizer, step: int, checkpoint: Path
) -> None:
    tensors = {MODEL + name: tensor for name, tensor in renderer.tensors().items()}
    write_tensors(
        checkpoint, {**tensors, **optimiser_tensors(optimiser), "step": torch.tensor(step)}
    )


# ------------------------------------------------------------------------------ batches


def _prefetched(
    dataset: IdentityDataset, size: int, seed: int, first: int, last: int
) -> Iterator[TrainBatch]:
    """Batches of steps first..last, the next one being made while one is used."""
    usable = np.flatnonzero(dataset.tracks.learnt)
    landmarks = dataset.crop_landmarks()

    def make(step: int) -> TrainBatch:
        return make_batch(dataset, landmarks, draw_frames(usable, size, seed, step))

    with ThreadPoolExecutor(max_workers=1) as pool:
        upcoming = pool.submit(make, first)
        for step in range(first, last):
            batch = upcoming.result()
            if step + 1 < last:
                upcoming = pool.submit(make, step + 1)
            yield batch


def draw_frames(usable: Int, size: int, seed: int, step: int) -> Int:
    """The frames of a step: shuffled epochs, so that each frame is seen equally often."""
    start = step * size
    epochs = range(start // len(usable), (start + size - 1) // len(usable) + 1)
    order = np.concatenate([np.random.default_rng((seed, e)).permutation(usable) for e in epochs])
    offset = start - epochs[0] * len(usable)
    return np.asarray(order[offset : offset + size])


def make_batch(dataset: IdentityDataset, landmarks: Float32, frames: Int) -> TrainBatch:
    """Frames of a dataset as a batch; landmarks [F, 478, 2] in crop pixels.

    What stands before the person counts nothing.
    """
    images = [_unit_range(dataset.frames[i]) for i in frames]
    masks = [dataset.masks[i] for i in frames]
    regions = [mask_regions(mask) for mask in masks]
    weights = [
        weight_map(landmarks[i], inner, rim, RegionWeights()) * ~dataset.hidden_area(i)
        for i, (inner, rim) in zip(frames, regions, strict=True)
    ]
    mattes = [
        rim_matte(image, mask, *region)
        for image, mask, region in zip(images, masks, regions, strict=True)
    ]
    tracks = dataset.tracks
    return TrainBatch(
        motion=aligned(tracks.codes[frames]),
        viewmats=aligned(tracks.viewmats[frames]),
        ks=aligned(dataset.crop_ks[frames]),
        images=torch.from_numpy(np.stack([person for _, person in mattes])),
        masks=torch.from_numpy(np.stack([alpha for alpha, _ in mattes]))[..., None],
        weights=torch.from_numpy(np.stack(weights))[..., None],
    )


def _spread_batch(dataset: IdentityDataset) -> TrainBatch:
    """N_SPREAD training frames, evenly spread."""
    frames = spread_frames(dataset.tracks.clear & dataset.tracks.learnt, N_SPREAD)
    return make_batch(dataset, dataset.crop_landmarks(), frames)


def mask_regions(mask: UInt8) -> tuple[Bool, Bool]:
    """The person for sure, and the rim that may be either, of a mask [H, W]: two [H, W] bool."""
    inner = cv2.erode(mask, np.ones((7, 7), np.uint8)) > 230
    outer = cv2.dilate(mask, np.ones((7, 7), np.uint8)) > 25
    return inner, outer & ~inner


def weight_map(landmarks: Float32, inner: Bool, rim: Bool, regions: RegionWeights) -> Float32:
    """Pixel weights [H, W]: landmarks [478, 2] crop pixels, the regions of the mask [H, W]."""
    r = regions
    weights = np.zeros(256, np.float32)
    weights[:6] = r.outside, r.person, r.edge, r.face, r.eyes, r.mouth
    shown = inner.view(np.uint8) + 2 * rim.view(np.uint8)  # which of `weights`
    face = np.zeros_like(shown)
    _fill_hull(face, landmarks[list(FACE_OVAL)], 1.0, 2)
    shown += face * inner
    for eye in (LEFT_EYE, RIGHT_EYE):
        _fill_hull(shown, landmarks[list(eye)], 1.6, 4)
    _fill_hull(shown, landmarks[list(OUTER_LIPS)], 1.35, 5)
    return np.asarray(cv2.LUT(shown, weights), np.float32)


def _fill_hull(image: UInt8, points: Float32, enlarge: float, value: int) -> None:
    """Writes value where the points' hull, enlarged about its middle, lies in an image [H, W]."""
    middle = points.mean(0)
    corners = ((points - middle) * enlarge + middle).round().astype(np.int32)
    cv2.fillConvexPoly(image, cv2.convexHull(corners), value)


def _unit_range(image: UInt8) -> Float32:
    """An image in [0, 1]."""
    return np.divide(image, np.float32(255.0), dtype=np.float32)


def _to(batch: TrainBatch, device: torch.device) -> TrainBatch:
    if device.type == "cpu":
        return batch
    return TrainBatch(**{k: v.to(device, non_blocking=True) for k, v in vars(batch).items()})
