"""The measures, as pure functions of images and landmarks. docs/measures.md: how to read them.

Images are RGB [H, W, 3], uint8 or float in [0, 1]. Landmarks are mediapipe's 478 points in pixels
of the image, [478, 2 or 3] of one frame or [F, 478, 2 or 3] of many.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from talkhead.face import JAW_LINE, LIPS, N_SURFACE, OUTER_EYE_CORNERS, OUTER_LIPS
from talkhead.types import Bool, Float32, Float64, Int

Image = npt.NDArray[Any]
"""[H, W, 3] RGB, uint8 or float in [0, 1]."""

Points = npt.NDArray[np.floating[Any]]
"""Landmarks in pixels, [478, 2 or 3] of a frame, [F, 478, 2 or 3] of many."""

MAX_PSNR = 100.0
"""What identical images score, and the most that any do: so that means stay finite."""

FACE_MARGIN, MOUTH_MARGIN = 0.1, 0.4
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
_C1, _C2 = np.float32(0.01**2), np.float32(0.03**2)
_STRIP = 64  # rows at a time: fits the cache and the allocator's pool, twice as fast as all at once


class Box(NamedTuple):
    """A rectangle of whole pixels; right and bottom are just outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        """Pixels inside; 0 when there are none."""
        return max(0, self.right - self.left) * max(0, self.bottom - self.top)

    def clipped(self, height: int, width: int) -> Box:
        """The part that lies in an image of that size."""
        left, right = (min(max(0, x), width) for x in (self.left, self.right))
        top, bottom = (min(max(0, y), height) for y in (self.top, self.bottom))
        return Box(left, top, right, bottom)

    def grown(self, margin: int) -> Box:
        """The box with a margin in pixels on each side."""
        left, top, right, bottom = self
        return Box(left - margin, top - margin, right + margin, bottom + margin)

    def cut(self, image: Image) -> Image:
        """The box's part of an image (a view)."""
        return image[self.top : self.bottom, self.left : self.right]


def whole(image: Image) -> Box:
    """The box of the whole image."""
    return Box(0, 0, image.shape[1], image.shape[0])


def face_box(landmarks: Points) -> Box:
    """Bounding box of the 468 surface landmarks, larger by 10 % of its width at the left and right
    and 10 % of its height above and below. Not clipped to any image.

    landmarks: [478, 2 or 3] pixels, of the true frame.
    """
    low, high = _bounds(landmarks[:N_SURFACE])
    return _box(low, high, FACE_MARGIN * (high - low))


def mouth_box(landmarks: Points) -> Box:
    """Bounding box of the outer lips, larger by 40 % of its width on all four sides. Not clipped.

    landmarks: [478, 2 or 3] pixels, of the true frame.
    """
    low, high = _bounds(landmarks[list(OUTER_LIPS)])
    return _box(low, high, np.full(2, MOUTH_MARGIN * (high - low)[0]))


def _bounds(points: Points) -> tuple[Float64, Float64]:
    flat = points[:, :2].astype(np.float64)
    return flat.min(0), flat.max(0)


def _box(low: Float64, high: Float64, margin: Float64) -> Box:
    left, top = (int(n) for n in np.floor(low - margin))
    right, bottom = (int(n) for n in np.ceil(high + margin))
    return Box(left, top, right, bottom)


# ------------------------------------------------------------------------------ images


def head_mask(landmarks: Points, size: tuple[int, int]) -> Bool:
    """Where the head may be, [H, W] bool: above the lower line of the jaw, out to the image's sides.

    landmarks: [478, 2 or 3] pixels, of the true frame. size: height, width. Neck and clothes, which
    move by themselves and fill the lower corners of the face box, lie outside.
    """
    jaw = landmarks[list(JAW_LINE), :2]
    right, left = jaw[0], jaw[-1]
    sides = [[-1.0, left[1]], [-1.0, -1.0], [size[1], -1.0], [size[1], right[1]]]
    outline = np.concatenate([jaw, sides]).round().astype(np.int32)
    return cv2.fillPoly(np.zeros(size, np.uint8), [outline], 1) > 0


def masked_psnr(image: Image, reference: Image, mask: Bool, box: Box) -> float:
    """psnr over the pixels of a box that lie in a mask [H, W]; NaN where there are none."""
    inside = box.cut(mask)
    if not inside.any():
        return float("nan")
    error = _unit(box.cut(image)[inside]) - _unit(box.cut(reference)[inside])
    mse = float(np.mean(np.square(error, dtype=np.float64)))
    return min(MAX_PSNR, -10.0 * float(np.log10(max(mse, 1e-30))))


def psnr(image: Image, reference: Image, box: Box | None = None) -> float:
    """Peak signal-to-noise ratio in dB over a box: 10 log10(1 / MSE), MSE over pixels and channels
    of RGB in [0, 1]; MAX_PSNR at most, which is also what identical images score.

    box: within the image; None is the whole image.
    """
    box = box or whole(reference)
    ours, theirs, peak = box.cut(image), box.cut(reference), 255.0
    if not ours.dtype == theirs.dtype == np.uint8:
        ours, theirs, peak = _unit(ours), _unit(theirs), 1.0
    ours, theirs = np.ascontiguousarray(ours), np.ascontiguousarray(theirs)
    mse = cv2.norm(ours, theirs, cv2.NORM_L2SQR) / (ours.size * peak**2)
    return min(MAX_PSNR, -10.0 * float(np.log10(max(mse, 1e-30))))


def ssim(image: Image, reference: Image, box: Box | None = None) -> float:
    """Structural similarity over a box, at most 1: the mean of ssim_map."""
    return float(np.mean(ssim_map(image, reference, box), dtype=np.float64))


def ssim_map(image: Image, reference: Image, box: Box | None = None) -> Float32:
    """Structural similarity at each pixel and channel of a box, [h, w, 3].

    Wang et al. 2004 (IEEE TIP 13(4), eq. 13): 11x11 Gaussian window of sigma 1.5, range 1,
    K1 = 0.01, K2 = 0.03, moments of the population. The same as on the whole image, then cut:
    windows see the pixels beside the box, and mirror the image only at its own border.

    With s = x + y and d = x - y, four blurs do instead of five: mu_x mu_y is a quarter of
    mu_s^2 - mu_d^2, mu_x^2 + mu_y^2 half of mu_s^2 + mu_d^2, and likewise for the variances and
    the covariance.
    """
    box = box or whole(reference)
    strips = [
        _ssim_strip(image, reference, box._replace(top=top, bottom=min(top + _STRIP, box.bottom)))
        for top in range(box.top, box.bottom, _STRIP)
    ]
    return np.concatenate(strips)


def _ssim_strip(image: Image, reference: Image, box: Box) -> Float32:
    around = box.grown(SSIM_WINDOW // 2).clipped(*reference.shape[:2])
    total, difference = _unit(around.cut(image)), _unit(around.cut(reference))
    total, difference = cv2.add(total, difference), cv2.subtract(total, difference)
    mean_s, variance_s = _half_moments(total)
    mean_d, variance_d = _half_moments(difference)
    above = cv2.multiply(mean_s - mean_d + _C1, variance_s - variance_d + _C2)
    mean_s += mean_d + _C1
    variance_s += variance_d + _C2
    ratio: Float32 = cv2.divide(above, cv2.multiply(mean_s, variance_s))
    return _back(box, around).cut(ratio)


def _half_moments(values: Float32) -> tuple[Float32, Float32]:
    """Half the squared local mean and half the local variance; values are overwritten.

    In place, because fresh memory costs more than the arithmetic.
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


def sharpness_ratio(image: Image, reference: Image, box: Box | None = None) -> float:
    """Variance of the Laplacian of the luma over the reference's, in a box: 1 is as sharp as real.

    The 4-neighbour Laplacian of BT.601 luma. Noise is sharp too: read it beside
    gradient_correlation. NaN where the reference is flat.
    """
    box = box or whole(reference)
    own, true = (_variance(_laplacian(i, box)) for i in (image, reference))
    return own / true if true > 0 else float("nan")


def gradient_correlation(image: Image, reference: Image, box: Box | None = None) -> float:
    """Correlation of the luma's gradients with the reference's in a box, in [-1, 1].

    Pearson's r over the horizontal and vertical central differences of all pixels together: detail
    counts only where the true frame has it, in the same place.
    """
    box = box or whole(reference)
    return correlation(_gradients(image, box), _gradients(reference, box))


def _variance(values: Float32) -> float:
    _, deviation = cv2.meanStdDev(np.ascontiguousarray(values))
    return float(deviation[0, 0]) ** 2


def _laplacian(image: Image, box: Box) -> Float32:
    around = box.grown(1).clipped(*image.shape[:2])
    return np.asarray(_back(box, around).cut(cv2.Laplacian(_luma(around.cut(image)), cv2.CV_32F)))


def _gradients(image: Image, box: Box) -> Float32:
    around = box.grown(1).clipped(*image.shape[:2])
    luma, inner = _luma(around.cut(image)), _back(box, around)
    step, flat = np.array([-0.5, 0.0, 0.5], np.float32), np.ones(1, np.float32)
    across = inner.cut(cv2.sepFilter2D(luma, cv2.CV_32F, step, flat))
    down = inner.cut(cv2.sepFilter2D(luma, cv2.CV_32F, flat, step))
    return np.stack([across, down])


def _back(box: Box, around: Box) -> Box:
    """The box in pixels of the larger box around it."""
    left, top = around.left, around.top
    return Box(box.left - left, box.top - top, box.right - left, box.bottom - top)


def _unit(image: Image) -> Float32:
    if image.dtype == np.uint8:
        return image.astype(np.float32) * np.float32(1 / 255)
    return image.astype(np.float32, copy=False)


def _luma(image: Image) -> Float32:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(_unit(image)), cv2.COLOR_RGB2GRAY))


# --------------------------------------------------------------------------- landmarks


def lmd(landmarks: Points, reference: Points) -> Float64:
    """Mouth landmark distance of each frame, [F], in the landmarks' unit (pixels).

    The mean L2 distance of the 40 lip points (face.LIPS), each set first centred on its own mean,
    so that only the mouth's shape and size count (Chen et al. 2018, arXiv 1803.10404).
    landmarks, reference: [F, 478, 2 or 3].
    """
    ours, theirs = (_centered(points[:, list(LIPS), :2]) for points in (landmarks, reference))
    return np.asarray(np.linalg.norm(ours - theirs, axis=-1).mean(-1))


def _centered(points: Points) -> Float64:
    wide = points.astype(np.float64)
    return np.asarray(wide - wide.mean(1, keepdims=True))


def has_face(*landmarks: Points) -> Bool:
    """In which frames, [F] bool, all of the landmarks [F, 478, 2 or 3] are known: NaN is no face."""
    known = [~np.isnan(points).any((1, 2)) for points in landmarks]
    return np.asarray(np.logical_and.reduce(known))


def eye_distance(landmarks: Points) -> Float64:
    """Distance of the outer eye corners of each frame, [F], in the landmarks' unit."""
    left, right = OUTER_EYE_CORNERS
    span = landmarks[:, left, :2].astype(np.float64) - landmarks[:, right, :2]
    return np.asarray(np.linalg.norm(span, axis=-1))


def correlation(values: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
    """Pearson's r of two arrays of one shape; NaN where one of them is constant.

    Of lip apertures (face.lip_aperture) it says whether the mouth opens when the true one does.
    """
    ours, theirs = (np.ravel(v) - np.mean(v, dtype=np.float64) for v in (values, reference))
    product, own, true = (
        float(np.einsum("i,i", a, b))  # not BLAS, whose threads cost more than the sum
        for a, b in ((ours, theirs), (ours, ours), (theirs, theirs))
    )
    return product / (own * true) ** 0.5 if own * true > 1e-24 else float("nan")


def jitter(points: Points, frames: Int | None = None) -> float:
    """High-frequency energy of moving points: the mean square, per point, of x filtered by
    [1, -4, 6, -4, 1] / 16 over time.

    The filter's gain is sin(pi f / frame rate)^4: at 25 frames a second half the power of 9.2 Hz
    passes and less than 5 % of 6 Hz, so that speech hardly counts and trembling does.
    points: [F, P, 2 or 3]. frames: [F] their frame numbers, rising; only runs of five
    consecutive frames count. NaN where there is none.
    """
    if len(points) < 5:
        return float("nan")
    x = points[..., :2].astype(np.float64)
    high = (x[:-4] - 4 * x[1:-3] + 6 * x[2:-2] - 4 * x[3:-1] + x[4:]) / 16
    if frames is not None:
        high = high[frames[4:] - frames[:-4] == 4]
    return float(np.square(high).sum(-1).mean()) if len(high) else float("nan")


def jitter_ratio(points: Points, reference: Points, frames: Int | None = None) -> float:
    """jitter of points over that of the reference's: 1 trembles as real does. NaN if undefined."""
    own, true = jitter(points, frames), jitter(reference, frames)
    return own / true if true > 0 else float("nan")
