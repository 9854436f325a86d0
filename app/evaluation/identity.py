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

from talkhead.app.evaluation.baselines import mean_mouth, wrong_sentence
from talkhead.app.evaluation.cutout import cutout_figures
from talkhead.app.evaluation.figures import (
    FLOOR,
    MEAN,
    PASTED,
    PASTED_TRACKED,
    REAL,
    SPOKEN,
    TRACKED,
    UNCHANGED,
    WRONG,
    Stage,
    Take,
    TakeKind,
)  # fmt: skip
from talkhead.app.evaluation.scenes import (
    CropScene,
    FrameScene,
    Scene,
    encoded,
    frames_of,
    rendered_crops,
)
from talkhead.app.evaluation.takes import (
    Instruments,
    Sight,
    Sound,
    look,
    make_take,
    track,
    with_syncnet,
    worst_lips,
)
from talkhead.app.idle import clip_of, idle_frames, load_idle
from talkhead.app.person import speech_codes
from talkhead.app.shots import Paster, pasted_line
from talkhead.app.stages import peak_mib
from talkhead.dataset import IdentityDataset
from talkhead.identity import IdentityPackage
from talkhead.progress import Progress, Step
from talkhead.renderers.base import Renderer
from talkhead.types import Float32, Int, UInt8


@dataclass(frozen=True)
class Subject:
    """An identity with the footage it is judged on.

    spoken: [F, K] codes of the clip's own sound. numbers: [N] frames to judge, rising, none of them
    learnt from.
    """

    video: Path
    dataset: IdentityDataset
    head: Renderer
    spoken: Float32
    numbers: Int

    def part(self, places: Int) -> Subject:
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
class Judged:
    """What came out. worst_tracked, worst_spoken: places among the frames where the renderer alone,
    and the mouth driven by sound, are farthest from real, the worst first."""

    takes: tuple[Take, ...]
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


def judge_identity(
    subject: Subject,
    sound: Sound | None,
    instruments: Instruments,
    progress: Progress,
    *,
    brief: bool = False,
) -> Judged:
    """The takes of an identity on its held-out frames.

    brief: without the floor, and with baselines of which only the landmarks are made, not images.
    """
    n_looks = 2 if brief else 7
    with progress.step("Measuring held-out frames", total=n_looks * len(subject.numbers)) as bar:
        bench = _Bench(subject, sound, instruments, bar)
        return bench.brief() if brief else bench.whole()


class _Bench:
    """Takes of one subject, one after the other."""

    def __init__(
        self, subject: Subject, sound: Sound | None, instruments: Instruments, bar: Step
    ) -> None:
        self.subject, self.sound, self.instruments, self.bar = subject, sound, instruments, bar
        self.crops = CropScene(subject.dataset, subject.numbers)
        self.rendering, self.pasting = Clock(), Clock()
        points = subject.dataset.tracks.landmarks[subject.numbers, :, :2]
        self.frames = FrameScene(subject.video, subject.numbers, points)
        self.real = track(self.crops, self.crops.real(), instruments.tracker)
        self.seen: dict[str, Sight] = {}

    def whole(self) -> Judged:
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

    def brief(self) -> Judged:
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
                wrong_sentence(self.real, learnt),
            ),
        ]
        return self._judged(takes, PASTED)

    def _real(self) -> Take:
        return self._take(REAL, "real", "the footage itself", Sight.of_landmarks(self.real))

    def _rendered(self, name: str, kind: TakeKind, about: str, codes: Float32) -> Take:
        images = rendered_crops(
            self.subject.head, self.subject.dataset, self.subject.numbers, codes
        )
        return self._take(
            name, kind, about, self._look(name, self.crops, self.rendering.timed(images))
        )

    def _tracked(self) -> Take:
        """The head under true motion, with what is said of its outline."""
        subject, codes = self.subject, self.subject.tracked
        take = self._rendered(TRACKED, "made", "true motion: the renderer's ceiling", codes)
        cutout = cutout_figures(subject.head, subject.dataset, subject.numbers, codes)
        return replace(take, cutout=cutout)

    def _pasted(self, name: str, about: str, codes: Float32, real: Float32) -> Take:
        images = self.pasting.timed(pasted_frames(self.subject, codes))
        sight = self._look(name, self.frames, images, whole=True)
        take = self._take(name, "made", about, sight, real)
        again = partial(pasted_frames, self.subject, codes)
        return self._with_syncnet(take, again, sight.landmarks) if name == PASTED else take

    def _with_syncnet(
        self, take: Take, images: Callable[[], Iterable[UInt8]], landmarks: Float32
    ) -> Take:
        net, numbers = self.instruments.syncnet, self.subject.numbers
        return with_syncnet(take, images, landmarks, numbers, self.sound, net)

    def _borrowed(self, name: str, about: str, landmarks: Float32) -> Take:
        return self._take(name, "baseline", about, Sight.of_landmarks(landmarks))

    def _look(self, name: str, scene: Scene, images: Iterable[UInt8], whole: bool = False) -> Sight:
        self.seen[name] = look(scene, images, self.instruments, self.bar, whole=whole)
        return self.seen[name]

    def _take(
        self, name: str, kind: TakeKind, about: str, sight: Sight, real: Float32 | None = None
    ) -> Take:
        true = self.real if real is None else real
        numbers, judge = self.subject.numbers, self.instruments.judge
        return make_take(name, kind, about, sight, true, numbers, self.sound, judge)

    def _judged(self, takes: list[Take], spoken: str) -> Judged:
        return Judged(
            tuple(takes),
            np.argsort(self.seen[TRACKED].psnr_mouth, kind="stable"),
            worst_lips(self.seen[spoken].landmarks, self.real),
            (
                self.rendering.stage("rendering heads"),
                self.pasting.stage("pasting into the footage"),
            ),
        )


def pasted_frames(subject: Subject, codes: Float32) -> Iterator[UInt8]:
    """The whole frames, re-lipped: as speak would paste codes [N, K] into them."""
    numbers = subject.numbers
    first = int(numbers[0])
    clip = clip_of(subject.dataset, subject.video, slice(first, int(numbers[-1]) + 1))
    paste = Paster(subject.head, clip)
    for frame, number, code in zip(frames_of(subject.video, numbers), numbers, codes, strict=True):
        yield paste(frame, int(number) - first, code)


def judge_line(
    package: IdentityPackage,
    head: Renderer,
    audio: Path,
    sound: Sound,
    instruments: Instruments,
    progress: Progress,
) -> tuple[Take, ...]:
    """Takes of the identity saying a line of other sound, and of its footage played under that
    sound: without real frames.

    sound: what is heard of the line, as far as it is to be judged.
    """
    n_frames = len(sound.silent)
    codes, idle = speech_codes(audio, package)[:n_frames], load_idle(package)
    numbers = np.arange(len(codes))
    scene = FrameScene(idle.path, numbers, np.empty((0, 478, 2), np.float32))
    with progress.step("Saying another line", total=2 * len(codes)) as bar:

        def take(
            name: str, kind: TakeKind, about: str, images: Generator[UInt8, None, None]
        ) -> Take:
            with closing(images):
                landmarks = track(scene, _counted(images, bar), instruments.tracker)
            sight = Sight.of_landmarks(landmarks)
            return make_take(name, kind, about, sight, None, numbers, sound, instruments.judge)

        unchanged = idle_frames(idle.path, len(idle), 0, len(codes))
        return (
            take(PASTED, "made", "the line as speak makes it", pasted_line(head, idle, codes)),
            take(UNCHANGED, "baseline", "the footage as it was, under this line", unchanged),
        )


def _counted(images: Iterable[UInt8], bar: Step) -> Iterator[UInt8]:
    for image in images:
        yield image
        bar.advance()
