"""Measure what each part of PASE contributes: train briefly without it, and compare predicted lips.

    python -m benchmarks.ablation CLIPS.json --corpus SHARD... --weights FOLDER [--steps 450]
                                  [--train-seeds 1] [options of benchmarks.lips]

Existing weights are not trained again, and an interrupted training resumes. PASE without a part is
compared with acoustic features, too: log-mel, MFCC, and `gru`, the same audio branch trained on the
same data without anchors, phones and contrast. Prints the rows of benchmarks.lips, PASE against all
others.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import lips
from talkhead.encoder.pase import train
from talkhead.storage import make_folder

VARIANTS: dict[str, tuple[str, ...]] = {
    "full": (),
    "gru": ("anchors", "phones", "contrast"),
    **{f"no-{part}": (part,) for part in train.PARTS},
}
ACOUSTIC = ("mel", "mfcc")


def trained(corpus: Sequence[Path], weights: Path, steps: int, n_seeds: int) -> Iterator[Path]:
    """Weights of each variant and seed; missing ones are trained."""
    for seed in range(n_seeds):
        for name, parts in VARIANTS.items():
            path = weights / f"{name}-{steps}-{seed}.safetensors"
            if not path.exists():
                left_out = [word for part in parts for word in ("--without", part)]
                facts = ["--output", str(path), "--steps", str(steps), "--seed", str(seed)]
                train.main([*map(str, corpus), *facts, *left_out])
            yield path


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+")
    parser.add_argument(
        "--corpus", nargs="+", type=Path, required=True, help="shards, or folders of them"
    )
    parser.add_argument("--weights", type=Path, required=True, help="folder of the trained weights")
    parser.add_argument("--steps", type=int, default=450, help="of each training")
    parser.add_argument("--train-seeds", type=int, default=1)
    given, rest = parser.parse_known_args(arguments)
    weights = make_folder(given.weights)
    first, *others = trained(given.corpus, weights, given.steps, given.train_seeds)
    against = [*map(str, others), *ACOUSTIC]
    lips.main([*given.clips, "--encoder", str(first), "--against", *against, *rest])


if __name__ == "__main__":
    main()
