"""Blending of splats and its backward pass (numba, CPU).

Each tile's list (see cpu_tiles.py) is processed in stretches: a stretch becomes a flat list of
(splat, block) items, and an item is 16 pixels, so that the compiler vectorizes it.

Results are bitwise reproducible with any number of threads: a tile is processed by one thread,
gradients are written per entry and summed per splat in a fixed order.

Style of the kernels, whose effect was measured: unsigned indices (signed ones are tested for being
negative, which prevents vectorization), float32 constants (Python's floats would promote to
float64), one scratch array per tile with fixed offsets (the compiler must assume that separate
arrays overlap), the error model "numpy" (Python's tests every divisor). Kernels that call each other
are in one file, because numba's cache does not notice changes in other files.
"""

from typing import Any

import numpy as np
from numba import njit, prange, types
from numba.extending import intrinsic

from talkhead.renderers.fastmath import AS_WRITTEN, IN_ORDER, fma, widest_vectors
from talkhead.renderers.gaussian.rasterizer.cpu_project import TILE_PX

_U0 = np.uint64(0)
_U1 = np.uint64(1)
_U2 = np.uint64(2)
_U3 = np.uint64(3)
_U4 = np.uint64(4)
_U5 = np.uint64(5)
_U6 = np.uint64(6)
_U7 = np.uint64(7)
_U8 = np.uint64(8)
_U9 = np.uint64(9)
_U12 = np.uint64(12)
_U15 = np.uint64(15)
_U16 = np.uint64(16)
_TILE = np.uint64(TILE_PX)
_TILE_AREA = np.uint64(TILE_PX * TILE_PX)
# Where the moments' sums start in the scratch array of the backward pass.
_SUMS = np.uint64(5 * TILE_PX * TILE_PX)
# Entries of a tile's list that are flattened at a time: finished blocks drop out in between.
_STRETCH = np.uint64(64)
_ITEMS = np.uint64(64 * 16)
# Tiles are distributed to this many strands in turn; prime, so that no strand is a column.
_STRANDS = 61
# Columns of a gradient record: the nine moments that project_backward needs.
_N_MOMENTS = 9

_F0 = np.float32(0.0)
_F1 = np.float32(1.0)
_HALF = np.float32(0.5)
# A larger x is below the alpha floor at any opacity: ln(255) / 8 = 0.6927.
_X_MAX = np.float32(0.7)
# exp(-x) on [0, 0.7], degree 5, minimax (relative error 9e-8; of the eighth power: 2e-6).
_E1 = np.float32(-0.99999476)
_E2 = np.float32(0.49989978)
_E3 = np.float32(-0.16602841)
_E4 = np.float32(0.03984831)
_E5 = np.float32(-0.00588525)


@intrinsic  # type: ignore[misc]
def _trailing_zeros(typing_context: Any, value: Any) -> Any:
    """Count the zero bits below the lowest set bit of a non-zero uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], context.get_constant(types.boolean, True))

    return types.uint64(types.uint64), codegen


@njit(cache=True, error_model="numpy", inline="always")
def _flatten(masks: Any, first: Any, last: Any, alive: Any, items: Any) -> Any:
    """Write (entry - first) * 16 + block to `items` for each block in `alive`; return their number."""
    n = _U0
    for entry in range(first, last):
        mask = np.uint64(masks[entry]) & alive
        code = (entry - first) << _U4
        while mask != _U0:
            items[n] = code | _trailing_zeros(mask)
            n += _U1
            mask &= mask - _U1
    return n


@njit(fastmath=IN_ORDER, error_model="numpy", inline="always")
def _alive(s: Any) -> Any:
    """Return a mask of the blocks with any unfinished pixel, whose transmittance is positive."""
    alive: Any = _U0
    for block in range(_U16):
        most = _F0
        for lane in range(_U16):
            most = max(most, s[(block << _U4) + lane])
        if most > _F0:
            alive |= _U1 << block
    return alive


@njit(nogil=True, fastmath=AS_WRITTEN, error_model="numpy")
def _blend_items(
    items: Any,
    n: Any,
    first: Any,
    splats: Any,
    records: Any,
    x0: Any,
    y0: Any,
    blending: Any,
    s: Any,
) -> None:
    """Blend splats over blocks, in the order of `items` ((entry - first) * 16 + block, see `_flatten`).

    s [4 * 256]: transmittance, then red, green, blue of the tile's pixels, block by block. The
    transmittance of a finished pixel is negated, so that every later splat falls below the
    threshold as well.
    """
    widest_vectors()
    floor, cap, stop = blending[_U0], blending[_U1], blending[_U2]
    for k in range(n):
        item = np.uint64(items[k])
        j = np.uint64(splats[first + (item >> _U4)])
        block = item & _U15
        dx0 = x0 + np.float32((block & _U3) << _U2) - records[j, _U0]
        dy0 = y0 + np.float32(block & _U12) - records[j, _U1]
        a, b, c = records[j, _U2], records[j, _U3], records[j, _U4]
        opacity = records[j, _U5]
        red, green, blue = records[j, _U6], records[j, _U7], records[j, _U8]
        base = block << _U4
        for lane in range(_U16):
            # x: an eighth of the exponent; e: exp(-x), whose eighth power scales the opacity.
            dx = dx0 + np.float32(lane & _U3)
            dy = dy0 + np.float32(lane >> _U2)
            u = fma(b, dy, a * dx)
            v = c * dy
            x = min(fma(u, u, v * v), _X_MAX)
            e = fma(x, fma(x, fma(x, fma(x, fma(x, _E5, _E4), _E3), _E2), _E1), _F1)
            e = e * e
            e = e * e
            alpha = opacity * (e * e)
            alpha = min(alpha, cap) if alpha >= floor else _F0
            # Front to back: weight w = transmittance x alpha, unless the pixel is finished by it.
            t = s[base + lane]
            w = t * alpha
            rest = t - w
            finished = rest <= stop
            w = _F0 if finished else w
            s[base + lane] = -abs(t) if finished else rest
            p = base + lane + _TILE_AREA
            s[p] = fma(w, red, s[p])
            s[p + _TILE_AREA] = fma(w, green, s[p + _TILE_AREA])
            s[p + _TILE_AREA * _U2] = fma(w, blue, s[p + _TILE_AREA * _U2])


@njit(nogil=True, fastmath=IN_ORDER, parallel=True, cache=True, error_model="numpy")
def blend(
    tile_starts: Any,
    splats: Any,
    masks: Any,
    records: Any,
    blending: Any,
    rgb: Any,
    alpha: Any,
) -> None:
    """Blend the splats of one image.

    Args:
        tile_starts: [T + 1], returned by `deal`, as are splats and masks.
        splats: [E], the splat of each entry.
        masks: [E], its mask of blocks.
        records: [M, 9], returned by `gather`.
        blending: float32 [3], alpha floor, alpha cap, minimum transmittance.
        rgb: [H, W, 3], written, premultiplied.
        alpha: [H, W, 1], written.
    """
    height, width = np.uint64(alpha.shape[0]), np.uint64(alpha.shape[1])
    tiles_x = (width + _U15) >> _U4
    n_tiles = np.uint64(tile_starts.shape[0] - 1)
    for strand in prange(_STRANDS):
        # Scratch arrays of the thread, then its tiles, one after the other.
        s = np.empty(_TILE_AREA * _U4, np.float32)
        items = np.empty(_ITEMS + _U1, np.uint16)
        for tile in range(np.uint64(strand), n_tiles, np.uint64(_STRANDS)):
            left, top = (tile % tiles_x) << _U4, (tile // tiles_x) << _U4
            first, end = np.uint64(tile_starts[tile]), np.uint64(tile_starts[tile + _U1])
            if first == end:
                rgb[top : top + _TILE, left : left + _TILE] = _F0
                alpha[top : top + _TILE, left : left + _TILE] = _F0
                continue
            _start_tile(s, left, top, width, height)
            x0, y0 = np.float32(left) + _HALF, np.float32(top) + _HALF
            # Blend a stretch of the list at a time, until it ends or all blocks are finished.
            alive = _alive(s)
            while first < end and alive != _U0:
                last = min(first + _STRETCH, end)
                n = _flatten(masks, first, last, alive, items)
                _blend_items(items, n, first, splats, records, x0, y0, blending, s)
                alive = _alive(s)
                first = last
            _finish_tile(s, left, top, rgb, alpha)


@njit(nogil=True, fastmath=IN_ORDER, error_model="numpy")
def _start_tile(s: Any, left: Any, top: Any, width: Any, height: Any) -> None:
    """Set transmittance to 1 inside the image and to -1 (finished) outside; colors to 0."""
    for p in range(_TILE_AREA):
        x = left + (((p >> _U4) & _U3) << _U2) + (p & _U3)
        y = top + ((p >> _U4) & _U12) + ((p >> _U2) & _U3)
        s[p] = _F1 if x < width and y < height else -_F1
        s[p + _TILE_AREA] = _F0
        s[p + _TILE_AREA * _U2] = _F0
        s[p + _TILE_AREA * _U3] = _F0


@njit(nogil=True, fastmath=IN_ORDER, error_model="numpy")
def _finish_tile(s: Any, left: Any, top: Any, rgb: Any, alpha: Any) -> None:
    """Copy the pixels of a tile that are inside the image to it."""
    height, width = np.uint64(alpha.shape[0]), np.uint64(alpha.shape[1])
    for dy in range(min(_TILE, height - top)):
        row = ((dy & _U12) << _U4) + ((dy & _U3) << _U2)
        for dx in range(min(_TILE, width - left)):
            p = row + ((dx >> _U2) << _U4) + (dx & _U3)
            alpha[top + dy, left + dx, _U0] = _F1 - abs(s[p])
            rgb[top + dy, left + dx, _U0] = s[p + _TILE_AREA]
            rgb[top + dy, left + dx, _U1] = s[p + _TILE_AREA * _U2]
            rgb[top + dy, left + dx, _U2] = s[p + _TILE_AREA * _U3]


@njit(nogil=True, fastmath=AS_WRITTEN, error_model="numpy")
def _pixel_backward(s: Any, p: Any, x: Any, opacity: Any, color: Any, blending: Any) -> Any:
    """Compute the gradients at one pixel w.r.t. a splat's exponent and its three colors.

    The arithmetic is that of the forward pass, so that every pixel is finished at the same splat.
    """
    floor, cap, stop = blending
    red, green, blue = color
    e = fma(x, fma(x, fma(x, fma(x, fma(x, _E5, _E4), _E3), _E2), _E1), _F1)
    e = e * e
    e = e * e
    full = opacity * (e * e)
    alpha = min(full, cap) if full >= floor else _F0
    t = s[p]
    w = t * alpha
    rest = t - w
    finished = rest <= stop
    w = _F0 if finished else w
    s[p] = -abs(t) if finished else rest
    w_red = w * s[p + _TILE_AREA * _U2]
    w_green = w * s[p + _TILE_AREA * _U3]
    w_blue = w * s[p + _TILE_AREA * _U4]
    # dL/dalpha = T g.color - later / (1 - alpha), and dalpha/dexponent = -alpha.
    own = fma(blue, w_blue, fma(green, w_green, red * w_red))
    later = s[p + _TILE_AREA] - own
    s[p + _TILE_AREA] = later
    # A finished pixel is unchanged, and where alpha is capped the exponent has no effect.
    slope = alpha * later / (_F1 - alpha) - own
    slope = _F0 if finished or full > cap else slope
    return slope, w_red, w_green, w_blue


@njit(fastmath=IN_ORDER, error_model="numpy", inline="always")
def _flush(s: Any, moments: Any, entry: Any) -> None:
    """Write an entry's moments, the sums over the lanes, and clear the lanes."""
    for k in range(_U9):
        p = _SUMS + (k << _U4)
        for lane in range(_U8):
            s[p + lane] += s[p + lane + _U8]
        for lane in range(_U4):
            s[p + lane] += s[p + lane + _U4]
        moments[entry, k] = (s[p] + s[p + _U1]) + (s[p + _U2] + s[p + _U3])
    for place in range(_SUMS, _SUMS + _U9 * _U16):
        s[place] = _F0


@njit(nogil=True, fastmath=AS_WRITTEN, error_model="numpy")
def _blend_items_backward(
    items: Any,
    n: Any,
    first: Any,
    splats: Any,
    records: Any,
    x0: Any,
    y0: Any,
    blending: Any,
    s: Any,
    moments: Any,
) -> None:
    """Write the moments of the entries that have items.

    s [5 * 256 + 9 * 16]: transmittance; what later splats still add to the loss; gradients w.r.t.
    red, green, blue; sums of each moment over the current entry's blocks, lane by lane, which are
    added only when the entry ends.
    """
    widest_vectors()
    thresholds = blending[_U0], blending[_U1], blending[_U2]
    previous = first + (np.uint64(items[_U0]) >> _U4)
    items[n] = _ITEMS  # an entry past the last, so that the last one is flushed too
    for k in range(n + _U1):
        item = np.uint64(items[k])
        entry = first + (item >> _U4)
        if entry != previous:
            _flush(s, moments, previous)
            previous = entry
            if k == n:
                break
        j = np.uint64(splats[entry])
        block = item & _U15
        dx0 = x0 + np.float32((block & _U3) << _U2) - records[j, _U0]
        dy0 = y0 + np.float32(block & _U12) - records[j, _U1]
        a, b, c = records[j, _U2], records[j, _U3], records[j, _U4]
        opacity = records[j, _U5]
        color = records[j, _U6], records[j, _U7], records[j, _U8]
        base = block << _U4
        for lane in range(_U16):
            dx = dx0 + np.float32(lane & _U3)
            dy = dy0 + np.float32(lane >> _U2)
            u = fma(b, dy, a * dx)
            v = c * dy
            x = min(fma(u, u, v * v), _X_MAX)
            slope, red, green, blue = _pixel_backward(s, base + lane, x, opacity, color, thresholds)
            # Moments of the gradient w.r.t. the exponent, and gradients w.r.t. the colors.
            p = _SUMS + lane
            sx, sy = slope * dx, slope * dy
            s[p] += slope
            s[p + _U16] += sx
            s[p + _U16 * _U2] += sy
            s[p + _U16 * _U3] = fma(sx, dx, s[p + _U16 * _U3])
            s[p + _U16 * _U4] = fma(sx, dy, s[p + _U16 * _U4])
            s[p + _U16 * _U5] = fma(sy, dy, s[p + _U16 * _U5])
            s[p + _U16 * _U6] += red
            s[p + _U16 * _U7] += green
            s[p + _U16 * _U8] += blue


@njit(nogil=True, fastmath=IN_ORDER, error_model="numpy")
def _start_tile_backward(
    s: Any, left: Any, top: Any, rgb: Any, alpha: Any, grad_rgb: Any, grad_alpha: Any
) -> None:
    """Initialize a tile: transmittance, contribution of all splats to the loss, color gradients."""
    height, width = np.uint64(alpha.shape[0]), np.uint64(alpha.shape[1])
    s[:_TILE_AREA] = -_F1
    s[_TILE_AREA:_SUMS] = _F0
    for dy in range(min(_TILE, height - top)):
        row = ((dy & _U12) << _U4) + ((dy & _U3) << _U2)
        for dx in range(min(_TILE, width - left)):
            p = row + ((dx >> _U2) << _U4) + (dx & _U3)
            y, x = top + dy, left + dx
            g_red, g_green, g_blue = grad_rgb[y, x, _U0], grad_rgb[y, x, _U1], grad_rgb[y, x, _U2]
            s[p] = _F1
            s[p + _TILE_AREA] = (
                g_red * rgb[y, x, _U0]
                + g_green * rgb[y, x, _U1]
                + g_blue * rgb[y, x, _U2]
                - grad_alpha[y, x, _U0] * (_F1 - alpha[y, x, _U0])
            )
            s[p + _TILE_AREA * _U2] = g_red
            s[p + _TILE_AREA * _U3] = g_green
            s[p + _TILE_AREA * _U4] = g_blue


@njit(nogil=True, fastmath=IN_ORDER, parallel=True, cache=True, error_model="numpy")
def blend_backward(
    tile_starts: Any,
    splats: Any,
    masks: Any,
    records: Any,
    blending: Any,
    rgb: Any,
    alpha: Any,
    grad_rgb: Any,
    grad_alpha: Any,
) -> Any:
    """Compute the moments of each entry of the tiles' lists.

    Splats are visited front to back, as in the forward pass: the contribution of later splats is the
    total minus that of those already visited, so that only the image has to be kept.

    Args:
        tile_starts: [T + 1], as in blend.
        splats: [E], as in blend.
        masks: [E], as in blend.
        records: [M, 9], as in blend.
        blending: [3], as in blend.
        rgb: [H, W, 3], written by blend.
        alpha: [H, W, 1], written by blend.
        grad_rgb: [H, W, 3], gradient of the loss w.r.t. rgb.
        grad_alpha: [H, W, 1], gradient of the loss w.r.t. alpha.

    Returns:
        float32 [E, 9], see project_backward.
    """
    tiles_x = (np.uint64(alpha.shape[1]) + _U15) >> _U4
    n_tiles = np.uint64(tile_starts.shape[0] - 1)
    moments = np.empty((splats.shape[0], _N_MOMENTS), np.float32)
    for strand in prange(_STRANDS):
        s = np.zeros(_SUMS + _U9 * _U16, np.float32)
        items = np.empty(_ITEMS + _U1, np.uint16)
        for tile in range(np.uint64(strand), n_tiles, np.uint64(_STRANDS)):
            left, top = (tile % tiles_x) << _U4, (tile // tiles_x) << _U4
            first, end = np.uint64(tile_starts[tile]), np.uint64(tile_starts[tile + _U1])
            if first == end:
                continue
            _start_tile_backward(s, left, top, rgb, alpha, grad_rgb, grad_alpha)
            moments[first:end] = _F0
            x0, y0 = np.float32(left) + _HALF, np.float32(top) + _HALF
            alive = _alive(s)
            while first < end and alive != _U0:
                last = min(first + _STRETCH, end)
                n = _flatten(masks, first, last, alive, items)
                if n > _U0:
                    _blend_items_backward(
                        items, n, first, splats, records, x0, y0, blending, s, moments
                    )
                alive = _alive(s)
                first = last
    return moments


@njit(nogil=True, fastmath=IN_ORDER, parallel=True, cache=True, error_model="numpy")
def sum_moments(order: Any, starts: Any, slot_entries: Any, moments: Any, n_all: Any) -> Any:
    """Sum each Gaussian's moments over its tiles.

    Args:
        order: [M], returned by `depth_order`.
        starts: [M + 1], returned by `slot_starts`.
        slot_entries: [S], returned by `deal`.
        moments: [E, 9], returned by blend_backward.
        n_all: Number of Gaussians, N.

    Returns:
        float32 [N, 9]; not set where a Gaussian is culled.
    """
    sums = np.empty((n_all, _N_MOMENTS), np.float32)
    n_entries = np.uint32(moments.shape[0])
    for j in prange(order.shape[0]):
        i = order[j]
        for k in range(_N_MOMENTS):
            sums[i, k] = _F0
        for slot in range(starts[j], starts[j + 1]):
            entry = slot_entries[slot]
            if entry < n_entries:
                for k in range(_N_MOMENTS):
                    sums[i, k] += moments[entry, k]
    return sums
