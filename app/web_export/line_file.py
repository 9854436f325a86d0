"""Lines of a web export: sound, and the motion of the mouth in 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from talkhead.app.avatar import Avatar, predict_motion
from talkhead.app.web_export.request import WebLine
from talkhead.media import mux, probe
from talkhead.storage import make_folder, write_bytes
from talkhead.types import FRAME_RATE, Float32, Int8

FOLDER = "lines"
MAX_LEVEL = 127


@dataclass(frozen=True)
class LineFiles:
    """Files of a line, as the manifest describes them.

    Attributes:
        name: Name of the line.
        sound: FLAC file: all browsers decode it without delay, to the same samples.
        codes: File with the motion codes of the mouth, [n_frames, K] int8.
        n_frames: Number of frames, 25 per second.
        duration_s: Length of the sound, seconds.
        sample_rate: Samples per second of the sound.
        n_samples: Number of samples of each channel.
        scale: Factor of each of the K codes.
    """

    name: str
    sound: str
    codes: str
    n_frames: int
    duration_s: float
    sample_rate: int
    n_samples: int
    scale: tuple[float, ...]


def write_line(line: WebLine, avatar: Avatar, folder: Path) -> LineFiles:
    """Write the sound and the motion codes of a line.

    Args:
        line: The line.
        avatar: The person.
        folder: Folder of the export.

    Returns:
        The files, relative to the folder.

    Raises:
        MediaError: The audio cannot be read.
    """
    codes = predict_motion(line.audio, avatar.encoder, avatar.predictor)
    levels, scale = quantize(codes[:, : avatar.idle.face.n_mouth].astype(np.float32))
    make_folder(folder / FOLDER)
    sound, moving = f"{FOLDER}/{line.name}.flac", f"{FOLDER}/{line.name}.codes"
    n_frames, duration_s = len(levels), len(levels) / FRAME_RATE
    mux.write_sound(folder / sound, mux.sound_source(line.audio), duration_s, None)
    write_bytes(folder / moving, levels.tobytes())
    rate = probe(folder / sound).audio_rate
    n_samples, factors = round(duration_s * rate), tuple(scale.tolist())
    return LineFiles(line.name, sound, moving, n_frames, duration_s, rate, n_samples, factors)


def quantize(codes: Float32) -> tuple[Int8, Float32]:
    """Quantize motion codes to 8 bits, each code with a factor of its own.

    Args:
        codes: Motion codes [F, K].

    Returns:
        Levels [F, K] from -127 to 127, and factors [K]; their product is within half a factor of the
        codes.
    """
    scale = np.maximum(np.abs(codes).max(0), np.float32(1e-6)) / np.float32(MAX_LEVEL)
    levels = np.clip(np.rint(codes / scale), -MAX_LEVEL, MAX_LEVEL)
    return levels.astype(np.int8), scale.astype(np.float32)
