"""An identity made in seconds: the synthetic head of the tests, with almost untrained models."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from talkhead import media
from talkhead.app.avatar import ENCODER_VERSION_KEY
from talkhead.app.composer.idle_clip import save_idle
from talkhead.app.home.identities import QUALITY, SHEET, Home
from talkhead.app.workspace import MOTION
from talkhead.config import to_json
from talkhead.dataset import IdentityDataset
from talkhead.encoder.predictor.model import MotionPredictor, Scaling
from talkhead.encoder.predictor.network import PredictorConfig, TemporalNets, receptive_field_of
from talkhead.encoder.registry import load_encoder
from talkhead.identity import (
    EncoderPart,
    FittedPart,
    IdentityPackage,
    Manifest,
    PackageWriter,
    SourceVideo,
)
from talkhead.progress import SilentProgress
from talkhead.renderers.quantization import pack
from talkhead.renderers.registry import get_renderer
from talkhead.storage import write_json, write_tensors
from talkhead.types import UInt8

HELPERS = Path(__file__).parents[2] / "tests" / "helpers"
NAME, ENCODER = "anna", "mel"
N_FRAMES, PRESET = 24, "preview"
SMALL: dict[str, dict[str, Any]] = {
    "gaussian": {"n_surface": 300, "n_cap": 40, "n_teeth": 20, "n_rest": 100, "n_steps": 2},
    "nerf": {
        "fine_unit": 0.06,
        "blend_unit": 0.1,
        "pose_unit": 0.2,
        "n_steps": 2,
        "n_patches": 8,
    },
    "warp": {"n_exemplars": 4},
}
"""Settings that make each renderer small."""
PREDICTOR = PredictorConfig(width=8, layers=((3, 1),), n_members=2, n_steps=2)


def small_config(renderer: str) -> Any:
    """Configuration of a renderer that is fitted immediately."""
    return replace(get_renderer(renderer).presets[PRESET], **SMALL[renderer])


def make_dataset(folder: Path) -> IdentityDataset:
    """Make a dataset of the synthetic head."""
    if str(HELPERS) not in sys.path:
        sys.path.insert(0, str(HELPERS))
    import synthetic_head

    dataset: IdentityDataset = synthetic_head.make_dataset(folder, n_frames=N_FRAMES)
    write_json(folder / QUALITY, {"warnings": []})
    return dataset


def footage_of(dataset: IdentityDataset) -> list[UInt8]:
    """Whole frames that contain the dataset's crops."""
    import synthetic_head

    points = dataset.tracks.landmarks[..., :2].astype(np.float64)
    return [synthetic_head.draw_head(dataset.face, p, dataset.background)[0] for p in points]


def make_predictor(dataset: IdentityDataset) -> MotionPredictor:
    """Make an untrained predictor."""
    encoder, face = load_encoder(ENCODER), dataset.face
    per_frame = round(encoder.rate / 25)
    view = receptive_field_of(PREDICTOR, per_frame, encoder.rate, encoder.lookahead_s)
    mouth = dataset.tracks.codes[:, : face.n_mouth]
    scaling = Scaling(
        rate=encoder.rate,
        ahead=view.ahead,
        mean=np.full(encoder.dim, -8.0, np.float32),
        spread=np.full(encoder.dim, 4.0, np.float32),
        centre=mouth.mean(0),
        low=mouth.min(0),
        high=mouth.max(0),
        rest=face.silence,
        gain=1.0,
        held_out=0.5,
    )
    torch.manual_seed(0)
    size = (scaling.n_inputs, len(scaling.centre), scaling.ahead, PREDICTOR.n_members)
    return MotionPredictor(PREDICTOR, scaling, TemporalNets(PREDICTOR, *size).eval())


def make_person(home: Home, dataset: IdentityDataset, work: Path) -> IdentityPackage:
    """Make a package with every renderer, which becomes the default identity of a home."""
    video = work / "drawn.mp4"
    media.write_video(video, footage_of(dataset))
    info = media.probe(video)
    with PackageWriter(home.identity_dir(NAME)) as writer:
        n_idle = save_idle(video, dataset, writer, SilentProgress())
        parts = {name: _add_head(name, dataset, writer) for name in SMALL}
        predictor = make_predictor(dataset)
        writer.add_tensors("predictor.safetensors", predictor.tensors())
        writer.add_file(QUALITY, dataset.path / QUALITY)
        writer.add_file(SHEET, dataset.path / "plate.png")
        package = writer.finish(
            Manifest(
                name=NAME,
                seed=0,
                preset=PRESET,
                source=SourceVideo(
                    "drawn.mp4",
                    "0" * 64,
                    info.duration_s,
                    info.width,
                    info.height,
                    info.frame_rate,
                ),
                encoder=EncoderPart(ENCODER, {ENCODER_VERSION_KEY: load_encoder(ENCODER).version}),
                predictor=FittedPart("predictor.safetensors", asdict(PREDICTOR)),
                renderers=parts,
                default_renderer="gaussian",
                frame_width=info.width,
                frame_height=info.height,
                n_frames=n_idle,
                consent="Yes.",
            )
        )
    home.remember(NAME)
    return package


def _add_head(name: str, dataset: IdentityDataset, writer: PackageWriter) -> FittedPart:
    config = small_config(name)
    head = get_renderer(name).from_dataset(dataset, config, 0)
    file = f"{name}.safetensors"
    writer.add_tensors(file, pack(head.tensors(), head.quantization_steps()))
    return FittedPart(file, to_json(config))


def make_work(work: Path, dataset: IdentityDataset) -> None:
    """Make the work folder of an interrupted fit of the Gaussian head."""
    from talkhead.app.workspace import motion_version
    from talkhead.renderers.trainer import fit_renderer

    motion = {name: torch.from_numpy(getattr(dataset.tracks, name)) for name in MOTION}
    write_tensors(work / f"motion-{motion_version()}.safetensors", motion)
    kind, config = get_renderer("gaussian"), small_config("gaussian")
    fit_renderer(kind, dataset, config, work / "gaussian.safetensors", SilentProgress())
    write_tensors(work / "predictor.safetensors", make_predictor(dataset).tensors())
    stage = {"name": "packing", "seconds": 1.0, "peak_mib": 100.0}
    write_json(work / "stages.json", {"stages": [stage], "interrupted": ["packing"]})
    write_json(work / "source.json", {"path": str(work / "x.mp4"), "sha256": "0" * 64})


def make_clip(target: Path, source: Path, n_frames: int, size: int) -> None:
    """Write the first frames of a video with audio, scaled down."""
    frames = media.read_frames(source, n_frames=n_frames, size=(size, size))
    with closing(frames):
        media.write_video(target, frames, audio_path=source)


def write_encoder(path: Path) -> None:
    """Write weights of a small PASE, for `--encoder FILE`."""
    from talkhead.encoder.pase.losses import Contrast
    from talkhead.encoder.pase.model import Pase, PaseConfig
    from talkhead.encoder.pase.weights import write_pase

    torch.manual_seed(0)
    config = PaseConfig(width=8, hidden=8, layers=1, dim=8)
    write_pase(path, Pase(config), Contrast(config.dim))
