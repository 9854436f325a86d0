"""The file head.bin: what a web page needs to render a fitted person's head.

It consists of sections (`talkhead.app.web_export.sections`), compressed with gzip, because web servers do
not compress files of unknown types. docs/web_head.md describes them, module/head/read.c checks them.
Deltas, base and shapes are rounded as in packages.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from talkhead.app.avatar import Avatar
from talkhead.app.composer.frames import Compositor
from talkhead.app.composer.head_view import head_origin
from talkhead.app.composer.idle_clip import IdleClip, idle_frames, period, ping_pong
from talkhead.app.composer.paste import GAIN_MEMORY, UPPER_LINE
from talkhead.app.web_export.sections import Array, encode_sections
from talkhead.device import kernel_concurrency, map_concurrently
from talkhead.errors import TalkheadError
from talkhead.face import CHIN, FOREHEAD, JAW_LINE
from talkhead.progress import Progress
from talkhead.renderers.gaussian.model import N_CHANNELS, GaussianRenderer
from talkhead.storage import write_bytes
from talkhead.types import Float32, UInt8

MAGIC, VERSION = b"TALKHEAD", 1
JAW_REACH, SIDE_REACH = 0.3, 0.05
"""How far below and beside the jaw of its frame a mouth may be pasted, relative to the face's height."""
MARGIN_PX = 12
"""Added to both, for the border of the mask and the interpolation of the person mask."""
GAIN_STEP = 3
"""From one frame whose cheeks are compared to the next one. In between, the match is interpolated. Gains,
which are averages of many frames, differ by less than rounding to 8 bits does."""
MASK_STEP = 4
"""Step of person masks, of 255; with smaller ones, noise takes most of their space."""


@dataclass(frozen=True)
class Sizes:
    """Sizes, in the order of the file. Lengths are in pixels of what they belong to.

    Attributes:
        n_gaussians: Gaussians.
        n_on_body: Gaussians with deltas of the clothes.
        n_codes: Components of a motion code.
        n_mouth: Components of the mouth.
        n_moving: Components that move vertices, the first ones.
        n_clothes: Components of the clothes.
        n_triangles: Frames that are triangles.
        n_seen: Training codes of the CodeProjector.
        n_seen_codes: Components of each.
        n_idle: Frames of the idle clip.
        crop_width: Width of the crops.
        crop_height: Height of the crops.
        width: Width of the video.
        height: Height of the video.
        plate_left: First column of the stored part of the background.
        plate_top: First row of it.
        plate_width: Its width.
        plate_height: Its height.
        mask_left: First column of the stored part of the small person masks.
        mask_top: First row of it.
        mask_width: Its width.
        mask_height: Its height.
        small_width: Width of whole small masks.
        small_height: Height of whole small masks.
    """

    n_gaussians: int
    n_on_body: int
    n_codes: int
    n_mouth: int
    n_moving: int
    n_clothes: int
    n_triangles: int
    n_seen: int
    n_seen_codes: int
    n_idle: int
    crop_width: int
    crop_height: int
    width: int
    height: int
    plate_left: int
    plate_top: int
    plate_width: int
    plate_height: int
    mask_left: int
    mask_top: int
    mask_width: int
    mask_height: int
    small_width: int
    small_height: int


def write_head(path: Path, avatar: Avatar, progress: Progress) -> None:
    """Write the file that the page's module reads.

    Args:
        path: The file.
        avatar: The person, with a renderer of Gaussians.
        progress: Receives the progress.

    Raises:
        TalkheadError: The renderer is of another kind, or the file cannot be written.
    """
    if not isinstance(avatar.renderer, GaussianRenderer):
        raise TalkheadError(
            f"web pages render Gaussian heads, not those of the renderer {avatar.renderer_name}. "
            "Choose the renderer gaussian"
        )
    gains = cheek_gains(avatar.renderer, avatar.idle, progress)
    write_bytes(path, gzip.compress(head_bytes(avatar.renderer, avatar.idle, gains), mtime=0))


def head_bytes(renderer: GaussianRenderer, clip: IdleClip, gains: Float32) -> bytes:
    """Encode a head.

    Args:
        renderer: The fitted Gaussians.
        clip: The idle clip.
        gains: Color gains [period, 3] of the frames, there and back, see `cheek_gains`.

    Returns:
        The contents of the file, not compressed.
    """
    tensors = {name: tensor.cpu() for name, tensor in renderer.tensors().items()}
    gaussians = _gaussian_sections(renderer, tensors)
    sizes, parts = _clip_parts(clip)
    origin = head_origin(clip)
    near, far = tensors["seen_reach"].tolist()
    numbers = [
        clip.scale,
        clip.intrinsics[0, 0],
        float(tensors["detail"]),
        near,
        far,
        *origin.tolist(),
        float(renderer.quantization_steps()["shape"]),
    ]
    all_sizes = Sizes(
        n_gaussians=gaussians["INDX"].size,
        n_on_body=gaussians["BODY"].size,
        n_codes=renderer.n_codes,
        n_mouth=clip.face.n_mouth,
        n_moving=renderer.clothes.start,
        n_clothes=renderer.clothes.stop - renderer.clothes.start,
        n_triangles=len(renderer.frames.triangles),
        n_seen=len(tensors["seen_codes"]),
        n_seen_codes=tensors["seen_codes"].shape[1],
        n_idle=len(clip),
        **sizes,
    )
    sections = {
        "SIZE": np.array(astuple(all_sizes), "<i4"),
        "NUMB": np.array(numbers, "<f4"),
        **_frame_sections(renderer, tensors),
        **_code_sections(clip.codes),
        "VIEW": clip.viewmats[:, :3],
        "ORIG": clip.origins,
        "GAIN": gains,
        **gaussians,
        **parts,
    }
    return encode_sections(MAGIC, VERSION, list(sections.items()))


def cheek_gains(renderer: GaussianRenderer, clip: IdleClip, progress: Progress) -> Float32:
    """Compute the color gains of frames when the clip is played there and back for long.

    Args:
        renderer: The fitted Gaussians.
        clip: The idle clip.
        progress: Receives the progress: frames of the clip are rendered.

    Returns:
        Gains [period, 3].
    """
    compositor, matched = Compositor(renderer, clip), range(0, len(clip), GAIN_STEP)
    faces = map_concurrently(
        lambda index: compositor.render(index, clip.codes[index]),
        matched,
        kernel_concurrency(compositor.device),
    )
    known, ratios = [], []
    with (
        progress.step("Writing the head", total=len(matched)) as step,
        closing(faces),
        closing(idle_frames(clip.path, len(clip), 0, matched[-1] + 1)) as frames,
    ):
        for frame, face in zip(islice(frames, 0, None, GAIN_STEP), faces, strict=True):
            compositor.composer.gain = []  # not smoothed
            compositor.paste(frame, face)
            if compositor.composer.gain:
                known.append(face.track_index)
                ratios.append(compositor.composer.gain)
            step.advance()
    if not known:  # no cheeks are visible
        return np.ones((period(len(clip)), 3), np.float32)
    own = np.column_stack(
        [np.interp(np.arange(len(clip)), known, ratio) for ratio in np.transpose(ratios)]
    )
    shown = ping_pong(len(clip), period(len(clip)))
    gains, gain = np.empty((len(shown), 3), np.float32), own[0]
    for number in [*range(len(shown))] * 2:  # the second time, the start has no influence
        gain = GAIN_MEMORY * gain + (1.0 - GAIN_MEMORY) * own[shown[number]]
        gains[number] = gain
    return gains


def _frame_sections(renderer: GaussianRenderer, tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    """Return the sections of the code and of the moving frames."""
    moving = renderer.clothes.start
    rows = [*renderer.other_rows.tolist(), *range(renderer.clothes.start, renderer.clothes.stop)]
    numbers = {
        "UNIT": renderer.units,
        "BSTP": _base_steps(renderer, tensors),
        "DSTP": _delta_steps(renderer, tensors)[rows],
        "PMEA": tensors["pose_mean"],
        "PSCA": tensors["pose_scale"],
        "RVIE": tensors["frames.rest_view"][:3],
        "TEMP": tensors["frames.template"],
        "BASI": tensors["frames.basis"][:moving],
        "JAW_": tensors["frames.jaw"][:moving],
        "RINV": tensors["frames.rest_inverse"],
        "SEEN": tensors["seen_codes"],
    }
    return {name: tensor.numpy() for name, tensor in numbers.items()}


def _steps(values: Tensor, steps: Tensor, most: int) -> Tensor:
    """Return steps [n], or larger ones where values [n, ...] would exceed `most` steps."""
    return torch.maximum(steps, values.abs().flatten(1).amax(1) / most)


def _delta_steps(renderer: GaussianRenderer, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the step of each component's deltas, [K + 12]."""
    return _steps(tensors["deltas"], renderer.quantization_steps()["deltas"][:, 0].cpu(), 127)


def _base_steps(renderer: GaussianRenderer, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the step of each channel's base, [7]."""
    step = renderer.quantization_steps()["base"].expand(N_CHANNELS)
    return _steps(tensors["base"].T, step, 32767)


def _code_sections(codes: Float32) -> dict[str, Array]:
    """Return the sections of motion codes [F, K], rounded to 16 bits."""
    steps = np.maximum(np.abs(codes).max(0) / 32767, 1e-12).astype(np.float32)
    return {"CSTP": steps, "CODE": np.rint(codes / steps).astype("<i2")}


def _gaussian_sections(
    renderer: GaussianRenderer, tensors: Mapping[str, Tensor]
) -> dict[str, Array]:
    """Return the sections of the Gaussians."""
    on_body = renderer.on_body if renderer.has_clothes else renderer.on_body[:0]
    base = tensors["base"] / _base_steps(renderer, tensors)
    shape = tensors["shape"] / renderer.quantization_steps()["shape"]
    deltas = tensors["deltas"] / _delta_steps(renderer, tensors)[:, None]
    deltas = deltas.round().to(torch.int8).unflatten(1, (-1, N_CHANNELS))  # [K + 12, N, 7]
    return {
        "TRIA": tensors["frames.triangles"].numpy().astype("<i4"),
        "INDX": tensors["index"].numpy().astype("<i4"),
        "BODY": on_body.numpy().astype("<i4"),
        "BASE": base.round().T.numpy().astype("<i2"),
        "SHAP": shape.round().clamp(-32768, 32767).T.numpy().astype("<i2"),
        "DELT": deltas[renderer.other_rows].numpy(),
        "CDEL": deltas[renderer.clothes][:, on_body].numpy(),
    }


def _pasted_area(points: Float32) -> Float32:
    """Return the convex outline [n, 2] of the area in which mouths may be pasted into a crop.

    points: crop landmarks [478, 2] of the frame.
    """
    height = float(np.linalg.norm(points[FOREHEAD] - points[CHIN]))
    margin = SIDE_REACH * height + MARGIN_PX
    outline = points[list(JAW_LINE + UPPER_LINE)]
    reach = np.array([[-margin, -margin], [margin, -margin], [-margin, margin], [margin, margin]])
    reach[2:, 1] += JAW_REACH * height
    around = outline[:, None] + reach.astype(np.float32)
    return np.asarray(cv2.convexHull(around.reshape(-1, 2))[:, 0])


def _clip_parts(clip: IdleClip) -> tuple[dict[str, int], dict[str, Array]]:
    """Return sizes and sections of masks and background, where mouths may be pasted."""
    height, width = clip.background.shape[:2]
    small_height, small_width = clip.masks.shape[1:]
    areas = [
        _pasted_area(clip.landmarks(frame, clip.codes[frame : frame + 1])[0])
        for frame in range(len(clip))
    ]
    small = [
        area * (small_width / clip.crop_width, small_height / clip.crop_height) for area in areas
    ]
    source = [area / clip.scale + origin for area, origin in zip(areas, clip.origins, strict=True)]
    rows, columns = _bounds(small, (small_height, small_width))
    plate_rows, plate_columns = _bounds(source, (height, width))
    masks = _steady(_saturated(clip.masks), small)[:, rows, columns]
    plate = clip.background[plate_rows, plate_columns]
    sizes = {
        "crop_width": clip.crop_width,
        "crop_height": clip.crop_height,
        "width": width,
        "height": height,
        **_rectangle("plate", plate_rows, plate_columns),
        **_rectangle("mask", rows, columns),
        "small_width": small_width,
        "small_height": small_height,
    }
    return sizes, {"MASK": _differences(masks, 0), "PLAT": _differences(plate, 1)}


def _bounds(areas: Sequence[Array], size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of an image that outlines [n, 2] reach, at least one of each."""
    (left, top), (right, bottom) = (
        edge(np.concatenate(areas), axis=0) for edge in (np.min, np.max)
    )
    return _range(top, bottom, size[0]), _range(left, right, size[1])


def _steady(masks: UInt8, areas: Sequence[Array]) -> UInt8:
    """Repeat the values of the frame before where no mouth is pasted: these compress to nothing.

    masks: [F, h, w]; areas: outlines [n, 2] in their pixels.
    """
    steady, previous = [], masks[0]
    for mask, area in zip(masks, areas, strict=True):
        is_used = cv2.fillConvexPoly(np.zeros_like(mask), np.rint(area).astype(np.int32), 1)
        previous = np.where(is_used > 0, mask, previous)
        steady.append(previous)
    return np.stack(steady)


def _range(low: float, high: float, n: int) -> slice:
    """Return the range of whole numbers around [low, high] within n, at least one."""
    start = int(np.clip(np.floor(low), 0, n - 1))
    return slice(start, int(np.clip(np.ceil(high) + 1, start + 1, n)))


def _rectangle(name: str, rows: slice, columns: slice) -> dict[str, int]:
    """Return the sizes of a stored part."""
    return {
        f"{name}_left": columns.start,
        f"{name}_top": rows.start,
        f"{name}_width": columns.stop - columns.start,
        f"{name}_height": rows.stop - rows.start,
    }


def _differences(values: UInt8, axis: int) -> UInt8:
    """Return values minus their predecessors along an axis, modulo 256."""
    return np.diff(values, axis=axis, prepend=np.zeros_like(values.take([0], axis)))


def _saturated(masks: UInt8) -> UInt8:
    """Set masks [F, h, w] to 255 where they are at least half, as are all their neighbors, and round them
    elsewhere.

    There, twice their interpolated value is at least 1, which is all that pasting uses.
    """
    return np.stack([_saturated_mask(mask) for mask in masks])


def _saturated_mask(mask: UInt8) -> UInt8:
    """Return a saturated mask [h, w]."""
    least = np.asarray(cv2.erode(mask, np.ones((3, 3), np.uint8)))
    rounded = np.rint(mask / MASK_STEP).astype(np.uint8) * np.uint8(MASK_STEP)
    return np.where(least >= 128, np.uint8(255), np.minimum(rounded, np.uint8(252)))
