"""An identity judged on the frames that it has not seen, and on a line of other sound."""

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
from talkhead.app.evaluation.measures.cutout import cutout_metrics
from talkhead.app.evaluation.measures.sync_model import (
    MAX_LAG,
)
from talkhead.app.evaluation.reference import (
    CropReference,
    FrameReference,
    ReferenceFrames,
    encoded,
    frames_of,
    rendered_crops,
)
from talkhead.app.evaluation.results import (
    FLOOR,
    MEAN,
    PASTED,
    PASTED_TRACKED,
    REAL,
    SPOKEN,
    TRACKED,
    UNCHANGED,
    WRONG,
    Variant,
    VariantKind,
)
from talkhead.app.evaluation.variant import (
    AudioContext,
    MeasurementTools,
    VisualMeasurement,
    look,
    make_variant,
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


@dataclass(frozen=True)
class EvaluationTarget:
    """An identity with the footage it is judged on.

    spoken: [F, K] codes of the clip's own sound. numbers: [N] frames to judge, rising, none of them
    learnt from.
    """

    video: Path
    dataset: IdentityDataset
    head: Renderer
    spoken: Float32
    numbers: Int

    def part(self, places: Int) -> EvaluationTarget:
        """The same with some of the frames, by their places among them."""
        return replace(self, numbers=self.numbers[places])

    @property
    def tracked(self) -> Float32:
        """The tracked codes [N, K] of the frames."""
        return self.dataset.tracks.codes[self.numbers]

    def with_mouths(self, mouths: Float32) -> Float32:
        """The tracked codes with the mouths of other codes [N or 1, K]: eyes and body stay."""
        codes, n_mouth = self.tracked.copy(), self.dataset.face.n_mouth
        codes[:, :n_mouth] = mouths[:, :n_mouth]
        return codes

    @property
    def spoken_codes(self) -> Float32:
        """The tracked codes with the mouths that the sound asks for, [N, K]."""
        return self.with_mouths(self.spoken[self.numbers])

    def mean_mouths(self) -> Float32:
        """The tracked codes with the mean mouth of the training frames."""
        tracks = self.dataset.tracks
        return self.with_mouths(tracks.codes[tracks.train & tracks.usable].mean(0, keepdims=True))

    def wrong_mouths(self) -> Float32:
        """The tracked codes with the mouths of another sentence."""
        return self.with_mouths(self.dataset.tracks.codes[self.another_stretch()])

    def another_stretch(self) -> Int:
        """As many frames of the training part, [N]: where another sentence is spoken."""
        usable = np.flatnonzero(self.dataset.tracks.train & self.dataset.tracks.usable)
        wanted = usable[len(usable) // 3] + self.numbers - self.numbers[0]
        nearest = np.searchsorted(usable, wanted).clip(max=len(usable) - 1)
        return np.asarray(usable[nearest])


@dataclass(frozen=True)
class IdentityEvaluation:
    """What came out. worst_tracked, worst_spoken: places among the frames where the renderer alone,
    and the mouth driven by sound, are farthest from real, the worst first."""

    takes: tuple[Variant, ...]
    worst_tracked: Int
    worst_spoken: Int
    stages: tuple[Stage, ...]


class Clock:
    """How long images took to make, apart from what is done with them."""

    def __init__(self) -> None:
        self.seconds, self.n_images = 0.0, 0

    def timed(self, images: Iterable[UInt8]) -> Iterator[UInt8]:
        """The images as they come."""
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
        """What making the images took."""
        rate = self.n_images / self.seconds if self.seconds else None
        return Stage(name, round(self.seconds, 2), peak_mib(), rate and round(rate, 1))


def measure_identity(
    subject: EvaluationTarget,
    sound: AudioContext | None,
    instruments: MeasurementTools,
    progress: Progress,
    *,
    brief: bool = False,
) -> IdentityEvaluation:
    """The takes of an identity on its held-out frames.

    brief: without the floor, and with baselines of which only the landmarks are made, not images.
    """
    n_looks = 2 if brief else 7
    with progress.step("Measuring held-out frames", total=n_looks * len(subject.numbers)) as bar:
        bench = _IdentityEvaluator(subject, sound, instruments, bar)
        return bench.brief() if brief else bench.whole()


class _IdentityEvaluator:
    """Takes of one subject, one after the other."""

    def __init__(
        self,
        subject: EvaluationTarget,
        sound: AudioContext | None,
        instruments: MeasurementTools,
        bar: Step,
    ) -> None:
        self.subject, self.sound, self.instruments, self.bar = subject, sound, instruments, bar
        self.crops = CropReference(subject.dataset, subject.numbers)
        self.rendering, self.pasting = Clock(), Clock()
        points = subject.dataset.tracks.landmarks[subject.numbers, :, :2]
        self.frames = FrameReference(subject.video, subject.numbers, points)
        self.real = track(self.crops, self.crops.real(), instruments.tracker)
        self.seen: dict[str, VisualMeasurement] = {}

    def whole(self) -> IdentityEvaluation:
        subject = self.subject
        spoken = subject.spoken_codes
        real_frames = track(self.frames, self.frames.real(), self.instruments.tracker)
        with tempfile.TemporaryDirectory(prefix="talkhead-") as folder:
            floor = self._look(FLOOR, self.crops, encoded(self.crops, Path(folder)))
        takes = [
            self._with_syncnet(self._real(), self.frames.real, real_frames),
            self._take(
                FLOOR,
                "floor",
                "the real frames after x264 at CRF 23: the best that any method can get",
                floor,
            ),
            self._tracked(),
            self._rendered(SPOKEN, "made", "motion from the sound, over the background", spoken),
            self._pasted(
                PASTED_TRACKED, "true motion, in the footage", subject.tracked, real_frames
            ),
            self._pasted(PASTED, "what speak makes: sound, in the footage", spoken, real_frames),
            self._rendered(MEAN, "baseline", "a mouth that never moves", subject.mean_mouths()),
            self._rendered(
                WRONG, "baseline", "real motion of another sentence", subject.wrong_mouths()
            ),
        ]
        return self._judged(takes, SPOKEN)

    def brief(self) -> IdentityEvaluation:
        subject = self.subject
        spoken = subject.spoken_codes
        real_frames = track(self.frames, self.frames.real(), self.instruments.tracker)
        tracks = subject.dataset.tracks
        usable = tracks.train & tracks.usable
        learnt = tracks.landmarks[subject.another_stretch(), :, :2]
        takes = [
            self._real(),
            self._tracked(),
            self._pasted(PASTED, "what speak makes: sound, in the footage", spoken, real_frames),
            self._borrowed(
                MEAN,
                "a mouth that never moves (landmarks alone)",
                mean_mouth(self.real, tracks.landmarks[usable, :, :2]),
            ),
            self._borrowed(
                WRONG,
                "real motion of another sentence (landmarks alone)",
                mismatched_speech(self.real, learnt),
            ),
        ]
        return self._judged(takes, PASTED)

    def _real(self) -> Variant:
        return self._take(
            REAL, "real", "the footage itself", VisualMeasurement.of_landmarks(self.real)
        )

    def _rendered(self, name: str, kind: VariantKind, about: str, codes: Float32) -> Variant:
        images = rendered_crops(
            self.subject.head, self.subject.dataset, self.subject.numbers, codes
        )
        return self._take(
            name, kind, about, self._look(name, self.crops, self.rendering.timed(images))
        )

    def _tracked(self) -> Variant:
        """The head under true motion, with what is said of its outline."""
        subject, codes = self.subject, self.subject.tracked
        take = self._rendered(TRACKED, "made", "true motion: the renderer's ceiling", codes)
        cutout = cutout_metrics(subject.head, subject.dataset, subject.numbers, codes)
        return replace(take, cutout=cutout)

    def _pasted(self, name: str, about: str, codes: Float32, real: Float32) -> Variant:
        images = self.pasting.timed(pasted_frames(self.subject, codes))
        sight = self._look(name, self.frames, images, whole=True)
        take = self._take(name, "made", about, sight, real)
        again = partial(pasted_frames, self.subject, codes)
        return self._with_syncnet(take, again, sight.landmarks) if name == PASTED else take

    def _with_syncnet(
        self, take: Variant, images: Callable[[], Iterable[UInt8]], landmarks: Float32
    ) -> Variant:
        net, numbers = self.instruments.syncnet, self.subject.numbers
        return with_syncnet(take, images, landmarks, numbers, self.sound, net)

    def _borrowed(self, name: str, about: str, landmarks: Float32) -> Variant:
        return self._take(name, "baseline", about, VisualMeasurement.of_landmarks(landmarks))

    def _look(
        self, name: str, scene: ReferenceFrames, images: Iterable[UInt8], whole: bool = False
    ) -> VisualMeasurement:
        self.seen[name] = look(scene, images, self.instruments, self.bar, whole=whole)
        return self.seen[name]

    def _take(
        self,
        name: str,
        kind: VariantKind,
        about: str,
        sight: VisualMeasurement,
        real: Float32 | None = None,
    ) -> Variant:
        true = self.real if real is None else real
        numbers, judge = self.subject.numbers, self.instruments.judge
        return make_variant(name, kind, about, sight, true, numbers, self.sound, judge)

    def _judged(self, takes: list[Variant], spoken: str) -> IdentityEvaluation:
        return IdentityEvaluation(
            tuple(takes),
            np.argsort(self.seen[TRACKED].psnr_mouth, kind="stable"),
            worst_lips(self.seen[spoken].landmarks, self.real),
            (
                self.rendering.stage("rendering heads"),
                self.pasting.stage("pasting into the footage"),
            ),
        )


def pasted_frames(subject: EvaluationTarget, codes: Float32) -> Iterator[UInt8]:
    """The whole frames, re-lipped: as speak would paste codes [N, K] into them."""
    numbers = subject.numbers
    first = int(numbers[0])
    clip = make_clip(subject.dataset, subject.video, slice(first, int(numbers[-1]) + 1))
    paste = Compositor(subject.head, clip)
    for frame, number, code in zip(frames_of(subject.video, numbers), numbers, codes, strict=True):
        yield paste(frame, int(number) - first, code)


def measure_line(
    package: IdentityPackage,
    head: Renderer,
    audio: Path,
    sound: AudioContext,
    instruments: MeasurementTools,
    progress: Progress,
) -> tuple[Variant, ...]:
    """Takes of the identity saying a line of other sound, and of its footage played under that
    sound: without real frames.

    sound: what is heard of the line, as far as it is to be judged.
    """
    n_frames = len(sound.silent)
    codes, idle = speech_codes(audio, package)[:n_frames], load_idle(package)
    numbers = np.arange(len(codes))
    scene = FrameReference(idle.path, numbers, np.empty((0, 478, 2), np.float32))
    with progress.step("Saying another line", total=2 * len(codes)) as bar:

        def take(
            name: str, kind: VariantKind, about: str, images: Generator[UInt8, None, None]
        ) -> Variant:
            with closing(images):
                landmarks = track(scene, _counted(images, bar), instruments.tracker)
            sight = VisualMeasurement.of_landmarks(landmarks)
            return make_variant(name, kind, about, sight, None, numbers, sound, instruments.judge)

        unchanged = idle_frames(idle.path, len(idle), 0, len(codes))
        return (
            take(PASTED, "made", "the line as speak makes it", pasted_line(head, idle, codes)),
            take(UNCHANGED, "baseline", "the footage as it was, under this line", unchanged),
        )


def _counted(images: Iterable[UInt8], bar: Step) -> Iterator[UInt8]:
    for image in images:
        yield image
        bar.advance()


@dataclass(frozen=True)
class EvaluateOptions:
    """What is known of the footage's speech, and how much of it is judged.

    text: all that is said; None: not known. language: "en" or another. seconds: judged at most, and
    looked at for the clip's own offset.
    """

    text: str | None = None
    language: str = "en"
    seconds: float = 120.0

    @property
    def n_frames(self) -> int:
        """The most frames that are judged."""
        return int(self.seconds * FRAME_RATE)


@dataclass(frozen=True)
class Clip:
    """The part of a dataset that is looked at. first: its first frame's number. landmarks:
    [n, 478, 2] source pixels, NaN without a face."""

    first: int
    waveform: Float32
    landmarks: Float32
    hearing: AudioAnalysis

    @classmethod
    def of(
        cls, dataset: IdentityDataset, numbers: Int, options: EvaluateOptions, phones: bool = True
    ) -> Clip:
        """options.seconds of a dataset that hold the judged frames with what the judge needs around
        them; all of it when its text is given."""
        first, stop = 0, len(dataset)
        if not options.text:
            first = max(0, min(int(numbers[0]) - MAX_LAG, stop - options.n_frames))
            stop = min(stop, max(first + options.n_frames, int(numbers[-1]) + 1 + MAX_LAG))
        start, end = (n * SAMPLE_RATE // FRAME_RATE for n in (first, stop))
        waveform, tracks = dataset.waveform[start:end], dataset.tracks
        found = tracks.found[first:stop, None, None]
        landmarks = np.where(found, tracks.landmarks[first:stop, :, :2], np.nan)
        hearing = analyze_audio(
            waveform,
            len(landmarks),
            text=options.text,
            language=options.language,
            silent=tracks.silent[first:stop],
            phones=phones,
        )
        return cls(first, waveform, landmarks.astype(np.float32), hearing)

    def own_take(self, instruments: MeasurementTools) -> Variant:
        """The footage under its own sound: what another line's takes are read against."""
        sight, numbers = (
            VisualMeasurement.of_landmarks(self.landmarks),
            np.arange(len(self.landmarks)),
        )
        about = "the footage under its own sound"
        sound, judge = self.hearing.sound, instruments.judge
        return make_variant(REAL, "real", about, sight, None, numbers, sound, judge)

    def sound_of(self, subject: EvaluationTarget) -> AudioContext | None:
        """What is heard during a subject's frames."""
        if self.hearing.sound is None:
            return None
        start, end = int(subject.numbers[0]), int(subject.numbers[-1]) + 1
        return excerpt(self.hearing.sound, start - self.first, end - start)
