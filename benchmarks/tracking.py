"""Compare the tracked lip opening with openings that were measured by hand.

    python -m benchmarks.tracking LABELS.json [--clips FOLDER]

LABELS.json has "labels", each with clip, frame (0-based, in decoding order) and gap_px, the inner
lips' opening at the middle of the mouth in source pixels. Prints a JSON line for each clip:

* r: correlation of tracked with labeled openings
* range: p90 - p10 of the tracked openings, relative to that of the labels; below 1, the tracked
  motion is too small
* bias_px: mean of tracked minus labeled openings
* found: share of the clip's frames with a detected face
* ms: processor time for tracking a frame, in milliseconds
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talkhead.face import LIP_PAIRS
from talkhead.preprocess.landmarks import FaceTracker, track_frames
from talkhead.types import Float32, Float64, Int, UInt8


def decoded_frames(video: Path) -> Iterator[UInt8]:
    """Every frame [H, W, 3] RGB of a video as stored, regardless of its time stamps."""
    capture = cv2.VideoCapture(str(video))
    while True:
        good, frame = capture.read()
        if not good:
            break
        yield np.ascontiguousarray(frame[..., ::-1])
    capture.release()


def lip_gap_px(landmarks: Float32) -> Float64:
    """Inner-lip openings [N] in pixels of landmarks [N, 478, 2 or 3], mean of the middle pairs."""
    gaps = [landmarks[:, top, :2] - landmarks[:, low, :2] for top, low in LIP_PAIRS]
    return np.asarray(np.mean(np.linalg.norm(gaps, axis=-1), axis=0), np.float64)


def spread(values: Float64) -> float:
    """p90 - p10."""
    low, high = np.percentile(values, [10, 90])
    return float(high - low)


def judge(video: Path, frames: Int, labeled: Float64) -> dict[str, Any]:
    """Results of one clip. frames, labeled: [N] frame numbers and their openings in pixels."""
    start = time.process_time()
    tracker = FaceTracker()
    tracking = track_frames(tracker, decoded_frames(video))
    tracker.close()
    seconds = time.process_time() - start
    tracked = lip_gap_px(tracking.landmarks[frames])
    return {
        "clip": video.name,
        "labels": len(frames),
        "r": round(float(np.corrcoef(tracked, labeled)[0, 1]), 3),
        "range": round(spread(tracked) / spread(labeled), 2),
        "bias_px": round(float((tracked - labeled).mean()), 2),
        "found": round(float(tracking.detected.mean()), 4),
        "ms": round(1000 * seconds / len(tracking), 1),
    }


def main() -> None:
    """Print the results of every labeled clip."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("labels", type=Path)
    parser.add_argument(
        "--clips", type=Path, help="folder of the clips (clips/ next to LABELS.json)"
    )
    options = parser.parse_args()
    clips = options.clips or options.labels.parent / "clips"
    labels = defaultdict(list)
    for label in json.loads(options.labels.read_text(encoding="utf-8"))["labels"]:
        labels[label["clip"]].append((label["frame"], label["gap_px"]))
    for clip, pairs in labels.items():
        frames, openings = zip(*pairs, strict=True)
        figures = judge(clips / clip, np.array(frames, np.int64), np.array(openings, np.float64))
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
