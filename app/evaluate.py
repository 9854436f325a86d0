"""How good an identity is, or how near one video comes to another: figures and a report to read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from talkhead import media
from talkhead.app.avatar import encode_footage, load_encoder_for, load_predictor, load_renderer
from talkhead.app.checks import check_evaluate, check_report
from talkhead.app.evaluation.audio import AudioAnalysis, analyze_audio, excerpt
from talkhead.app.evaluation.cross_validation import few_frames
from talkhead.app.evaluation.evaluate_identity import (
    Clip,
    EvaluateOptions,
    EvaluationTarget,
    IdentityEvaluation,
    measure_identity,
    measure_line,
)
from talkhead.app.evaluation.evaluate_pair import Pair, align, measure_pair
from talkhead.app.evaluation.measure_validity import rankings
from talkhead.app.evaluation.measures.av_offset import clip_offset
from talkhead.app.evaluation.measures.lpips import Perceptual, lpips_unavailable_reason
from talkhead.app.evaluation.measures.sync_model import (
    SyncModel,
    sync_model_accuracy,
    was_trained_on,
)
from talkhead.app.evaluation.measures.syncnet import load_syncnet, syncnet_unavailable_reason
from talkhead.app.evaluation.reference import held_out_frames
from talkhead.app.evaluation.report.html import write_report
from talkhead.app.evaluation.report.images import identity_pictures, pair_pictures, write_wav
from talkhead.app.evaluation.results import MADE, PASTED, SPOKEN, Report, Variant
from talkhead.app.evaluation.variant import MeasurementTools
from talkhead.app.footage_checks import little_speech
from talkhead.app.home.identities import Home
from talkhead.app.request import path_of
from talkhead.app.workspace import STAGES, find_footage, prepare_locked
from talkhead.dataset import IdentityDataset
from talkhead.device import resolve_device, set_threads
from talkhead.identity import IdentityPackage
from talkhead.preprocess.pipeline import PreprocessConfig
from talkhead.progress import Progress, SilentProgress
from talkhead.samples import LINE_TEXT
from talkhead.stage_timer import read_stages
from talkhead.storage import sha256_of
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32, MediaInfo

FILE_REMEDY = "Write arrays to a file first"
LINE_SECONDS = 20.0
"""As much of another line is judged at most."""


@dataclass(frozen=True)
class EvaluateResult:
    """Where the report is, and what is in it."""

    report_path: Path
    report: Report


def evaluate(
    identity: str | Path | None = None,
    *,
    audio: Path | str | None = None,
    video: Path | str | None = None,
    report: Path | str | None = None,
    renderer: str | None = None,
    device: str = "auto",
    home: Path | str | None = None,
    options: EvaluateOptions | None = None,
    progress: Progress | None = None,
) -> EvaluateResult:
    """How good an identity is on the last 1/11 of its footage, which it has not learnt from.

    identity: a name, a package's folder, or None for the one fitted last. audio: another line, to be
    judged without real frames; the sample's by default. video: the footage, where it is no longer
    where `fit` found it. report: the folder to write to, by default in the home folder. Raises
    TalkheadError with what to do about it.
    """
    options, progress = options or EvaluateOptions(), progress or SilentProgress()
    store = Home.locate(home)
    package = store.load(identity)
    folder = Path(report) if report is not None else store.report_path(package.manifest.name)
    audio = None if audio is None else path_of(audio, "audio", FILE_REMEDY)
    video = None if video is None else path_of(video, "video", FILE_REMEDY)
    check_evaluate(identity, audio, video, folder, renderer=renderer, device=device, home=home)
    footage, work = find_footage(store, package, video)
    set_threads()
    name = package.manifest.name
    dataset = prepare_locked(store, name, footage, work, PreprocessConfig(), progress)
    subject = _subject(package, footage.path, dataset, renderer, device, options)
    instruments, left_out = make_tools()
    clip = Clip.of(dataset, subject.numbers, options)
    judged = measure_identity(subject, clip.sound_of(subject), instruments, progress)
    cross, words = _cross(package, subject, audio, instruments, options.language, progress)
    result = Report(
        title=f"{package.manifest.name}: how good is it?",
        facts=_facts(subject, package.manifest.preset) | words,
        takes=judged.takes,
        cross=(clip.own_take(instruments), *cross) if cross else (),
        offset=clip_offset(
            clip.waveform,
            clip.landmarks,
            clip.hearing.sound.phones if clip.hearing.sound else None,
            instruments.judge,
            dataset.info.av_offset_ms,
        ),
        rankings=rankings(judged.takes, SPOKEN),
        stages=(*read_stages(work / STAGES), *judged.stages),
        warnings=_warnings(
            few_frames(len(subject.numbers)),
            _speech_learnt(dataset),
            _known(footage.path.name, footage.sha256),
        ),
        left_out=(*left_out, *clip.hearing.left_out),
    )
    return EvaluateResult(_write(result, subject, judged, folder), result)


def report_brief(
    subject: EvaluationTarget, preset: str, work: Path, folder: Path, progress: Progress
) -> EvaluateResult:
    """The report that `fit` ends with: without phonemes, other lines and what else takes long."""
    instruments, left_out = make_tools()
    options = EvaluateOptions()
    clip = Clip.of(subject.dataset, subject.numbers, options, phones=False)
    judged = measure_identity(subject, clip.sound_of(subject), instruments, progress, brief=True)
    result = Report(
        title=f"{folder.name}: the fit in brief",
        facts=_facts(subject, preset),
        takes=judged.takes,
        cross=(),
        offset=None,
        rankings=rankings(judged.takes, PASTED),
        stages=(*read_stages(work / STAGES), *judged.stages),
        warnings=_warnings(few_frames(len(subject.numbers)), _speech_learnt(subject.dataset)),
        left_out=(f"the whole report: talkhead evaluate {folder.name}", *left_out),
    )
    return EvaluateResult(_write(result, subject, judged, folder), result)


def _speech_learnt(dataset: IdentityDataset) -> str:
    """A warning where lips were learnt from little speech."""
    return little_speech(float((~dataset.tracks.silent & dataset.tracks.train).sum() / FRAME_RATE))


def _known(name: str, sha256: str) -> str:
    if not was_trained_on(sha256):
        return ""
    return f"{name}: the audio-visual judge was trained on it; its words on it are no evidence"


def _warnings(*lines: str) -> tuple[str, ...]:
    return tuple(line for line in lines if line)


def _write(
    result: Report, subject: EvaluationTarget, judged: IdentityEvaluation, folder: Path
) -> Path:
    with tempfile.TemporaryDirectory(prefix="talkhead-") as scratch:
        return write_report(result, identity_pictures(subject, judged, Path(scratch)), folder)


# --------------------------------------------------------------------------- the identity


def _subject(
    package: IdentityPackage,
    video: Path,
    dataset: IdentityDataset,
    renderer: str | None,
    device: str,
    options: EvaluateOptions,
) -> EvaluationTarget:
    name, _ = package.renderer(renderer)
    features = encode_footage(dataset, load_encoder_for(package))
    return EvaluationTarget(
        video=video,
        dataset=dataset,
        head=load_renderer(package, name, resolve_device(device)),
        spoken=load_predictor(package).predict(features, dataset.tracks.silent, len(dataset)),
        numbers=held_out_frames(dataset)[: options.n_frames],
    )


def _facts(subject: EvaluationTarget, preset: str) -> dict[str, str]:
    info, numbers = subject.dataset.info, subject.numbers
    return {
        "footage": f"{info.video}, {info.width}x{info.height}, {len(subject.dataset) / FRAME_RATE:.1f} s",
        "judged": f"{len(numbers)} frames, {numbers[0]} to {numbers[-1]}, never learnt from",
        "head crop": f"{info.crop_width}x{info.crop_height} at scale {info.scale:g}",
        "renderer": f"{subject.head.name}, preset {preset}",
        "sound": f"was shifted by {info.av_offset_ms:.0f} ms before anything was learnt",
        "audio-visual judge": _judge_words(),
    }


def _judge_words() -> str:
    """How well the judge finds known shifts of real video that it never saw."""
    share = sync_model_accuracy()
    return (
        f"finds {share['grid_45']:.0%} of known shifts within a frame in 1.8 s of a speaker it knows, "
        f"{share['other_71s_45']:.0%} and {share['other_50s_45']:.0%} of two that it never saw, "
        f"{share['other_71s_250']:.0%} and {share['other_50s_250']:.0%} in 10 s; chance is 10 %"
    )


def _cross(
    package: IdentityPackage,
    subject: EvaluationTarget,
    audio: Path | str | None,
    instruments: MeasurementTools,
    language: str,
    progress: Progress,
) -> tuple[tuple[Variant, ...], dict[str, str]]:
    """Takes of another line, and what line it is. audio: None is the sample's, whose text is known."""
    text, language = (LINE_TEXT, "en") if audio is None else (None, language)
    with tempfile.TemporaryDirectory(prefix="talkhead-") as scratch, _line(audio) as path:
        waveform = _beginning(path, LINE_SECONDS)
        beginning = write_wav(Path(scratch) / "line.wav", waveform)
        n_frames = round(len(waveform) / SAMPLE_RATE * FRAME_RATE)
        heard = analyze_audio(waveform, n_frames, text=text, language=language)
        if heard.sound is None:
            return (), {"another line": f"{path.name}: no speech is heard in it"}
        takes = measure_line(package, subject.head, beginning, heard.sound, instruments, progress)
    return takes, {"another line": f"{path.name}, its first {n_frames / FRAME_RATE:.1f} s"}


def _beginning(path: Path, seconds: float) -> Float32:
    """The first seconds of a file's sound, 16 kHz."""
    return next(media.read_audio_chunks(path, SAMPLE_RATE, seconds), np.zeros(0, np.float32))


@contextmanager
def _line(audio: Path | str | None) -> Iterator[Path]:
    """The sound file of another line: the given one, or the sample's."""
    if audio is not None:
        yield Path(audio)
        return
    with as_file(files("talkhead.samples").joinpath("line.wav")) as path:
        yield path


def make_tools() -> tuple[MeasurementTools, tuple[str, ...]]:
    """What measures, and a line for each measure that can't be taken here."""
    missing = lpips_unavailable_reason()
    perceptual = None if missing else Perceptual.load()
    left_out = _warnings(missing, syncnet_unavailable_reason())
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
    """How near a made video of a face comes to the real one, frame by frame from their beginnings.

    report: the folder to write to, by default MADE-report here. Raises TalkheadError where they
    can't be compared, with what to do about it.
    """
    real, made = path_of(real, "real", FILE_REMEDY), path_of(made, "made", FILE_REMEDY)
    options, progress = options or EvaluateOptions(), progress or SilentProgress()
    set_threads()
    folder = Path(report) if report is not None else Path(f"{made.stem}-report")
    check_report(folder)
    pair = align(real, made, options.n_frames)
    hearings = tuple(_hear_video(info, pair.n_frames, options) for info in (pair.real, pair.made))
    instruments, left_out = make_tools()
    sounds = (hearings[0].sound, hearings[1].sound)
    judged = measure_pair(pair, sounds, instruments, progress)
    sound = sounds[0]
    offset = None
    if sound is not None:
        offset = clip_offset(sound.waveform, judged.landmarks, sound.phones, instruments.judge)
    known = [_known(video.name, sha256_of(video)) for video in (real, made)]
    result = Report(
        title=f"{made.name} against {real.name}",
        facts=_pair_facts(pair),
        takes=judged.takes,
        cross=(),
        offset=offset,
        rankings=rankings(judged.takes, MADE),
        stages=(),
        warnings=_warnings(*pair.words, few_frames(pair.n_frames), *known),
        left_out=(*left_out, *dict.fromkeys(hearings[0].left_out + hearings[1].left_out)),
    )
    waveform = None if sounds[1] is None else sounds[1].waveform
    with tempfile.TemporaryDirectory(prefix="talkhead-") as scratch:
        pictures = pair_pictures(pair, judged, waveform, Path(scratch))
        return EvaluateResult(write_report(result, pictures, folder), result)


def _hear_video(info: MediaInfo, n_frames: int, options: EvaluateOptions) -> AudioAnalysis:
    """What is heard in a video's first n_frames; with its text, all of it must be heard."""
    if not info.has_audio:
        return AudioAnalysis(None, (f"{info.path.name}: phonemes and sync: it has no sound",))
    name, language = info.path.name, options.language
    if options.text is None:
        waveform = _beginning(info.path, n_frames / FRAME_RATE)
        return analyze_audio(waveform, n_frames, language=language, name=name)
    waveform = media.read_audio(info.path, SAMPLE_RATE)
    n_heard = max(n_frames, len(waveform) * FRAME_RATE // SAMPLE_RATE)
    heard = analyze_audio(waveform, n_heard, text=options.text, language=language, name=name)
    return heard if heard.sound is None else replace(heard, sound=excerpt(heard.sound, 0, n_frames))


def _pair_facts(pair: Pair) -> Mapping[str, str]:
    def text(info: MediaInfo) -> str:
        return (
            f"{info.path.name}, {info.width}x{info.height}, {info.duration_s:.2f} s at "
            f"{info.frame_rate:.2f} frames a second"
        )

    return {
        "real": text(pair.real),
        "made": text(pair.made),
        "judged": f"{pair.n_frames} frames at {FRAME_RATE} a second",
        "audio-visual judge": _judge_words(),
    }
