"""Sound that comes as an array, and what to say to arrays where a file is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkhead.errors import TalkheadError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Sound = Path | str | tuple[npt.NDArray[np.generic], int]
    """A file with sound, or a waveform [n] or [n, channels] with its samples a second: integers of 16
    bits, or floats in [-1, 1]."""

MIN_RATE, MAX_RATE = 4_000, 384_000
"""Samples a second of a waveform."""


def path_of(value: Any, name: str, remedy: str) -> Path:
    """A path or its text as a path. Raises TalkheadError for anything else: what a parameter of that
    name takes, and the remedy for an array."""
    if isinstance(value, str | Path):
        return Path(value)
    raise TalkheadError(f"{name}: give the path of a file, no {type(value).__name__}. {remedy}")


def sound_path(sound: Sound, folder: Path | None) -> Path:
    """The file of a sound, made in the folder where it is an array, which needs one. Raises
    TalkheadError for what is neither a path nor a waveform."""
    if not isinstance(sound, tuple):
        return path_of(sound, "audio", "A waveform goes with its rate: (waveform, sample_rate)")
    import numpy as np
    from scipy.io import wavfile

    if len(sound) != 2:
        raise TalkheadError("audio: give a pair (waveform, sample_rate), or the path of a file")
    waveform, rate = np.asarray(sound[0]), sound[1]
    if not isinstance(rate, int | np.integer) or not MIN_RATE <= rate <= MAX_RATE:
        raise TalkheadError(
            f"audio: a rate of {rate!r} samples a second is not possible. Give (waveform, "
            f"sample_rate) with {MIN_RATE} to {MAX_RATE}"
        )
    if waveform.ndim not in (1, 2) or waveform.size == 0 or waveform.shape[-1] == 0:
        raise TalkheadError(
            f"audio: a waveform of shape {waveform.shape} is none. Give [n_samples] or "
            "[n_samples, channels]"
        )
    if waveform.dtype != np.int16 and not np.issubdtype(waveform.dtype, np.floating):
        raise TalkheadError(
            f"audio: samples of type {waveform.dtype} are unclear. Give int16, or floats in [-1, 1]"
        )
    if waveform.dtype != np.int16:
        waveform = waveform.astype(np.float32)
    if not np.isfinite(waveform).all():
        raise TalkheadError(
            "audio: the waveform holds values that are no numbers. Give finite ones"
        )
    assert folder is not None
    path = folder / "sound.wav"
    wavfile.write(path, int(rate), waveform)
    return path
