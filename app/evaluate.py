"""Evaluate an identity on held-out footage, or one video against another, and write a report."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from talkhead import media
from talkhead.app.avatar import encode_footage, load_encoder_for, load_predictor, load_renderer
from talkhead.app.checks import check_evaluate, check_report
from talkhead.app.composer.idle_clip import load_face
from talkhead.app.evaluation.audio import AudioAnalysis, analyze_audio, excerpt
from talkhead.app.evaluation.cross_validation import few_frames
from talkhead.app.evaluation.evaluate_folds import (
    PredictorRecipe,
    check_clip,
    cross_validate,
    suggestion,
)
from talkhead.app.evaluation.evaluate_identity import (
    Clip,
    EvaluationTarget,
    IdentityEvaluation,
    measure_identity,
    measure_recording,
)
from talkhead.app.evaluation.evaluate_pair import Pair, align, measure_pair
from talkhead.app.evaluation.measure_validity import measure_validity
from talkhead.app.evaluation.measures.av_offset import clip_offset
from talkhead.app.evaluation.measures.lpips import Perceptual, lpips_unavailable_reason
from talkhead.app.evaluation.measures.sync_model import (
    SyncModel,
    sync_model_accuracy,
    was_trained_on,
)
from talkhead.app.evaluation.measures.syncnet import load_syncnet, syncnet_unavailable_reason
from talkhead.app.evaluation.options import (
    EvaluateKeywords,
    EvaluateOptions,
    evaluate_options,
)
from talkhead.app.evaluation.reference import held_out_frames
from talkhead.app.evaluation.report.html import write_report
from talkhead.app.evaluation.report.images import identity_pictures, pair_pictures, write_wav
from talkhead.app.evaluation.results import (
    MADE_VIDEO,
    PASTED_SPEECH_DRIVEN,
    SPEECH_DRIVEN,
    CrossValidation,
    Report,
    Variant,
)
from talkhead.app.evaluation.variant import MeasurementTools
from talkhead.app.footage_checks import little_speech
from talkhead.app.home.identities import Home
from talkhead.app.request import path_of
from talkhead.app.workspace import STAGES, find_footage, prepare_locked
from talkhead.dataset import IdentityDataset
from talkhead.device import resolve_device, set_threads
from talkhead.errors import TalkheadError
from talkhead.identity import IdentityPackage
from talkhead.preprocess.pipeline import PreprocessConfig
from talkhead.progress import Progress, SilentProgress
from talkhead.samples import LINE_TEXT
from talkhead.stage_timer import read_stages
from talkhead.storage import sha256_of
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32, MediaInfo

if TYPE_CHECKING:
    from typing_extensions import Unpack

FILE_REMEDY = "Write arrays to a file first"
RECORDING_SECONDS = 20.0
"""Longest part of the other recording that is evaluated, in seconds."""


@dataclass(frozen=True)
class EvaluateResult:
    """Result of an evaluation.

    Attributes:
        report_path: The page, report.html.
        report: Its contents.
    """

    report_path: Path
    report: Report


def evaluate(
    identity: str | Path | None = None,
    *,
    audio: Path | str | None = None,
    video: Path | str | None = None,
    report: Path | str | None = None,
    home: Path | str | None = None,
    options: EvaluateOptions | None = None,
    progress: Progress | None = None,
    **settings: Unpack[EvaluateKeywords],
) -> EvaluateResult:
    """Evaluate an identity on the held-out last 1/11 of its footage.

    Args:
        identity: A name, or the folder of a package; None for the one fitted last.
        audio: Another recording to speak, evaluated without real frames. None: the sample recording.
        video: The footage, if it is no longer where `fit` found it.
        report: The folder to write to; by default in the home folder.
        home: The folder with identities and reports. None: `TALKHEAD_HOME`, or the user's data folder.
        options: Transcript, language, length, renderer, folds and device.
        progress: Shows the progress; by default nothing is shown.
        **settings: Any field of `EvaluateOptions`, in place of `options`: text, language, seconds,
            renderer, folds, device.

    Returns:
        The report and its path.

    Raises:
        TalkheadError: The evaluation is not possible; the message says what to do.
    """
    options, progress = evaluate_options(options, settings), progress or SilentProgress()
    store = Home.locate(home)
    package = store.load(identity)
    folder = Path(report) if report is not None else store.report_path(package.manifest.name)
    audio = None if audio is None else path_of(audio, "audio", FILE_REMEDY)
    video = None if video is None else path_of(video, "video", FILE_REMEDY)
    renderer, device = options.renderer, options.device
    check_evaluate(identity, audio, video, folder, renderer=renderer, device=device, home=home)
    footage, work = find_footage(store, package, video)
    set_threads()
    name = package.manifest.name
    dataset = prepare_locked(store, name, footage, work, PreprocessConfig(), progress)
    dataset = dataset.matched(load_face(package))
    if options.folds:
        check_clip(dataset, options.folds)
    target = _target(package, footage.path, dataset, options)
    tools, left_out = make_tools()
    clip = Clip.of(dataset, target.frames, options)
    measured = measure_identity(target, clip.audio_of(target), tools, progress)
    cross, facts = _cross(package, target, audio, tools, options.language, progress)
    result = Report(
        title=f"Evaluation of {package.manifest.name}",
        facts=_facts(target, package.manifest.preset) | facts,
        variants=measured.variants,
        cross=(clip.own_variant(tools), *cross) if cross else (),
        offset=clip_offset(
            clip.waveform,
            clip.landmarks,
            clip.analysis.audio.phones if clip.analysis.audio else None,
            tools.sync_model,
            dataset.info.av_offset_ms,
        ),
        validity=measure_validity(measured.variants, SPEECH_DRIVEN),
        stages=(*read_stages(work / STAGES), *measured.stages),
        warnings=_non_empty(
            few_frames(len(target.frames)),
            "" if options.folds else suggestion(dataset, name),
            _little_speech_warning(dataset),
            _training_data_warning(footage.path.name, footage.sha256),
        ),
        left_out=(*left_out, *clip.analysis.left_out),
        cross_validation=_cross_validation(package, dataset, options.folds, progress),
    )
    return EvaluateResult(_write(result, target, measured, folder), result)


def report_brief(
    target: EvaluationTarget, preset: str, work: Path, folder: Path, progress: Progress
) -> EvaluateResult:
    """Write the report that `fit` ends with, without phonemes, other recordings and slow measures.

    Args:
        target: The identity and the frames.
        preset: The preset it was fitted with.
        work: The work folder, for the times of the stages.
        folder: The folder to write to.
        progress: Shows the progress.

    Returns:
        The report and its path.
    """
    tools, left_out = make_tools()
    options = EvaluateOptions()
    clip = Clip.of(target.dataset, target.frames, options, phones=False)
    measured = measure_identity(target, clip.audio_of(target), tools, progress, brief=True)
    result = Report(
        title=f"Brief evaluation of {folder.name}",
        facts=_facts(target, preset),
        variants=measured.variants,
        cross=(),
        offset=None,
        validity=measure_validity(measured.variants, PASTED_SPEECH_DRIVEN),
        stages=(*read_stages(work / STAGES), *measured.stages),
        warnings=_non_empty(
            few_frames(len(target.frames)),
            suggestion(target.dataset, folder.name),
            _little_speech_warning(target.dataset),
        ),
        left_out=(f"the full report: talkhead evaluate {folder.name}", *left_out),
    )
    return EvaluateResult(_write(result, target, measured, folder), result)


def _little_speech_warning(dataset: IdentityDataset) -> str:
    """Warn if the lips were trained on little speech; "" otherwise."""
    return little_speech(float((~dataset.tracks.silent & dataset.tracks.train).sum() / FRAME_RATE))


def _training_data_warning(name: str, sha256: str) -> str:
    """Warn if the sync model was trained on a video; "" otherwise."""
    if not was_trained_on(sha256):
        return ""
    return f"{name}: the sync model was trained on it; its results on it prove nothing"


def _non_empty(*lines: str) -> tuple[str, ...]:
    return tuple(line for line in lines if line)


def _write(
    result: Report, target: EvaluationTarget, measured: IdentityEvaluation, folder: Path
) -> Path:
    """Write a report with its pictures; return the path of the page."""
    with tempfile.TemporaryDirectory(prefix="talkhead-") as scratch:
        return write_report(result, identity_pictures(target, measured, Path(scratch)), folder)


# --------------------------------------------------------------------------- the identity


def _target(
    package: IdentityPackage,
    video: Path,
    dataset: IdentityDataset,
    options: EvaluateOptions,
) -> EvaluationTarget:
    """Load what is evaluated of a package."""
    name, _ = package.renderer(options.renderer)
    features = encode_footage(dataset, load_encoder_for(package))
    return EvaluationTarget(
        video=video,
        dataset=dataset,
        renderer=load_renderer(package, name, resolve_device(options.device)),
        spoken=load_predictor(package).predict(features, dataset.tracks.silent, len(dataset)),
        frames=held_out_frames(dataset)[: options.n_frames],
    )


def _facts(target: EvaluationTarget, preset: str) -> dict[str, str]:
    """Describe what is evaluated."""
    info, frames = target.dataset.info, target.frames
    seconds = len(target.dataset) / FRAME_RATE
    return {
        "footage": f"{info.video}, {info.width}x{info.height}, {seconds:.1f} s",
        "evaluated": f"{len(frames)} held-out frames, {frames[0]} to {frames[-1]}",
        "head crop": f"{info.crop_width}x{info.crop_height} at scale {info.scale:g}",
        "renderer": f"{target.renderer.name}, preset {preset}",
        "audio": f"was shifted by {info.av_offset_ms:.0f} ms before training",
        "sync model": _sync_model_facts(),
    }


def _cross_validation(
    package: IdentityPackage, dataset: IdentityDataset, n_folds: int, progress: Progress
) -> CrossValidation | None:
    """Cross-validate the lips of an identity; None for 0 folds."""
    if not n_folds:
        return None
    return cross_validate(dataset, PredictorRecipe.of(package), n_folds, progress)


def _sync_model_facts() -> str:
    """Describe how well the sync model finds known shifts of real video."""
    share = sync_model_accuracy()
    return (
        f"finds {share['grid_45']:.0%} of known shifts within a frame in 1.8 s of its training speaker, "
        f"{share['other_71s_45']:.0%} and {share['other_50s_45']:.0%} of two unseen speakers, "
        f"{share['other_71s_250']:.0%} and {share['other_50s_250']:.0%} in 10 s; chance is 10 %"
    )


def _cross(
    package: IdentityPackage,
    target: EvaluationTarget,
    audio: Path | str | None,
    tools: MeasurementTools,
    language: str,
    progress: Progress,
) -> tuple[tuple[Variant, ...], dict[str, str]]:
    """Measure another recording, or with None the sample's, whose text is known, and describe it."""
    text, language = (LINE_TEXT, "en") if audio is None else (None, language)
    with tempfile.TemporaryDirectory(prefix="talkhead-") as scratch, _recording(audio) as path:
        waveform = _beginning(path, RECORDING_SECONDS)
        beginning = write_wav(Path(scratch) / "line.wav", waveform)
        n_frames = round(len(waveform) / SAMPLE_RATE * FRAME_RATE)
        analysis = analyze_audio(waveform, n_frames, text=text, language=language)
        if analysis.audio is None:
            return (), {"other recording": f"{path.name}: no speech was detected in it"}
        variants = measure_recording(
            package, target.renderer, beginning, analysis.audio, tools, progress
        )
    return variants, {"other recording": f"{path.name}, its first {n_frames / FRAME_RATE:.1f} s"}


def _beginning(path: Path, seconds: float) -> Float32:
    """Read the first seconds of a file's audio: samples [n_samples], 16 kHz."""
    return next(media.read_audio_chunks(path, SAMPLE_RATE, seconds), np.zeros(0, np.float32))


@contextmanager
def _recording(audio: Path | str | None) -> Iterator[Path]:
    """Provide the path of the given recording, or of the sample's."""
    if audio is not None:
        yield Path(audio)
        return
    with as_file(files("talkhead.samples").joinpath("line.wav")) as path:
        yield path


def make_tools() -> tuple[MeasurementTools, tuple[str, ...]]:
    """Load the models that measures need.

    Returns:
        The models, and a line for each measure that is not available here.
    """
    missing = lpips_unavailable_reason()
    perceptual = None if missing else Perceptual.load()
    left_out = _non_empty(missing, syncnet_unavailable_reason())
    return MeasurementTools(SyncModel.load(), perceptual, load_syncnet()), left_out


# ------------------------------------------------------------------------------- pairs


def evaluate_pair(
    real: Path | str,
    made: Path | str,
    *,
    report: Path | str | None = None,
    options: EvaluateOptions | None = None,
    progress: Progress | None = None,
) -> EvaluateResult:
    """Compare a made video of a face with the real one, frame by frame from their beginnings.

    Args:
        real: The real video.
        made: The made video.
        report: The folder to write to; by default MADE-report in the current folder.
        options: Transcript, language and length.
        progress: Shows the progress; by default nothing is shown.

    Returns:
        The report and its path.

    Raises:
        TalkheadError: The videos cannot be compared; the message says what to do.
    """
    real, made = path_of(real, "real", FILE_REMEDY), path_of(made, "made", FILE_REMEDY)
    options, progress = options or EvaluateOptions(), progress or SilentProgress()
    if options.folds:
        raise TalkheadError("folds: videos cannot be cross-validated. Evaluate an identity instead")
    set_threads()
    folder = Path(report) if report is not None else Path(f"{made.stem}-report")
    check_report(folder)
    pair = align(real, made, options.n_frames)
    analyses = tuple(
        _analyze_video(info, pair.n_frames, options) for info in (pair.real, pair.made)
    )
    tools, left_out = make_tools()
    audios = (analyses[0].audio, analyses[1].audio)
    measured = measure_pair(pair, audios, tools, progress)
    audio = audios[0]
    offset = None
    if audio is not None:
        offset = clip_offset(audio.waveform, measured.landmarks, audio.phones, tools.sync_model)
    known = [_training_data_warning(video.name, sha256_of(video)) for video in (real, made)]
    result = Report(
        title=f"{made.name} against {real.name}",
        facts=_pair_facts(pair),
        variants=measured.variants,
        cross=(),
        offset=offset,
        validity=measure_validity(measured.variants, MADE_VIDEO),
        stages=(),
        warnings=_non_empty(*pair.warnings, few_frames(pair.n_frames), *known),
        left_out=(*left_out, *dict.fromkeys(analyses[0].left_out + analyses[1].left_out)),
    )
    waveform = None if audios[1] is None else audios[1].waveform
    with tempfile.TemporaryDirectory(prefix="talkhead-") as scratch:
        pictures = pair_pictures(pair, measured, waveform, Path(scratch))
        return EvaluateResult(write_report(result, pictures, folder), result)


def _analyze_video(info: MediaInfo, n_frames: int, options: EvaluateOptions) -> AudioAnalysis:
    """Analyze the audio of a video's first n_frames; all of it if its text is given."""
    if not info.has_audio:
        return AudioAnalysis(None, (f"{info.path.name}: phonemes and sync: it has no sound",))
    name, language = info.path.name, options.language
    if options.text is None:
        waveform = _beginning(info.path, n_frames / FRAME_RATE)
        return analyze_audio(waveform, n_frames, language=language, name=name)
    waveform = media.read_audio(info.path, SAMPLE_RATE)
    n_all = max(n_frames, len(waveform) * FRAME_RATE // SAMPLE_RATE)
    analysis = analyze_audio(waveform, n_all, text=options.text, language=language, name=name)
    if analysis.audio is None:
        return analysis
    return replace(analysis, audio=excerpt(analysis.audio, 0, n_frames))


def _pair_facts(pair: Pair) -> Mapping[str, str]:
    """Describe the two videos."""

    def text(info: MediaInfo) -> str:
        return (
            f"{info.path.name}, {info.width}x{info.height}, {info.duration_s:.2f} s at "
            f"{info.frame_rate:.2f} frames per second"
        )

    return {
        "real": text(pair.real),
        "made": text(pair.made),
        "evaluated": f"{pair.n_frames} frames at {FRAME_RATE} per second",
        "sync model": _sync_model_facts(),
    }
