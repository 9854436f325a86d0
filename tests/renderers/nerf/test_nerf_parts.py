"""The parts of the NeRF head against direct, slow evaluations of their definitions."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from synthetic_head import with_clothes
from torch import Tensor

from talkhead import device
from talkhead.cameras import project
from talkhead.dataset import IdentityDataset
from talkhead.face import CHIN, FACE_OVAL, N_SURFACE
from talkhead.renderers.nerf import hash_grid as hashgrid
from talkhead.renderers.nerf.config import HashConfig, NerfConfig
from talkhead.renderers.nerf.field import plane_specs
from talkhead.renderers.nerf.hash_grid import HashGrid, encode, n_parameters
from talkhead.renderers.nerf.mesh_raster import AT_BORDER, FACE, MOUTH
from talkhead.renderers.nerf.model import NerfRenderer, draw_patches
from talkhead.renderers.nerf.planes import PlaneSpec, sample_planes, sample_planes_torch
from talkhead.renderers.nerf.ray_marching import CELL, Occupancy, composite, march
from talkhead.renderers.nerf.rays import HeadSpace, Pieces, Rays
from talkhead.renderers.nerf.visual_hull import visual_hull

SIZE = (128, 96)
SPECS = (
    PlaneSpec("a", (0, 1), (-1.0, -1.0), (1.0, 1.0), 6, 9, 3, (0, 2)),
    PlaneSpec("b", (2, 0), (-0.5, -0.4), (0.3, 0.8), 4, 5, 2, None),
)


def random_planes(n_images: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(n_images if s.code_range else 1, *s.shape, generator=generator).requires_grad_()
        for s in SPECS
    ]


def random_points(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return (
        2.4 * torch.rand(n, 3, generator=generator) - 1.2,
        torch.randint(0, 2, (n,), generator=generator),
    )


# ------------------------------------------------------------------------------- planes


def bilinear(plane: Any, spec: PlaneSpec, point: Any) -> Any:
    """One value of one plane in float64, computed by definition."""
    u, v = (
        (float(point[a]) - low) / (high - low) * (n - 1)
        for a, low, high, n in zip(
            spec.axes, spec.low, spec.high, (spec.width, spec.height), strict=True
        )
    )
    if not (0 <= u <= spec.width - 1 and 0 <= v <= spec.height - 1):
        return np.zeros(spec.n_channels)
    total = np.zeros(spec.n_channels)
    for y in range(spec.height):
        for x in range(spec.width):
            total += max(0.0, 1 - abs(u - x)) * max(0.0, 1 - abs(v - y)) * plane[y, x]
    return total


def test_planes_are_bilinear() -> None:
    planes, (points, image) = random_planes(2), random_points(40)
    values = sample_planes(points, image, planes, SPECS).detach().numpy()
    for i, (point, b) in enumerate(zip(points, image, strict=True)):
        arrays = [p[b if len(p) > 1 else 0].detach().double().numpy() for p in planes]
        true = np.concatenate([bilinear(a, s, point) for a, s in zip(arrays, SPECS, strict=True)])
        assert np.allclose(values[i], true, atol=1e-5)


def test_planes_equal_reference_in_value_and_gradient() -> None:
    planes, (points, image) = random_planes(2), random_points(500)
    weight = torch.randn(500, 5, generator=torch.Generator().manual_seed(3))
    results = []
    for sample in (sample_planes, sample_planes_torch):
        values = sample(points, image, planes, SPECS)
        gradients = torch.autograd.grad((values * weight).sum(), planes)
        results.append((values.detach(), *gradients))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_gradients_of_planes_are_the_same_bits_on_any_number_of_threads() -> None:
    import numba

    planes, (points, image) = random_planes(2), random_points(3000)
    found = []
    before = numba.get_num_threads()
    for n_threads in (1, before):
        numba.set_num_threads(n_threads)
        values = sample_planes(points, image, planes, SPECS)
        found.append(torch.autograd.grad(values.square().sum(), planes))
    numba.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# ------------------------------------------------------------------------- hash encoding


def direct_hash(place: Any, table: Any, config: HashConfig) -> list[float]:
    """Mueller et al. 2022, section 3, with tiny-cuda-nn's layout, in plain Python."""
    values, first = [], 0
    for level in range(config.n_levels):
        scale = config.base_resolution * config.growth**level - 1.0
        side = math.ceil(scale) + 1
        n_entries = min((side**3 + 7) // 8 * 8, 2**config.log2_table)
        total = np.zeros(config.n_features)
        low = [math.floor(p * scale + 0.5) for p in place]
        for dx in (0, 1):
            for dy in (0, 1):
                for dz in (0, 1):
                    node = (low[0] + dx, low[1] + dy, low[2] + dz)
                    weight = 1.0
                    for p, n in zip(place, node, strict=True):
                        weight *= 1.0 - abs(p * scale + 0.5 - n)
                    if side**3 <= n_entries:
                        entry = node[0] + node[1] * side + node[2] * side**2
                    else:
                        entry = node[0] ^ (node[1] * 2654435761) ^ (node[2] * 805459861)
                        entry &= 0xFFFFFFFF
                    total += weight * table[first + entry % n_entries]
        values.extend(total)
        first += n_entries
    return values


HASH = HashConfig(n_levels=6, log2_table=9, base_resolution=4, growth=1.6)


def test_the_torch_encoding_matches_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(n_parameters(HASH), generator=generator, dtype=torch.float64)
    places = torch.rand(30, 3, generator=generator, dtype=torch.float64)
    made = encode(places, table, HASH)
    assert made.shape == (30, HASH.n_values)
    entries = table.view(-1, HASH.n_features).numpy()
    true = [direct_hash(place, entries, HASH) for place in places.tolist()]
    assert np.allclose(made.numpy(), true)


def test_hash_gradients_by_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(n_parameters(HASH), generator=generator, dtype=torch.float64)
    places = torch.rand(5, 3, generator=generator, dtype=torch.float64)
    table.requires_grad_()
    (gradient,) = torch.autograd.grad(encode(places, table, HASH).square().sum(), table)
    touched = torch.nonzero(gradient)[::7, 0]
    for i in touched.tolist():
        with torch.no_grad():
            ends = []
            for step in (1e-6, -1e-6):
                moved = table.detach().clone()
                moved[i] += step
                ends.append(encode(places, moved, HASH).square().sum())
        assert float(ends[0] - ends[1]) / 2e-6 == pytest.approx(float(gradient[i]), rel=1e-4)


def fake_tinycudann(n_extra: int = 0) -> ModuleType:
    """A module with the only class of tiny-cuda-nn that is used, which computes the same results."""

    class Encoding(torch.nn.Module):
        def __init__(self, n_input: int, config: dict[str, Any], dtype: torch.dtype) -> None:
            super().__init__()
            assert n_input == 3 and config["otype"] == "HashGrid"
            self.settings = HashConfig(
                config["n_levels"],
                config["n_features_per_level"],
                config["log2_hashmap_size"],
                config["base_resolution"],
                config["per_level_scale"],
            )
            n = n_parameters(self.settings) + n_extra
            self.params = torch.nn.Parameter(torch.zeros(n, dtype=dtype))

        def forward(self, places: Tensor) -> Tensor:
            return encode(places, self.params, self.settings)

    module = ModuleType("tinycudann")
    module.Encoding = Encoding  # type: ignore[attr-defined]
    return module


@pytest.fixture
def clean_native() -> Any:
    hashgrid.native_encoding.cache_clear()
    yield
    hashgrid.native_encoding.cache_clear()


@pytest.mark.usefixtures("clean_native")
def test_tinycudann_uses_our_table_and_returns_its_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tinycudann", fake_tinycudann())
    monkeypatch.setattr(hashgrid, "tinycudann_unavailable_reason", lambda: "")
    native = hashgrid.native_encoding(HASH)
    assert native is not None
    table = torch.randn(n_parameters(HASH)).requires_grad_()
    places = torch.rand(20, 3)
    made = torch.func.functional_call(native, {"params": table}, (places,))
    assert torch.equal(made, encode(places, table, HASH))
    (gradient,) = torch.autograd.grad(made.sum(), table)
    assert gradient.abs().sum() > 0


@pytest.mark.usefixtures("clean_native")
def test_a_tinycudann_of_another_layout_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tinycudann", fake_tinycudann(n_extra=8))
    monkeypatch.setattr(hashgrid, "tinycudann_unavailable_reason", lambda: "")
    assert hashgrid.native_encoding(HASH) is None
    assert "a different size" in caplog.text


@pytest.mark.usefixtures("clean_native")
def test_a_broken_tinycudann_is_logged_once_and_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(name: str) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "installed_version", lambda name: "2.0")
    monkeypatch.setattr(device.importlib, "import_module", broken)
    assert hashgrid.native_encoding(HASH) is None
    assert hashgrid.native_encoding(HASH) is None
    assert caplog.text.count("libcuda.so.1") == 1
    assert NerfRenderer.config_for_device(NerfConfig(), torch.device("cuda")).encoding == "planes"


def test_without_cuda_planes_are_chosen() -> None:
    assert NerfRenderer.config_for_device(NerfConfig(), torch.device("cpu")) == NerfConfig()


def test_points_outside_the_box_are_clamped() -> None:
    grid = HashGrid(torch.tensor([[0.0, 0.0, 0.0], [2.0, 1.0, 1.0]]), HASH)
    table = torch.randn(n_parameters(HASH))
    outside, rim = torch.tensor([[3.0, 0.5, 0.5]]), torch.tensor([[2.0, 0.5, 0.5]])
    assert torch.equal(grid(outside, table), grid(rim, table))


# ------------------------------------------------------------------- the mesh and the rays


@pytest.fixture(scope="module")
def space(head_dataset: IdentityDataset) -> HeadSpace:
    return HeadSpace.from_dataset(head_dataset)


def camera(dataset: IdentityDataset, frame: int) -> tuple[Tensor, Tensor, Tensor]:
    tracks = dataset.tracks
    arrays = (tracks.codes, tracks.viewmats, dataset.crop_ks)
    motion, viewmats, ks = (torch.from_numpy(a[[frame]]) for a in arrays)
    return motion, viewmats, ks


def test_a_ray_through_a_vertex_hits_it(head_dataset: IdentityDataset, space: HeadSpace) -> None:
    """Its depth and its displacement to the template are correct."""
    frame = 8
    motion, viewmats, ks = camera(head_dataset, frame)
    hits = space.hits(motion, viewmats, ks, SIZE)
    vertices = head_dataset.face.vertices(motion.numpy())[0].astype(np.float64)
    pixels = project(vertices, viewmats.double().numpy(), ks.double().numpy())[0]
    checked = 0
    for v in range(N_SURFACE):
        x, y = (math.floor(p) for p in pixels[v])
        # Only where the pixel's center is close enough to the vertex, and nothing occludes it.
        if v in FACE_OVAL or np.abs(pixels[v] - (x + 0.5, y + 0.5)).max() > 0.1:
            continue
        depth = (viewmats[0, 2, :3].double().numpy() @ vertices[v]) + float(viewmats[0, 2, 3])
        if hits.depth[0, y, x] < depth - 0.03:
            continue
        assert hits.depth[0, y, x] == pytest.approx(depth, abs=0.03)
        true = head_dataset.face.template[v] - vertices[v]
        assert np.allclose(hits.shift[0, y, x], true, atol=0.03)
        assert hits.flags[0, y, x] > 0
        checked += 1
    assert checked > 5
    assert np.isinf(hits.depth[0, 0, 0]) and hits.flags[0, 0, 0] == 0


def test_steps_around_the_skin_are_on_the_face_at_rest(
    head_dataset: IdentityDataset, space: HeadSpace
) -> None:
    """Where a ray hits the posed skin, the shifted ray hits the template's surface."""
    motion, viewmats, ks = camera(head_dataset, 12)
    hits = space.hits(motion, viewmats, ks, SIZE)
    rest_hits = space.hits(torch.zeros_like(motion), viewmats, ks, SIZE)
    row, column = np.nonzero(hits.flags[0] & FACE)
    pixels = torch.from_numpy(np.stack([np.zeros_like(row), row, column], 1))
    rays = space.rays(hits, pixels, motion, viewmats, ks)
    shell = rays.pieces[0]
    assert torch.equal(shell.ray, torch.arange(len(pixels)))
    depth = torch.from_numpy(hits.depth[0, row, column])
    met = rays.origin + depth[:, None] * rays.direction + shell.shift
    on_camera = met @ viewmats[0, :3, :3].T + viewmats[0, :3, 3]
    seen = on_camera @ ks[0].T
    x, y = (seen[:, :2] / seen[:, 2:]).floor().long().T
    inside = (x >= 0) & (x < SIZE[1]) & (y >= 0) & (y < SIZE[0])
    template_depth = torch.from_numpy(rest_hits.depth[0])[y[inside], x[inside]]
    difference = (on_camera[inside, 2] - template_depth).abs()
    assert difference[torch.isfinite(difference)].median() < 0.01


def test_next_to_the_face_rays_follow_skull_above_and_body_below(
    head_dataset: IdentityDataset, space: HeadSpace
) -> None:
    motion, viewmats, ks = camera(head_dataset, 20)
    motion[:, -6:] = torch.tensor([0.0, 0.0, 0.05, 0.0, 0.0, 0.0])  # the body sways to the right
    hits = space.hits(motion, viewmats, ks, SIZE)
    pixels = torch.tensor([[0, 2, 48], [0, SIZE[0] - 1, 48]])
    outer = space.rays(hits, pixels, motion, viewmats, ks).pieces[2]
    assert outer.ray.tolist() == [0, 1]
    assert outer.shift[0].abs().max() == 0.0
    still = motion.clone()
    still[:, -6:] = 0.0
    calm = space.rays(hits, pixels, still, viewmats, ks).pieces[2]
    assert outer.shift[1, 0] < calm.shift[1, 0] - 0.05, (
        "back to the left, to the body's position at rest"
    )


def test_pose_is_the_inverse_of_the_shift(head_dataset: IdentityDataset, space: HeadSpace) -> None:
    motion, viewmats, _ = camera(head_dataset, 20)
    chin = float(space.template[CHIN, 1])
    ears = float(space.template[[127, 356], 2].mean())
    places = torch.tensor([[0.2, chin - 0.5, ears], [0.1, chin + 0.45, ears]])
    posed = space.pose(places, motion, viewmats)
    assert torch.equal(posed[0], places[0])
    on_camera = posed[1] @ viewmats[0, :3, :3].T + viewmats[0, :3, 3]
    rest = places[1] @ space.rest_view[:3, :3].T + space.rest_view[:3, 3]
    assert torch.allclose(on_camera, rest, atol=1e-4), "a body that doesn't sway stays in place"


def test_flags_of_a_wide_open_mouth(head_dataset: IdentityDataset, space: HeadSpace) -> None:
    motion, viewmats, ks = camera(head_dataset, 0)
    motion[:] = 0.0
    motion[:, 0] = 2.0
    flags = space.hits(motion, viewmats, ks, SIZE).flags[0]
    vertices = head_dataset.face.vertices(motion.numpy()).astype(np.float64)
    lips = project(vertices, viewmats.double().numpy(), ks.double().numpy())[0, [13, 14]]
    x, y = lips.mean(0).astype(int)
    assert flags[y, x] == MOUTH
    assert (flags & AT_BORDER).any() and not (flags[y, x] & FACE)


# ----------------------------------------------------------------- marching and compositing

BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


def straight_rays(n: int, n_steps: int = 8, step: float = 0.25) -> tuple[Rays, Pieces]:
    """Rays along z through the box."""
    pieces = Pieces(
        torch.arange(n), torch.zeros(n), torch.zeros(n), torch.zeros(n, 3), step, n_steps
    )
    origin = torch.tensor([[0.0, 0.0, -1.0]]).repeat(n, 1)
    direction = torch.tensor([[0.0, 0.0, 1.0]]).repeat(n, 1)
    return Rays(origin, direction, torch.zeros(n, dtype=torch.int64), (pieces,)), pieces


def test_compositing_follows_the_beer_lambert_law() -> None:
    rays, pieces = straight_rays(3)
    steps = march(rays, pieces, Occupancy(BOX), None)
    generator = torch.Generator().manual_seed(0)
    density = 3.0 * torch.rand(len(steps.point), generator=generator)
    rgb = torch.rand(len(steps.point), 3, generator=generator)
    color, alpha = composite(steps, density, rgb)
    for ray in range(3):
        light, total = 1.0, np.zeros(3)
        for slot, d, c in zip(steps.slot.tolist(), density, rgb, strict=True):
            if slot // 8 == ray:
                kept = math.exp(-float(d) * 0.25)
                total += light * (1.0 - kept) * c.numpy()
                light *= kept
        assert np.allclose(color[ray], total, atol=1e-5)
        assert float(alpha[ray]) == pytest.approx(1.0 - light, abs=1e-5)


def test_steps_skip_empty_cells_and_those_before_the_start() -> None:
    rays, pieces = straight_rays(2)
    occupancy = Occupancy(BOX)
    occupancy.exclude(occupancy.centers()[:, 2] > 0.0)
    depths = march(rays, pieces, occupancy, None).point[:, 2]
    assert (depths < 0.0).all() and len(depths) == 2 * 4
    late = replace(pieces, after=torch.tensor([0.5, 5.0]))
    assert march(rays, late, occupancy, None).slot.tolist() == [2, 3]
    assert len(march(rays, replace(pieces, y_range=(0.1, 1.0)), occupancy, None).point) == 0
    outside = replace(pieces, shift=torch.tensor([[5.0, 0.0, 0.0]]).repeat(2, 1))
    assert len(march(rays, outside, occupancy, None).point) == 0


def test_the_grid_adapts_to_the_field() -> None:
    occupancy = Occupancy(BOX)

    def ball(points: Tensor) -> Tensor:
        return (points.norm(dim=1, keepdim=True) < 0.5).float()

    for step in range(0, 1200, 16):
        occupancy.update(step, ball)
    radius = occupancy.centers().norm(dim=1)
    held = occupancy.is_occupied(occupancy.centers())
    assert held[radius < 0.45].all() and not held[radius > 0.5 + 3 * CELL].any()
    again = Occupancy(BOX, occupancy.occs)
    assert torch.equal(again.is_occupied(occupancy.centers()), held)


def test_grid_updates_are_reproducible() -> None:
    """Results are bitwise equal with any number of threads, for values that differ within a cell."""
    box = torch.tensor([[-2.0, -2.0, -2.0], [2.0, 2.0, 2.0]])

    def rough(points: Tensor) -> Tensor:
        return (points * 977.0).sin().prod(1, keepdim=True).abs()

    grids = [Occupancy(box), Occupancy(box)]
    for step in range(0, 64, 16):
        for grid in grids:
            grid.update(step, rough)
    assert torch.equal(grids[0].occs, grids[1].occs)


def test_the_hull_contains_the_head_and_not_the_background(
    head_dataset: IdentityDataset, space: HeadSpace
) -> None:
    nose, chin = space.template[4], space.template[CHIN]
    beside = torch.stack([space.box[0, 0] + 0.02, space.box[0, 1] + 0.02, nose[2]])
    inside = space.box[1] - torch.tensor([0.02, 0.02, 0.02])  # in the box of the inner mouth
    places = torch.stack([nose, 0.5 * (nose + chin), beside, inside])
    assert visual_hull(head_dataset, space, places, CELL).tolist() == [True, True, False, True]


# ------------------------------------------------------------------------------- the head


@pytest.fixture(scope="module")
def head(head_dataset: IdentityDataset) -> NerfRenderer:
    config = NerfConfig(fine_unit=0.08, blend_unit=0.08, pose_unit=0.2)
    return NerfRenderer.from_dataset(head_dataset, config, 0)


def test_patches_are_inside_the_image_and_where_pixels_have_weight() -> None:
    weights = torch.zeros(2, 40, 30, 1)
    weights[1, 38, 1] = 1.0
    pixels = draw_patches(weights, 5, torch.Generator().manual_seed(0)).view(5, 8, 8, 3)
    assert (pixels[..., 0] == 1).all()
    assert pixels[..., 1].amin() == 32 and pixels[..., 1].amax() == 39
    assert pixels[..., 2].amin() == 0 and pixels[..., 2].amax() == 7
    assert (pixels[:, 1, 0] - pixels[:, 0, 0] == torch.tensor([0, 1, 0])).all()


def test_rays_in_parts_equal_all_at_once(head: NerfRenderer, head_dataset: IdentityDataset) -> None:
    whole = head.render(*camera(head_dataset, 3), *SIZE)
    head.rays_at_once = 777
    parts = head.render(*camera(head_dataset, 3), *SIZE)
    assert torch.allclose(whole.rgb, parts.rgb, atol=1e-6)


def test_out_of_memory_halves_the_rays_and_continues(
    head: NerfRenderer, head_dataset: IdentityDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = head.render(*camera(head_dataset, 3), *SIZE)
    follow, tried = head._trace, []

    def little_memory(rays: Rays, *others: Any) -> Any:
        tried.append(len(rays.origin))
        if len(rays.origin) > 1500:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return follow(rays, *others)

    monkeypatch.setattr(head, "_trace", little_memory)
    monkeypatch.setattr(head, "rays_at_once", 4096)
    made = head.render(*camera(head_dataset, 3), *SIZE)
    assert tried[:3] == [4096, 2048, 1024] and torch.allclose(made.rgb, whole.rgb, atol=1e-6)
    monkeypatch.setattr(head, "rays_at_once", 512)
    monkeypatch.setattr(head, "_trace", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(torch.OutOfMemoryError):
        head.render(*camera(head_dataset, 3), *SIZE)


def test_mouth_and_eyes_depend_on_their_own_codes(head: NerfRenderer) -> None:
    n_codes = len(head.space.basis)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in head.field.parameters.items():
            if name.startswith("deltas"):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
    code = torch.zeros(3, n_codes + 12)
    code[1, 0], code[2, head.n_mouth] = 1.0, 1.0
    planes = dict(zip([s.name for s in head.field.specs], head.field.blend(code), strict=True))
    changed = {
        n: [bool((p[i] != p[0]).any()) for i in (1, 2)] for n, p in planes.items() if len(p) > 1
    }
    assert changed == {
        "mouth": [True, False],
        "inside": [True, False],
        "eyes": [False, True],
        "pose": [False, False],
    }


def test_eyes_do_not_depend_on_clothes(head: NerfRenderer, head_dataset: IdentityDataset) -> None:
    """Planes are those of a head without clothes, and are blended with the same components."""
    dressed = with_clothes(head_dataset, np.zeros((len(head_dataset), 3), np.float32))
    space = HeadSpace.from_dataset(dressed)
    planes = plane_specs(space, head.n_mouth, head.config)
    for plain, one in zip(plane_specs(head.space, head.n_mouth, head.config), planes, strict=True):
        assert one.shape == plain.shape
        moved = 3 if one.name == "pose" else 0  # the pose follows the motion code
        if plain.code_range is not None:
            assert one.code_range == tuple(n + moved for n in plain.code_range)


def test_the_hash_encoding_renders_too(head_dataset: IdentityDataset) -> None:
    config = NerfConfig(encoding="hash", blend_unit=0.08, pose_unit=0.2)
    hashed = NerfRenderer.from_dataset(head_dataset, config, 0)
    made = hashed.render(*camera(head_dataset, 3), 24, 24)
    assert torch.isfinite(made.rgb).all() and "table" in hashed.tensors()
    back = NerfRenderer.from_tensors(hashed.tensors(), config)
    assert torch.equal(back.render(*camera(head_dataset, 3), 24, 24).rgb, made.rgb)


def test_all_tensors_are_on_the_device_of_the_head(
    head: NerfRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one tells callers where to render; "meta" takes the place of a GPU."""
    monkeypatch.setattr(head, "pose_mean", head.pose_mean.to("meta"))
    assert head.tensors()["n_mouth"].device.type == "meta"
