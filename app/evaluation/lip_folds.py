"""Parts of a clip with everything that is fitted without them, to evaluate lips without rendering.

A block holds the frames of one part, and the face model, motion codes and head poses that were
fitted on other frames. A predictor fitted on its training data has not seen these frames either.
Predicted codes are posed like the real head and projected to landmarks, which are compared with the
tracked ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from talkhead.app.evaluation.cross_validation import Fold, contiguous_folds
from talkhead.cameras import project
from talkhead.dataset import IdentityDataset
from talkhead.encoder.predictor.model import PredictorTrainingData
from talkhead.encoder.predictor.voices import OtherVoices
from talkhead.face import FaceModel
from talkhead.preprocess.head_pose import track_head
from talkhead.preprocess.motion_codes import encode_motion, fit_face_model
from talkhead.types import Bool, Float32, Int, SpeechFeatures


@dataclass(frozen=True)
class Block:
    """Frames to evaluate, and the data for them.

    Attributes:
        frames: Frame indices [n], ascending.
        train: Mask [F] of the frames that the models were fitted on.
        face: Face model of these frames.
        codes: Mouth codes [F, K] of all frames; eyes and body are 0.
        viewmats: Head poses [F, 4, 4] of all frames.
    """

    frames: Int
    train: Bool
    face: FaceModel
    codes: Float32
    viewmats: Float32

    @property
    def tracked(self) -> Float32:
        """The tracked codes of the frames, [n, K]: the best that codes can express."""
        return self.codes[self.frames]

    @property
    def mean_mouth(self) -> Float32:
        """The mean code of the training frames for each of the frames, [n, K]."""
        return np.repeat(self.codes[self.train].mean(0)[None], len(self.frames), axis=0)

    @property
    def mismatched(self) -> Float32:
        """The tracked codes of half the clip later, [n, K]: real motion of other words."""
        return self.codes[(self.frames + len(self.codes) // 2) % len(self.codes)]


def usable_folds(
    dataset: IdentityDataset, n_folds: int, sentences: Sequence[int] | None = None
) -> list[Fold]:
    """Divide a dataset into contiguous folds of usable frames.

    Args:
        dataset: The dataset.
        n_folds: Number of folds.
        sentences: First frame of each sentence, [S]; folds begin only there. None: anywhere.

    Returns:
        The folds in the order of time. A second at either border is not trained on.

    Raises:
        ValueError: As for `contiguous_folds`.
    """
    usable = dataset.tracks.usable
    folds = contiguous_folds(len(dataset), n_folds, sentences=sentences)
    return [Fold(fold.train & usable, fold.test[usable[fold.test]]) for fold in folds]


def fit_block(dataset: IdentityDataset, fold: Fold) -> Block:
    """Fit template, head poses and face model on the training frames of a fold.

    Codes and poses of the other frames follow from these models and the tracked landmarks.

    Args:
        dataset: The dataset.
        fold: Training frames and frames to evaluate, all usable.

    Returns:
        The block.
    """
    tracks = dataset.tracks
    covered = np.asarray(tracks.landmarks.any((1, 2)))
    training, joins = fold.train & covered, dataset.info.joins
    head = track_head(tracks.landmarks, covered, training, dataset.intrinsics, joins)
    triangles = dataset.face.triangles
    face = fit_face_model(head.template, head.canonical, fold.train, tracks.silent, triangles)
    codes = mouth_only(encode_motion(face, head.canonical), face)
    return Block(fold.test, fold.train, face, codes, head.poses.viewmats)


def mouth_only(codes: Float32, face: FaceModel) -> Float32:
    """Set all components but those of the mouth to 0.

    Args:
        codes: Motion codes [F, K].
        face: Their face model.

    Returns:
        Motion codes [F, K].
    """
    mouth = np.zeros_like(codes)
    mouth[:, : face.n_mouth] = codes[:, : face.n_mouth]
    return mouth


def training_data(
    dataset: IdentityDataset,
    block: Block,
    features: SpeechFeatures,
    augmented: Sequence[SpeechFeatures] = (),
    voices: OtherVoices | None = None,
) -> PredictorTrainingData:
    """Collect what the predictor of a block is fitted on.

    Args:
        dataset: The dataset.
        block: The block.
        features: Features of the dataset's audio.
        augmented: Features of augmented copies of it.
        voices: Other people's speech. None: the range of the lips is not corrected.

    Returns:
        The training data, without the block's frames.
    """
    silent = dataset.tracks.silent
    return PredictorTrainingData(
        features, block.codes, block.train, silent, block.face, augmented, voices
    )


def shown_points(dataset: IdentityDataset, block: Block, codes: Float32) -> Float32:
    """Project a block's frames to landmarks, with other mouths.

    Args:
        dataset: The dataset.
        block: The block.
        codes: Motion codes [n, K] of its frames.

    Returns:
        Landmarks [n, 478, 2] in source pixels.
    """
    vertices = block.face.vertices(codes).astype(np.float64)
    viewmats = block.viewmats[block.frames].astype(np.float64)
    return project(vertices, viewmats, dataset.intrinsics).astype(np.float32)
