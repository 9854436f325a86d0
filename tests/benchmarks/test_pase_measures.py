"""The arithmetic of PASE's measurements, on cases with known results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import wavfile

from benchmarks import posteriors
from benchmarks.pase import noise, phones, retrieval, sphinx, voices
from talkhead.audio import is_silence
from talkhead.encoder import forced_alignment as phonemes
from talkhead.encoder.pase.corpus import UNKNOWN, Utterance, label_frames, make_shard, write_shard
from talkhead.encoder.phones import PHONES, SILENCE, Phone
from talkhead.errors import TalkheadError
from talkhead.types import SAMPLE_RATE, Float32

SPOKEN = [
    Phone(SILENCE, 0.0, 0.2),
    Phone("B", 0.2, 0.3),
    Phone("AA", 0.3, 0.5),
    Phone("B", 0.5, 0.6),
    Phone(SILENCE, 0.6, 1.0),
]


def _sound(seconds: float = 1.0, seed: int = 0) -> Float32:
    n = round(seconds * SAMPLE_RATE)
    swell = np.clip(np.sin(np.arange(n) / 2500.0), 0, 1)
    return np.asarray(np.random.default_rng(seed).normal(0, 0.1, n) * swell, np.float32)


@dataclass(frozen=True)
class Oracle:
    """Returns given phones."""

    told: list[Phone]
    name: str = "oracle"

    def phone_posteriors(self, waveform: Float32) -> Float32:
        labels = label_frames(self.told, len(waveform) // 320).clip(max=len(PHONES) - 1)
        return np.eye(len(PHONES), dtype=np.float32)[labels]


# ----------------------------------------------------------------------- phone error rate


@pytest.mark.parametrize(
    ("found", "true", "edits"),
    [
        ("kitten", "sitting", 3),
        ("", "abc", 3),
        ("abc", "", 3),
        ("flaw", "lawn", 2),
        ("aa", "aa", 0),
    ],
)
def test_edit_distance(found: str, true: str, edits: int) -> None:
    assert phones.edit_distance(list(found), list(true)) == edits
    assert phones.edit_distance(list(true), list(found)) == edits


def test_error_rate_weighs_by_length() -> None:
    read = [phones.Read("a", _sound(), ["B"] * 9), phones.Read("b", _sound(), ["B"])]
    row = phones.error_rate([["B"] * 9, ["P"]], read)
    assert row["phone_error_rate"]["mean"] == pytest.approx(0.1)
    assert row["phone_error_rate"]["low"] == 0.0
    assert row["phone_error_rate"]["high"] == 1.0
    assert phones.error_rate([[], []], read)["phone_error_rate"]["mean"] == 1.0


def test_intervals_depend_on_the_spread_of_groups() -> None:
    even = phones.share_over_groups([1.0] * 40, [2.0] * 40, [str(i % 8) for i in range(40)])
    assert (even.mean, even.low, even.high) == (0.5, 0.5, 0.5)
    random = np.random.default_rng(0)
    hits = (random.random(400) < 0.3).astype(float)
    found = phones.share_over_groups(list(hits), [1.0] * 400, [str(i) for i in range(400)])
    expected = 1.96 * np.sqrt(0.3 * 0.7 / 400)
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.15)


def test_runs_collapse_and_silence_separates_them() -> None:
    labels = [PHONES.index(p) for p in (SILENCE, "B", "B", "AA", SILENCE, "AA", "B")]
    assert phones.collapsed(np.array(labels)) == ["B", "AA", "AA", "B"]


def test_the_width_of_smoothing_minimizes_errors() -> None:
    labels = np.repeat([PHONES.index(p) for p in ("B", "AA", "B")], 15)
    labels[[4, 20, 33]] = PHONES.index("T")  # flicker that averaging over three vectors removes
    read = [phones.Read("a", _sound(), ["B", "AA", "B"])]
    assert phones.best_width([np.eye(40, dtype=np.float32)[labels]], read) == 3


def _speechocean(folder: Path) -> Path:
    rows = []
    for index in range(20):
        split = "train" if index % 2 else "test"
        name = f"{index}.wav"
        wavfile.write(folder / name, SAMPLE_RATE, _sound(seed=index))
        row = {"file": name, "speaker": f"s{index // 2:02d}{split}", "split": split}
        row |= {"seconds": 1.0, "phones": [["B", "AA1"], ["B"]]}
        rows.append(json.dumps(row))
    (folder / "index.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def test_reference_phones_have_no_stress(tmp_path: Path) -> None:
    folder = _speechocean(tmp_path)
    read = phones.read_split(folder, "test")
    assert len(read) == 10
    assert {tuple(one.phones) for one in read} == {("B", "AA", "B")}
    assert all(one.speaker.endswith("test") for one in read)
    assert len(phones.read_split(folder, "test", n_max=3)) == 3


def test_perfect_recognition_has_no_errors(tmp_path: Path) -> None:
    folder = _speechocean(tmp_path)
    rows = list(phones.speechocean(folder, Oracle(SPOKEN), [], None))
    assert [row["phone_error_rate"]["mean"] for row in rows] == [0.0, 0.0]
    half = [phone for phone in SPOKEN if phone.label != "AA"]
    rows = list(phones.speechocean(folder, Oracle(half), [], None))
    assert rows[0]["phone_error_rate"]["mean"] == pytest.approx(1 / 3, abs=1e-6)


# ------------------------------------------------------------------------- frame accuracy


def test_shares_of_moments() -> None:
    true = label_frames(SPOKEN, 50)
    true[:5] = UNKNOWN
    found = true.astype(np.int64)
    found[:5] = 0
    utterance = phones.Labeled("u", _sound(), true)
    perfect = phones.frame_shares([found], [utterance])
    assert perfect["n_moments"] == 45
    assert perfect["n_moments_spoken"] == 20
    assert perfect["phones"]["mean"] == perfect["visemes_spoken"]["mean"] == 1.0
    alike = np.where(found == PHONES.index("B"), PHONES.index("M"), found)
    row = phones.frame_shares([alike], [utterance])
    assert row["visemes"]["mean"] == 1.0  # B and M look alike
    assert row["phones"]["mean"] == pytest.approx(35 / 45)
    assert row["phones_spoken"]["mean"] == pytest.approx(10 / 20)


def test_frames_of_a_shard(tmp_path: Path) -> None:
    given = [Utterance(_sound(), tuple(SPOKEN), f"v{i}", "test" if i else "train") for i in (0, 1)]
    shard = make_shard(given, source="s", licence="l", attribution="a", shippable=True)
    write_shard(tmp_path / "flite.safetensors", shard)
    path = tmp_path / "flite.safetensors"
    (likeliest, viterbi) = phones.shard_moments(path, "test", Oracle(SPOKEN), [], None)
    assert likeliest["data"] == "flite test"
    assert likeliest["n_utterances"] == 1
    assert likeliest["phones"]["mean"] == viterbi["phones_spoken"]["mean"] == 1.0


# ---------------------------------------------------------------------------- pocketsphinx


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def spell(waveforms: Iterable[Float32], _: float) -> Iterator[list[Phone]]:
        for waveform in waveforms:
            calls.append(len(waveform))
            yield SPOKEN

    monkeypatch.setattr(sphinx, "spell_phones", spell)
    return calls


def test_results_of_recognition_are_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _counted(monkeypatch)
    sounds = [_sound(seed=0), _sound(seed=1), _sound(seed=0)]
    assert sphinx.sphinx_phones(sounds, cache=tmp_path / "kept") == [SPOKEN] * 3
    assert len(calls) == 2
    louder = [sound * np.float32(3.1) for sound in sounds]
    assert sphinx.sphinx_phones(louder, cache=tmp_path / "kept") == [SPOKEN] * 3
    assert len(calls) == 2
    sphinx.sphinx_phones([_sound(seed=2)], cache=tmp_path / "kept")
    assert len(calls) == 3


def test_posteriors_of_an_ablation(monkeypatch: pytest.MonkeyPatch) -> None:
    _counted(monkeypatch)
    monkeypatch.setattr(posteriors, "phones_unavailable_reason", lambda: "")
    encoder = posteriors.ablation_encoder(posteriors.ALLPHONE)
    features = encoder.encode(_sound()[:15_999])
    assert features.values.shape == (50, 40)
    assert (features.rate, encoder.dim) == (50, 40)
    np.testing.assert_allclose(features.values.sum(1), 1.0, atol=1e-5)
    assert PHONES[int(features.values[19].argmax())] == "AA"
    assert 0.01 < features.values[15, PHONES.index("B")] < 0.99  # the boundary is smoothed
    assert posteriors.ablation_encoder("mel").name == "mel"


def test_posteriors_need_pocketsphinx(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> Any:
        raise ModuleNotFoundError

    monkeypatch.setattr(phonemes.importlib, "import_module", missing)
    with pytest.raises(TalkheadError, match=r"pip install .talkhead\[evaluate\]"):
        posteriors.PosteriorEncoder()


# --------------------------------------------------------------------------------- voices


def test_segments_of_flite() -> None:
    found = voices.read_segments("pau:0.224 m:0.260 ax:0.392 pau:0.486 \n")
    assert [p.label for p in found] == [SILENCE, "M", "AH", SILENCE]
    assert (found[0].start_s, found[2].start_s, found[2].end_s) == (0.0, 0.26, 0.392)
    with pytest.raises(TalkheadError, match="QQ"):
        voices.read_segments("qq:0.1")


def test_one_mouth_at_two_speeds_agrees() -> None:
    """The second voice takes twice as long over some phones and pauses elsewhere."""
    random = np.random.default_rng(0)
    labels = [PHONES[k] for k in random.integers(0, 39, 60)]
    lengths = random.uniform(0.08, 0.2, 60)
    first, second = [], []
    at = other = 0.0
    for index, (label, length) in enumerate(zip(labels, lengths, strict=True)):
        stretched = length * (2.0 if index % 3 else 1.0)
        first.append(Phone(label, at, at + length))
        at += length
        if index == 30:
            second.append(Phone(SILENCE, other, other + 0.5))
            other += 0.5
        second.append(Phone(label, other, other + stretched))
        other += stretched

    def open_mouth(spoken: list[Phone], n_frames: int) -> Any:
        """A vowel's own opening, reached in its middle."""
        track = np.zeros(n_frames)
        for phone in spoken:
            if phone.label != SILENCE:
                times = np.arange(n_frames) / 25
                share = (times - phone.start_s) / (phone.end_s - phone.start_s)
                inside = (share >= 0) & (share < 1)
                depth = (PHONES.index(phone.label) % 7) / 7
                track[inside] = depth * np.sin(np.pi * share[inside])
        return track

    lines = [voices.Line(np.zeros(0, np.float32), p) for p in (first, second)]
    tracks = [open_mouth(first, int(at * 25) + 1), open_mouth(second, int(other * 25) + 1)]
    assert voices.agreement(lines, tracks) > 0.8
    tracks[1] = np.roll(tracks[1], 40)
    assert voices.agreement(lines, tracks) < 0.3


def test_the_same_line_is_not_warped() -> None:
    times, warped = voices.matched_times(SPOKEN, SPOKEN)
    np.testing.assert_allclose(times, warped, atol=1e-9)
    assert times.min() >= 0.2
    assert times.max() < 0.6


# ---------------------------------------------------------------------------------- noise


@pytest.mark.parametrize("snr_db", [-5.0, 5.0, 20.0])
def test_noise_is_below_the_speech_by_the_requested_ratio(snr_db: float) -> None:
    sound = _sound(4.0)
    silent = is_silence(sound)
    added = noise.at_snr(sound, noise.pink(len(sound), 0), snr_db, silent) - sound
    spoken = np.repeat(~silent, 640)[: len(sound)]
    found = 10 * np.log10(np.mean(sound[spoken] ** 2) / np.mean(added**2))
    assert found == pytest.approx(snr_db, abs=0.5)


def test_colors() -> None:
    for color, slope_db in ((noise.white, 3.0), (noise.pink, 0.0)):
        power = np.abs(np.fft.rfft(color(64_000, 0))) ** 2
        frequencies = np.fft.rfftfreq(64_000, 1 / SAMPLE_RATE)
        octaves = [power[(frequencies >= f) & (frequencies < 2 * f)].sum() for f in (500, 2000)]
        assert 10 * np.log10(octaves[1] / octaves[0]) / 2 == pytest.approx(slope_db, abs=0.4)


def test_babble_has_several_voices_at_all_times() -> None:
    voice = np.ones(5_000, np.float32)
    made = noise.babble(40_000, [voice], 0)
    assert made.shape == (40_000,)
    assert np.all(made == noise.N_VOICES)
    np.testing.assert_array_equal(made, noise.babble(40_000, [voice], 0))


def test_growth_is_relative_to_clean_audio() -> None:
    clean, n = np.ones((2, 100)), 100
    errors = {("a", "clean"): clean, ("a", "white"): clean + 0.2}
    errors |= {("b", "clean"): 2 * clean, ("b", "white"): 2 * clean + np.linspace(0.1, 0.9, n)}
    first, second, pair = noise.growth(errors, ["a", "b"], ["white"], 0.5)
    assert (first["growth_px"], second["growth_px"]) == (pytest.approx(0.2), pytest.approx(0.5))
    assert first["growth_share"] == pytest.approx(0.2 / 0.5)
    assert pair["growth_ratio"]["mean"] == pytest.approx(0.4)
    assert pair["growth_ratio"]["low"] < 0.4 < pair["growth_ratio"]["high"]


# ------------------------------------------------------------------------------ retrieval


def _unit_walk(n: int, seed: int) -> Float32:
    vectors = np.random.default_rng(seed).normal(size=(n, 16))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("late", [-15, -4, 0, 3, 15])
def test_the_offset_is_found(late: int) -> None:
    seen = _unit_walk(120, 0)
    found, starts = retrieval.window_lags(seen, np.roll(seen, late, axis=0))
    assert set(found[2:-2]) == {late}
    assert starts[0] == 15
    assert starts[-1] + 25 + 15 <= 120


def test_windows_need_sound_at_every_lag() -> None:
    seen = _unit_walk(55, 0)
    assert len(retrieval.window_lags(seen, seen)[0]) == 1
    assert len(retrieval.window_lags(seen[:54], seen[:54])[0]) == 0
    assert len(retrieval.window_lags(seen, seen[:54])[0]) == 0


@dataclass(frozen=True)
class Matching:
    """Embeds lips by their pixels, and audio by the same values."""

    spoken: Float32
    name: str = "matching"

    def audio_embedding(self, waveform: Float32) -> Float32:
        return self.spoken[: len(waveform) // 640]

    def lip_embedding(self, lips: Float32) -> Float32:
        return lips.reshape(len(lips), -1)[:, :16]


def test_shares_of_windows() -> None:
    lips = np.random.default_rng(0).integers(0, 255, (90, 4, 4)).astype(np.uint8)
    spoken = lips.reshape(90, 16).astype(np.float32) / 255 - 0.5
    take = retrieval.Variant("t", np.zeros(90 * 640, np.float32), lips)
    (row,) = retrieval.retrieval("d", [take], Matching(spoken))
    assert row["exact"]["mean"] == row["within_a_frame"]["mean"] == 1.0
    assert row["n_windows"] == 8
    (row,) = retrieval.retrieval("d", [take], Matching(np.roll(spoken, 1, axis=0)))
    assert (row["exact"]["mean"], row["within_a_frame"]["mean"]) == (0.0, 1.0)
    assert row["median_lag"] == 1.0


def test_shards_without_lips_are_refused() -> None:
    given = [Utterance(_sound(), tuple(SPOKEN), "v", "test")]
    shard = make_shard(given, source="s", licence="l", attribution="a", shippable=True)
    with pytest.raises(ValueError, match="no lips"):
        retrieval.shard_takes(shard, "test")
