"""Prepare footage: preprocess it and refine its motion, for `fit`, `evaluate` and re-lipped footage."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from talkhead.app.home.footage import check_joined, locate_footage
from talkhead.app.home.identities import DATASET, USES_ALL, Home
from talkhead.app.home.locking import lock_identity
from talkhead.dataset import ALL_FRAMES, TENSORS, IdentityDataset
from talkhead.device import resolve_device
from talkhead.encoder.vad import silent_video_frames, vad_version
from talkhead.errors import PackageError, TalkheadError
from talkhead.face import CODES
from talkhead.footage import Footage, recorded_clips
from talkhead.identity import IdentityPackage
from talkhead.media.probing import probe_footage
from talkhead.preprocess.pipeline import PreprocessConfig, dataset_key, preprocess
from talkhead.progress import Progress
from talkhead.renderers import trainer as fitting
from talkhead.renderers.gaussian.model import GaussianConfig, GaussianRenderer
from talkhead.renderers.gaussian.motion_refinement import refine_motion
from talkhead.storage import remove, sha256_of, write_tensors
from talkhead.tensors import read_checked

MOTION_VERSION = 5
"""Increase it when the same dataset would get different motion. See `motion_version`."""
MOTION = ("codes", "viewmats")
"""Tracks that are refined."""
QUICK = GaussianConfig(n_surface=7_000, n_rest=3_500, n_steps=400)
"""Configuration of the renderer that motion is refined with."""


def prepare(
    footage: Footage,
    work: Path,
    config: PreprocessConfig,
    progress: Progress,
    device: torch.device | None = None,
) -> IdentityDataset:
    """Preprocess footage and refine its motion, or read what an earlier call has stored.

    Every renderer and the predictor are trained on the same motion, whichever device refined it.
    The caller holds the lock of the identity; see prepare_locked.

    Args:
        footage: The footage.
        work: Folder for the dataset and the refined motion. Damaged files in it are made again.
        config: Settings of preprocessing.
        progress: Receives the progress.
        device: Where to refine motion. None: a GPU that gsplat supports, otherwise the CPU.

    Returns:
        The dataset with refined motion.

    Raises:
        MediaError: The footage cannot be read.
        FootageError: The footage is not usable.
    """
    try:
        return _prepare(footage, work, config, progress, device)
    except PackageError as error:
        if not str(error).startswith(str(work)):  # damaged files elsewhere, such as shipped weights
            raise
        damaged = str(error).partition(": ")[0]
        progress.message(f"{damaged}: is damaged; the footage is prepared again")
    remove(work / DATASET)
    _motion_file(work).unlink(missing_ok=True)
    _checkpoint(work).unlink(missing_ok=True)
    return _prepare(footage, work, config, progress, device)


def prepare_locked(
    home: Home,
    name: str,
    footage: Footage,
    work: Path,
    config: PreprocessConfig,
    progress: Progress,
) -> IdentityDataset:
    """Prepare footage, and lock the identity while something has to be made.

    Args:
        home: Folder of the identities.
        name: Name of the identity that `work` belongs to.
        footage: See `prepare`.
        work: See `prepare`.
        config: See `prepare`.
        progress: See `prepare`.

    Returns:
        The dataset with refined motion.

    Raises:
        MediaError: The footage cannot be read.
        FootageError: The footage is not usable.
    """
    if is_prepared(work):
        with suppress(PackageError):
            return prepared(work)
    with lock_identity(home, name, progress):
        return prepare(footage, work, config, progress)


def _prepare(
    footage: Footage,
    work: Path,
    config: PreprocessConfig,
    progress: Progress,
    device: torch.device | None,
) -> IdentityDataset:
    dataset = _opened(preprocess(footage, work / DATASET, config, progress, silent_video_frames))
    stored, checkpoint = _motion_file(work), _checkpoint(work)
    if not stored.exists():
        tracks = _refined(dataset, checkpoint, progress, device or resolve_device("auto")).tracks
        motion = {name: torch.from_numpy(getattr(tracks, name)) for name in MOTION}
        write_tensors(stored, motion)
    checkpoint.unlink(missing_ok=True)
    return _with_motion(dataset, stored)


def is_prepared(work: Path) -> bool:
    """Return True if a work folder contains refined motion.

    Args:
        work: Work folder.

    Returns:
        True if `prepare` has finished there.
    """
    return _motion_file(work).exists()


def prepared(work: Path) -> IdentityDataset:
    """Read what `prepare` has stored.

    Args:
        work: Work folder.

    Returns:
        The dataset with refined motion.

    Raises:
        PackageError: Something is missing or damaged.
    """
    return _with_motion(_opened(IdentityDataset.load(work / DATASET)), _motion_file(work))


def _opened(dataset: IdentityDataset) -> IdentityDataset:
    """Open all images of a dataset. Raises PackageError if some are missing."""
    _ = dataset.frames, dataset.masks, dataset.background
    return dataset


def motion_version() -> str:
    """Return the version of refined motion, which includes the trainer's. Work on motion of another
    version is not resumed."""
    return f"{MOTION_VERSION}.{fitting.RENDERER_FIT_VERSION}"


def _motion_file(work: Path) -> Path:
    return work / f"motion-{motion_version()}.safetensors"


def _checkpoint(work: Path) -> Path:
    """Return the path of the checkpoint of the renderer that motion is refined with."""
    return work / f"head-of-{_motion_file(work).name}"


def _with_motion(dataset: IdentityDataset, stored: Path) -> IdentityDataset:
    specs = {name: TENSORS[name] for name in MOTION}
    sizes = {ALL_FRAMES.name: len(dataset), CODES.name: dataset.face.n_codes}
    tensors = read_checked(stored, specs, fitting.ADVICE, sizes)
    kept = {name: tensor.numpy() for name, tensor in tensors.items()}
    return replace(dataset, tracks=replace(dataset.tracks, **kept))


def _refined(
    dataset: IdentityDataset, checkpoint: Path, progress: Progress, device: torch.device
) -> IdentityDataset:
    title = "Fitting a quick head"
    renderer = fitting.fit_renderer(
        GaussianRenderer, dataset, QUICK, checkpoint, progress, device=device, title=title
    )
    assert isinstance(renderer, GaussianRenderer)
    return refine_motion(renderer, dataset, progress)


STAGES = "stages.json"
"""File with the durations of a fit's stages, in its work folder."""


def find_footage(
    store: Home, package: IdentityPackage, video: Path | str | None
) -> tuple[Footage, Path]:
    """Find the video that a package was fitted on.

    Args:
        store: Folder of the identities.
        package: The package.
        video: The video, if it was moved. None: where `fit` found it.

    Returns:
        The footage, and the folder with the work on it.

    Raises:
        TalkheadError: No frames were held out, or the video is missing or a different one.
    """
    manifest = package.manifest
    name, source = manifest.name, manifest.source
    if manifest.details.get(USES_ALL):
        raise TalkheadError(
            f"{name}: was fitted on all frames, so none are left to evaluate it on. "
            "Fit again without --use-all-frames, or compare videos with --pair"
        )
    work = store.work_path(name, dataset_key(source.sha256, PreprocessConfig(), vad_version()))
    if video is None:
        remedy = f"Pass it: talkhead evaluate {name} --video FILE"
        video = locate_footage(store, manifest, remedy)
    video = Path(video)
    sha256 = sha256_of(video)
    if sha256 != source.sha256:
        raise TalkheadError(
            f"{video}: is not the footage that {name} was fitted on, {source.name} of "
            f"{source.duration_s:.1f} s. Pass that one with --video"
        )
    clips = recorded_clips(video, sha256)
    check_joined(manifest, video, bool(clips))
    return Footage(video, sha256, probe_footage(video), clips), work
