"""Diagnosis: what is installed, what is usable and why not, and how fast this machine is."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from talkhead import __version__
from talkhead.app.home.identities import Home
from talkhead.errors import TalkheadError, one_line

if TYPE_CHECKING:
    from torch import Tensor

    from talkhead.device import Backend

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "numba",
    "mediapipe",
    "opencv-contrib-python",
    "gsplat",
    "nerfacc",
    "pocketsphinx",
    "tinycudann",
    "imageio-ffmpeg",
    "c2pa-python",
    "safetensors",
)
OPTIONAL_PACKAGES = ("tinycudann", "pocketsphinx")
MIN_MEMORY_GIB = 4.0
MIN_FREE_GIB = 2.0

NO_TORCH = "PyTorch can't be imported"

TEST_GAUSSIANS = 15_000
TEST_SIZE_PX = 512
TEST_RUNS = 9


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: What was checked.
        ok: True if it meets the requirement.
        found: What was found.
        remedy: What to do if it does not.
    """

    name: str
    ok: bool
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Speed:
    """Speed of the CPU rasterizer on a synthetic scene.

    Attributes:
        render_ms: Median milliseconds per frame.
        train_ms: Median milliseconds per frame, forward and backward.
        missing: Why it was not measured; "" if it was.
    """

    render_ms: float = 0.0
    train_ms: float = 0.0
    missing: str = ""


@dataclass(frozen=True)
class Pace:
    """Speed of a fitted identity on this machine.

    Attributes:
        identity: Name of the identity.
        renderer: Name of the renderer.
        frames_per_s: Frames rendered and pasted per second.
        real_time: Seconds of finished video per second.
        missing: Why it was not measured; "" if it was.
    """

    identity: str = ""
    renderer: str = ""
    frames_per_s: float = 0.0
    real_time: float = 0.0
    missing: str = ""


@dataclass(frozen=True)
class Report:
    """The report of `talkhead doctor`.

    Attributes:
        versions: Versions of packages by name; "" if not installed.
        checks: Checks of what `fit` and `speak` need.
        backends: Accelerated backends.
        speed: Speed of the rasterizer.
        pace: Speed of an identity.
    """

    versions: dict[str, str]
    checks: tuple[Check, ...]
    backends: tuple[Backend, ...]
    speed: Speed
    pace: Pace

    @property
    def ok(self) -> bool:
        """True if `fit` and `speak` work here."""
        return all(check.ok for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Return the report with JSON's types."""
        return {"ok": self.ok, **dataclasses.asdict(self)}


def examine(home: Home, identity: str | None = None) -> Report:
    """Examine this machine. Whatever is missing or broken is reported, not raised.

    Args:
        home: Folder of the identities.
        identity: Name of the identity whose speed is measured. None: the one fitted last.

    Returns:
        The report.
    """
    checks = (
        check_python(),
        check_system(),
        check_memory(),
        check_import("PyTorch", "torch"),
        check_import("OpenCV", "cv2"),
        check_import("mediapipe", "mediapipe"),
        check_ffmpeg(),
        check_home(home),
    )
    torch_works = all(check.ok for check in checks if check.name == "PyTorch")
    return Report(
        _versions(),
        checks,
        _backends() if torch_works else (),
        measure_speed() if torch_works else Speed(missing=NO_TORCH),
        pace_of(home, identity) if torch_works else Pace(missing=NO_TORCH),
    )


def _versions() -> dict[str, str]:
    import importlib.metadata

    versions = {"talkhead": __version__}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = ""
    return versions


def _backends() -> tuple[Backend, ...]:
    from talkhead.device import backends

    return tuple(backends())


def check_python() -> Check:
    """Check the version of Python.

    Returns:
        The result.
    """
    ok = (3, 10) <= sys.version_info[:2] < (3, 13)
    tested = "" if sys.version_info[:2] == (3, 11) else " (tested: 3.11)"
    return Check("Python", ok, platform.python_version() + tested, "Use Python 3.11")


def check_system() -> Check:
    """Check the operating system: Linux on x86-64 is tested, other systems may work.

    Returns:
        The result.
    """
    system, machine = platform.system(), platform.machine()
    tested = system == "Linux" and machine == "x86_64"
    note = "tested" if tested else "not tested; only Linux on x86-64 is"
    return Check("System", True, f"{platform.platform(terse=True)}, {machine} ({note})")


def check_memory() -> Check:
    """Check the usable cores and the memory.

    Returns:
        The result.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return Check("Machine", True, f"{cores} cores, memory unknown")
    gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    found = f"{cores} cores, {gib:.1f} GiB of memory"
    return Check("Machine", gib >= MIN_MEMORY_GIB * 0.9, found, f"{MIN_MEMORY_GIB:g} GiB is needed")


def check_import(name: str, module: str) -> Check:
    """Check that a module can be imported, in a subprocess, since a broken one may crash.

    Args:
        name: Name for the report.
        module: Name of the module.

    Returns:
        The result, with the version that was found.
    """
    command = [
        sys.executable,
        "-c",
        f"import {module}; print(getattr({module}, '__version__', ''))",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Check(name, True, done.stdout.strip())
    message = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
    return Check(name, False, message, library_remedy(message) or "Install talkhead again with pip")


def check_ffmpeg() -> Check:
    """Check the ffmpeg program.

    Returns:
        The result, with its version and path.
    """
    remedy = "Reinstall imageio-ffmpeg, or select a program: --ffmpeg PATH"
    try:
        from talkhead.media.process import ffmpeg_path

        path = ffmpeg_path()
        done = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)
    except (TalkheadError, ImportError, OSError) as error:
        return Check("ffmpeg", False, str(error), remedy)
    version = done.stdout.partition(" Copyright")[0].removeprefix("ffmpeg version ").strip()
    return Check("ffmpeg", done.returncode == 0, f"{version} ({path})", remedy)


def check_home(home: Home) -> Check:
    """Check that the folder of identities is writable and has free space.

    Args:
        home: Folder of the identities.

    Returns:
        The result.
    """
    existing = next(path for path in (home.path, *home.path.parents) if path.exists())
    free_gib = shutil.disk_usage(existing).free / 2**30
    n = len(home.names())
    identities = f"{n} {'identity' if n == 1 else 'identities'}"
    found = f"{home.path}, {free_gib:.1f} GiB free, {identities}"
    if not os.access(existing, os.W_OK):
        return Check("Home", False, f"{found}, no permission", "Choose another folder: --home DIR")
    return Check("Home", free_gib >= MIN_FREE_GIB, found, f"Free {MIN_FREE_GIB:g} GiB")


def library_remedy(words: str) -> str:
    """Return the command that installs the system libraries that OpenCV needs.

    Args:
        words: Message of an error.

    Returns:
        A sentence with the command; "" if the error has another cause.
    """
    if "cannot open shared object file" not in words:
        return ""
    commands = {
        "apt-get": "apt-get install -y libgl1 libglib2.0-0",
        "dnf": "dnf install -y mesa-libGL glib2",
        "pacman": "pacman -S --noconfirm libglvnd glib2",
        "apk": "apk add mesa-gl glib",
    }
    found = next((command for program, command in commands.items() if shutil.which(program)), None)
    if found is None:
        return "Install your system's libGL and GLib"
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return f"Run: {found}" if is_root else f"Run: sudo {found}"


def measure_speed() -> Speed:
    """Measure the speed of the CPU rasterizer on a synthetic head.

    Returns:
        The speed.
    """
    try:
        from talkhead.renderers.gaussian.rasterizer import rasterize
        from talkhead.renderers.gaussian.rasterizer.cameras import Cameras
    except ImportError as error:
        return Speed(missing=f"the rasterizer can't be imported: {error}")
    scene = _synthetic_head()
    cameras = Cameras(*scene[4:], TEST_SIZE_PX, TEST_SIZE_PX)

    def render() -> None:
        rasterize(*scene[:4], cameras)

    def train() -> None:
        means, covars, opacities, colors = (t.clone().requires_grad_() for t in scene[:4])
        rgb, alpha = rasterize(means, covars, opacities, colors, cameras)
        (rgb.sum() + alpha.sum()).backward()

    return Speed(_median_ms(render), _median_ms(train))


def _median_ms(run: Callable[[], None]) -> float:
    """Measure the median milliseconds of a call; the first one, which may compile, is not counted."""
    run()
    times = []
    for _ in range(TEST_RUNS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return round(1000 * statistics.median(times), 1)


def _synthetic_head() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return means [N, 3], covars [N, 6], opacities [N], colors [N, 3], viewmats [1, 4, 4] and Ks [1,
    3, 3] of small Gaussians on an ellipsoid."""
    import torch

    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(TEST_GAUSSIANS, 3, generator=generator)
    means = directions / directions.norm(dim=1, keepdim=True) * torch.tensor([0.8, 1.1, 0.9])
    variances = 1e-4 * (0.5 + torch.rand(TEST_GAUSSIANS, 3, generator=generator))
    covars = torch.zeros(TEST_GAUSSIANS, 6)
    covars[:, [0, 3, 5]] = variances
    opacities = torch.full((TEST_GAUSSIANS,), 0.8)
    colors = torch.rand(TEST_GAUSSIANS, 3, generator=generator)
    viewmats = torch.eye(4)[None].clone()
    viewmats[0, 2, 3] = 4.0
    focal, center = 1.2 * TEST_SIZE_PX, TEST_SIZE_PX / 2
    Ks = torch.tensor([[[focal, 0.0, center], [0.0, focal, center], [0.0, 0.0, 1.0]]])
    return means, covars, opacities, colors, viewmats, Ks


def pace_of(home: Home, identity: str | None) -> Pace:
    """Measure the speed of an identity on the device that `speak` would use.

    Args:
        home: Folder of the identities.
        identity: Name of the identity. None: the one fitted last.

    Returns:
        The speed, or why it was not measured.
    """
    try:
        from talkhead.app.avatar import load_avatar
        from talkhead.app.doctor.speed_test import measure_speed_of_avatar
        from talkhead.device import resolve_device, set_threads

        set_threads()
        avatar = load_avatar(home.load(identity), None, resolve_device("auto"))
        frames_per_s, real_time = measure_speed_of_avatar(avatar)
    except Exception as error:  # a package, or a library it needs, can be broken in many ways
        return Pace(identity or "", missing=one_line(error))
    return Pace(avatar.name, avatar.renderer_name, round(frames_per_s, 1), round(real_time, 2))


def describe(report: Report) -> str:
    """Format a report as text.

    Args:
        report: The report.

    Returns:
        Lines of text.
    """
    lines = []
    for check in report.checks:
        lines.append(f"{'ok ' if check.ok else 'NO '} {check.name:<10} {check.found}")
        if not check.ok and check.remedy:
            lines.append(f"    {'':<10} {check.remedy}")
    lines += ["", "Accelerated backends"]
    for backend in report.backends:
        state = "usable" if backend.usable else f"not usable: {backend.reason}"
        lines.append(f"    {backend.name:<24} {backend.version:<8} {state}")
    lines += ["", "Speed of the CPU rasterizer"]
    lines.append(f"    {_describe_speed(report.speed)}")
    lines += ["", "Speed of a fitted identity", f"    {_describe_pace(report.pace)}"]
    lines += ["", "Packages"]
    for name, version in report.versions.items():
        absent = "not installed" + (" (optional)" if name in OPTIONAL_PACKAGES else "")
        lines.append(f"    {name:<24} {version or absent}")
    verdict = (
        "Everything needed is installed." if report.ok else "Something is missing: see NO above."
    )
    return "\n".join([*lines, "", verdict])


def _describe_speed(speed: Speed) -> str:
    if speed.missing:
        return f"not measured: {speed.missing}"
    return (
        f"{TEST_GAUSSIANS} Gaussians at {TEST_SIZE_PX}x{TEST_SIZE_PX}: "
        f"{speed.render_ms:.1f} ms per frame ({1000 / speed.render_ms:.0f} frames per second), "
        f"{speed.train_ms:.1f} ms with gradients"
    )


def _describe_pace(pace: Pace) -> str:
    if pace.missing:
        return f"not measured: {pace.missing}"
    return (
        f"{pace.identity} ({pace.renderer}): renders {pace.frames_per_s:.0f} frames per second, "
        f"speak runs at about {pace.real_time:.1f} times real time"
    )


def library_error(error: ImportError) -> TalkheadError | None:
    """Explain an import that failed because a system library is missing.

    Args:
        error: The error.

    Returns:
        The error to show; None if it has another cause.
    """
    remedy = library_remedy(str(error))
    if not remedy:
        return None
    return TalkheadError(f"OpenCV needs a system library that is missing ({error}). {remedy}")
