"""Analyze the audio of a clip: silence, and phones from a transcript or from the audio alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from talkhead.app.evaluation.measures.sync_model import MAX_LAG
from talkhead.app.evaluation.variant import AudioContext
from talkhead.encoder.base import normalize_level
from talkhead.encoder.forced_alignment import align_phones, decode_phones, phones_unavailable_reason
from talkhead.encoder.pase.decode import decode_posteriors
from talkhead.encoder.pase.encoder import PaseEncoder
from talkhead.encoder.phones import Phone
from talkhead.encoder.vad import silent_video_frames
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32

BY_PASE = "They are recognized by PASE, the encoder that also drives the lips"


@dataclass(frozen=True)
class AudioAnalysis:
    """Analysis of a stretch of audio.

    Attributes:
        audio: Silence and phones; None without speech.
        left_out: Why something is missing or comes from another source, one line each.
    """

    audio: AudioContext | None
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
    """Find silence and phones in the audio of a video.

    Args:
        waveform: Samples [n_samples], 16 kHz, beginning at the first frame.
        n_frames: Number of frames to analyze.
        text: Transcript of all of it; None if unknown.
        language: Language of the speech: "en" or another code.
        silent: Mask [n_frames] of the frames without speech, if it is known already.
        phones: False to omit phones, which is faster.
        name: Name of the recording in the lines about what is left out.

    Returns:
        The analysis.

    Raises:
        TalkheadError: The text does not match the audio.
    """
    prefix = f"{name}: " if name else ""
    part = waveform[: n_frames * SAMPLE_RATE // FRAME_RATE]
    if silent is None:
        silent = silent_video_frames(part, n_frames)
    if len(part) == 0 or silent.all():
        return AudioAnalysis(None, (f"{prefix}phonemes and sync: no speech was detected",))
    if not phones:
        return AudioAnalysis(AudioContext(part, silent, None))
    problem = phones_unavailable_reason()
    if not problem and language != "en":
        problem = f"pocketsphinx supports English only, and the speech is in {language!r}"
    if problem:
        found = phones_of_pase(part, silent)
        return AudioAnalysis(
            AudioContext(part, silent, found), (f"{prefix}phonemes: {problem}. {BY_PASE}",)
        )
    found = decode_phones(part) if text is None else align_phones(part, text)
    return AudioAnalysis(AudioContext(part, silent, found))


def phones_of_pase(waveform: Float32, silent: Bool) -> list[Phone]:
    """Recognize phones with PASE.

    Args:
        waveform: Samples [n_samples], 16 kHz.
        silent: Mask [F] of the frames without speech.

    Returns:
        Phones with times in seconds from the first sample.
    """
    return decode_posteriors(PaseEncoder.gru().phone_posteriors(normalize_level(waveform, silent)))


def excerpt(audio: AudioContext, first: int, n_frames: int) -> AudioContext:
    """Cut a part of the audio, with the context that the sync model needs.

    Args:
        audio: The audio.
        first: Index of the part's first frame.
        n_frames: Number of its frames.

    Returns:
        The part, with phones timed from its first frame.

    Raises:
        ValueError: The part begins before the audio or ends after it.
    """
    if first < 0 or first + n_frames > len(audio.silent):
        raise ValueError(f"frames {first} to {first + n_frames} of {len(audio.silent)}")
    lead = min(first, MAX_LAG)
    start, end = (n * SAMPLE_RATE // FRAME_RATE for n in (first - lead, first + n_frames + MAX_LAG))
    moved = None
    if audio.phones is not None:
        moved = _phones_within(audio.phones, first / FRAME_RATE, n_frames / FRAME_RATE)
    silent = audio.silent[first : first + n_frames]
    return AudioContext(audio.waveform[start:end], silent, moved, lead)


def _phones_within(phones: list[Phone], start_s: float, duration_s: float) -> list[Phone]:
    """Select the phones that are entirely within a stretch, with times from its start."""
    return [
        replace(phone, start_s=phone.start_s - start_s, end_s=phone.end_s - start_s)
        for phone in phones
        if phone.start_s >= start_s and phone.end_s <= start_s + duration_s
    ]
