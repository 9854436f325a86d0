"""Opacity and color of the person at the uncertain rim of the mask.

A rim pixel is a mixture I = a F + (1 - a) B of the person's color F and the background's color B.
Both are estimated from the same image, as weighted means of the person, or of the background,
nearby. The mask gives a first opacity. Where F and B differ greatly, compared with how much both
vary along the line between them, the position of I on that line corrects it: the two estimates are
averaged, weighted by their certainty. In front of a plain background, this corrects a mask that is
too large. Dark hair in front of dark books, with bright skin nearby, keeps the opacity of the mask.
"""

from __future__ import annotations

import cv2
import numba
import numpy as np

from talkhead.renderers.fastmath import AS_WRITTEN
from talkhead.types import Bool, Float32, Int, UInt8

COARSE = 4
"""Factor by which images are reduced before means of a neighborhood are computed."""
WINDOW_SIDES = (3, 7, 15)
"""Sides of the squares, in coarse pixels, over which F and B are averaged."""
WINDOW_DECAY = 0.1
"""Weight of a square relative to the next smaller one: the nearest colors dominate."""
LEVELS = (0.15, 0.85)
"""Mask values below the first count as background, above the second as person: segmentation leaves a
haze around people.
"""
EDGE = 7
"""Side of the square by which person and background are eroded before F and B are estimated, pixels:
masks are often a little too large or too small.
"""
NOISE = 0.06
"""Minimum standard deviation of F and B, in RGB."""
MASK_CERTAINTY = 400.0
"""Certainty of the mask's opacity. That of the colors is the cube of contrast^2 / variance."""
MIN_FRACTION = 0.001
"""Minimum fraction of a neighborhood that must be person, or background, for its mean to be used."""
N_MOMENTS = 10
"""Number of moments of person or background: the means of RGB, of rr, gg, bb, rg, gb, br, and the
mean weight.
"""
BLOCK = 64
"""Number of pixels that are unmixed at a time. A block has a row of this length for each moment of
the person and of the background, for each color and for the opacity. The compiler knows where the
rows begin, and can therefore vectorize.
"""
_NOISE, _SURE = np.float32(NOISE**2), np.float32(MASK_CERTAINTY)
_LEAST, _TINY, _EMPTY = np.float32(MIN_FRACTION), np.float32(1e-6), np.float32(1e-9)
_ZERO, _ONE, _TWO, _HALF = np.float32(0.0), np.float32(1.0), np.float32(2.0), np.float32(0.5)
_STEP, _U0, _U1, _U3 = np.float32(COARSE), np.uint64(0), np.uint64(1), np.uint64(3)
_BLOCK, _N_ALL = np.uint64(BLOCK), np.uint64(2 * N_MOMENTS)
_R1, _R2, _R3, _R4, _R5, _R6, _R7, _R8, _WEIGHT = np.arange(1, N_MOMENTS, dtype=np.uint64) * _BLOCK
_BACK, _COLORS = np.uint64(N_MOMENTS * BLOCK), np.uint64(2 * N_MOMENTS * BLOCK)
_SHARE = np.uint64((2 * N_MOMENTS + 3) * BLOCK)


def rim_matte(image: Float32, mask: UInt8, inner: Bool, rim: Bool) -> tuple[Float32, Float32]:
    """Estimate opacity and color at the rim of a mask.

    Args:
        image: [H, W, 3] in [0, 1].
        mask: [H, W], 255 where the person is.
        inner: [H, W], pixels that certainly show the person.
        rim: [H, W], pixels that may show the person or the background. The mask is below LEVELS
            outside of these and of the inner ones.

    Returns:
        Opacities [H, W] in [0, 1], which are 1 inside and 0 outside of the rim, and the image of
        the person alone [H, W, 3], premultiplied by them.
    """
    # The fractions are monotone in the mask, and its bytes are eroded faster.
    shares, edge = _soft_steps(), np.ones((EDGE, EDGE), np.uint8)
    mask = np.where(inner, np.uint8(255), mask)
    grown = np.asarray(cv2.dilate(mask, edge), np.uint8)
    alpha, person = inner.astype(np.float32), np.asarray(cv2.copyTo(image, inner.view(np.uint8)))
    # Haze farther away from the person is background of any color.
    pixels = np.flatnonzero(rim & (shares > 0.0)[grown])
    if not len(pixels):
        return alpha, person
    front = cv2.LUT(cv2.erode(mask, edge), shares**3)
    back = cv2.LUT(grown, (np.float32(1.0) - shares) ** 3)
    moments = _moments(image, front, back, pixels)
    _unmix(image, mask, shares, pixels, moments, alpha, person)
    return alpha, person


def _soft_steps() -> Float32:
    """Return the fraction of person for each value of a mask, [256]: a smooth step between LEVELS."""
    low, high = LEVELS
    share = (np.arange(256, dtype=np.float32) / 255.0 - low) / (high - low)
    share = np.clip(share, 0.0, 1.0)
    return np.asarray(share * share * (3.0 - 2.0 * share), np.float32)


def _coarse(image: Float32) -> Float32:
    """Reduce an image [H, W, ...] by COARSE, averaging."""
    height, width = image.shape[:2]
    size = (-(-width // COARSE), -(-height // COARSE))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def _moments(image: Float32, front: Float32, back: Float32, pixels: Int) -> Float32:
    """Compute weighted means around coarse pixels.

    Args:
        image: [H, W, 3] in [0, 1].
        front: [H, W], weights of the person.
        back: [H, W], weights of the background.
        pixels: [n], y * W + x of the pixels at which the means will be looked up.

    Returns:
        [h, w, 2 N_MOMENTS]: the moments of the person, and those of the background. Those that will
        not be looked up are not defined.
    """
    small, front, back = map(_coarse, (image, front, back))
    rows, columns = (_padded(size) for size in front.shape)
    sums = np.empty((len(rows) + 1, len(columns) + 1, 2 * N_MOMENTS))
    sums[0] = sums[:, 0] = 0.0
    _integrate(small, front, back, rows, columns, sums)
    needed = np.zeros(front.shape, np.bool_)
    _mark(pixels, image.shape[1], needed)
    moments = np.empty((*front.shape, 2 * N_MOMENTS), np.float32)
    _average(sums, needed, moments)
    return moments


def _padded(size: int) -> Int:
    """Return the indices of an axis of some size, reflected at its ends for the largest square."""
    reach = WINDOW_SIDES[-1] // 2
    places = range(-reach, size + reach)
    return np.array([cv2.borderInterpolate(i, size, cv2.BORDER_REFLECT_101) for i in places])


@numba.njit(nogil=True, cache=True, fastmath=AS_WRITTEN, error_model="numpy")
def _integrate(small, front, back, rows, columns, sums):  # type: ignore[no-untyped-def]
    """Sum the weighted moments over all coarse pixels above and to the left.

    Args:
        small: [h, w, 3], the reduced image.
        front: [h, w], weights of the person.
        back: [h, w], weights of the background.
        rows: [m], the row of each row of the padded image.
        columns: [n], the column of each column of the padded image.
        sums: [m + 1, n + 1, 2 N_MOMENTS], all but the first row and column are written.
    """
    row, values = np.empty(2 * N_MOMENTS), np.empty(N_MOMENTS, np.float32)
    for i in range(np.uint64(len(rows))):
        row[:] = 0.0
        for j in range(np.uint64(len(columns))):
            y, x = np.uint64(rows[i]), np.uint64(columns[j])
            red, green, blue = small[y, x, 0], small[y, x, 1], small[y, x, 2]
            values[0], values[1], values[2] = red, green, blue
            values[3], values[4], values[5] = red * red, green * green, blue * blue
            values[6], values[7], values[8] = red * green, green * blue, blue * red
            values[9] = _ONE
            for k in range(np.uint64(N_MOMENTS)):
                row[k] += values[k] * front[y, x]
                row[k + np.uint64(N_MOMENTS)] += values[k] * back[y, x]
            for k in range(np.uint64(2 * N_MOMENTS)):
                sums[i + _U1, j + _U1, k] = sums[i, j + _U1, k] + row[k]


@numba.njit(nogil=True, cache=True, fastmath=AS_WRITTEN, error_model="numpy")
def _mark(pixels, width, needed):  # type: ignore[no-untyped-def]
    """Mark the coarse pixels [h, w] from which _look_up interpolates at pixels [n], y * width + x."""
    height_coarse, width_coarse = np.uint64(needed.shape[0]), np.uint64(needed.shape[1])
    for i in range(np.uint64(len(pixels))):
        y, x = np.uint64(pixels[i]) // np.uint64(width), np.uint64(pixels[i]) % np.uint64(width)
        top, below, _ = _place(y, height_coarse)
        left, right, _ = _place(x, width_coarse)
        needed[top, left] = needed[top, right] = True
        needed[below, left] = needed[below, right] = True


@numba.njit(nogil=True, cache=True, fastmath=AS_WRITTEN, error_model="numpy")
def _average(sums, needed, moments):  # type: ignore[no-untyped-def]
    """Average the moments over the windows around each coarse pixel.

    Args:
        sums: [h + 2 reach + 1, w + 2 reach + 1, 2 N_MOMENTS] of _integrate.
        needed: [h, w], the coarse pixels to average for.
        moments: [h, w, 2 N_MOMENTS], written.
    """
    total = np.empty(2 * N_MOMENTS)
    for y in range(np.uint64(moments.shape[0])):
        for x in range(np.uint64(moments.shape[1])):
            if not needed[y, x]:
                continue
            total[:] = 0.0
            for i in range(len(WINDOW_SIDES)):
                side = np.uint64(WINDOW_SIDES[i])
                first = (np.uint64(WINDOW_SIDES[-1]) - side) // np.uint64(2)
                top, left = y + first, x + first
                below, right = top + side, left + side
                scale = WINDOW_DECAY**i / WINDOW_SIDES[i] ** 2
                for k in range(np.uint64(2 * N_MOMENTS)):
                    inside = sums[below, right, k] - sums[top, right, k]
                    total[k] += scale * (inside - sums[below, left, k] + sums[top, left, k])
            for part in range(np.uint64(2)):
                start = part * np.uint64(N_MOMENTS)
                weight = total[start + np.uint64(N_MOMENTS - 1)]
                for k in range(start, start + np.uint64(N_MOMENTS - 1)):
                    moments[y, x, k] = total[k] / max(weight, _EMPTY)
                moments[y, x, start + np.uint64(N_MOMENTS - 1)] = weight


@numba.njit(nogil=True, cache=True, fastmath=AS_WRITTEN, error_model="numpy")
def _unmix(image, mask, shares, pixels, moments, alpha, person):  # type: ignore[no-untyped-def]
    """Write the rim's pixels of alpha and person.

    Args:
        image: [H, W, 3], the frame.
        mask: [H, W].
        shares: [256], the opacity for each value of the mask.
        pixels: [n], y * W + x of each pixel of the rim.
        moments: [h, w, 2 N_MOMENTS], of _moments.
        alpha: [H, W], written.
        person: [H, W, 3], written.
    """
    width, n_pixels = np.uint64(image.shape[1]), np.uint64(len(pixels))
    block, found = np.zeros(_SHARE + _BLOCK, np.float32), np.empty(moments.shape[2], np.float32)
    for start in range(_U0, n_pixels, _BLOCK):
        size = min(_BLOCK, n_pixels - start)
        for i in range(size):
            pixel = np.uint64(pixels[start + i])
            y, x = pixel // width, pixel % width
            _look_up(moments, y, x, found)
            for k in range(_N_ALL):
                block[k * _BLOCK + i] = found[k]
            for c in range(_U3):
                block[_COLORS + c * _BLOCK + i] = image[y, x, c]
            block[_SHARE + i] = shares[mask[y, x]]
        _unmix_block(block)
        for i in range(size):
            pixel = np.uint64(pixels[start + i])
            y, x = pixel // width, pixel % width
            alpha[y, x] = block[_SHARE + i]
            for c in range(_U3):
                person[y, x, c] = block[_COLORS + c * _BLOCK + i]


@numba.njit(nogil=True, cache=True, fastmath=AS_WRITTEN, error_model="numpy")
def _look_up(moments, y, x, found):  # type: ignore[no-untyped-def]
    """Interpolate moments [h, w, 2 N_MOMENTS] bilinearly at a pixel, into found [2 N_MOMENTS]."""
    top, below, down = _place(y, np.uint64(moments.shape[0]))
    left, right, across = _place(x, np.uint64(moments.shape[1]))
    for k in range(np.uint64(len(found))):
        upper, lower = moments[top, left, k], moments[below, left, k]
        upper += across * (moments[top, right, k] - upper)
        lower += across * (moments[below, right, k] - lower)
        found[k] = upper + down * (lower - upper)


@numba.njit(nogil=True, cache=True, fastmath=AS_WRITTEN, error_model="numpy")
def _place(pixel, size):  # type: ignore[no-untyped-def]
    """Return the coarse indices around a pixel's center on an axis, and the position between them."""
    position = (np.float32(pixel) + _HALF) / _STEP - _HALF
    position = min(max(position, _ZERO), np.float32(size - _U1))
    before = np.uint64(position)
    return before, min(before + _U1, size - _U1), position - np.float32(before)


@numba.njit(nogil=True, cache=True, fastmath=AS_WRITTEN, error_model="numpy")
def _unmix_block(block):  # type: ignore[no-untyped-def]
    """Replace the opacities of a block by corrected ones, and its colors by the person's part."""
    for i in range(_BLOCK):
        # Project the pixel I onto the line from B to F: place in [0, 1] is the opacity.
        fx, fy, fz = block[i], block[_R1 + i], block[_R2 + i]
        bx, by, bz = block[_BACK + i], block[_BACK + _R1 + i], block[_BACK + _R2 + i]
        ix, iy, iz = block[_COLORS + i], block[_COLORS + _R1 + i], block[_COLORS + _R2 + i]
        x, y, z = fx - bx, fy - by, fz - bz
        contrast = _TINY + x * x + y * y + z * z
        place = ((ix - bx) * x + (iy - by) * y + (iz - bz) * z) / contrast
        place = min(max(place, _ZERO), _ONE)
        dx, dy, dz = ix - bx - place * x, iy - by - place * y, iz - bz - place * z
        off_axis = dx * dx + dy * dy + dz * dz
        spread, rest = _spread(block, i, x, y, z, contrast)
        spread_far, rest_far = _spread(block, _BACK + i, x, y, z, contrast)
        # The distance from the line adds to the variance, unless F and B vary across it.
        variance = _NOISE + spread + spread_far
        variance += off_axis * off_axis / (_NOISE + rest + rest_far)
        # Average both estimates of the opacity, weighted by their certainty.
        front, back = block[_WEIGHT + i], block[_BACK + _WEIGHT + i]
        ratio = contrast / variance
        certainty = ratio * ratio * ratio if min(front, back) > _LEAST else _ZERO
        share = (certainty * place + _SURE * block[_SHARE + i]) / (certainty + _SURE)
        # The person's part of the pixel: I - (1 - a) B, where B is I if it is unknown.
        known, clear = back > _LEAST, _ONE - share
        bx, by, bz = bx if known else ix, by if known else iy, bz if known else iz
        block[_SHARE + i] = share
        block[_COLORS + i] = min(max(ix - clear * bx, _ZERO), share)
        block[_COLORS + _R1 + i] = min(max(iy - clear * by, _ZERO), share)
        block[_COLORS + _R2 + i] = min(max(iz - clear * bz, _ZERO), share)


@numba.njit(nogil=True, cache=True, fastmath=AS_WRITTEN, error_model="numpy")
def _spread(block, i, x, y, z, contrast):  # type: ignore[no-untyped-def]
    """Return the variance of colors along an axis of squared length `contrast`, and across it."""
    red, green, blue = block[i], block[_R1 + i], block[_R2 + i]
    rr, gg, bb = block[_R3 + i], block[_R4 + i], block[_R5 + i]
    rg, gb, br = block[_R6 + i], block[_R7 + i], block[_R8 + i]
    rr, gg, bb = rr - red * red, gg - green * green, bb - blue * blue
    mixed = x * y * (rg - red * green) + y * z * (gb - green * blue) + z * x * (br - blue * red)
    along = (x * x * rr + y * y * gg + z * z * bb + _TWO * mixed) / contrast
    along = max(along, _ZERO)
    return along, max(rr + gg + bb - along, _ZERO)
