"""Train PASE from scratch on the shards of a corpus.

    python -m talkhead.encoder.pase.train CORPUS_FOLDER_OR_SHARD... --output FILE

The same seed and machine give the same weights, even if a run is stopped and started again: the
state is saved next to the output (FILE.state) every minute. --without leaves a part out, as in the
ablations of docs/pase.md. Losses and the time left are shown on a terminal, or printed as JSON
lines. At the end, the entry for the manifest of the weights is printed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkhead.device import resolve_device
from talkhead.encoder.pase.augment import AugmentConfig
from talkhead.encoder.pase.batches import Batch, BatchConfig, Batches, sample_spans
from talkhead.encoder.pase.corpus import LABELS_PER_FRAME, UNKNOWN, CorpusShard, read_shard
from talkhead.encoder.pase.losses import (
    Contrast,
    LossWeights,
    Restorer,
    clean_mel,
    denoising_loss,
    distillation_loss,
    frame_features,
    phone_loss,
    viseme_loss,
)
from talkhead.encoder.pase.model import (
    TRUNK,
    Aligned,
    AudioBranch,
    AudioModel,
    Pase,
    PaseConfig,
    log_spectra,
    vector_spectra,
)
from talkhead.encoder.pase.training_loop import Objective, StepConfig, identify_run, run_steps
from talkhead.encoder.pase.trunk import N_POSITIONS, TrunkBranch
from talkhead.encoder.pase.weights import make_pase, write_pase
from talkhead.errors import TalkheadError
from talkhead.progress import Progress, make_progress
from talkhead.storage import sha256_of

PARTS = ("anchors", "phones", "contrast", "reconstruction", "vision", "clearing", "distillation")
"""Parts that --without can leave out."""
N_CALIBRATION = 6
"""Number of batches on which spectra and acoustic features are measured."""
N_VALIDATION = 8
"""Number of batches of validation utterances on which accuracy is measured."""


@dataclass(frozen=True)
class TrainConfig(StepConfig):
    """Settings of a training run.

    Attributes:
        hidden_share: Share of the GRU's inputs that are masked.
        longest_span: Vectors in the longest masked span.
        absent_share: Share of the stretches with lips in which one modality is masked altogether.
        model: Sizes and parts of the model.
        batches: Settings of the batches.
        weights: Weights of the losses.
        augment: Settings of the augmentation.
        sees: False to ignore lips.
    """

    hidden_share: float = 0.08
    longest_span: int = 10
    absent_share: float = 0.6
    model: PaseConfig = TRUNK
    batches: BatchConfig = field(default_factory=BatchConfig)
    weights: LossWeights = field(default_factory=LossWeights)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    sees: bool = True


def without(config: TrainConfig, parts: Sequence[str]) -> TrainConfig:
    """Leave parts out of a configuration.

    Args:
        config: The configuration.
        parts: Any of PARTS.

    Returns:
        The configuration without them.

    Raises:
        TalkheadError: For an unknown part.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise TalkheadError(f"there is no part {unknown[0]!r}. Choose from: {', '.join(PARTS)}")
    weights = config.weights
    if "phones" in parts:
        weights = replace(weights, phones=0.0, visemes=0.0)
    if "contrast" in parts:
        weights = replace(weights, contrast=0.0)
    if "reconstruction" in parts:
        weights = replace(weights, reconstruction=0.0)
    if "clearing" in parts:
        weights = replace(weights, clearing=0.0)
    if "distillation" in parts:
        weights = replace(weights, distillation=0.0)
    model = replace(
        config.model, has_anchors="anchors" not in parts, clears="clearing" not in parts
    )
    return replace(config, weights=weights, model=model, sees=config.sees and "vision" not in parts)


class PaseObjective(Objective):
    """PASE together with the layers that only its training needs.

    Attributes:
        config: Settings of the run.
        pase: The model.
        contrast: Audio-visual contrastive loss.
        restorer: Predicts what is masked.
    """

    def __init__(self, config: TrainConfig, n_points: int) -> None:
        """Build the layers, with random weights.

        Args:
            config: Settings of the run.
            n_points: Points of a mouth; 0 for a corpus without lips.
        """
        super().__init__()
        self.config = config
        self.pase = make_pase(config.model)
        self.contrast = Contrast(config.model.dim)
        self.restorer = Restorer(config.model.dim, n_points)

    def losses(self, batch: Batch, random: np.random.Generator) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            batch: The batch.
            random: Draws what is masked.

        Returns:
            Each loss times its weight, a scalar, by the names of LossWeights.
        """
        weights = self.config.weights
        branch = self.pase.ear
        n_rows, n_vectors = batch.labels.shape
        hidden = self._spans((n_rows, n_vectors + branch.n_late), random)
        position = int(random.integers(N_POSITIONS))
        inputs, vectors = branch(branch.spectra(batch.noisy), hidden, position)
        audio = self.pase.hear(vectors, self.pase.anchors)
        sees = self.config.sees and len(batch.lips) > 0
        visual = self.pase.encode_lips(batch.lips) if sees else None
        losses: dict[str, Tensor] = {}
        if weights.phones:
            losses["phones"] = weights.phones * phone_loss(audio.logits, batch.labels)
        if weights.visemes:
            losses["visemes"] = weights.visemes * self._viseme_loss(audio, visual, batch)
        if visual is not None and weights.contrast:
            own = frame_features(audio)[: len(visual.features)]
            labels = batch.labels[: len(own), ::LABELS_PER_FRAME]
            losses["contrast"] = weights.contrast * self.contrast(own, visual.features, labels)
        if weights.reconstruction:
            restored = self._restoration(audio, visual, batch, random)
            losses["reconstruction"] = weights.reconstruction * restored
        if weights.clearing:
            # Detached: otherwise, inputs could become easier to denoise by carrying less information.
            denoised = self.pase.detail.denoise(inputs.detach(), vectors)
            with torch.no_grad():
                clean = branch.acoustic(branch.spectra(batch.clean))
            losses["clearing"] = weights.clearing * denoising_loss(denoised, clean)
        if weights.distillation and isinstance(branch, TrunkBranch):
            with torch.no_grad():
                whole = branch.whole(branch.spectra(batch.clean))[:, :n_vectors]
            losses["distillation"] = weights.distillation * distillation_loss(vectors, whole)
        return losses

    def _viseme_loss(self, audio: Aligned, visual: Aligned | None, batch: Batch) -> Tensor:
        """Compute the viseme loss of audio and, where there are lips, of lips: a scalar."""
        loss = viseme_loss(audio.logits, batch.labels)
        if visual is None:
            return loss
        labels = batch.labels[: len(visual.logits), ::LABELS_PER_FRAME]
        return loss + viseme_loss(visual.logits, labels)

    def _spans(self, shape: tuple[int, int], random: np.random.Generator) -> Tensor:
        """Draw which inputs of the GRU are masked: bool of the given shape [B, T]."""
        config = self.config
        spans = sample_spans(shape, config.hidden_share, config.longest_span, random)
        return spans.to(self.pase.anchors.device)

    def _restoration(
        self, audio: Aligned, visual: Aligned | None, batch: Batch, random: np.random.Generator
    ) -> Tensor:
        """Compute the errors, a scalar, of clean audio and lips predicted from masked features."""
        n_seen = 0 if visual is None else len(visual.features)
        target = clean_mel(vector_spectra(batch.clean))
        loss = self._restored(audio.features[n_seen:], None, target[n_seen:], None, random)
        if visual is None:
            return loss
        own = audio.features[:n_seen]
        both = self._restored(own, visual.features, target[:n_seen], batch.mouth, random)
        direct = self.restorer.mouth_of_audio(frame_features(audio)[:n_seen])
        if direct is not None:
            both = both + (direct - batch.mouth).abs().mean()
        return loss + both

    def _restored(
        self,
        audio: Tensor,
        visual: Tensor | None,
        mel: Tensor,
        mouth: Tensor | None,
        random: np.random.Generator,
    ) -> Tensor:
        """Compute the errors, a scalar, of rows that all have lips or none.

        Args:
            audio: Audio features [B, F * 2, dim].
            visual: Visual features [B, F, dim], or None.
            mel: Target energies [B, F * 2, N_MELS].
            mouth: Target points [B, F, 2 P], or None.
            random: Draws what is masked.
        """
        if len(audio) == 0:
            return audio.sum()
        shape = (len(audio), audio.shape[1] // LABELS_PER_FRAME)
        masks = [sample_spans(shape, 0.2, 8, random) for _ in range(2)]
        if visual is not None:
            for row in np.flatnonzero(random.random(len(audio)) < self.config.absent_share):
                masks[int(random.integers(2))][row] = True
        sound, lips = (mask.to(audio.device) for mask in masks)
        predicted, points = self.restorer(audio, visual, (sound, lips))
        loss: Tensor = (predicted - mel).abs().mean()
        if points is not None and mouth is not None:
            loss = loss + (points - mouth).abs().mean()
        return loss


def train_pase(
    shards: Sequence[CorpusShard],
    config: TrainConfig,
    state: Path,
    seed: int,
    progress: Progress,
    corpus: Sequence[str] = (),
    device: torch.device | None = None,
) -> PaseObjective:
    """Train a model.

    Args:
        shards: The corpus.
        config: Settings of the run.
        state: File in which the state is saved every minute. A run that finds it resumes there and
            ends with the same weights.
        seed: Determines weights, batches and masks.
        progress: Shows the steps.
        corpus: Fingerprints of the shards; a state that was saved with other shards is rejected.
        device: Where to train; None for the CPU.

    Returns:
        The running mean of the weights, on the CPU and in evaluation mode.

    Raises:
        TalkheadError: The corpus has no training utterances, the state is that of another run, or
            the configuration has no loss.
    """
    batches = Batches(shards, config.batches, config.augment, seed)
    torch.manual_seed(seed)
    objective = PaseObjective(config, batches.n_points if config.sees else 0)
    _calibrate(objective, batches)
    mark = identify_run(config, seed, corpus)
    average = run_steps(objective, batches, config, state, mark, seed, progress, device)
    fit_detail(average.pase, batches)
    return average


def fit_detail(pase: Pase, batches: Batches) -> None:
    """Measure the acoustic features of a trained model on batches that are not used for training.

    Args:
        pase: The model; its `detail` is changed.
        batches: The training batches.
    """
    inputs, aligned = [], []
    for number in range(N_CALIBRATION):
        clean = batches.draw((1 << 28) + number).clean
        with torch.no_grad():
            noisy, hidden = pase.ear(pase.ear.spectra(clean))
            inputs.append(pase.detail.denoise(noisy, hidden).flatten(0, 1))
            aligned.append(pase.hear(hidden, pase.anchors).features.flatten(0, 1))
    pase.detail.fit(torch.cat(inputs), torch.cat(aligned))


def _calibrate(objective: PaseObjective, batches: Batches) -> None:
    """Set mean and spread of a GRU's spectra, from batches that are not used for training."""
    ear = objective.pase.ear
    if not isinstance(ear, AudioBranch):
        return
    drawn = [batches.draw((1 << 29) + i) for i in range(N_CALIBRATION)]
    spectra = torch.cat([log_spectra(b.noisy).flatten(0, 1) for b in drawn])
    ear.mean.copy_(spectra.mean(0))
    ear.spread.copy_(spectra.std(0).clamp(min=0.5))


# ---------------------------------------------------------------------------- command line


def phone_accuracy(pase: AudioModel, batches: Batches, n_batches: int) -> float:
    """Measure how often the most likely phone is the labeled one, on clean audio.

    Args:
        pase: A trained model.
        batches: Batches, of which 0 to n_batches - 1 are used.
        n_batches: Their number.

    Returns:
        Share of the labeled vectors, 0 to 1.
    """
    right = known = 0
    for number in range(n_batches):
        batch = batches.draw(number)
        with torch.no_grad():
            logits = pase.encode_audio(batch.clean).logits
        labeled = batch.labels != UNKNOWN
        right += int((logits.argmax(-1) == batch.labels)[labeled].sum())
        known += int(labeled.sum())
    return right / max(1, known)


def shard_files(paths: Sequence[Path]) -> list[Path]:
    """Find shards.

    Args:
        paths: Files, or folders of *.safetensors files.

    Returns:
        The files.

    Raises:
        TalkheadError: If there are none.
    """
    files = [f for p in paths for f in (sorted(p.glob("*.safetensors")) if p.is_dir() else [p])]
    if not files:
        raise TalkheadError(f"{paths[0]}: no shards here. Build the corpus first")
    return files


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
    config = replace(TrainConfig(), n_steps=options.steps)
    if options.branch:
        config = replace(config, model=TRUNK if options.branch == "trunk" else PaseConfig())
    if options.rows:
        config = replace(config, batches=replace(config.batches, n_rows=options.rows))
    config = without(config, options.without or [])
    held_out = _held_out(shards, config, options.seed)
    state = options.output.with_name(options.output.name + ".state")
    corpus = [sha256_of(file) for file in files]
    device = resolve_device(options.device)
    progress = make_progress("json" if options.json else "bars")
    objective = train_pase(shards, config, state, options.seed, progress, corpus, device)
    write_pase(options.output, objective.pase, objective.contrast)
    state.unlink(missing_ok=True)
    accuracy = None if held_out is None else phone_accuracy(objective.pase, held_out, N_VALIDATION)
    left_out = "".join(f" --without {part}" for part in options.without or [])
    command = (
        f"python -m talkhead.encoder.pase.train CORPUS --output {options.output.name} "
        f"--branch {'trunk' if config.model.on_whisper else 'gru'} --steps {config.n_steps} "
        f"--rows {config.batches.n_rows} --seed {options.seed}{left_out}"
    )
    return describe_weights(options.output, shards, corpus, command, accuracy)


def describe_weights(
    output: Path,
    shards: Sequence[CorpusShard],
    corpus: Sequence[str],
    command: str,
    accuracy: float | None,
) -> dict[str, Any]:
    """Make the entry of trained weights for the manifest.

    Args:
        output: The weights.
        shards: The corpus.
        corpus: Fingerprints of the shards.
        command: The command that trained them.
        accuracy: Share of validation moments whose phone is right; None if it was not measured.

    Returns:
        The entry.
    """
    return {
        "sha256": sha256_of(output),
        "bytes": output.stat().st_size,
        "trained_on": [
            {"what": s.source, "licence": s.licence, "attribution": s.attribution, "sha256": [sha]}
            for s, sha in zip(shards, corpus, strict=True)
        ],
        "shippable": all(s.shippable for s in shards),
        "command": command,
        "figures": {} if accuracy is None else {"validation_phone_accuracy": round(accuracy, 4)},
    }


def _held_out(shards: Sequence[CorpusShard], config: TrainConfig, seed: int) -> Batches | None:
    """Make batches of validation utterances; None for a corpus that has too few."""
    try:
        return Batches(shards, config.batches, config.augment, seed, "validation")
    except TalkheadError:
        return None


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", nargs="+", type=Path, help="shards, or folders of them")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--steps", type=int, default=TrainConfig().n_steps)
    parser.add_argument("--rows", type=int, help="stretches of 4 s in a batch (default: 16)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of the model; batches use another one"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--json", action="store_true", help="progress as JSON lines, for log files")
    parser.add_argument(
        "--branch",
        choices=("trunk", "gru"),
        help="the audio branch: on Whisper's encoder (default), or a GRU from scratch",
    )
    parser.add_argument("--without", action="append", choices=PARTS, help="a part to leave out")
    return parser


if __name__ == "__main__":
    main()
