"""Trains PASE from nothing on the shelves of a corpus.

    python -m talkhead.encoder.pase.train CORPUS_FOLDER_OR_SHELF... --output FILE

The same seed and machine give the same weights, also when a run is stopped and started again: the
state is kept beside the output (FILE.state) every minute. --without leaves a part out, as the
ablations of docs/pase.md do. It shows the losses and the time left on a terminal, or as JSON lines; in
the end it prints what the manifest of the weights holds.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from talkhead.checkpoints import load_optimizer, optimizer_tensors
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
    frame_features,
    phone_loss,
    viseme_loss,
)
from talkhead.encoder.pase.model import (
    DELAY,
    Aligned,
    Pase,
    PaseConfig,
    log_spectra,
    padded_spectra,
    vector_spectra,
)
from talkhead.encoder.pase.weights import write_pase
from talkhead.encoder.predictor.network import average_into, rate_share
from talkhead.errors import TalkheadError
from talkhead.progress import Progress, make_progress
from talkhead.storage import read_tensors, sha256_of, write_tensors

PARTS = ("anchors", "phones", "contrast", "reconstruction", "vision", "clearing")
"""What --without can leave out."""
CHECKPOINT_S = 60.0
WARM_UP_STEPS = 100
MAX_GRADIENT = 1.0
N_CALIBRATION = 6
N_VALIDATION = 8


@dataclass(frozen=True)
class TrainConfig:
    """How PASE is trained.

    hidden_share, longest_span: of the GRU's inputs, how many are masked, in spans of at most so
    many vectors. absent_share: of stretches with lips, how many lose one side altogether.
    """

    n_steps: int = 4000
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    averaging: float = 0.998
    hidden_share: float = 0.08
    longest_span: int = 10
    absent_share: float = 0.6
    model: PaseConfig = field(default_factory=PaseConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)
    weights: LossWeights = field(default_factory=LossWeights)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    sees: bool = True


def without(config: TrainConfig, parts: Sequence[str]) -> TrainConfig:
    """The configuration with these of PARTS left out. Raises TalkheadError for unknown ones."""
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise TalkheadError(f"there is no part {unknown[0]!r}. Choose of: {', '.join(PARTS)}")
    weights = config.weights
    if "phones" in parts:
        weights = replace(weights, phones=0.0, visemes=0.0)
    if "contrast" in parts:
        weights = replace(weights, contrast=0.0)
    if "reconstruction" in parts:
        weights = replace(weights, reconstruction=0.0)
    if "clearing" in parts:
        weights = replace(weights, clearing=0.0)
    model = replace(
        config.model, has_anchors="anchors" not in parts, clears="clearing" not in parts
    )
    return replace(config, weights=weights, model=model, sees=config.sees and "vision" not in parts)


class PaseObjective(nn.Module):
    """PASE and what only its training needs."""

    def __init__(self, config: TrainConfig, n_points: int) -> None:
        super().__init__()
        self.config = config
        self.pase = Pase(config.model)
        self.contrast = Contrast(config.model.dim)
        self.restorer = Restorer(config.model.dim, n_points)

    def losses(self, batch: Batch, random: np.random.Generator) -> dict[str, Tensor]:
        """Each part's loss, weighted."""
        weights = self.config.weights
        n_rows, n_vectors = batch.labels.shape
        hidden = self._spans((n_rows, n_vectors + DELAY), random)
        inputs, vectors = self.pase.ear(padded_spectra(batch.noisy), hidden)
        heard = self.pase.hear(vectors, self.pase.anchors)
        sees = self.config.sees and len(batch.lips) > 0
        seen = self.pase.seen(batch.lips) if sees else None
        losses: dict[str, Tensor] = {}
        if weights.phones:
            losses["phones"] = weights.phones * phone_loss(heard.logits, batch.labels)
        if weights.visemes:
            losses["visemes"] = weights.visemes * self._viseme_loss(heard, seen, batch)
        if seen is not None and weights.contrast:
            own = frame_features(heard)[: len(seen.features)]
            labels = batch.labels[: len(own), ::LABELS_PER_FRAME]
            losses["contrast"] = weights.contrast * self.contrast(own, seen.features, labels)
        if weights.reconstruction:
            restored = self._restoration(heard, seen, batch, random)
            losses["reconstruction"] = weights.reconstruction * restored
        if weights.clearing:
            # What is cleared must not become easier to clear by saying less.
            cleared = self.pase.detail.cleared(inputs.detach(), vectors)
            with torch.no_grad():
                clean = self.pase.ear.inputs(padded_spectra(batch.clean))[:, DELAY:]
            losses["clearing"] = weights.clearing * denoising_loss(cleared, clean)
        return losses

    def _viseme_loss(self, heard: Aligned, seen: Aligned | None, batch: Batch) -> Tensor:
        loss = viseme_loss(heard.logits, batch.labels)
        if seen is None:
            return loss
        labels = batch.labels[: len(seen.logits), ::LABELS_PER_FRAME]
        return loss + viseme_loss(seen.logits, labels)

    def _spans(self, shape: tuple[int, int], random: np.random.Generator) -> Tensor:
        config = self.config
        spans = sample_spans(shape, config.hidden_share, config.longest_span, random)
        return spans.to(self.pase.anchors.device)

    def _restoration(
        self, heard: Aligned, seen: Aligned | None, batch: Batch, random: np.random.Generator
    ) -> Tensor:
        """Errors of clean sound and lips that are predicted from what is left of them."""
        n_seen = 0 if seen is None else len(seen.features)
        target = clean_mel(vector_spectra(batch.clean))
        loss = self._restored(heard.features[n_seen:], None, target[n_seen:], None, random)
        if seen is None:
            return loss
        own = heard.features[:n_seen]
        both = self._restored(own, seen.features, target[:n_seen], batch.mouth, random)
        direct = self.restorer.lips_of(frame_features(heard)[:n_seen])
        if direct is not None:
            both = both + (direct - batch.mouth).abs().mean()
        return loss + both

    def _restored(
        self,
        heard: Tensor,
        seen: Tensor | None,
        mel: Tensor,
        mouth: Tensor | None,
        random: np.random.Generator,
    ) -> Tensor:
        if len(heard) == 0:
            return heard.sum()
        shape = (len(heard), heard.shape[1] // LABELS_PER_FRAME)
        hides = [sample_spans(shape, 0.2, 8, random) for _ in range(2)]
        if seen is not None:
            for row in np.flatnonzero(random.random(len(heard)) < self.config.absent_share):
                hides[int(random.integers(2))][row] = True
        sound, lips = (hidden.to(heard.device) for hidden in hides)
        made, points = self.restorer(heard, seen, (sound, lips))
        loss: Tensor = (made - mel).abs().mean()
        if points is not None and mouth is not None:
            loss = loss + (points - mouth).abs().mean()
        return loss


def train_pase(
    shelves: Sequence[CorpusShard],
    config: TrainConfig,
    state: Path,
    seed: int,
    progress: Progress,
    corpus: Sequence[str] = (),
    device: torch.device | None = None,
) -> PaseObjective:
    """Trained nets (the running mean of their weights), in evaluation mode.

    state: where training is kept every minute; a run that finds it goes on from there and ends in
    the same weights. corpus: fingerprints of the shelves, so that it goes on with no others. Raises
    TalkheadError for a corpus without training utterances and for a state of another training.
    """
    batches = Batches(shelves, config.batches, config.augment, seed)
    torch.manual_seed(seed)
    device = device or torch.device("cpu")
    lessons = PaseObjective(config, batches.n_points if config.sees else 0)
    _calibrate(lessons, batches)
    lessons.to(device)
    average = copy.deepcopy(lessons)
    optimizer = torch.optim.AdamW(
        lessons.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.98),
    )
    mark = _mark(config, seed, corpus)
    first = _resume(state, mark, lessons, average, optimizer)
    saved = time.monotonic()
    with progress.step("Training PASE", total=config.n_steps, done=first) as bar:
        for number, batch in _prefetched(batches, first, config.n_steps):
            torch.manual_seed(seed * 1_000_003 + number)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * rate_share(
                    number, config.n_steps, WARM_UP_STEPS
                )
            losses = lessons.losses(batch.to(device), np.random.default_rng((seed, number, 1)))
            if not losses:
                raise TalkheadError("nothing is left to learn from. Leave fewer parts out")
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(lessons.parameters(), MAX_GRADIENT)
            optimizer.step()
            average_into(average, lessons, min(config.averaging, (1 + number) / (10 + number)))
            bar.advance()
            if number % 20 == 0:
                bar.detail(" ".join(f"{k} {float(v.detach()):.2f}" for k, v in losses.items()))
            if time.monotonic() - saved > CHECKPOINT_S:
                _save(state, mark, lessons, average, optimizer, number + 1)
                saved = time.monotonic()
    fit_detail(average.cpu().eval().pase, batches)
    return average


def fit_detail(pase: Pase, batches: Batches) -> None:
    """Let the encoder's detail be that of batches which training does not see."""
    inputs, aligned = [], []
    for number in range(N_CALIBRATION):
        clean = batches.draw((1 << 28) + number).clean
        with torch.no_grad():
            heard, hidden = pase.ear(padded_spectra(clean))
            inputs.append(pase.detail.cleared(heard, hidden).flatten(0, 1))
            aligned.append(pase.hear(hidden, pase.anchors).features.flatten(0, 1))
    pase.detail.fit(torch.cat(inputs), torch.cat(aligned))


def _calibrate(lessons: PaseObjective, batches: Batches) -> None:
    """Mean and spread of the spectra, from batches that training does not see."""
    drawn = [batches.draw((1 << 29) + i) for i in range(N_CALIBRATION)]
    spectra = torch.cat([log_spectra(b.noisy).flatten(0, 1) for b in drawn])
    ear = lessons.pase.ear
    ear.mean.copy_(spectra.mean(0))
    ear.spread.copy_(spectra.std(0).clamp(min=0.5))


def _prefetched(batches: Batches, first: int, last: int) -> Iterator[tuple[int, Batch]]:
    """Batches first..last, the next one being made while one is learnt from."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        upcoming = pool.submit(batches.draw, first)
        for number in range(first, last):
            batch = upcoming.result()
            if number + 1 < last:
                upcoming = pool.submit(batches.draw, number + 1)
            yield number, batch


# ------------------------------------------------------------------------------- resuming


def _mark(config: TrainConfig, seed: int, corpus: Sequence[str]) -> Tensor:
    """What a training is known by."""
    text = json.dumps({**asdict(config), "seed": seed, "corpus": list(corpus)}, sort_keys=True)
    return torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy())


def _save(
    path: Path,
    mark: Tensor,
    lessons: PaseObjective,
    average: PaseObjective,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    tensors = {f"net.{k}": v for k, v in lessons.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    tensors |= {"step": torch.tensor(step), "config": mark}
    write_tensors(path, tensors | optimizer_tensors(optimizer))


def _resume(
    path: Path,
    mark: Tensor,
    lessons: PaseObjective,
    average: PaseObjective,
    optimizer: torch.optim.Optimizer,
) -> int:
    """The step to go on with, 0 without a state. Raises TalkheadError for one of another training."""
    if not path.exists():
        return 0
    tensors = read_tensors(path)
    try:
        if not torch.equal(tensors["config"], mark):
            raise ValueError("other settings, seed or corpus")
        for prefix, net in (("net.", lessons), ("average.", average)):
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            net.load_state_dict(own)
        load_optimizer(optimizer, tensors)
        return int(tensors["step"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise TalkheadError(
            f"{path}: the state of another training ({error}). Remove it to start anew"
        ) from error


# ---------------------------------------------------------------------------- command line


def phone_accuracy(lessons: PaseObjective, batches: Batches, n_batches: int) -> float:
    """Share of labelled vectors whose phone is right, of batches [0, n_batches)."""
    right = known = 0
    for number in range(n_batches):
        batch = batches.draw(number)
        with torch.no_grad():
            logits = lessons.pase.heard(batch.clean).logits
        labelled = batch.labels != UNKNOWN
        right += int((logits.argmax(-1) == batch.labels)[labelled].sum())
        known += int(labelled.sum())
    return right / max(1, known)


def shard_files(paths: Sequence[Path]) -> list[Path]:
    """Files, and all *.safetensors in folders. Raises TalkheadError when there are none."""
    files = [f for p in paths for f in (sorted(p.glob("*.safetensors")) if p.is_dir() else [p])]
    if not files:
        raise TalkheadError(f"{paths[0]}: no shelves here. Build the corpus first")
    return files


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, writes the weights and prints their entry for the manifest; exits 1 with one line of
    what to do where that can't be done."""
    options = _options().parse_args(arguments)
    try:
        entry = _run(options)
    except TalkheadError as error:
        raise SystemExit(f"error: {error}") from error
    print(json.dumps(entry, indent=2))


def _run(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    files = shard_files(options.corpus)
    shelves = [read_shard(file) for file in files]
    config = without(replace(TrainConfig(), n_steps=options.steps), options.without or [])
    held_out = _held_out(shelves, config, options.seed)
    state = options.output.with_name(options.output.name + ".state")
    corpus = [sha256_of(file) for file in files]
    device = resolve_device(options.device)
    progress = make_progress("json" if options.json else "bars")
    lessons = train_pase(shelves, config, state, options.seed, progress, corpus, device)
    write_pase(options.output, lessons.pase, lessons.contrast)
    state.unlink(missing_ok=True)
    accuracy = None if held_out is None else phone_accuracy(lessons, held_out, N_VALIDATION)
    left_out = "".join(f" --without {part}" for part in options.without or [])
    return {
        "sha256": sha256_of(options.output),
        "bytes": options.output.stat().st_size,
        "trained_on": [
            {"what": s.source, "licence": s.licence, "attribution": s.attribution, "sha256": [sha]}
            for s, sha in zip(shelves, corpus, strict=True)
        ],
        "shippable": all(s.shippable for s in shelves),
        "command": f"python -m talkhead.encoder.pase.train CORPUS --output {options.output.name} "
        f"--steps {config.n_steps} --seed {options.seed}{left_out}",
        "figures": {} if accuracy is None else {"validation_phone_accuracy": round(accuracy, 4)},
    }


def _held_out(shelves: Sequence[CorpusShard], config: TrainConfig, seed: int) -> Batches | None:
    """Batches of validation utterances; None of a corpus that has too few."""
    try:
        return Batches(shelves, config.batches, config.augment, seed, "validation")
    except TalkheadError:
        return None


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", nargs="+", type=Path, help="shelves, or folders of them")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--steps", type=int, default=TrainConfig().n_steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads", type=int, default=1, help="for the nets; batches have their own"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--json", action="store_true", help="progress as JSON lines, for log files")
    parser.add_argument("--without", action="append", choices=PARTS, help="a part to leave out")
    return parser


if __name__ == "__main__":
    main()
