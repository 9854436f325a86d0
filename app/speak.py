"""Lip-sync a fitted person to a recording: from the request to the finished file.

speak                 checks the request
  speak_checked         loads the identity, moves the finished files into place
    render_video          renders a request; `dub` calls it for each of its jobs
      predict_motion        audio -> motion codes          app/avatar.py
      make_frames           motion codes -> frames         app/composer/requested_frames.py
      Segments              frames -> encoded segments     app/resume.py
      finish_video          segments + audio -> the file   app/output/finalize.py
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from talkhead import media
from talkhead.app.avatar import Avatar, load_identity, predict_motion
from talkhead.app.checks import SpeakFiles, check_speak
from talkhead.app.choices import BOUNCE, MODES, OWN, STOP, check_choice
from talkhead.app.composer.backgrounds import backgrounds_of
from talkhead.app.composer.coverage import coverage_warning
from talkhead.app.composer.driver import Driver, track_driver
from talkhead.app.composer.expression_model import check_controllable
from talkhead.app.composer.frames import (
    FrameRenderer,
    HeadFrameRenderer,
    own_background,
    pasted_line,
)
from talkhead.app.composer.requested_frames import head_rate, make_frames
from talkhead.app.composer.source_clip import SourceFootage, source_footage
from talkhead.app.home.footage import check_duration
from talkhead.app.home.identities import Home
from talkhead.app.home.scratch import scratch_folder
from talkhead.app.output.finalize import (
    OutputFacts,
    ResolvedRequest,
    finish_video,
    warn_old_subtitles,
)
from talkhead.app.output.publish import publish_all
from talkhead.app.output.subtitles import LineSubtitles, prepare_subtitles
from talkhead.app.request import (
    NONE,
    OutputOptions,
    RenderRequest,
    SpeakSettings,
    audio_path,
    path_of,
    speak_settings,
    srt_path,
)
from talkhead.app.resume import CODES, CODES_RECORD, Segments, enter_work_folder, read_kept_codes
from talkhead.device import set_threads
from talkhead.errors import TalkheadError
from talkhead.identity import Manifest
from talkhead.media import probe, scaled_size
from talkhead.media.probing import own_rate
from talkhead.progress import Progress, SilentProgress
from talkhead.storage import make_folder, sha256_of, write_json, write_tensors
from talkhead.types import FRAME_RATE, Float32, UInt8

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from talkhead.app.request import Audio, SpeakKeywords

FRAMES_REMEDY = "speak_frames gives the frames as arrays"
FOOTAGE_REMEDY = "Only the file that the person was fitted on can be re-lipped"


@dataclass(frozen=True)
class SpeakResult:
    """The result of `speak`.

    Attributes:
        output_path: The video, or the folder of images.
        identity: Name of the identity.
        renderer: Name of the renderer.
        n_frames: Number of frames.
        duration_s: Length in seconds.
        picture: Size and frame rate, with the reason for them.
    """

    output_path: Path
    identity: str
    renderer: str
    n_frames: int
    duration_s: float
    picture: str = ""


def speak(
    audio: Audio,
    *,
    identity: str | Path | Avatar | None = None,
    output: Path | str | None = None,
    mode: str = "paste",
    video: Path | str | None = None,
    options: OutputOptions | None = None,
    home: Path | str | None = None,
    progress: Progress | None = None,
    **settings: Unpack[SpeakKeywords],
) -> SpeakResult:
    """Render a video in which a fitted person speaks a recording.

    Args:
        audio: File with audio, or a pair (waveform, sample rate in Hz) with a waveform of shape
            [n_samples] or [n_samples, channels], int16 or floats in [-1, 1].
        identity: Name of an identity, folder of a package, or the result of `load_identity`. None:
            the identity fitted last.
        output: File to write. None: named after the audio, in the current folder.
        mode: "paste" renders the lower face into the person's own footage, "head" the head alone.
        video: The footage for `timeline="source"`, if it is no longer where `fit` found it.
        options: Options of the output. None: the defaults.
        home: Folder of the identities. None: `TALKHEAD_HOME`, or the user's data folder.
        progress: Receives the progress. None: nothing is shown.
        **settings: Any field of `OutputOptions`, instead of `options`, and
            renderer (str): name of a fitted renderer, by default the identity's own;
            device (str): "auto", "cpu", "cuda" or "cuda:N";
            work (Path): folder for unfinished work. It is kept, and the same call resumes from it.
            By default it is in the home folder, and removed.

    Returns:
        The path of the video and its properties.

    Raises:
        TalkheadError: The request cannot be carried out. The message says what to change.
    """
    progress, store = progress or SilentProgress(), Home.locate(home)
    chosen = speak_settings(options, settings)
    if isinstance(audio, tuple) and output is None:
        raise TalkheadError("output: a waveform has no file name. Pass the file to write")
    # Unfinished work contains images of the person, so it is never put next to the output.
    with scratch_folder(store) if isinstance(audio, tuple) else nullcontext() as folder:
        path = audio_path(audio, folder)
        loaded = identity if isinstance(identity, Avatar) else None
        checked = check_speak(
            path,
            None if output is None else path_of(output, "output", FRAMES_REMEDY),
            identity=loaded.package.path if loaded else identity,  # type: ignore[arg-type]
            mode=mode,
            video=None if video is None else path_of(video, "video", FOOTAGE_REMEDY),
            renderer=chosen.renderer,
            options=chosen.options,
            device=chosen.device,
            home=home,
        )
        return speak_checked(
            path,
            checked,
            identity=identity,
            mode=mode,
            settings=chosen,
            home=home,
            progress=progress,
        )


def speak_checked(
    audio: Path,
    files: SpeakFiles,
    *,
    identity: str | Path | Avatar | None,
    mode: str,
    settings: SpeakSettings,
    home: Path | str | None,
    progress: Progress,
) -> SpeakResult:
    """Do what `speak` does once `check_speak` has accepted the call.

    Args:
        audio: File with audio.
        files: The file to write, and the footage, as `check_speak` returned them.
        identity: See `speak`.
        mode: See `speak`.
        settings: The keywords of the call.
        home: See `speak`.
        progress: Receives the progress.

    Returns:
        The path of the video and its properties.

    Raises:
        TalkheadError: The request cannot be carried out.
    """
    store, avatar = Home.locate(home), _loaded(identity, settings.renderer, settings.device, home)
    output = files.output
    with scratch_folder(store) as scratch:
        finished = make_folder(scratch / "finished") / output.name
        request = RenderRequest(audio, finished, mode, files.source, settings.options)
        work = settings.work or scratch / "line"
        n_frames, duration_s = render_video(avatar, request, work, store.path, progress)
        if not srt_path(finished).exists():
            warn_old_subtitles(output, progress)
        picture = _picture(request, avatar.package.manifest)
        publish_all(finished.parent, output)
    return SpeakResult(output, avatar.name, avatar.renderer_name, n_frames, duration_s, picture)


def speak_frames(
    audio: Audio,
    *,
    identity: str | Path | Avatar | None = None,
    mode: str = "paste",
    renderer: str | None = None,
    device: str = "auto",
    home: Path | str | None = None,
) -> Generator[UInt8, None, None]:
    """Render the frames of a person speaking a recording as arrays, without writing a file.

    The frames are not marked as synthetic: say so wherever they are shown.

    Args:
        audio: See `speak`.
        identity: See `speak`.
        mode: "paste", or "head" for the head over the person's own background.
        renderer: Name of a fitted renderer. None: the identity's own.
        device: "auto", "cpu", "cuda" or "cuda:N".
        home: Folder of the identities.

    Returns:
        A generator of frames [H, W, 3], uint8 RGB, at 25 frames per second.

    Raises:
        TalkheadError: The request cannot be carried out; raised by the call itself.
    """
    check_choice("mode", mode, MODES)
    avatar = _loaded(identity, renderer, device, home)
    with scratch_folder(Home.locate(home)) as scratch:
        codes = predict_motion(audio_path(audio, scratch), avatar.encoder, avatar.predictor)
    if mode == "paste":
        return pasted_line(avatar.renderer, avatar.idle, codes)
    backgrounds = backgrounds_of(OWN, own_background(avatar.idle), len(codes))
    frames = HeadFrameRenderer(avatar.renderer, avatar.idle, codes, backgrounds)
    return frames.frames(0, len(codes))


def render_video(
    avatar: Avatar, request: RenderRequest, work: Path, home: Path, progress: Progress
) -> tuple[int, float]:
    """Render a request to its output, resuming from what is in its work folder.

    Args:
        avatar: The person.
        request: What to render.
        work: Folder for this request only. It may contain the work of an interrupted call. It is
            kept.
        home: Folder of the identities, with the signing key.
        progress: Receives the progress.

    Returns:
        Number of frames, and length in seconds.

    Raises:
        TalkheadError: The request cannot be carried out.
    """
    resolved = ResolvedRequest.of(request, home)  # raises errors before the work, not after it
    enter_work_folder(work, avatar, request)
    footage = _source(avatar, request, home, progress)
    n_codes = None if footage is None else ceil(len(footage) * FRAME_RATE / footage.frame_rate)
    if request.options.controls_face:
        check_controllable(avatar.idle)
    codes = _motion(avatar, request, n_codes, work, progress)
    driver = _driver(request, work, progress)
    is_spoken = driver is None or not driver.moves_mouth
    if is_spoken and (warning := coverage_warning(codes, avatar.idle)):
        progress.message(warning)
    frames = make_frames(avatar, resolved, codes, footage, driver, progress)
    subtitles = _subtitles(request, frames, work, progress)
    captions, srt = (None, None) if subtitles is None else (subtitles.captions, subtitles.srt)
    segments = Segments(work, resolved.codec, request.options, captions)
    picture = segments.joined(segments.render(frames, progress), len(frames))
    facts = OutputFacts(
        avatar.name, len(frames), frames.frame_rate, avatar.package.manifest.consent
    )
    finish_video(picture, resolved, facts, srt)
    if subtitles is None:
        warn_old_subtitles(request.output, progress)
    return len(frames), facts.length_s


def _loaded(
    identity: str | Path | Avatar | None,
    renderer: str | None,
    device: str,
    home: Path | str | None,
) -> Avatar:
    """Load an identity, unless it is loaded already."""
    if not isinstance(identity, Avatar):
        return load_identity(identity, renderer=renderer, device=device, home=home)
    if renderer is not None or device != "auto":
        raise TalkheadError(
            "renderer and device: a loaded identity has its own. Pass them to load_identity"
        )
    set_threads()
    return identity


def _source(
    avatar: Avatar, request: RenderRequest, home: Path, progress: Progress
) -> SourceFootage | None:
    """Prepare the footage whose timeline is kept, if any."""
    if request.source is None:
        return None
    footage = source_footage(avatar.package, request.source, home, progress)
    length_s = float(len(footage) / footage.frame_rate)
    audio_s = media.audio_duration(request.audio)
    if request.options.footage_end == BOUNCE:
        return footage.lasting(audio_s)
    if request.options.footage_end != STOP:
        check_duration(str(request.audio), audio_s, length_s)
    elif audio_s > length_s + 1.0 / footage.frame_rate:
        progress.message(
            f"{request.audio.name}: the last {audio_s - length_s:.2f} s of {audio_s:.2f} s are cut, "
            "because the footage ends"
        )
    return footage


def _driver(request: RenderRequest, work: Path, progress: Progress) -> Driver | None:
    """Track the driving video, if any. If it is the audio, too, its face moves the mouth."""
    drive = request.options.drive
    if drive is None:
        return None
    driver = track_driver(drive, work, progress)
    return replace(driver, moves_mouth=sha256_of(request.audio) == sha256_of(drive))


def _motion(
    avatar: Avatar, request: RenderRequest, n_frames: int | None, work: Path, progress: Progress
) -> Float32:
    """Predict motion codes [F, K] at 25 per second, or read those kept in the work folder."""
    path = work / CODES
    with progress.step("Predicting motion", total=1) as step:
        kept = read_kept_codes(path, avatar.idle.face.n_codes, n_frames)
        if kept is not None:
            step.skip("predicted before")
            return kept
        intensity = request.options.intensity
        codes = predict_motion(request.audio, avatar.encoder, avatar.predictor, n_frames, intensity)
        codes = codes.astype(np.float32)
        write_tensors(path, {"codes": torch.from_numpy(codes)})
        write_json(work / CODES_RECORD, {"sha256": sha256_of(path)})
        step.advance()
    return codes


def _subtitles(
    request: RenderRequest, frames: FrameRenderer, work: Path, progress: Progress
) -> LineSubtitles | None:
    """Make the subtitles of a request, if any are requested."""
    if request.options.subtitles == NONE:
        return None
    width, height = frames.size
    if request.options.height is not None:
        width, height = scaled_size(width, height, request.options.height)
    with progress.step("Making subtitles", total=1) as step:
        length_s = float(len(frames) / frames.frame_rate)
        made = prepare_subtitles(request.audio, request.options, work, (width, height), length_s)
        step.advance()
    if made is not None and made.note:
        progress.message(made.note)
    return made


def _picture(request: RenderRequest, manifest: Manifest) -> str:
    """Describe the size and frame rate of a finished video, and the reason for them."""
    width, height = _size(request.output)
    source = manifest.source
    if request.mode == "head":
        size = f"the head alone, cropped from {source.width}x{source.height}"
    else:
        size = f"as in the footage, {source.width}x{source.height}"
    if request.options.height is not None:
        size += f", scaled to height {request.options.height}"
    if request.source is not None:
        own = float(own_rate(request.source))
        return f"{width}x{height} ({size}), {own:.4g} frames per second, as in the footage"
    if request.options.fps is not None:
        chosen = float(head_rate(request.options, manifest))
        return f"{width}x{height} ({size}), {chosen:.4g} frames per second, as requested"
    rate = f"{FRAME_RATE} frames per second, as in every output"
    if round(source.frame_rate, 2) != FRAME_RATE:
        rate += f"; the footage has {source.frame_rate:.4g}"
    return f"{width}x{height} ({size}), {rate}"


def _size(output: Path) -> tuple[int, int]:
    """Read the width and height of a finished video, or of a folder of PNG images."""
    if not output.is_dir():
        info = probe(output)
        return info.width, info.height
    with next(output.glob("*.png")).open("rb") as image:
        width, height = struct.unpack(">16x2I", image.read(24))  # PNG specification, 11.2.2
    return width, height
