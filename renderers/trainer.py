"""The only optimisation loop for renderers: batches, schedule, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkhead.checkpoints import load_optimizer, optimizer_tensors
from talkhead.dataset import IdentityDataset
from talkhead.device import aligned
from talkhead.progress import Progress
from talkhead.renderers.base import Renderer, TrainBatch
from talkhead.renderers.batches import _spread_batch, _to, draw_frames, make_batch
from talkhead.renderers.optimizer import Adam
from talkhead.renderers.registry import RendererSpec
from talkhead.storage import content_errors, read_tensors, write_tensors
from talkhead.tensors import TensorSpec, check_tensors, within

VERSION = 3
"""Raise it when the same dataset and config would give another head."""
CHECKPOINT_S = 20.0
MODEL = "model."
"""What the names of a renderer's tensors begin with in a checkpoint."""
ADVICE = "Remove this file and run the same command again"
WARM_FRACTION, LAST_RATE = 0.1, 0.03
"""The learning rate stays for the first tenth, then falls as a cosine to this share."""


def fit_renderer(
    kind: RendererSpec,
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
    return _optimize(renderer, dataset, config, state, checkpoint, progress, title, seed, device)


def _optimize(
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
    optimizer = Adam(groups)
    first = 0
    if state is not None:
        with content_errors(checkpoint, ADVICE):
            first = _step_of(state, config.n_steps)
            load_optimizer(optimizer, state)
    batches = _prefetched(dataset, config.batch_size, seed, first, config.n_steps)
    saved = time.monotonic()
    with progress.step(title, total=config.n_steps, done=first) as bar:
        for step, batch in zip(range(first, config.n_steps), batches, strict=False):
            share = _schedule(step / config.n_steps)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share
            losses = _gradients(renderer, optimizer, _to(batch, device), step)
            optimizer.step()
            renderer.after_step(step)
            bar.advance()
            if step % 50 == 0:
                bar.detail(f"loss {sum(float(value.detach()) for value in losses.values()):.4f}")
            if time.monotonic() - saved > CHECKPOINT_S:
                _save(renderer, optimizer, step + 1, checkpoint)
                saved = time.monotonic()
    _save(renderer, optimizer, config.n_steps, checkpoint)
    renderer.finalize(_to(_spread_batch(dataset), device))
    _save(renderer, optimizer, config.n_steps, checkpoint)
    return renderer


def _step_of(state: Mapping[str, Tensor], n_steps: int) -> int:
    """The step that a checkpoint goes on with. Raises ContentError."""
    spec = {"step": TensorSpec((), torch.int64, least=0, most=n_steps)}
    check_tensors({k: t for k, t in state.items() if k in spec}, spec)
    return int(state["step"])


def _gradients(
    renderer: Renderer, optimizer: torch.optim.Optimizer, batch: TrainBatch, step: int
) -> dict[str, Tensor]:
    """The losses, with their gradients in place; again with less at once where memory runs out."""
    while True:
        optimizer.zero_grad(set_to_none=True)
        try:
            losses = renderer.losses(batch, step)
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            return losses
        except torch.OutOfMemoryError:
            if not renderer.reduce_memory():
                raise


def _schedule(done: float) -> float:
    if done < WARM_FRACTION:
        return 1.0
    phase = (done - WARM_FRACTION) / (1.0 - WARM_FRACTION)
    return LAST_RATE + (1.0 - LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * phase))


def _save(
    renderer: Renderer, optimizer: torch.optim.Optimizer, step: int, checkpoint: Path
) -> None:
    tensors = {MODEL + name: tensor for name, tensor in renderer.tensors().items()}
    write_tensors(
        checkpoint, {**tensors, **optimizer_tensors(optimizer), "step": torch.tensor(step)}
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
