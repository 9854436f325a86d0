"""Other voices: recordings of other people that come with talkhead, as features of an encoder.

A person's predictor is driven by other voices more often than by the person's own. These recordings
are used to measure how far they move the lips (`talkhead.encoder.predictor.lip_range`). The file is
made by `python -m talkhead.app.training.voice_pool`; weights/manifest.json lists the speakers' corpora.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from talkhead.audio import is_silence
from talkhead.encoder.base import SpeechEncoder, normalize_level
from talkhead.media import read_audio
from talkhead.storage import sha256_of
from talkhead.types import Bool, Float32, SpeechFeatures
from talkhead.weights import resolve

VOICES = "voices.ogg"
"""Name of the shipped file: about 100 s of speech of 14 people, at the level of encoders."""
MAX_KEPT = 4
"""Number of encoders whose features are kept."""


@dataclass(frozen=True)
class OtherVoices:
    """Speech of other people.

    Attributes:
        features: Features of the audio.
        silent: Video frames without speech, [F].
    """

    features: SpeechFeatures
    silent: Bool


_KEPT: dict[tuple[str, str], OtherVoices] = {}
"""The voices by name and version of the encoder."""


def other_voices(encoder: SpeechEncoder) -> OtherVoices:
    """Encode the shipped voices, once per process for each encoder.

    Args:
        encoder: The encoder.

    Returns:
        The voices.

    Raises:
        PackageError: If the file is missing or damaged.
    """
    key = (encoder.name, encoder.version)
    if key not in _KEPT:
        waveform, silent = _read()
        while len(_KEPT) >= MAX_KEPT:
            del _KEPT[next(iter(_KEPT))]
        _KEPT[key] = OtherVoices(encoder.encode(waveform), silent)
    return _KEPT[key]


def voices_version() -> str:
    """Identify the shipped voices: other voices give a different lip range.

    Returns:
        The first digits of the file's SHA-256.

    Raises:
        PackageError: If the file is missing or damaged.
    """
    return sha256_of(resolve(VOICES))[:8]


@lru_cache(maxsize=1)
def _read() -> tuple[Float32, Bool]:
    """Read the voices' waveform [n_samples], at SPEECH_LEVEL_DB, and its frames [F] without speech."""
    waveform = read_audio(resolve(VOICES))
    silent = is_silence(waveform)
    return normalize_level(waveform, silent), silent
