"""Evaluate an identity on held-out frames and on another recording."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from talkhead.app.avatar import speech_codes
from talkhead.app.composer.frames import Compositor, pasted_line
from talkhead.app.composer.idle_clip import idle_frames, load_idle, make_clip
from talkhead.app.evaluation.audio import AudioAnalysis, analyze_audio, excerpt
from talkhead.app.evaluation.baselines import mean_mouth, mismatched_speech
from talkhead.app.evaluation.cutout import cutout_results
from talkhead.app.evaluation.measures.sync_model import MAX_LAG
from talkhead.app.evaluation.options import EvaluateOptions
from talkhead.app.evaluation.reference import (
    CropReference,
    FrameReference,
    ReferenceFrames,
    encoded,
    read_frames,
    rendered_crops,
)
from talkhead.app.evaluation.results import (
    MEAN_MOUTH,
    MISMATCHED_SPEECH,
    PASTED_SPEECH_DRIVEN,
    PASTED_TRACKED_CODES,
    REAL_VIDEO,
    REENCODED,
    SPEECH_DRIVEN,
    TRACKED_CODES,
    UNCHANGED_FOOTAGE,
    Variant,
    VariantKind,
)
from talkhead.app.evaluation.variant import (
    AudioContext,
    MeasurementTools,
    VisualMeasurement,
    make_variant,
    measure_images,
    track,
    with_syncnet,
    worst_lips,
)
from talkhead.dataset import IdentityDataset
from talkhead.identity import IdentityPackage
from talkhead.progress import Progress, Step
from talkhead.renderers.base import Renderer
from talkhead.stage_timer import Stage, peak_mib
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32, Int, UInt8

MEASURED_VARIANTS, MEASURED_VARIANTS_BRIEF = 7, 2
"""Variants of which images are made, for the progress bar."""
FLOOR_ABOUT = "after x264 at CRF 23: the best that any method can reach"


@dataclass(frozen=True)
class EvaluationTarget:
    """An identity with the footage it is evaluated on.

    Attributes:
        video: The footage.
        dataset: The dataset of the footage.
        renderer: The fitted renderer.
        spoken: Motion codes [F, K] predicted from the footage's own audio.
        frames: Frame indices [N] to evaluate, ascending, none of them used in training.
    """

    video: Path
    dataset: IdentityDataset
    renderer: Renderer
    spoken: Float32
    frames: Int

    def part(self, places: Int) -> EvaluationTarget:
        """Select some of the frames.

        Args:
            places: Positions [n] among the frames.

        Returns:
            A target with these frames alone.
        """
        return replace(self, frames=self.frames[places])

    @property
    def tracked(self) -> Float32:
        """The tracked codes of the frames, [N, K]."""
        return self.dataset.tracks.codes[self.frames]

    def with_mouths(self, mouths: Float32) -> Float32:
        """Replace the mouths in the tracked codes; eyes and body stay.

        Args:
            mouths: Motion codes [N or 1, K].

        Returns:
            Motion codes [N, K].
        """
        codes, n_mouth = self.tracked.copy(), self.dataset.face.n_mouth
        codes[:, :n_mouth] = mouths[:, :n_mouth]
        return codes

    @property
    def spoken_codes(self) -> Float32:
        """The tracked codes with the mouths predicted from the audio, [N, K]."""
        return self.with_mouths(self.spoken[self.frames])

    def mean_mouths(self) -> Float32:
        """Return the tracked codes with the mean mouth of the training frames.

        Returns:
            Motion codes [N, K].
        """
        tracks = self.dataset.tracks
        return self.with_mouths(tracks.codes[tracks.train & tracks.usable].mean(0, keepdims=True))

    def mismatched_mouths(self) -> Float32:
        """Return the tracked codes with the mouths of another part of the footage.

        Returns:
            Motion codes [N, K].
        """
        return self.with_mouths(self.dataset.tracks.codes[self.mismatched_frames()])

    def mismatched_frames(self) -> Int:
        """Choose as many frames of the training part, where other sentences are spoken.

        Returns:
            Frame indices [N].
        """
        usable = np.flatnonzero(self.dataset.tracks.train & self.dataset.tracks.usable)
        wanted = usable[len(usable) // 3] + self.frames - self.frames[0]
        nearest = np.searchsorted(usable, wanted).clip(max=len(usable) - 1)
        return np.asarray(usable[nearest])


@dataclass(frozen=True)
class IdentityEvaluation:
    """Results of evaluating an identity.

    Attributes:
        variants: All variants of the held-out frames.
        worst_tracked: Positions [N] of the frames, those on which the renderer alone is worst first.
        worst_spoken: Positions [N] of the frames, those on which the speech-driven mouth is worst
            first.
        stages: Time and memory of rendering and pasting.
    """

    variants: tuple[Variant, ...]
    worst_tracked: Int
    worst_spoken: Int
    stages: tuple[Stage, ...]


class ImageTimer:
    """Measures how long images take to make, without what is done with them."""

    def __init__(self) -> None:
        self.seconds, self.n_images = 0.0, 0

    def timed(self, images: Iterable[UInt8]) -> Iterator[UInt8]:
        """Pass images on and add up the time that making them takes.

        Args:
            images: Images [H, W, 3].

        Yields:
            The same images.
        """
        source = iter(images)
        while True:
            start = time.perf_counter()
            image = next(source, None)
            self.seconds += time.perf_counter() - start
            if image is None:
                return
            self.n_images += 1
            yield image

    def stage(self, name: str) -> Stage:
        """Summarize the time measured.

        Args:
            name: Name of the stage.

        Returns:
            Seconds, peak memory so far, and images per second.
        """
        rate = self.n_images / self.seconds if self.seconds else None
        return Stage(name, round(self.seconds, 2), peak_mib(), rate and round(rate, 1))


def measure_identity(
    target: EvaluationTarget,
    audio: AudioContext | None,
    tools: MeasurementTools,
    progress: Progress,
    *,
    brief: bool = False,
) -> IdentityEvaluation:
    """Measure the variants of an identity on its held-out frames.

    Args:
        target: The identity and the frames.
        audio: The audio from the first to the last frame; None without speech.
        tools: Models that measures need.
        progress: Shows the progress.
        brief: True to omit the codec floor, and the images of baselines, of which only landmarks are
            made.

    Returns:
        The variants.
    """
    n_variants = MEASURED_VARIANTS_BRIEF if brief else MEASURED_VARIANTS
    with progress.step("Measuring held-out frames", total=n_variants * len(target.frames)) as bar:
        evaluator = _IdentityEvaluator(target, audio, tools, bar)
        return evaluator.brief() if brief else evaluator.full()


class _IdentityEvaluator:
    """Measures the variants of one target, one after another."""

    def __init__(
        self,
        target: EvaluationTarget,
        audio: AudioContext | None,
        tools: MeasurementTools,
        bar: Step,
    ) -> None:
        self.target, self.audio, self.tools, self.bar = target, audio, tools, bar
        self.crops = CropReference(target.dataset, target.frames)
        self.rendering, self.pasting = ImageTimer(), ImageTimer()
        points = target.dataset.tracks.landmarks[target.frames, :, :2]
        self.frames = FrameReference(target.video, target.frames, points)
        self.real = track(self.crops, self.crops.real(), tools.tracker)
        self.measured: dict[str, VisualMeasurement] = {}

    def full(self) -> IdentityEvaluation:
        """Measure all variants."""
        target = self.target
        spoken = target.spoken_codes
        real_frames = track(self.frames, self.frames.real(), self.tools.tracker)
        with tempfile.TemporaryDirectory(prefix="talkhead-") as folder:
            floor = self._measure(REENCODED, self.crops, encoded(self.crops, Path(folder)))
        mean, mismatched = target.mean_mouths(), target.mismatched_mouths()
        variants = [
            self._with_syncnet(self._real(), self.frames.real, real_frames),
            self._variant(REENCODED, "floor", f"the real frames {FLOOR_ABOUT}", floor),
            self._tracked(),
            self._rendered(SPEECH_DRIVEN, "made", "motion from audio, over the background", spoken),
            self._pasted(
                PASTED_TRACKED_CODES, "tracked motion, in the footage", target.tracked, real_frames
            ),
            self._pasted(
                PASTED_SPEECH_DRIVEN, "output of speak: audio, in the footage", spoken, real_frames
            ),
            self._rendered(MEAN_MOUTH, "baseline", "a mouth that never moves", mean),
            self._rendered(
                MISMATCHED_SPEECH, "baseline", "real motion of other sentences", mismatched
            ),
        ]
        return self._evaluation(variants, SPEECH_DRIVEN)

    def brief(self) -> IdentityEvaluation:
        """Measure the variants of the report that fit ends with."""
        target = self.target
        spoken = target.spoken_codes
        real_frames = track(self.frames, self.frames.real(), self.tools.tracker)
        tracks = target.dataset.tracks
        usable = tracks.train & tracks.usable
        other = tracks.landmarks[target.mismatched_frames(), :, :2]
        variants = [
            self._real(),
            self._tracked(),
            self._pasted(
                PASTED_SPEECH_DRIVEN, "output of speak: audio, in the footage", spoken, real_frames
            ),
            self._landmarks_only(
                MEAN_MOUTH,
                "a mouth that never moves (landmarks only)",
                mean_mouth(self.real, tracks.landmarks[usable, :, :2]),
            ),
            self._landmarks_only(
                MISMATCHED_SPEECH,
                "real motion of other sentences (landmarks only)",
                mismatched_speech(self.real, other),
            ),
        ]
        return self._evaluation(variants, PASTED_SPEECH_DRIVEN)

    def _real(self) -> Variant:
        return self._variant(REAL_VIDEO, "real", "the footage itself", VisualMeasurement(self.real))

    def _rendered(self, name: str, kind: VariantKind, about: str, codes: Float32) -> Variant:
        """Render heads with motion codes [N, K] and measure them."""
        target = self.target
        images = rendered_crops(target.renderer, target.dataset, target.frames, codes)
        visual = self._measure(name, self.crops, self.rendering.timed(images))
        return self._variant(name, kind, about, visual)

    def _tracked(self) -> Variant:
        """Measure the head under tracked motion, and its outline."""
        target, codes = self.target, self.target.tracked
        variant = self._rendered(
            TRACKED_CODES, "made", "tracked motion: limit of the renderer", codes
        )
        cutout = cutout_results(target.renderer, target.dataset, target.frames, codes)
        return replace(variant, cutout=cutout)

    def _pasted(self, name: str, about: str, codes: Float32, real: Float32) -> Variant:
        """Paste motion codes [N, K] into the footage and measure against landmarks [N, 478, 2]."""
        images = self.pasting.timed(pasted_frames(self.target, codes))
        visual = self._measure(name, self.frames, images, full_frames=True)
        variant = self._variant(name, "made", about, visual, real)
        again = partial(pasted_frames, self.target, codes)
        return (
            self._with_syncnet(variant, again, visual.landmarks)
            if name == PASTED_SPEECH_DRIVEN
            else variant
        )

    def _with_syncnet(
        self, variant: Variant, images: Callable[[], Iterable[UInt8]], landmarks: Float32
    ) -> Variant:
        """Add SyncNet's measures of frames with landmarks [N, 478, 2]."""
        net, frames = self.tools.syncnet, self.target.frames
        return with_syncnet(variant, images, landmarks, frames, self.audio, net)

    def _landmarks_only(self, name: str, about: str, landmarks: Float32) -> Variant:
        """Measure a baseline of landmarks [N, 478, 2] without images."""
        return self._variant(name, "baseline", about, VisualMeasurement(landmarks))

    def _measure(
        self,
        name: str,
        reference: ReferenceFrames,
        images: Iterable[UInt8],
        full_frames: bool = False,
    ) -> VisualMeasurement:
        """Measure images [H, W, 3] and keep the result by name."""
        self.measured[name] = measure_images(
            reference, images, self.tools, self.bar, full_frames=full_frames
        )
        return self.measured[name]

    def _variant(
        self,
        name: str,
        kind: VariantKind,
        about: str,
        visual: VisualMeasurement,
        real: Float32 | None = None,
    ) -> Variant:
        """Make a variant; real landmarks [N, 478, 2] default to those of the crops."""
        true = self.real if real is None else real
        frames, model = self.target.frames, self.tools.sync_model
        return make_variant(name, kind, about, visual, true, frames, self.audio, model)

    def _evaluation(self, variants: list[Variant], spoken: str) -> IdentityEvaluation:
        """Combine the variants with the order of the worst frames."""
        return IdentityEvaluation(
            tuple(variants),
            np.argsort(self.measured[TRACKED_CODES].per_frame["psnr_mouth"], kind="stable"),
            worst_lips(self.measured[spoken].landmarks, self.real),
            (
                self.rendering.stage("rendering heads"),
                self.pasting.stage("pasting into the footage"),
            ),
        )


def pasted_frames(target: EvaluationTarget, codes: Float32) -> Iterator[UInt8]:
    """Re-lip the target's whole frames as speak does.

    Args:
        target: The identity and the frames.
        codes: Motion codes [N, K].

    Yields:
        Images [H, W, 3].
    """
    frames = target.frames
    first = int(frames[0])
    clip = make_clip(target.dataset, target.video, slice(first, int(frames[-1]) + 1))
    paste = Compositor(target.renderer, clip)
    images = read_frames(target.video, frames)
    for image, frame, code in zip(images, frames, codes, strict=True):
        yield paste(image, int(frame) - first, code)


def measure_recording(
    package: IdentityPackage,
    renderer: Renderer,
    path: Path,
    audio: AudioContext,
    tools: MeasurementTools,
    progress: Progress,
) -> tuple[Variant, ...]:
    """Measure an identity that speaks another recording, for which there are no real frames.

    Args:
        package: The identity.
        renderer: Its renderer.
        path: The audio file.
        audio: The part of the audio to evaluate.
        tools: Models that measures need.
        progress: Shows the progress.

    Returns:
        The output of speak, and the unchanged footage under the same audio.
    """
    n_frames = len(audio.silent)
    codes, idle = speech_codes(path, package)[:n_frames], load_idle(package)
    frames = np.arange(len(codes))
    reference = FrameReference(idle.path, frames, np.empty((0, 478, 2), np.float32))
    with progress.step("Rendering another recording", total=2 * len(codes)) as bar:

        def variant(
            name: str, kind: VariantKind, about: str, images: Generator[UInt8, None, None]
        ) -> Variant:
            with closing(images):
                landmarks = track(reference, _counted(images, bar), tools.tracker)
            visual, model = VisualMeasurement(landmarks), tools.sync_model
            return make_variant(name, kind, about, visual, None, frames, audio, model)

        pasted = pasted_line(renderer, idle, codes)
        unchanged = idle_frames(idle.path, len(idle), 0, len(codes))
        return (
            variant(PASTED_SPEECH_DRIVEN, "made", "output of speak for this recording", pasted),
            variant(
                UNCHANGED_FOOTAGE, "baseline", "the unchanged footage, under this audio", unchanged
            ),
        )


def _counted(images: Iterable[UInt8], bar: Step) -> Iterator[UInt8]:
    """Yield images [H, W, 3] and advance a progress bar."""
    for image in images:
        yield image
        bar.advance()


@dataclass(frozen=True)
class Clip:
    """The part of a dataset that is analyzed.

    Attributes:
        first: Index of its first frame.
        waveform: Samples [n_samples], 16 kHz.
        landmarks: Landmarks [n, 478, 2] in source pixels; NaN without a face.
        analysis: Speech and phones of the audio.
    """

    first: int
    waveform: Float32
    landmarks: Float32
    analysis: AudioAnalysis

    @classmethod
    def of(
        cls, dataset: IdentityDataset, frames: Int, options: EvaluateOptions, phones: bool = True
    ) -> Clip:
        """Cut the part that holds the evaluated frames with the context that the sync model needs.

        Args:
            dataset: The dataset.
            frames: Frame indices [N], ascending.
            options: Length, language and text. With a text the whole dataset is taken.
            phones: False to omit phones, which is faster.

        Returns:
            The part.
        """
        first, stop = 0, len(dataset)
        if not options.text:
            first = max(0, min(int(frames[0]) - MAX_LAG, stop - options.n_frames))
            stop = min(stop, max(first + options.n_frames, int(frames[-1]) + 1 + MAX_LAG))
        start, end = (n * SAMPLE_RATE // FRAME_RATE for n in (first, stop))
        waveform, tracks = dataset.waveform[start:end], dataset.tracks
        found = tracks.detected[first:stop, None, None]
        landmarks = np.where(found, tracks.landmarks[first:stop, :, :2], np.nan)
        analysis = analyze_audio(
            waveform,
            len(landmarks),
            text=options.text,
            language=options.language,
            silent=tracks.silent[first:stop],
            phones=phones,
        )
        return cls(first, waveform, landmarks.astype(np.float32), analysis)

    def own_variant(self, tools: MeasurementTools) -> Variant:
        """Measure the footage under its own audio, to compare other recordings with.

        Args:
            tools: Models that measures need.

        Returns:
            The variant.
        """
        visual, frames = VisualMeasurement(self.landmarks), np.arange(len(self.landmarks))
        about = "the footage under its own audio"
        audio, model = self.analysis.audio, tools.sync_model
        return make_variant(REAL_VIDEO, "real", about, visual, None, frames, audio, model)

    def audio_of(self, target: EvaluationTarget) -> AudioContext | None:
        """Cut the audio of a target's frames.

        Args:
            target: The identity and the frames.

        Returns:
            The audio from the first to the last frame; None without speech.
        """
        if self.analysis.audio is None:
            return None
        start, end = int(target.frames[0]), int(target.frames[-1]) + 1
        return excerpt(self.analysis.audio, start - self.first, end - start)
