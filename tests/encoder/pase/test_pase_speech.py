"""Speech with known words: reading the index, storing alignments, aligning pronunciations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from paths import SAMPLES

from talkhead.encoder.forced_alignment import Alignment, ForcedAligner, phones_unavailable_reason
from talkhead.encoder.pase import speech
from talkhead.encoder.pase.speech import (
    MIN_SPEECHOCEAN_SCORE,
    AlignmentStore,
    Spoken,
    align_spoken,
    fitting_utterances,
    read_speechocean,
)
from talkhead.encoder.phones import SILENCE, Phone
from talkhead.errors import TalkheadError
from talkhead.media import read_audio
from talkhead.progress import SilentProgress

LINE = SAMPLES / "line.wav"
TRUTH = json.loads((SAMPLES / "truth.json").read_text())
needs_sphinx = pytest.mark.skipif(
    bool(phones_unavailable_reason()), reason=phones_unavailable_reason() or "usable"
)


def entry(speaker: int, split: str, number: int = 0) -> str:
    file = f"{speaker:04}/{number}.opus"
    facts = {"file": file, "speaker": f"{speaker:04}", "split": split, "seconds": 2.5}
    return json.dumps(facts | {"text": "CALL IT", "phones": [["K", "AO0", "L"], ["IH1", "T"]]})


def spoken_line() -> list[tuple[str, float, float]]:
    """Phones of samples/line.wav as they were synthesized."""
    labels = {"ax": "AH"}
    return [
        (labels.get(p["phone"], p["phone"].upper()), p["start_s"], p["end_s"])
        for p in TRUTH["line_phones"]
        if p["phone"] != "pau"
    ]


# --------------------------------------------------------------------------------- index


def test_some_speakers_of_training_are_for_validation(tmp_path: Path) -> None:
    lines = [entry(s, "train", n) for s in range(25) for n in (0, 1)] + [entry(99, "test")]
    (tmp_path / "index.jsonl").write_text("\n".join(lines))
    spoken = read_speechocean(tmp_path)
    speakers = {
        split: {o.speaker for o in spoken if o.split == split}
        for split in ("train", "validation", "test")
    }
    assert speakers["validation"] == {"0009", "0019"} and speakers["test"] == {"0099"}
    assert len(speakers["train"]) == 23 and not speakers["train"] & speakers["validation"]
    assert spoken[0].words == ("K AO0 L", "IH1 T")
    assert spoken[0].path == tmp_path / "0000/0.opus"


@pytest.mark.parametrize("line", ["{", "3", '{"file": "a"}', '{"file": "a", "phones": 3}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "index.jsonl").write_text(entry(0, "train") + "\n" + line)
    with pytest.raises(TalkheadError, match="line 2 is not an utterance"):
        read_speechocean(tmp_path)


def test_no_index(tmp_path: Path) -> None:
    with pytest.raises(TalkheadError, match="no such file"):
        read_speechocean(tmp_path)


# --------------------------------------------------------------------------------- store


def test_alignments_are_read_back_without_an_incomplete_line(tmp_path: Path) -> None:
    """A run that was killed while writing leaves an incomplete line."""
    path = tmp_path / "deep" / "a.jsonl"
    fit = Alignment([Phone("P", 0.1, 0.25), Phone("AA", 0.25, 0.5)], -12.5)
    store = AlignmentStore(path)
    store.add("a", "P AA", fit)
    store.add("b", "P", None)
    whole = path.read_text()
    path.write_text(whole + '{"name": "c", "wor')
    again = AlignmentStore(path)
    assert again["a", "P AA"] == fit and again["b", "P"] is None
    assert ("c", "P") not in again and ("a", "other words") not in again
    again.add("c", "P", fit)
    assert AlignmentStore(path)["c", "P"] == fit and path.read_text().startswith(whole)


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    with pytest.raises(TalkheadError, match=r"a\.jsonl: damaged"):
        AlignmentStore(tmp_path / "a.jsonl")


def test_stored_alignments_are_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was stopped after two of five alignments resumes with the other three."""

    class Counting:
        seen = 0

        def fit_pronounced(self, waveform: object, words: tuple[str, ...]) -> Alignment | None:
            Counting.seen += 1
            return Alignment([Phone("P", 0.0, 1.0)], -10.0 * len(words))

    monkeypatch.setattr(speech, "ForcedAligner", Counting)
    spoken = [Spoken(f"{i}", LINE, ("P",) * (1 + i), "s", "train", 6.0) for i in range(5)]
    too_long = Spoken("long", LINE, ("P",), "s", "train", 60.0)
    for limit, seen in ((2, 2), (None, 5), (None, 5)):
        store = AlignmentStore(tmp_path / "a.jsonl")
        fits = align_spoken([*spoken, too_long], store, SilentProgress(), limit)
        assert Counting.seen == seen and len(fits) == min(seen, limit or seen)
    kept = list(fitting_utterances([*spoken, too_long], fits, min_score=-30.0))
    assert len(kept) == 3 and kept[0].phones == (Phone("P", 0.0, 1.0),)
    assert np.array_equal(kept[0].waveform, read_audio(LINE))


# ------------------------------------------------------------------------------- fitting


@needs_sphinx
def test_pronunciations_are_found_where_they_are_spoken() -> None:
    """No dictionary is used: the synthesizer's own phones are passed as one word per group of
    phones.
    """
    true = spoken_line()
    words = [" ".join(p for p, _, _ in true[i : i + 3]) for i in range(0, len(true), 3)]
    fit = ForcedAligner().fit_pronounced(read_audio(LINE), words)
    assert fit is not None and fit.score > MIN_SPEECHOCEAN_SCORE
    found = [p for p in fit.phones if p.label != SILENCE]
    assert [p.label for p in found] == [p for p, _, _ in true]
    errors = np.abs([p.start_s - start for p, (_, start, _) in zip(found, true, strict=True)])
    assert np.median(errors) < 0.015 and np.mean(errors) < 0.025


@needs_sphinx
def test_wrong_pronunciations_score_below_the_limit() -> None:
    """The wrong pronunciations are the correct phones in reverse order, with the same aligner."""
    aligner, waveform = ForcedAligner(), read_audio(LINE)
    phones = [p for p, _, _ in spoken_line()]
    right = aligner.fit_pronounced(waveform, [" ".join(phones)])
    wrong = aligner.fit_pronounced(waveform, [" ".join(reversed(phones))])
    assert right is not None and right.score > MIN_SPEECHOCEAN_SCORE
    assert wrong is None or wrong.score < MIN_SPEECHOCEAN_SCORE


@needs_sphinx
def test_invalid_pronunciations() -> None:
    for word in ("", "HELLO", "P Q"):
        with pytest.raises(TalkheadError, match="is not a pronunciation"):
            ForcedAligner().fit_pronounced(read_audio(LINE), [word])


@needs_sphinx
def test_stress_digits_do_not_count() -> None:
    aligner, waveform = ForcedAligner(), read_audio(LINE)
    plain = [" ".join(p for p, _, _ in spoken_line())]
    stressed = [" ".join(f"{p}1" if p[0] in "AEIOU" else p for p in plain[0].split())]
    assert aligner.fit_pronounced(waveform, plain) == aligner.fit_pronounced(waveform, stressed)
