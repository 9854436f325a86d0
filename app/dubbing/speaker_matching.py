"""Who is who in each shot of a video with several people: faces are matched with fitted persons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from talkhead import media
from talkhead.app.avatar import Avatar
from talkhead.app.dubbing.face_likeness import FaceCrop, PersonLikeness, crop_face
from talkhead.app.dubbing.timeline import Shot
from talkhead.media.probing import own_rate
from talkhead.preprocess.landmarks import FaceDetector, face_distance
from talkhead.progress import Progress
from talkhead.types import Float32, Float64, UInt8

N_SAMPLES = 8
"""Largest number of frames of a shot in which faces are searched."""
MAX_STEP_S = 4.0
"""Frames that are farther apart are read one by one."""
N_COMPARED = 5
"""Faces of one person that are compared."""
MAX_APART = 1.0
"""Faces of consecutive samples whose centers are farther apart, in widths of a face, are different."""
HIGH_PERCENT = 75
"""Percentile of the likenesses of a person's faces that counts: with the head turned away it is low."""
MIN_LIKENESS = 0.55
"""Least likeness of a speaker. Of four fitted recordings of three men, each has 0.90 or more with itself,
0.60 and 0.63 with the other recording of the same man (other place, light and resolution), and at most
0.51 with 13 other people. Faces narrower than 80 pixels have less: at 60 pixels 0.77 or more in the
fitted recording and 0.54 in another one, at 45 pixels 0.64 and 0.50, and other people still at most
0.51."""


@dataclass(frozen=True)
class SeenSpeaker:
    """A speaker in a shot, where their face is first seen.

    Attributes:
        frame: Number of the frame, at the video's own rate.
        landmarks: [478, 3] of the face in this frame, pixels; `FaceTracker` can start from them.
        likeness: Likeness with the fitted person, at most 1.
    """

    frame: int
    landmarks: Float32
    likeness: float


def assign_speakers(
    video: Path, shots: Sequence[Shot], people: Mapping[str, Avatar], progress: Progress
) -> list[dict[str, SeenSpeaker]]:
    """Find out which speakers are on screen in each shot.

    Args:
        video: The video.
        shots: Its shots, see `find_shots`.
        people: Fitted persons by the name of the speaker.
        progress: Receives the progress.

    Returns:
        For each shot the speakers whose faces are seen. A face belongs to one speaker at most, and a
        speaker has one face at most.

    Raises:
        MediaError: The video cannot be read.
    """
    rate, detector = own_rate(video), FaceDetector()
    likeness = {name: PersonLikeness(avatar) for name, avatar in people.items()}
    seen = []
    with (
        closing(detector),
        progress.step("Recognizing speakers", total=len(shots)) as step,
    ):
        for shot in shots:
            samples = [
                [crop_face(i, frame, face.landmarks) for face in detector.detect(frame)]
                for i, frame in _sampled_frames(video, shot, rate)
            ]
            seen.append(match_faces(link_faces(samples), likeness))
            step.advance()
    return seen


def _sampled_frames(video: Path, shot: Shot, rate: Fraction) -> Iterator[tuple[int, UInt8]]:
    """Read frames [H, W, 3] that are spread evenly over a shot, with their numbers."""
    length = shot.after - shot.first
    step = ceil(length / N_SAMPLES)
    numbers = range(shot.first + (length - 1) % step // 2, shot.after, step)
    # Those between are decoded, too, unless each is read by itself.
    is_far = step > MAX_STEP_S * rate
    for part in ([number] for number in numbers) if is_far else (numbers,):
        start_s = float(part[0] / rate)
        frames = media.read_frames(
            video, start_s=start_s, n_frames=len(part), frame_rate=rate, step=step
        )
        with closing(frames):
            yield from zip(part, frames, strict=False)


def link_faces(samples: Sequence[Sequence[FaceCrop]]) -> list[list[FaceCrop]]:
    """Link the faces of a shot into people, by position.

    Args:
        samples: Faces of each sampled frame, in order of time.

    Returns:
        The faces of each person, in order of time, at most one of each sample.
    """
    people = list[list[FaceCrop]]()
    for faces in samples:
        apart = np.array([[_apart(person[-1], face) for face in faces] for person in people])
        linked = set[int]()
        if apart.size:
            for i, j in zip(*linear_sum_assignment(np.minimum(apart, MAX_APART)), strict=True):
                if apart[i, j] < MAX_APART:
                    people[i].append(faces[j])
                    linked.add(int(j))
        people += [[face] for j, face in enumerate(faces) if j not in linked]
    return people


def _apart(face: FaceCrop, other: FaceCrop) -> float:
    """Return the distance of two faces relative to the width of the first."""
    size = max(1.0, float(np.ptp(face.landmarks[:, 0])))
    return face_distance(face.landmarks, other.landmarks) / size


def match_faces(
    seen: Sequence[Sequence[FaceCrop]], likeness: Mapping[str, PersonLikeness]
) -> dict[str, SeenSpeaker]:
    """Assign the people of a shot to speakers, so that the sum of their likenesses is largest.

    Args:
        seen: Faces of each person, in order of time.
        likeness: Compares faces with a speaker, by name.

    Returns:
        The speakers who are seen.
    """
    names = list(likeness)
    table = np.array([[_likeness(faces, likeness[name]) for name in names] for faces in seen])
    found = dict[str, SeenSpeaker]()
    if not table.size:
        return found
    gain: Float64 = np.maximum(table - MIN_LIKENESS, 0.0)
    for i, j in zip(*linear_sum_assignment(gain, maximize=True), strict=True):
        if gain[i, j] > 0.0:
            first = seen[i][0]
            found[names[j]] = SeenSpeaker(first.frame, first.landmarks, float(table[i, j]))
    return found


def _likeness(faces: Sequence[FaceCrop], person: PersonLikeness) -> float:
    """Return the likeness of several faces of one person with a speaker."""
    chosen = np.unique(
        np.linspace(0, len(faces) - 1, min(N_COMPARED, len(faces))).round().astype(int)
    )
    return float(np.percentile(person.compare([faces[i] for i in chosen]), HIGH_PERCENT))
