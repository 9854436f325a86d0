"""Measure the CPU rasterizer; prints one JSON object per line.

    python benchmarks/rasterizer.py [--reps 40] [--threads 2]

median_ms and min_ms are wall-clock times. cpu_ms is the minimum processor time of all threads
together, which other programs on the machine affect less.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch and numba load OpenMP

import numba
import torch
from torch import Tensor

from talkhead.renderers.gaussian.rasterizer import rasterize
from talkhead.renderers.gaussian.rasterizer.cameras import Cameras


@dataclass(frozen=True)
class Case:
    """Numbers of Gaussians, images, and pixels per side of an image."""

    n_gaussians: int
    size_px: int
    n_images: int = 1


CASES = (Case(30_000, 512), Case(15_000, 512), Case(15_000, 256), Case(15_000, 192, n_images=4))


def make_head(case: Case, seed: int = 0) -> tuple[Tensor, ...]:
    """Make an ellipsoid of flat splats that covers 58 % of the image.

    Returns means, covariances, opacities, colors, view matrices and intrinsics in the shapes that
    `rasterize` expects, all with a batch dimension. The size of the splats follows from their
    number: a quarter as thick as wide, with sizes distributed as in a fitted head (log-normal).
    """
    g = torch.Generator().manual_seed(seed)
    n = case.n_gaussians
    radii = torch.tensor([1.215, 1.62, 1.3])
    means = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=1) * radii
    normals = torch.nn.functional.normalize(means / radii**2, dim=1)
    means = means + 0.02 * torch.randn(n, 1, generator=g) * normals
    tangents = torch.linalg.cross(normals, torch.randn(n, 3, generator=g))
    tangents = torch.nn.functional.normalize(tangents, dim=1)
    axes = torch.stack([tangents, torch.linalg.cross(normals, tangents), normals], dim=2)
    scales = 0.019 * (30_000 / n) ** 0.5 * torch.exp(0.45 * torch.randn(n, 2, generator=g))
    scales = torch.cat([scales, 0.25 * scales.amin(1, keepdim=True)], dim=1)
    scaled = axes * scales[:, None, :]
    covars = (scaled @ scaled.transpose(1, 2)).flatten(1)[:, [0, 1, 2, 4, 5, 8]]
    opacities = torch.sigmoid(1.0 + 1.5 * torch.randn(n, generator=g))
    colors = torch.rand(n, 3, generator=g)
    viewmat = torch.eye(4)
    viewmat[2, 3] = 4.3
    focal, centre = 1.2 * case.size_px, 0.5 * case.size_px
    K = torch.tensor([[focal, 0.0, centre], [0.0, focal, centre], [0.0, 0.0, 1.0]])
    everything = means, covars, opacities, colors, viewmat, K
    return tuple(t.expand(case.n_images, *t.shape).contiguous() for t in everything)


def time_ms(function: Callable[[], object], reps: int) -> dict[str, float]:
    """Measure a function's median and minimum wall-clock time and minimum processor time, in ms."""
    function()
    wall, processor = [], []
    for _ in range(reps):
        start = time.perf_counter(), time.process_time()
        function()
        wall.append(1e3 * (time.perf_counter() - start[0]))
        processor.append(1e3 * (time.process_time() - start[1]))
    return {
        "median_ms": round(statistics.median(wall), 2),
        "min_ms": round(min(wall), 2),
        "cpu_ms": round(min(processor), 2),
    }


def measure(case: Case, reps: int) -> Iterator[dict[str, object]]:
    """Measure one case: rendering alone, and rendering with gradients."""
    *splats, viewmats, Ks = make_head(case)
    size = case.size_px
    cameras = Cameras(viewmats, Ks, size, size)
    rgb, alpha = rasterize(*splats, cameras)
    grad_rgb, grad_alpha = torch.randn_like(rgb), torch.randn_like(alpha)
    trained = [tensor.clone().requires_grad_() for tensor in splats]

    def forward() -> None:
        rasterize(*splats, cameras)

    def forward_backward() -> None:
        images = rasterize(*trained, cameras)
        torch.autograd.grad(images, trained, (grad_rgb, grad_alpha))

    for name, function in (("forward", forward), ("forward+backward", forward_backward)):
        yield {
            "benchmark": "rasterizer",
            "what": name,
            "n_gaussians": case.n_gaussians,
            "size_px": size,
            "n_images": case.n_images,
            "coverage": round((alpha > 0).float().mean().item(), 3),
            "threads": numba.get_num_threads(),
            **time_ms(function, reps),
        }


def main() -> None:
    """Measure every case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reps", type=int, default=40, help="repetitions of each measurement")
    parser.add_argument("--threads", type=int, help="threads to use (default: one per core)")
    arguments = parser.parse_args()
    if arguments.threads:
        numba.set_num_threads(arguments.threads)
    print(json.dumps({"benchmark": "machine", "cpu": platform.processor() or platform.machine()}))
    for case in CASES:
        for result in measure(case, arguments.reps):
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
