"""How exactly the head alone is cut out: against a true matte, and by what is left around it.

    python -m benchmarks.cutout IDENTITY... [--frames 200 [--audio FILE]] [--json] [--sheets FOLDER]

IDENTITY is a name or the folder of a package. The head is rendered with the tracked motion of the
held-out frames, or with --frames as `speak --mode head` does: with the head motion of the idle clip,
which is played forward and backward, and the mouth of a recording, by default the sample line.

Two tables (JSON lines with --json). The first is for held-out frames of the sample person, whose
true matte is known (samples/mattes.npz). Its rows are the rendered head; the real frame cut out by
the person mask that the renderer is trained with; and the person cut out by the true matte, of which
only composites have an error, that of mixing encoded values:

alpha, edge     mean absolute error of alpha: over the picture, and at most EDGE_PX from the true edge
green ... dark  mean error of composites over three colors at the edge, in 1/255. The true composite
                has the true alpha, the colors of the nearest opaque pixels of the real frame, and is
                mixed in linear light, as a camera would see it; the others are mixed as by `speak`
holes           pixels where the true alpha is above 0.95 and this one below 0.8: mean / most
scraps          pixels where the true alpha is below 0.05 and this one above 0.2: mean / most

The second is for any footage. It compares the head with the person mask of the real frame:

rim, residue    mean difference between composite and background over three colors, in 1/255: within
                MARGIN outside the mask's outline, where soft edges belong to the person, too (compare
                it between heads of the same footage only); and in the strip beyond it
hole, scrap     share of frames with a connected hole or scrap of more than MIN_SPOT_PX pixels, and the
                size of the largest in pixels; alpha below 0.8 inside, above 0.2 outside, and
                farther than MARGIN from the outline

--sheets writes the worst frames to a folder: composites, and holes in red and scraps in blue.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from talkhead.app.avatar import load_renderer, speech_codes
from talkhead.app.composer.frames import with_face
from talkhead.app.composer.idle_clip import load_face, load_idle, ping_pong
from talkhead.app.evaluation.measures.cutout import MARGIN, PERSON_FROM, REACH
from talkhead.app.evaluation.reference import (
    composite,
    held_out_frames,
    posed_heads,
    rendered_heads,
)
from talkhead.app.evaluation.report.contact_sheets import contact_sheet
from talkhead.app.evaluation.results import plain
from talkhead.app.home.identities import Home
from talkhead.app.workspace import find_footage, prepare_locked
from talkhead.crops import cut_crop
from talkhead.dataset import IdentityDataset
from talkhead.device import set_threads
from talkhead.errors import TalkheadError
from talkhead.identity import IdentityPackage
from talkhead.preprocess.pipeline import PreprocessConfig
from talkhead.progress import SilentProgress
from talkhead.renderers.base import Renderer
from talkhead.storage import make_folder, sha256_of
from talkhead.types import Bool, Float32, Int, UInt8

SAMPLES = Path(__file__).parents[1] / "samples"
COLORS = {"green": (0, 177, 64), "white": (255, 255, 255), "dark": (30, 30, 40)}
EDGE_PX = 8.0
OPAQUE, CLEAR = 0.95, 0.05
"""True alpha of pixels that can be holes, and of those that can be scraps."""
HOLE_BELOW, SCRAP_ABOVE = 0.8, 0.2
"""Alpha of holes and scraps."""
MIN_SPOT_PX = 12
N_COLUMNS = 6
WIDTH = 120
"""Characters of a line of the tables."""
Figures = dict[str, float]


@dataclass(frozen=True)
class Head:
    """rgb: Premultiplied color [H, W, 3]. alpha: Opacity [H, W, 1]. Both in [0, 1]."""

    rgb: Float32
    alpha: Float32

    @classmethod
    def cut_out(cls, image: UInt8, mask: Float32) -> Head:
        """Cut an image [H, W, 3] out by a mask [H, W]."""
        return cls(image * (mask[..., None] / np.float32(255)), mask[..., None])

    def over(self, color: Sequence[int] | Float32) -> UInt8:
        """Composite over a color, [H, W, 3]."""
        return composite(self.rgb, self.alpha, np.full(self.rgb.shape, color, np.uint8))


@dataclass(frozen=True)
class Known:
    """A frame whose matte is known.

    Attributes:
        frame: The real frame [H, W, 3].
        alpha: True matte [H, W] in [0, 1].
        shown: Pixels inside the picture [H, W].
    """

    frame: UInt8
    alpha: Float32
    shown: Bool

    @cached_property
    def person(self) -> UInt8:
        """Color of the person [H, W, 3]: that of the frame, at the edge of the nearest opaque pixel."""
        _, nearest = cv2.distanceTransformWithLabels(
            (self.alpha < 1).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        colors = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
        colors[nearest[self.alpha == 1]] = self.frame[self.alpha == 1]
        return colors[nearest]

    def over(self, color: Sequence[int]) -> Float32:
        """Return the person over another background, mixed in linear light, [H, W, 3] in 1/255."""
        other = to_linear(np.array(color, np.uint8))
        mixed = other + self.alpha[..., None] * (to_linear(self.person) - other)
        return np.asarray(255 * from_linear(mixed), np.float32)

    def figures(self, head: Head) -> Figures:
        """Compare a head with the truth."""
        is_inside = self.alpha > PERSON_FROM
        distance = np.where(is_inside, _depth(is_inside), _depth(~is_inside)) - 0.5
        edge = self.shown & (distance <= EDGE_PX)
        error = np.abs(head.alpha[..., 0] - self.alpha)
        mixed = {
            name: float(np.abs(head.over(color)[edge] - self.over(color)[edge]).mean())
            for name, color in COLORS.items()
        }
        holes, scraps = self.faults(head)
        return {
            "alpha": float(error[self.shown].mean()),
            "edge": float(error[edge].mean()),
            **mixed,
            "holes": float(holes.sum()),
            "scraps": float(scraps.sum()),
        }

    def faults(self, head: Head) -> tuple[Bool, Bool]:
        """Find holes and scraps, [H, W]."""
        alpha = head.alpha[..., 0]
        holes = self.shown & (self.alpha > OPAQUE) & (alpha < HOLE_BELOW)
        return holes, self.shown & (self.alpha < CLEAR) & (alpha > SCRAP_ABOVE)


@dataclass(frozen=True)
class Outline:
    """A frame whose person is known from an estimated mask.

    Attributes:
        person: Person mask [H, W] in [0, 1].
        shown: Pixels inside the picture [H, W].
    """

    person: Float32
    shown: Bool

    def distance(self, area: Bool) -> Float32:
        """Return how far pixels are inside an area, [H, W] in heights of the image.

        The borders of the picture do not bound the area.
        """
        return np.asarray(self.shown * _depth(area | ~self.shown) / len(area), np.float32)

    def figures(self, head: Head) -> Figures:
        """Measure a head."""
        far = self.distance(self.person <= PERSON_FROM)
        colors = np.array([*COLORS.values()], np.float32)
        gaps = [np.abs(head.over(c) - c).mean(-1) for c in colors]
        strips = {"rim": (far > 0) & (far <= MARGIN), "residue": (far > MARGIN) & (far <= REACH)}
        holes, scraps = self.faults(head)
        return {
            **{name: _mean(np.mean(gaps, axis=0)[strip]) for name, strip in strips.items()},
            "hole": float(largest_spot(holes)),
            "scrap": float(largest_spot(scraps)),
        }

    def faults(self, head: Head) -> tuple[Bool, Bool]:
        """Find holes and scraps, [H, W]."""
        alpha, is_person = head.alpha[..., 0], self.person > PERSON_FROM
        holes = (self.distance(is_person) > MARGIN) & (alpha < HOLE_BELOW)
        return holes, (self.distance(~is_person) > MARGIN) & (alpha > SCRAP_ABOVE)


def _mean(values: Float32) -> float:
    """Mean, NaN without values."""
    return float(values.mean()) if values.size else float("nan")


def _depth(area: Bool) -> Float32:
    """Distance [H, W] in pixels of each pixel of an area from the nearest one outside it."""
    if area.all():
        return np.full(area.shape, np.inf, np.float32)
    return np.asarray(
        cv2.distanceTransform(area.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    )


def largest_spot(faults: Bool) -> int:
    """Return the area in pixels of the largest connected spot of a mask [H, W]."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(faults.astype(np.uint8), connectivity=8)
    return int(stats[1:, cv2.CC_STAT_AREA].max(initial=0))


def to_linear(values: UInt8) -> Float32:
    """Decode sRGB values (IEC 61966-2-1) to linear light in [0, 1]."""
    x = np.arange(256, dtype=np.float32) / np.float32(255)
    table = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return np.asarray(table[values], np.float32)


def from_linear(light: Float32) -> Float32:
    """Encode linear light in [0, 1] as sRGB in [0, 1]."""
    bright = 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055
    return np.asarray(np.where(light <= 0.0031308, 12.92 * light, bright), np.float32)


def known_row(figures: Sequence[Figures]) -> dict[str, Any]:
    """Summarize figures of frames whose matte is known."""
    row: dict[str, Any] = {"frames": len(figures)}
    for name in ("alpha", "edge", *COLORS):
        row[name] = float(np.mean([one[name] for one in figures]))
    for name in ("holes", "scraps"):
        values = [one[name] for one in figures]
        row |= {name: float(np.mean(values)), f"most_{name}": max(values)}
    return row


def outline_row(figures: Sequence[Figures]) -> dict[str, Any]:
    """Summarize figures of frames whose person is known from a mask."""
    row: dict[str, Any] = {"frames": len(figures)}
    for name in ("rim", "residue"):
        row[name] = float(np.nanmean([one[name] for one in figures]))
    for name in ("hole", "scrap"):
        sizes = np.array([one[name] for one in figures])
        row |= {name: float((sizes > MIN_SPOT_PX).mean()), f"largest_{name}": float(sizes.max())}
    return row


class Mattes:
    """The sample person's true mattes, of some of the held-out frames.

    Attributes:
        frames: Numbers of the frames [M].
        alphas: Their mattes [M, H, W], uint8.
    """

    def __init__(self) -> None:
        with np.load(SAMPLES / "mattes.npz") as stored:
            self.frames, self.alphas = stored["frames"], stored["alphas"]

    def known(self, dataset: IdentityDataset, frame: int) -> Known:
        """Cut a frame's matte to its crop."""
        alpha = self.alphas[np.flatnonzero(self.frames == frame)[0]]
        info, origin = dataset.info, dataset.tracks.origins[frame]
        crop = cut_crop(alpha, origin, info.crop_size, info.scale)
        return Known(
            dataset.frames[frame], crop.astype(np.float32) / np.float32(255), _shown(dataset, frame)
        )


def _shown(dataset: IdentityDataset, frame: int) -> Bool:
    """Pixels [H, W] of a crop that are inside the picture."""
    info, origin = dataset.info, dataset.tracks.origins[frame]
    whole = np.ones((info.height, info.width), np.uint8)
    return cut_crop(whole, origin, info.crop_size, info.scale, pad="zero") > 0


@dataclass
class Worst:
    """Keeps the pictures of the frames with the most faults."""

    columns: list[tuple[float, int, list[UInt8]]]

    def add(self, number: int, head: Head, holes: Bool, scraps: Bool) -> None:
        """Consider a frame."""
        score = float(holes.sum() + scraps.sum())
        if len(self.columns) == N_COLUMNS and score <= self.columns[0][0]:
            return
        marked = head.over(COLORS["dark"])
        marked[holes], marked[scraps] = (255, 0, 0), (0, 64, 255)
        pictures = [head.over(color) for color in COLORS.values()]
        heapq.heappush(self.columns, (score, number, [*pictures, marked]))
        if len(self.columns) > N_COLUMNS:
            heapq.heappop(self.columns)

    def write(self, path: Path) -> None:
        """Write the frames, the worst first."""
        columns = sorted(self.columns, reverse=True)
        numbers = ", ".join(str(number) for _, number, _ in columns)
        labels = (*COLORS, "holes and scraps")
        rows = [(label, [c[2][i] for c in columns]) for i, label in enumerate(labels)]
        contact_sheet(rows, path, f"{path.stem}: frames {numbers}")


def held_out(
    renderer: Renderer, dataset: IdentityDataset, mattes: Mattes | None, worst: Worst
) -> Iterator[dict[str, Any]]:
    """Measure held-out frames; with mattes, those that have one."""
    numbers = held_out_frames(dataset)
    if mattes is not None:
        numbers = numbers[np.isin(numbers, mattes.frames)]
    known: dict[str, list[Figures]] = {}
    outlines: list[Figures] = []
    heads = rendered_heads(renderer, dataset, numbers, dataset.tracks.codes[numbers])
    for number, (rgb, alpha) in zip(numbers.tolist(), heads, strict=True):
        head, person = Head(rgb, alpha), dataset.person(number)
        outline = Outline(person, _shown(dataset, number))
        outlines.append(outline.figures(head))
        truth: Known | Outline = outline
        if mattes is not None:
            truth = mattes.known(dataset, number)
            rows = {
                "rendered head": head,
                "person mask": Head.cut_out(truth.frame, person),
                "true matte": Head.cut_out(truth.person, truth.alpha),
            }
            for row, one in rows.items():
                known.setdefault(row, []).append(truth.figures(one))
        worst.add(number, head, *truth.faults(head))
    for row, figures in known.items():
        yield {"against": "true matte", "row": row, **known_row(figures)}
    yield {"against": "person mask", "row": "held-out frames", **outline_row(outlines)}


def spoken(
    package: IdentityPackage, renderer: Renderer, audio: Path, n_frames: int, worst: Worst
) -> dict[str, Any]:
    """Measure frames of a line, rendered as `speak --mode head` does."""
    clip, predicted = load_idle(package), speech_codes(audio, package)
    numbers: Int = ping_pong(len(clip), n_frames)
    mouths = predicted[ping_pong(len(predicted), n_frames)]
    codes = np.stack(
        [
            with_face(clip.codes[i], m, clip.face, False)
            for i, m in zip(numbers, mouths, strict=True)
        ]
    )
    size = (clip.crop_height, clip.crop_width)
    whole = np.ones(clip.background.shape[:2], np.uint8)
    figures = []
    heads = posed_heads(renderer, codes, clip.viewmats[numbers], clip.crop_ks[numbers], size)
    for place, (number, (rgb, alpha)) in enumerate(zip(numbers.tolist(), heads, strict=True)):
        head, origin = Head(rgb, alpha), clip.origins[number]
        shown = cut_crop(whole, origin, size, clip.scale, pad="zero") > 0
        outline = Outline(clip.mask(number), shown)
        figures.append(outline.figures(head))
        worst.add(place, head, *outline.faults(head))
    return {"against": "person mask", "row": "idle clip, speech", **outline_row(figures)}


def measure(identity: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of an identity."""
    store = Home.locate(options.home)
    package = store.load(identity)
    name, worst = package.manifest.name, Worst([])
    renderer_name, _ = package.renderer(options.renderer)
    renderer = load_renderer(package, renderer_name, torch.device("cpu"))
    rows: Iterator[dict[str, Any]]
    if options.frames is not None:
        rows = iter([spoken(package, renderer, options.audio, options.frames, worst)])
    else:
        footage, work = find_footage(store, package, options.video)
        progress = SilentProgress()
        dataset = prepare_locked(store, name, footage, work, PreprocessConfig(), progress)
        dataset = dataset.matched(load_face(package))
        is_sample = footage.sha256 == sha256_of(SAMPLES / "person.mp4")
        rows = held_out(renderer, dataset, Mattes() if is_sample else None, worst)
    for row in rows:
        yield {"identity": name, "renderer": renderer_name, **row}
    if options.sheets is not None:
        worst.write(make_folder(options.sheets) / f"{name}-{renderer_name}-cutout.png")


def tables(rows: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """Lay rows out."""
    kinds = {
        "true matte": ("alpha", "edge", *COLORS, "holes", "scraps"),
        "person mask": ("rim", "residue", "hole", "scrap"),
    }
    for against, columns in kinds.items():
        chosen = [row for row in rows if row["against"] == against]
        if chosen:
            table = Table(title=f"Against the {against}")
            for column in ("identity", "", "frames", *columns):
                table.add_column(column, no_wrap=True)
            for row in chosen:
                cells = (_cell(row, column) for column in columns)
                table.add_row(row["identity"], row["row"], str(row["frames"]), *cells)
            yield table


def _cell(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if column in ("holes", "scraps"):
        return f"{value:.0f} / {row[f'most_{column}']:.0f}"
    if column in ("hole", "scrap"):
        return f"{100 * value:.1f} %, {row[f'largest_{column}']:.0f} px"
    return f"{value:.4f}" if column in ("alpha", "edge") else f"{value:.2f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cutout", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("identities", nargs="+", metavar="IDENTITY")
    parser.add_argument("--home", type=Path, help="folder of the identities")
    parser.add_argument("--renderer", help="its name; the package's default one")
    parser.add_argument("--video", type=Path, help="the footage, if it was moved")
    parser.add_argument("--frames", type=int, help="measure so many frames of a spoken line")
    parser.add_argument("--audio", type=Path, default=SAMPLES / "line.wav", help="that line")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("--sheets", type=Path, help="folder for PNGs of the worst frames")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the results; returns the exit status."""
    options = _parser().parse_args(arguments)
    set_threads()
    try:
        rows = [row for identity in options.identities for row in measure(identity, options)]
    except TalkheadError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        print("\n".join(json.dumps({"benchmark": "cutout", **plain(row)}) for row in rows))
    else:
        for table in tables(rows):
            Console(width=WIDTH).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
