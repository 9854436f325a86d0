"""The contract of every registered encoder, and how one is added."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from paths import ROOT
from typer.testing import CliRunner

from talkhead.app.choices import check_encoder
from talkhead.app.cli.main import app
from talkhead.audio import is_silence
from talkhead.encoder import mel, registry
from talkhead.encoder.base import (
    SPEECH_LEVEL_DB,
    SpeechEncoder,
    encode_chunks,
    normalize_level,
    speech_gain,
)
from talkhead.encoder.registry import encoder_names, load_encoder
from talkhead.errors import TalkheadError
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32

SILENCE_VARIATION = {"pase": 0.5}
"""Ranges of features in digital silence that differ from 0.02, for features of spread 1 in speech.
Whisper's position embeddings, without which the features are clearly worse, are visible in silence.
"""


@pytest.fixture(params=encoder_names())
def encoder(request: pytest.FixtureRequest) -> SpeechEncoder:
    return load_encoder(request.param)


def _sound(n_samples: int, seed: int = 0) -> Float32:
    """Noise whose loudness and spectrum vary like those of speech."""
    random = np.random.default_rng(seed)
    noise = random.normal(0.0, 0.1, n_samples)
    loudness = np.abs(np.sin(np.arange(n_samples) / SAMPLE_RATE * 9.0)) ** 3
    return np.asarray(np.cumsum(noise) * 0.02 * loudness + noise * loudness, dtype=np.float32)


def _pieces(waveform: Float32, size: int) -> Iterator[Float32]:
    return (waveform[i : i + size] for i in range(0, len(waveform), size))


@pytest.mark.parametrize("n_samples", [1, 320, 321, 16_000, 40_321])
def test_shape_type_and_rate(encoder: SpeechEncoder, n_samples: int) -> None:
    features = encoder.encode(_sound(n_samples))
    n_vectors = math.ceil(n_samples * encoder.rate / encoder.sample_rate)
    assert features.values.shape == (n_vectors, encoder.dim)
    assert features.values.dtype == np.float32
    assert features.rate == encoder.rate
    assert np.isfinite(features.values).all()


def test_attributes(encoder: SpeechEncoder) -> None:
    assert encoder.name in encoder_names()
    assert encoder.rate % FRAME_RATE == 0
    assert encoder.lookahead_s >= 0.0


def test_same_sound_same_features(encoder: SpeechEncoder) -> None:
    sound = _sound(30_000)
    again = load_encoder(encoder.name).encode(sound.copy())
    np.testing.assert_array_equal(encoder.encode(sound).values, again.values)


@pytest.mark.parametrize("size", [37, 320, 1000, 16_000, 100_000])
def test_chunks_equal_the_whole(encoder: SpeechEncoder, size: int) -> None:
    sound = _sound(40_001)
    whole = encoder.encode(sound).values
    parts = np.concatenate(list(encode_chunks(encoder, _pieces(sound, size))))
    np.testing.assert_allclose(parts, whole, rtol=0, atol=5e-5)


def test_a_stream_lags_by_its_lookahead(encoder: SpeechEncoder) -> None:
    stream = encoder.stream()
    n_samples = 2 * encoder.sample_rate
    n_given = len(stream.push(_sound(n_samples)))
    n_due = int((2.0 - encoder.lookahead_s) * encoder.rate)
    assert n_given >= n_due
    assert n_given + len(stream.finish()) == 2 * encoder.rate


def test_vectors_do_not_depend_on_the_future_beyond_the_lookahead(encoder: SpeechEncoder) -> None:
    sound = _sound(32_000)
    other = np.concatenate([sound[:16_000], _sound(16_000, seed=1)])
    n_same = int((1.0 - encoder.lookahead_s) * encoder.rate)
    before, after = encoder.encode(sound).values, encoder.encode(other).values
    np.testing.assert_allclose(before[:n_same], after[:n_same], rtol=0, atol=5e-5)


def test_twenty_milliseconds(encoder: SpeechEncoder) -> None:
    sound = _sound(encoder.sample_rate // 50)
    whole = encoder.encode(sound).values
    parts = np.concatenate(list(encode_chunks(encoder, [sound])))
    assert len(whole) >= 1
    np.testing.assert_allclose(parts, whole, rtol=0, atol=5e-5)


def test_silence_is_finite_and_settles(encoder: SpeechEncoder) -> None:
    """A recurrent encoder may take seconds to reach its final values."""
    values = encoder.encode(np.zeros(6 * encoder.sample_rate, np.float32)).values
    assert np.isfinite(values).all()
    last = values[-int(encoder.rate) - 10 : -10]
    assert np.ptp(last, axis=0).mean() < SILENCE_VARIATION.get(encoder.name, 0.02)


def test_unknown_names_are_refused_with_a_list_of_the_known_ones() -> None:
    with pytest.raises(TalkheadError, match=r"'parrot'.*mel"):
        load_encoder("parrot")


def test_mel_shows_a_tone_in_its_band_at_its_time() -> None:
    times = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tone = np.where(times > 0.5, 0.1 * np.sin(2 * np.pi * 1000.0 * times), 0.0)
    values = load_encoder("mel").encode(tone.astype(np.float32)).values
    assert np.all(values[:24] == mel.MIN_LOG_ENERGY)
    assert abs(int(values[40].argmax()) - 26) <= 2  # 1000 Hz = 15 of 45.2 mel (Slaney)


def test_speech_gain_brings_speech_to_one_level() -> None:
    powers = np.abs(np.random.default_rng(0).normal(0.01, 0.003, 50))
    silent = np.arange(50) >= 40
    level = powers[:40].mean() * speech_gain(powers, silent) ** 2
    assert abs(10 * np.log10(level) - SPEECH_LEVEL_DB) < 0.01
    assert abs(speech_gain(powers * 0.01, silent) / speech_gain(powers, silent) - 10.0) < 1e-3


def test_speech_gain_does_not_change_silence() -> None:
    assert speech_gain(np.full(10, 0.1), np.ones(10, dtype=bool)) == 1.0
    assert speech_gain(np.zeros(10), np.zeros(10, dtype=bool)) == 1.0
    assert speech_gain(np.zeros(0), np.zeros(0, dtype=bool)) == 1.0


def test_level_without_given_silence_is_that_of_loud_frames() -> None:
    sound = np.concatenate([_sound(32_000), np.zeros(16_000, np.float32)])
    by_loudness = normalize_level(sound)
    np.testing.assert_array_equal(by_loudness, normalize_level(sound, is_silence(sound)))
    assert is_silence(sound).any() and not np.array_equal(by_loudness, sound)


# ------------------------------------------------------------------------ adding an encoder

RECIPE = ROOT / "docs" / "extending" / "encoder.md"
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> SpeechEncoder:
    """The encoder of the recipe, with its one file and its one line in ENCODERS."""
    file, line = PYTHON_BLOCK.findall(RECIPE.read_text("utf-8"))
    module = ModuleType("talkhead.encoder.energy")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(file, vars(module))
    documented: dict[str, dict[str, str]] = {}
    exec(line, documented)
    name = list(documented["ENCODERS"])[-1]
    assert name == vars(module)["EnergyEncoder"]().name
    others = {k: v for k, v in documented["ENCODERS"].items() if k != name}
    assert others.items() <= registry.ENCODERS.items()  # the recipe need not list later ones
    monkeypatch.setitem(registry.ENCODERS, name, documented["ENCODERS"][name])
    return load_encoder(name)


@pytest.mark.parametrize(
    "check",
    [
        test_attributes,
        test_same_sound_same_features,
        test_a_stream_lags_by_its_lookahead,
        test_vectors_do_not_depend_on_the_future_beyond_the_lookahead,
        test_twenty_milliseconds,
        test_silence_is_finite_and_settles,
    ],
)
def test_an_encoder_is_one_file_and_one_line(added: SpeechEncoder, check: object) -> None:
    assert callable(check)
    check(added)
    test_shape_type_and_rate(added, 40_321)
    test_chunks_equal_the_whole(added, 1000)


def test_an_added_encoder_is_accepted_by_the_command_line(added: SpeechEncoder) -> None:
    check_encoder(added.name)
    with pytest.raises(TalkheadError, match=added.name):
        check_encoder("parrot")


def test_help_lists_the_encoders() -> None:
    shown = CliRunner().invoke(app, ["fit", "--help"], env={"COLUMNS": "100"}).output
    words = " ".join(shown.replace("│", " ").split())
    assert f"Speech encoder: {', '.join(registry.ENCODERS)}, or a .safetensors file" in words


def test_names_are_listed_without_importing_an_encoder() -> None:
    code = "import sys; from talkhead.encoder.registry import encoder_names; encoder_names(); "
    code += "print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "talkhead.encoder.registry" in loaded
    assert not {"numpy", "torch", "talkhead.encoder.mel"} & loaded
