"""Footage -> its dataset with refined motion: what fit, evaluate and re-lipped footage begin with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from talkhead.app.identities import DATASET
from talkhead.dataset import IdentityDataset
from talkhead.encoder.silence import silence_of_video
from talkhead.preprocess.pipeline import PreprocessConfig, preprocess
from talkhead.progress import Progress
from talkhead.renderers.base import renderer_kind
from talkhead.renderers.fit import fit_renderer
from talkhead.renderers.gaussian.model import PRESETS, GaussianRenderer
from talkhead.renderers.gaussian.refine import refine_motion
from talkhead.storage import read_tensors, write_tensors

VERSION = 1
"""Raise it when the same dataset would get other codes."""
MOTION = ("codes", "viewmats")
"""Of the tracks, what is refined."""
HEAD_STEPS = 400
"""Of a preview's head, which is enough to refine motion with."""


def prepare(
    video: Path,
    work: Path,
    config: PreprocessConfig,
    progress: Progress,
    device: torch.device | None = None,
) -> IdentityDataset:
    """The dataset of a video, its motion refined; what is there already in `work` is read.

    Every renderer and the predictor learn the same motion, whatever it is refined with. Raises
    MediaError and FootageError like preprocess.
    """
    dataset = preprocess(video, work / DATASET, config, progress, silence_of_video)
    stored = _motion_file(work)
    if not stored.exists():
        checkpoint = work / f"motion-head-{VERSION}.safetensors"
        tracks = _refined(dataset, checkpoint, progress, device or torch.device("cpu")).tracks
        motion = {name: torch.from_numpy(getattr(tracks, name)) for name in MOTION}
        write_tensors(stored, motion)
        checkpoint.unlink()
    return _with_motion(dataset, stored)


def prepared(work: Path) -> IdentityDataset:
    """What prepare has left in a folder of work. Raises TalkheadError when something is missing."""
    return _with_motion(IdentityDataset.load(work / DATASET), _motion_file(work))


def _motion_file(work: Path) -> Path:
    return work / f"motion-{VERSION}.safetensors"


def _with_motion(dataset: IdentityDataset, stored: Path) -> IdentityDataset:
    kept = {name: tensor.numpy() for name, tensor in read_tensors(stored).items()}
    return replace(dataset, tracks=replace(dataset.tracks, **kept))


def _refined(
    dataset: IdentityDataset, checkpoint: Path, progress: Progress, device: torch.device
) -> IdentityDataset:
    preset = PRESETS["preview"]
    quick = replace(preset, n_steps=min(HEAD_STEPS, preset.n_steps))
    kind, title = renderer_kind(GaussianRenderer.name), "Fitting a quick head"
    head = fit_renderer(kind, dataset, quick, checkpoint, progress, device=device, title=title)
    assert isinstance(head, GaussianRenderer)
    return refine_motion(head, dataset, progress)
