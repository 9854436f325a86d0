"""Avatars: fitted identities loaded for inference, and motion prediction from audio."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from talkhead import media
from talkhead.app.composer.idle_clip import IdleClip, load_idle
from talkhead.app.home.identities import Home
from talkhead.config import from_json
from talkhead.dataset import IdentityDataset
from talkhead.device import resolve_device, set_threads
from talkhead.encoder.base import SpeechEncoder, encode_chunks, normalize_level
from talkhead.encoder.predictor.model import MotionPredictor
from talkhead.encoder.predictor.network import PredictorConfig
from talkhead.encoder.registry import DEFAULT_ENCODER, load_encoder
from talkhead.encoder.vad import detect_speech
from talkhead.errors import PackageError, TalkheadError
from talkhead.identity import MANIFEST_NAME, REMEDY, IdentityPackage
from talkhead.renderers.base import Renderer
from talkhead.renderers.gaussian.model import without_body
from talkhead.renderers.quantization import unpack
from talkhead.renderers.registry import get_renderer
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32, SpeechFeatures

CHUNK_S = 20.0
MAX_BUFFERED_S = 120.0
"""Audio up to this length (8 MB) is decoded once and kept; longer audio is decoded for each
pass."""
RENDERER_ADVICE = "This renderer is damaged, or of another version of talkhead. Fit again"
ENCODER_VERSION_KEY = "version"
"""Key of an encoder's version in the manifest of a package."""
FIRST_ENCODER = "pase-gru"
"""Encoder that the earliest packages store under the name DEFAULT_ENCODER."""


@dataclass(frozen=True)
class Avatar:
    """A fitted identity, loaded: everything that rendering needs.

    Attributes:
        package: The package that it was loaded from.
        renderer_name: Name of the renderer.
        renderer: Renders motion codes.
        idle: The person's own footage that the mouth is pasted into.
        encoder: Turns audio into features.
        predictor: Turns features into motion codes.
    """

    package: IdentityPackage
    renderer_name: str
    renderer: Renderer
    idle: IdleClip
    encoder: SpeechEncoder
    predictor: MotionPredictor

    @property
    def name(self) -> str:
        """Name of the identity."""
        return self.package.manifest.name

    @cached_property
    def head(self) -> Renderer:
        """The renderer without neck and clothes."""
        return without_body(self.renderer)


def load_identity(
    identity: str | Path | None = None,
    *,
    renderer: str | None = None,
    device: str = "auto",
    home: Path | str | None = None,
) -> Avatar:
    """Load a fitted identity, to be passed to `speak` and `speak_frames` any number of times.

    Args:
        identity: Name of an identity, or folder of a package. None: the identity fitted last.
        renderer: Name of a fitted renderer. None: the identity's own.
        device: "auto", "cpu", "cuda" or "cuda:N".
        home: Folder of the identities. None: `TALKHEAD_HOME`, or the user's data folder.

    Returns:
        The loaded identity.

    Raises:
        PackageError: There is no such identity or renderer, or the package is damaged.
        TalkheadError: The device is not usable, or the encoder's weights have changed.
    """
    set_threads()
    return load_avatar(Home.locate(home).load(identity), renderer, resolve_device(device))


def load_avatar(package: IdentityPackage, renderer: str | None, device: torch.device) -> Avatar:
    """Load the parts of a package.

    Args:
        package: A verified package.
        renderer: Name of a fitted renderer. None: the package's own.
        device: Where to render.

    Returns:
        The loaded identity.

    Raises:
        PackageError: There is no such renderer, or parts are damaged or do not belong together.
        TalkheadError: The encoder is not available, or its weights have changed.
    """
    name, _ = package.renderer(renderer)
    avatar = Avatar(
        package,
        name,
        load_renderer(package, name, device),
        load_idle(package),
        load_encoder_for(package),
        load_predictor(package),
    )
    n_codes = {
        "renderer": avatar.renderer.n_codes,
        "face": avatar.idle.face.n_codes,
        "predictor": len(avatar.predictor.scaling.rest),
    }
    if len(set(n_codes.values())) > 1:
        sizes = ", ".join(f"{n} in the {part}" for part, n in n_codes.items())
        raise PackageError(f"{package.path}: motion codes of {sizes}. {REMEDY}")
    return avatar


def load_renderer(package: IdentityPackage, name: str, device: torch.device) -> Renderer:
    """Load a renderer of a package.

    Args:
        package: A verified package.
        name: Name of the renderer.
        device: Where to render.

    Returns:
        The renderer.

    Raises:
        PackageError: There is no such renderer, or it is damaged or of another version.
    """
    name, part = package.renderer(name)
    renderer_class = get_renderer(name)
    with package.content_errors(MANIFEST_NAME):
        config = from_json(renderer_class.config_class, part.config)
    with package.content_errors(part.file, RENDERER_ADVICE):
        tensors = {key: t.to(device) for key, t in unpack(package.tensors(part.file)).items()}
        return renderer_class.from_tensors(tensors, config)


def load_predictor(package: IdentityPackage) -> MotionPredictor:
    """Load the motion predictor of a package.

    Args:
        package: A verified package.

    Returns:
        The predictor.

    Raises:
        PackageError: It is damaged.
    """
    part = package.manifest.predictor
    with package.content_errors(MANIFEST_NAME):
        config = from_json(PredictorConfig, part.config)
    with package.content_errors(part.file):
        return MotionPredictor.from_tensors(package.tensors(part.file), config)


def load_encoder_for(package: IdentityPackage) -> SpeechEncoder:
    """Load the encoder that a package's predictor was fitted with.

    Args:
        package: A verified package.

    Returns:
        The encoder.

    Raises:
        TalkheadError: The encoder is not available, or its weights have changed.
    """
    part = package.manifest.encoder
    encoder = load_encoder(part.name)
    version = part.config.get(ENCODER_VERSION_KEY, encoder.version)
    if part.name == DEFAULT_ENCODER and version != encoder.version:
        encoder = load_encoder(FIRST_ENCODER)
    if version != encoder.version:
        raise TalkheadError(
            f"{package.manifest.name}: was fitted with other weights of the encoder {part.name}. "
            "Run talkhead fit for this person again; an existing renderer is not fitted again"
        )
    return encoder


def speech_codes(audio: Path, package: IdentityPackage) -> Float32:
    """Predict the motion codes of an audio file with the encoder and predictor of a package.

    Args:
        audio: File with audio.
        package: A verified package.

    Returns:
        Motion codes [n_frames, K] at 25 per second; n_frames is round(25 * seconds), at least 1.

    Raises:
        TalkheadError: The audio, the encoder or the predictor cannot be loaded.
    """
    return predict_motion(audio, load_encoder_for(package), load_predictor(package))


def predict_motion(
    audio: Path,
    encoder: SpeechEncoder,
    predictor: MotionPredictor,
    n_frames: int | None = None,
    intensity: float = 1.0,
) -> Float32:
    """Predict the motion codes of an audio file.

    Args:
        audio: File with audio.
        encoder: The encoder that the predictor was fitted with.
        predictor: Motion predictor.
        n_frames: Number of frames; the mouth is at rest after the end of the audio. None: the
            length of the audio.
        intensity: Factor on the motion of the mouth; closed lips stay closed.

    Returns:
        Motion codes [n_frames, K] at 25 per second.

    Raises:
        MediaError: The audio cannot be read.
    """
    chunks = _audio_chunks(audio)
    speech = detect_speech(chunks)
    if n_frames is None:
        n_frames = max(1, round(speech.n_samples / SAMPLE_RATE * FRAME_RATE))
    features = encode_chunks(encoder, (speech.gain * chunk for chunk in chunks()))
    codes = predictor.predict_chunks(features, speech.silent, n_frames, intensity)
    return np.concatenate(list(codes))


def _audio_chunks(audio: Path) -> Callable[[], Iterable[Float32]]:
    """Return a function that yields the audio from its start, in chunks [n], each time it is
    called."""

    def read() -> Generator[Float32, None, None]:
        return media.read_audio_chunks(audio, SAMPLE_RATE, CHUNK_S)

    kept: list[Float32] = []
    with closing(read()) as chunks:
        for chunk in chunks:
            kept.append(chunk)
            if len(kept) * CHUNK_S > MAX_BUFFERED_S:
                return read
    return lambda: kept


def encode_footage(dataset: IdentityDataset, encoder: SpeechEncoder) -> SpeechFeatures:
    """Encode the audio of footage.

    Args:
        dataset: The prepared footage.
        encoder: Speech encoder.

    Returns:
        The features that `predict_motion` would compute.
    """
    return encoder.encode(normalized_footage_audio(dataset))


def normalized_footage_audio(dataset: IdentityDataset) -> Float32:
    """Bring the audio of footage to the level that encoders expect.

    Args:
        dataset: The prepared footage. The level is measured on speech of training frames only.

    Returns:
        Waveform [n_samples].
    """
    return normalize_level(dataset.waveform, dataset.tracks.silent | ~dataset.tracks.train)
