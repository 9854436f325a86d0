"""Measure what held-out frames do not show about a head: other sentences, borders, speed and size.

    python -m benchmarks.head WORK --package ~/.local/share/talkhead/identities/anna

WORK is the folder of a fit, in work/ of the home folder. Prints JSON lines:

* another sentence: Each held-out frame is rendered with the mouth of another one, half of the
  held-out part later. Distance between the lips and jaw that the tracker finds in the rendering
  and those that were requested.
* border: The mouths of another part of the idle clip are pasted into it. Flicker of the pasted
  border from frame to frame, relative to that of the same pixels in the clip.
* speed: Median milliseconds per frame, for the whole crop and for pasting with all its steps.
* size: Bytes of the package's parts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from talkhead import media
from talkhead.app.avatar import load_renderer
from talkhead.app.composer.frames import Compositor
from talkhead.app.composer.idle_clip import IDLE_NAME, IdleClip, load_idle
from talkhead.app.composer.paste import paste_mask
from talkhead.app.evaluation.measures.image import has_face, lmd
from talkhead.app.evaluation.reference import CropReference, held_out_frames, rendered_crops
from talkhead.app.evaluation.variant import track
from talkhead.app.home.identities import DATASET
from talkhead.app.workspace import prepared
from talkhead.cameras import project
from talkhead.dataset import IdentityDataset, Tracks
from talkhead.device import set_threads
from talkhead.face import JAW_LINE
from talkhead.identity import IdentityPackage
from talkhead.preprocess.landmarks import FaceTracker
from talkhead.renderers.base import Renderer
from talkhead.types import Bool, Float32, Int

CHIN_LINE = JAW_LINE[5:-5]
N_BORDER, N_TIMED = 150, 40
RING = (0.05, 0.95)
"""Mask values between which pixels belong to the border."""


def another_sentence(
    renderer: Renderer, dataset: IdentityDataset, tracked: Tracks
) -> dict[str, Any]:
    """Errors in source pixels of lips (centered) and jaw, against the requested mesh.

    tracked: the dataset's tracks before refinement, whose mesh is where the tracker finds the face.
    Refined ones are aligned with pixels, with a systematic difference from the tracker.
    """
    numbers, face = held_out_frames(dataset), dataset.face
    codes = _other_mouths(dataset.tracks, numbers, face.n_mouth)
    vertices = face.vertices(_other_mouths(tracked, numbers, face.n_mouth)).astype(np.float64)
    asked = project(vertices, tracked.viewmats[numbers].astype(np.float64), dataset.intrinsics)
    scene = CropReference(dataset, numbers)
    found = track(scene, rendered_crops(renderer, dataset, numbers, codes), FaceTracker)
    seen = has_face(found)
    jaw = np.linalg.norm((found - asked)[seen][:, list(CHIN_LINE)], axis=-1).mean(1)
    lips = lmd(found[seen], asked[seen])
    return {
        "frames": int(seen.sum()),
        "lmd_px": round(float(lips.mean()), 3),
        "lmd_px_95": round(float(np.percentile(lips, 95)), 3),
        "jaw_px": round(float(jaw.mean()), 3),
    }


def _other_mouths(tracks: Tracks, numbers: Int, n_mouth: int) -> Float32:
    """Codes [N, K] of frames, each with the mouth of the frame N / 2 positions later, cyclically."""
    codes = tracks.codes[numbers].copy()
    codes[:, :n_mouth] = np.roll(codes[:, :n_mouth], len(codes) // 2, axis=0)
    return codes


def border(renderer: Renderer, idle: IdleClip) -> dict[str, Any]:
    """Energy of the border's luma filtered by [1, -2, 1] / 4 over time, relative to that of the clip."""
    n = min(N_BORDER, len(idle))
    codes = np.roll(idle.codes, len(idle) // 2, axis=0)
    paster = Compositor(renderer, idle)
    rings: list[Bool] = []
    real: list[Float32] = []
    made: list[Float32] = []
    with closing(media.read_frames(idle.path, n_frames=n)) as frames:
        for number, frame in enumerate(frames):
            rings.append(_ring(idle, number, codes[number]))
            real.append(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32))
            pasted = paster(frame, number, codes[number])
            made.append(cv2.cvtColor(pasted, cv2.COLOR_RGB2GRAY).astype(np.float32))
    energy = np.zeros(2)
    for i in range(1, len(rings) - 1):
        inside = rings[i - 1] & rings[i] & rings[i + 1]
        for k, x in enumerate((made, real)):
            energy[k] += np.square((x[i - 1] - 2 * x[i] + x[i + 1]) / 4)[inside].sum()
    return {"frames": len(rings), "flicker_ratio": round(float(energy[0] / energy[1]), 3)}


def _ring(idle: IdleClip, number: int, code: Float32) -> Bool:
    """Border of the pasted area, [H, W] of the source."""
    n_mouth, source = idle.face.n_mouth, idle.codes[number]
    target = np.concatenate([code[:n_mouth], source[n_mouth:]])
    before, after = idle.landmarks(number, np.stack([source, target]))
    mask = paste_mask(before, after, (idle.crop_height, idle.crop_width))
    left, top = idle.origins[number]
    matrix = np.array([[1 / idle.scale, 0.0, left], [0.0, 1 / idle.scale, top]])
    mask = cv2.warpAffine(mask, matrix, idle.background.shape[1::-1])
    return np.asarray((mask > RING[0]) & (mask < RING[1]))


def speed(renderer: Renderer, dataset: IdentityDataset, idle: IdleClip) -> dict[str, Any]:
    """Medians in milliseconds of wall clock, with the current threads of torch and numba."""
    info, tracks = dataset.info, dataset.tracks

    def render(i: int) -> None:
        arrays = (tracks.codes[[i]], tracks.viewmats[[i]], dataset.crop_ks[[i]])
        with torch.no_grad():
            renderer.render(*map(torch.from_numpy, arrays), info.crop_height, info.crop_width)

    paster = Compositor(renderer, idle)
    with closing(media.read_frames(idle.path, n_frames=N_TIMED)) as frames:
        held = list(frames)
    return {
        "threads": torch.get_num_threads(),
        "crop": f"{info.crop_width}x{info.crop_height}",
        "frame_ms": _median_ms(render, len(held)),
        "pasted_ms": _median_ms(lambda i: paster(held[i], i, idle.codes[-1 - i]), len(held)),
    }


def _median_ms(call: Callable[[int], Any], n: int) -> float:
    times: list[float] = []
    call(0)
    for i in range(n):
        start = time.perf_counter()
        call(i)
        times.append(time.perf_counter() - start)
    return round(1000.0 * float(np.median(times)), 1)


def size(package: IdentityPackage, name: str) -> dict[str, Any]:
    """Sizes in bytes."""
    _, part = package.renderer(name)
    whole = sum(path.stat().st_size for path in package.path.iterdir())
    files = {"renderer": part.file, "idle_clip": IDLE_NAME}
    return {k: package.file(file).stat().st_size for k, file in files.items()} | {"whole": whole}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.head", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("work", type=Path)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--renderer", help="its name; the package's default one")
    chosen = parser.parse_args(arguments)
    set_threads()
    dataset, package = prepared(chosen.work), IdentityPackage.load(chosen.package)
    tracked = IdentityDataset.load(chosen.work / DATASET).tracks
    name, _ = package.renderer(chosen.renderer)
    renderer, idle = load_renderer(package, name, torch.device("cpu")), load_idle(package)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "speed": lambda: speed(renderer, dataset, idle),
        "size": lambda: size(package, name),
        "another sentence": lambda: another_sentence(renderer, dataset, tracked),
        "border": lambda: border(renderer, idle),
    }
    for title, measure in parts.items():
        print(json.dumps({"benchmark": title, "renderer": name, **measure()}), flush=True)


if __name__ == "__main__":
    main()
