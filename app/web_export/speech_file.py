"""The file speech.bin: what a web page needs to turn speech into a fitted person's motion codes.

It holds the small speech model (`PaseEncoder.live`) and the person's predictor, as sections
(`talkhead.app.web_export.sections`), compressed with gzip, because web servers do not compress files of
unknown types. module/speech/read.c checks them.

Matrices of the model are int8, as in its own file. Those of the predictor have NET_LEVELS levels to
either side of 0: with int8, codes would change by up to 0.016.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.app.avatar import Avatar
from talkhead.app.web_export.sections import Array, encode_sections
from talkhead.audio import mel_filters
from talkhead.encoder.pase.encoder import PaseEncoder
from talkhead.encoder.pase.live import CHANNELS
from talkhead.encoder.pase.model import AudioModel
from talkhead.encoder.pase.trunk import N_FFT, N_MELS
from talkhead.encoder.pase.weights import SCALE, quantize
from talkhead.encoder.phones import PHONES, SILENCE
from talkhead.encoder.predictor.lip_motion import LipMotion
from talkhead.encoder.predictor.lip_range import LipRange
from talkhead.encoder.predictor.model import MotionPredictor
from talkhead.encoder.predictor.network import STORED, TemporalNets
from talkhead.errors import TalkheadError
from talkhead.storage import write_bytes
from talkhead.types import SAMPLE_RATE, Float64

MAGIC, VERSION = b"TALKSPCH", 1
NET_LEVELS = 511
"""Levels of the predictor's weights to either side of 0, relative to the largest weight of a row."""
MAX_AHEAD = 56
"""Frames ahead that a predictor may depend on; the module keeps as many waiting."""
GROUP = 4
"""The module computes so many values at once; widths are filled up to multiples."""
Section = tuple[str, Array]


@dataclass(frozen=True)
class Sizes:
    """Sizes, in the order of the file.

    Attributes:
        n_channels: Channels of the convolution.
        n_hidden: Size of the GRU's state.
        n_aligned: Aligned features.
        n_phones: Phones.
        silence: Index of the phone that is silence.
        n_mouth: Components of a mouth code.
        n_members: Networks of the predictor.
        n_width: Their channels, filled up.
        n_blocks: Their blocks.
        ahead: Frames ahead that they depend on.
        has_lips: 1 if there is a LipRange.
        has_motion: 1 if there is a LipMotion.
    """

    n_channels: int
    n_hidden: int
    n_aligned: int
    n_phones: int
    silence: int
    n_mouth: int
    n_members: int
    n_width: int
    n_blocks: int
    ahead: int
    has_lips: int
    has_motion: int


def write_speech(path: Path, avatar: Avatar) -> None:
    """Write the file that the page's module reads.

    Args:
        path: The file.
        avatar: The person.

    Raises:
        TalkheadError: The predictor was fitted with features that the small model does not give, or
            depends on too many frames ahead, or the file cannot be written.
        PackageError: The weights of the small model are missing or damaged.
    """
    live, encoder = PaseEncoder.live(), avatar.encoder
    if encoder.version not in (live.version, live.imitates):
        raise TalkheadError(
            f"{avatar.name}: was fitted with the encoder {encoder.name}, but web pages can listen "
            "only for people fitted with pase. Fit again with pase, or export without live speech"
        )
    ahead = avatar.predictor.scaling.ahead
    if ahead > MAX_AHEAD:
        raise TalkheadError(
            f"{avatar.name}: the predictor waits for {ahead} frames, and web pages for at most "
            f"{MAX_AHEAD}. Export without live speech"
        )
    content = speech_bytes(live.pase, avatar.predictor)
    write_bytes(path, gzip.compress(content, mtime=0))


def speech_bytes(model: AudioModel, predictor: MotionPredictor) -> bytes:
    """Encode a speech model and a predictor.

    Args:
        model: The small model.
        predictor: A predictor for its features.

    Returns:
        The contents of the file, not compressed.
    """
    lips, nets = predictor.lip_range, predictor.nets
    sizes = Sizes(
        n_channels=CHANNELS,
        n_hidden=model.config.hidden,
        n_aligned=model.config.dim,
        n_phones=len(PHONES),
        silence=PHONES.index(SILENCE),
        n_mouth=len(predictor.scaling.centre),
        n_members=len(nets),
        n_width=predictor.config.width + -predictor.config.width % GROUP,
        n_blocks=len(nets.blocks),
        ahead=predictor.scaling.ahead,
        has_lips=int(lips is not None),
        has_motion=int(lips is not None and lips.motion is not None),
    )
    sections = [("SIZE", np.array(astuple(sizes), "<i4")), *_model_sections(model)]
    sections += [*_feature_sections(model, predictor), *_net_sections(predictor)]
    if lips is not None:
        sections += _lip_sections(lips)
        sections += [] if lips.motion is None else _motion_sections(lips.motion)
    return encode_sections(MAGIC, VERSION, sections)


def rounded_predictor(predictor: MotionPredictor) -> MotionPredictor:
    """Round the weights of a predictor as the file does.

    Args:
        predictor: The predictor.

    Returns:
        A predictor with the weights that the module uses.
    """
    stored = predictor.nets.tensors()
    for name, weight in stored.items():
        if name.endswith("weight"):
            values, scales = _rounded(weight.mT)
            stored[name] = (values * scales[..., None]).mT.contiguous()
    first = predictor.nets.first.weight
    shape = (first.shape[1], len(predictor.scaling.centre), predictor.nets.ahead)
    nets = TemporalNets(predictor.config, *shape, len(predictor.nets)).load(stored)
    return replace(predictor, nets=nets)


def _rounded(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return whole numbers [..., n_out, n_in] for weights of this shape, and scales [..., n_out]."""
    scales = weights.abs().amax(-1).clamp(min=1e-12) / NET_LEVELS
    return torch.round(weights / scales[..., None]), scales


def _numbers(name: str, values: Array | Tensor | float) -> Section:
    return name, np.asarray(values, "<f4")


def _layer(name: str, values: Tensor, scales: Tensor, bias: Tensor, kind: str) -> list[Section]:
    """Return whole numbers [n_out, n_in], scales and biases [n_out] of a linear layer."""
    whole = np.asarray(values.numpy(), kind)
    return [(name, whole), _numbers("SCAL", scales), _numbers("BIAS", bias)]


def _model_sections(model: AudioModel) -> Iterator[Section]:
    """Yield the sections of the speech model."""
    state = {name: value.detach() for name, value in model.state_dict().items()}
    stored = quantize(state)

    def layer(name: str, weight: str, bias: str) -> list[Section]:
        values = stored[weight]
        if values.ndim == 3:  # of the convolution: spectra follow each other in memory
            values = values.transpose(1, 2).flatten(1)
        return _layer(name, values, stored[weight + SCALE], stored[bias], "|i1")

    yield _numbers("MELS", mel_filters(SAMPLE_RATE, N_FFT, N_MELS))
    yield from layer("CONV", "ear.first.weight", "ear.first.bias")
    for number in range(model.config.layers):
        for name, part in (("INPT", "ih"), ("STAT", "hh")):
            of = f"{part}_l{number}"
            yield from layer(name, f"ear.gru.weight_{of}", f"ear.gru.bias_{of}")
    parts = {"OWN_": "hear.own", "GATE": "hear.gate"}
    parts |= {"EXPE": "detail.expected", "CLEA": "detail.gate"}
    for name, part in parts.items():
        yield from layer(name, f"{part}.weight", f"{part}.bias")
    # PhonemeAttention with the anchors, which do not change, multiplied in.
    with torch.no_grad():
        anchors = model.anchors * model.config.dim**-0.5
        yield _numbers("PBIA", anchors @ state["hear.query.bias"])
        yield _numbers("PHON", anchors @ state["hear.query.weight"])
        yield _numbers("VALU", model.hear.values(model.anchors).T)


def _feature_sections(model: AudioModel, predictor: MotionPredictor) -> list[Section]:
    """Return factors and summands that give normalized features, [D] each."""
    aligned, acoustic = (float(spread) for spread in model.detail.spread)
    n_aligned = model.config.dim
    spread: Float64 = np.repeat([aligned, acoustic], [n_aligned, N_MELS])
    mean = np.pad(model.detail.mean.numpy().astype(np.float64), (n_aligned, 0))
    scaling = predictor.scaling
    shift = (-mean / spread - scaling.mean) / scaling.spread
    return [_numbers("NSCA", 1.0 / (spread * scaling.spread)), _numbers("NSHI", shift)]


def _net_sections(predictor: MotionPredictor) -> Iterator[Section]:
    """Yield the sections of the predictor, except for its corrections."""
    config, scaling = predictor.config, predictor.scaling
    nets = {name.removeprefix(STORED): one for name, one in predictor.nets.tensors().items()}
    n_more = -config.width % GROUP

    def rows(name: str, n_taps: int, *, fills: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Return whole numbers [N, n_out, n_in], scales and biases [N, n_out], filled up."""
        values, scales = _rounded(nets[f"{name}.weight"].mT)
        n_out = n_more if fills else 0
        if n_taps:
            values = F.pad(values.unflatten(-1, (n_taps, -1)), (0, n_more)).flatten(-2)
        bias = F.pad(nets[f"{name}.bias"][:, 0], (0, n_out))
        return F.pad(values, (0, 0, 0, n_out)), F.pad(scales, (0, n_out)), bias

    blocks = np.array(config.layers, "<i4").reshape(-1, 2)
    yield "BLKS", blocks
    values, scales, bias = (part.flatten(0, 1) for part in rows("first", 0))  # of all networks
    yield from _layer("FRST", values, scales, bias, "<i2")
    layers = [("SPRE", f"blocks.{i}.spread", int(n)) for i, n in enumerate(blocks[:, 0])]
    mixes = [("MIX_", f"blocks.{i}.mix", 1) for i in range(len(blocks))]
    pairs = [one for pair in zip(layers, mixes, strict=True) for one in pair]
    for name, stored, n_taps in [*pairs, ("LAST", "last", 1)]:
        members = zip(*rows(stored, n_taps, fills=name != "LAST"), strict=True)
        for values, scales, bias in members:
            yield from _layer(name, values, scales, bias, "<i2")
    n_mouth = len(scaling.centre)
    yield _numbers("GAIN", scaling.gain)
    yield _numbers("CENT", scaling.centre)
    yield _numbers("LOW_", scaling.low)
    yield _numbers("HIGH", scaling.high)
    yield _numbers("REST", scaling.rest[:n_mouth])


def _lip_sections(lips: LipRange) -> list[Section]:
    """Return the sections of a LipRange."""
    return [
        _numbers("LOFF", lips.offset),
        _numbers("LSLO", lips.slope),
        _numbers("LDIR", lips.direction),
        _numbers("LOWN", lips.own),
        _numbers("LPRE", lips.predicted),
    ]


def _motion_sections(motion: LipMotion) -> list[Section]:
    """Return the sections of a LipMotion."""
    return [
        _numbers("MCEN", motion.centre),
        _numbers("MSLO", motion.slow),
        _numbers("MFAS", motion.fast),
    ]
