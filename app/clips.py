"""Join several clips of one person to the footage of one fit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.io import wavfile

from talkhead import media
from talkhead.app.footage_checks import explained
from talkhead.app.home.identities import CLIPS, SOURCE, Home
from talkhead.encoder.base import normalize_level
from talkhead.encoder.vad import silent_video_frames
from talkhead.errors import FootageError, TalkheadError
from talkhead.footage import MAX_CLIPS, Clip, Footage, JoinedClips, clips_record
from talkhead.media.codecs import choose_codec
from talkhead.media.mux import mux, sound_source
from talkhead.media.probing import MAX_FOOTAGE_S
from talkhead.preprocess.clip_agreement import (
    ClipLook,
    check_same_person,
    difference_of_looks,
    look_at,
    read_fitted,
)
from talkhead.progress import Progress
from talkhead.storage import atomic_path, fingerprint, make_folder, sha256_of, write_json
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32

JOINED, PICTURES, SOUND = "joined.mp4", "joined-pictures.mp4", "joined.wav"
JOIN_VERSION = 1
"""Increase it when the same clips would be joined differently."""
CRF = 12
"""Quality of the joined video, which the idle clip is cut from: it should lose nothing visible."""


def join_clips(
    home: Home, name: str, videos: Sequence[Path], min_face: float, progress: Progress
) -> Footage:
    """Join clips to one video at 25 frames per second, of the size of the first one.

    Later clips are scaled to fit and padded by their edge. Sound is padded or cut to the length of its
    picture, and brought to one level. The caller holds the lock of the identity.

    Args:
        home: Folder of the identities.
        name: Name of the identity.
        videos: The clips, two or more. The first one determines how the person looks.
        min_face: Fraction of the frames that must show a face.
        progress: Receives the progress, and a message on each clip that differs.

    Returns:
        The joined video. It is not made again if an earlier call with the same clips has finished.

    Raises:
        MediaError: A clip cannot be read.
        FootageError: A clip is not usable, shows another person, or is a copy of another one.
        TalkheadError: The disk is full or not writable.
    """
    clips = [Footage.open(video) for video in videos]
    _check_set(clips)
    work = home.work_path(name, fingerprint([JOIN_VERSION, *(clip.sha256 for clip in clips)]))
    joined = work / JOINED
    with suppress(TalkheadError):  # none yet, or damaged
        if (footage := Footage.open(joined)).clips:
            return footage
    make_folder(work)
    paths = [str(video.resolve()) for video in videos]
    write_json(work / SOURCE, {"path": "", "sha256": "", CLIPS: paths})
    remarks = _remarks(clips, min_face, progress)
    parts = _write(clips, remarks, work, progress)
    record = JoinedClips(sha256_of(joined), tuple(parts))
    write_json(clips_record(joined), asdict(record))
    return Footage.open(joined)


def _check_set(clips: Sequence[Footage]) -> None:
    """Raise FootageError if clips are the same, too many or too long together."""
    if len(clips) > MAX_CLIPS:
        raise FootageError(f"{len(clips)} clips are too many: at most {MAX_CLIPS} are joined")
    for first, other in combinations(clips, 2):
        if first.sha256 == other.sha256:
            raise FootageError(
                f"{other.path}: is the same video as {first.path}. Pass each clip once"
            )
    hours = sum(clip.info.duration_s for clip in clips) / 3600
    if hours * 3600 > MAX_FOOTAGE_S:
        raise FootageError(
            f"the clips last {hours:.1f} hours together; at most {MAX_FOOTAGE_S / 3600:.0f} are "
            "used. Leave some out: a few minutes are enough"
        )


def _remarks(clips: Sequence[Footage], min_face: float, progress: Progress) -> list[str]:
    """Return why the images of each clip are not used, "" if they are. Raises FootageError."""
    size = (clips[0].info.height, clips[0].info.width)
    remarks: list[str] = []
    first: ClipLook | None = None
    with progress.step("Comparing the clips", total=len(clips)) as step:
        for clip in clips:
            try:
                look = look_at(clip.path, size, min_face)
            except FootageError as error:
                raise explained(error, clip.path) from error
            first = first or look
            doubt = check_same_person(first, look)
            remarks.append(difference_of_looks(first, look))
            if doubt:
                progress.message(doubt)
            if remarks[-1]:
                progress.message(f"{clip.path.name}: {remarks[-1]}: used for the lips only")
            step.advance()
    return remarks


def _write(
    clips: Sequence[Footage], remarks: Sequence[str], work: Path, progress: Progress
) -> list[Clip]:
    """Write the joined video; return the record of each clip."""
    size = (clips[0].info.height, clips[0].info.width)
    pictures, sound = work / PICTURES, work / SOUND
    total = round(sum(clip.info.duration_s for clip in clips) * FRAME_RATE)
    parts = []
    with (
        progress.step("Joining the clips", total=total) as step,
        media.VideoWriter(pictures, crf=CRF) as writer,
    ):
        for clip, remark in zip(clips, remarks, strict=True):
            start = writer.n_frames
            for frame in read_fitted(clip.path, size):
                writer.write(frame)
                step.advance()
            n_frames = writer.n_frames - start
            parts.append(Clip(str(clip.path), clip.sha256, n_frames, not remark))
    waveforms = [_sound(clip.path, part.n_frames) for clip, part in zip(clips, parts, strict=True)]
    waveform = np.concatenate(waveforms)
    wavfile.write(sound, SAMPLE_RATE, waveform / max(1.0, float(np.abs(waveform).max())))
    joined = work / JOINED
    with atomic_path(joined) as part_path:
        length_s = len(waveform) / SAMPLE_RATE
        mux(pictures, part_path, choose_codec(None, joined), length_s, sound=sound_source(sound))
    pictures.unlink()
    sound.unlink()
    return parts


def _sound(video: Path, n_frames: int) -> Float32:
    """Read the sound of a clip, as long as its picture and at the level of the others."""
    waveform = media.read_audio(video, SAMPLE_RATE)
    waveform = normalize_level(waveform, silent_video_frames(waveform, n_frames))
    n_samples = n_frames * SAMPLE_RATE // FRAME_RATE
    return np.pad(waveform, (0, max(0, n_samples - len(waveform))))[:n_samples]
