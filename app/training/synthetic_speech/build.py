"""Phone-timed synthetic speech as shards of the corpus: flite.safetensors and espeak.safetensors.

Run as `python -m talkhead.app.training.synthetic_speech.build`:

    build FOLDER [--minutes 80] [--test-minutes 8] [--only flite] [--seed 1]
    build --check    compare the times with pocketsphinx's, English only
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import count
from pathlib import Path

import numpy as np

from talkhead.app.cli.console import print_line
from talkhead.app.training.synthetic_speech import espeak, flite, sentences
from talkhead.encoder.forced_alignment import align_phones
from talkhead.encoder.pase.corpus import Utterance
from talkhead.encoder.pase.corpus_store import ShardContents, Source, build_shard, file_inputs
from talkhead.encoder.phones import SILENCE, Phone
from talkhead.errors import TalkheadError
from talkhead.progress import make_progress
from talkhead.types import SAMPLE_RATE

HERE = Path(__file__).parent
VALIDATION_FRACTION = 0.04
TEST_SEED = 77
ENGLISH = ("en-us", "en", "en-gb-scotland", "en-029")
ENGLISH_FRACTION = 0.25
TERMS = "Synthetic speech; no terms: {} is free software and claims nothing in what it says"


def test_texts(test_minutes: float) -> list[str]:
    """The sentences of the test voices, said by no other voice of either program."""
    return sentences.english(max(2, round(test_minutes * 17)), np.random.default_rng(TEST_SEED))


def flite_speech_of(minutes: float, test_minutes: float, seed: int) -> Iterator[Utterance]:
    """Varied sentences of the training voices, then the same plain ones by each test voice."""
    texts = test_texts(test_minutes)
    yield from _until(minutes, _flite_training(set(texts), np.random.default_rng(seed)))
    for voice in flite.TEST_VOICES:
        for text in texts:
            yield replace(flite.say(voice, text), split="test")


def _flite_training(held_out: set[str], random: np.random.Generator) -> Iterator[Utterance]:
    voices, shares = zip(*flite.TRAINING_VOICES.items(), strict=True)
    while True:
        for text in sentences.english(100, random):
            voice = str(random.choice(voices, p=shares))
            if text not in held_out:
                said = flite.say_varied(voice, text, random)
                yield replace(said, split=_split(random))


def espeak_speech_of(minutes: float, test_minutes: float, seed: int) -> Iterator[Utterance]:
    """Sentences of all languages in turn, each by another voice and in another manner."""
    texts = set(test_texts(test_minutes))
    yield from _until(minutes, _espeak_training(texts, np.random.default_rng(seed)))


def _espeak_training(held_out: set[str], random: np.random.Generator) -> Iterator[Utterance]:
    engine = espeak.Espeak()
    languages = list(sentences.LANGUAGES)
    for turn in count():
        if random.random() < ENGLISH_FRACTION:
            language = str(random.choice(ENGLISH))
            text = sentences.english(1, random)[0]
        else:
            language = languages[turn % len(languages)]
            text = sentences.foreign(language, random)
        if text in held_out:
            continue
        voice = f"{language}+{random.choice(espeak.VARIANTS)}"
        rate, pitch, reach = random.integers([125, 20, 20], [240, 81, 81])
        manner = espeak.Manner(int(rate), int(pitch), int(reach))
        before, after = random.uniform(0.1, 0.5, 2)
        said = espeak.say(engine, voice, text, manner, (float(before), float(after)))
        yield replace(said, speaker=f"espeak {voice}", split=_split(random))


def _split(random: np.random.Generator) -> str:
    return "validation" if random.random() < VALIDATION_FRACTION else "train"


def _until(minutes: float, utterances: Iterable[Utterance]) -> Iterator[Utterance]:
    """Utterances until they last so long, with progress on stderr."""
    done = 0.0
    for number, utterance in enumerate(utterances):
        yield utterance
        done += len(utterance.waveform) / SAMPLE_RATE / 60.0
        if number % 100 == 0:
            print_line(f"{done:.1f} of {minutes:g} minutes", sys.stderr)
        if done >= minutes:
            return


def source_of(
    name: str, program: str, given: argparse.Namespace, speech: Callable[..., Iterator[Utterance]]
) -> Source:
    """That program's speech, as a shard of the corpus."""
    manner = (given.minutes, given.test_minutes, given.seed)

    def read() -> ShardContents:
        utterances = list(speech(*manner))
        return ShardContents(utterances, len(utterances))

    return Source(
        name=name,
        title=f"synthetic speech by {program}",
        licence="none needed",
        attribution=TERMS.format(program),
        shippable=True,
        inputs={"minutes, of tests, seed": manner, "files": file_inputs(HERE.glob("*.*"), HERE)},
        read=read,
    )


# -------------------------------------------------------------------------------- the check


def boundary_errors(given: Iterable[Phone], heard: Iterable[Phone]) -> list[float]:
    """By how many seconds each phone heard begins after the given one, where both agree."""
    mine, other = ([p for p in phones if p.label != SILENCE] for phones in (given, heard))
    matcher = SequenceMatcher(None, [p.label for p in mine], [p.label for p in other], False)
    return [
        other[match.b + i].start_s - mine[match.a + i].start_s
        for match in matcher.get_matching_blocks()
        for i in range(match.size)
    ]


def check(n: int = 15) -> None:
    """Prints how far the times are from those of pocketsphinx's forced alignment."""
    texts = [t for t in sentences.english(2 * n, np.random.default_rng(5)) if not _has_digit(t)]
    engine = espeak.Espeak()
    voices = [*flite.TRAINING_VOICES, *flite.TEST_VOICES]
    voices += ["en-us", "en-us+f3", "en-us+klatt4"]
    for voice in voices:
        errors: list[float] = []
        n_refused = 0
        for text in texts[:n]:
            if voice.startswith("en"):
                said = espeak.say(engine, voice, text, espeak.Manner(), (0.2, 0.2))
            else:
                said = flite.say(voice, text)
            try:
                errors += boundary_errors(said.phones, align_phones(said.waveform, text))
            except TalkheadError:  # it takes the voice for none that says this
                n_refused += 1
        values = 1000.0 * np.array(errors)
        print_line(
            f"{voice}: {len(values)} boundaries, pocketsphinx later by {np.median(values):.1f} ms "
            f"(median), apart by {np.abs(values).mean():.1f} ms (mean); {n_refused} texts refused"
        )


def _has_digit(text: str) -> bool:
    return any(letter.isdigit() for letter in text)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=80.0, help="of training speech, each")
    parser.add_argument("--test-minutes", type=float, default=8.0, help="of each test voice")
    parser.add_argument("--only", choices=("flite", "espeak"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    if given.check:
        check()
        return
    if given.folder is None:
        parser.error("say where the shards go")
    progress = make_progress("bars")
    if given.only != "espeak":
        build_shard(given.folder, source_of("flite", "flite", given, flite_speech_of), progress)
    if given.only != "flite":
        build_shard(
            given.folder, source_of("espeak", "espeak-ng", given, espeak_speech_of), progress
        )


if __name__ == "__main__":
    main()
