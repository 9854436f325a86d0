"""Check that a CUDA device fits and renders like the CPU; prints JSON lines.

    python -m benchmarks.gpu_check [--work WORK] [--parts PART ...] [--device cuda:0]

Takes less than ten minutes, kernels that are built at first use excepted. Each part is one row; those
after a failed one still run:

* splats: Random Gaussians rendered by gsplat and by the CPU kernels: images, gradients, speed.
* footage: The sample person is prepared on the CPU. Without mediapipe this is skipped, and with it
  all parts below, unless --work names the folder of a fit, copied from work/ in the home folder of
  another machine.
* gaussian, nerf: A short fit on the device. The renderer is quantized as in a package and renders
  held-out frames on both devices.
* nerf-hash: The same with features from tiny-cuda-nn; skipped where that cannot be used.
* commands: `fit` and `speak` of the sample person with --device, everything included; skipped
  without mediapipe.

Images agree if at least 99.9 % of their pixels differ by at most 1/255 in every channel.

Exit status: 0 if no part failed, 1 if one did, 2 for wrong arguments, 3 if there is no CUDA device,
so that nothing was run. With --device cpu the same code runs on the CPU alone; images are then
identical.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.rasterizer import Case, make_head
from talkhead.app.avatar import load_identity
from talkhead.app.doctor.speed_test import measure_speed_of_avatar
from talkhead.app.fit import fit
from talkhead.app.speak import speak
from talkhead.app.workspace import prepare, prepared
from talkhead.dataset import IdentityDataset
from talkhead.device import (
    backends,
    no_cuda_reason,
    resolve_device,
    set_threads,
    tinycudann_unavailable_reason,
)
from talkhead.errors import TalkheadError
from talkhead.footage import Footage
from talkhead.frame_selection import spread_frames
from talkhead.preprocess.pipeline import PreprocessConfig
from talkhead.progress import SilentProgress
from talkhead.renderers.base import Renderer, TrainBatch
from talkhead.renderers.batches import make_batch
from talkhead.renderers.gaussian.model import PRESETS as GAUSSIAN
from talkhead.renderers.gaussian.model import GaussianRenderer
from talkhead.renderers.gaussian.rasterizer import rasterize
from talkhead.renderers.gaussian.rasterizer.cameras import Cameras
from talkhead.renderers.nerf.config import PRESETS as NERF
from talkhead.renderers.nerf.model import NerfRenderer
from talkhead.renderers.quantization import pack, unpack
from talkhead.renderers.trainer import fit_renderer

SAMPLES = Path(__file__).parents[1] / "samples"
NOT_RUN = 3
"""Exit status if there is no CUDA device."""
TOLERANCE, MIN_SHARE = 1.0 / 255.0, 0.999
"""Difference between the devices that a pixel may have, and the share of pixels that must agree."""
MAX_GRADIENT_ERROR = 0.02
"""Norm of the difference between the devices' gradients, relative to the gradient."""
MIN_PSNR_DB = 20.0
"""Minimum of held-out frames after a short fit: a gray head would have less."""
N_STEPS, N_COMPARED = 500, 4
"""Steps of a short fit, and number of frames that are compared."""
N_TIMED, MAX_TIMED_S = 20, 5.0
"""A speed is the median of so many repetitions, or of those that this many seconds allow."""
CPU = torch.device("cpu")


class Skipped(Exception):
    """A part cannot be run here; the message says why."""


class Failed(Exception):
    """The devices disagree, or a fit did not converge; the message says how much."""


@dataclass
class Check:
    """The parts of a check.

    Attributes:
        device: The device to check.
        folder: For the files that are made.
        work: Folder of a fit whose footage is prepared, or None.
        dataset: The prepared footage, once there is some.
    """

    device: torch.device
    folder: Path
    work: Path | None
    dataset: IdentityDataset | None = None

    def splats(self) -> dict[str, Any]:
        """Render random Gaussians, and differentiate the images."""
        case = Case(30_000, 512)
        *splats, viewmats, ks = make_head(case)
        generator = torch.Generator().manual_seed(1)
        weights = torch.randn(1, case.size_px, case.size_px, 3, generator=generator)

        def draw(device: torch.device) -> tuple[Tensor, list[Tensor]]:
            """Return the image [1, H, W, 3] and the gradients, on the CPU."""
            trained = [t.to(device).requires_grad_() for t in splats]
            cameras = Cameras(viewmats.to(device), ks.to(device), case.size_px, case.size_px)
            image, _ = rasterize(*trained, cameras)
            (image * weights.to(device)).sum().backward()
            return image.detach().cpu(), [t.grad.cpu() for t in trained if t.grad is not None]

        (ours, gradients), (other, others) = (draw(device) for device in (CPU, self.device))
        errors = [relative_error(a, b) for a, b in zip(others, gradients, strict=True)]
        row = {
            "pixels_equal": agreement(ours, other),
            "gradient_error": max(errors),
            "forward_backward_per_s": rate(lambda: draw(self.device)[0]),
        }
        if row["gradient_error"] > MAX_GRADIENT_ERROR:
            raise Failed(f"gradients differ: {row}")
        return checked(row)

    def footage(self) -> dict[str, Any]:
        """Prepare the footage, or read what another machine has prepared."""
        if self.work is not None:
            self.dataset = prepared(self.work)
        else:
            _require_mediapipe()
            footage, folder = Footage.open(SAMPLES / "person.mp4"), self.folder / "work"
            config, progress = PreprocessConfig(), SilentProgress()
            self.dataset = prepare(footage, folder, config, progress, CPU)
        return {"video": self.dataset.info.video, "frames": len(self.dataset)}

    def gaussian(self) -> dict[str, Any]:
        """Fit and compare a head of Gaussians."""
        return self._head(GaussianRenderer, GAUSSIAN["preview"])

    def nerf(self) -> dict[str, Any]:
        """Fit and compare a radiance field with features from planes."""
        return self._head(NerfRenderer, NERF["preview"])

    def nerf_hash(self) -> dict[str, Any]:
        """Fit and compare a radiance field with features from tiny-cuda-nn."""
        reason = tinycudann_unavailable_reason()
        if reason:
            raise Skipped(f"tiny-cuda-nn: {reason}")
        return self._head(NerfRenderer, replace(NERF["preview"], encoding="hash"))

    def commands(self) -> dict[str, Any]:
        """Fit the sample person with the commands, and let them speak."""
        _require_mediapipe()
        place: dict[str, Any] = {"device": str(self.device), "home": self.folder / "home"}
        start = time.perf_counter()
        name = fit(SAMPLES / "person.mp4", name="person", preset="preview", **place).name
        fitted = time.perf_counter()
        pasted, real_time = measure_speed_of_avatar(load_identity(name, **place))
        start_speak = time.perf_counter()
        speak(SAMPLES / "line.wav", identity=name, output=self.folder / "line.mp4", **place)
        return {
            "fit_s": round(fitted - start, 1),
            "speak_s": round(time.perf_counter() - start_speak, 1),
            "pasted_frames_per_s": round(pasted, 1),
            "times_real_time": round(real_time, 2),
        }

    def _head(self, kind: type[Renderer], preset: Any) -> dict[str, Any]:
        """Fit a renderer, compare its images, and measure its speed."""
        dataset = self.dataset
        if dataset is None:
            raise Skipped("no footage was prepared")
        config, start = replace(preset, n_steps=N_STEPS), time.perf_counter()
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            checkpoint = Path(folder) / "renderer.safetensors"
            head = fit_renderer(
                kind, dataset, config, checkpoint, SilentProgress(), device=self.device
            )
        row = {"fit_s": round(time.perf_counter() - start, 1)}
        held_out = dataset.tracks.usable & dataset.tracks.has_image & ~dataset.tracks.train
        batch = make_batch(dataset, dataset.crop_landmarks(), spread_frames(held_out, N_COMPARED))
        heads = [(device, stored_copy(head, device)) for device in (CPU, self.device)]
        ours, other = (render(head, batch.to(device)).cpu() for device, head in heads)
        row |= {"psnr_db": psnr(other, batch), "pixels_equal": agreement(ours, other)}
        for device, copy in heads:
            single = one_frame(batch).to(device)
            row[f"frames_per_s_{device.type}"] = rate(partial(render, copy, single))
        if row["psnr_db"] < MIN_PSNR_DB:
            raise Failed(f"the fit is too far from the footage: {row}")
        return checked(row)


PARTS: dict[str, Callable[[Check], dict[str, Any]]] = {
    "splats": Check.splats,
    "footage": Check.footage,
    "gaussian": Check.gaussian,
    "nerf": Check.nerf,
    "nerf-hash": Check.nerf_hash,
    "commands": Check.commands,
}


HEADS = frozenset({"gaussian", "nerf", "nerf-hash"})
"""Parts that fit a head."""


def agreement(image: Tensor, other: Tensor) -> float:
    """Return the share of pixels that differ by at most TOLERANCE in every channel.

    Args:
        image: [..., C].
        other: [..., C].

    Returns:
        The share, in [0, 1]. A pixel that is not a number does not agree.
    """
    near = (image - other).abs() <= TOLERANCE
    return round(float(near.all(-1).float().mean()), 5)


def relative_error(gradient: Tensor, true: Tensor) -> float:
    """Return the norm of the difference of two gradients, relative to the second one's."""
    return round(float((gradient - true).norm() / true.norm().clamp(min=1e-12)), 6)


def psnr(image: Tensor, batch: TrainBatch) -> float:
    """Return the PSNR of an image [B, H, W, 3] of the person alone, over the whole crop, in dB."""
    return round(-10.0 * float((image - batch.images).square().mean().log10()), 2)


def checked(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row. Raises Failed if too few of its pixels agree."""
    if not row["pixels_equal"] >= MIN_SHARE:
        raise Failed(f"images of the devices differ: {row}")
    return row


def stored_copy(renderer: Renderer, device: torch.device) -> Renderer:
    """Return a renderer as it would be loaded from a package."""
    stored = unpack(pack(renderer.tensors(), renderer.quantization_steps()))
    moved = {name: tensor.to(device) for name, tensor in stored.items()}
    return type(renderer).from_tensors(moved, renderer.config)


@torch.no_grad()
def render(renderer: Renderer, batch: TrainBatch) -> Tensor:
    """Render the frames of a batch one at a time, [B, H, W, 3]."""
    height, width = batch.images.shape[1:3]
    return torch.cat(
        [
            renderer.render(motion[None], view[None], k[None], height, width).rgb
            for motion, view, k in zip(batch.motion, batch.viewmats, batch.ks, strict=True)
        ]
    )


def one_frame(batch: TrainBatch) -> TrainBatch:
    """Return the first frame of a batch."""
    return TrainBatch(**{name: tensor[:1] for name, tensor in vars(batch).items()})


def rate(call: Callable[[], Tensor]) -> float:
    """Return how often a function runs per second, the median; its result is copied to the CPU."""
    times: list[float] = []
    call()
    begun = time.perf_counter()
    while len(times) < N_TIMED and time.perf_counter() - begun < MAX_TIMED_S:
        start = time.perf_counter()
        call().cpu()
        times.append(time.perf_counter() - start)
    return round(1.0 / float(np.median(times)), 2)


def _require_mediapipe() -> None:
    """Raise Skipped if mediapipe is not installed."""
    if importlib.util.find_spec("mediapipe") is None:
        raise Skipped("mediapipe is not installed")


def chosen_parts(names: Sequence[str]) -> list[str]:
    """Return the parts to run, in order. Heads are fitted to the part `footage`."""
    wanted = {*names, "footage"} if set(names) & HEADS else set(names)
    return [name for name in PARTS if name in wanted]


def run(name: str, check: Check) -> bool:
    """Run a part and print its row. Returns False if it failed."""
    start = time.perf_counter()
    try:
        row = {"result": "passed", **PARTS[name](check)}
    except Skipped as reason:
        row = {"result": "skipped", "reason": str(reason)}
    except Exception as error:  # other parts still run
        if not isinstance(error, Failed):
            traceback.print_exc()
        row = {"result": "failed", "reason": f"{type(error).__name__}: {error}"}
    seconds = round(time.perf_counter() - start, 1)
    print(
        json.dumps({"benchmark": "gpu check", "part": name, **row, "seconds": seconds}), flush=True
    )
    return row["result"] != "failed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--work", type=Path, help="folder of a fit whose footage is prepared")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try the script")
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print(f"{no_cuda_reason()}: nothing was run")
        return NOT_RUN
    try:
        device = resolve_device(options.device)
    except TalkheadError as error:
        parser.error(str(error))
    set_threads()
    print(json.dumps(_machine(device)), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        check = Check(device, Path(folder), options.work)
        passed = [run(name, check) for name in chosen_parts(options.parts)]
    return 0 if all(passed) else 1


def _machine(device: torch.device) -> dict[str, Any]:
    """Describe the device and the accelerated backends."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    found = {one.name: one.version if one.usable else one.reason for one in backends()}
    return {"benchmark": "gpu check", "device": name, "torch": torch.__version__, **found}


if __name__ == "__main__":
    raise SystemExit(main())
