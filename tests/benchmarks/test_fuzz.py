"""The fuzz suite detects faults, draws the same cases each time, and finds no faults in talkhead."""

from __future__ import annotations

import json
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
import safetensors.numpy
from paths import HELPERS

from benchmarks.fuzz.__main__ import NAME, PLAIN_TIMES, cases_of, plain_cases
from benchmarks.fuzz.judging import terminal_faults
from benchmarks.fuzz.kinds import SUITE, server
from benchmarks.fuzz.mutations import playlists, raw, tensors, texts, trees, zips
from benchmarks.fuzz.supervisor import Supervisor, supervised
from benchmarks.fuzz.traps import Traps
from benchmarks.fuzz.trial import DONE, FAULTS, REFUSED, USAGE
from benchmarks.fuzz.worker import Case, JobFinished, draw_kind

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux only")

OUTCOMES = {
    "works": DONE,
    "exits": DONE,
    "refuses": REFUSED,
    "refuses what is valid": "valid refused",
    "usage": USAGE,
    "real command": DONE,
    "enough": DONE,
    "raises": "traceback",
    "odd status": "traceback",
    "silent": "traceback",
    "printed trace": "traceback",
    "no memory": "memory",
    "reported no memory": "memory",
    "hangs": "hang",
    "dies": "signal",
    "leaves": "half-written",
    "leaves in a folder of its own": "half-written",
    "leaves a job": "half-written",
    "leaves parts": DONE,
    "writes elsewhere": "half-written",
    "changes its input": "half-written",
    "writes where it may": DONE,
    "leaves an output though it fails": "half-written",
    "makes an output": DONE,
    "bad output": "traceback",
    "escapes": "terminal",
    "escapes below Python": "terminal",
    "forges": "terminal",
    "no text": "terminal",
    "surrogate": "traceback",
    "connects": "network",
    "child connects": "network",
    "looks up": "traceback",
    "reads a canary": "trap",
    "changes a base": "trap",
    "writes outside": "traceback",
    "starts a program": "program",
    "accepts": "accepted",
    "broken": "broken case",
}
"""Outcomes of cases with each kind of fault, and of some without faults."""


@pytest.fixture(scope="module")
def watched() -> Iterator[Supervisor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HELPERS))
        with supervised("faulty_kinds:SUITE", max_s=3.0, max_mib=500) as supervisor:
            yield supervisor


@pytest.mark.parametrize("name", OUTCOMES)
def test_faults_are_detected(watched: Supervisor, name: str) -> None:
    ended = watched.run(Case(0, 0, name), again=False)
    assert (ended.kind, ended.outcome) == (name, OUTCOMES[name]), ended.message


@needs_linux
def test_memory_is_bounded(watched: Supervisor) -> None:
    ended = watched.run(Case(0, 0, "grows"))
    assert ended.outcome == "memory" and ended.peak_mib > 500


def test_a_fault_does_not_affect_the_next_case(watched: Supervisor) -> None:
    for name in ("dies", "works", "leaves", "works", "changes a base"):
        ended = watched.run(Case(0, 0, name), again=False)
        assert ended.outcome == OUTCOMES[name], ended.message


def test_terminal_faults() -> None:
    assert terminal_faults("é \u2013 ok\n\tline\n".encode()) == []
    for bad in ("\x1b[2J", "\r", "\x00", "\x7f", "\x9b31m", "\u202e", "\u2028"):
        assert terminal_faults(f"a{bad}b".encode()), repr(bad)


# ------------------------------------------------------------------------------- commands


@pytest.fixture(scope="module")
def commands() -> Iterator[Supervisor]:
    """The worker of the real suite. It starts once: making the valid files takes seconds."""
    with supervised(NAME) as supervisor:
        yield supervisor


def _replay(case: Case, finished: JobFinished) -> str:
    """The case as --replay accepts it, and its result."""
    name = case.plain or finished.kind
    return (
        f"{case.seed}:{case.number} {name}: {finished.outcome}, {finished.mutation} | "
        f"{finished.message}"
    )


def test_no_fault_in_300_cases_of_all_kinds(commands: Supervisor) -> None:
    """Uses seed 15. Takes about two minutes, because the commands themselves read the damaged
    files.
    """
    finished = {c: commands.run(c) for c in islice(cases_of(SUITE, 15, ()), 300)}
    faults = [_replay(c, f) for c, f in finished.items() if f.outcome in FAULTS]
    assert not faults, "\n".join(faults)
    assert {f.kind for f in finished.values()} == {kind.name for kind in SUITE.kinds}
    # Damaged files must neither all be refused nor all be accepted.
    outcomes = [f.outcome for f in finished.values()]
    assert min(outcomes.count(DONE), outcomes.count(REFUSED)) > 30


@pytest.mark.parametrize("kind", [kind.name for kind in server.KINDS])
def test_no_fault_in_requests_and_messages(commands: Supervisor, kind: str) -> None:
    """Uses seed 3. A few cases of the server alone, to be run after changes of its interface."""
    finished = {c: commands.run(c) for c in islice(cases_of(SUITE, 3, (kind,)), 6)}
    faults = [_replay(c, f) for c, f in finished.items() if f.outcome in FAULTS]
    assert not faults, "\n".join(faults)
    assert {f.kind for f in finished.values()} == {kind}


@pytest.mark.parametrize("kind", [kind.name for kind in SUITE.kinds])
def test_valid_files_are_accepted(commands: Supervisor, kind: str) -> None:
    cases = [case for case in plain_cases(SUITE, 0) if case.plain == kind]
    finished = {case: commands.run(case) for case in cases}
    faults = [_replay(c, f) for c, f in finished.items() if f.outcome in FAULTS]
    assert not faults, "\n".join(faults)
    assert len(finished) == PLAIN_TIMES


# ------------------------------------------------------------------------------- drawing


def test_a_case_depends_on_seed_and_number_alone() -> None:
    """A number means the same case for any choice of kinds; no case of the chosen kinds is skipped."""
    every = {c.number: draw_kind(SUITE, c.rng()).name for c in islice(cases_of(SUITE, 7, ()), 200)}
    chosen = list(islice(cases_of(SUITE, 7, ("table", "verify")), 20))
    assert [c.number for c in chosen] == [n for n, k in every.items() if k in ("table", "verify")][
        :20
    ]
    assert len(set(every.values())) == len(SUITE.kinds) >= 10


SOUND = b"RIFF" + bytes(4) + b"WAVEfmt " + bytes(range(200)) + b"data" + bytes(400)
PNG = raw.png_of([(b"IHDR", bytes(13)), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")])
TREE = json.dumps({"a": 1, "b": [1.5, "text", None], "c": {"d": True}}).encode()
TENSORS = safetensors.numpy.save({"a": np.zeros((3, 4), np.float32), "b": np.arange(5)})
ZIP = zips.archive_of({"identity.json": b"{}", "idle.mp4": b"clip", "x.safetensors": b"y"})
MUTATIONS: dict[str, tuple[Callable[..., raw.Mutated], bytes]] = {
    "raw": (raw.mutate, SOUND),
    "png": (raw.mutate_png, PNG),
    "texts": (texts.mutate, b"1\n00:00:00,000 --> 00:00:01,000\nPeople often say\n"),
    "trees": (trees.mutate, TREE),
    "tensors": (tensors.mutate, TENSORS),
    "zips": (zips.mutate, ZIP),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutations_are_deterministic_and_damage(name: str) -> None:
    mutate, data = MUTATIONS[name]
    first = [mutate(data, Random(seed)) for seed in range(150)]
    assert first == [mutate(data, Random(seed)) for seed in range(150)]
    assert all(isinstance(changed, bytes) and what for changed, what in first)
    assert sum(changed != data for changed, _ in first) > 130
    assert len({changed for changed, _ in first}) > 60


def test_tensors_read_and_write_back() -> None:
    assert safetensors.numpy.load(tensors.write(tensors.read(TENSORS)))["b"].tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_most_damaged_tensors_are_valid_files() -> None:
    """They test the program's own checks, not those of the library."""
    read = 0
    for seed in range(200):
        changed, _ = tensors.mutate(TENSORS, Random(seed))
        try:
            safetensors.numpy.load(changed)
        except Exception:
            continue
        read += 1
    assert 80 < read < 190


def test_zeros_unpack_to_the_requested_number() -> None:
    for count in (0, 5, 1 << 20, (3 << 20) + 17):
        assert zlib.decompress(raw.zeros(count)) == bytes(count)


def test_archives_contain_their_members() -> None:
    assert zips.members(ZIP) == {
        "identity.json": b"{}", "idle.mp4": b"clip", "x.safetensors": b"y"
    }  # fmt: skip
    assert zipfile.is_zipfile(Path(__file__)) is False


def test_playlists_refer_to_a_trap(tmp_path: Path) -> None:
    traps = Traps(4567, tmp_path / "canaries")
    made = [playlists.make(Random(seed), traps)[0].decode() for seed in range(200)]
    assert all("127.0.0.1" in text or str(traps.folder.name) in text for text in made)
    assert any("ffconcat" in text for text in made) and any("MPD" in text for text in made)
