"""Footage of a person -> an identity package."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from talkhead import __version__, media
from talkhead.app.evaluation.heldout import (
    evaluate_pairs,
    evaluate_renderer,
    held_out_frames,
    rendered_crops,
)
from talkhead.app.evaluation.metrics import lmd
from talkhead.app.evaluation.sheets import contact_sheet, spread
from talkhead.app.identities import Home, name_from_video
from talkhead.app.idle import clip_of, save_idle
from talkhead.app.speak import paste_frame_maker
from talkhead.audio import measure_loudness
from talkhead.cameras import project
from talkhead.dataset import IdentityDataset, cut_crop
from talkhead.device import resolve_device, seed_everything, set_threads
from talkhead.encoder.base import encoder_names, load_encoder, speech_gain
from talkhead.encoder.network import PRESETS as PREDICTOR_PRESETS
from talkhead.encoder.predictor import MotionPredictor, fit_predictor
from talkhead.errors import PackageError, TalkheadError
from talkhead.identity import (
    MANIFEST_NAME,
    EncoderPart,
    FittedPart,
    IdentityPackage,
    Manifest,
    PackageWriter,
    SourceVideo,
    read_manifest,
)
from talkhead.preprocess.pipeline import (
    PreprocessConfig,
    dataset_key,
    preprocess,
    probe_footage,
)
from talkhead.progress import Progress, SilentProgress
from talkhead.renderers.base import Renderer, config_to_json, renderer_kind
from talkhead.renderers.fit import fit_renderer
from talkhead.storage import read_json, read_tensors, sha256_of, write_tensors
from talkhead.types import FRAME_RATE, Float32, SpeechFeatures, UInt8

DEFAULT_RENDERER = "gaussian"
DEFAULT_ENCODER = "mel"
PRESETS = ("preview", "standard", "high")
SHEET, QUALITY = "sheet.png", "quality.json"
SHEET_COLUMNS = 8


@dataclass(frozen=True)
class FitOptions:
    """How a person is fitted; see fit."""

    preset: str
    renderer: str
    encoder: str
    seed: int
    consent: str | None


@dataclass(frozen=True)
class FitResult:
    """A fitted identity. figures: on the held-out frames, see docs/measures.md."""

    name: str
    package_path: Path
    sheet_path: Path | None
    figures: dict[str, Any]


def fit(
    video: Path | str,
    *,
    name: str | None = None,
    preset: str = "standard",
    renderer: str = DEFAULT_RENDERER,
    encoder: str = DEFAULT_ENCODER,
    device: str = "auto",
    home: Path | str | None = None,
    seed: int = 0,
    consent: str | None = None,
    use_all_frames: bool = False,
    min_face: float = 0.8,
    progress: Progress | None = None,
) -> FitResult:
    """An identity learnt from a video, stored in the home folder under `name`.

    The same call goes on where an interrupted one stopped. Figures come from the last 1/11 of the
    frames, which are not learnt from unless use_all_frames. Raises TalkheadError with what to do.
    """
    video, progress = Path(video), progress or SilentProgress()
    options = FitOptions(preset, renderer, encoder, seed, consent)
    _check(video, options)
    store, chosen_device = Home.locate(home), resolve_device(device)
    name = name or name_from_video(video)
    destination = store.identity_dir(name)
    _check_free(destination, video)
    config = PreprocessConfig(min_face=min_face, use_all_frames=use_all_frames)
    work = store.work_dir(name, dataset_key(video, config))
    seed_everything(seed)
    set_threads()
    dataset = preprocess(video, work / "dataset", config, progress)
    head = _fit_renderer(dataset, work, options, chosen_device, progress)
    features, silent = hear(dataset, encoder)
    predictor = _fit_predictor(dataset, features, silent, work, options, progress)
    figures, sheet = _measure(video, dataset, head, predictor, features, silent, work, progress)
    package = _package(
        video, dataset, head, predictor, figures, sheet, destination, options, progress
    )
    store.remember(name)
    path = package.file(SHEET) if sheet is not None else None
    return FitResult(name, package.path, path, figures)


def _check(video: Path, options: FitOptions) -> None:
    """Raises TalkheadError for what can be said before any work."""
    if options.preset not in PRESETS:
        raise TalkheadError(
            f"there is no preset {options.preset!r}. Choose one of: {', '.join(PRESETS)}"
        )
    renderer_kind(options.renderer)
    if options.encoder not in encoder_names():
        load_encoder(options.encoder)
    probe_footage(video)


def _check_free(destination: Path, video: Path) -> None:
    """Raises TalkheadError when the name belongs to a person fitted from another video."""
    manifest_path = destination / MANIFEST_NAME
    if not manifest_path.is_file():
        return
    try:
        source = read_manifest(read_json(manifest_path), destination).source
    except PackageError:  # damaged or of another version: fitting again is the remedy
        return
    if source.sha256 != sha256_of(video):
        raise TalkheadError(
            f"{destination.name}: an identity of this name was fitted from another video, "
            f"{source.name}. Pass --name, or remove it: talkhead identities remove {destination.name}"
        )


def _fit_renderer(
    dataset: IdentityDataset,
    work: Path,
    options: FitOptions,
    device: torch.device,
    progress: Progress,
) -> Renderer:
    kind = renderer_kind(options.renderer)
    presets = kind.presets()
    config = presets[options.preset]
    checkpoint = work / f"{options.renderer}-{_key(config)}-{options.seed}.safetensors"
    return fit_renderer(
        kind, dataset, config, checkpoint, progress, seed=options.seed, device=device
    )


def _key(config: Any) -> str:
    """A config as 8 hex digits: work under other settings, or by another version, is not gone on with."""
    text = json.dumps([__version__, config_to_json(config)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def hear(dataset: IdentityDataset, encoder: str) -> tuple[SpeechFeatures, np.ndarray[Any, Any]]:
    """Features of a dataset's sound as speak would make them, and its silent frames [F]."""
    silent = dataset.tracks.silent
    powers = measure_loudness([dataset.waveform]).powers
    gain = speech_gain(powers, silent | ~dataset.tracks.train)  # held-out speech sets nothing
    return load_encoder(encoder).encode(dataset.waveform * np.float32(gain)), silent


def _fit_predictor(
    dataset: IdentityDataset,
    features: SpeechFeatures,
    silent: np.ndarray[Any, Any],
    work: Path,
    options: FitOptions,
    progress: Progress,
) -> MotionPredictor:
    config = PREDICTOR_PRESETS[options.preset]
    stored = work / f"predictor-{options.encoder}-{_key(config)}-{options.seed}.safetensors"
    if stored.exists():
        return MotionPredictor.from_tensors(read_tensors(stored), config)
    train = dataset.tracks.train & dataset.tracks.usable
    predictor = fit_predictor(
        features, dataset.tracks.codes, train, silent, dataset.face, config, options.seed, progress
    )
    write_tensors(stored, predictor.tensors())
    return predictor


# ---------------------------------------------------------------------------- measuring


def _measure(
    video: Path,
    dataset: IdentityDataset,
    head: Renderer,
    predictor: MotionPredictor,
    features: SpeechFeatures,
    silent: np.ndarray[Any, Any],
    work: Path,
    progress: Progress,
) -> tuple[dict[str, Any], Path | None]:
    """Figures on the held-out frames and a sheet of real, rendered and pasted ones.

    None of either where no frame was held out.
    """
    if dataset.tracks.train.all():
        return {}, None
    frames = held_out_frames(dataset)
    frames = frames[dataset.tracks.usable[frames]]
    if len(frames) < 5:
        return {}, None
    spoken = predictor.predict(features, silent, len(dataset))
    tracked = evaluate_renderer(head, dataset, frames, progress)
    pasted = evaluate_pairs(_pasted(video, dataset, head, frames))
    figures = {
        "tracked_codes": tracked.to_json(),
        "pasted": pasted.to_json(),
        "speech_driven": speech_figures(dataset, spoken, frames),
    }
    sheet = work / SHEET
    _write_sheet(video, dataset, head, spoken, frames, sheet)
    return figures, sheet


def speech_figures(dataset: IdentityDataset, spoken: Float32, frames: Any) -> dict[str, Any]:
    """Mouth landmark distance in source pixels of predicted codes [F, K], and of a mean mouth."""
    tracks = dataset.tracks
    learnt = tracks.train & tracks.usable
    mean = np.repeat(tracks.codes[learnt].mean(0)[None], len(dataset), axis=0)

    def distance(codes: Float32) -> float:
        vertices = dataset.face.vertices(codes[frames]).astype(np.float64)
        pixels = project(vertices, tracks.viewmats[frames].astype(np.float64), dataset.intrinsics)
        return round(float(lmd(pixels, tracks.landmarks[frames][..., :2]).mean()), 3)

    return {"lmd_px": distance(spoken), "lmd_mean_mouth_px": distance(mean)}


def _pasted(video: Path, dataset: IdentityDataset, head: Renderer, frames: Any) -> Any:
    """Pairs (real, pasted) of whole frames, with the tracked codes."""
    for frame, number, make in _held_out_clip(video, dataset, head, frames):
        yield frame, make(frame, number, dataset.tracks.codes[number + int(frames[0])])


def _held_out_clip(video: Path, dataset: IdentityDataset, head: Renderer, frames: Any) -> Any:
    """Whole frames from the first held-out one on, their number in that clip, and the paster."""
    first, after = int(frames[0]), int(frames[-1]) + 1
    make = paste_frame_maker(head, clip_of(dataset, video, slice(first, after)))
    wanted = set(frames.tolist())
    source = media.read_frames(video, start_s=first / FRAME_RATE, n_frames=after - first)
    with closing(source):
        for number, frame in enumerate(source):
            if number + first in wanted:
                yield frame, number, make


def _write_sheet(
    video: Path,
    dataset: IdentityDataset,
    head: Renderer,
    spoken: Float32,
    frames: Any,
    path: Path,
) -> None:
    """Rows real, rendered (tracked codes), pasted (codes from the sound)."""
    chosen = frames[spread(len(frames), SHEET_COLUMNS)]
    info = dataset.info
    size = (info.crop_height, info.crop_width)
    pasted: list[UInt8] = []
    for frame, number, make in _held_out_clip(video, dataset, head, chosen):
        index = number + int(chosen[0])
        whole = make(frame, number, spoken[index])
        pasted.append(cut_crop(whole, dataset.tracks.origins[index], size, info.scale))
    rows = [
        ("real", [dataset.frames[i] for i in chosen]),
        ("rendered, tracked motion", list(rendered_crops(head, dataset, chosen))),
        ("pasted, driven by the sound", pasted),
    ]
    contact_sheet(rows, path, f"{info.video}: held-out frames")


# ---------------------------------------------------------------------------- packaging


def _package(
    video: Path,
    dataset: IdentityDataset,
    head: Renderer,
    predictor: MotionPredictor,
    figures: dict[str, Any],
    sheet: Path | None,
    destination: Path,
    options: FitOptions,
    progress: Progress,
) -> IdentityPackage:
    info = media.probe(video)
    with PackageWriter(destination) as writer:
        n_idle = save_idle(video, dataset, writer, progress)
        renderer_file, predictor_file = f"{options.renderer}.safetensors", "predictor.safetensors"
        writer.add_tensors(renderer_file, head.tensors())
        writer.add_tensors(predictor_file, predictor.tensors())
        writer.add_file(QUALITY, dataset.path / QUALITY)
        if sheet is not None:
            writer.add_file(SHEET, sheet)
        manifest = Manifest(
            name=destination.name,
            seed=options.seed,
            preset=options.preset,
            source=SourceVideo(
                video.name,
                sha256_of(video),
                info.duration_s,
                info.width,
                info.height,
                info.frame_rate,
            ),
            encoder=EncoderPart(options.encoder),
            predictor=FittedPart(predictor_file, asdict(predictor.config)),
            renderers={options.renderer: FittedPart(renderer_file, config_to_json(head.config))},
            default_renderer=options.renderer,
            frame_width=info.width,
            frame_height=info.height,
            n_frames=n_idle,
            av_offset_ms=dataset.info.av_offset_ms,
            consent=options.consent,
            figures=figures,
        )
        return writer.finish(manifest)
