"""The file head.bin: what a web page needs to render a fitted person's head.

A header (magic, version, length, CRC-32, number of sections) and a table of sections (name, type,
offset, number of values) are followed by the sections, all little endian and aligned to 16 bytes.
module/head.h describes their contents, module/read.c checks them; docs/web.md has a table of them.
Deltas, base and shapes are rounded as in packages, and stored in blocks of 16 Gaussians, in the order
in which they are blended.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from talkhead.app.avatar import Avatar
from talkhead.app.composer.frames import Compositor
from talkhead.app.composer.head_view import head_origin
from talkhead.app.composer.idle_clip import IdleClip, idle_frames, ping_pong
from talkhead.app.composer.paste import (
    FEATHER_FRACTION,
    GAIN_MEMORY,
    NECK_FRACTION,
    UPPER_LINE,
    Window,
)
from talkhead.crops import MASK_SHRINK
from talkhead.errors import TalkheadError
from talkhead.face import FACE_OVAL, JAW_LINE
from talkhead.renderers.gaussian.model import N_CHANNELS, GaussianRenderer
from talkhead.storage import write_bytes
from talkhead.types import Float32, UInt8

MAGIC, VERSION = b"TALKHEAD", 1
HEADER, ENTRY = struct.Struct("<8sIIII8x"), struct.Struct("<4sIII")
ALIGNMENT = 16
BLOCK = 16
"""Gaussians whose deltas are stored side by side; their number is a multiple of it."""
TYPES = {name: number for number, name in enumerate(("|u1", "|i1", "<u2", "<i2", "<i4", "<f4"))}
"""Numbers of the types of values, by numpy's names."""
REACH = 0.5
"""How far below the chin of its frame a mouth may be pasted, relative to the face's height."""
SIDE_REACH = 0.1
"""How far beside the jaw of its frame, relative to the face's height."""
Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class Sizes:
    """Sizes, in the order of the file. Lengths are in pixels of what they belong to.

    Attributes:
        n_gaussians: Gaussians, filled up to a multiple of BLOCK with transparent ones.
        n_on_body: Gaussians with deltas of the clothes, filled up with deltas of zero.
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


def write_head(path: Path, avatar: Avatar) -> None:
    """Write the file that the page's module reads.

    Args:
        path: The file.
        avatar: The person, with a renderer of Gaussians.

    Raises:
        TalkheadError: The renderer is of another kind, or the file cannot be written.
    """
    if not isinstance(avatar.renderer, GaussianRenderer):
        raise TalkheadError(
            f"web pages render Gaussian heads, not those of the renderer {avatar.renderer_name}. "
            "Choose the renderer gaussian"
        )
    gains = cheek_gains(avatar.renderer, avatar.idle)
    write_bytes(path, head_bytes(avatar.renderer, avatar.idle, gains))


def head_bytes(renderer: GaussianRenderer, clip: IdleClip, gains: Float32) -> bytes:
    """Encode a head.

    Args:
        renderer: The fitted Gaussians.
        clip: The idle clip.
        gains: Color gains [period, 3] of the frames, there and back, see `cheek_gains`.

    Returns:
        The contents of the file.
    """
    tensors = {name: tensor.cpu() for name, tensor in renderer.tensors().items()}
    pasted = _pasted_area(clip)
    gaussians = _gaussian_sections(renderer, tensors)
    sizes, parts = _clip_parts(clip, pasted)
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
        "CODE": clip.codes,
        "VIEW": clip.viewmats[:, :3],
        "ORIG": clip.origins,
        "GAIN": gains,
        **gaussians,
        **parts,
    }
    return _encode(sections)


def cheek_gains(renderer: GaussianRenderer, clip: IdleClip) -> Float32:
    """Compute the color gains of frames when the clip is played there and back for long.

    Args:
        renderer: The fitted Gaussians.
        clip: The idle clip.

    Returns:
        Gains [period, 3].
    """
    compositor, own = Compositor(renderer, clip), []
    with closing(idle_frames(clip.path, len(clip), 0, len(clip))) as frames:
        for index, frame in enumerate(frames):
            compositor.composer.gain = []  # not smoothed
            compositor(frame, index, clip.codes[index])
            own.append(compositor.composer.gain)
    shown = ping_pong(len(clip), max(1, 2 * len(clip) - 2))
    gains, gain = np.ones((len(shown), 3), np.float32), None
    for number in [*range(len(shown))] * 2:  # the second time, the start has no influence
        ratio = own[shown[number]]
        if ratio:
            match = np.array(ratio, np.float32)
            gain = match if gain is None else GAIN_MEMORY * gain + (1.0 - GAIN_MEMORY) * match
        if gain is not None:
            gains[number] = gain
    return gains


def _encode(sections: Mapping[str, Array]) -> bytes:
    """Encode sections in their order."""
    start = HEADER.size + ENTRY.size * len(sections)
    table, body = b"", b""
    for name, values in sections.items():
        body += bytes(-(start + len(body)) % ALIGNMENT)
        table += ENTRY.pack(name.encode(), TYPES[values.dtype.str], start + len(body), values.size)
        body += np.ascontiguousarray(values).tobytes()
    content = table + body
    return (
        HEADER.pack(MAGIC, VERSION, HEADER.size + len(content), zlib.crc32(content), len(sections))
        + content
    )


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


def _gaussian_sections(
    renderer: GaussianRenderer, tensors: Mapping[str, Tensor]
) -> dict[str, Array]:
    """Return the sections of the Gaussians."""
    n, n_on_body = len(renderer.index), len(renderer.on_body) if renderer.has_clothes else 0
    more, more_on_body = -n % BLOCK, -n_on_body % BLOCK
    base = (tensors["base"] / _base_steps(renderer, tensors)).round().T.numpy()
    base = np.pad(base, ((0, 0), (0, more)))
    base[6, n:] = -32768  # transparent
    shape = (tensors["shape"] / renderer.quantization_steps()["shape"]).round().T.numpy()
    deltas = tensors["deltas"] / _delta_steps(renderer, tensors)[:, None]
    deltas = deltas.round().unflatten(1, (-1, N_CHANNELS))  # [K + 12, N, 7]
    clothes = deltas[renderer.clothes][:, renderer.on_body]
    return {
        "TRIA": tensors["frames.triangles"].numpy().astype("<u2"),
        "INDX": np.pad(tensors["index"].numpy(), (0, more)).astype("<u2"),
        "BODY": np.pad(renderer.on_body.numpy()[:n_on_body], (0, more_on_body)).astype("<u2"),
        "BASE": base.astype("<i2"),
        "SHAP": np.pad(shape.clip(-32768, 32767), ((0, 0), (0, more))).astype("<i2"),
        "DELT": _blocks(deltas[renderer.other_rows].numpy(), more),
        "CDEL": _blocks(clothes.numpy()[:, :n_on_body], more_on_body),
    }


def _blocks(deltas: Float32, more: int) -> npt.NDArray[np.int8]:
    """Arrange deltas [K, n, 7], filled up with `more` zeros, in blocks [7, n / 16, K, 16]."""
    padded = np.pad(deltas, ((0, 0), (0, more), (0, 0))).astype(np.int8)
    blocks = padded.reshape(len(deltas), padded.shape[1] // BLOCK, BLOCK, N_CHANNELS)
    return np.ascontiguousarray(blocks.transpose(3, 1, 0, 2))


def _pasted_area(clip: IdleClip) -> Window:
    """Return the part of the crops in which mouths may be pasted."""
    boxes = []
    for frame in range(len(clip)):
        (points,) = clip.landmarks(frame, clip.codes[frame : frame + 1])
        oval, outline = points[list(FACE_OVAL)], points[list(JAW_LINE + UPPER_LINE)]
        height = float(np.ptp(oval[:, 1]))
        side = SIDE_REACH * height + 8.0
        below = (REACH + NECK_FRACTION + 4.0 * FEATHER_FRACTION) * height + 8.0
        (left, top), (right, bottom) = outline.min(0), outline.max(0)
        boxes.append((top - side, bottom + below, left - side, right + side))
    boxes_array = np.array(boxes)
    (top, left), (bottom, right) = boxes_array[:, ::2].min(0), boxes_array[:, 1::2].max(0)
    rows = np.clip([top, bottom], [0, 1], [clip.crop_height - 1, clip.crop_height]).astype(int)
    columns = np.clip([left, right], [0, 1], [clip.crop_width - 1, clip.crop_width]).astype(int)
    return Window(int(rows[0]), int(rows[1]), int(columns[0]), int(columns[1]))


def _clip_parts(clip: IdleClip, area: Window) -> tuple[dict[str, int], dict[str, Array]]:
    """Return sizes and sections of the parts of masks and background in an area of the crops."""
    height, width = clip.background.shape[:2]
    small_height, small_width = clip.masks.shape[1:]
    rows = _range(area.top / MASK_SHRINK - 2, area.bottom / MASK_SHRINK + 2, small_height)
    columns = _range(area.left / MASK_SHRINK - 2, area.right / MASK_SHRINK + 2, small_width)
    masks = _saturated(clip.masks)[:, rows, columns]
    first, last = clip.origins.min(0), clip.origins.max(0)
    plate_rows = _range(
        first[1] + area.top / clip.scale, last[1] + area.bottom / clip.scale, height
    )
    plate_columns = _range(
        first[0] + area.left / clip.scale, last[0] + area.right / clip.scale, width
    )
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
    """Set masks [F, h, w] to 255 where they are at least half, as are all their neighbors.

    There, twice their interpolated value is at least 1, which is all that pasting uses.
    """
    return np.stack([_saturated_mask(mask) for mask in masks])


def _saturated_mask(mask: UInt8) -> UInt8:
    """Return a saturated mask [h, w]."""
    least = np.asarray(cv2.erode(mask, np.ones((3, 3), np.uint8)))
    return np.where(least >= 128, np.uint8(255), mask)
