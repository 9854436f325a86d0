"""Fit an identity to footage of a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from talkhead import __version__
from talkhead.app.avatar import ENCODER_VERSION_KEY, encode_footage, normalized_footage_audio
from talkhead.app.checks import check_fit
from talkhead.app.clips import join_clips
from talkhead.app.composer.idle_clip import FACE, save_idle
from talkhead.app.evaluate import report_brief
from talkhead.app.evaluation.evaluate_identity import EvaluationTarget
from talkhead.app.evaluation.reference import held_out_frames
from talkhead.app.evaluation.report.html import describe
from talkhead.app.evaluation.report.images import write_sheet
from talkhead.app.evaluation.results import Variant, plain
from talkhead.app.footage_checks import CHECKING_SPEECH, check_speech, explained
from talkhead.app.home.footage import fitted_sha256s
from talkhead.app.home.identities import (
    CLIPS,
    QUALITY,
    SHEET,
    SOURCE,
    USES_ALL,
    Home,
    name_from_video,
)
from talkhead.app.home.locking import lock_identity
from talkhead.app.options import FitOptions, fit_options
from talkhead.app.request import path_of
from talkhead.app.workspace import STAGES, is_prepared, motion_version, prepare
from talkhead.config import to_json
from talkhead.dataset import IdentityDataset
from talkhead.device import resolve_device, seed_everything, set_threads
from talkhead.encoder.base import SpeechEncoder
from talkhead.encoder.predictor.augmented import augmented_features
from talkhead.encoder.predictor.model import MotionPredictor, PredictorTrainingData, fit_predictor
from talkhead.encoder.predictor.network import PRESETS as PREDICTOR_PRESETS
from talkhead.encoder.predictor.prior import shipped_prior
from talkhead.encoder.predictor.voices import other_voices, voices_version
from talkhead.encoder.registry import WEIGHTS_SUFFIX, load_encoder
from talkhead.encoder.vad import vad_version
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
from talkhead.types import FRAME_RATE, SpeechFeatures

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from talkhead.app.options import FitKeywords

STEPS = (
    CHECKING_SPEECH,
    "Tracking the face",
    "Estimating head poses",
    "Measuring the audio offset",
    "Cutting out the head",
    "Background behind the person",
    "Fitting a quick head",
    "Refining the motion",
    "Fitting the renderer",
    "Fitting the predictor",
    "Measuring held-out frames",
    "Writing the idle clip",
)
"""Names of the progress steps of a fit, in order; long footage has one more step."""
VIDEO_REMEDY = "To use frames in arrays, write them with talkhead.media.write_video first"
MIN_HELD_OUT = 5
"""With fewer usable held-out frames than this, nothing is evaluated."""


@dataclass(frozen=True)
class FitResult:
    """The result of `fit`.

    Attributes:
        name: Name of the identity.
        package_path: Folder of the package.
        sheet_path: Contact sheet of held-out frames. None if there are none.
        report_path: Brief report. None if there are no held-out frames.
        figures: Metrics of each variant of the held-out frames; docs/measures.md explains them.
        summary: The metrics as text; "" if there are no held-out frames.
    """

    name: str
    package_path: Path
    sheet_path: Path | None
    report_path: Path | None
    figures: dict[str, Any]
    summary: str


def fit(
    video: Path | str | Sequence[Path | str],
    *,
    name: str | None = None,
    options: FitOptions | None = None,
    device: str = "auto",
    home: Path | str | None = None,
    progress: Progress | None = None,
    **settings: Unpack[FitKeywords],
) -> FitResult:
    """Fit an identity to a video of a person, and store it in the home folder.

    An interrupted fit resumes when the same call is repeated. The metrics come from the last 1/11 of
    the frames, or of those of the first clip, on which nothing is trained unless `use_all_frames` is
    set.

    Args:
        video: Video of the person, with audio, or several clips. The first one determines how the person
            looks; the images of others are used if they look like it, their speech in any case.
        name: Name of the identity. None: made from the name of the first video.
        options: Options of the fit. None: the defaults.
        device: "auto", "cpu", "cuda" or "cuda:N".
        home: Folder of the identities. None: `TALKHEAD_HOME`, or the user's data folder.
        progress: Receives the progress. None: nothing is shown.
        **settings: Any field of `FitOptions`, instead of `options`: preset, renderer, encoder, seed,
            consent, use_all_frames, min_face, check_speech, wait.

    Returns:
        The name of the identity, where it is stored, and its metrics.

    Raises:
        FootageError: The footage is not usable.
        TalkheadError: The fit cannot be carried out. The message says what to change.
    """
    given = [video] if isinstance(video, str) or not isinstance(video, Sequence) else video
    videos = [path_of(one, "video", VIDEO_REMEDY) for one in given]
    progress = progress or SilentProgress()
    options = fit_options(options, settings)
    check_fit(videos, name, device=device, home=home)
    if options.encoder.endswith(WEIGHTS_SUFFIX):  # as an absolute path, so that speak finds it
        options = replace(options, encoder=str(Path(options.encoder).resolve()))
    fitting = _Fit(
        name or name_from_video(videos[0]),
        Home.locate(home),
        options,
        load_encoder(options.encoder),
        resolve_device(device),
        NumberedProgress(progress, STEPS),
    )
    with lock_identity(fitting.home, fitting.name, fitting.progress, wait=options.wait):
        return fitting.run(fitting.footage(videos))


@dataclass(frozen=True)
class _Fit:
    """A fit whose identity is locked."""

    name: str
    home: Home
    options: FitOptions
    encoder: SpeechEncoder
    device: torch.device
    progress: Progress

    def footage(self, videos: Sequence[Path]) -> Footage:
        """Open the video, or join several. Raises TalkheadError if they are not usable."""
        self._check_free(videos)
        if len(videos) == 1:
            return Footage.open(videos[0])
        min_face, progress = self.options.min_face, self.progress
        return join_clips(self.home, self.name, videos, min_face, progress)

    def run(self, footage: Footage) -> FitResult:
        """Fit the identity, or resume an interrupted fit."""
        video, options, progress = footage.path, self.options, self.progress
        config = PreprocessConfig(min_face=options.min_face, use_all_frames=options.use_all_frames)
        work = self.home.work_path(self.name, dataset_key(footage.sha256, config, vad_version()))
        if not is_prepared(work):
            required = options.check_speech
            check_speech(video, progress, required=required, title=footage.title)
        make_folder(work)
        record: dict[str, Any] = {"path": str(video.resolve()), "sha256": footage.sha256}
        if footage.clips:
            record[CLIPS] = [clip.path for clip in footage.clips]
        write_json(work / SOURCE, record)
        clock = StageClock(work / STAGES)
        seed_everything(options.seed)
        set_threads()
        with clock.stage("preparing the footage"):
            dataset = self._prepare(footage, work, config)
        with clock.stage(f"fitting the {options.renderer} renderer, {options.preset}"):
            renderer = self._fit_renderer(dataset, work)
        with clock.stage("fitting the predictor"):
            features = encode_footage(dataset, self.encoder)
            predictor = self._fit_predictor(dataset, features, work)
        with clock.stage("measuring held-out frames"):
            target = _evaluation_target(video, dataset, renderer, predictor, features)
            brief, sheet = None, None
            if target is not None:
                folder = self.home.report_path(self.name)
                brief = report_brief(target, options.preset, work, folder, progress)
                sheet = write_sheet(target, work / SHEET)
        figures = (
            {}
            if brief is None
            else {variant.name: _figures(variant) for variant in brief.report.variants}
        )
        with clock.stage("packing"):
            fitted = _Fitted(renderer, predictor, figures, sheet)
            package = self._package(footage, dataset, fitted)
        self.home.remember(self.name)
        path = package.file(SHEET) if sheet is not None else None
        report = None if brief is None else brief.report_path
        summary = "" if brief is None else describe(brief.report)
        return FitResult(self.name, package.path, path, report, figures, summary)

    def _check_free(self, videos: Sequence[Path]) -> None:
        """Raise TalkheadError if the name belongs to an identity fitted from other videos.

        Several clips are recognized by their own content: that of the joined video depends on the
        machine.
        """
        destination = self.home.identity_dir(self.name)
        manifest_path = destination / MANIFEST_NAME
        if not manifest_path.is_file():
            return
        try:
            manifest = read_manifest(read_json(manifest_path), destination)
        except PackageError:  # damaged or of another version: fitting again is the remedy
            return
        known = fitted_sha256s(manifest)
        if known != [sha256_of(video) for video in videos]:
            raise TalkheadError(
                f"{self.name}: an identity of this name was fitted from another video, "
                f"{manifest.source.name}. Pass --name, or remove it: talkhead identities remove "
                f"{self.name}"
            )

    def _prepare(self, footage: Footage, work: Path, config: PreprocessConfig) -> IdentityDataset:
        """Preprocess the footage and refine its motion. Raises FootageError."""
        on_cpu = self.device if self.device.type == "cpu" else None
        try:
            return prepare(footage, work, config, self.progress, on_cpu)
        except FootageError as error:
            raise explained(error, footage.path) from error

    def _fit_renderer(self, dataset: IdentityDataset, work: Path) -> Renderer:
        renderer_class, seed = get_renderer(self.options.renderer), self.options.seed
        preset = renderer_class.presets[self.options.preset]
        config = renderer_class.config_for_device(preset, self.device)
        checkpoint = work / f"{self.options.renderer}-{_key(config)}-{seed}.safetensors"
        return fit_renderer(
            renderer_class,
            dataset,
            config,
            checkpoint,
            self.progress,
            seed=seed,
            device=self.device,
        )

    def _fit_predictor(
        self, dataset: IdentityDataset, features: SpeechFeatures, work: Path
    ) -> MotionPredictor:
        """Fit the motion predictor, or read the one that an interrupted fit has stored."""
        config, seed = PREDICTOR_PRESETS[self.options.preset], self.options.seed
        encoder = f"{self.encoder.name}-{self.encoder.version}"
        key = f"{_key(config)}-{voices_version()}"
        stored = work / f"predictor-{encoder}-{key}-{seed}.safetensors"
        if stored.exists():
            with content_errors(stored, ADVICE):
                return MotionPredictor.from_tensors(read_tensors(stored), config)
        prior = shipped_prior(self.encoder, config)
        tracks = dataset.tracks
        data = PredictorTrainingData(
            features,
            tracks.codes,
            tracks.train & tracks.usable,
            tracks.silent,
            dataset.face,
            augmented_features(self.encoder, normalized_footage_audio(dataset), seed),
            other_voices(self.encoder),
        )
        predictor = fit_predictor(data, config, seed, self.progress, prior)
        write_tensors(stored, predictor.tensors())
        return predictor

    def _package(
        self, footage: Footage, dataset: IdentityDataset, fitted: _Fitted
    ) -> IdentityPackage:
        """Write the package; it replaces an existing one of that name, but keeps its other
        renderers."""
        options, renderer = self.options, self.options.renderer
        info = footage.info
        destination = self.home.identity_dir(self.name)
        with PackageWriter(destination) as writer:
            n_idle = save_idle(footage.path, dataset, writer, self.progress)
            renderer_file, predictor_file = f"{renderer}.safetensors", "predictor.safetensors"
            old = _replaced(destination, writer)
            kept = _keep_other_renderers(old, renderer, writer)
            writer.add_tensors(
                renderer_file, pack(fitted.renderer.tensors(), fitted.renderer.quantization_steps())
            )
            writer.add_tensors(predictor_file, fitted.predictor.tensors())
            writer.add_file(QUALITY, dataset.path / QUALITY)
            if fitted.sheet is not None:
                writer.add_file(SHEET, fitted.sheet)
            manifest = Manifest(
                name=self.name,
                seed=options.seed,
                preset=options.preset,
                source=SourceVideo(
                    footage.name,
                    footage.sha256,
                    info.duration_s,
                    info.width,
                    info.height,
                    info.frame_rate,
                ),
                encoder=EncoderPart(options.encoder, {ENCODER_VERSION_KEY: self.encoder.version}),
                predictor=FittedPart(predictor_file, asdict(fitted.predictor.config)),
                renderers={
                    **kept,
                    renderer: FittedPart(renderer_file, to_json(fitted.renderer.config)),
                },
                default_renderer=old.manifest.default_renderer if old else renderer,
                frame_width=info.width,
                frame_height=info.height,
                n_frames=n_idle,
                av_offset_ms=dataset.info.av_offset_ms,
                consent=options.consent or (old.manifest.consent if old else None),
                figures=fitted.figures,
                details=_details(footage, dataset),
            )
            return writer.finish(manifest)


@dataclass(frozen=True)
class _Fitted:
    """The parts of a package that a fit has made."""

    renderer: Renderer
    predictor: MotionPredictor
    figures: dict[str, Any]
    sheet: Path | None


def _details(footage: Footage, dataset: IdentityDataset) -> dict[str, Any]:
    """Return the details of a manifest: whether all frames were used, and the clips if several."""
    details: dict[str, Any] = {USES_ALL: True} if dataset.info.uses_all_frames else {}
    if footage.clips:
        details[CLIPS] = [
            {
                "name": Path(clip.path).name,
                "sha256": clip.sha256,
                "duration_s": clip.n_frames / FRAME_RATE,
                "has_images": clip.has_images,
            }
            for clip in footage.clips
        ]
    return details


def _key(config: Any) -> str:
    """Hash a configuration and the versions to 8 hex digits: work with another hash is not
    resumed."""
    state = [__version__, FORMAT_VERSION, motion_version(), to_json(config)]
    return fingerprint(state)[:8]


def _evaluation_target(
    video: Path,
    dataset: IdentityDataset,
    renderer: Renderer,
    predictor: MotionPredictor,
    features: SpeechFeatures,
) -> EvaluationTarget | None:
    """Collect what is evaluated on the held-out frames; None if too few were held out."""
    tracks = dataset.tracks
    if (~tracks.train & tracks.has_image & tracks.unoccluded).sum() < MIN_HELD_OUT:
        return None
    spoken = predictor.predict(features, tracks.silent, len(dataset))
    return EvaluationTarget(video, dataset, renderer, spoken, held_out_frames(dataset))


def _figures(variant: Variant) -> dict[str, Any]:
    """Select the metrics of a variant that a manifest stores."""
    kept = {"images": variant.images, "lips": variant.lips, "sync": variant.sync}
    figures = {key: plain(value) for key, value in kept.items() if value is not None}
    for series in ("lags_ms", "scores"):
        figures.get("sync", {}).pop(series, None)
    return figures


def _replaced(destination: Path, writer: PackageWriter) -> IdentityPackage | None:
    """Load the package that will be replaced; None if there is none, or if it has a different face
    model."""
    try:
        old = IdentityPackage.load(destination)
    except PackageError:  # none, or damaged
        return None
    same = old.manifest.files.get(FACE) == sha256_of(writer.path(FACE))
    return old if same else None


def _keep_other_renderers(
    old: IdentityPackage | None, fitted: str, writer: PackageWriter
) -> dict[str, FittedPart]:
    """Copy the renderers of a replaced package, except the one fitted now, to the new package."""
    if old is None:
        return {}
    kept = {name: part for name, part in old.manifest.renderers.items() if name != fitted}
    for part in kept.values():
        writer.add_file(part.file, old.file(part.file))
    return kept
