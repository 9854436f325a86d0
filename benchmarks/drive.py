"""How well a head follows another recording: `python -m benchmarks.drive IDENTITY VIDEO --home HOME`.

The head is driven by the video, rendered, and tracked again. Prints, as JSON, the correlation of each
coefficient that moves in the video with the tracked one, their medians, and distances in the rendered
face relative to those of the person's mesh.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from talkhead.app.avatar import load_identity
from talkhead.app.composer.driver import driven_clip, track_driver
from talkhead.app.composer.expression_model import ExpressionModel
from talkhead.app.composer.frames import HeadCompositor, own_background
from talkhead.app.composer.idle_clip import IdleClip
from talkhead.blendshapes import BLENDSHAPES
from talkhead.cameras import project
from talkhead.face import CHIN, NOSE_BOTTOM, OUTER_EYE_CORNERS, OUTER_LIPS
from talkhead.preprocess.landmarks import FaceTracker, track_frames
from talkhead.progress import SilentProgress
from talkhead.types import Float32

MIN_STD, MIN_RANGE = 0.03, 0.05
"""A coefficient counts if it varies so much in the video, and if the person's range is so large."""
JAW = (172, 397)
"""Landmarks at the left and right of the jaw."""
DISTANCES = {
    "eyes": OUTER_EYE_CORNERS,
    "nose": (168, NOSE_BOTTOM),
    "mouth": (OUTER_LIPS[0], OUTER_LIPS[10]),
    "jaw": JAW,
    "chin": (NOSE_BOTTOM, CHIN),
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("identity")
    parser.add_argument("video", type=Path)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--frames", type=int, default=400)
    args = parser.parse_args()
    avatar = load_identity(args.identity, home=args.home)
    clip = avatar.idle
    model = ExpressionModel.from_clip(clip)
    with TemporaryDirectory() as folder:
        driver = track_driver(args.video, Path(folder), SilentProgress())
    driven, notes = driven_clip(clip, model, driver)
    n_frames = min(args.frames, len(driven))
    render, background = (
        HeadCompositor(avatar.renderer, driven, moves_eyes=True),
        own_background(clip),
    )
    images = (render(background, i, driven.codes[i]) for i in range(n_frames))
    tracking = track_frames(FaceTracker(), images)
    seen = tracking.detected & driver.known[:n_frames]
    wanted, made = driver.blendshapes[:n_frames][seen], tracking.blendshapes[seen]
    found = {
        name: round(float(np.corrcoef(wanted[:, i], made[:, i])[0, 1]), 3)
        for i, name in enumerate(BLENDSHAPES)
        if wanted[:, i].std() > MIN_STD and model.high[i] - model.low[i] > MIN_RANGE
    }
    upper = [r for name, r in found.items() if name.startswith(("eye", "brow"))]
    mouth = [r for name, r in found.items() if not name.startswith(("eye", "brow"))]
    ratios = _ratios(driven, tracking.landmarks[seen], np.flatnonzero(seen))
    result = {
        "frames": int(seen.sum()),
        "median_r": round(float(np.median(list(found.values()))), 3),
        "median_r_eyes_brows": round(float(np.median(upper)), 3),
        "median_r_mouth": round(float(np.median(mouth)), 3) if mouth else None,
        "r": found,
        "distances_over_own": ratios,
        "notes": notes,
    }
    print(json.dumps(result))


def _ratios(clip: IdleClip, landmarks: Float32, frames: np.ndarray) -> dict[str, float]:
    """Median of distances in rendered landmarks [n, 478, 3] over those of the person's mesh."""
    mesh = np.repeat(clip.face.template[None].astype(np.float64), len(frames), axis=0)
    views = clip.viewmats[frames].astype(np.float64)
    own = project(mesh, views, clip.crop_ks[0].astype(np.float64))
    made = landmarks[..., :2]

    def distance(points: np.ndarray, pair: tuple[int, ...]) -> np.ndarray:
        return np.linalg.norm(points[:, pair[0]] - points[:, pair[1]], axis=-1)

    scale = distance(made, OUTER_EYE_CORNERS) / distance(own, OUTER_EYE_CORNERS)
    return {
        name: round(float(np.median(distance(made, pair) / distance(own, pair) / scale)), 4)
        for name, pair in DISTANCES.items()
    }


if __name__ == "__main__":
    main()
