"""Find the footage that an identity was fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from talkhead.app.home.identities import CLIPS, Home
from talkhead.errors import InputError, TalkheadError
from talkhead.identity import Manifest

LONGER_S = 0.2
"""Seconds by which audio may be longer than the footage whose timeline is kept; the excess is cut off."""
ROUGHLY_LONGER_S = 1.2
"""The same if the duration of the footage is known from a manifest only, not by counting frames."""


def locate_footage(home: Home, manifest: Manifest, remedy: str) -> Path:
    """Return where `fit` found the video of an identity.

    Args:
        home: Folder of the identities.
        manifest: Manifest of the identity.
        remedy: What to do if it is no longer there, one sentence.

    Returns:
        An existing file, whose content may have changed since.

    Raises:
        TalkheadError: It was moved or removed, or the identity was fitted on another machine.
    """
    name, source = manifest.name, manifest.source
    for path, sha256 in home.sources(name):
        if sha256 == source.sha256 and Path(path).is_file():
            return Path(path)
    if clips := _clips(manifest):
        names = ", ".join(str(clip.get("name")) for clip in clips)
        raise TalkheadError(
            f"{name}: the video that was joined from {names} was removed, or made on another machine. "
            "Run the same talkhead fit with these clips again"
        )
    raise TalkheadError(
        f"{name}: the footage that it was fitted on, {source.name}, was moved or removed. {remedy}"
    )


def check_joined(manifest: Manifest, video: Path, has_clips: bool) -> None:
    """Check that the clips of a joined video are known, so that held-out frames are those of the fit.

    Args:
        manifest: Manifest of an identity that was fitted on the video.
        video: The video.
        has_clips: True if the record of its clips was found.

    Raises:
        TalkheadError: The record is missing.
    """
    if _clips(manifest) and not has_clips:
        raise TalkheadError(
            f"{video}: the record of the clips that it was joined from is missing or damaged. Run the "
            "same talkhead fit with these clips again"
        )


def _clips(manifest: Manifest) -> list[Mapping[str, Any]]:
    """Return the clips that an identity was fitted on, if there were several."""
    clips = manifest.details.get(CLIPS)
    return [c for c in clips if isinstance(c, Mapping)] if isinstance(clips, list) else []


def fitted_sha256s(manifest: Manifest) -> list[str]:
    """Return the checksums of the video, or of the clips, that an identity was fitted on.

    Args:
        manifest: Manifest of an identity.

    Returns:
        SHA-256, in the order of the clips.
    """
    return [str(clip.get("sha256")) for clip in _clips(manifest)] or [manifest.source.sha256]


def timeline_seconds(manifest: Manifest) -> float:
    """Return the duration of the footage whose timeline can be kept.

    Args:
        manifest: Manifest of an identity.

    Returns:
        Seconds; of several clips, only the first one counts, since the others may look different.
    """
    clips = _clips(manifest)
    duration_s = clips[0].get("duration_s") if clips else None
    return duration_s if isinstance(duration_s, float) else manifest.source.duration_s


def check_duration(
    audio: str, audio_s: float, footage_s: float, longer_s: float = LONGER_S
) -> None:
    """Check that audio ends with the footage whose timeline is kept.

    Args:
        audio: Name of the audio in the message.
        audio_s: Its duration, seconds.
        footage_s: Duration of the footage, seconds.
        longer_s: Seconds by which the audio may be longer.

    Raises:
        InputError: It is longer than that.
    """
    if audio_s > footage_s + longer_s:
        raise InputError(
            f"{audio}: lasts {audio_s:.2f} s, but the video whose timeline is kept lasts "
            f"{footage_s:.2f} s. Shorten the audio, choose the timeline idle, or choose what "
            "happens at the end of the footage (footage end): bounce plays it on, backward and forward; "
            "stop cuts the audio"
        )


def check_same_footage(manifest: Manifest, video: Path, sha256: str) -> None:
    """Check that a video is the one that an identity was fitted on, so that its timeline can be kept.

    Args:
        manifest: Manifest of the identity.
        video: The video.
        sha256: Checksum of the video.

    Raises:
        TalkheadError: It is another one.
    """
    name, source = manifest.name, manifest.source
    if sha256 != source.sha256:
        raise TalkheadError(
            f"{video}: {name} was fitted on another video, {source.name} of {source.duration_s:.1f} s. "
            "Pass it with --video to re-lip it as other footage of the person, or fit it"
        )
