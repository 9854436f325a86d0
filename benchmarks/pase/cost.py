"""Cost of an encoder on one core, in a separate process.

    python -m benchmarks.pase.cost ENCODER SECONDS HOURS

`python -m benchmarks.pase cost` runs this with one thread. HOURS: length of a long recording to
encode; 0 for none.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from talkhead.encoder.extract import extract_chunks
from talkhead.encoder.registry import load_encoder
from talkhead.types import FRAME_RATE, Float32

CHUNK_FRAMES = 1
"""Length of a stream's chunk, in video frames."""
STREAMED_S = 20.0


def cost(encoder: str, seconds: float, hours: float) -> Iterator[dict[str, Any]]:
    """Results of a new process with one thread."""
    command = [sys.executable, "-m", "benchmarks.pase.cost", encoder, str(seconds), str(hours)]
    alone = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | alone
    )
    yield json.loads(done.stdout)


def peak_mib() -> float:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, seconds: float) -> dict[str, Any]:
    """Measure speed, memory and latency of an encoder in this process.

    times_real_time: seconds of audio per second of processor time. mib_*: peak memory after the
    imports, after loading, and at the end. latency_ms: time from a moment to its vector in a live
    stream: the encoder's look-ahead plus the time for a chunk (95th percentile).
    """
    torch.set_num_threads(1)
    imports = peak_mib()
    encoder = load_encoder(name)
    sound = _speechlike(int(seconds * encoder.sample_rate))
    encoder.encode(sound[: encoder.sample_rate])
    loaded = peak_mib()
    start = time.process_time()
    encoder.encode(sound)
    taken = time.process_time() - start
    whole = peak_mib()
    pushes_ms = _pushes_ms(encoder.stream(), sound, encoder.sample_rate)
    return {
        "benchmark": "cost",
        "encoder": name,
        "seconds": seconds,
        "times_real_time": round(seconds / taken, 1),
        "times_real_time_streamed": round(1000 * CHUNK_FRAMES / FRAME_RATE / np.mean(pushes_ms), 1),
        "mib_imports": round(imports),
        "mib_loaded": round(loaded),
        "mib_peak": round(whole),
        "lookahead_ms": round(1000 * encoder.lookahead_s, 1),
        "chunk_ms_median": round(float(np.median(pushes_ms)), 3),
        "latency_ms": round(1000 * encoder.lookahead_s + float(np.percentile(pushes_ms, 95)), 1),
    }


def _pushes_ms(stream: Any, sound: Float32, sample_rate: int) -> list[float]:
    """Processor time of each chunk of a live stream, in ms."""
    size, taken = CHUNK_FRAMES * sample_rate // FRAME_RATE, []
    for at in range(0, min(len(sound), int(STREAMED_S * sample_rate)), size):
        start = time.process_time()
        stream.push(sound[at : at + size])
        taken.append(1000 * (time.process_time() - start))
    return taken


def _speechlike(n_samples: int) -> Float32:
    """Noise in syllables."""
    noise = np.random.default_rng(0).normal(0.0, 0.1, n_samples)
    return np.asarray(noise * np.abs(np.sin(np.arange(n_samples) / 2000.0)), np.float32)


def long_recording(name: str, hours: float) -> dict[str, Any]:
    """Peak memory before and after encoding hours of audio at 22.05 kHz, and the number of vectors."""
    encoder, rate = load_encoder(name), 22_050
    minute = (_speechlike(60 * rate) * 32_767).clip(-32_768, 32_767).astype(np.int16)
    samples = np.tile(minute, round(hours * 60))
    before = peak_mib()
    n_vectors = sum(map(len, extract_chunks(encoder, samples, rate)))
    grown = {"mib_with_recording": round(before), "mib_listening": round(peak_mib())}
    return {"hours": hours, "n_vectors": n_vectors, **grown}


def figures(name: str, seconds: float, hours: float) -> dict[str, Any]:
    """All results."""
    found = measure(name, seconds)
    return found | (long_recording(name, hours) if hours else {})


if __name__ == "__main__":
    print(json.dumps(figures(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))))
