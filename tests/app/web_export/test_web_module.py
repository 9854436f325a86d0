"""The module that draws heads in web pages: compared with the Python renderer and compositor."""

from __future__ import annotations

import re
import zlib
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from web_module import DAMAGED, FINE, OTHER_VERSION, TOO_LARGE, WASM, WebModule

from talkhead import face
from talkhead.app.avatar import Avatar, load_identity
from talkhead.app.composer import idle_clip, paste
from talkhead.app.composer.frames import Compositor, Face, HeadCompositor, with_face
from talkhead.app.composer.head_view import head_camera
from talkhead.app.composer.idle_clip import IdleClip, idle_frames, ping_pong
from talkhead.app.fit import FitResult
from talkhead.app.web_export.build_modules import CHECKSUMS, MODULES, PAGE, build_module
from talkhead.app.web_export.head_file import (
    Sizes,
    _gaussian_sections,
    cheek_gains,
    head_bytes,
)
from talkhead.app.web_export.sections import ALIGNMENT, ENTRY, HEADER
from talkhead.progress import SilentProgress
from talkhead.renderers import code_projection, pose_features, sharpening
from talkhead.renderers.gaussian.model import GaussianRenderer
from talkhead.renderers.gaussian.rasterizer import constants as rasterizer
from talkhead.storage import sha256_of
from talkhead.types import Float32, UInt8

MIN_RENDERING_DB, MIN_FRAME_DB = 90.0, 60.0
SHOWN = (0, 40, 100, 171)


@pytest.fixture(scope="module")
def avatar(fitted: FitResult, home: Path) -> Avatar:
    return load_identity(fitted.name, home=home, device="cpu")


@pytest.fixture(scope="module")
def renderer(avatar: Avatar) -> GaussianRenderer:
    assert isinstance(avatar.renderer, GaussianRenderer)
    return avatar.renderer


@pytest.fixture(scope="module")
def gains(renderer: GaussianRenderer, avatar: Avatar) -> Float32:
    return cheek_gains(renderer, avatar.idle, SilentProgress())


@pytest.fixture(scope="module")
def file(renderer: GaussianRenderer, avatar: Avatar, gains: Float32) -> bytes:
    return head_bytes(renderer, avatar.idle, gains)


@pytest.fixture(scope="module")
def module(file: bytes) -> WebModule:
    opened = WebModule()
    assert opened.open(file) == FINE
    return opened


def mouths(clip: IdleClip) -> list[Float32]:
    """Mouth codes of the clip and beyond: rest, two frames, wide open, far from all training codes."""
    n = clip.face.n_mouth
    codes = [clip.face.silence, clip.codes[7], clip.codes[60], 2.0 * clip.codes[30]]
    return [np.asarray(code[:n], np.float32) for code in [*codes, 40.0 * np.ones_like(codes[0])]]


def decibels(first: Any, second: Any) -> float:
    """PSNR of two images in [0, 1]."""
    error = np.mean((np.asarray(first, np.float64) - np.asarray(second, np.float64)) ** 2)
    return float(-10.0 * np.log10(max(error, 1e-30)))


def rendered(
    renderer: GaussianRenderer, code: Float32, view: Float32, ks: Float32, size: Any
) -> Float32:
    """Render RGB and opacity [H, W, 4] in Python."""
    with torch.no_grad():
        image = renderer.render(
            torch.from_numpy(code[None]), torch.from_numpy(view[None]), torch.from_numpy(ks), *size
        )
    return np.concatenate([image.rgb[0].numpy(), image.alpha[0].numpy()], axis=2)


def pasted(frame: UInt8, patch: tuple[int, int, UInt8]) -> UInt8:
    """Draw a patch over a frame as a canvas does."""
    left, top, pixels = patch
    result = frame.astype(np.float64)
    part = result[top : top + pixels.shape[0], left : left + pixels.shape[1]]
    part += pixels[..., 3:] / 255.0 * (pixels[..., :3] - part)
    return np.rint(result).astype(np.uint8)


def composited(compositor: Compositor, frame: UInt8, face: Face, gain: Float32) -> UInt8:
    """Paste a face in Python with a fixed color gain, as if it were not matched."""
    compositor.composer.gain = gain.tolist()
    clip, patch = compositor._clip, face.mouth
    return compositor.composer.paste(
        frame,
        clip.origins[face.track_index],
        patch.window,
        np.concatenate([patch.rgb, patch.alpha], axis=2),
        patch.mask,
        clip.mask(face.track_index)[patch.window.slices],
        is_matched=False,
    )


# ------------------------------------------------------------------------- the pictures


def test_the_whole_head_is_the_rendering_of_python(
    module: WebModule, renderer: GaussianRenderer, avatar: Avatar
) -> None:
    clip = avatar.idle
    for shown, mouth in zip(SHOWN * 2, mouths(clip), strict=False):
        index = int(ping_pong(len(clip), 1, shown)[0])
        pixels = module.head(shown, mouth)
        code = with_face(clip.codes[index], mouth, clip.face, moves_eyes=False)
        size = (clip.crop_height, clip.crop_width)
        expected = rendered(renderer, code, clip.viewmats[index], head_camera(clip), size)
        assert decibels(module.rendering(), expected) > MIN_RENDERING_DB
        assert pixels.shape == (*size, 4)
        over_white = pixels[..., :3] * (pixels[..., 3:] / 255.0) + 255.0 - pixels[..., 3:]
        white = HeadCompositor(renderer, clip)(np.full((*size, 3), 255, np.uint8), index, code)
        assert np.abs(over_white - white).max() < 2.0


def test_frames_with_patches_are_those_of_the_compositor(
    module: WebModule, renderer: GaussianRenderer, avatar: Avatar, gains: Float32
) -> None:
    clip = avatar.idle
    check_frames(module, renderer, clip, gains)


def test_patches_of_crops_of_another_scale_are_resampled(
    renderer: GaussianRenderer, avatar: Avatar, gains: Float32
) -> None:
    clip, module = avatar.idle, WebModule()
    scale = 0.75
    size = round(clip.crop_width * scale), round(clip.crop_height * scale)
    small = (size[0] // 4, size[1] // 4)
    reduced = replace(
        clip,
        scale=scale,
        crop_width=size[0],
        crop_height=size[1],
        masks=np.stack(
            [cv2.resize(mask, small, interpolation=cv2.INTER_AREA) for mask in clip.masks]
        ),
    )
    assert module.open(head_bytes(renderer, reduced, gains)) == FINE
    check_frames(module, renderer, reduced, gains)


def check_frames(
    module: WebModule, renderer: GaussianRenderer, clip: IdleClip, gains: Float32
) -> None:
    """Compare frames with patches with those of the compositor."""
    compositor = Compositor(renderer, clip)
    frames = list(idle_frames(clip.path, len(clip), 0, len(clip)))
    for shown, mouth in zip(SHOWN * 2, mouths(clip), strict=False):
        index = int(ping_pong(len(clip), 1, shown)[0])
        code = with_face(clip.codes[index], mouth, clip.face, moves_eyes=False)
        expected = composited(
            compositor, frames[index], compositor.render(index, code), gains[shown]
        )
        left, top, pixels = module.patch(shown, mouth)
        assert 0 <= left <= clip.background.shape[1] - pixels.shape[1]
        assert 0 <= top <= clip.background.shape[0] - pixels.shape[0]
        result = pasted(frames[index], (left, top, pixels))
        changed = np.abs(expected.astype(int) - frames[index]).max()
        assert changed > 5, "the compositor must have changed the frame"
        assert decibels(result / 255.0, expected / 255.0) > MIN_FRAME_DB


def test_frames_repeat_after_the_way_there_and_back(module: WebModule, avatar: Avatar) -> None:
    period, mouth = 2 * len(avatar.idle) - 2, mouths(avatar.idle)[1]
    assert module.facts()[2] == period
    first = module.patch(3, mouth)
    again = module.patch(3 + period, mouth)
    assert first[:2] == again[:2] and np.array_equal(first[2], again[2])


def test_mouths_that_are_no_numbers_draw_something(module: WebModule, avatar: Avatar) -> None:
    for value in (np.nan, np.inf, -np.inf, 1e30):
        _, _, pixels = module.patch(0, np.full(avatar.idle.face.n_mouth, value, np.float32))
        assert pixels.size < 4 * avatar.idle.background.size


def test_gains_are_those_of_the_compositor_after_long(
    renderer: GaussianRenderer, avatar: Avatar, gains: Float32
) -> None:
    clip, compositor = avatar.idle, Compositor(renderer, avatar.idle)
    compositor.composer.gain = gains[-1].tolist()
    for index, frame in enumerate(idle_frames(clip.path, len(clip), 0, 5)):
        compositor(frame, index, clip.codes[index])
        assert compositor.composer.gain == pytest.approx(gains[index].tolist(), abs=0.5 / 255)


def test_memory_is_bounded_and_drawing_takes_none(
    module: WebModule, file: bytes, avatar: Avatar
) -> None:
    before = module.memory_bytes
    assert before < 2 * len(file) + (16 << 20)
    for mouth in mouths(avatar.idle):
        module.patch(0, mouth)
        module.head(0, mouth)
    assert module.memory_bytes == before
    assert module.open(file) == FINE
    assert module.memory_bytes == before, "a second head takes the place of the first"


# ------------------------------------------------------------------------ damaged files


def with_checksum(file: bytes) -> bytes:
    """Correct the checksum of a changed file, so that it is read."""
    magic, version, _, _, n_sections = HEADER.unpack(file[: HEADER.size])
    content = file[HEADER.size :]
    return HEADER.pack(magic, version, len(file), zlib.crc32(content), n_sections) + content


def test_truncated_files_are_refused(file: bytes) -> None:
    module = WebModule()
    for length in (0, 1, 8, 31, 32, 100, 1000, len(file) // 2, len(file) - 1):
        assert module.open(file[:length]) == DAMAGED
        if length >= HEADER.size:
            assert module.open(with_checksum(file[:length])) == DAMAGED
    assert module.open(file) == FINE, "a module can be used after errors"


def test_every_changed_byte_is_noticed(file: bytes) -> None:
    module, rng = WebModule(), np.random.default_rng(0)
    for place in rng.integers(0, len(file), 20):
        changed = bytearray(file)
        changed[place] ^= 1 << int(rng.integers(8))
        assert module.open(bytes(changed)) in (DAMAGED, OTHER_VERSION)


def test_another_version_is_named(file: bytes) -> None:
    changed = bytearray(file)
    changed[8] += 1
    assert WebModule().open(bytes(changed)) == OTHER_VERSION


def test_damaged_files_with_valid_checksums_never_trap(file: bytes, avatar: Avatar) -> None:
    module, rng, mouth = WebModule(), np.random.default_rng(1), mouths(avatar.idle)[0]
    results = []
    beginning = HEADER.size + 800  # the table, sizes and the first numbers
    for number in range(300):
        changed = bytearray(file)
        end = beginning if number % 2 == 0 else len(file)
        for place in rng.integers(HEADER.size, end, int(rng.integers(1, 4))):
            changed[place] = int(rng.integers(256))
        results.append(module.open(with_checksum(bytes(changed))))
        if results[-1] == FINE:
            module.patch(int(rng.integers(1000)), mouth)
            module.head(int(rng.integers(1000)), mouth)
    assert {FINE, DAMAGED} <= set(results)


def test_numbers_that_are_none_are_refused(file: bytes) -> None:
    module, table = WebModule(), file[HEADER.size : HEADER.size + 30 * 16]
    for name in (b"UNIT", b"TEMP", b"VIEW", b"GAIN", b"SEEN", b"RINV"):
        entry = table.index(name)
        offset = int.from_bytes(table[entry + 8 : entry + 12], "little")
        changed = bytearray(file)
        changed[offset : offset + 4] = np.float32(np.nan).tobytes()
        assert module.open(with_checksum(bytes(changed))) == DAMAGED


def test_overlapping_sections_are_refused(file: bytes) -> None:
    """Masks and background are changed in place, so that they must be no other section."""
    module = WebModule()
    for number in range(HEADER.unpack(file[: HEADER.size])[4]):
        changed, place = bytearray(file), HEADER.size + number * ENTRY.size + 8
        offset = int.from_bytes(file[place : place + 4], "little") - ALIGNMENT
        changed[place : place + 4] = offset.to_bytes(4, "little")
        assert module.open(with_checksum(bytes(changed))) == DAMAGED


def test_a_head_that_needs_too_much_memory_is_refused(file: bytes) -> None:
    module, changed = WebModule(), bytearray(file)
    offset = int.from_bytes(file[HEADER.size + 8 : HEADER.size + 12], "little")
    sizes = np.frombuffer(changed, "<i4", len(fields(Sizes)), offset)
    names = [field.name for field in fields(Sizes)]
    for name, most in (("crop_width", 4096), ("crop_height", 4096)):
        sizes[names.index(name)] = most
    assert module.open(with_checksum(bytes(changed))) == TOO_LARGE
    assert module.open(file) == FINE


def test_indices_may_exceed_16_bits() -> None:
    n, steps = 70_000, {"base": torch.ones(1), "shape": torch.ones(1), "deltas": torch.ones(2, 1)}
    on_body = torch.tensor([3, 65_536, n - 1])
    renderer: Any = SimpleNamespace(
        has_clothes=True,
        on_body=on_body,
        clothes=slice(1, 2),
        other_rows=torch.tensor([0]),
        quantization_steps=lambda: steps,
    )
    tensors = {
        "base": torch.zeros(n, 7),
        "shape": torch.zeros(n, 6),
        "deltas": torch.zeros(2, n * 7),
        "index": torch.zeros(n, dtype=torch.int64),
        "frames.triangles": torch.zeros(1, 3, dtype=torch.int64),
    }
    assert _gaussian_sections(renderer, tensors)["BODY"].tolist() == on_body.tolist()


# ------------------------------------------------------------------------ the C sources


def c_constants() -> dict[str, str]:
    text = (MODULES[WASM.name] / "constants.h").read_text("utf-8").replace("\\\n", " ")
    return dict(re.findall(r"^#define (\w+) +(.+?)$", text, re.MULTILINE))


def test_constants_are_those_of_python() -> None:
    places = (rasterizer, sharpening, code_projection, pose_features, face, paste, idle_clip)
    names = c_constants()
    checked = 0
    for name, value in names.items():
        found = [getattr(place, name) for place in places if hasattr(place, name)]
        if not found:
            assert name in ("N_JAW_LINE", "N_UPPER_LINE", "N_OUTLINE", "TALKHEAD_CONSTANTS_H")
            continue
        numbers = [
            float(np.prod([1 / float(x) if i else float(x) for i, x in enumerate(part.split("/"))]))
            for part in value.strip("()").replace("f", "").split(",")
        ]
        assert numbers == pytest.approx(np.ravel(found[0]).tolist()), name
        checked += 1
    assert checked >= 25
    assert int(names["N_JAW_LINE"]) == len(face.JAW_LINE)
    assert int(names["N_UPPER_LINE"]) == len(paste.UPPER_LINE)


def test_sizes_are_those_of_the_header() -> None:
    text = (MODULES[WASM.name] / "head.h").read_text("utf-8")
    struct = text[text.index("typedef struct") : text.index("} Sizes;")]
    names = re.findall(r"\b(\w+)[,;]", re.sub(r"//.*", "", struct))
    assert names == [field.name for field in fields(Sizes)]


def test_the_checksums_are_those_of_the_modules() -> None:
    stated = dict(line.split()[::-1] for line in CHECKSUMS.read_text("utf-8").splitlines())
    assert stated == {name: sha256_of(PAGE / name) for name in MODULES}, "run make web-module"


@pytest.mark.parametrize("name", MODULES)
def test_the_modules_are_those_of_their_sources(name: str, tmp_path: Path) -> None:
    pytest.importorskip("ziglang")
    build_module(name, tmp_path)
    assert (tmp_path / name).read_bytes() == (PAGE / name).read_bytes(), "run make web-module"
