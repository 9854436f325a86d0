"""A fitted person, loaded: who looks, who hears, and what their mouth does at a sound."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from talkhead import media
from talkhead.app.composer.idle_clip import IdleClip, load_idle
from talkhead.config import from_json
from talkhead.dataset import IdentityDataset
from talkhead.encoder.base import SpeechEncoder, encode_chunks, normalize_level
from talkhead.encoder.predictor.model import MotionPredictor
from talkhead.encoder.predictor.network import PredictorConfig
from talkhead.encoder.registry import load_encoder
from talkhead.encoder.vad import detect_speech
from talkhead.errors import PackageError, TalkheadError
from talkhead.identity import MANIFEST_NAME, REMEDY, IdentityPackage
from talkhead.renderers.base import Renderer
from talkhead.renderers.quantization import unpack
from talkhead.renderers.registry import get_renderer
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32, SpeechFeatures

CHUNK_S = 20.0
MAX_BUFFERED_S = 120.0
"""A sound of at most so long is decoded once and kept, 8 MB; a longer one is decoded each time."""
HEAD_ADVICE = "This head is damaged, or of another version of talkhead. Fit again"
VERSION = "version"
"""Key of an encoder's version in a package."""


@dataclass(frozen=True)
class Avatar:
    """Everything of a package that lines are made with, in memory."""

    package: IdentityPackage
    renderer_name: str
    renderer: Renderer
    idle: IdleClip
    ears: SpeechEncoder
    predictor: MotionPredictor

    @property
    def name(self) -> str:
        return self.package.manifest.name


def load_avatar(package: IdentityPackage, renderer: str | None, device: torch.device) -> Avatar:
    """The person of a package with a renderer (None: the package's own) on a device.

    Raises PackageError for a package without that renderer, or whose parts are damaged or don't belong
    together, TalkheadError as load_encoder_for.
    """
    name, _ = package.renderer(renderer)
    person = Avatar(
        package,
        name,
        load_renderer(package, name, device),
        load_idle(package),
        load_encoder_for(package),
        load_predictor(package),
    )
    n_codes = {
        "head": person.renderer.n_codes,
        "face": person.idle.face.n_codes,
        "predictor": len(person.predictor.scaling.rest),
    }
    if len(set(n_codes.values())) > 1:
        told = ", ".join(f"{n} in the {part}" for part, n in n_codes.items())
        raise PackageError(f"{package.path}: motion codes of {told}. {REMEDY}")
    return person


def load_renderer(package: IdentityPackage, name: str, device: torch.device) -> Renderer:
    """A package's renderer of that name on a device.

    Raises PackageError for one that is damaged, or of another version of its renderer.
    """
    name, part = package.renderer(name)
    renderer_class = get_renderer(name)
    with package.content_errors(MANIFEST_NAME):
        config = from_json(renderer_class.config_class, part.config)
    with package.content_errors(part.file, HEAD_ADVICE):
        tensors = {key: t.to(device) for key, t in unpack(package.tensors(part.file)).items()}
        return renderer_class.from_tensors(tensors, config)


def load_predictor(package: IdentityPackage) -> MotionPredictor:
    """A package's speech -> motion."""
    part = package.manifest.predictor
    with package.content_errors(MANIFEST_NAME):
        config = from_json(PredictorConfig, part.config)
    with package.content_errors(part.file):
        return MotionPredictor.from_tensors(package.tensors(part.file), config)


def load_encoder_for(package: IdentityPackage) -> SpeechEncoder:
    """The encoder that a package's predictor was fitted with.

    Raises TalkheadError when it is not here, or has other weights now.
    """
    part = package.manifest.encoder
    encoder = load_encoder(part.name)
    if part.config.get(VERSION, encoder.version) != encoder.version:
        raise TalkheadError(
            f"{package.manifest.name}: was fitted with other weights of the encoder {part.name}. "
            "Run talkhead fit for this person again; the renderer is fitted anew only where it "
            "is missing"
        )
    return encoder


def speech_codes(audio: Path, package: IdentityPackage) -> Float32:
    """Motion codes [n_frames, K] of a sound file; n_frames = round(25 x seconds), at least 1."""
    return predict_motion(audio, load_encoder_for(package), load_predictor(package))


def predict_motion(
    audio: Path, ears: SpeechEncoder, predictor: MotionPredictor, n_frames: int | None = None
) -> Float32:
    """The same codes, by an encoder and a predictor that belong together.

    n_frames: how many; the mouth is at rest after the sound's end. None: as many as it lasts.
    """
    chunks = _sound(audio)
    speech = detect_speech(chunks)
    if n_frames is None:
        n_frames = max(1, round(speech.n_samples / SAMPLE_RATE * FRAME_RATE))
    features = encode_chunks(ears, (speech.gain * chunk for chunk in chunks()))
    return np.concatenate(list(predictor.predict_chunks(features, speech.silent, n_frames)))


def _sound(audio: Path) -> Callable[[], Iterable[Float32]]:
    """What gives a sound from its beginning, in chunks [n], as often as it is called."""

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
    """Features of a dataset's sound, as speech_codes would make them."""
    return encoder.encode(normalized_footage_audio(dataset))


def normalized_footage_audio(dataset: IdentityDataset) -> Float32:
    """A dataset's sound [n_samples] at the level encoders hear; held-out speech sets nothing."""
    return normalize_level(dataset.waveform, dataset.tracks.silent | ~dataset.tracks.train)
