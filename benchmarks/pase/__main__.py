"""Measurements of PASE, apart from lips (benchmarks.lips); prints JSON lines.

    python -m benchmarks.pase phones [--speechocean FOLDER] [--flite SHARD] [--grid SHARD]
                                     [--ljspeech FOLDER] [--weights pase] [--sphinx allphone words]
    python -m benchmarks.pase voices DATASET... [--encoders pase[,PRIOR] mel] [--seeds 3]
    python -m benchmarks.pase noise DATASET... --speechocean FOLDER [--encoders pase mel] [--snr 5]
                                     [--folds 11] [--sentence-frames 75] [--floor PX]
    python -m benchmarks.pase retrieval [--grid SHARD] [--video VIDEO --late-ms MS] [--weights pase]
    python -m benchmarks.pase cost [--encoders pase mel] [--seconds 600] [--hours 3]

docs/pase.md defines each result. --weights also accepts a path. DATASET is a folder that
preprocessing made, SHARD a file of the corpus. --cache stores the results of pocketsphinx.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.lips import fold_blocks, held_out_block, parse_system
from benchmarks.pase.cost import cost
from benchmarks.pase.noise import noise, noises
from benchmarks.pase.phones import moments, read_ljspeech, read_split, shard_moments, speechocean
from benchmarks.pase.retrieval import retrieval, shard_takes, video_takes
from benchmarks.pase.sphinx import WAYS
from benchmarks.pase.subjects import load_embedder, load_phone_encoder
from benchmarks.pase.voices import voices
from benchmarks.posteriors import ablation_encoder
from talkhead.dataset import IdentityDataset
from talkhead.encoder.pase.corpus import read_shard
from talkhead.encoder.predictor.network import PRESETS
from talkhead.encoder.predictor.prior import read_prior
from talkhead.errors import TalkheadError

Rows = Iterator[dict[str, Any]]
N_BABBLE = 120
"""Utterances of the test split's speakers from which babble is mixed."""


def phones(given: argparse.Namespace) -> Rows:
    """Phone error rates and frame accuracies."""
    encoder = load_phone_encoder(given.weights) if given.weights else None
    shared = (encoder, given.sphinx, given.cache)
    if given.speechocean:
        yield from speechocean(given.speechocean, *shared, given.most)
    if given.flite:
        yield from shard_moments(given.flite, "test", *shared, given.most)
    if given.grid:
        yield from shard_moments(given.grid, "validation", *shared, given.most)
    if given.ljspeech:
        yield from moments("ljspeech", read_ljspeech(given.ljspeech), *shared)


def over_voices(given: argparse.Namespace) -> Rows:
    """Agreement of two voices."""
    named = [parse_system(name) for name in given.encoders]
    systems = [
        (
            ablation_encoder(one.encoder, given.cache),
            read_prior(Path(one.prior)) if one.prior else None,
        )
        for one in named
    ]
    for folder in given.datasets:
        dataset = IdentityDataset.load(folder)
        yield from voices(dataset, dataset.info.video, systems, given.preset, given.seeds)


def in_noise(given: argparse.Namespace) -> Rows:
    """Growth of lip errors in noise."""
    encoders = [ablation_encoder(name, given.cache) for name in given.encoders]
    speakers = []
    if given.speechocean:
        speakers = [u.waveform for u in read_split(given.speechocean, "test", N_BABBLE)]
    for folder in given.datasets:
        dataset = IdentityDataset.load(folder)
        blocks = [held_out_block(dataset)]
        if given.folds:
            blocks = list(fold_blocks(dataset, given.folds, given.sentence_frames, given.cache))
        yield from noise(
            dataset, dataset.info.video, blocks, encoders, given.preset, given.seeds,
            noises(len(dataset.waveform), speakers), given.snr, given.floor,
        )  # fmt: skip


def offsets(given: argparse.Namespace) -> Rows:
    """Retrieval of the true offset."""
    embeds = load_embedder(given.weights)
    if given.grid:
        takes = shard_takes(read_shard(given.grid), "validation")
        yield from retrieval("GRID validation", takes, embeds)
    if given.video:
        takes = video_takes(given.video, given.cache or Path("build/tracks"), given.late_ms)
        yield from retrieval(given.video.stem, takes, embeds)


def costs(given: argparse.Namespace) -> Rows:
    """Speed and memory."""
    return chain.from_iterable(cost(name, given.seconds, given.hours) for name in given.encoders)


def parser() -> argparse.ArgumentParser:
    """Options of the command line."""
    whole = argparse.ArgumentParser(
        prog="python -m benchmarks.pase",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = whole.add_subparsers(required=True, metavar="phones|voices|noise|retrieval|cost")
    made = {}
    for name, run in (
        ("phones", phones), ("voices", over_voices), ("noise", in_noise), ("retrieval", offsets),
        ("cost", costs),
    ):  # fmt: skip
        part = made[name] = parts.add_parser(name, help=run.__doc__)
        part.set_defaults(run=run)
        part.add_argument("--cache", type=Path, help="folder for results that take long to compute")
    for name in ("phones", "noise"):
        made[name].add_argument("--speechocean", type=Path, help="folder of speechocean762")
    for name in ("phones", "retrieval"):
        made[name].add_argument("--weights", default="pase", help='PASE\'s; "" for none')
        made[name].add_argument("--grid", type=Path, help="GRID's shard")
    for name in ("voices", "noise", "cost"):
        made[name].add_argument("--encoders", nargs="+", default=["pase", "mel"])
    for name in ("voices", "noise"):
        made[name].add_argument("datasets", nargs="+", type=Path)
        made[name].add_argument("--seeds", type=int, default=3)
        made[name].add_argument("--preset", default="standard", choices=list(PRESETS))
    made["phones"].add_argument("--flite", type=Path, help="the synthetic voices' shard")
    made["phones"].add_argument("--ljspeech", type=Path, help="folder with metadata.csv")
    made["phones"].add_argument("--sphinx", nargs="*", default=["allphone"], choices=WAYS)
    made["phones"].add_argument("--most", type=int, help="utterances of each, evenly spaced")
    made["noise"].add_argument("--snr", type=float, default=5.0, help="dB")
    made["noise"].add_argument("--folds", type=int, default=0, help="0: the held-out end")
    made["noise"].add_argument("--sentence-frames", type=int)
    made["noise"].add_argument("--floor", type=float, help="LMD of the true frames at CRF 23, px")
    made["retrieval"].add_argument("--video", type=Path)
    made["retrieval"].add_argument("--late-ms", type=float, default=0.0)
    made["cost"].add_argument("--seconds", type=float, default=600.0)
    made["cost"].add_argument("--hours", type=float, default=0.0, help="length of a long recording")
    return whole


def main() -> int:
    """Print the results and return the exit status."""
    given = parser().parse_args()
    try:
        for row in given.run(given):
            print(json.dumps(row), flush=True)
    except TalkheadError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
