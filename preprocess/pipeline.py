"""person.mp4 -> IdentityDataset: the steps in `STEPS`, each skipped if its artifact exists.

A dataset's folder belongs to the content of one video and to one configuration; callers name it with
`dataset_key`. Steps read what they need from the artifacts of earlier ones through `PipelineRun`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from talkhead.dataset import WAVEFORM, IdentityDataset
from talkhead.footage import Footage
from talkhead.preprocess import pipeline_run, steps
from talkhead.preprocess.background import BACKGROUND_FACTS
from talkhead.preprocess.head_crops import FEATURES
from talkhead.preprocess.pipeline_run import KnownPerson, PipelineRun, SilenceDetector
from talkhead.preprocess.pipeline_run import PreprocessConfig as PreprocessConfig
from talkhead.preprocess.tracking import TRACKING
from talkhead.progress import Progress
from talkhead.storage import fingerprint, make_folder


@dataclass(frozen=True)
class PipelineStep:
    """One step of preprocessing.

    Attributes:
        name: Name of the step.
        artifact: File in the dataset's folder that the step writes last.
        run: Makes the artifact.
        version: Increase it when the step would write something different for the same video.
        resumes: The artifact grows while the step runs; the step itself continues it if it is incomplete.
        learns: The step is only of use where something is learned from the footage: it is left out in
            further footage of a known person.
    """

    name: str
    artifact: str
    run: Callable[[PipelineRun], None]
    version: int = 1
    resumes: bool = False
    learns: bool = False

    def is_done(self, folder: Path) -> bool:
        """Check whether the step can be skipped.

        Args:
            folder: Folder of the dataset.

        Returns:
            True if its artifact exists.
        """
        return not self.resumes and (folder / self.artifact).exists()


STEPS = (
    PipelineStep("sound", pipeline_run.SOUND, steps.read_sound, learns=True),
    PipelineStep("face tracking", TRACKING, steps.track_face),
    PipelineStep("head pose", pipeline_run.HEAD_POSE, steps.estimate_head_pose),
    PipelineStep("audio offset", WAVEFORM, steps.synchronize_audio, learns=True),
    PipelineStep("occlusion", pipeline_run.OCCLUSION, steps.detect_occlusion),
    PipelineStep("motion codes", pipeline_run.CODES, steps.encode_face_motion, version=2),
    PipelineStep("frame selection", pipeline_run.FRAME_SELECTION, steps.select_frames, version=2),
    PipelineStep("head crops", FEATURES, steps.cut_heads, version=3, resumes=True),
    PipelineStep("background", BACKGROUND_FACTS, steps.estimate_background, learns=True),
    PipelineStep("quality", pipeline_run.QUALITY, steps.assess_quality, learns=True),
    PipelineStep("dataset", pipeline_run.DATASET, steps.write_dataset, version=2),
)
DATASET_VERSION = 2 + sum(step.version for step in STEPS)
"""Increases with the version of any step. It was 2 when each step was given a separate version."""


def dataset_key(video_sha256: str, config: PreprocessConfig, silence: str) -> str:
    """Return the key of everything that the content of a dataset depends on.

    min_face is left out, since it only determines whether a dataset is made.

    Args:
        video_sha256: Checksum of the video.
        config: Settings.
        silence: Version of the silence detector.

    Returns:
        16 hex digits.
    """
    settings = asdict(replace(config, min_face=0.0))
    return fingerprint([DATASET_VERSION, video_sha256, settings, silence])[:16]


def preprocess(
    footage: Footage,
    folder: Path,
    config: PreprocessConfig,
    progress: Progress,
    detect_silence: SilenceDetector,
    known: KnownPerson | None = None,
) -> IdentityDataset:
    """Make the dataset of a video in a folder; steps whose artifact already exists are skipped.

    Args:
        footage: The video.
        folder: Folder of the dataset, named by `dataset_key`.
        config: Settings.
        progress: Where steps are shown.
        detect_silence: Finds the frames without speech.
        known: The person, if they were fitted to other footage: motion is encoded in their face model,
            and nothing is learned from sound, background, body and clothes. None: this footage is
            learned from.

    Returns:
        The dataset.

    Raises:
        MediaError: The video cannot be decoded.
        FootageError: The video is unsuitable: too few frames show a face, or there is no speech.
        PackageError: An artifact is damaged.
        TalkheadError: The disk is full or not writable.
    """
    if not (folder / pipeline_run.DATASET).exists():
        make_folder(folder)
        run = PipelineRun(footage, folder, config, progress, detect_silence, known)
        for step in STEPS:
            if not (step.is_done(folder) or (known and step.learns)):
                step.run(run)
        for name in pipeline_run.TEMPORARY:
            (folder / name).unlink(missing_ok=True)
    return IdentityDataset.load(folder)
