"""The sound of a dubbed video: lines at their places, over the original sound or a given bed.

All levels are constant gains, except that the bed is softer while someone speaks. The speech in the
original sound is not removed: it remains audible under the new lines, 12 dB softer. Only a bed without
speech, such as a track of music and effects, avoids this.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import repeat
from math import inf, log10
from pathlib import Path

import numpy as np

from talkhead.app.dubbing.timeline import Placement, Timeline
from talkhead.config import bounded
from talkhead.errors import MediaError
from talkhead.media import audio_duration, probe, read_audio, read_audio_chunks
from talkhead.media.loudness import ProgramLoudness, measure_program, write_audio
from talkhead.types import Float32, Float64

SOUND_RATE = 48_000
"""Sample rate of the sound, Hz; all codecs of outputs support it."""
SPEECH_LUFS = -23.0
"""Loudness of speech, unless that of the original sound is known: the level of EBU R 128."""
MAX_TRUE_PEAK_DB = -1.0
FADE_S = 0.005
"""Length of the fades where audio is cut, seconds."""
ORIGINAL_DUCK_DB, BED_DUCK_DB = 12.0, 4.0
"""How much softer the original sound and a bed without speech are under lines, dB."""
_BLOCK_S = 5.0  # written at once, to bound the memory


@dataclass(frozen=True)
class SoundMix:
    """What is heard besides the lines, and at which levels.

    Attributes:
        bed: File with the sound under the lines, which begins with the video; None for silence.
        duck_db: How much softer the bed is while a line is spoken, dB.
        attack_s: How long before a line the bed begins to become softer, seconds. It is softest when the
            line begins.
        release_s: How long after a line the bed returns to its level, seconds.
        speech_lufs: Integrated loudness of each line.
    """

    bed: Path | None = None
    duck_db: float = bounded(0.0, 0.0, 100.0)
    attack_s: float = bounded(0.08, 0.0, 10.0)
    release_s: float = bounded(0.4, 0.0, 10.0)
    speech_lufs: float = bounded(SPEECH_LUFS, -60.0, -5.0)


def mix_over_original(video: Path) -> SoundMix:
    """Mix lines with the sound of the video, and speak them as loudly as what they replace.

    Args:
        video: The video, with or without sound.

    Returns:
        The mix.

    Raises:
        MediaError: The video cannot be read.
    """
    if not probe(video).has_audio:
        return SoundMix()
    lufs = _bed_loudness(video)
    return SoundMix(video, ORIGINAL_DUCK_DB, speech_lufs=SPEECH_LUFS if lufs == -inf else lufs)


def mix_over_bed(bed: Path) -> SoundMix:
    """Mix lines with a bed without speech, and speak them no softer than the bed.

    Args:
        bed: The file.

    Returns:
        The mix.

    Raises:
        MediaError: The file cannot be read, or has no audio.
    """
    return SoundMix(bed, BED_DUCK_DB, speech_lufs=max(SPEECH_LUFS, _bed_loudness(bed)))


def _bed_loudness(path: Path) -> float:
    return measure_program(path, _n_channels(path)).integrated_lufs


def _n_channels(bed: Path | None) -> int:
    """Return the number of channels of the sound: two if the bed has more than one."""
    return 2 if bed is not None and probe(bed).audio_channels > 1 else 1


def speech_duration(audio: Path) -> float:
    """Measure the speech of a line to the sample.

    Args:
        audio: The file.

    Returns:
        Seconds.

    Raises:
        MediaError: The file cannot be read, or is silent.
    """
    _speech_loudness(audio)
    return audio_duration(audio, SOUND_RATE)


def _speech_loudness(audio: Path) -> float:
    lufs = measure_program(audio, 1).integrated_lufs
    if lufs == -inf:
        raise MediaError(f"{audio}: is silent. Pass a recording of the line")
    return lufs


def write_soundtrack(path: Path, timeline: Timeline, mix: SoundMix) -> ProgramLoudness:
    """Write the sound of a dubbed video, exactly as long as the video.

    If its true peak would be above -1 dBTP, all of it is softer. Memory does not grow with the length.
    Equal inputs give equal samples.

    Args:
        path: The file, .flac or .wav: 24 bits at SOUND_RATE, stereo if the bed has several channels.
        timeline: The lines, all with audio and a place.
        mix: Bed and levels.

    Returns:
        Loudness of the file.

    Raises:
        TalkheadError: A line has no place, a file cannot be read or is silent, or the sound cannot be
            written.
    """
    timeline.check()
    n_channels = _n_channels(mix.bed)
    with closing(_blocks(timeline, mix, n_channels)) as blocks:
        return write_audio(path, blocks, SOUND_RATE, n_channels, MAX_TRUE_PEAK_DB)


def _blocks(timeline: Timeline, mix: SoundMix, n_channels: int) -> Generator[Float32, None, None]:
    """Yield the sound in blocks [n, n_channels]."""
    n_samples, size = sample(timeline.length_s), sample(_BLOCK_S)
    waiting = sorted(timeline.placements, key=lambda one: one.start_s, reverse=True)
    spoken: list[tuple[int, Float32]] = []  # first sample and samples of lines that are not over
    with closing(_bed_blocks(mix.bed, n_channels, n_samples)) as bed:
        for first, under in zip(range(0, n_samples, size), bed, strict=False):
            after = min(first + size, n_samples)
            gains = ducking(timeline.placements, mix, first, after)
            block = under[: after - first] * gains[:, None]
            while waiting and sample(waiting[-1].start_s) < after:
                placement = waiting.pop()
                level = mix.speech_lufs - 10.0 * log10(n_channels)
                spoken.append((sample(placement.start_s), _speech(placement, level)))
            for start, samples in spoken:
                _add(block, samples, start - first)
            spoken = [one for one in spoken if one[0] + len(one[1]) > after]
            yield block


def sample(time_s: float) -> int:
    """Return the sample at a time.

    Args:
        time_s: Seconds.

    Returns:
        Index at SOUND_RATE.
    """
    return round(time_s * SOUND_RATE)


def _add(block: Float32, samples: Float32, at: int) -> None:
    """Add samples [n] to all channels of a block [m, C], from an index on that may be outside of it."""
    part = samples[max(0, -at) : max(0, len(block) - at)]
    block[max(0, at) : max(0, at) + len(part)] += part[:, None]


def _speech(placement: Placement, level: float) -> Float32:
    """Return the samples of a line, [n] for the n samples of its placement, at a loudness in LUFS."""
    audio = placement.line.audio
    if audio is None:
        raise ValueError(f"line {placement.line.number} has no audio")
    gain = 10.0 ** ((level - _speech_loudness(audio)) / 20.0)
    read = read_audio(audio, SOUND_RATE, tempo=placement.speed)
    # With another tempo, audio is up to 20 ms longer than planned: its last milliseconds are cut.
    samples = np.zeros(sample(placement.end_s) - sample(placement.start_s), np.float32)
    n_read = min(len(read), len(samples))
    samples[:n_read] = read[:n_read] * np.float32(gain)
    _fade(samples[:n_read][::-1])
    _fade(samples)
    return samples


def _fade(samples: Float32) -> None:
    """Fade in the beginning of samples [n] or [n, C], in place."""
    n_faded = min(sample(FADE_S), len(samples))
    ramp = np.sin(np.linspace(0.0, np.pi / 2, n_faded, endpoint=False)) ** 2
    samples[:n_faded] = (samples[:n_faded].T * ramp.astype(np.float32)).T


def _bed_blocks(
    bed: Path | None, n_channels: int, n_samples: int
) -> Generator[Float32, None, None]:
    """Yield the bed, then silence, in blocks [n, n_channels] of _BLOCK_S.

    It fades out where it ends, or where the video does, after which blocks are not to be used.
    """
    size = sample(_BLOCK_S)
    if bed is not None:
        chunks = read_audio_chunks(bed, SOUND_RATE, _BLOCK_S, stereo=n_channels == 2)
        with closing(chunks):
            chunk, left = next(chunks, None), n_samples
            while chunk is not None:
                following = next(chunks, None)
                block = np.zeros((size, n_channels), np.float32)
                if following is None or left <= size:
                    _fade(chunk[:left][::-1])
                block[: len(chunk)] = chunk.reshape(len(chunk), n_channels)
                yield block
                chunk, left = following, left - size
    yield from repeat(np.zeros((size, n_channels), np.float32))


def ducking(placements: Sequence[Placement], mix: SoundMix, first: int, after: int) -> Float32:
    """Compute the gain of the bed: lowest while a line is spoken, with ramps that are linear in dB.

    Args:
        placements: The lines.
        mix: Depth and ramps.
        first: First sample.
        after: Sample after the last one.

    Returns:
        Gains [after - first] in [0, 1].
    """
    times = np.arange(first, after) / SOUND_RATE
    attack_s, release_s = (max(one, 1 / SOUND_RATE) for one in (mix.attack_s, mix.release_s))
    depth: Float64 = np.zeros(len(times))
    for one in placements:
        begin_s, end_s = one.start_s - attack_s, one.end_s + release_s
        if begin_s < times[-1] and end_s > times[0]:
            ramps = np.minimum((times - begin_s) / attack_s, (end_s - times) / release_s)
            np.maximum(depth, np.clip(ramps, 0.0, 1.0), out=depth)
    gains: Float32 = (10.0 ** (-mix.duck_db / 20.0 * depth)).astype(np.float32)
    return gains
