"""The module of live speech: its codes are those of LiveSpeech, and damaged files are refused."""

from __future__ import annotations

import ast
import gzip
import importlib
import json
import re
import shutil
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from paths import HELPERS, LINE
from random_predictor import AHEAD, N_MOUTH, make_predictor
from speech_module import DAMAGED, FINE, OTHER_VERSION, SPEECH, SpeechModule
from web_pages import copy_for_node

from talkhead.app.avatar import Avatar
from talkhead.app.live.speech import LiveSpeech
from talkhead.app.web_export.build_modules import MODULES, PAGE
from talkhead.app.web_export.sections import ALIGNMENT, ENTRY, HEADER
from talkhead.app.web_export.speech_file import (
    MAX_AHEAD,
    rounded_predictor,
    speech_bytes,
    write_speech,
)
from talkhead.audio import hum_filter
from talkhead.encoder.pase.encoder import PaseEncoder
from talkhead.encoder.predictor.model import MotionPredictor
from talkhead.encoder.predictor.network import PRESETS, PredictorConfig, TemporalNets
from talkhead.errors import TalkheadError
from talkhead.media import read_audio
from talkhead.types import SAMPLE_RATE, Float32

TOLERANCE = 1e-3
NODE = shutil.which("node")


@pytest.fixture(scope="module")
def line() -> Float32:
    return read_audio(LINE, SAMPLE_RATE)[: 4 * SAMPLE_RATE]


@pytest.fixture(scope="module")
def predictor(line: Float32) -> MotionPredictor:
    return make_predictor(PaseEncoder.live().encode(line).values)


@pytest.fixture(scope="module")
def content(predictor: MotionPredictor) -> bytes:
    return speech_bytes(PaseEncoder.live().pase, predictor)


@pytest.fixture(scope="module")
def module(content: bytes) -> SpeechModule:
    return SpeechModule(content)


def expected(predictor: MotionPredictor, samples: Float32, ahead: int | None = None) -> Float32:
    speech = LiveSpeech(PaseEncoder.live(), predictor, ahead=ahead)
    return np.concatenate([speech.push(samples), speech.finish()])[:, :N_MOUTH]


@pytest.mark.parametrize("size", [128, 640, 997, 50_000])
def test_codes_are_those_of_python(
    module: SpeechModule, predictor: MotionPredictor, line: Float32, size: int
) -> None:
    codes, wanted = module.line(line, size), expected(predictor, line)
    assert codes.shape == wanted.shape
    assert wanted.std(0).min() > 0.1
    np.testing.assert_allclose(codes, wanted, atol=TOLERANCE)


def test_a_frame_comes_as_soon_as_in_python(
    module: SpeechModule, predictor: MotionPredictor, line: Float32
) -> None:
    speech = LiveSpeech(PaseEncoder.live(), predictor)
    module("begin", AHEAD)
    assert module("get_lookahead", AHEAD) == round(speech.lookahead_s * SAMPLE_RATE)
    for start in range(0, SAMPLE_RATE, 160):
        piece = line[start : start + 160]
        assert len(module.push(piece)) == len(speech.push(piece))


@pytest.mark.parametrize("ahead", range(AHEAD))
def test_fewer_frames_ahead(
    module: SpeechModule, predictor: MotionPredictor, line: Float32, ahead: int
) -> None:
    codes = module.line(line, 997, ahead)
    np.testing.assert_allclose(codes, expected(predictor, line, ahead), atol=TOLERANCE)
    assert np.abs(codes - module.line(line)).max() > 0.01


def silence_and_speech(line: Float32) -> Float32:
    pause = np.zeros(2 * SAMPLE_RATE, np.float32)
    return np.concatenate([pause, line[:SAMPLE_RATE], pause, line[SAMPLE_RATE : 2 * SAMPLE_RATE]])


def clicks(line: Float32) -> Float32:
    made = 1e-3 * np.random.default_rng(1).standard_normal(len(line)).astype(np.float32)
    made[:: SAMPLE_RATE // 3] = 0.9
    return made


SOUNDS = {
    "silence": lambda line: np.zeros_like(line),
    "noise": lambda line: clicks(line)[1:5000].repeat(4) * 30.0,
    "offset": lambda line: 0.2 + 0.3 * line,
    "clicks": clicks,
    "pauses": silence_and_speech,
    "loud": lambda line: np.clip(30.0 * line, -1.0, 1.0),
    "quiet": lambda line: 0.003 * line,
    "louder and louder": lambda line: line * np.linspace(0.01, 2.0, len(line)) ** 2,
}


@pytest.mark.parametrize("kind", SOUNDS)
def test_all_kinds_of_sound(
    module: SpeechModule, predictor: MotionPredictor, line: Float32, kind: str
) -> None:
    samples = np.asarray(np.clip(SOUNDS[kind](line), -1.0, 1.0), np.float32)
    np.testing.assert_allclose(module.line(samples), expected(predictor, samples), atol=TOLERANCE)


@pytest.mark.parametrize("n_samples", [0, 1, 100, 240, 399, 640, 641, 1500, 3079])
def test_short_lines(
    module: SpeechModule, predictor: MotionPredictor, line: Float32, n_samples: int
) -> None:
    samples = line[SAMPLE_RATE : SAMPLE_RATE + n_samples]
    for ahead in (0, AHEAD):
        codes, wanted = module.line(samples, 640, ahead), expected(predictor, samples, ahead)
        assert codes.shape == wanted.shape == (-(-n_samples // 640), N_MOUTH)
        np.testing.assert_allclose(codes, wanted, atol=TOLERANCE)


def test_a_line_longer_than_its_memory(
    module: SpeechModule, predictor: MotionPredictor, line: Float32
) -> None:
    samples = np.tile(line, 19)  # LineCorrection remembers 60 s of speech, LiveLevel 10 s
    np.testing.assert_allclose(
        module.line(samples, 16_000), expected(predictor, samples), atol=TOLERANCE
    )


def test_lines_do_not_affect_each_other(module: SpeechModule, line: Float32) -> None:
    first = module.line(line)
    module.line(np.clip(20.0 * line[::-1], -1.0, 1.0), 640, 0)
    module("begin", AHEAD)
    module.push(line[:30_000])  # a line that is not finished
    np.testing.assert_array_equal(module.line(line), first)


def test_nothing_follows_the_end_of_a_line(module: SpeechModule, line: Float32) -> None:
    module.line(line[:5000])
    assert len(module.finish()) == len(module.push(line)) == 0


@pytest.mark.parametrize("has_lips", [True, False])
def test_predictors_without_corrections(
    predictor: MotionPredictor, line: Float32, has_lips: bool
) -> None:
    assert predictor.lip_range is not None
    lips = replace(predictor.lip_range, motion=None) if has_lips else None
    simple = replace(predictor, lip_range=lips)
    codes = SpeechModule(speech_bytes(PaseEncoder.live().pase, simple)).line(line)
    np.testing.assert_allclose(codes, expected(simple, line), atol=TOLERANCE)
    assert np.abs(codes - expected(predictor, line)).max() > 0.01


@pytest.mark.parametrize("preset", PRESETS)
def test_predictors_of_all_presets(line: Float32, preset: str) -> None:
    features = PaseEncoder.live().encode(line[:SAMPLE_RATE]).values
    predictor = make_predictor(features, PRESETS[preset])
    codes = SpeechModule(speech_bytes(PaseEncoder.live().pase, predictor)).line(line[:SAMPLE_RATE])
    wanted = expected(predictor, line[:SAMPLE_RATE])
    np.testing.assert_allclose(codes, wanted, atol=TOLERANCE)


def test_the_longest_look_ahead(predictor: MotionPredictor, line: Float32, tmp_path: Path) -> None:
    config = PredictorConfig(width=4, layers=((2 * MAX_AHEAD + 1, 1),), n_members=1)
    shape = (predictor.scaling.n_inputs, N_MOUTH, MAX_AHEAD)
    nets = TemporalNets(config, *shape, 1).eval()
    scaling = replace(predictor.scaling, ahead=MAX_AHEAD)
    far = rounded_predictor(replace(predictor, config=config, scaling=scaling, nets=nets))
    module = SpeechModule(speech_bytes(PaseEncoder.live().pase, far))
    for size in (640, 16_000):
        np.testing.assert_allclose(module.line(line, size), expected(far, line), atol=TOLERANCE)
    farther = replace(far, scaling=replace(scaling, ahead=MAX_AHEAD + 1))
    live = PaseEncoder.live()
    avatar = cast(Avatar, SimpleNamespace(name="Ann", encoder=live, predictor=farther))
    with pytest.raises(TalkheadError, match="waits for 57 frames"):
        write_speech(tmp_path / "speech.bin", avatar)


def test_samples_that_are_no_sound(module: SpeechModule, line: Float32) -> None:
    damaged, clean = line.copy(), line.copy()
    damaged[20_000:20_004] = [np.nan, np.inf, -np.inf, 7.0]
    clean[20_000:20_004] = [0.0, 1.0, -1.0, 1.0]
    np.testing.assert_array_equal(module.line(damaged), module.line(clean))


def test_rest_is_the_mouth_of_the_predictor(
    module: SpeechModule, predictor: MotionPredictor
) -> None:
    codes = module.line(np.zeros(4 * SAMPLE_RATE, np.float32))
    np.testing.assert_allclose(codes[50:], np.tile(predictor.scaling.rest[:N_MOUTH], (50, 1)))


@pytest.mark.skipif(NODE is None, reason="needs Node.js")
def test_the_wrapper_returns_what_the_module_returns(
    module: SpeechModule, predictor: MotionPredictor, content: bytes, line: Float32, tmp_path: Path
) -> None:
    script = copy_for_node(tmp_path, "speech.js")
    (tmp_path / "speech.bin").write_bytes(content)
    (tmp_path / "speech.bin.gz").write_bytes(gzip.compress(content))
    (tmp_path / "line.f32").write_bytes(line.tobytes())
    files = [script, PAGE / SPEECH, tmp_path / "speech.bin.gz", tmp_path / "line.f32"]
    command = [str(NODE), HELPERS / "check_speech.mjs", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    wanted = module.line(line)
    for name in ("codes", "whole"):
        np.testing.assert_array_equal(np.float32(result[name]), wanted.ravel())
    np.testing.assert_array_equal(np.float32(result["early"]), module.line(line, 640, 0).ravel())
    assert result["errors"] == ["damaged", "damaged", "version", "unsupported", "unsupported"]
    info = result["info"]
    assert (info["nMouth"], info["mostAhead"], info["sampleRate"]) == (N_MOUTH, AHEAD, SAMPLE_RATE)
    speech = LiveSpeech(PaseEncoder.live(), predictor)
    assert info["lookaheadSeconds"] == pytest.approx(speech.lookahead_s)
    np.testing.assert_array_equal(np.float32(info["rest"]), predictor.scaling.rest[:N_MOUTH])


# ------------------------------------------------------------------------------------ files


def sealed(content: bytes | bytearray) -> bytes:
    """Return a damaged file with the right length and checksum."""
    magic, version, _, _, n_sections = HEADER.unpack_from(content)
    checksum = zlib.crc32(content[HEADER.size :])
    header = HEADER.pack(magic, version, len(content), checksum, n_sections)
    return header + bytes(content[HEADER.size :])


def entries(content: bytes) -> list[tuple[Any, ...]]:
    n_sections = HEADER.unpack_from(content)[4]
    return [ENTRY.unpack_from(content, HEADER.size + i * ENTRY.size) for i in range(n_sections)]


def test_weights_are_those_of_python_when_read_again(
    predictor: MotionPredictor, content: bytes
) -> None:
    again = rounded_predictor(predictor)
    for name, weight in predictor.nets.tensors().items():
        torch.testing.assert_close(again.nets.tensors()[name], weight, rtol=1e-6, atol=1e-9)
    assert speech_bytes(PaseEncoder.live().pase, predictor) == content


def test_other_versions_are_refused(content: bytes) -> None:
    other = bytearray(content)
    other[8] += 1
    assert SpeechModule(bytes(other)).error == OTHER_VERSION
    assert SpeechModule(b"TALKHEAD" + content[8:]).error == DAMAGED


@pytest.mark.parametrize("n_bytes", [0, 7, 31, 32, 500, 100_000, -1])
def test_truncated_files_are_refused(content: bytes, n_bytes: int) -> None:
    assert SpeechModule(content[:n_bytes]).error == DAMAGED
    if n_bytes == 0 or abs(n_bytes) >= HEADER.size:
        return
    assert SpeechModule(content[:n_bytes] + bytes(100)).error == DAMAGED


def test_longer_files_are_refused(content: bytes) -> None:
    assert SpeechModule(content + b"\0").error == DAMAGED
    extra = np.array([1.0], np.float32).tobytes()
    assert SpeechModule(sealed(content)).error == FINE
    assert SpeechModule(content + extra).error == DAMAGED


def test_changed_bytes_are_refused(content: bytes) -> None:
    random = np.random.default_rng(0)
    module = SpeechModule(content)
    for place in random.integers(0, len(content), 60):
        changed = bytearray(content)
        changed[place] ^= 1 << int(random.integers(8))
        module.open(bytes(changed))
        assert module.error != FINE or 24 <= place < 32  # unused bytes of the header


def test_sealed_damage_does_not_trap(content: bytes, line: Float32) -> None:
    """Files whose checksum is right, with any bytes changed: refused, or finite codes."""
    random = np.random.default_rng(1)
    module, errors = SpeechModule(content), []
    end = HEADER.size + ENTRY.size * len(entries(content)) + 100  # sizes follow the table
    for number in range(300):
        changed = bytearray(content)
        most = end if number % 3 else len(content)
        for place in random.integers(HEADER.size, most, random.integers(1, 4)):
            changed[place] = random.integers(256)
        module.open(sealed(changed))
        errors.append(module.error)
        if module.error == FINE:
            assert np.isfinite(module.line(line[:6000], 1000)).all()
    assert 50 < errors.count(FINE) < 250


def test_overlapping_sections_are_refused(content: bytes) -> None:
    module = SpeechModule(content)
    for number, (_, _, offset, _) in list(enumerate(entries(content)))[::9]:
        changed, place = bytearray(content), HEADER.size + number * ENTRY.size + 8
        changed[place : place + 4] = (offset - ALIGNMENT).to_bytes(4, "little")
        module.open(sealed(changed))
        assert module.error == DAMAGED


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(content: bytes, value: float) -> None:
    module = SpeechModule(content)
    n_checked = 0
    for _, kind, offset, count in entries(content):
        if kind != 5:
            continue
        changed = bytearray(content)
        changed[offset + 4 * (count - 1) : offset + 4 * count] = np.float32(value).tobytes()
        module.open(sealed(changed))
        assert module.error == DAMAGED
        n_checked += 1
    assert n_checked > 50


def test_falling_quantiles_are_refused(content: bytes) -> None:
    changed = bytearray(content)
    for name, _, offset, _ in entries(content):
        if name == b"LOWN":
            changed[offset : offset + 4] = np.float32(100.0).tobytes()
    assert SpeechModule(sealed(changed)).error == DAMAGED


# ------------------------------------------------------------------------------------ sources


def test_constants_are_those_of_python() -> None:
    modules: list[Any] = []
    n_compared = 0
    text = (MODULES[SPEECH] / "constants.h").read_text().replace("\\\n", " ")
    for found in re.finditer(r"^(?:// (\S+\.py)|#define (\w+) (.+))$", text, re.MULTILINE):
        path, name, value = found.groups()
        if path:
            module = "talkhead." + path.removeprefix("talkhead/").removesuffix(".py")
            modules = [importlib.import_module(module.replace("/", "."))]
            continue
        is_filter = name == "HUM_FILTER"
        wanted = hum_filter(SAMPLE_RATE) if is_filter else getattr(modules[0], name, None)
        known = ast.literal_eval(value.translate(str.maketrans("{}", "()")))
        assert wanted is not None, name
        assert np.array_equal(np.asarray(known), np.asarray(wanted)), name
        n_compared += 1
    assert n_compared > 40


def test_only_features_of_the_small_model_are_written(
    predictor: MotionPredictor, content: bytes, tmp_path: Path
) -> None:
    encoder = SimpleNamespace(name="pase", version=PaseEncoder.live().imitates)
    avatar = cast(Avatar, SimpleNamespace(name="Ann", encoder=encoder, predictor=predictor))
    write_speech(tmp_path / "speech.bin", avatar)
    assert gzip.decompress((tmp_path / "speech.bin").read_bytes()) == content
    encoder.name, encoder.version = "mel", "1"
    with pytest.raises(TalkheadError, match="Ann: was fitted with the encoder mel"):
        write_speech(tmp_path / "other.bin", avatar)
    assert not (tmp_path / "other.bin").exists()
