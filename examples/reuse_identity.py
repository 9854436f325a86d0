"""Load an identity once and speak many lines with it.

Loading takes seconds; `speak` with a loaded identity starts to render at once.

    python examples/reuse_identity.py [--identity NAME] [--folder FOLDER] [AUDIO ...]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from talkhead import SpeakResult, load_identity, speak

LINE = Path(__file__).parents[1] / "samples" / "line.wav"


def main(arguments: Sequence[str] | None = None) -> list[SpeakResult]:
    """Speak each audio file and write a video of the same name.

    Args:
        arguments: Command-line arguments. None: those of this process.

    Returns:
        The results of `speak`.
    """
    parser = argparse.ArgumentParser(description="Load an identity once for many lines.")
    parser.add_argument("audio", nargs="*", type=Path, help="audio files (default: the sample's)")
    parser.add_argument("--identity", help="name of an identity (default: the one fitted last)")
    parser.add_argument("--folder", type=Path, default=Path(), help="folder for the videos")
    given = parser.parse_args(arguments)

    person = load_identity(given.identity)
    results = []
    for audio in given.audio or [LINE]:
        start = time.perf_counter()
        output = given.folder / f"{audio.stem}.mp4"
        result = speak(audio, identity=person, output=output, height=360)
        seconds = time.perf_counter() - start
        print(f"{result.output_path}: {result.duration_s:.1f} s of video in {seconds:.1f} s")
        results.append(result)
    return results


if __name__ == "__main__":
    main()
