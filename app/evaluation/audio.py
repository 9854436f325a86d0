"""What is heard of a clip: silence, and phones from its text or from the sound alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from talkhead.app.evaluation.measures.sync_model import MAX_LAG
from talkhead.app.evaluation.variant import AudioContext
from talkhead.encoder.base import normalize_level
from talkhead.encoder.forced_alignment import align_phones, decode_phones, phones_unavailable_reason
from talkhead.encoder.pase.decode import decode_posteriors
from talkhead.encoder.pase.encoder import PaseEncoder
from talkhead.encoder.phones import Phone
from talkhead.encoder.vad import silence_of_video
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32

BY_PASE = "They are those that PASE hears, the ears that also move the lips"


@dataclass(frozen=True)
class AudioAnalysis:
    """A stretch of sound as it was heard, and what could not be had of it.

    sound: None where nobody speaks. left_out: why something is missing or had otherwise, one line each.
    """

    sound: AudioContext | None
    left_out: tuple[str, ...] = ()


def analyze_audio(
    waveform: Float32,
    n_frames: int,
    *,
    text: str | None = None,
    language: str = "en",
    silent: Bool | None = None,
    phones: bool = True,
    name: str = "",
) -> AudioAnalysis:
    """What is heard in n_frames of video from the waveform's [n] beginning on, 16 kHz.

    text: what is said, all of it; None when it isn't known. language: of the speech, "en" or another.
    silent: [n_frames], where that is known already. phones: False leaves them out, which is faster.
    name: of what is heard, for what is left out. Raises TalkheadError for a text that isn't said.
    """
    prefix = f"{name}: " if name else ""
    part = waveform[: n_frames * SAMPLE_RATE // FRAME_RATE]
    if silent is None:
        silent = silence_of_video(part, n_frames)
    if len(part) == 0 or silent.all():
        return AudioAnalysis(None, (f"{prefix}phonemes and sync: no speech is heard",))
    if not phones:
        return AudioAnalysis(AudioContext(part, silent, None))
    problem = phones_unavailable_reason()
    if not problem and language != "en":
        problem = f"pocketsphinx knows English only, and the speech is in {language!r}"
    if problem:
        found = phones_of_pase(part, silent)
        return AudioAnalysis(
            AudioContext(part, silent, found), (f"{prefix}phonemes: {problem}. {BY_PASE}",)
        )
    found = decode_phones(part) if text is None else align_phones(part, text)
    return AudioAnalysis(AudioContext(part, silent, found))


def phones_of_pase(waveform: Float32, silent: Bool) -> list[Phone]:
    """The phones that PASE hears in a waveform [n] at 16 kHz; silent: [F] frames without speech."""
    return decode_posteriors(
        PaseEncoder.shipped().phone_posteriors(normalize_level(waveform, silent))
    )


def excerpt(sound: AudioContext, first: int, n_frames: int) -> AudioContext:
    """A part of what is heard, n_frames from frame `first` on, with what the judge needs around it.

    Raises ValueError for a part that begins before the sound or ends after it.
    """
    if first < 0 or first + n_frames > len(sound.silent):
        raise ValueError(f"frames {first} to {first + n_frames} of {len(sound.silent)}")
    lead = min(first, MAX_LAG)
    start, end = (n * SAMPLE_RATE // FRAME_RATE for n in (first - lead, first + n_frames + MAX_LAG))
    moved = None
    if sound.phones is not None:
        moved = _phones_within(sound.phones, first / FRAME_RATE, n_frames / FRAME_RATE)
    silent = sound.silent[first : first + n_frames]
    return AudioContext(sound.waveform[start:end], silent, moved, lead)


def _phones_within(phones: list[Phone], start_s: float, duration_s: float) -> list[Phone]:
    """The phones that lie whole in a stretch, with times from its start."""
    return [
        replace(phone, start_s=phone.start_s - start_s, end_s=phone.end_s - start_s)
        for phone in phones
        if phone.start_s >= start_s and phone.end_s <= start_s + duration_s
    ]
