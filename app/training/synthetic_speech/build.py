"""Build corpus shards of synthetic speech with phone times: flite, espeak, kokoro.safetensors.

Run as `python -m talkhead.app.training.synthetic_speech.build`:

    build FOLDER [--minutes 80] [--test-minutes 8] [--only flite] [--kokoro VOICES] [--seed 1]
    build --check    compare the times with pocketsphinx's, English only
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from difflib import SequenceMatcher
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from talkhead.app.cli.console import print_line
from talkhead.app.training.synthetic_speech import espeak, flite, kokoro, sentences
from talkhead.encoder.forced_alignment import align_phones
from talkhead.encoder.pase.corpus import Utterance
from talkhead.encoder.pase.corpus_store import ShardContents, Source, build_shard, file_inputs
from talkhead.encoder.phones import SILENCE, Phone
from talkhead.errors import TalkheadError
from talkhead.progress import make_progress
from talkhead.types import SAMPLE_RATE

HERE = Path(__file__).parent
VALIDATION_FRACTION = 0.04
"""Share of the training voices' utterances that are for validation."""
TEST_SEED = 77
"""Seed of the test sentences."""
ENGLISH = ("en-us", "en", "en-gb-scotland", "en-029")
KOKORO_SENTENCES = 0.5
"""Share of Kokoro's utterances that are sentences; the others are random words of the dictionary."""
ENGLISH_FRACTION = 0.25
"""Share of espeak-ng's utterances that are English."""
TERMS = "Synthetic speech; no terms: {} is free software and claims nothing in what it says"


def test_texts(test_minutes: float) -> list[str]:
    """Make the sentences of the test voices, which are not used for the training voices.

    Args:
        test_minutes: Minutes of each test voice.

    Returns:
        Sentences of about this duration.
    """
    return sentences.english(max(2, round(test_minutes * 17)), np.random.default_rng(TEST_SEED))


def flite_speech_of(minutes: float, test_minutes: float, seed: int) -> Iterator[Utterance]:
    """Synthesize flite's speech.

    The training voices speak varied sentences; then each test voice speaks the same sentences
    without variation.

    Args:
        minutes: Total minutes of the training voices.
        test_minutes: Minutes of each test voice.
        seed: Determines sentences and variation.

    Yields:
        Utterances.
    """
    texts = test_texts(test_minutes)
    yield from _until(minutes, _flite_training(set(texts), np.random.default_rng(seed)))
    for voice in flite.TEST_VOICES:
        for text in texts:
            yield replace(flite.say(voice, text), split="test")


def _flite_training(held_out: set[str], random: np.random.Generator) -> Iterator[Utterance]:
    """Yield utterances of the training voices without end."""
    voices, shares = zip(*flite.TRAINING_VOICES.items(), strict=True)
    while True:
        for text in sentences.english(100, random):
            voice = str(random.choice(voices, p=shares))
            if text not in held_out:
                utterance = flite.say_varied(voice, text, random)
                yield replace(utterance, split=_split(random))


def espeak_speech_of(minutes: float, test_minutes: float, seed: int) -> Iterator[Utterance]:
    """Synthesize espeak-ng's speech: sentences of all languages in turn, each by a different voice.

    Args:
        minutes: Total minutes.
        test_minutes: Minutes of the test sentences; these sentences are left out.
        seed: Determines sentences, voices and manners.

    Yields:
        Utterances.
    """
    texts = set(test_texts(test_minutes))
    yield from _until(minutes, _espeak_training(texts, np.random.default_rng(seed)))


def _espeak_training(held_out: set[str], random: np.random.Generator) -> Iterator[Utterance]:
    """Yield utterances of all languages without end."""
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
        utterance = espeak.say(engine, voice, text, manner, (float(before), float(after)))
        yield replace(utterance, speaker=f"espeak {voice}", split=_split(random))


def kokoro_speech_of(
    minutes: float, test_minutes: float, seed: int, voices: Path
) -> Iterator[Utterance]:
    """Synthesize Kokoro's speech: sentences and random words, each by a different voice.

    Args:
        minutes: Total minutes.
        test_minutes: Minutes of the test sentences; these sentences are left out.
        seed: Determines texts, voices and speeds.
        voices: Folder of Kokoro's voices.

    Yields:
        Utterances.
    """
    texts = set(test_texts(test_minutes))
    yield from _until(minutes, _kokoro_training(texts, np.random.default_rng(seed), voices))


def _kokoro_training(
    held_out: set[str], random: np.random.Generator, voices: Path
) -> Iterator[Utterance]:
    """Yield utterances of the training voices without end."""
    engine = kokoro.Kokoro(voices)
    words = engine.words
    for turn in count():
        voice = engine.training_voices[turn % len(engine.training_voices)]
        plain = random.random() < KOKORO_SENTENCES
        text = sentences.english(1, random)[0] if plain else sentences.random_words(words, random)
        if text not in held_out:
            utterance = engine.say(voice, text, float(random.uniform(0.85, 1.25)))
            yield replace(utterance, split=_split(random))


def _split(random: np.random.Generator) -> str:
    """Draw a split: training or validation."""
    return "validation" if random.random() < VALIDATION_FRACTION else "train"


def _until(minutes: float, utterances: Iterable[Utterance]) -> Iterator[Utterance]:
    """Yield utterances up to this total duration, and print progress on stderr."""
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
    """Describe the shard of a program's speech.

    Args:
        name: Name of the shard.
        program: Name of the program.
        given: Options: minutes, test_minutes, seed.
        speech: Synthesizes the utterances.

    Returns:
        The source.
    """
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


def boundary_errors(given: Iterable[Phone], found: Iterable[Phone]) -> list[float]:
    """Compare the starts of phones where two sequences agree.

    Args:
        given: Phones with times.
        found: Other phones of the same audio.

    Returns:
        Seconds by which each found phone begins after the given one.
    """
    mine, other = ([p for p in phones if p.label != SILENCE] for phones in (given, found))
    matcher = SequenceMatcher(None, [p.label for p in mine], [p.label for p in other], False)
    return [
        other[match.b + i].start_s - mine[match.a + i].start_s
        for match in matcher.get_matching_blocks()
        for i in range(match.size)
    ]


def check(n: int = 15) -> None:
    """Print how far the times are from those of pocketsphinx's forced alignment.

    Args:
        n: Sentences per voice.
    """
    texts = [t for t in sentences.english(2 * n, np.random.default_rng(5)) if not _has_digit(t)]
    engine = espeak.Espeak()
    voices = [*flite.TRAINING_VOICES, *flite.TEST_VOICES]
    voices += ["en-us", "en-us+f3", "en-us+klatt4"]
    for voice in voices:
        errors: list[float] = []
        n_refused = 0
        for text in texts[:n]:
            if voice.startswith("en"):
                spoken = espeak.say(engine, voice, text, espeak.Manner(), (0.2, 0.2))
            else:
                spoken = flite.say(voice, text)
            try:
                errors += boundary_errors(spoken.phones, align_phones(spoken.waveform, text))
            except TalkheadError:  # the aligner finds that the text does not fit this voice
                n_refused += 1
        values = 1000.0 * np.array(errors)
        print_line(
            f"{voice}: {len(values)} boundaries, pocketsphinx later by {np.median(values):.1f} ms "
            f"(median), difference {np.abs(values).mean():.1f} ms (mean); {n_refused} texts refused"
        )


def _has_digit(text: str) -> bool:
    return any(letter.isdigit() for letter in text)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=80.0, help="minutes of training speech")
    parser.add_argument(
        "--test-minutes", type=float, default=8.0, help="minutes of each test voice"
    )
    parser.add_argument("--only", choices=("flite", "espeak"))
    parser.add_argument(
        "--kokoro",
        type=Path,
        metavar="VOICES",
        help="use Kokoro instead, with the voices in this folder",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    if given.check:
        check()
        return
    if given.folder is None:
        parser.error("FOLDER is missing: the folder of the corpus")
    progress = make_progress("bars")
    if given.kokoro is not None:
        speech = partial(kokoro_speech_of, voices=given.kokoro)
        build_shard(given.folder, source_of("kokoro", "Kokoro-82M", given, speech), progress)
        return
    if given.only != "espeak":
        build_shard(given.folder, source_of("flite", "flite", given, flite_speech_of), progress)
    if given.only != "flite":
        build_shard(
            given.folder, source_of("espeak", "espeak-ng", given, espeak_speech_of), progress
        )


if __name__ == "__main__":
    main()
