"""Make the shipped file of other voices from corpora that may be redistributed.

    python -m talkhead.app.training.voice_pool SPEECHOCEAN762 GRID --output weights/voices.ogg

SPEECHOCEAN762: the folder with index.jsonl. Its adult speakers of the test split are used, women and
men in turn, each with their longest utterances. GRID: a folder of videos of single sentences whose
names begin with the speaker and "_". The same folders and the same ffmpeg give the same file. Prints
the entry for the manifest of the weights.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.io import wavfile

from talkhead.app.cli.console import print_json
from talkhead.audio import as_int16, is_silence
from talkhead.encoder.base import normalize_level
from talkhead.errors import TalkheadError
from talkhead.media import read_audio
from talkhead.media.inputs import file_url, media_input
from talkhead.media.process import Process
from talkhead.storage import decode_json, sha256_of
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32

INDEX = "index.jsonl"
N_SPEECHOCEAN, N_GRID = 8, 6
"""Number of speakers from each corpus."""
SPEAKER_S = 8.0
"""Seconds of speech per speaker of speechocean762."""
N_SENTENCES = 2
"""Sentences per speaker of GRID, 3 s each."""
ADULT = 18
"""Minimum age, years."""
PAUSE_S = 0.3
"""Silence between two voices, seconds."""
MARGIN_FRAMES = 5
"""Video frames of silence that are kept around the speech of a file."""
BITS_PER_S = 24_000
GRID_NAME = re.compile(r"(s\d+|v)_\w+\.mp4")
"""Videos of GRID whose speaker is known."""
CORPORA = {
    "speechocean762": "J. Zhang et al.: speechocean762, Interspeech 2021; Xiaomi and SpeechOcean, "
    "openslr.org/101",
    "GRID audiovisual sentence corpus": "M. Cooke, J. Barker, S. Cunningham, X. Shao: An "
    "audio-visual corpus for speech perception and automatic speech recognition, J. Acoust. Soc. "
    "Am. 120(5), 2421-2424, 2006",
}
"""Attribution of each corpus. The license of both is CC BY 4.0."""


def choose_speechocean(folder: Path) -> list[list[Path]]:
    """Choose utterances of speechocean762.

    Args:
        folder: The corpus.

    Returns:
        Audio files of each speaker.

    Raises:
        TalkheadError: It has too few adult speakers.
    """
    spoken: dict[str, dict[str, list[tuple[float, str]]]] = {"f": {}, "m": {}}
    for line in (folder / INDEX).read_text("utf-8").splitlines():
        row = decode_json(line.encode())
        if row["split"] == "test" and row["age"] >= ADULT:
            files = spoken[row["gender"]].setdefault(row["speaker"], [])
            files.append((float(row["seconds"]), row["file"]))
    women, men = (sorted(spoken[gender]) for gender in ("f", "m"))
    chosen = list(chain.from_iterable(zip(women, men, strict=False)))[:N_SPEECHOCEAN]
    if len(chosen) < N_SPEECHOCEAN:
        raise TalkheadError(f"{folder}: has fewer than {N_SPEECHOCEAN} adult speakers")
    everyone = spoken["f"] | spoken["m"]
    return [[folder / name for name in _longest(everyone[speaker])] for speaker in chosen]


def _longest(files: list[tuple[float, str]]) -> Iterator[str]:
    """Yield the longest files until they last SPEAKER_S in total."""
    total = 0.0
    for seconds, name in sorted(files, key=lambda one: (-one[0], one[1])):
        if total >= SPEAKER_S:
            return
        total += seconds
        yield name


def choose_grid(folder: Path) -> list[list[Path]]:
    """Choose sentences of GRID.

    Args:
        folder: Its videos.

    Returns:
        Videos of each speaker.

    Raises:
        TalkheadError: It has too few speakers.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.glob("*.mp4")):
        if match := GRID_NAME.fullmatch(path.name):
            found[match[1]].append(path)
    chosen = [paths[:N_SENTENCES] for paths in found.values() if len(paths) >= N_SENTENCES]
    if len(chosen) < N_GRID:
        raise TalkheadError(f"{folder}: has fewer than {N_GRID} speakers")
    return list(islice(chosen, N_GRID))


def join_voices(voices: Sequence[Sequence[Path]]) -> Float32:
    """Join the speech of several people, each at the same level.

    Args:
        voices: Files of each person.

    Returns:
        Waveform [n_samples] at 16 kHz, with pauses of PAUSE_S between voices and at both ends.
    """
    pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)
    parts = [pause]
    for files in voices:
        whole = np.concatenate([_without_ends(read_audio(path)) for path in files])
        parts += [normalize_level(whole), pause]
    return np.concatenate(parts)


def _without_ends(waveform: Float32) -> Float32:
    """Cut the silence at both ends of a waveform [n], except MARGIN_FRAMES."""
    spoken = np.flatnonzero(~is_silence(waveform))
    if len(spoken) == 0:
        return waveform[:0]
    per_frame = SAMPLE_RATE // FRAME_RATE
    first = max(0, spoken[0] - MARGIN_FRAMES) * per_frame
    return waveform[first : (spoken[-1] + MARGIN_FRAMES) * per_frame]


def write_opus(waveform: Float32, path: Path) -> None:
    """Write a waveform as Ogg Opus.

    Args:
        waveform: [n_samples] at 16 kHz.
        path: The file.

    Raises:
        TalkheadError: ffmpeg fails.
    """
    with TemporaryDirectory() as folder:
        sound = Path(folder) / "voices.wav"
        wavfile.write(sound, SAMPLE_RATE, as_int16(waveform))
        graph = media_input(sound).output(
            file_url(path),
            acodec="libopus",
            audio_bitrate=BITS_PER_S,
            map_metadata=-1,
            fflags="+bitexact",
            format="ogg",
        )
        process = Process(graph)
        if process.wait() != 0:
            raise TalkheadError(f"{path}: could not be written ({process.words()})")


def manifest_entry(path: Path, voices: Sequence[Sequence[Sequence[Path]]]) -> dict[str, object]:
    """Describe the file for the manifest of the weights.

    Args:
        path: The file.
        voices: Files of each speaker of each of CORPORA.

    Returns:
        The entry.
    """
    sources = []
    for (what, attribution), speakers in zip(CORPORA.items(), voices, strict=True):
        digests = "".join(sha256_of(one) for files in speakers for one in files)
        sources.append(
            {
                "what": f"{what}: {len(speakers)} speakers",
                "licence": "CC BY 4.0",
                "attribution": attribution,
                "sha256": [hashlib.sha256(digests.encode()).hexdigest()],
            }
        )
    return {
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
        "about": "Speech of other people, by which talkhead.encoder.predictor.lip_range corrects how "
        "far lips move: recordings, shortened and compressed. See docs/speech.md",
        "trained_on": sources,
        "command": "python -m talkhead.app.training.voice_pool SPEECHOCEAN762 GRID --output voices.ogg",
        "figures": {"seconds": round(len(read_audio(path)) / SAMPLE_RATE, 1)},
        "figures_about": "Length of the file",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the file and print its entry.

    Args:
        arguments: Arguments of the command line.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("speechocean", type=Path, help="folder of speechocean762")
    parser.add_argument("grid", type=Path, help="folder of GRID's videos")
    parser.add_argument("--output", required=True, type=Path)
    given = parser.parse_args(arguments)
    voices = [choose_speechocean(given.speechocean), choose_grid(given.grid)]
    write_opus(join_voices(list(chain.from_iterable(voices))), given.output)
    print_json({given.output.name: manifest_entry(given.output, voices)})


if __name__ == "__main__":
    main()
