"""Speak audio from an array, such as the output of a text-to-speech model.

python examples/speak_from_array.py [--identity NAME] [--output FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.io import wavfile

from talkhead import SpeakResult, speak

LINE = Path(__file__).parents[1] / "samples" / "line.wav"


def main(arguments: Sequence[str] | None = None) -> SpeakResult:
    """Speak the sample line with half a second of silence before it.

    Args:
        arguments: Command-line arguments. None: those of this process.

    Returns:
        The result of `speak`.
    """
    parser = argparse.ArgumentParser(description="Speak audio from an array.")
    parser.add_argument("--identity", help="name of an identity (default: the one fitted last)")
    parser.add_argument("--output", default="from_array.mp4", help="video to write")
    given = parser.parse_args(arguments)

    rate, waveform = wavfile.read(LINE)  # int16, [n_samples]
    waveform = np.concatenate([np.zeros(rate // 2, waveform.dtype), waveform])
    result = speak((waveform, rate), identity=given.identity, output=given.output)
    print(f"{result.output_path}: {result.n_frames} frames, {result.duration_s:.2f} s")
    return result


if __name__ == "__main__":
    main()
