"""Held-out results of fitted renderers as JSON lines, and contact sheets.

    python -m benchmarks.quality WORK --checkpoint renderer.safetensors --preset standard
    python -m benchmarks.quality WORK --package ~/.local/share/talkhead/identities/anna

WORK is the folder of a fit, in work/ of the home folder. With several, give as many checkpoints or
packages, in the same order. Each line is one row: for the tracked codes and, with --mean-mouth, for
the mean mouth of the training frames under the same poses, the baseline that is independent of
speech.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from talkhead.app.avatar import load_renderer
from talkhead.app.evaluation.evaluate_identity import EvaluationTarget
from talkhead.app.evaluation.measures.image import mouth_box
from talkhead.app.evaluation.reference import (
    CropReference,
    encoded,
    held_out_frames,
    rendered_crops,
)
from talkhead.app.evaluation.report.contact_sheets import contact_sheet, mouth_sheet, spread
from talkhead.app.evaluation.results import MEAN_MOUTH, REENCODED, TRACKED_CODES, plain
from talkhead.app.evaluation.variant import MeasurementTools, make_variant, measure_images, track
from talkhead.app.workspace import prepared
from talkhead.errors import TalkheadError
from talkhead.identity import IdentityPackage
from talkhead.progress import make_progress
from talkhead.renderers.base import Renderer
from talkhead.renderers.registry import get_renderer
from talkhead.storage import make_folder, read_tensors

N_COLUMNS = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the results; returns the exit status."""
    options = _parser().parse_args(arguments)
    sources = options.package or options.checkpoint
    if len(sources) != len(options.works):
        raise SystemExit("give one --checkpoint or --package for each WORK, in their order")
    try:
        for folder, source in zip(options.works, sources, strict=True):
            _report(folder, source, options)
    except TalkheadError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("works", nargs="+", type=Path, metavar="WORK")
    made = parser.add_mutually_exclusive_group(required=True)
    made.add_argument("--checkpoint", action="append", type=Path, help="of fit_renderer")
    made.add_argument("--package", action="append", type=Path, help="an identity package")
    parser.add_argument("--renderer", help="its name; a package's default one")
    parser.add_argument("--preset", default="standard", help="the checkpoint's preset")
    parser.add_argument("--sheets", type=Path, help="folder for PNGs")
    parser.add_argument("--floor", action="store_true", help="measure CRF 23 of the real frames")
    parser.add_argument("--mean-mouth", action="store_true", help="also a row for the mean mouth")
    return parser


def _report(folder: Path, source: Path, options: argparse.Namespace) -> None:
    dataset = prepared(folder)
    name, renderer = _load(source, options)
    numbers = held_out_frames(dataset)
    subject = EvaluationTarget(Path(), dataset, renderer, dataset.tracks.codes, numbers)
    scene, instruments = CropReference(dataset, numbers), MeasurementTools()
    rows = {TRACKED_CODES: rendered_crops(renderer, dataset, numbers, subject.tracked)}
    if options.mean_mouth:
        rows[MEAN_MOUTH] = rendered_crops(renderer, dataset, numbers, subject.mean_mouths())
    with tempfile.TemporaryDirectory() as scratch:
        if options.floor:
            rows[REENCODED] = encoded(scene, Path(scratch))
        with make_progress("bars").step("Measuring", total=len(rows) * len(numbers)) as bar:
            real = track(scene, scene.real(), instruments.tracker)
            for row, images in rows.items():
                visual = measure_images(scene, images, instruments, bar)
                take = make_variant(row, "made", "", visual, real, numbers, None, None)
                facts = {"benchmark": "quality", "video": dataset.info.video, "renderer": name}
                figures = {"images": take.images, "lips": take.lips}
                print(json.dumps({**facts, "row": row, **plain(figures)}), flush=True)
    if options.sheets is not None:
        _write_sheets(subject, make_folder(options.sheets) / f"{name}")


def _load(source: Path, options: argparse.Namespace) -> tuple[str, Renderer]:
    """Name and renderer of a package or a checkpoint of fit_renderer."""
    if options.package:
        package = IdentityPackage.load(source)
        name = options.renderer or package.manifest.default_renderer
        return name, load_renderer(package, name, torch.device("cpu"))
    name = options.renderer or "gaussian"
    kind, stored = get_renderer(name), read_tensors(source)
    model = {k.removeprefix("model."): t for k, t in stored.items() if k.startswith("model.")}
    return name, kind.from_tensors(model or stored, kind.presets[options.preset])


def _write_sheets(subject: EvaluationTarget, stem: Path) -> None:
    part = subject.part(np.array(spread(len(subject.frames), N_COLUMNS)))
    dataset, numbers = part.dataset, part.frames
    real = [dataset.frames[number] for number in numbers]
    ours = list(rendered_crops(part.renderer, dataset, numbers, part.tracked))
    clip = Path(dataset.info.video).stem
    title = f"{clip}: held-out frames {', '.join(map(str, numbers))}"
    rows = [("real", real), ("rendered", ours)]
    contact_sheet(rows, stem.with_name(f"{clip}-{stem.name}.png"), title, cell_height=360)
    boxes = [mouth_box(dataset.crop_landmarks()[number]) for number in numbers]
    mouth_sheet(real, ours, boxes, stem.with_name(f"{clip}-{stem.name}-mouths.png"), title)


if __name__ == "__main__":
    raise SystemExit(main())
