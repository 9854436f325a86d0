"""Held-out figures of fitted renderers as JSON lines, and sheets to look at.

    python -m benchmarks.quality DATASET --checkpoint renderer.safetensors --preset standard
    python -m benchmarks.quality DATASET --package ~/.local/share/talkhead/identities/anna

DATASET is a folder that `fit` prepared (WORK/dataset). With several, give as many checkpoints or
packages, in the same order. Each line is one row: the tracked codes, and with --mean-mouth the
mean mouth of the training frames under the same poses, the baseline that knows no speech.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from talkhead.app.evaluation.heldout import (
    evaluate_renderer,
    frames_with_face,
    held_out_frames,
    real_crops,
    rendered_crops,
)
from talkhead.app.evaluation.metrics import mouth_box
from talkhead.app.evaluation.sheets import contact_sheet, mouth_sheet, spread
from talkhead.dataset import IdentityDataset
from talkhead.errors import TalkheadError
from talkhead.identity import IdentityPackage
from talkhead.preprocess.landmarks import FaceTracker
from talkhead.progress import make_progress
from talkhead.renderers.base import Renderer, config_from_json, renderer_kind
from talkhead.storage import make_folder, read_tensors
from talkhead.types import Float32, Int

N_COLUMNS = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; the process's exit status."""
    options = _parser().parse_args(arguments)
    sources = options.package or options.checkpoint
    if len(sources) != len(options.datasets):
        raise SystemExit("give one --checkpoint or --package for each dataset, in their order")
    try:
        for folder, source in zip(options.datasets, sources, strict=True):
            _report(folder, source, options)
    except TalkheadError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("datasets", nargs="+", type=Path, metavar="DATASET")
    made = parser.add_mutually_exclusive_group(required=True)
    made.add_argument("--checkpoint", action="append", type=Path, help="of fit_renderer")
    made.add_argument("--package", action="append", type=Path, help="an identity package")
    parser.add_argument("--renderer", help="its name; a package's default one")
    parser.add_argument("--preset", default="standard", help="the checkpoint's preset")
    parser.add_argument("--sheets", type=Path, help="folder for PNGs")
    parser.add_argument("--floor", action="store_true", help="measure CRF 23 of the real frames")
    parser.add_argument("--mean-mouth", action="store_true", help="also a row for the mean mouth")
    parser.add_argument("--no-tracking", action="store_true", help="images only, no lip figures")
    return parser


def _report(folder: Path, source: Path, options: argparse.Namespace) -> None:
    dataset = IdentityDataset.load(folder)
    name, renderer = _load(source, options)
    frames = held_out_frames(dataset)
    tracker = None if options.no_tracking else FaceTracker
    progress = make_progress("bars")
    rows: dict[str, Float32 | None] = {"tracked codes": None}
    if options.mean_mouth:
        rows["mean mouth"] = mean_mouth(dataset, frames)
    for row, motion in rows.items():
        floor = options.floor and motion is None
        figures = evaluate_renderer(
            renderer, dataset, frames, progress, motion, tracker=tracker, floor=floor
        )
        facts = {"benchmark": "quality", "video": dataset.info.video, "renderer": name, "row": row}
        print(json.dumps({**facts, **figures.to_json()}), flush=True)
    if options.sheets is not None:
        _write_sheets(renderer, dataset, frames, make_folder(options.sheets) / f"{name}")


def _load(source: Path, options: argparse.Namespace) -> tuple[str, Renderer]:
    """The renderer's name, and itself out of a package or a checkpoint of fit_renderer."""
    if options.package:
        package = IdentityPackage.load(source)
        name = options.renderer or package.manifest.default_renderer
        part, kind = package.manifest.renderers[name], renderer_kind(name)
        config = config_from_json(kind.config(), part.config)
        return name, kind.renderer().from_tensors(read_tensors(package.file(part.file)), config)
    name = options.renderer or "gaussian"
    kind, stored = renderer_kind(name), read_tensors(source)
    model = {k.removeprefix("model."): t for k, t in stored.items() if k.startswith("model.")}
    return name, kind.renderer().from_tensors(model or stored, kind.presets()[options.preset])


def mean_mouth(dataset: IdentityDataset, frames: Int) -> Float32:
    """Codes [N, K] of frames, their mouth part replaced by the training frames' mean."""
    tracks, n_mouth = dataset.tracks, dataset.face.n_mouth
    motion = tracks.codes[frames].copy()
    motion[:, :n_mouth] = tracks.codes[tracks.train & tracks.usable, :n_mouth].mean(0)
    return np.asarray(motion, dtype=np.float32)


def _write_sheets(renderer: Renderer, dataset: IdentityDataset, frames: Int, stem: Path) -> None:
    seen = frames_with_face(dataset, frames)
    shown = seen[spread(len(seen), N_COLUMNS)]
    real, ours = list(real_crops(dataset, shown)), list(rendered_crops(renderer, dataset, shown))
    clip = Path(dataset.info.video).stem
    title = f"{clip}: held-out frames {', '.join(map(str, shown))}"
    rows = [("real", real), ("rendered", ours)]
    contact_sheet(rows, stem.with_name(f"{clip}-{stem.name}.png"), title, cell_height=360)
    boxes = [mouth_box(dataset.crop_landmarks()[frame]) for frame in shown]
    mouth_sheet(real, ours, boxes, stem.with_name(f"{clip}-{stem.name}-mouths.png"), title)


if __name__ == "__main__":
    raise SystemExit(main())
