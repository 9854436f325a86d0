"""The CPU rasterizer against the reference, its gradients, and properties of any rasterizer."""

from dataclasses import dataclass, replace

import numba
import pytest
import torch
from torch import Tensor

from talkhead.errors import TalkheadError
from talkhead.renderers.gaussian.rasterizer import cpu, rasterize
from talkhead.renderers.gaussian.rasterizer.cameras import Cameras
from talkhead.renderers.gaussian.rasterizer.constants import ALPHA_FLOOR, MIN_TRANSMITTANCE
from talkhead.renderers.gaussian.rasterizer.reference import rasterize_reference


@dataclass(frozen=True)
class SplatInputs:
    """Gaussians and one camera, float32."""

    means: Tensor
    covars: Tensor
    opacities: Tensor
    colors: Tensor
    viewmat: Tensor
    K: Tensor
    height: int
    width: int

    @property
    def splats(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.means, self.covars, self.opacities, self.colors


def make_scene(
    n: int = 120,
    seed: int = 0,
    size: tuple[int, int] = (45, 61),
    scale: float = 0.2,
    opacity: tuple[float, float] = (0.0, 1.0),
    z: tuple[float, float] = (2.0, 8.0),
) -> SplatInputs:
    """Random elongated Gaussians in front of a rotated camera, some of them outside the image."""
    g = torch.Generator().manual_seed(seed)
    height, width = size
    focal = 0.9 * width
    depth = z[0] + (z[1] - z[0]) * torch.rand(n, generator=g)
    sideways = (torch.rand(n, 2, generator=g) - 0.5) * 1.5 * depth[:, None] / 0.9
    in_camera = torch.cat([sideways, depth[:, None]], dim=1)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=g))
    rotation = rotation * torch.sign(torch.linalg.det(rotation))
    translation = torch.randn(3, generator=g)
    viewmat = torch.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = rotation, translation
    axes = torch.randn(n, 3, 3, generator=g) * scale * torch.rand(n, 1, 3, generator=g)
    full = (axes @ axes.transpose(1, 2)).reshape(n, 9)
    return SplatInputs(
        means=(in_camera - translation) @ rotation,
        covars=full[:, [0, 1, 2, 4, 5, 8]].contiguous(),
        opacities=opacity[0] + (opacity[1] - opacity[0]) * torch.rand(n, generator=g),
        colors=torch.rand(n, 3, generator=g),
        viewmat=viewmat,
        K=torch.tensor([[focal, 0, 0.47 * width], [0, 1.1 * focal, 0.55 * height], [0, 0, 1]]),
        height=height,
        width=width,
    )


def render(scene: SplatInputs, *splats: Tensor) -> tuple[Tensor, Tensor]:
    """rgb [H, W, 3], alpha [H, W, 1] by the CPU kernels."""
    rgb, alpha = rasterize(
        *(splats or scene.splats),
        Cameras(scene.viewmat[None], scene.K[None], scene.height, scene.width),
    )
    return rgb[0], alpha[0]


def reference(scene: SplatInputs, *splats: Tensor, nudge: float = 0.0) -> tuple[Tensor, Tensor]:
    """rgb, alpha of the reference in float64. nudge: relative change of its thresholds."""
    return rasterize_reference(
        *(splats or [tensor.double() for tensor in scene.splats]),
        Cameras(scene.viewmat.double()[None], scene.K.double()[None], scene.height, scene.width),
        alpha_floor=ALPHA_FLOOR * (1 + nudge),
        min_transmittance=MIN_TRANSMITTANCE * (1 + nudge),
    )


def decided(scene: SplatInputs) -> Tensor:
    """Pixels [H, W] in which no threshold is so near that rounding in float32 decides."""
    images = [torch.cat(reference(scene, nudge=nudge), dim=-1) for nudge in (-2e-4, 2e-4)]
    return (images[0] - images[1]).abs().amax(-1) < 1e-9


SCENES = {
    "one": make_scene(1, seed=10, z=(3.0, 3.0), opacity=(0.9, 0.9)),
    "random 0": make_scene(seed=0),
    "random 1": make_scene(seed=1, size=(16, 32)),
    "random 2": make_scene(seed=2, size=(1, 5), scale=0.6),
    "random 3": make_scene(seed=3, size=(70, 33), n=400),
    "tiny splats": make_scene(seed=4, n=300, scale=1e-4),
    "huge splats": make_scene(seed=5, n=6, scale=20.0, opacity=(0.1, 0.6)),
    "needles": make_scene(seed=6, n=60, scale=0.5),
    "opaque stack": make_scene(seed=7, n=300, scale=2.0, opacity=(0.9, 1.0)),
    "capped": make_scene(4, seed=18, scale=6.0, opacity=(1.0, 1.0), z=(6.0, 8.0)),
    "very near": make_scene(seed=8, n=50, scale=0.05, z=(-0.2, 0.5)),
    "faint": make_scene(seed=9, n=200, scale=0.5, opacity=(0.0, 0.02)),
}


@pytest.mark.parametrize("name", SCENES)
def test_image_equals_reference(name: str) -> None:
    scene = SCENES[name]
    rgb, alpha = render(scene)
    expected_rgb, expected_alpha = reference(scene)
    sure = decided(scene)
    assert sure.double().mean() > 0.9
    assert expected_alpha[sure].max() > 0.004, "the scene shows nothing"
    torch.testing.assert_close(rgb[sure].double(), expected_rgb[sure], atol=2e-5, rtol=0)
    torch.testing.assert_close(alpha[sure].double(), expected_alpha[sure], atol=2e-5, rtol=0)


def test_opaque_stack_reaches_the_stop() -> None:
    """Without the stop, the image would differ. The comparison with the reference covers everything
    else.
    """
    scene = SCENES["opaque stack"]
    _, alpha = render(scene)
    assert alpha.max() > 0.99
    assert (1 - alpha).min() > MIN_TRANSMITTANCE * 0.99
    endless = rasterize_reference(
        *(tensor.double() for tensor in scene.splats),
        Cameras(scene.viewmat.double()[None], scene.K.double()[None], scene.height, scene.width),
        min_transmittance=0.0,
    )[1]
    assert (1 - endless).min() < MIN_TRANSMITTANCE / 10


@pytest.mark.parametrize("scene", [make_scene(0), make_scene(40, z=(-8.0, -1.0))])
def test_nothing_in_view_is_transparent(scene: SplatInputs) -> None:
    splats = [tensor.clone().requires_grad_() for tensor in scene.splats]
    rgb, alpha = render(scene, *splats)
    assert rgb.shape == (scene.height, scene.width, 3)
    assert alpha.shape == (scene.height, scene.width, 1)
    assert rgb.count_nonzero() == 0 and alpha.count_nonzero() == 0
    (rgb.sum() + alpha.sum()).backward()
    for tensor in splats:
        assert tensor.grad is not None
        assert tensor.grad.shape == tensor.shape and tensor.grad.count_nonzero() == 0


def test_splats_that_are_not_finite_are_culled() -> None:
    scene = make_scene(60, seed=11)
    broken = [tensor.clone() for tensor in scene.splats]
    broken[0][3], broken[1][5], broken[2][7] = torch.nan, torch.nan, torch.nan
    broken[0][9] = torch.inf
    good = torch.ones(60, dtype=torch.bool)
    good[[3, 5, 7, 9]] = False
    assert torch.equal(render(scene, *broken)[0], render(scene, *(t[good] for t in broken))[0])


def weights(scene: SplatInputs) -> tuple[Tensor, Tensor]:
    """Random gradients of a loss with respect to rgb and alpha, zero where rounding decides;
    float64.
    """
    g = torch.Generator().manual_seed(99)
    sure = decided(scene)[..., None]
    rgb = torch.randn(scene.height, scene.width, 3, generator=g, dtype=torch.float64)
    alpha = torch.randn(scene.height, scene.width, 1, generator=g, dtype=torch.float64)
    return rgb * sure, alpha * sure


def reference_loss(scene: SplatInputs, splats: list[Tensor]) -> Tensor:
    """A scalar that depends on every pixel of the reference's image."""
    rgb, alpha = reference(scene, *splats)
    rgb_weight, alpha_weight = weights(scene)
    return (rgb * rgb_weight).sum() + (alpha * alpha_weight).sum()


def kernel_gradients(scene: SplatInputs) -> list[Tensor]:
    """The kernels' gradients of the loss above with respect to means, covars, opacities and colors."""
    splats = [tensor.clone().requires_grad_() for tensor in scene.splats]
    rgb, alpha = render(scene, *splats)
    rgb_weight, alpha_weight = weights(scene)
    loss = (rgb * rgb_weight.float()).sum() + (alpha * alpha_weight.float()).sum()
    return list(torch.autograd.grad(loss, splats))


@pytest.mark.parametrize("name", SCENES)
def test_gradients_equal_reference(name: str) -> None:
    scene = SCENES[name]
    splats = [tensor.double().requires_grad_() for tensor in scene.splats]
    expected = torch.autograd.grad(reference_loss(scene, splats), splats)
    for ours, theirs in zip(kernel_gradients(scene), expected, strict=True):
        assert theirs.norm() > 0
        assert (ours - theirs).norm() < 2e-4 * theirs.norm()


@pytest.mark.parametrize("name", ["random 0", "huge splats", "needles", "very near"])
@pytest.mark.parametrize("which", range(4), ids=["means", "covars", "opacities", "colors"])
def test_gradients_equal_finite_differences(name: str, which: int) -> None:
    """The test uses one random direction per input and central differences of the reference in
    float64.
    """
    scene = SCENES[name]
    g = torch.Generator().manual_seed(which)
    splats = [tensor.double() for tensor in scene.splats]
    scale = splats[which].abs().mean()
    direction = torch.randn(splats[which].shape, generator=g, dtype=torch.float64) * scale
    step = 1e-8
    losses = []
    for sign in (1.0, -1.0):
        moved = list(splats)
        moved[which] = splats[which] + sign * step * direction
        losses.append(reference_loss(scene, moved))
    expected = (losses[0] - losses[1]) / (2 * step)
    gradient = kernel_gradients(scene)[which].double()
    assert expected.abs() > 0
    error = (gradient * direction).sum() - expected
    assert error.abs() < 1e-4 * gradient.norm() * direction.norm()


def stacked(scenes: list[SplatInputs]) -> tuple[list[Tensor], Tensor, Tensor]:
    """Splats [B, N, ...], viewmats [B, 4, 4] and Ks [B, 3, 3] of scenes of one size."""
    splats = [torch.stack(tensors) for tensors in zip(*(s.splats for s in scenes), strict=True)]
    return splats, torch.stack([s.viewmat for s in scenes]), torch.stack([s.K for s in scenes])


def test_batch_equals_its_images_one_by_one() -> None:
    scenes = [make_scene(seed=seed) for seed in range(3)]
    splats, viewmats, Ks = stacked(scenes)
    splats = [tensor.requires_grad_() for tensor in splats]
    rgb, alpha = rasterize(*splats, Cameras(viewmats, Ks, scenes[0].height, scenes[0].width))
    (rgb * rgb).sum().backward()
    for image, scene in enumerate(scenes):
        alone = [tensor.clone().requires_grad_() for tensor in scene.splats]
        rgb_alone, alpha_alone = render(scene, *alone)
        (rgb_alone * rgb_alone).sum().backward()
        assert torch.equal(rgb[image], rgb_alone) and torch.equal(alpha[image], alpha_alone)
        for batched, single in zip(splats, alone, strict=True):
            assert batched.grad is not None and single.grad is not None
            assert torch.equal(batched.grad[image], single.grad)


@pytest.mark.parametrize("shared", range(4), ids=["means", "covars", "opacities", "colors"])
def test_shared_input_equals_copies(shared: int) -> None:
    scenes = [make_scene(seed=seed) for seed in range(3)]
    splats, viewmats, Ks = stacked(scenes)
    one = splats[shared][0].clone().requires_grad_()
    copies = one.detach().expand(3, *one.shape).clone().requires_grad_()
    size = scenes[0].height, scenes[0].width
    images = []
    for tensor in (one, copies):
        splats[shared] = tensor
        images.append(rasterize(*splats, Cameras(viewmats, Ks, *size))[0])
        (images[-1] ** 2).sum().backward()
    assert torch.equal(images[0], images[1])
    assert one.grad is not None and copies.grad is not None
    torch.testing.assert_close(one.grad, copies.grad.sum(0))


def test_order_of_the_gaussians_does_not_matter() -> None:
    scene = make_scene(300, seed=12)
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    rgb, alpha = render(scene)
    rgb_shuffled, alpha_shuffled = render(scene, *(tensor[shuffled] for tensor in scene.splats))
    assert torch.equal(rgb, rgb_shuffled) and torch.equal(alpha, alpha_shuffled)


def test_nearer_splat_covers_the_farther() -> None:
    scene = make_scene(2, seed=13)
    eye = torch.eye(4)
    K = torch.tensor([[40.0, 0, 16.5], [0, 40, 16.5], [0, 0, 1]])
    covars = torch.tensor([[0.1, 0, 0, 0.1, 0, 0.1]]).expand(2, 6)
    scene = replace(
        scene,
        means=torch.tensor([[0.0, 0, 6], [0, 0, 4]]),
        covars=covars,
        opacities=torch.tensor([1.0, 0.75]),
        colors=torch.tensor([[1.0, 0, 0], [0, 1, 0]]),
        viewmat=eye,
        K=K,
        height=33,
        width=33,
    )
    red, green, _ = render(scene)[0][16, 16]
    assert green == pytest.approx(0.75, abs=1e-2) and red == pytest.approx(0.25, abs=1e-2)


def test_background_shows_by_one_minus_alpha() -> None:
    """A wall behind everything acts as the background of the premultiplied image."""
    scene = make_scene(80, seed=14, opacity=(0.0, 0.5))
    wall = torch.tensor([0.2, 0.5, 0.9])
    behind = torch.tensor([[0.0, 0.0, 50.0]]) - scene.viewmat[:3, 3]
    with_wall = render(
        scene,
        torch.cat([scene.means, behind @ scene.viewmat[:3, :3]]),
        torch.cat([scene.covars, torch.tensor([[1e8, 0, 0, 1e8, 0, 1e8]])]),
        torch.cat([scene.opacities, torch.tensor([1.0])]),
        torch.cat([scene.colors, wall[None]]),
    )[0]
    rgb, alpha = render(scene)
    torch.testing.assert_close(with_wall, rgb + (1 - alpha) * wall, atol=2e-3, rtol=0)


def test_white_splats_are_rendered_as_alpha() -> None:
    scene = make_scene(200, seed=15)
    rgb, alpha = render(replace(scene, colors=torch.ones_like(scene.colors)))
    torch.testing.assert_close(rgb, alpha.expand(-1, -1, 3), atol=1e-5, rtol=0)


def test_same_bits_every_time_and_with_any_number_of_threads() -> None:
    scene = make_scene(1500, seed=16, size=(130, 200))

    def run() -> list[Tensor]:
        splats = [tensor.clone().requires_grad_() for tensor in scene.splats]
        rgb, alpha = render(scene, *splats)
        loss = (rgb**2).sum() + (alpha**3).sum()
        return [rgb, alpha, *torch.autograd.grad(loss, splats)]

    first = run()
    threads = numba.get_num_threads()
    try:
        for count in [threads] * 5 + [1]:
            numba.set_num_threads(count)
            for before, now in zip(first, run(), strict=True):
                assert torch.equal(before, now)
    finally:
        numba.set_num_threads(threads)


def test_inputs_need_not_be_contiguous_or_float32() -> None:
    scene = make_scene(50, seed=17)
    strided = [torch.stack([t.double(), t.double()], -1)[..., 0] for t in scene.splats]
    strided = [tensor.requires_grad_() for tensor in strided]
    rgb, _ = render(scene, *strided)
    assert torch.equal(rgb, render(scene)[0])
    # An expanded gradient is not contiguous either.
    rgb.sum().backward()
    assert all(t.grad is not None and t.grad.dtype == torch.float64 for t in strided)


def test_misuse_is_refused() -> None:
    scene = make_scene(5)
    camera = Cameras(scene.viewmat[None], scene.K[None], 8, 8)
    with pytest.raises(ValueError, match="covars"):
        rasterize(scene.means, scene.covars[:, :3], scene.opacities, scene.colors, camera)
    with pytest.raises(ValueError, match="opacities"):
        rasterize(scene.means, scene.covars, scene.opacities[:4], scene.colors, camera)
    with pytest.raises(ValueError, match="Ks"):
        rasterize(*scene.splats, Cameras(scene.viewmat[None], scene.K, 8, 8))
    with pytest.raises(ValueError, match="opengl"):
        rasterize(*scene.splats, camera, backend="opengl")
    with pytest.raises(TalkheadError, match="gsplat"):
        rasterize(*scene.splats, camera, backend="gsplat")


def test_splats_that_cover_too_many_tiles_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every Gaussian of a damaged head may cover every tile, so it is refused before the lists are
    made.
    """
    means = torch.zeros(1, 50, 3) + torch.tensor([0.0, 0.0, 3.0])
    covars = torch.tensor([100.0, 0, 0, 100.0, 0, 100.0]).expand(1, 50, 6).contiguous()
    opacities, colors = torch.full((1, 50), 0.9), torch.full((1, 50, 3), 0.5)
    ks = torch.tensor([[[64.0, 0, 32], [0, 64, 32], [0, 0, 1]]])
    cameras = Cameras(torch.eye(4)[None], ks, 64, 64)
    scene = (means, covars, opacities, colors, cameras)
    assert rasterize(*scene)[0].isfinite().all()
    monkeypatch.setattr(cpu, "MAX_SLOTS", 799)
    with pytest.raises(TalkheadError, match="cover 800 tiles of the image"):
        rasterize(*scene)
