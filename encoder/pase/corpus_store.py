"""A corpus on disk: a folder of shelves, and a manifest that says what they are and how they came.

Each source is a shelf of its own, so that a person or a licence can be left out by leaving a file
out. A shelf that was made of the same inputs is not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from talkhead.encoder.pase.corpus import (
    SAMPLES_PER_FRAME,
    SPLITS,
    UNKNOWN,
    CorpusShard,
    Utterance,
    make_shard,
    write_shard,
)
from talkhead.errors import TalkheadError
from talkhead.progress import Progress
from talkhead.storage import (
    fingerprint,
    make_folder,
    read_json,
    sha256_of,
    translate_os_errors,
    write_json,
)
from talkhead.types import FRAME_RATE

MANIFEST = "corpus.json"
VERSION = 1
"""Raised when shelves are made otherwise: those of before are made again."""


@dataclass(frozen=True)
class ShardContents:
    """What a source gave. n_given: utterances it had, of which some were rejected."""

    utterances: Iterable[Utterance]
    n_given: int


@dataclass(frozen=True)
class Source:
    """Where a shelf comes from.

    name: of the shelf's file. title: what it is. licence, attribution, shippable: see Shelf.
    inputs: all that the shelf depends on, as JSON has it. harvest: makes the utterances; called
    only when the inputs have changed.
    """

    name: str
    title: str
    licence: str
    attribution: str
    shippable: bool
    inputs: Mapping[str, Any]
    harvest: Callable[[], ShardContents]


def build_shard(folder: Path, source: Source, progress: Progress) -> Path:
    """The file of the source's shelf, made unless it is up to date; its entry in the manifest.

    Raises TalkheadError when no utterance could be used or a file can't be read or written.
    """
    path = make_folder(folder) / f"{source.name}.safetensors"
    manifest = read_manifest(folder)
    inputs = fingerprint(
        {
            "version": VERSION,
            "terms": [source.title, source.licence, source.attribution, source.shippable],
            "inputs": source.inputs,
        },
        ensure_ascii=False,
    )
    with progress.step(f"Shelf {source.name}") as step:
        if path.exists() and manifest.get(source.name, {}).get("inputs") == inputs:
            step.skip("up to date")
            return path
        harvest = source.harvest()
        shelf = make_shard(
            harvest.utterances,
            source=source.title,
            licence=source.licence,
            attribution=source.attribution,
            shippable=source.shippable,
        )
        write_shard(path, shelf)
    facts = {"file": path.name, "sha256": sha256_of(path), "inputs": inputs}
    manifest[source.name] = facts | describe_shard(shelf, harvest.n_given)
    write_json(folder / MANIFEST, {"shelves": dict(sorted(manifest.items()))})
    return path


def describe_shard(shelf: CorpusShard, n_given: int) -> dict[str, Any]:
    """What the manifest says of a shelf. rejected: share of the n_given utterances left out.
    labelled: share of the moments whose phone is known. hours and utterances by split."""
    lengths = np.diff(shelf.starts) / FRAME_RATE / 3600
    by_split = {
        name: {
            "utterances": int((shelf.splits == i).sum()),
            "speakers": len(np.unique(shelf.speakers[shelf.splits == i])),
            "hours": round(float(lengths[shelf.splits == i].sum()), 4),
        }
        for i, name in enumerate(SPLITS)
    }
    return {
        "source": shelf.source,
        "licence": shelf.licence,
        "attribution": shelf.attribution,
        "shippable": shelf.shippable,
        "audio_visual": shelf.has_lips,
        "utterances": shelf.n_utterances,
        "speakers": len(shelf.names),
        "hours": round(len(shelf.waveform) / SAMPLES_PER_FRAME / FRAME_RATE / 3600, 4),
        "given": n_given,
        "rejected": round(1 - shelf.n_utterances / max(n_given, 1), 4),
        "labelled": round(float((shelf.labels != UNKNOWN).mean()), 4),
        "splits": by_split,
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """The entries of a corpus by the names of its shelves; none where there is no corpus yet.

    Raises TalkheadError naming a manifest that can't be read.
    """
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        return dict(read_json(path)["shelves"])
    except (KeyError, TypeError, ValueError) as error:
        raise TalkheadError(f"{path}: damaged ({error}). Remove it and build again") from error


def file_inputs(paths: Iterable[Path], root: Path) -> dict[str, str]:
    """What of files goes into a fingerprint: of text its contents, of all else names and sizes."""
    facts = {}
    for path in sorted(paths):
        with translate_os_errors(path):
            text = path.suffix in (".jsonl", ".json", ".txt")
            facts[str(path.relative_to(root))] = (
                sha256_of(path) if text else str(path.stat().st_size)
            )
    return facts
