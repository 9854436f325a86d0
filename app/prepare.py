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
from talkhead.types import Float32

VERSION = 1
"""Raise it when the same dataset would get other codes."""
HEAD_STEPS = 400
"""Of a preview's head, which is enough to refine motion with."""


def prepare(
    video: Path,
    work: Path,
    config: PreprocessConfig,
    progress: Progress,
    device: torch.device | None = None,
) -> IdentityDataset:
    """The dataset of a video, its motion codes refined; what is there already in `work` is read.

    Every renderer and the predictor learn the same codes, whatever they are refined with. Raises
    MediaError and FootageError like preprocess.
    """
    dataset = preprocess(video, work / DATASET, config, progress, silence_of_video)
    stored = work / f"motion-{VERSION}.safetensors"
    if not stored.exists():
        checkpoint = work / f"motion-head-{VERSION}.safetensors"
        codes = _refined(dataset, checkpoint, progress, device or torch.device("cpu"))
        write_tensors(stored, {"codes": torch.from_numpy(codes)})
        checkpoint.unlink()
    codes = read_tensors(stored)["codes"].numpy()
    return replace(dataset, tracks=replace(dataset.tracks, codes=codes))


def _refined(
    dataset: IdentityDataset, checkpoint: Path, progress: Progress, device: torch.device
) -> Float32:
    preset = PRESETS["preview"]
    quick = replace(preset, n_steps=min(HEAD_STEPS, preset.n_steps))
    kind, title = renderer_kind(GaussianRenderer.name), "Fitting a quick head"
    head = fit_renderer(kind, dataset, quick, checkpoint, progress, device=device, title=title)
    assert isinstance(head, GaussianRenderer)
    return refine_motion(head, dataset, progress)
