"""Checks of a command's arguments, made before PyTorch is imported.

`fit`, `speak` and `evaluate` make the same checks when they are called from Python.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from talkhead.app.choices import MODES, REFUSE, check_choice
from talkhead.app.composer.expression_track import check_track
from talkhead.app.home.footage import (
    ROUGHLY_LONGER_S,
    check_duration,
    check_same_footage,
    locate_footage,
    timeline_seconds,
)
from talkhead.app.home.identities import Home, name_from_video
from talkhead.app.home.scratch import open_home
from talkhead.app.output.finalize import check_subtitles_free, output_files
from talkhead.app.request import OutputOptions, check_options, named_files
from talkhead.errors import MediaError, TalkheadError
from talkhead.identity import MANIFEST_NAME, IdentityPackage, Manifest, read_manifest
from talkhead.media import probe
from talkhead.media.codecs import choose_codec, default_name
from talkhead.media.inputs import file_url
from talkhead.media.probing import probe_footage
from talkhead.processors import check_device
from talkhead.storage import read_json, sha256_of, translate_os_errors


def check_fit(
    videos: Sequence[Path],
    name: str | None = None,
    *,
    device: str = "auto",
    home: Path | str | None = None,
) -> None:
    """Check the arguments of `fit` that can be checked immediately. `FitOptions` checks the rest.

    Args:
        videos: Footage of the person, one clip or several.
        name: Name of the identity. None: made from the name of the first video.
        device: Device to fit on.
        home: Folder of the identities.

    Raises:
        TalkheadError: A video, the name or the device is not usable.
    """
    check_device(device)
    if not videos:
        raise TalkheadError("no video was given. Pass one clip of the person or more")
    for video in videos:
        probe_footage(video)
    open_home(home).identity_dir(name or name_from_video(videos[0]))


@dataclass(frozen=True)
class SpeakFiles:
    """Files of a call of `speak` that was checked.

    Attributes:
        output: The file to write.
        source: Footage that is re-lipped frame by frame. None: the idle clip is played.
    """

    output: Path
    source: Path | None = None


def check_speak(
    audio: Path,
    output: Path | None,
    *,
    identity: str | Path | None = None,
    mode: str = "paste",
    video: Path | None = None,
    renderer: str | None = None,
    options: OutputOptions,
    device: str = "auto",
    home: Path | str | None = None,
) -> SpeakFiles:
    """Check the arguments of `speak`.

    Args:
        audio: Audio to speak.
        output: File to write. None: named after the audio, in the current folder.
        identity: Name of an identity, or folder of a package. None: the identity fitted last.
        mode: "paste" or "head".
        video: Footage for the timeline "source". None: where `fit` found it.
        renderer: Name of a renderer. None: the identity's own.
        options: Options of the output.
        device: Device to render on.
        home: Folder of the identities.

    Returns:
        The file to write, and the footage that is re-lipped, if any.

    Raises:
        TalkheadError: A file is missing, the options are not compatible, a file would be
            overwritten, or the footage has changed since the fit.
    """
    check_choice("mode", mode, MODES)
    check_device(device)
    if video is not None and not options.keeps_footage:
        raise TalkheadError(
            "a video needs --timeline source, which re-lips it: the idle clip is part of the identity"
        )
    if output is None:
        stem = f"{audio.stem}-driven" if audio == options.drive else audio.stem
        output = default_name(stem, choose_codec(options.codec))
    _check_output(output, audio, options, mode)
    if Home.locate(home).is_own(output):
        raise TalkheadError(
            f"{output}: is in a folder that talkhead manages. Choose another output"
        )
    check_sound(audio)
    if options.expression is not None:
        check_track(options.expression, mode)
    if options.drive is not None:
        _check_driver(options.drive)
    for file in (options.certificate, options.key):
        if file is not None:
            check_file(file)
    manifest = check_identity(identity, renderer, home)
    if not options.keeps_footage:
        return SpeakFiles(output)
    source = _check_source(video, manifest, home)
    if options.footage_end == REFUSE:
        # Roughly, before anything is loaded; exactly once the frames are counted.
        audio_s, footage_s = probe(audio).duration_s, timeline_seconds(manifest)
        if video is not None:
            footage_s = probe(source).duration_s
        check_duration(str(audio), audio_s, footage_s, ROUGHLY_LONGER_S)
    _check_kept([source], output_files(output, options))
    return SpeakFiles(output, source)


def _check_driver(video: Path) -> None:
    """Raise TalkheadError if a driving video is missing or has no picture."""
    check_file(video)
    if not probe(video).has_video:
        raise MediaError(f"{video}: has no picture. Pass a video of a face")


def _check_source(video: Path | None, manifest: Manifest, home: Path | str | None) -> Path:
    """Return the footage that is re-lipped. Raise TalkheadError if it is missing or has changed."""
    if video is not None:  # any footage of the person
        check_file(video)
        if not probe(video).has_video:
            raise MediaError(f"{video}: has no picture. Pass footage of the person")
        return video
    video = locate_footage(Home.locate(home), manifest, "Pass it with --video FILE")
    check_same_footage(manifest, video, sha256_of(video))
    return video


def check_evaluate(
    identity: str | Path | None,
    audio: Path | None,
    video: Path | None,
    report: Path | None,
    *,
    renderer: str | None = None,
    device: str = "auto",
    home: Path | str | None = None,
) -> None:
    """Check the arguments of `evaluate`.

    Args:
        identity: Name of an identity, or folder of a package. None: the identity fitted last.
        audio: Another recording to speak.
        video: The footage, if it was moved.
        report: Folder for the report.
        renderer: Name of a renderer. None: the identity's own.
        device: Device to render on.
        home: Folder of the identities.

    Raises:
        TalkheadError: Something is missing or not usable.
    """
    check_device(device)
    if audio is not None:
        check_sound(audio)
    if video is not None:
        check_file(video)
    if report is not None:
        check_report(report)
    check_identity(identity, renderer, home)


def check_pair(real: Path, made: Path, report: Path | None) -> None:
    """Check the arguments of `evaluate_pair`.

    Args:
        real: The real video.
        made: The video to compare with it.
        report: Folder for the report.

    Raises:
        MediaError: A video is missing or has no picture.
        TalkheadError: The folder is not usable.
    """
    for video in (real, made):
        if not probe(video).has_video:
            raise MediaError(f"{video}: has no picture. Pass a video of a face")
    if report is not None:
        check_report(report)


def check_identity(
    identity: str | Path | None, renderer: str | None, home: Path | str | None
) -> Manifest:
    """Check that an identity exists and has a renderer, without verifying its files.

    Args:
        identity: Name of an identity, or folder of a package. None: the identity fitted last.
        renderer: Name of a renderer. None: the identity's own.
        home: Folder of the identities.

    Returns:
        Manifest of the identity.

    Raises:
        PackageError: There is no such identity or renderer.
    """
    path = open_home(home).resolve(identity)
    manifest = read_manifest(read_json(path / MANIFEST_NAME), path)
    IdentityPackage(path, manifest).renderer(renderer)
    return manifest


def check_file(path: Path) -> None:
    """Check that a file exists.

    Args:
        path: The file.

    Raises:
        TalkheadError: It does not exist, or is a folder.
    """
    if path.is_dir():
        raise TalkheadError(f"{path}: this is a folder. Pass the name of a file")
    if not path.exists():
        raise TalkheadError(f"{path}: there is no such file. Check the path")


def check_sound(path: Path) -> None:
    """Check that a file has audio.

    Args:
        path: The file.

    Raises:
        MediaError: It has none, or cannot be read.
    """
    if not probe(path).has_audio:
        raise MediaError(f"{path}: has no sound. Pass a recording of speech")


def check_report(folder: Path) -> None:
    """Check the folder of a report.

    Args:
        folder: The folder, which need not exist.

    Raises:
        TalkheadError: It is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise TalkheadError(f"{folder}: this is a file. Pass a folder for the report")


def _check_output(output: Path, audio: Path, options: OutputOptions, mode: str) -> None:
    """Raise TalkheadError if the output cannot be written, or does not fit its options."""
    if not output.absolute().parent.is_dir():
        raise TalkheadError(f"{output}: the folder {output.parent} does not exist. Create it first")
    if output.is_dir() and not choose_codec(options.codec).is_folder:
        raise TalkheadError(f"{output}: this is a folder. Pass the name of a file")
    file_url(output)  # raises for a name that ffmpeg does not accept
    inputs = (audio, *named_files(asdict(options)))
    _check_kept(inputs, [output])
    check_options(options, output, mode)
    _check_kept(inputs, output_files(output, options))
    check_subtitles_free(output, options)
    with translate_os_errors(output), tempfile.TemporaryFile(dir=output.absolute().parent):
        pass  # a missing permission is found before the work, not after it


def _check_kept(inputs: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Raise TalkheadError if an output would replace an input, or a folder that contains one."""
    for path, output in itertools.product(inputs, outputs):
        if not (output.exists() and path.exists()):
            continue
        if output.samefile(path):
            raise TalkheadError(f"{output}: this is the input. Choose another output")
        if output.is_dir() and output.resolve() in path.resolve().parents:
            raise TalkheadError(f"{output}: the input {path.name} is in it. Choose another output")
