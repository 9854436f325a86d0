"""A corpus on disk: a folder of shards, and a manifest that describes each and its origin.

Each source is a separate shard, so that a person or a license can be excluded by leaving a file
out. A shard is not made again if its inputs are unchanged.
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
"""Incremented when shards are made differently than before; older ones are then made again."""


@dataclass(frozen=True)
class ShardContents:
    """The usable utterances of a source.

    Attributes:
        utterances: Those that were not rejected.
        n_given: The number of all its utterances.
    """

    utterances: Iterable[Utterance]
    n_given: int


@dataclass(frozen=True)
class Source:
    """Description of a shard and how to make it.

    Attributes:
        name: Name of the shard's file, without suffix.
        title: Description of the source.
        licence: Its license.
        attribution: The author to credit.
        shippable: True if weights that were trained on it may be distributed.
        inputs: Everything that the shard depends on, as JSON values.
        read: Reads the utterances; only called if the inputs have changed.
    """

    name: str
    title: str
    licence: str
    attribution: str
    shippable: bool
    inputs: Mapping[str, Any]
    read: Callable[[], ShardContents]


def build_shard(folder: Path, source: Source, progress: Progress) -> Path:
    """Make a source's shard unless it is up to date, and its entry in the manifest.

    Args:
        folder: The folder of the corpus.
        source: The source.
        progress: Shows the step.

    Returns:
        The shard's file.

    Raises:
        TalkheadError: If there is no usable utterance, or a file cannot be read or written.
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
    with progress.step(f"Shard {source.name}") as step:
        if path.exists() and manifest.get(source.name, {}).get("inputs") == inputs:
            step.skip("up to date")
            return path
        contents = source.read()
        shard = make_shard(
            contents.utterances,
            source=source.title,
            licence=source.licence,
            attribution=source.attribution,
            shippable=source.shippable,
        )
        write_shard(path, shard)
    facts = {"file": path.name, "sha256": sha256_of(path), "inputs": inputs}
    manifest[source.name] = facts | describe_shard(shard, contents.n_given)
    write_json(folder / MANIFEST, {"shelves": dict(sorted(manifest.items()))})
    return path


def describe_shard(shard: CorpusShard, n_given: int) -> dict[str, Any]:
    """Describe a shard for the manifest.

    Args:
        shard: The shard.
        n_given: The number of the source's utterances before rejection.

    Returns:
        Source, terms, hours, speakers and utterances by split; `rejected` is the share of the
        utterances that were left out, `labelled` that of the moments whose phone is known.
    """
    lengths = np.diff(shard.starts) / FRAME_RATE / 3600
    by_split = {
        name: {
            "utterances": int((shard.splits == i).sum()),
            "speakers": len(np.unique(shard.speakers[shard.splits == i])),
            "hours": round(float(lengths[shard.splits == i].sum()), 4),
        }
        for i, name in enumerate(SPLITS)
    }
    return {
        "source": shard.source,
        "licence": shard.licence,
        "attribution": shard.attribution,
        "shippable": shard.shippable,
        "audio_visual": shard.has_lips,
        "utterances": shard.n_utterances,
        "speakers": len(shard.names),
        "hours": round(len(shard.waveform) / SAMPLES_PER_FRAME / FRAME_RATE / 3600, 4),
        "given": n_given,
        "rejected": round(1 - shard.n_utterances / max(n_given, 1), 4),
        "labelled": round(float((shard.labels != UNKNOWN).mean()), 4),
        "splits": by_split,
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a corpus's manifest.

    Args:
        folder: The folder of the corpus.

    Returns:
        The entry of each shard by its name; an empty mapping if there is no corpus yet.

    Raises:
        TalkheadError: If the manifest cannot be read.
    """
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        return dict(read_json(path)["shelves"])
    except (KeyError, TypeError, ValueError) as error:
        raise TalkheadError(f"{path}: damaged ({error}). Remove it and build again") from error


def file_inputs(paths: Iterable[Path], root: Path) -> dict[str, str]:
    """Describe files for a fingerprint.

    Args:
        paths: The files.
        root: Folder that their names are relative to.

    Returns:
        For each name, the SHA-256 of a text file, or the size of any other file.

    Raises:
        TalkheadError: If a file cannot be read.
    """
    facts = {}
    for path in sorted(paths):
        with translate_os_errors(path):
            text = path.suffix in (".jsonl", ".json", ".txt")
            facts[str(path.relative_to(root))] = (
                sha256_of(path) if text else str(path.stat().st_size)
            )
    return facts
