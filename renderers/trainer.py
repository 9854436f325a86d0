"""The training loop of all renderers: batches, learning rates, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkhead.checkpoints import load_optimizer, optimizer_tensors
from talkhead.dataset import IdentityDataset
from talkhead.device import aligned_copy
from talkhead.progress import Progress, Step
from talkhead.renderers.base import Renderer, TrainBatch, TrainConfig
from talkhead.renderers.batches import draw_frames, make_batch, spread_batch
from talkhead.renderers.optimizer import Adam
from talkhead.storage import content_errors, read_tensors, write_tensors
from talkhead.tensors import TensorSpec, check_tensors, strip_prefix

RENDERER_FIT_VERSION = 6
"""Increased when the same dataset and config give a different renderer than before."""
CHECKPOINT_S = 20.0
MODEL = "model."
"""Prefix of the renderer's tensors in a checkpoint."""
BATCHES_AT_ONCE = 4
"""Batches that are made at a time. Up to twice as many are in memory; each takes a few images."""
ADVICE = "Remove this file and run the same command again"
WARM_FRACTION, LAST_RATE = 0.1, 0.03
"""The learning rate is constant for the first tenth of the steps, then decays as a cosine to this
fraction."""


def fit_renderer(
    renderer_class: type[Renderer],
    dataset: IdentityDataset,
    config: Any,
    checkpoint: Path,
    progress: Progress,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    title: str = "Fitting the renderer",
) -> Renderer:
    """Fit a renderer on the training frames of a dataset.

    Batches and noise depend on seed and step alone, so an interrupted fit that is resumed ends in the
    same renderer, bit for bit.

    Args:
        renderer_class: The class of the renderer, as get_renderer returns it.
        dataset: The person's footage.
        config: An instance of renderer_class.config_class.
        checkpoint: A file in which the state is saved every 20 s and at the end. If it exists, the fit
            resumes from it.
        progress: Shows the steps and the loss.
        seed: Seeds initialization and batches.
        device: Where to fit; None for the CPU.
        title: Title of the progress.

    Returns:
        The fitted renderer, on the device.

    Raises:
        TalkheadError: If the checkpoint cannot be read or written.
        PackageError: If the checkpoint does not hold such a renderer.
        TypeError: If the renderer has parameters and config is not a TrainConfig.
    """
    device = device or torch.device("cpu")
    state = read_tensors(checkpoint) if checkpoint.exists() else None
    if state is None:
        model = renderer_class.from_dataset(dataset, config, seed).tensors()
    else:
        model = strip_prefix(state, MODEL)
    with content_errors(checkpoint, ADVICE):
        renderer = renderer_class.from_tensors(
            {k: aligned_copy(t).to(device) for k, t in model.items()}, config
        )
    groups = renderer.param_groups()
    if not groups:
        return renderer
    if not isinstance(config, TrainConfig):
        raise TypeError(f"{type(config).__name__} must derive from TrainConfig")
    optimizer, first = Adam(groups), 0
    if state is not None:
        with content_errors(checkpoint, ADVICE):
            first = _step_of(state, config.n_steps)
            load_optimizer(optimizer, state)
    steps = range(first, config.n_steps)
    batches = _batches(dataset, config.batch_size, seed, steps, overlap=device.type != "cpu")
    with progress.step(title, total=config.n_steps, done=first) as bar, closing(batches):
        for step in _optimize(renderer, optimizer, batches, steps, bar, device):
            _save(renderer, optimizer, step, checkpoint)
    _save(renderer, optimizer, config.n_steps, checkpoint)
    renderer.finalize(spread_batch(dataset).to(device))
    _save(renderer, optimizer, config.n_steps, checkpoint)
    return renderer


def _optimize(
    renderer: Renderer,
    optimizer: Adam,
    batches: Iterator[TrainBatch],
    steps: range,
    bar: Step,
    device: torch.device,
) -> Iterator[int]:
    """Make optimizer steps, and yield the number of steps done whenever a checkpoint is due."""
    rates = [group["lr"] for group in renderer.param_groups()]
    saved = time.monotonic()
    for step, batch in zip(steps, batches, strict=False):
        fraction = _schedule(step / steps.stop)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * fraction
        losses = _gradients(renderer, optimizer, batch.to(device), step)
        optimizer.step()
        renderer.after_step(step)
        bar.advance()
        if step % 50 == 0:
            bar.detail(f"loss {sum(float(value.detach()) for value in losses.values()):.4f}")
        if time.monotonic() - saved > CHECKPOINT_S:
            yield step + 1
            saved = time.monotonic()


def _step_of(state: Mapping[str, Tensor], n_steps: int) -> int:
    """Return the step, a scalar, from which a checkpoint resumes. Raises ContentError."""
    spec = {"step": TensorSpec((), torch.int64, minimum=0, maximum=n_steps)}
    check_tensors({k: t for k, t in state.items() if k in spec}, spec)
    return int(state["step"])


def _gradients(
    renderer: Renderer, optimizer: torch.optim.Optimizer, batch: TrainBatch, step: int
) -> dict[str, Tensor]:
    """Compute losses, scalars by name, and gradients, in smaller pieces if memory runs out."""
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
    """Return the fraction of the learning rate after a fraction of the steps is done."""
    if done < WARM_FRACTION:
        return 1.0
    phase = (done - WARM_FRACTION) / (1.0 - WARM_FRACTION)
    return LAST_RATE + (1.0 - LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * phase))


def _save(
    renderer: Renderer, optimizer: torch.optim.Optimizer, step: int, checkpoint: Path
) -> None:
    """Write a checkpoint; a fit that resumes from it continues with `step`."""
    tensors = {MODEL + name: tensor for name, tensor in renderer.tensors().items()}
    write_tensors(
        checkpoint, {**tensors, **optimizer_tensors(optimizer), "step": torch.tensor(step)}
    )


# ------------------------------------------------------------------------------ batches


def _batches(
    dataset: IdentityDataset, size: int, seed: int, steps: range, overlap: bool
) -> Generator[TrainBatch, None, None]:
    """Yield the batches of steps, BATCHES_AT_ONCE of which are made at the same time.

    With `overlap`, which is for other devices than the CPU, the next ones are made while these are
    used. On the CPU that takes longer: a step uses all cores, and waits where it has to share one.
    """
    usable = np.flatnonzero(dataset.tracks.trainable)
    landmarks = dataset.crop_landmarks()

    def make(step: int) -> TrainBatch:
        """Make the batch of a step."""
        return make_batch(dataset, landmarks, draw_frames(usable, size, seed, step))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:

        def begin(step: int) -> list[Future[TrainBatch]]:
            """Begin to make the batches from a step on."""
            return [pool.submit(make, one) for one in steps[step : step + BATCHES_AT_ONCE]]

        upcoming: list[Future[TrainBatch]] = []
        for done in range(0, len(steps), BATCHES_AT_ONCE):
            started = upcoming or begin(done)
            upcoming = begin(done + BATCHES_AT_ONCE) if overlap else []
            yield from [one.result() for one in started]
