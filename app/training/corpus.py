"""Build the training corpus of PASE: recorded speech and video with known text.

    python -m talkhead.app.training.corpus speech FOLDER --output DIR
    python -m talkhead.app.training.corpus grid FOLDER --output DIR
    python -m talkhead.app.training.corpus footage FOLDER --name NAME --licence TERMS --output DIR
    python -m talkhead.app.training.corpus people FOLDER --name NAME --licence TERMS --output DIR

speech: speechocean762 with its index.jsonl. grid: videos of joined sentences, whose index.jsonl
gives the start and words of each. footage: your own videos of one person, each NAME.mp4 with its
text in NAME.txt. people: videos of many people, without text; a file's name begins with the
person's, up to the first "_". Each makes one shard of the corpus, DIR/NAME.safetensors, and its entry in
DIR/corpus.json; tracking and alignments are kept in DIR/work, and an interrupted run resumes.
docs/corpus.md describes the shards and how accurate the phones are.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch

from talkhead.app.cli.console import print_json, print_line
from talkhead.app.training.tracked_video import (
    INDEX,
    VALIDATION_FRACTION,
    Mouths,
    Span,
    TrackedVideo,
    find_takes,
    find_videos,
    read_mouths,
    steady_template,
    track_video,
)
from talkhead.encoder.forced_alignment import Alignment, ForcedAligner, align_phones, decode_phones
from talkhead.encoder.pase.corpus import SAMPLES_PER_FRAME, Utterance
from talkhead.encoder.pase.corpus_store import (
    ShardContents,
    Source,
    build_shard,
    file_inputs,
    read_manifest,
)
from talkhead.encoder.pase.speech import (
    MIN_SPEECHOCEAN_SCORE,
    AlignmentStore,
    align_spoken,
    fitting_utterances,
    read_speechocean,
)
from talkhead.encoder.phones import SILENCE, Phone
from talkhead.errors import FootageError, TalkheadError
from talkhead.progress import Progress, make_progress
from talkhead.storage import decode_json, translate_os_errors
from talkhead.types import FRAME_RATE, Float32

MIN_GRID_SCORE = -30.0
"""Like MIN_SPEECHOCEAN_SCORE, for GRID. See docs/corpus.md."""
LETTERS = {"a": "ay", "z": "zed"}
"""Letters in GRID's sentences that the dictionary pronounces differently from its British speakers."""
MIN_UTTERANCE_S = 1.0
"""Shorter utterances of the user's own footage are left out."""
MAX_UTTERANCE_S = 12.0
"""Longer stretches of the user's own footage are cut."""


@dataclass(frozen=True)
class BuildContext:
    """Folders of a build, and its progress.

    Attributes:
        output: Folder of the corpus.
        cache: Folder of tracked videos.
        progress: Shows the steps.
    """

    output: Path
    cache: Path
    progress: Progress

    def store(self, name: str) -> AlignmentStore:
        """Open the stored alignments of a source.

        Args:
            name: Name of the source.

        Returns:
            The store.

        Raises:
            TalkheadError: If its file cannot be read or is damaged.
        """
        return AlignmentStore(self.output / "work" / f"{name}.aligned.jsonl")


@dataclass(frozen=True)
class Terms:
    """Terms of a source.

    Attributes:
        licence: Its license.
        attribution: The author to credit.
        shippable: True if weights that were trained on it may be distributed.
    """

    licence: str
    attribution: str = ""
    shippable: bool = False


@dataclass(frozen=True)
class Sentence:
    """A take of a video and its text.

    Attributes:
        start: First frame.
        text: Everything that is said until the next sentence.
    """

    start: int
    text: str


# -------------------------------------------------------------------------------- sources


def speechocean(
    folder: Path, context: BuildContext, name: str = "speechocean", limit: int | None = None
) -> Source:
    """Describe the shard of speechocean762: recorded speech of many speakers.

    Args:
        folder: Folder of the corpus, with its index.
        context: Folders of the build.
        name: Name of the shard.

    Returns:
        The source.

    Raises:
        TalkheadError: If the index cannot be read.
    """
    spoken = read_speechocean(folder)

    def read() -> ShardContents:
        fits = align_spoken(spoken, context.store("speechocean762"), context.progress, limit)
        return ShardContents(fitting_utterances(spoken, fits, MIN_SPEECHOCEAN_SCORE), len(spoken))

    return Source(
        name,
        "speechocean762",
        "CC BY 4.0",
        "speechocean762 (Zhang et al. 2021, Interspeech), Xiaomi and SpeechOcean, openslr.org/101",
        True,
        {**file_inputs([folder / INDEX], folder), "least_score": MIN_SPEECHOCEAN_SCORE}
        | ({} if limit is None else {"limit": limit}),
        read,
    )


def grid(folder: Path, context: BuildContext, name: str = "grid") -> Source:
    """Describe the shard of joined sentences of one speaker of the GRID corpus.

    Args:
        folder: Folder of the videos, with their index.
        context: Folders of the build.
        name: Name of the shard and of the speaker.

    Returns:
        The source.

    Raises:
        TalkheadError: If the index cannot be read, or there are no videos.
    """
    sentences = read_sentences(folder / INDEX)
    videos = [video for video in find_videos(folder) if video.name in sentences]
    n_given = sum(len(sentences[video.name]) for video in videos)

    def read() -> ShardContents:
        utterances = [
            utterance
            for video in videos
            for utterance in _joined_utterances(video, sentences[video.name], context, name)
        ]
        return ShardContents(_last_for_validation(utterances, n_given), n_given)

    return Source(
        name,
        "GRID, speaker 1",
        "CC BY 4.0",
        "GRID (Cooke, Barker, Cunningham and Shao 2006, JASA 120:2421), spandh.dcs.shef.ac.uk",
        True,
        {**file_inputs([folder / INDEX, *videos], folder), "least_score": MIN_GRID_SCORE},
        read,
    )


def own_footage(
    path: Path,
    context: BuildContext,
    name: str,
    terms: Terms,
    *,
    late_ms: Mapping[str, float] | None = None,
    texts: Path | None = None,
    recognize: bool = False,
) -> Source:
    """Describe the shard of videos of one person, each with its text.

    Args:
        path: A video, or a folder of them.
        context: Folders of the build.
        name: Name of the shard and of the speaker.
        terms: Terms that the footage is under.
        late_ms: Milliseconds by which the audio of a video is late, by its name without suffix.
        texts: Folder of the texts; None for that of the videos.
        recognize: True to recognize the speech of videos without a text.

    Returns:
        The source.

    Raises:
        FootageError: If there is no video, a text is missing, or late_ms names another video.
        TalkheadError: If a text cannot be read.
    """
    videos = find_videos(path)
    spoken = {v.stem: read_text((texts or v.parent) / f"{v.stem}.txt", recognize) for v in videos}
    late = _checked_late(path, videos, late_ms)

    def read() -> ShardContents:
        footage = [
            track_video(video, context.cache, context.progress, late.get(video.stem, 0.0))
            for video in videos
        ]
        given = list(_own_utterances(videos, footage, spoken, context, name))
        return ShardContents(given, len(given))

    return Source(
        name,
        f"footage of {name}",
        inputs={"files": file_inputs(videos, videos[0].parent), "texts": spoken, "late": late},
        read=read,
        **vars(terms),
    )


def many_people(
    path: Path,
    context: BuildContext,
    name: str,
    terms: Terms,
    *,
    late_ms: Mapping[str, float] | None = None,
) -> Source:
    """Describe the shard of videos of many people, whose phones are unknown.

    Args:
        path: A video, or a folder of them; each name begins with the name of a person and "_".
        context: Folders of the build.
        name: Name of the shard.
        terms: Terms that the footage is under.
        late_ms: Milliseconds by which the audio of a video is late, by its name without suffix.

    Returns:
        The source.

    Raises:
        FootageError: If there is no video, or late_ms names another video.
    """
    videos = find_videos(path)
    late = _checked_late(path, videos, late_ms)

    def read() -> ShardContents:
        template, given = steady_template(), []
        for video in videos:
            one = track_video(video, context.cache, context.progress, late.get(video.stem, 0.0))
            mouths = read_mouths(video, one, template, context.progress)
            speaker = video.stem.partition("_")[0]
            for span in find_takes(one.seen, [len(one.seen)], round(MIN_UTTERANCE_S * FRAME_RATE)):
                given.append(_utterance(one, mouths, span, (), speaker))
        return ShardContents(given, len(given))

    return Source(
        name,
        f"footage of the people of {name}",
        inputs={"files": file_inputs(videos, videos[0].parent), "late": late},
        read=read,
        **vars(terms),
    )


def _checked_late(
    path: Path, videos: Sequence[Path], late_ms: Mapping[str, float] | None
) -> dict[str, float]:
    """Copy the delays of videos. Raises FootageError for that of a video that does not exist."""
    late = dict(late_ms or {})
    unknown = sorted(set(late) - {video.stem for video in videos})
    if unknown:
        raise FootageError(f"{path}: no video {unknown[0]}.mp4, for which --late was given")
    return late


def read_sentences(path: Path) -> dict[str, list[Sentence]]:
    """Read the sentences of joined videos.

    Args:
        path: An index with lines of {"file": NAME, "start": SECONDS, "words":
            [[first second, last second, word], ...]}, in which the words "sp" and "sil" are
            silence.

    Returns:
        Sentences in order, by the name of the video.

    Raises:
        FootageError: If a line cannot be read; the message names it.
    """
    with translate_os_errors(path):
        lines = path.read_text(encoding="utf-8").splitlines()
    sentences: dict[str, list[Sentence]] = {}
    for number, line in enumerate(lines, 1):
        try:
            entry = decode_json(line)
            words = [str(word) for _, _, word in entry["words"]]
            text = " ".join(LETTERS.get(w, w) for w in words if w not in ("sp", "sil"))
            start = round(float(entry["start"]) * FRAME_RATE)
            sentences.setdefault(str(entry["file"]), []).append(Sentence(start, text))
        except (ValueError, KeyError, TypeError) as error:
            raise FootageError(
                f'{path}: line {number} must be {{"file": NAME, "start": SECONDS, "words": '
                f"[[SECONDS, SECONDS, WORD], ...]}} ({error})"
            ) from error
    return {name: sorted(one, key=lambda s: s.start) for name, one in sentences.items()}


def read_text(path: Path, recognize: bool = False) -> str:
    """Read the text of a video.

    Args:
        path: The text file.
        recognize: True if the file may be missing.

    Returns:
        The text; empty if it is missing and speech is to be recognized.

    Raises:
        FootageError: If the text is missing or not UTF-8.
        TalkheadError: If the file cannot be read.
    """
    if not path.exists() and recognize:
        return ""
    if not path.exists():
        raise FootageError(
            f"{path}: there is no such file. Write down the speech of the video, word by word, or "
            "pass --recognize to have it recognized, which is far less reliable"
        )
    with translate_os_errors(path):
        try:
            return path.read_text(encoding="utf-8")
        except ValueError as error:
            raise FootageError(f"{path}: this is not UTF-8 text. Save it as UTF-8") from error


# ----------------------------------------------------------------------------- utterances


def _joined_utterances(
    video: Path, sentences: Sequence[Sentence], context: BuildContext, speaker: str
) -> Iterator[Utterance]:
    """Yield utterances for a video's sentences whose words match, with a face in every frame."""
    footage = track_video(video, context.cache, context.progress)
    mouths = read_mouths(video, footage, steady_template(), context.progress)
    store = context.store(speaker)
    if beyond := [s.start for s in sentences if s.start >= len(footage.seen)]:
        raise FootageError(
            f"{video}: the index has a sentence at {beyond[0] / FRAME_RATE:g} s, after the video's end. "
            "Check that it is the index of these videos"
        )
    starts = [*(sentence.start for sentence in sentences), len(footage.seen)]
    spans = [(start, min(stop, len(footage.seen))) for start, stop in pairwise(starts)]
    aligner: ForcedAligner | None = None
    with context.progress.step(f"Aligning {video.name}", len(sentences)) as step:
        for sentence, (start, stop) in zip(sentences, spans, strict=True):
            key = (f"{video.name}:{start}", sentence.text)
            if key not in store:
                aligner = aligner or ForcedAligner()
                store.add(*key, aligner.fit_text(_sound(footage, (start, stop)), sentence.text))
            fit = store[key]
            step.advance()
            if fit is not None and fit.score >= MIN_GRID_SCORE and footage.seen[start:stop].all():
                yield _utterance(footage, mouths, (start, stop), fit.phones, speaker)


def _own_utterances(
    videos: Sequence[Path],
    footage: Sequence[TrackedVideo],
    spoken: Mapping[str, str],
    context: BuildContext,
    speaker: str,
) -> Iterator[Utterance]:
    """Yield the stretches with a face, cut in pauses. The last tenth is for validation."""
    template, store = steady_template(), context.store(speaker)
    held = round((1 - VALIDATION_FRACTION) * sum(len(one.seen) for one in footage))
    for video, one in zip(videos, footage, strict=True):
        mouths = read_mouths(video, one, template, context.progress)
        phones = _phones(video, one, spoken[video.stem], store, context.progress)
        for take in find_takes(one.seen, [min(max(held, 0), len(one.seen))]):
            split = "validation" if take[0] >= held else "train"
            for span in cut_in_pauses(take, phones):
                if span[1] - span[0] >= MIN_UTTERANCE_S * FRAME_RATE:
                    own = _earlier(phones, span[0] / FRAME_RATE)
                    yield _utterance(one, mouths, span, own, speaker, split)
        held -= len(one.seen)


def _phones(
    video: Path, footage: TrackedVideo, text: str, store: AlignmentStore, progress: Progress
) -> list[Phone]:
    """Return the phones of a video, which are stored by its audio and text.

    Raises:
        TalkheadError: If the text does not match; the message names the video.
    """
    digest = hashlib.sha256(footage.waveform.tobytes()).hexdigest()[:12]
    key = (f"{video.stem}-{digest}", text)
    if key not in store:
        with progress.step(f"Aligning {video.name}"):
            try:
                sound = footage.waveform
                phones = align_phones(sound, text) if text else decode_phones(sound)
            except TalkheadError as error:
                raise TalkheadError(f"{video}: {error}") from error
        store.add(*key, Alignment(phones, 0.0))
    fit = store[key]
    return fit.phones if fit is not None else []


def cut_in_pauses(take: Span, phones: Sequence[Phone]) -> Iterator[Span]:
    """Cut a take into parts of at most MAX_UTTERANCE_S.

    Args:
        take: Start and stop of its frames.
        phones: Its phones, with silences.

    Yields:
        The parts, cut in the longest possible silence, or in the middle where there is none.
    """
    start, stop = take
    most = round(MAX_UTTERANCE_S * FRAME_RATE)
    least = round(MIN_UTTERANCE_S * FRAME_RATE)
    while stop - start > most:
        pauses = [
            (p.end_s - p.start_s, round((p.start_s + p.end_s) / 2 * FRAME_RATE))
            for p in phones
            if p.label == SILENCE
        ]
        inside = [p for p in pauses if start + least <= p[1] <= min(start + most, stop - least)]
        cut = max(inside)[1] if inside else min(start + most, (start + stop) // 2)
        yield start, cut
        start = cut
    yield start, stop


def _utterance(
    footage: TrackedVideo,
    mouths: Mouths,
    span: Span,
    phones: Sequence[Phone],
    speaker: str,
    split: str = "train",
) -> Utterance:
    """Return the utterance in a span of a video; the phones' times are relative to the span."""
    return Utterance(
        _sound(footage, span),
        tuple(phones),
        speaker,
        split,
        mouths.lips[slice(*span)],
        mouths.points[slice(*span)],
    )


def _sound(footage: TrackedVideo, span: Span) -> Float32:
    """Return the waveform [n_samples] of a span."""
    return footage.waveform[span[0] * SAMPLES_PER_FRAME : span[1] * SAMPLES_PER_FRAME]


def _earlier(phones: Sequence[Phone], by_s: float) -> list[Phone]:
    """Return phones shifted to an earlier time."""
    return [Phone(p.label, p.start_s - by_s, p.end_s - by_s) for p in phones]


def _last_for_validation(utterances: Sequence[Utterance], n_given: int) -> list[Utterance]:
    """Assign the last of n_given sentences to validation; rejected ones count among the first."""
    n_held = round(VALIDATION_FRACTION * n_given)
    first = max(0, len(utterances) - n_held)
    return [
        replace(one, split="validation" if number >= first else "train")
        for number, one in enumerate(utterances)
    ]


# -------------------------------------------------------------------------------- command


def main(arguments: Sequence[str] | None = None) -> int:
    """Build a shard.

    Args:
        arguments: Command-line arguments; None for those of the process.

    Returns:
        Exit code: 1 on failure, with the reason on stderr.
    """
    options = _options().parse_args(arguments)
    torch.set_num_threads(1)
    progress = make_progress(options.progress)
    cache = options.cache or options.output / "work" / "tracked"
    context = BuildContext(options.output, cache, progress)
    try:
        path = build_shard(options.output, _source(options, context), progress)
        entry = read_manifest(options.output)[path.stem]
    except TalkheadError as error:
        print_line(f"corpus: {error}", sys.stderr)
        return 1
    entry = {key: value for key, value in entry.items() if key not in ("inputs", "sha256")}
    print_json(entry)
    return 0


def _source(options: argparse.Namespace, context: BuildContext) -> Source:
    if options.kind == "speech":
        name = options.name or "speechocean"
        return speechocean(options.folder, context, name, options.limit)
    if options.kind == "grid":
        return grid(options.folder, context, options.name or "grid")
    terms, late = Terms(options.licence, options.attribution, options.shippable), dict(options.late)
    if options.kind == "people":
        return many_people(options.folder, context, options.name, terms, late_ms=late)
    return own_footage(
        options.folder,
        context,
        options.name,
        terms,
        texts=options.texts,
        late_ms=late,
        recognize=options.recognize,
    )


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="corpus", description=(__doc__ or "").split("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    speech = kinds.add_parser("speech", help="speechocean762")
    joined = kinds.add_parser("grid", help="joined sentences with an index.jsonl")
    own = kinds.add_parser("footage", help="your own videos of one person, with texts")
    people = kinds.add_parser("people", help="videos of many people, without texts")
    for one in (speech, joined, own, people):
        one.add_argument("folder", type=Path, help="folder; for footage, also one video")
        one.add_argument("--output", type=Path, required=True, help="folder of the corpus")
        one.add_argument("--cache", type=Path, help="folder of tracked videos")
        one.add_argument(
            "--name", required=one in (own, people), help="name of the shard and speaker"
        )
        one.add_argument("--progress", choices=("bars", "json", "silent"), default="bars")
    for one in (own, people):
        one.add_argument("--licence", required=True, help="the terms that the footage is under")
        one.add_argument("--attribution", default="", help="author to credit")
        one.add_argument(
            "--shippable", action="store_true", help="weights trained on it may be distributed"
        )
        one.add_argument(
            "--late", action="append", default=[], type=_late, metavar="NAME=MS",
            help="a video whose audio is late, and by how much",
        )  # fmt: skip
    speech.add_argument(
        "--limit", type=int, help="maximum number of utterances, chosen at random (default: all)"
    )
    own.add_argument("--texts", type=Path, help="folder of the texts (default: next to the videos)")
    own.add_argument("--recognize", action="store_true", help="recognize videos without text")
    return parser


def _late(text: str) -> tuple[str, float]:
    """Return the name and the milliseconds in a value of --late."""
    name, equals, value = text.rpartition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f'"{text}" is not NAME=MS')
    return name, float(value)


if __name__ == "__main__":
    sys.exit(main())
