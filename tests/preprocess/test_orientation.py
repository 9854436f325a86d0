from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from paths import PERSON

from talkhead import media
from talkhead.preprocess.orientation import is_upside_down


def test_an_upside_down_person_is_detected(tmp_path: Path) -> None:
    if not PERSON.exists():
        pytest.skip(f"{PERSON} does not exist: make it with samples/making/make_person.py")
    with closing(media.read_frames(PERSON, n_frames=50)) as frames:
        upright = list(frames)
    empty = [np.full_like(frame, 90) for frame in upright]
    for name, images in (
        ("upright", upright),
        ("turned", [image[::-1, ::-1] for image in upright]),
        ("empty", empty),
    ):
        video = tmp_path / f"{name}.mp4"
        media.write_video(video, images)
        assert is_upside_down(video) == (name == "turned"), name
