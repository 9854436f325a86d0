"""Assignment of splats to tiles: the sort by depth, block masks and the tiles' lists (numba, CPU).

An image is cut into tiles of 16 x 16 pixels and each tile into 16 blocks of 4 x 4. Splats are
sorted by depth once, then distributed to the tiles by a counting sort that keeps this order. A pair
of a splat and a tile of its box is a slot. Where the splat's ellipse reaches any block, the slot
gets an entry in the tile's list, with a 16-bit mask of these blocks (bit 4 * row + column).

The kernels here do not call those of other files, because numba's cache would not notice changes
there. Indices are unsigned, because signed ones are tested for being negative.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from talkhead.renderers.fastmath import IN_ORDER

_U0 = np.uint64(0)
_U1 = np.uint64(1)
_U2 = np.uint64(2)
_U3 = np.uint64(3)
_U4 = np.uint64(4)
_U5 = np.uint64(5)
_U8 = np.uint64(8)
_B4 = np.uint32(4)
_B8 = np.uint32(8)
_B12 = np.uint32(12)
_B15 = np.uint32(15)
_I2 = np.int32(2)

_F0 = np.float32(0.0)
_F1 = np.float32(1.0)
_F3 = np.float32(3.0)
_F4 = np.float32(4.0)
_F64 = np.float32(64.0)
_HALF = np.float32(0.5)
_NOWHERE = np.float32(-1e9)
# u^2 + v^2 of a record is scaled by the square of this, so that exp(-(u^2 + v^2) / 2) = exp(-x)^8.
_SCALE = np.float32(0.25)
# Columns of a splat's record.
_RECORD = 9


@njit(nogil=True, cache=True, error_model="numpy")
def depth_order(depth_bits: Any, boxes: Any) -> Any:
    """Sort the visible Gaussians by depth, nearest first, ties by index.

    Radix sort of the bit pattern, which orders positive floats, in three passes of 11 bits. A pass
    in which all keys agree is skipped, which mostly happens for the exponent.

    Args:
        depth_bits: [N], depths reinterpreted as uint32.
        boxes: [N, 4], returned by project; empty ones are not visible.

    Returns:
        Indices, uint32 [M].
    """
    n_all = depth_bits.shape[0]
    counts = np.zeros((3, 2048), np.uint32)
    order = np.empty(n_all, np.uint32)
    m = 0
    # Select the visible Gaussians and count the digits of their keys.
    for i in range(n_all):
        if boxes[i, 1] > boxes[i, 0]:
            order[m] = i
            m += 1
            key = depth_bits[i]
            counts[0, key & np.uint32(2047)] += np.uint32(1)
            counts[1, (key >> np.uint32(11)) & np.uint32(2047)] += np.uint32(1)
            counts[2, key >> np.uint32(22)] += np.uint32(1)
    order = order[:m]
    spare = np.empty(m, np.uint32)
    for digit in range(3):
        shift = np.uint32(11 * digit)
        if m == 0 or counts[digit, (depth_bits[order[0]] >> shift) & np.uint32(2047)] == m:
            continue
        # Turn counts into starts, then distribute the indices to the buckets.
        total = np.uint32(0)
        for k in range(2048):
            count = counts[digit, k]
            counts[digit, k] = total
            total += count
        for j in range(m):
            index = order[j]
            bucket = (depth_bits[index] >> shift) & np.uint32(2047)
            spare[counts[digit, bucket]] = index
            counts[digit, bucket] += np.uint32(1)
        order, spare = spare, order
    return order


@njit(nogil=True, fastmath=IN_ORDER, parallel=True, cache=True, error_model="numpy")
def gather(order: Any, geometry: Any, opacities: Any, colors: Any) -> Any:
    """Collect the splats' records in depth order.

    Args:
        order: [M], returned by depth_order.
        geometry: [N, 6], returned by project.
        opacities: [N] in [0, 1].
        colors: [N, 3].

    Returns:
        float32 [M, 9]: x, y, a, b, c, opacity, red, green, blue. a, b, c are those of
        cpu_project.py, scaled for the exponential of the blending.
    """
    m = order.shape[0]
    records = np.empty((m, _RECORD), np.float32)
    for j in prange(m):
        i = order[j]
        records[j, 0] = geometry[i, 0]
        records[j, 1] = geometry[i, 1]
        records[j, 2] = geometry[i, 2] * _SCALE
        records[j, 3] = geometry[i, 3] * _SCALE
        records[j, 4] = geometry[i, 4] * _SCALE
        records[j, 5] = opacities[i]
        records[j, 6] = colors[i, 0]
        records[j, 7] = colors[i, 1]
        records[j, 8] = colors[i, 2]
    return records


@njit(nogil=True, cache=True, error_model="numpy")
def slot_starts(order: Any, boxes: Any) -> Any:
    """Compute where the tiles of each splat start in the list of (splat, tile) slots.

    Args:
        order: [M], returned by depth_order.
        boxes: [N, 4], returned by project.

    Returns:
        uint32 [M + 1].
    """
    m = order.shape[0]
    starts = np.empty(m + 1, np.uint32)
    starts[0] = 0
    for j in range(m):
        i = order[j]
        n_tiles = (boxes[i, 1] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 2])
        starts[j + 1] = starts[j] + np.uint32(n_tiles)
    return starts


@njit(fastmath=IN_ORDER, error_model="numpy", inline="always")
def _row_bits(ellipse: Any, top: Any, left: Any, bits: Any) -> None:
    """Write the blocks that an ellipse reaches in 8 rows of blocks, as bits: uint32 [8].

    Bit k is the k-th block. ellipse: x, y, b / a, 1 / a, c^2, cut, radius (half its height), tip
    (the height, from the center, at which it is rightmost; by symmetry it is leftmost at the
    opposite point). top, left: where the first block begins, px; 16 blocks are tested. There are no
    branches, so that all rows are computed at once.
    """
    x, y, shear, width, c2, cut, radius, tip = ellipse
    for row in range(_U8):
        # The row's pixel centers span [low, high] relative to the splat, within the ellipse.
        top_row = top + np.float32(row << _U2) + _HALF - y
        low = max(top_row, -radius)
        high = min(top_row + _F3, radius)
        dy = min(max(tip, low), high)
        right = x - left - _HALF + np.sqrt(max(cut - c2 * dy * dy, _F0)) * width - shear * dy
        dy = min(max(-tip, low), high)
        reach = x - left - _HALF - np.sqrt(max(cut - c2 * dy * dy, _F0)) * width - shear * dy
        right = right if low <= high else _NOWHERE
        first = np.int32(min(max(np.ceil(reach), _F0), _F64)) >> _I2
        # Floor by truncation: an end left of the window becomes block 0.
        last = np.int32(min(max(right + _F4, _F0), _F64)) >> _I2
        bits[row] = (np.uint32(1) << np.uint32(max(first, last))) - (
            np.uint32(1) << np.uint32(first)
        )


@njit(nogil=True, fastmath=IN_ORDER, parallel=True, cache=True, error_model="numpy")
def cover(
    order: Any, starts: Any, boxes: Any, geometry: Any, tiles_x: Any, n_tiles: Any, n_parts: Any
) -> Any:
    """Compute the tile and the block mask of each slot.

    The depth order is split into parts, each of which is processed by one thread.

    Args:
        order: [M], returned by depth_order.
        starts: [M + 1], returned by slot_starts.
        boxes: [N, 4], returned by project.
        geometry: [N, 6], returned by project.
        tiles_x: Tiles in a row of the image.
        n_tiles: Tiles of the image.
        n_parts: Number of parts.

    Returns:
        Tiles, uint32 [S], block masks, uint16 [S], and the number of entries of each part in each
        tile, [n_parts, n_tiles].
    """
    m = order.shape[0]
    counts = np.zeros((n_parts, n_tiles), np.uint32)
    slot_tiles = np.empty(starts[m], np.uint32)
    slot_masks = np.empty(starts[m], np.uint16)
    for part in prange(n_parts):
        bits = np.empty(8, np.uint32)
        for j in range(np.uint64(m * part // n_parts), np.uint64(m * (part + 1) // n_parts)):
            i = np.uint64(order[j])
            a, b, c, cut = geometry[i, _U2], geometry[i, _U3], geometry[i, _U4], geometry[i, _U5]
            radius = np.sqrt(cut) / c
            tip = -b * radius / np.sqrt(b * b + c * c)
            x, y = geometry[i, _U0], geometry[i, _U1]
            ellipse = x, y, b / a, _F1 / a, c * c, cut, radius, tip
            start = np.uint64(starts[j])
            x0, x1 = np.uint64(boxes[i, _U0]), np.uint64(boxes[i, _U1])
            y0, y1 = np.uint64(boxes[i, _U2]), np.uint64(boxes[i, _U3])
            # Windows of 2 rows of 4 tiles: most splats need only one.
            for top in range(y0, y1, _U2):
                for left in range(x0, x1, _U4):
                    _row_bits(ellipse, np.float32(top << _U4), np.float32(left << _U4), bits)
                    for tile_y in range(top, min(top + _U2, y1)):
                        row = (tile_y - top) << _U2
                        row0, row1 = bits[row], bits[row + _U1]
                        row2, row3 = bits[row + _U2], bits[row + _U3]
                        slot = start + (tile_y - y0) * (x1 - x0) + (left - x0)
                        tile = tile_y * tiles_x + left
                        for _ in range(min(x1 - left, _U4)):
                            mask = (
                                (row0 & _B15)
                                | ((row1 & _B15) << _B4)
                                | ((row2 & _B15) << _B8)
                                | ((row3 & _B15) << _B12)
                            )
                            row0, row1 = row0 >> _B4, row1 >> _B4
                            row2, row3 = row2 >> _B4, row3 >> _B4
                            slot_tiles[slot] = tile
                            slot_masks[slot] = mask
                            counts[np.uint64(part), tile] += np.uint32(mask != np.uint32(0))
                            slot += _U1
                            tile += _U1
    return slot_tiles, slot_masks, counts


@njit(nogil=True, parallel=True, cache=True, error_model="numpy")
def deal(starts: Any, slot_tiles: Any, slot_masks: Any, counts: Any) -> Any:
    """Make the tiles' lists, in depth order.

    Args:
        starts: [M + 1], returned by slot_starts.
        slot_tiles: [S], returned by cover.
        slot_masks: [S], returned by cover.
        counts: [n_parts, n_tiles], returned by cover; overwritten.

    Returns:
        Tile starts [T + 1], splat [E] and mask [E] of each entry, and the entry of each slot [S],
        which is the number of entries where it has none.
    """
    n_parts, n_tiles = counts.shape
    m = starts.shape[0] - 1
    # Turn counts into the position at which each part writes in each tile's list.
    tile_starts = np.empty(n_tiles + 1, np.uint32)
    total = np.uint32(0)
    for k in range(n_tiles):
        tile_starts[k] = total
        for part in range(n_parts):
            count = counts[part, k]
            counts[part, k] = total
            total += count
    tile_starts[n_tiles] = total
    splats = np.empty(total, np.uint32)
    masks = np.empty(total, np.uint16)
    slot_entries = np.empty(slot_tiles.shape[0], np.uint32)
    # Write the entries, each part its own, in depth order.
    for part in prange(n_parts):
        cursors = counts[part]
        for j in range(np.uint64(m * part // n_parts), np.uint64(m * (part + 1) // n_parts)):
            for slot in range(np.uint64(starts[j]), np.uint64(starts[j + _U1])):
                mask = slot_masks[slot]
                slot_entries[slot] = total
                if mask != np.uint16(0):
                    tile = np.uint64(slot_tiles[slot])
                    entry = cursors[tile]
                    cursors[tile] = entry + np.uint32(1)
                    splats[np.uint64(entry)] = j
                    masks[np.uint64(entry)] = mask
                    slot_entries[slot] = entry
    return tile_starts, splats, masks, slot_entries
