"""Media files are described once, until they change."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile

from talkhead.errors import MediaError
from talkhead.media import probe, probing
from talkhead.media.process import report


def wav(path: Path, rate: int) -> Path:
    scipy.io.wavfile.write(path, rate, np.zeros(800, np.float32))
    return path


def test_a_file_is_described_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def counted(*arguments: str) -> str:
        asked.append(arguments)
        return report(*arguments)

    monkeypatch.setattr(probing, "report", counted)
    path = wav(tmp_path / "a.wav", 8000)
    assert [probe(path).audio_rate, probe(path).audio_rate] == [8000, 8000]
    assert len(asked) == 1
    other = wav(tmp_path / "b.wav", 16000)  # just as large
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    assert probe(path).audio_rate == 16000
    for _ in range(2):
        with pytest.raises(MediaError, match="no such file"):
            probe(other)
