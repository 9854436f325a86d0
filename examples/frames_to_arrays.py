"""Use frames as arrays, to show or process them without writing a video.

The frames are not marked as synthetic: label them wherever they are shown.

    python examples/frames_to_arrays.py [--identity NAME] [--audio FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from talkhead import speak_frames

LINE = Path(__file__).parents[1] / "samples" / "line.wav"


def main(arguments: Sequence[str] | None = None) -> tuple[int, tuple[int, ...]]:
    """Measure how much the picture changes from frame to frame.

    Args:
        arguments: Command-line arguments. None: those of this process.

    Returns:
        Number of frames, and their shape [H, W, 3].
    """
    parser = argparse.ArgumentParser(description="Use frames as arrays.")
    parser.add_argument("--identity", help="name of an identity (default: the one fitted last)")
    parser.add_argument("--audio", default=str(LINE), help="audio to speak")
    given = parser.parse_args(arguments)

    changes, previous = [], None
    # Frames are rendered one by one, as they are requested: memory does not grow with the audio.
    for frame in speak_frames(given.audio, identity=given.identity):
        if previous is not None:
            changes.append(np.abs(frame.astype(np.int16) - previous).mean())
        previous = frame
    assert previous is not None
    n_frames = len(changes) + 1
    height, width, _ = previous.shape
    change = np.mean(changes) if changes else 0.0
    print(f"{n_frames} frames of {width}x{height}, mean change {change:.2f} of 255")
    return n_frames, previous.shape


if __name__ == "__main__":
    main()
