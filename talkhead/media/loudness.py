"""Loudness and true peak of audio files, after ITU-R BS.1770, and audio files with a limited peak."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import ffmpeg

from talkhead.errors import MediaError
from talkhead.media.inputs import fed_sound, file_url, media_input
from talkhead.media.mux import run_to_end, sound_source, write_failure
from talkhead.media.process import Feeder, Process, report, summarize_errors
from talkhead.media.reader import mix_channels
from talkhead.storage import atomic_path
from talkhead.types import Float32

SILENT_LUFS = -70.0
"""Absolute gate of BS.1770: sound below it has no loudness."""
_BLOCK_S = 0.4  # length that BS.1770 averages
_RESOLUTION_DB = 0.05  # half a digit of ffmpeg's figures
_SUFFIX_FORMATS = {".flac": "flac", ".wav": "wav"}


@dataclass(frozen=True)
class ProgramLoudness:
    """Loudness of a whole file.

    Attributes:
        integrated_lufs: Integrated loudness, LUFS; -inf for silence.
        true_peak_db: Largest true peak, dB of full scale; -inf for digital silence.
    """

    integrated_lufs: float
    true_peak_db: float

    def amplified(self, gain_db: float) -> ProgramLoudness:
        """Return the loudness after a change of level.

        Args:
            gain_db: The change, dB.

        Returns:
            The loudness.
        """
        return ProgramLoudness(self.integrated_lufs + gain_db, self.true_peak_db + gain_db)


def measure_program(path: Path, n_channels: int | None = None) -> ProgramLoudness:
    """Measure a file with ffmpeg's ebur128, to 0.1 dB.

    A sound shorter than 0.4 s, for which BS.1770 defines no loudness, is measured as if it were repeated.

    Args:
        path: The file.
        n_channels: Measure it as `read_audio_chunks` returns it, 1 for mono and 2 for stereo. None: as
            it is.

    Returns:
        Its loudness.

    Raises:
        MediaError: The file cannot be read or has no audio.
    """
    info = sound_source(path)
    repeats = math.ceil(_BLOCK_S / max(info.duration_s, 0.01))  # one more than needed
    options = {"stream_loop": repeats} if info.duration_s <= _BLOCK_S else {}
    sound = media_input(path, **options)["a:0"]
    if n_channels is not None:
        sound = mix_channels(sound, info, n_channels, info.audio_rate)
    graph = sound.filter("ebur128", peak="true", framelog="quiet").output("pipe:", f="null")
    text = report(*ffmpeg.get_args(graph), beyond_s=info.duration_s)
    integrated = re.search(r"^    I: +(-?[\d.]+|-inf) LUFS", text, re.MULTILINE)
    peak = re.search(r"^    Peak: +(-?[\d.]+|-inf) dBFS", text, re.MULTILINE)
    if integrated is None or peak is None:
        raise MediaError(
            f"{path}: its loudness can't be measured. ffmpeg says: "
            f"{summarize_errors(text.splitlines())}"
        )
    lufs = float(integrated[1])
    return ProgramLoudness(lufs if lufs > SILENT_LUFS else -math.inf, float(peak[1]))


def write_audio(
    path: Path, blocks: Iterable[Float32], sample_rate: int, n_channels: int, max_peak_db: float
) -> ProgramLoudness:
    """Write audio as 24-bit samples, softer as a whole if its true peak is too high.

    One gain for the whole file changes neither its dynamics nor its waveform. Memory does not grow with
    the length: the audio is stored next to the file until its peak is known, 23 MB per minute of stereo.

    Args:
        path: The file, .flac or .wav.
        blocks: Consecutive samples, [n] or [n, n_channels] each; they may be beyond [-1, 1].
        sample_rate: Hz.
        n_channels: Number of channels.
        max_peak_db: Highest true peak, dB of full scale.

    Returns:
        Loudness of the file.

    Raises:
        MediaError: The suffix is unknown, or ffmpeg fails.
        TalkheadError: The file cannot be written.
    """
    if path.suffix.lower() not in _SUFFIX_FORMATS:
        raise MediaError(f"{path}: unsupported file extension. End the name with .flac or .wav")
    with atomic_path(path) as part:
        whole = part.with_suffix(".w64")
        try:
            _write_float(whole, blocks, sample_rate, n_channels)
            measured = measure_program(whole)
            gain_db = min(0.0, max_peak_db - _RESOLUTION_DB - measured.true_peak_db)
            _write_amplified(whole, part, gain_db)
        finally:
            whole.unlink(missing_ok=True)
    return measured.amplified(gain_db)


def _write_float(path: Path, blocks: Iterable[Float32], sample_rate: int, n_channels: int) -> None:
    """Write float32 samples to a .w64 file, whose size is not limited."""
    graph = fed_sound(sample_rate, n_channels).output(
        file_url(path), f="w64", **{"c:a": "pcm_f32le"}
    )
    process = Process(graph, fed=True)
    feeder = Feeder(process.stdin)
    try:
        for block in blocks:
            if not feeder.put(block.astype("<f4", copy=False).tobytes()):
                raise write_failure(path, process)
        if not feeder.finish() or process.wait():
            raise write_failure(path, process)
    finally:
        process.stop()
        feeder.abandon()


def _write_amplified(source: Path, target: Path, gain_db: float) -> None:
    sound = media_input(source)["a:0"].filter(
        "volume", volume=f"{gain_db:.4f}dB", precision="double"
    )
    is_flac = target.suffix.lower() == ".flac"
    coding = {"c:a": "flac", "sample_fmt": "s32"} if is_flac else {"c:a": "pcm_s24le"}
    container = _SUFFIX_FORMATS[target.suffix.lower()]
    run_to_end(sound.output(file_url(target), f=container, **coding), target)
