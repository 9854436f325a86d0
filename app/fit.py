"""Footage of a person -> an identity package."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from talkhead import __version__
from talkhead.app.arrays import path_of
from talkhead.app.avatar import VERSION, encode_footage, normalized_footage_audio
from talkhead.app.checks import check_fit
from talkhead.app.choices import DEFAULT_PRESET
from talkhead.app.composer.idle_clip import FACE, save_idle
from talkhead.app.evaluate import report_brief
from talkhead.app.evaluation.evaluate_identity import EvaluationTarget
from talkhead.app.evaluation.reference import held_out_frames
from talkhead.app.evaluation.report.html import describe
from talkhead.app.evaluation.report.images import write_sheet
from talkhead.app.evaluation.results import Variant, plain
from talkhead.app.footage_checks import LISTENING, explained
from talkhead.app.footage_checks import check_speech as listen_for_speech
from talkhead.app.home.identities import (
    DEFAULT_RENDERER,
    QUALITY,
    SHEET,
    SOURCE,
    USES_ALL,
    Home,
    name_from_video,
)
from talkhead.app.home.locking import lock_identity
from talkhead.app.workspace import STAGES, is_prepared, motion_version, prepare
from talkhead.config import to_json
from talkhead.dataset import IdentityDataset
from talkhead.device import resolve_device, seed_everything, set_threads
from talkhead.encoder.base import SpeechEncoder
from talkhead.encoder.predictor.augmented import augmented_features
from talkhead.encoder.predictor.model import MotionPredictor, PredictorTrainingData, fit_predictor
from talkhead.encoder.predictor.network import PRESETS as PREDICTOR_PRESETS
from talkhead.encoder.predictor.prior import shipped_prior
from talkhead.encoder.registry import DEFAULT_ENCODER, WEIGHTS_SUFFIX, load_encoder
from talkhead.encoder.vad import silence_version
from talkhead.errors import FootageError, PackageError, TalkheadError
from talkhead.footage import Footage
from talkhead.identity import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    EncoderPart,
    FittedPart,
    IdentityPackage,
    Manifest,
    PackageWriter,
    SourceVideo,
    read_manifest,
)
from talkhead.preprocess.pipeline import PreprocessConfig, dataset_key
from talkhead.progress import NumberedProgress, Progress, SilentProgress
from talkhead.renderers.base import Renderer
from talkhead.renderers.quantization import pack
from talkhead.renderers.registry import get_renderer
from talkhead.renderers.trainer import ADVICE, fit_renderer
from talkhead.stage_timer import StageClock
from talkhead.storage import (
    content_errors,
    fingerprint,
    make_folder,
    read_json,
    read_tensors,
    sha256_of,
    write_json,
    write_tensors,
)
from talkhead.types import SpeechFeatures

STEPS = (
    LISTENING,
    "Tracking the face",
    "Estimating head poses",
    "Measuring the audio offset",
    "Cutting out the head",
    "Background behind the person",
    "Fitting a quick head",
    "Refining the motion",
    "Fitting the renderer",
    "Learning the mouth",
    "Measuring held-out frames",
    "Keeping the idle clip",
)
"""What a fit does, in order, under the names that progress is told; long footage has one step more."""
VIDEO_REMEDY = "Frames as arrays: write them with talkhead.media.write_video first"
MIN_HELD_OUT = 5
"""Fewer usable held-out frames than this are not judged."""


@dataclass(frozen=True)
class FitOptions:
    """How a person is fitted; see fit. encoder: name or file of ears."""

    preset: str
    renderer: str
    encoder: str
    ears: SpeechEncoder
    seed: int
    consent: str | None
    check_speech: bool = True


@dataclass(frozen=True)
class FitResult:
    """A fitted identity. figures: of each take of the held-out frames, see docs/measures.md.
    summary: the same in brief, to be read; "" where no frames were held out."""

    name: str
    package_path: Path
    sheet_path: Path | None
    report_path: Path | None
    figures: dict[str, Any]
    summary: str


def fit(
    video: Path | str,
    *,
    name: str | None = None,
    preset: str = DEFAULT_PRESET,
    renderer: str = DEFAULT_RENDERER,
    encoder: str = DEFAULT_ENCODER,
    device: str = "auto",
    home: Path | str | None = None,
    seed: int = 0,
    consent: str | None = None,
    use_all_frames: bool = False,
    min_face: float = 0.8,
    check_speech: bool = True,
    wait: bool = True,
    progress: Progress | None = None,
) -> FitResult:
    """An identity learnt from a video, stored in the home folder under `name`.

    The same call goes on where an interrupted one stopped. Figures come from the last 1/11 of the
    frames, which are not learnt from unless use_all_frames. check_speech: refuse footage in which
    hardly anything is said. wait: while another process fits an identity of this name. Raises
    TalkheadError with what to do.
    """
    video, progress = path_of(video, "video", VIDEO_REMEDY), progress or SilentProgress()
    if encoder.endswith(WEIGHTS_SUFFIX):
        encoder = str(Path(encoder).resolve())  # where speak will look for it
    check_fit(
        video,
        name,
        preset=preset,
        renderer=renderer,
        encoder=encoder,
        device=device,
        seed=seed,
        min_face=min_face,
        home=home,
    )
    ears = load_encoder(encoder)
    options = FitOptions(preset, renderer, encoder, ears, seed, consent, check_speech)
    progress = NumberedProgress(progress, STEPS)
    store, chosen_device = Home.locate(home), resolve_device(device)
    name = name or name_from_video(video)
    config = PreprocessConfig(min_face=min_face, use_all_frames=use_all_frames)
    with lock_identity(store, name, progress, wait=wait):
        return _fit(Footage.open(video), store, name, options, config, chosen_device, progress)


def _fit(
    footage: Footage,
    store: Home,
    name: str,
    options: FitOptions,
    config: PreprocessConfig,
    device: torch.device,
    progress: Progress,
) -> FitResult:
    """See fit; the identity's lock is held."""
    destination, video = store.identity_dir(name), footage.path
    _check_free(destination, footage)
    work = store.work_path(name, dataset_key(footage.sha256, config, silence_version()))
    if not is_prepared(work):
        listen_for_speech(video, progress, required=options.check_speech)
    make_folder(work)
    write_json(work / SOURCE, {"path": str(video.resolve()), "sha256": footage.sha256})
    clock = StageClock(work / STAGES)
    seed_everything(options.seed)
    set_threads()
    with clock.stage("preparing the footage"):
        on_cpu = device if device.type == "cpu" else None
        try:
            dataset = prepare(footage, work, config, progress, on_cpu)
        except FootageError as error:
            raise explained(error, video) from error
    with clock.stage(f"fitting the {options.renderer} renderer, {options.preset}"):
        head = _fit_renderer(dataset, work, options, device, progress)
    with clock.stage("learning the mouth from the sound"):
        features = encode_footage(dataset, options.ears)
        predictor = _fit_predictor(dataset, features, work, options, progress)
    with clock.stage("measuring held-out frames"):
        subject = _subject(video, dataset, head, predictor, features)
        brief, sheet = None, None
        if subject is not None:
            brief = report_brief(subject, options.preset, work, store.report_path(name), progress)
            sheet = write_sheet(subject, work / SHEET)
    figures = {} if brief is None else {take.name: _figures(take) for take in brief.report.takes}
    with clock.stage("packing"):
        package = _package(
            footage, dataset, head, predictor, figures, sheet, destination, options, progress
        )
    store.remember(name)
    path = package.file(SHEET) if sheet is not None else None
    report = None if brief is None else brief.report_path
    summary = "" if brief is None else describe(brief.report)
    return FitResult(name, package.path, path, report, figures, summary)


def _check_free(destination: Path, footage: Footage) -> None:
    """Raises TalkheadError when the name belongs to a person fitted from another video."""
    manifest_path = destination / MANIFEST_NAME
    if not manifest_path.is_file():
        return
    try:
        source = read_manifest(read_json(manifest_path), destination).source
    except PackageError:  # damaged or of another version: fitting again is the remedy
        return
    if source.sha256 != footage.sha256:
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
    renderer_class = get_renderer(options.renderer)
    config = renderer_class.config_for_device(renderer_class.presets[options.preset], device)
    checkpoint = work / f"{options.renderer}-{_key(config)}-{options.seed}.safetensors"
    return fit_renderer(
        renderer_class, dataset, config, checkpoint, progress, seed=options.seed, device=device
    )


def _key(config: Any) -> str:
    """A config as 8 hex digits: work under other settings, or by another version, is not gone on with."""
    state = [__version__, FORMAT_VERSION, motion_version(), to_json(config)]
    return fingerprint(state)[:8]


def _fit_predictor(
    dataset: IdentityDataset,
    features: SpeechFeatures,
    work: Path,
    options: FitOptions,
    progress: Progress,
) -> MotionPredictor:
    config = PREDICTOR_PRESETS[options.preset]
    heard = f"{options.ears.name}-{options.ears.version}"
    stored = work / f"predictor-{heard}-{_key(config)}-{options.seed}.safetensors"
    if stored.exists():
        with content_errors(stored, ADVICE):
            return MotionPredictor.from_tensors(read_tensors(stored), config)
    prior = shipped_prior(options.ears, config)
    tracks = dataset.tracks
    predictor = fit_predictor(
        PredictorTrainingData(
            features,
            tracks.codes,
            tracks.train & tracks.usable,
            tracks.silent,
            dataset.face,
            augmented_features(options.ears, normalized_footage_audio(dataset), options.seed),
        ),
        config,
        options.seed,
        progress,
        prior,
    )
    write_tensors(stored, predictor.tensors())
    return predictor


# ---------------------------------------------------------------------------- measuring


def _subject(
    video: Path,
    dataset: IdentityDataset,
    head: Renderer,
    predictor: MotionPredictor,
    features: SpeechFeatures,
) -> EvaluationTarget | None:
    """What is judged on the held-out frames; None where too few were held out."""
    tracks = dataset.tracks
    if (~tracks.train & tracks.kept & tracks.clear).sum() < MIN_HELD_OUT:
        return None
    spoken = predictor.predict(features, tracks.silent, len(dataset))
    return EvaluationTarget(video, dataset, head, spoken, held_out_frames(dataset))


def _figures(take: Variant) -> dict[str, Any]:
    """What a manifest keeps of a take."""
    kept = {"images": take.images, "lips": take.lips, "sync": take.sync}
    figures = {key: plain(asdict(value)) for key, value in kept.items() if value is not None}
    for series in ("lags_ms", "scores"):
        figures.get("sync", {}).pop(series, None)
    return figures


# ---------------------------------------------------------------------------- packaging


def _package(
    footage: Footage,
    dataset: IdentityDataset,
    head: Renderer,
    predictor: MotionPredictor,
    figures: dict[str, Any],
    sheet: Path | None,
    destination: Path,
    options: FitOptions,
    progress: Progress,
) -> IdentityPackage:
    video, info = footage.path, footage.info
    with PackageWriter(destination) as writer:
        n_idle = save_idle(video, dataset, writer, progress)
        renderer_file, predictor_file = f"{options.renderer}.safetensors", "predictor.safetensors"
        old = _replaced(destination, writer)
        kept = _keep_other_renderers(old, options.renderer, writer)
        writer.add_tensors(renderer_file, pack(head.tensors(), head.quantization_steps()))
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
                footage.sha256,
                info.duration_s,
                info.width,
                info.height,
                info.frame_rate,
            ),
            encoder=EncoderPart(options.encoder, {VERSION: options.ears.version}),
            predictor=FittedPart(predictor_file, asdict(predictor.config)),
            renderers={
                **kept,
                options.renderer: FittedPart(renderer_file, to_json(head.config)),
            },
            default_renderer=old.manifest.default_renderer if old else options.renderer,
            frame_width=info.width,
            frame_height=info.height,
            n_frames=n_idle,
            av_offset_ms=dataset.info.av_offset_ms,
            consent=options.consent or (old.manifest.consent if old else None),
            figures=figures,
            details={USES_ALL: True} if dataset.info.uses_all_frames else {},
        )
        return writer.finish(manifest)


def _replaced(destination: Path, writer: PackageWriter) -> IdentityPackage | None:
    """The package that is to be replaced, if what it holds besides still fits: of the same face model."""
    try:
        old = IdentityPackage.load(destination)
    except PackageError:  # none, or damaged
        return None
    same = old.manifest.files.get(FACE) == sha256_of(writer.path(FACE))
    return old if same else None


def _keep_other_renderers(
    old: IdentityPackage | None, fitted: str, writer: PackageWriter
) -> dict[str, FittedPart]:
    """The renderers of a replaced package but for the one fitted anew, copied to the new one."""
    if old is None:
        return {}
    kept = {name: part for name, part in old.manifest.renderers.items() if name != fitted}
    for part in kept.values():
        writer.add_file(part.file, old.file(part.file))
    return kept
