// Sort of the splats by depth.
// Counterpart: depth_order (renderers/gaussian/rasterizer/cpu_tiles.py).

#include "head.h"

#define DIGIT_BITS 11
#define N_BUCKETS (1 << DIGIT_BITS)

// Radix sort of the bit pattern, which orders positive floats; ties keep their order. Writes the
// splats' numbers, nearest first, to `order`.
void sort_by_depth(Work *work, int32_t n) {
    static uint32_t starts[N_BUCKETS];
    for (int32_t i = 0; i < n; i++) work->order[i] = (uint32_t)i;
    for (int shift = 0; shift < 32; shift += DIGIT_BITS) {
        __builtin_memset(starts, 0, sizeof starts);
        for (int32_t i = 0; i < n; i++) starts[(work->keys[i] >> shift) & (N_BUCKETS - 1)]++;
        uint32_t total = 0;
        for (int32_t k = 0; k < N_BUCKETS; k++) {
            uint32_t count = starts[k];
            starts[k] = total;
            total += count;
        }
        for (int32_t i = 0; i < n; i++) {
            uint32_t index = work->order[i];
            work->spare[starts[(work->keys[index] >> shift) & (N_BUCKETS - 1)]++] = index;
        }
        uint32_t *order = work->order;
        work->order = work->spare;
        work->spare = order;
    }
}
