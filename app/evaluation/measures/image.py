"""Image and landmark measures, as pure functions, and their registration.

docs/measures.md explains how to read them. Images are RGB [H, W, 3], uint8 or float in [0, 1].
Landmarks are MediaPipe's 478 points in pixels of the image: [478, 2 or 3] of one frame, [F, 478, 2
or 3] of many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from talkhead.app.evaluation.measures.registry import FrameMeasures
from talkhead.face import JAW_LINE, LIPS, N_SURFACE, OUTER_EYE_CORNERS, OUTER_LIPS
from talkhead.types import Bool, Float32, Float64, Int, UInt8

Image = npt.NDArray[Any]
"""[H, W, 3] RGB, uint8 or float in [0, 1]."""

Points = npt.NDArray[np.floating[Any]]
"""Landmarks in pixels, [478, 2 or 3] of a frame, [F, 478, 2 or 3] of many."""

MAX_PSNR = 100.0
"""PSNR in dB of identical images and the upper limit of all others, so that means stay finite."""

FACE_MARGIN, MOUTH_MARGIN = 0.1, 0.4
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
_C1, _C2 = np.float32(0.01**2), np.float32(0.03**2)
_STRIP = 64  # rows at a time: fits the cache and the allocator's pool, twice as fast as all at once


class Box(NamedTuple):
    """A rectangle of whole pixels.

    Attributes:
        left: First column.
        top: First row.
        right: The column after the last one.
        bottom: The row after the last one.
    """

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        """Number of pixels inside; 0 for an empty box."""
        return max(0, self.right - self.left) * max(0, self.bottom - self.top)

    def clipped(self, height: int, width: int) -> Box:
        """Intersect the box with an image.

        Args:
            height: Height of the image.
            width: Width of the image.

        Returns:
            The part of the box inside the image.
        """
        left, right = (min(max(0, x), width) for x in (self.left, self.right))
        top, bottom = (min(max(0, y), height) for y in (self.top, self.bottom))
        return Box(left, top, right, bottom)

    def grown(self, margin: int) -> Box:
        """Expand the box.

        Args:
            margin: Pixels to add on each side.

        Returns:
            The larger box.
        """
        left, top, right, bottom = self
        return Box(left - margin, top - margin, right + margin, bottom + margin)

    def cut(self, image: Image) -> Image:
        """Crop an image.

        Args:
            image: Pixels [H, W, ...].

        Returns:
            A view of the pixels inside the box, [h, w, ...].
        """
        return image[self.top : self.bottom, self.left : self.right]


def whole(image: Image) -> Box:
    """Compute the box of a whole image.

    Args:
        image: Pixels [H, W, ...].

    Returns:
        A box of W by H pixels.
    """
    return Box(0, 0, image.shape[1], image.shape[0])


def face_box(landmarks: Points) -> Box:
    """Compute the face box: the bounding box of the surface landmarks with a margin.

    The margin is 10 % of the width left and right and 10 % of the height above and below.

    Args:
        landmarks: Landmarks [478, 2 or 3] of the real frame, pixels.

    Returns:
        The box, not clipped to the image.
    """
    low, high = _bounds(landmarks[:N_SURFACE])
    return _box(low, high, FACE_MARGIN * (high - low))


def mouth_box(landmarks: Points) -> Box:
    """Compute the mouth box: the bounding box of the outer lips with a margin.

    The margin is 40 % of the width on all four sides.

    Args:
        landmarks: Landmarks [478, 2 or 3] of the real frame, pixels.

    Returns:
        The box, not clipped to the image.
    """
    low, high = _bounds(landmarks[list(OUTER_LIPS)])
    return _box(low, high, np.full(2, MOUTH_MARGIN * (high - low)[0]))


def _bounds(points: Points) -> tuple[Float64, Float64]:
    """Compute the least and the greatest x and y, [2] each, of points [P, 2 or 3]."""
    flat = points[:, :2].astype(np.float64)
    return flat.min(0), flat.max(0)


def _box(low: Float64, high: Float64, margin: Float64) -> Box:
    """Compute the box of whole pixels around corners [2] with a margin [2]."""
    left, top = (int(n) for n in np.floor(low - margin))
    right, bottom = (int(n) for n in np.ceil(high + margin))
    return Box(left, top, right, bottom)


# ------------------------------------------------------------------------------ images


def head_mask(landmarks: Points, size: tuple[int, int]) -> Bool:
    """Compute the area above the lower line of the jaw, out to the image's sides.

    Neck and clothes, which move independently and fill the lower corners of the face box, are outside.

    Args:
        landmarks: Landmarks [478, 2 or 3] of the real frame, pixels.
        size: Height and width of the image.

    Returns:
        Mask [H, W], true where the head may be.
    """
    jaw = landmarks[list(JAW_LINE), :2]
    right, left = jaw[0], jaw[-1]
    sides = [[-1.0, left[1]], [-1.0, -1.0], [size[1], -1.0], [size[1], right[1]]]
    outline = np.concatenate([jaw, sides]).round().astype(np.int32)
    return cv2.fillPoly(np.zeros(size, np.uint8), [outline], 1) > 0


def masked_psnr(image: Image, reference: Image, mask: Bool, box: Box) -> float:
    """Compute PSNR over the pixels of a box that are inside a mask.

    Args:
        image: Image [H, W, 3].
        reference: Real image [H, W, 3].
        mask: Mask [H, W].
        box: A box within the image.

    Returns:
        dB, at most MAX_PSNR; NaN without a pixel.
    """
    inside = box.cut(mask)
    if not inside.any():
        return float("nan")
    error = _unit(box.cut(image)[inside]) - _unit(box.cut(reference)[inside])
    mse = float(np.mean(np.square(error, dtype=np.float64)))
    return min(MAX_PSNR, -10.0 * float(np.log10(max(mse, 1e-30))))


def psnr(image: Image, reference: Image, box: Box | None = None) -> float:
    """Compute the peak signal-to-noise ratio over a box: 10 log10(1 / MSE).

    MSE is the mean over pixels and channels of RGB in [0, 1].

    Args:
        image: Image [H, W, 3].
        reference: Real image [H, W, 3].
        box: A box within the image; None for the whole image.

    Returns:
        dB, at most MAX_PSNR, which is the value of identical images.
    """
    box = box or whole(reference)
    ours, theirs, peak = box.cut(image), box.cut(reference), 255.0
    if not ours.dtype == theirs.dtype == np.uint8:
        ours, theirs, peak = _unit(ours), _unit(theirs), 1.0
    ours, theirs = np.ascontiguousarray(ours), np.ascontiguousarray(theirs)
    mse = cv2.norm(ours, theirs, cv2.NORM_L2SQR) / (ours.size * peak**2)
    return min(MAX_PSNR, -10.0 * float(np.log10(max(mse, 1e-30))))


def ssim(image: Image, reference: Image, box: Box | None = None) -> float:
    """Compute the mean structural similarity over a box.

    Args:
        image: Image [H, W, 3].
        reference: Real image [H, W, 3].
        box: A box within the image; None for the whole image.

    Returns:
        The mean of `ssim_map`, at most 1.
    """
    return float(np.mean(ssim_map(image, reference, box), dtype=np.float64))


def ssim_map(image: Image, reference: Image, box: Box | None = None) -> Float32:
    """Compute the structural similarity at each pixel and channel of a box.

    Wang et al. 2004 (IEEE TIP 13(4), eq. 13): 11x11 Gaussian window of sigma 1.5, range 1,
    K1 = 0.01, K2 = 0.03, moments of the population. Equal to the map of the whole image, cropped:
    windows include the pixels next to the box, and mirror the image only at its own border.

    With s = x + y and d = x - y, four blurs suffice instead of five: mu_x mu_y is a quarter of
    mu_s^2 - mu_d^2, mu_x^2 + mu_y^2 half of mu_s^2 + mu_d^2, and likewise for the variances and
    the covariance.

    Args:
        image: Image [H, W, 3].
        reference: Real image [H, W, 3].
        box: A box within the image; None for the whole image.

    Returns:
        Similarity [h, w, 3], at most 1.
    """
    box = box or whole(reference)
    strips = [
        _ssim_strip(image, reference, box._replace(top=top, bottom=min(top + _STRIP, box.bottom)))
        for top in range(box.top, box.bottom, _STRIP)
    ]
    return np.concatenate(strips)


def _ssim_strip(image: Image, reference: Image, box: Box) -> Float32:
    """Compute `ssim_map` [h, w, 3] of a box of few rows."""
    around = box.grown(SSIM_WINDOW // 2).clipped(*reference.shape[:2])
    total, difference = _unit(around.cut(image)), _unit(around.cut(reference))
    total, difference = cv2.add(total, difference), cv2.subtract(total, difference)
    mean_s, variance_s = _half_moments(total)
    mean_d, variance_d = _half_moments(difference)
    above = cv2.multiply(mean_s - mean_d + _C1, variance_s - variance_d + _C2)
    mean_s += mean_d + _C1
    variance_s += variance_d + _C2
    ratio: Float32 = cv2.divide(above, cv2.multiply(mean_s, variance_s))
    return _relative(box, around).cut(ratio)


def _half_moments(values: Float32) -> tuple[Float32, Float32]:
    """Compute half the squared local mean and half the local variance, [h, w, 3] each.

    The values [h, w, 3] are overwritten, because fresh memory costs more than the arithmetic.
    """
    size, half = (SSIM_WINDOW, SSIM_WINDOW), np.float32(0.5)
    mean = cv2.GaussianBlur(values, size, SSIM_SIGMA)
    mean *= mean
    mean *= half
    values *= values
    values *= half
    variance = cv2.GaussianBlur(values, size, SSIM_SIGMA, dst=values)
    variance -= mean
    return mean, variance


def sharpness_ratio(
    image: Image, reference: Image, box: Box | None = None, mask: Bool | None = None
) -> float:
    """Compute the variance of the Laplacian of the luma over the reference's.

    The 4-neighbor Laplacian of BT.601 luma. Noise is sharp, too: read it together with
    `gradient_correlation`.

    Args:
        image: Image [H, W, 3].
        reference: Real image [H, W, 3].
        box: A box within the image; None for the whole image.
        mask: Mask [H, W] of the pixels of the box that count; None for all.

    Returns:
        The ratio: 1 is as sharp as real. NaN if the reference is flat.
    """
    box = box or whole(reference)
    inside = None if mask is None else box.cut(mask)
    own, true = (_variance(_laplacian(i, box), inside) for i in (image, reference))
    return own / true if true > 0 else float("nan")


def gradient_correlation(
    image: Image, reference: Image, box: Box | None = None, mask: Bool | None = None
) -> float:
    """Compute Pearson's r of the luma's gradients with the reference's.

    The horizontal and vertical central differences of all pixels are taken together: detail counts
    only where the real frame has it, in the same place.

    Args:
        image: Image [H, W, 3].
        reference: Real image [H, W, 3].
        box: A box within the image; None for the whole image.
        mask: Mask [H, W] of the pixels of the box that count, at least one; None for all.

    Returns:
        Correlation in [-1, 1]; NaN if one of the images is flat.
    """
    box = box or whole(reference)
    ours, theirs = (_gradients(i, box) for i in (image, reference))
    if mask is not None:
        ours, theirs = (gradients[:, box.cut(mask)] for gradients in (ours, theirs))
    return correlation(ours, theirs)


def _variance(values: Float32, inside: Bool | None) -> float:
    """Compute the variance of values [h, w], of those in a mask [h, w] if there is one."""
    mask = None if inside is None else inside.astype(np.uint8)
    _, deviation = cv2.meanStdDev(np.ascontiguousarray(values), mask=mask)
    return float(deviation[0, 0]) ** 2


def _laplacian(image: Image, box: Box) -> Float32:
    """Compute the Laplacian [h, w] of the luma in a box of an image [H, W, 3]."""
    around = box.grown(1).clipped(*image.shape[:2])
    laplacian = cv2.Laplacian(_luma(around.cut(image)), cv2.CV_32F)
    return np.asarray(_relative(box, around).cut(laplacian))


def _gradients(image: Image, box: Box) -> Float32:
    """Compute the central differences [2, h, w] of the luma in a box of an image [H, W, 3]."""
    around = box.grown(1).clipped(*image.shape[:2])
    luma, inner = _luma(around.cut(image)), _relative(box, around)
    step, flat = np.array([-0.5, 0.0, 0.5], np.float32), np.ones(1, np.float32)
    across = inner.cut(cv2.sepFilter2D(luma, cv2.CV_32F, step, flat))
    down = inner.cut(cv2.sepFilter2D(luma, cv2.CV_32F, flat, step))
    return np.stack([across, down])


def _relative(box: Box, around: Box) -> Box:
    """Compute the box in pixels of the larger box around it."""
    left, top = around.left, around.top
    return Box(box.left - left, box.top - top, box.right - left, box.bottom - top)


def _unit(image: Image) -> Float32:
    """Convert an image [h, w, 3] to float32 in [0, 1]."""
    if image.dtype == np.uint8:
        return image.astype(np.float32) * np.float32(1 / 255)
    return image.astype(np.float32, copy=False)


def _luma(image: Image) -> Float32:
    """Compute the luma [h, w] in [0, 1] of an image [h, w, 3]."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(_unit(image)), cv2.COLOR_RGB2GRAY))


# --------------------------------------------------------------------------- landmarks


def lmd(landmarks: Points, reference: Points) -> Float64:
    """Compute the mouth landmark distance of each frame.

    The mean L2 distance of the 40 lip points (`face.LIPS`), each set first centered on its own mean,
    so that only the mouth's shape and size count (Chen et al. 2018, arXiv 1803.10404).

    Args:
        landmarks: Landmarks [F, 478, 2 or 3].
        reference: Real landmarks [F, 478, 2 or 3].

    Returns:
        Distances [F] in the landmarks' unit, pixels.
    """
    ours, theirs = (_centered(points[:, list(LIPS), :2]) for points in (landmarks, reference))
    return np.asarray(np.linalg.norm(ours - theirs, axis=-1).mean(-1))


def _centered(points: Points) -> Float64:
    """Subtract the mean of each frame's points [F, P, 2]."""
    wide = points.astype(np.float64)
    return np.asarray(wide - wide.mean(1, keepdims=True))


def has_face(*landmarks: Points) -> Bool:
    """Find the frames with a face in every track.

    Args:
        *landmarks: Tracks [F, 478, 2 or 3], NaN in frames without a face.

    Returns:
        Mask [F] of the frames in which no track has a NaN.
    """
    known = [~np.isnan(points).any((1, 2)) for points in landmarks]
    return np.asarray(np.logical_and.reduce(known))


def eye_distance(landmarks: Points) -> Float64:
    """Compute the distance between the outer eye corners in each frame.

    Args:
        landmarks: Landmarks [F, 478, 2 or 3].

    Returns:
        Distances [F] in the landmarks' unit, pixels.
    """
    left, right = OUTER_EYE_CORNERS
    span = landmarks[:, left, :2].astype(np.float64) - landmarks[:, right, :2]
    return np.asarray(np.linalg.norm(span, axis=-1))


def correlation(values: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
    """Compute Pearson's r of two arrays.

    For lip apertures (`face.lip_aperture`), it shows whether the mouth opens when the real one does.

    Args:
        values: Any shape.
        reference: The same shape.

    Returns:
        Correlation in [-1, 1]; NaN if one of the arrays is constant.
    """
    ours, theirs = (np.ravel(v) - np.mean(v, dtype=np.float64) for v in (values, reference))
    product, own, true = (
        float(np.einsum("i,i", a, b))  # not BLAS, whose threads cost more than the sum
        for a, b in ((ours, theirs), (ours, ours), (theirs, theirs))
    )
    return product / (own * true) ** 0.5 if own * true > 1e-24 else float("nan")


def jitter(points: Points, frames: Int | None = None) -> float:
    """Compute the high-frequency energy of moving points.

    That is the mean square, per point, of x filtered by [1, -4, 6, -4, 1] / 16 over time. The
    filter's gain is sin(pi f / frame rate)^4: at 25 frames per second half the power of 9.2 Hz
    passes and less than 5 % of 6 Hz, so that trembling counts and speech hardly does.

    Args:
        points: Points [F, P, 2 or 3].
        frames: Their frame indices [F], ascending. Only runs of five consecutive frames count.

    Returns:
        Square pixels; NaN without such a run.
    """
    if len(points) < 5:
        return float("nan")
    x = points[..., :2].astype(np.float64)
    high = (x[:-4] - 4 * x[1:-3] + 6 * x[2:-2] - 4 * x[3:-1] + x[4:]) / 16
    if frames is not None:
        high = high[frames[4:] - frames[:-4] == 4]
    return float(np.square(high).sum(-1).mean()) if len(high) else float("nan")


def jitter_ratio(points: Points, reference: Points, frames: Int | None = None) -> float:
    """Compute the jitter of points over that of the reference.

    Args:
        points: Points [F, P, 2 or 3].
        reference: Real points [F, P, 2 or 3].
        frames: Their frame indices [F], ascending.

    Returns:
        The ratio; 1 means as much jitter as the reference. NaN if undefined.
    """
    own, true = jitter(points, frames), jitter(reference, frames)
    return own / true if true > 0 else float("nan")


# ---------------------------------------------------------------- registered measures

IMAGE_MEASURES: FrameMeasures[FramePair] = FrameMeasures(
    "images", "Images", "Number of frames with images compared"
)
"""Measures of a rendered frame against the real one."""


@dataclass(frozen=True)
class FramePair:
    """A rendered frame with the real one: the input of image measures.

    Attributes:
        image: Rendered image [H, W, 3], RGB.
        real: Real image [H, W, 3], RGB.
        landmarks: Landmarks [478, 2 or 3] of the real frame in pixels of the images.
        is_full_frame: False for head crops, to which the measures of full frames do not apply.
        lpips: Computes LPIPS of a box of the two images; None without its weights.
    """

    image: UInt8
    real: UInt8
    landmarks: Float32
    is_full_frame: bool = False
    lpips: Callable[[UInt8, UInt8, Box], float] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.real.shape[0], self.real.shape[1]

    @cached_property
    def face(self) -> Box:
        """Face box, clipped to the image."""
        return face_box(self.landmarks).clipped(*self.size)

    @cached_property
    def mouth(self) -> Box:
        """Mouth box, clipped to the image."""
        return mouth_box(self.landmarks).clipped(*self.size)

    @cached_property
    def head(self) -> Bool:
        """Mask [H, W] of the area above the lower line of the jaw."""
        return head_mask(self.landmarks, self.size)

    @cached_property
    def face_similarity(self) -> Float32:
        """`ssim_map` [h, w, 3] of the face box."""
        return ssim_map(self.image, self.real, self.face)


@IMAGE_MEASURES.measure("psnr_face", label="PSNR face", better="more", unit="dB")
def _psnr_face(frame: FramePair) -> float:
    """PSNR in the face box."""
    return psnr(frame.image, frame.real, frame.face)


@IMAGE_MEASURES.measure("psnr_head", label="PSNR head", better="more", unit="dB")
def _psnr_head(frame: FramePair) -> float:
    """PSNR in the face box above the jaw line, without neck and clothes."""
    return masked_psnr(frame.image, frame.real, frame.head, frame.face)


@IMAGE_MEASURES.measure("psnr_mouth", label="PSNR mouth", better="more", unit="dB")
def _psnr_mouth(frame: FramePair) -> float:
    """PSNR in the mouth box."""
    return psnr(frame.image, frame.real, frame.mouth)


@IMAGE_MEASURES.measure("psnr_frame", label="PSNR frame", better="more", unit="dB")
def _psnr_frame(frame: FramePair) -> float | None:
    """PSNR of whole pasted frames, most of whose pixels are real."""
    return psnr(frame.image, frame.real) if frame.is_full_frame else None


@IMAGE_MEASURES.measure("ssim_face", label="SSIM face", better="more", digits=3)
def _ssim_face(frame: FramePair) -> float:
    """Structural similarity in the face box."""
    return float(frame.face_similarity.mean(dtype=np.float64))


@IMAGE_MEASURES.measure("ssim_head", label="SSIM head", better="more", digits=3)
def _ssim_head(frame: FramePair) -> float:
    """Structural similarity in the face box above the jaw line, without neck and clothes."""
    inside = frame.face_similarity[frame.face.cut(frame.head)]
    return float(inside.mean(dtype=np.float64)) if len(inside) else float("nan")


@IMAGE_MEASURES.measure("ssim_mouth", label="SSIM mouth", better="more", digits=3)
def _ssim_mouth(frame: FramePair) -> float:
    """Structural similarity in the mouth box."""
    return ssim(frame.image, frame.real, frame.mouth)


@IMAGE_MEASURES.measure("ssim_frame", label="SSIM frame", better="more", digits=3)
def _ssim_frame(frame: FramePair) -> float | None:
    """Structural similarity of whole pasted frames, most of whose pixels are real."""
    return ssim(frame.image, frame.real) if frame.is_full_frame else None


@IMAGE_MEASURES.measure("sharpness", label="sharpness", better=1.0, headline="median")
def _sharpness(frame: FramePair) -> float:
    """Detail of the mouth over that of the real one: 1 is real."""
    return sharpness_ratio(frame.image, frame.real, frame.mouth)


@IMAGE_MEASURES.measure("gradient_correlation", label="detail in place", better="more")
def _gradient_correlation(frame: FramePair) -> float:
    """Correlation of the mouth's detail with that of the real one."""
    return gradient_correlation(frame.image, frame.real, frame.mouth)
