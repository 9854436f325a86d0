"""Steps of the optimizer, for any model that is trained on a corpus; runs resume where they stopped."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from talkhead.checkpoints import load_optimizer, optimizer_tensors
from talkhead.encoder.pase.batches import Batch, Batches
from talkhead.encoder.predictor.network import average_into, rate_share
from talkhead.errors import TalkheadError
from talkhead.progress import Progress
from talkhead.storage import read_tensors, write_tensors
from talkhead.tensors import json_tensor

CHECKPOINT_S = 60.0
"""Seconds after which the state is saved again."""
WARM_UP_STEPS = 100
MAX_GRADIENT = 1.0


@dataclass(frozen=True)
class StepConfig:
    """Settings of the optimizer.

    Attributes:
        n_steps: Steps of the optimizer.
        learning_rate: Largest learning rate.
        weight_decay: Weight decay of AdamW.
        averaging: Decay per step of the running mean of the weights, which is the result.
    """

    n_steps: int = 4000
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    averaging: float = 0.998


class Objective(nn.Module):
    """A model with everything that its training needs."""

    def losses(self, batch: Batch, random: np.random.Generator) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            batch: The batch.
            random: Draws all random numbers in them.

        Returns:
            Each loss times its weight, a scalar, by name.

        Raises:
            NotImplementedError: In this base class.
        """
        raise NotImplementedError


AnyObjective = TypeVar("AnyObjective", bound=Objective)


def run_steps(
    objective: AnyObjective,
    batches: Batches,
    config: StepConfig,
    state: Path,
    mark: Tensor,
    seed: int,
    progress: Progress,
    device: torch.device | None = None,
) -> AnyObjective:
    """Train by AdamW, with a running mean of the weights.

    Args:
        objective: The model and its losses; it is changed.
        batches: Draws the batches.
        config: Number of steps and settings of the optimizer.
        state: File in which the state is saved every minute, and from which a run resumes.
        mark: Identifies the run (`identify_run`), [n].
        seed: Determines what the losses draw.
        progress: Shows the steps.
        device: Where to train; None for the CPU.

    Returns:
        The running mean, on the CPU and in evaluation mode.

    Raises:
        TalkheadError: The state is that of another run, or there is no loss.
    """
    device = device or torch.device("cpu")
    objective.to(device)
    average = copy.deepcopy(objective)
    optimizer = torch.optim.AdamW(
        objective.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.98),
    )
    first = _resume(state, mark, objective, average, optimizer)
    saved = time.monotonic()
    with progress.step("Training PASE", total=config.n_steps, done=first) as bar:
        for number, batch in _prefetched(batches, first, config.n_steps):
            torch.manual_seed(seed * 1_000_003 + number)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * rate_share(
                    number, config.n_steps, WARM_UP_STEPS
                )
            losses = objective.losses(batch.to(device), np.random.default_rng((seed, number, 1)))
            if not losses:
                raise TalkheadError("no loss is left to train on. Leave fewer parts out")
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(objective.parameters(), MAX_GRADIENT)
            optimizer.step()
            average_into(average, objective, min(config.averaging, (1 + number) / (10 + number)))
            bar.advance()
            if number % 20 == 0:
                bar.detail(" ".join(f"{k} {float(v.detach()):.2f}" for k, v in losses.items()))
            if time.monotonic() - saved > CHECKPOINT_S:
                _save(state, mark, objective, average, optimizer, number + 1)
                saved = time.monotonic()
    return average.cpu().eval()


def _prefetched(batches: Batches, first: int, last: int) -> Iterator[tuple[int, Batch]]:
    """Yield batches first to last - 1 with their numbers; the next is drawn while one is in use."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        upcoming = pool.submit(batches.draw, first)
        for number in range(first, last):
            batch = upcoming.result()
            if number + 1 < last:
                upcoming = pool.submit(batches.draw, number + 1)
            yield number, batch


# ------------------------------------------------------------------------------- resuming


def identify_run(config: StepConfig, seed: int, corpus: Sequence[str]) -> Tensor:
    """Identify a run by its settings.

    Args:
        config: The settings.
        seed: The seed.
        corpus: Fingerprints of the shards.

    Returns:
        JSON encoded as a uint8 tensor [n].
    """
    settings = {**asdict(config), "seed": seed, "corpus": list(corpus)}
    return json_tensor(settings, sort_keys=True)


def _save(
    path: Path,
    mark: Tensor,
    objective: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    """Save everything that a run needs to resume at a step; mark: identifies the run, [n]."""
    tensors = {f"net.{k}": v for k, v in objective.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    tensors |= {"step": torch.tensor(step), "config": mark}
    write_tensors(path, tensors | optimizer_tensors(optimizer))


def _resume(
    path: Path,
    mark: Tensor,
    objective: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> int:
    """Load a saved state, if its mark [n] is that of the run.

    Returns:
        The next step; 0 without a state.

    Raises:
        TalkheadError: For a state of another run.
    """
    if not path.exists():
        return 0
    tensors = read_tensors(path)
    try:
        if not torch.equal(tensors["config"], mark):
            raise ValueError("other settings, seed or corpus")
        for prefix, net in (("net.", objective), ("average.", average)):
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            net.load_state_dict(own)
        load_optimizer(optimizer, tensors)
        return int(tensors["step"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise TalkheadError(
            f"{path}: the state of another training run ({error}). Remove it to start from scratch"
        ) from error
