"""Temporary files of a killed command are removed, and are never next to the output."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from processes import start, wait_for
from tiny import LINE

from talkhead.app.fit import FitResult
from talkhead.app.home.identities import Home
from talkhead.app.home.scratch import clear_scratch, open_home, scratch_folder


def test_a_folder_is_removed_at_the_end_of_its_block(tmp_path: Path) -> None:
    home = Home(tmp_path)
    clear_scratch(home)
    assert not list(tmp_path.iterdir()), "looking creates nothing"
    with scratch_folder(home) as one, scratch_folder(home) as other:
        (one / "picture.png").touch()
        clear_scratch(home)
        assert (one / "picture.png").exists() and other.is_dir(), "both processes are alive"
    assert not list((tmp_path / "scratch").iterdir())


def test_a_home_that_cannot_be_written_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with scratch_folder(Home(tmp_path / "file")) as folder:
        assert folder.is_dir()
    assert not folder.exists()


def test_a_killed_speak_leaves_nothing_next_to_its_output(
    fitted: FitResult, home: Path, tmp_path: Path
) -> None:
    place = tmp_path / "videos"
    place.mkdir()
    process = start(
        "speak", "--audio", LINE, "--identity", fitted.package_path, "--home", tmp_path / "home",
        "-o", place / "line.mp4", "--device", "cpu",
    )  # fmt: skip
    wait_for(tmp_path / "home", "segment-*.mp4", process)
    open_home(tmp_path / "home")
    assert list((tmp_path / "home").rglob("segment-*.mp4")), "it is still running"
    process.kill()
    process.communicate()
    assert not list(place.iterdir())
    left = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert any(path.name.startswith("segment-") for path in left)
    listing = start("identities", "list", "--home", tmp_path / "home")
    listing.communicate()
    assert not list((tmp_path / "home" / "scratch").iterdir())


@pytest.mark.skipif(os.name == "nt", reason="devices are identified differently")
def test_outputs_on_another_disk(
    fitted: FitResult, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename between disks fails: the finished file is copied next to its place, then renamed."""
    import errno

    from talkhead import media
    from talkhead.app.speak import speak

    rename = Path.replace

    def between_disks(self: Path, target: Path) -> Path:
        if self.parent != Path(target).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", between_disks)
    audio = tmp_path / "a.wav"
    audio.write_bytes(LINE.read_bytes()[: 44 + 16_000])
    result = speak(audio, output=tmp_path / "a.mp4", home=home, device="cpu")
    assert sum(1 for _ in media.read_frames(tmp_path / "a.mp4")) == result.n_frames
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "a.wav"]
