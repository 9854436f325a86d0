// What is computed once for a head: Gaussians in the order in which they are blended.
// Counterpart: shape_factor (renderers/gaussian/skinning.py).

#include "head.h"

// Returns n, filled up to a multiple of BLOCK.
int32_t filled_up(int32_t n) { return (n + BLOCK - 1) / BLOCK * BLOCK; }

static void take_blocks(int32_t n_weights, int32_t n, Blocks *blocks) {
    blocks->n_blocks = filled_up(n) / BLOCK;
    blocks->n_weights = n_weights;
    blocks->deltas = take((size_t)N_CHANNELS * filled_up(n) * n_weights);
}

// Arranges deltas [n_weights, n, 7] in blocks of 16 Gaussians.
static void fill_blocks(const int8_t *deltas, int32_t n, Blocks *blocks) {
    size_t n_blocks = blocks->n_blocks, block_bytes = (size_t)blocks->n_weights * BLOCK;
    for (int32_t k = 0; k < blocks->n_weights; k++)
        for (int32_t i = 0; i < n; i++) {
            int8_t *place = blocks->deltas + i / BLOCK * block_bytes + k * BLOCK + i % BLOCK;
            for (int c = 0; c < N_CHANNELS; c++)
                place[c * n_blocks * block_bytes] = deltas[((size_t)k * n + i) * N_CHANNELS + c];
        }
}

// Elements of L, which do not depend on the code: 00, 10, 11, 20, 21, 22.
static void compute_shapes(const Head *head, float *shapes) {
    int32_t n = head->sizes->n_gaussians, stride = filled_up(n);
    float step = head->numbers->shape_step;
    for (int32_t i = 0; i < n; i++) {
        const int16_t *s = head->shape + i;
        float *l = shapes + i, scales[3];
        for (int k = 0; k < 3; k++) scales[k] = exp1(step * s[k * n]);
        l[0] = scales[0];
        l[stride] = scales[1] * (step * s[3 * n]);
        l[2 * stride] = scales[1];
        l[3 * stride] = scales[2] * (step * s[4 * n]);
        l[4 * stride] = scales[2] * (step * s[5 * n]);
        l[5 * stride] = scales[2];
    }
}

void take_gaussians(const Sizes *s, Work *work) {
    size_t n = filled_up(s->n_gaussians);
    work->base = take(sizeof(float) * N_CHANNELS * n);
    work->shapes = take(sizeof(float) * 6 * n);
    take_blocks(s->n_codes - s->n_clothes + N_POSE, s->n_gaussians, &work->blocks);
    take_blocks(s->n_clothes, s->n_on_body, &work->clothes_blocks);
}

// Fills the memory of take_gaussians.
void prepare_gaussians(const Head *head, Work *work) {
    int32_t n = head->sizes->n_gaussians, stride = filled_up(n);
    fill_blocks(head->deltas, n, &work->blocks);
    fill_blocks(head->clothes_deltas, head->sizes->n_on_body, &work->clothes_blocks);
    for (int c = 0; c < N_CHANNELS; c++)
        for (int32_t i = 0; i < n; i++)
            work->base[c * stride + i] = head->base_steps[c] * head->base[c * n + i];
    compute_shapes(head, work->shapes);
}
