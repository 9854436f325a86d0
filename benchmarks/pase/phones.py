"""Phone recognition by an encoder's posteriors and by pocketsphinx on the same audio.

* speechocean: phone error rate against the reference phones of the test split, whose speakers do
  not occur in training. Silences are left out, so there are 39 phones.
* flite: frame accuracy on the held-out synthetic voices, whose times are exact.
* agreement: the same against forced alignment, which makes errors itself and is therefore not called
  accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.pase.sphinx import sphinx_phones
from benchmarks.pase.subjects import PhoneEncoder
from talkhead.app.evaluation.cross_validation import Interval
from talkhead.encoder.base import normalize_level
from talkhead.encoder.forced_alignment import align_phones
from talkhead.encoder.pase.corpus import (
    LABEL_RATE,
    SAMPLES_PER_FRAME,
    SPLITS,
    UNKNOWN,
    CorpusShard,
    label_frames,
    read_shard,
)
from talkhead.encoder.pase.decode import decode_posteriors, greedy_labels
from talkhead.encoder.pase.speech import read_speechocean
from talkhead.encoder.phones import PHONES, SILENCE, VISEME_OF, VISEMES, Phone
from talkhead.media import read_audio
from talkhead.types import SAMPLE_RATE, Float32, Int, UInt8

WIDTHS = (1, 3, 5, 7, 9)
"""Vectors over which posteriors are averaged before the most likely phone is taken."""
N_DRAWS = 2000
_VISEME = np.array([list(VISEMES).index(VISEME_OF[phone]) for phone in PHONES])
_SILENT = PHONES.index(SILENCE)


# ----------------------------------------------------------------------- phone error rate


class Read(NamedTuple):
    """An utterance with its reference: speaker, waveform [n] at 16 kHz, phones without silence."""

    speaker: str
    waveform: Float32
    phones: list[str]


def read_split(folder: Path, split: str, n_max: int | None = None) -> list[Read]:
    """Utterances of speechocean762's train, validation or test; n_max of them, evenly spaced."""
    spoken = [one for one in read_speechocean(folder) if one.split == split]
    if n_max is not None and n_max < len(spoken):
        spoken = [spoken[int(i)] for i in np.linspace(0, len(spoken) - 1, n_max)]
    return [
        Read(
            one.speaker,
            normalize_level(read_audio(one.path)),
            [phone.rstrip("012") for word in one.words for phone in word.split()],
        )
        for one in spoken
    ]


def edit_distance(found: Sequence[str], true: Sequence[str]) -> int:
    """Least number of insertions, deletions and substitutions from one to the other (Levenshtein)."""
    row = list(range(len(true) + 1))
    for n_found, phone in enumerate(found, 1):
        diagonal, row[0] = row[0], n_found
        for n_true, other in enumerate(true, 1):
            best = min(row[n_true] + 1, row[n_true - 1] + 1, diagonal + (phone != other))
            diagonal, row[n_true] = row[n_true], best
    return row[-1]


def error_rate(found: Sequence[Sequence[str]], spoken: Sequence[Read]) -> dict[str, Any]:
    """Phone error rate: edits over reference phones, with its 95 % interval over speakers."""
    edits = [edit_distance(f, s.phones) for f, s in zip(found, spoken, strict=True)]
    lengths = [len(s.phones) for s in spoken]
    rate = share_over_groups(edits, lengths, [s.speaker for s in spoken])
    ratio = sum(map(len, found)) / sum(lengths)
    facts = {"n_utterances": len(spoken), "n_phones": sum(lengths)}
    return {"phone_error_rate": asdict(rate), "found_per_phone": ratio, **facts}


def share_over_groups(
    parts: Sequence[float], wholes: Sequence[float], groups: Sequence[str]
) -> Interval:
    """Ratio of sums, with the 95 % interval of a bootstrap over whole groups (speakers, utterances),
    within which errors are correlated.
    """
    names = sorted(set(groups))
    index = np.array([names.index(group) for group in groups])
    sums = np.stack([np.bincount(index, values) for values in (parts, wholes)])
    draws = np.random.default_rng(0).integers(len(names), size=(N_DRAWS, len(names)))
    drawn = sums[:, draws].sum(-1)
    low, high = np.quantile(drawn[0] / drawn[1], (0.025, 0.975))
    return Interval(float(sums[0].sum() / sums[1].sum()), float(low), float(high))


def spoken_labels(phones: Sequence[Phone]) -> list[str]:
    """Labels without silences; equal labels on both sides of a silence remain two."""
    return [phone.label for phone in phones if phone.label != SILENCE]


def collapsed(labels: Int) -> list[str]:
    """Phones of a sequence of labels [F], one for each run, without silence."""
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    return [PHONES[k] for k in labels[starts] if k != _SILENT]


def best_width(posteriors: Sequence[Float32], spoken: Sequence[Read]) -> int:
    """The one of WIDTHS with the lowest error rate, on utterances that are not evaluated later."""

    def errors(width: int) -> int:
        found = [collapsed(greedy_labels(p, width)) for p in posteriors]
        return sum(edit_distance(f, s.phones) for f, s in zip(found, spoken, strict=True))

    return min(WIDTHS, key=errors)


def speechocean(
    folder: Path, encoder: PhoneEncoder | None, ways: Sequence[str], cache: Path | None,
    n_max: int | None = None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Phone error rates on the test split: one row per way of decoding."""
    spoken = read_split(folder, "test", n_max)
    facts = {"benchmark": "phones", "data": "speechocean762 test"}
    for way in ways:
        found = sphinx_phones([s.waveform for s in spoken], way, cache)
        labels = [spoken_labels(phones) for phones in found]
        yield {**facts, "heard_by": f"pocketsphinx {way}", **error_rate(labels, spoken)}
    if encoder is None:
        return
    chosen_on = read_split(folder, "validation")
    width = best_width([encoder.phone_posteriors(s.waveform) for s in chosen_on], chosen_on)
    posteriors = [encoder.phone_posteriors(s.waveform) for s in spoken]
    greedy = [collapsed(greedy_labels(p, width)) for p in posteriors]
    name = f"{encoder.name} greedy, {width} vectors"
    yield {**facts, "heard_by": name, **error_rate(greedy, spoken)}
    viterbi = [spoken_labels(decode_posteriors(p)) for p in posteriors]
    yield {**facts, "heard_by": f"{encoder.name} Viterbi", **error_rate(viterbi, spoken)}


# ------------------------------------------------------------------------- frame accuracy


class Labeled(NamedTuple):
    """An utterance with a label per moment: group it belongs to, waveform [n], labels [F] at
    LABEL_RATE (indices into PHONES, or UNKNOWN).
    """

    group: str
    waveform: Float32
    labels: UInt8


def shard_utterances(shard: CorpusShard, split: str, n_max: int | None = None) -> list[Labeled]:
    """Utterances of a shard's split, each in its own group; n_max of them, evenly spaced."""
    chosen = np.flatnonzero(shard.splits == SPLITS.index(split))
    if n_max is not None and n_max < len(chosen):
        chosen = chosen[np.linspace(0, len(chosen) - 1, n_max).astype(int)]
    found = []
    for index in chosen:
        first, stop = shard.starts[index : index + 2]
        samples = shard.waveform[first * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME]
        waveform = normalize_level(samples.astype(np.float32) / np.float32(32767.0))
        found.append(Labeled(str(index), waveform, shard.labels[first * 2 : stop * 2]))
    return found


def read_ljspeech(folder: Path) -> list[Labeled]:
    """Utterances of one woman with the phones that the aligner finds for the text."""
    found = []
    for line in (folder / "metadata.csv").read_text(encoding="utf-8").splitlines():
        name, _, text = line.split("|")
        waveform = normalize_level(read_audio(folder / f"{name}.flac"))
        n_labels = len(waveform) * LABEL_RATE // SAMPLE_RATE
        phones = align_phones(waveform, text)
        found.append(Labeled(name, waveform, label_frames(phones, n_labels)))
    return found


def frame_shares(found: Sequence[Int], utterances: Sequence[Labeled]) -> dict[str, Any]:
    """Shares of correct phones and visemes over moments whose phone is known: of all, and of those
    with speech, with 95 % intervals over utterances. found: labels [>= F] of each.
    """
    groups = [u.group for u in utterances]
    figures: dict[str, Any] = {"n_utterances": len(utterances)}
    for said in (False, True):
        counts, phones, visemes = [], [], []
        for labels, utterance in zip(found, utterances, strict=True):
            true = utterance.labels
            counted = (true != UNKNOWN) & ~(said & (true == _SILENT))
            own, real = labels[: len(true)][counted], true[counted]
            counts.append(len(real))
            phones.append(int((own == real).sum()))
            visemes.append(int((_VISEME[own] == _VISEME[real]).sum()))
        suffix = "_spoken" if said else ""
        figures[f"n_moments{suffix}"] = sum(counts)
        figures[f"phones{suffix}"] = asdict(share_over_groups(phones, counts, groups))
        figures[f"visemes{suffix}"] = asdict(share_over_groups(visemes, counts, groups))
    return figures


def moments(
    data: str, utterances: Sequence[Labeled], encoder: PhoneEncoder | None, ways: Sequence[str],
    cache: Path | None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Frame accuracy (or agreement): one row per way of decoding."""
    facts = {"benchmark": "frames", "data": data}
    for way in ways:
        recognized = sphinx_phones([u.waveform for u in utterances], way, cache)
        found = [_filled(p, len(u.labels)) for p, u in zip(recognized, utterances, strict=True)]
        yield {**facts, "heard_by": f"pocketsphinx {way}", **frame_shares(found, utterances)}
    if encoder is None:
        return
    posteriors = [encoder.phone_posteriors(u.waveform) for u in utterances]
    decoders: dict[str, Callable[[Float32], Int]] = {
        "likeliest": lambda p: greedy_labels(p, 1),
        "Viterbi": lambda p: _filled(decode_posteriors(p), len(p)),
    }
    for name, decode in decoders.items():
        found = [decode(p) for p in posteriors]
        yield {**facts, "heard_by": f"{encoder.name} {name}", **frame_shares(found, utterances)}


def _filled(phones: Sequence[Phone], n_labels: int) -> Int:
    """Labels [n_labels] of phones, with silence in gaps."""
    labels = label_frames(phones, n_labels).astype(np.int64)
    labels[labels == UNKNOWN] = _SILENT
    return labels


def shard_moments(
    path: Path, split: str, encoder: PhoneEncoder | None, ways: Sequence[str], cache: Path | None,
    n_max: int | None = None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Rows of one shard's split."""
    utterances = shard_utterances(read_shard(path), split, n_max)
    return moments(f"{path.stem} {split}", utterances, encoder, ways, cache)
