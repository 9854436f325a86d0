"""Measure the README's figures: fit and speak as commands, and the rasterizer alone.

    python -m benchmarks [VIDEO ...] [--preset standard] [--renderers gaussian nerf warp]
                         [--audio samples/line.wav] [--seconds 60]

Prints JSON lines. Each command runs in a separate process, so that its own peak memory is measured,
and each renderer is fitted from scratch. On a busy machine, processor_s is more meaningful than
seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.io import wavfile

from talkhead.media import read_audio
from talkhead.types import FRAME_RATE, SAMPLE_RATE

SAMPLES = Path(__file__).parents[1] / "samples"


class Cost(NamedTuple):
    """Cost of a command: seconds, processor seconds of all its threads, peak memory in MiB."""

    seconds: float
    processor_s: float
    peak_mib: int


def run(arguments: list[str]) -> tuple[Cost, str]:
    """Run a talkhead command; returns its cost and its stdout."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "talkhead.app.cli.main", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"talkhead {' '.join(arguments)} failed")
    seconds = round(time.perf_counter() - start, 1)
    processor_s = round(usage.ru_utime + usage.ru_stime, 1)
    return Cost(seconds, processor_s, round(usage.ru_maxrss / 1024)), output


def line_of(audio: Path, seconds: float, folder: Path) -> Path:
    """Make an audio file of the given length by repeating a file."""
    waveform = read_audio(audio, SAMPLE_RATE)
    n_samples = int(seconds * SAMPLE_RATE)
    path = folder / f"line-{seconds:g}s.wav"
    wavfile.write(path, SAMPLE_RATE, (np.resize(waveform, n_samples) * 32767).astype(np.int16))
    return path


def bench_fit(video: Path, preset: str, renderer: str, home: Path) -> dict[str, Any]:
    """Measure time, memory, size and held-out results of a fit."""
    what = ["--video", str(video), "--preset", preset, "--renderer", renderer, "--yes"]
    cost, output = run(["fit", *what, "--home", str(home), "--quiet", "--json"])
    result = json.loads(output)
    figures = result["figures"]
    size = (Path(result["package_path"]) / f"{renderer}.safetensors").stat().st_size
    tracked, pasted = figures["tracked codes"], figures["pasted, speech-driven"]
    return {
        "benchmark": "fit",
        "video": video.name,
        "preset": preset,
        "renderer": renderer,
        **cost._asdict(),
        "head_mb": round(size / 1e6, 1),
        "psnr_face": tracked["images"]["psnr_face"]["mean"],
        "psnr_head": tracked["images"]["psnr_head"]["mean"],
        "psnr_mouth": tracked["images"]["psnr_mouth"]["mean"],
        "ssim_mouth": tracked["images"]["ssim_mouth"]["mean"],
        "sharpness_mouth": tracked["images"]["sharpness"]["median"],
        "lmd_px": tracked["lips"]["lmd_px"]["mean"],
        "speech_lmd_px": pasted["lips"]["lmd_px"]["mean"],
        "mean_mouth_lmd_px": figures["mean mouth"]["lips"]["lmd_px"]["mean"],
        "speech_psnr_frame": pasted["images"]["psnr_frame"]["mean"],
    }


def bench_speak(audio: Path, seconds: float, home: Path, folder: Path) -> dict[str, Any]:
    """Measure frames per second of a whole speak command, encoding included."""
    line = line_of(audio, seconds, folder)
    output = folder / "line.mp4"
    cost, _ = run(
        ["speak", "--audio", str(line), "-o", str(output), "--home", str(home), "--quiet"]
    )
    return {
        "benchmark": "speak",
        "audio_s": seconds,
        **cost._asdict(),
        "frames_per_s": round(seconds * FRAME_RATE / cost.seconds, 1),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("videos", nargs="*", type=Path, default=[SAMPLES / "person.mp4"])
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--renderers", nargs="+", default=["gaussian"])
    parser.add_argument("--audio", type=Path, default=SAMPLES / "line.wav")
    parser.add_argument("--seconds", type=float, nargs="*", default=[60.0])
    chosen = parser.parse_args()
    for video, renderer in product(chosen.videos, chosen.renderers):
        with tempfile.TemporaryDirectory(prefix="talkhead-bench-") as name:
            folder = Path(name)
            fitted = bench_fit(video, chosen.preset, renderer, folder / "home")
            print(json.dumps(fitted), flush=True)
            for seconds in chosen.seconds:
                figures = bench_speak(chosen.audio, seconds, folder / "home", folder)
                print(
                    json.dumps({"video": video.name, "renderer": renderer, **figures}), flush=True
                )
    subprocess.run([sys.executable, "-m", "benchmarks.rasterizer"], check=True)


if __name__ == "__main__":
    main()
