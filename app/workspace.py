"""Footage -> its dataset with refined motion: what fit, evaluate and re-lipped footage begin with."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from talkhead.app.home.identities import DATASET, SOURCE, USES_ALL, Home
from talkhead.app.home.locking import lock_identity
from talkhead.config import read_object
from talkhead.dataset import ALL_FRAMES, TENSORS, IdentityDataset
from talkhead.device import resolve_device
from talkhead.encoder.vad import silence_of_video, silence_version
from talkhead.errors import PackageError, TalkheadError
from talkhead.face import CODES
from talkhead.footage import Footage
from talkhead.identity import IdentityPackage
from talkhead.media.probing import probe_footage
from talkhead.preprocess.pipeline import PreprocessConfig, dataset_key, preprocess
from talkhead.progress import Progress
from talkhead.renderers import trainer as fitting
from talkhead.renderers.gaussian.model import GaussianConfig, GaussianRenderer
from talkhead.renderers.gaussian.motion_refinement import refine_motion
from talkhead.storage import remove, sha256_of, write_tensors
from talkhead.tensors import read_checked

VERSION = 3
"""Raise it when the same dataset would get other motion; so does the version of fitting heads."""
MOTION = ("codes", "viewmats")
"""Of the tracks, what is refined."""
QUICK = GaussianConfig(n_surface=7_000, n_rest=3_500, n_steps=400)
"""The head that motion is refined with."""


def prepare(
    footage: Footage,
    work: Path,
    config: PreprocessConfig,
    progress: Progress,
    device: torch.device | None = None,
) -> IdentityDataset:
    """The dataset of a video, its motion refined; what is there already in `work` is read, and made
    anew where it is damaged.

    Nobody else may write to `work` meanwhile (see prepare_locked). Every renderer and the predictor
    learn the same motion, whatever it is refined with. device: to refine it on; by default a GPU that
    gsplat can draw on, else the CPU. Raises MediaError and FootageError like preprocess.
    """
    try:
        return _prepare(footage, work, config, progress, device)
    except PackageError as error:
        if not str(error).startswith(str(work)):  # other files are at fault: shipped weights, say
            raise
        damaged = str(error).partition(": ")[0]
        progress.message(f"{damaged}: is damaged; this footage is prepared anew")
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
    """The same for those who don't hold the lock of the identity that `work` belongs to: it is taken
    where something has to be made."""
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
    dataset = _opened(preprocess(footage, work / DATASET, config, progress, silence_of_video))
    stored, checkpoint = _motion_file(work), _checkpoint(work)
    if not stored.exists():
        tracks = _refined(dataset, checkpoint, progress, device or resolve_device("auto")).tracks
        motion = {name: torch.from_numpy(getattr(tracks, name)) for name in MOTION}
        write_tensors(stored, motion)
    checkpoint.unlink(missing_ok=True)
    return _with_motion(dataset, stored)


def is_prepared(work: Path) -> bool:
    """Whether nothing is left to be made in a folder of work."""
    return _motion_file(work).exists()


def prepared(work: Path) -> IdentityDataset:
    """What prepare has left in a folder of work. Raises TalkheadError when something is missing."""
    return _with_motion(_opened(IdentityDataset.load(work / DATASET)), _motion_file(work))


def _opened(dataset: IdentityDataset) -> IdentityDataset:
    """The dataset, whose images are all there. Raises PackageError where that is not so."""
    _ = dataset.frames, dataset.masks, dataset.plate
    return dataset


def motion_version() -> str:
    """What refined motion depends on besides the footage: work on other motion is not gone on with."""
    return f"{VERSION}.{fitting.VERSION}"


def _motion_file(work: Path) -> Path:
    return work / f"motion-{motion_version()}.safetensors"


def _checkpoint(work: Path) -> Path:
    """Of the head that motion is refined with."""
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
    head = fitting.fit_renderer(
        GaussianRenderer, dataset, QUICK, checkpoint, progress, device=device, title=title
    )
    assert isinstance(head, GaussianRenderer)
    return refine_motion(head, dataset, progress)


STAGES = "stages.json"
"""In the work folder of a fit: what the stages took."""


@dataclass(frozen=True)
class SourceRecord:
    """What SOURCE says of the footage of a folder of work."""

    path: str
    sha256: str


def find_footage(
    store: Home, package: IdentityPackage, video: Path | str | None
) -> tuple[Footage, Path]:
    """The video that a package was fitted on, and the folder of the work on it.

    Raises TalkheadError where the package has seen all of it, or where it is not known or another.
    """
    manifest = package.manifest
    name, source = manifest.name, manifest.source
    if manifest.details.get(USES_ALL):
        raise TalkheadError(
            f"{name}: was fitted on all frames, there are none left to judge it on. "
            "Fit again without --use-all-frames, or compare videos with --pair"
        )
    work = store.work_path(name, dataset_key(source.sha256, PreprocessConfig(), silence_version()))
    if video is None and (work / SOURCE).is_file():
        video = Path(read_object(work / SOURCE, SourceRecord, "Give the footage with --video").path)
    if video is None or not Path(video).is_file():
        raise TalkheadError(
            f"{name}: the footage that it was fitted on, {source.name}, is not where it was. "
            f"Give it: talkhead evaluate {name} --video FILE"
        )
    sha256 = sha256_of(Path(video))
    if sha256 != source.sha256:
        raise TalkheadError(
            f"{video}: is not the footage that {name} was fitted on, {source.name} of "
            f"{source.duration_s:.1f} s. Give that one with --video"
        )
    return Footage(Path(video), sha256, probe_footage(Path(video))), work
