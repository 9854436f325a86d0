"""Train the small model of PASE, which gives the features of the larger one with a shorter look-ahead.

    python -m talkhead.encoder.pase.distill CORPUS_FOLDER_OR_SHARD... --output FILE [--teacher pase]

The larger model encodes clean audio, and the small one must match it on augmented audio (Hinton et
al. 2015, arXiv 1503.02531, with features instead of class probabilities); the phones of the corpus
are a second target. No lips are needed. As with `talkhead.encoder.pase.train`, the same seed and
machine give the same weights, and an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.device import resolve_device
from talkhead.encoder.pase.augment import AugmentConfig
from talkhead.encoder.pase.batches import Batch, BatchConfig, Batches
from talkhead.encoder.pase.corpus import CorpusShard, read_shard
from talkhead.encoder.pase.encoder import VERSION_DIGITS, WEIGHTS
from talkhead.encoder.pase.losses import phone_loss
from talkhead.encoder.pase.model import LIVE, AudioModel, PaseConfig
from talkhead.encoder.pase.train import (
    N_VALIDATION,
    describe_weights,
    phone_accuracy,
    shard_files,
)
from talkhead.encoder.pase.training_loop import Objective, StepConfig, identify_run, run_steps
from talkhead.encoder.pase.weights import read_audio_model, write_live
from talkhead.errors import TalkheadError
from talkhead.progress import Progress, make_progress
from talkhead.storage import sha256_of
from talkhead.weights import resolve


@dataclass(frozen=True)
class DistillConfig(StepConfig):
    """Settings of a training run.

    Attributes:
        phones: Weight of the losses of phones: those of the corpus, and those of the larger model.
        model: Sizes of the small model; its `dim` is the larger model's.
        batches: Settings of the batches.
        augment: Settings of the augmentation.
    """

    phones: float = 0.1
    model: PaseConfig = LIVE
    batches: BatchConfig = field(default_factory=lambda: BatchConfig(n_rows=12, n_seen=3))
    augment: AugmentConfig = field(default_factory=AugmentConfig)


class DistillObjective(Objective):
    """The small model and the error of its features.

    Attributes:
        pase: The small model. Its anchors and the scale of its features are the larger model's.
    """

    def __init__(self, config: DistillConfig, teacher: AudioModel) -> None:
        """Build the small model.

        Args:
            config: Settings of the run.
            teacher: The larger model.
        """
        super().__init__()
        self.config = config
        self._teacher = [teacher.eval()]  # in a list, so it isn't a submodule
        self.pase = AudioModel(replace(config.model, dim=teacher.config.dim))
        with torch.no_grad():
            self.pase.anchors.copy_(teacher.anchors)
            self.pase.detail.mean.copy_(teacher.detail.mean)
            self.pase.detail.spread.copy_(teacher.detail.spread)

    def losses(self, batch: Batch, random: np.random.Generator) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            batch: The batch.
            random: Not used, since nothing is drawn.

        Returns:
            Each loss times its weight, a scalar, by name.
        """
        teacher = self._teacher[0].to(batch.clean.device)
        with torch.no_grad():
            target = teacher.vectors(*teacher.ear(teacher.ear.spectra(batch.clean)))
        ear = self.pase.ear
        found = self.pase.vectors(*ear(ear.spectra(batch.noisy)))
        variance = target.features.flatten(0, 1).var(0)
        error = ((found.features - target.features).square() / (variance + 1e-2)).mean()
        soft = F.kl_div(
            found.logits.log_softmax(-1).flatten(0, 1),
            target.logits.log_softmax(-1).flatten(0, 1),
            reduction="batchmean",
            log_target=True,
        )
        known = phone_loss(found.logits, batch.labels)
        return {"features": error, "phones": self.config.phones * (soft + known)}


def distill(
    shards: Sequence[CorpusShard],
    teacher: AudioModel,
    config: DistillConfig,
    state: Path,
    seed: int,
    progress: Progress,
    corpus: Sequence[str] = (),
    device: torch.device | None = None,
) -> DistillObjective:
    """Train a small model.

    Args:
        shards: The corpus.
        teacher: The larger model.
        config: Settings of the run.
        state: File in which the state is saved every minute. A run that finds it resumes there and
            ends with the same weights.
        seed: Determines weights and batches.
        progress: Shows the steps.
        corpus: Fingerprints of the teacher and the shards; a state with other fingerprints is
            rejected.
        device: Where to train; None for the CPU.

    Returns:
        The running mean of the weights, on the CPU and in evaluation mode.

    Raises:
        TalkheadError: The corpus has no training utterances, or the state is that of another run.
    """
    batches = Batches(shards, config.batches, config.augment, seed)
    torch.manual_seed(seed)
    objective = DistillObjective(config, teacher)
    mark = identify_run(config, seed, corpus)
    return run_steps(objective, batches, config, state, mark, seed, progress, device)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, write the weights and print their entry for the manifest.

    Args:
        arguments: Command-line arguments; None for those of the process.

    Raises:
        SystemExit: With a message, if the training is impossible.
    """
    options = _options().parse_args(arguments)
    try:
        entry = _run(options)
    except TalkheadError as error:
        raise SystemExit(f"error: {error}") from error
    print(json.dumps(entry, indent=2))


def _run(options: argparse.Namespace) -> dict[str, Any]:
    """Train with the given options; returns the entry for the manifest."""
    torch.set_num_threads(options.threads)
    files = shard_files(options.corpus)
    shards = [read_shard(file) for file in files]
    source = options.teacher or resolve(WEIGHTS)
    config = DistillConfig(n_steps=options.steps)
    corpus = [sha256_of(file) for file in (source, *files)]
    state = options.output.with_name(options.output.name + ".state")
    trained = distill(
        shards,
        read_audio_model(source),
        config,
        state,
        options.seed,
        make_progress("json" if options.json else "bars"),
        corpus,
        resolve_device(options.device),
    )
    write_live(options.output, trained.pase, corpus[0][:VERSION_DIGITS])
    state.unlink(missing_ok=True)
    accuracy = None
    # A corpus may have too few validation utterances.
    with suppress(TalkheadError):
        held_out = Batches(shards, config.batches, config.augment, options.seed, "validation")
        accuracy = phone_accuracy(read_audio_model(options.output), held_out, N_VALIDATION)
    command = (
        f"python -m talkhead.encoder.pase.distill CORPUS --output {options.output.name} "
        f"--steps {config.n_steps} --seed {options.seed}"
    )
    entry = describe_weights(options.output, shards, corpus[1:], command, accuracy)
    return entry | {"teacher": corpus[0]}


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", nargs="+", type=Path, help="shards, or folders of them")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument(
        "--teacher", type=Path, help="weights of the larger model (default: those of talkhead)"
    )
    parser.add_argument("--steps", type=int, default=DistillConfig().n_steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of the model; batches use another one"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--json", action="store_true", help="progress as JSON lines, for log files")
    return parser


if __name__ == "__main__":
    main()
