// The code that weights deltas, and the blended Gaussians.
// Counterparts: CodeProjector.project (renderers/code_projection.py), pose_code (renderers/
// pose_features.py), GaussianRenderer._blend (renderers/gaussian/model.py).

#include "head.h"

// Returns the index of the smallest of n distances, and replaces it by infinity.
static int32_t take_nearest(float *distances, int32_t n, float *distance) {
    int32_t nearest = 0;
    for (int32_t i = 1; i < n; i++)
        if (distances[i] < distances[nearest]) nearest = i;
    *distance = distances[nearest];
    distances[nearest] = __builtin_inff();
    return nearest;
}

static void measure_distances(const Head *head, const float *mouth, float *distances) {
    int32_t m = head->sizes->n_seen_codes;
    for (int32_t i = 0; i < head->sizes->n_seen; i++) {
        const float *seen = head->seen + (size_t)i * m;
        float sum = 0.0f;
        for (int32_t k = 0; k < m; k++) sum += (mouth[k] - seen[k]) * (mouth[k] - seen[k]);
        distances[i] = square_root(sum);
    }
}

// CodeProjector.project, in place: a code far from all training codes moves toward the nearest.
static void project_code(const Head *head, Work *work, float *mouth) {
    int32_t m = head->sizes->n_seen_codes, n = min_int(NEIGHBORS, head->sizes->n_seen);
    float near = head->numbers->near, far = head->numbers->far;
    float distance, nearest, total = 0.0f, mean[256] = {0};
    measure_distances(head, mouth, work->distances);
    for (int32_t j = 0; j < n; j++) {
        const float *seen =
            head->seen + (size_t)take_nearest(work->distances, head->sizes->n_seen, &distance) * m;
        if (j == 0) nearest = distance;
        if (!(nearest > near)) return;
        float ratio = distance / (BANDWIDTH * nearest + 1e-6f);
        // Softmax with the largest exponent, that of the nearest, subtracted.
        float first = nearest / (BANDWIDTH * nearest + 1e-6f);
        float weight = exp1(0.5f * (first * first - ratio * ratio));
        for (int32_t k = 0; k < m; k++) mean[k] += weight * seen[k];
        total += weight;
    }
    float fraction = clamp((nearest - near) / (far - near), 0.0f, 1.0f);
    fraction = fraction * fraction * (3.0f - 2.0f * fraction);
    for (int32_t k = 0; k < m; k++) mouth[k] += fraction * (mean[k] / total - mouth[k]);
}

// pose_code: rotation, position, depth and body in standard deviations. code [12].
static void pose_code(const Head *head, const float *motion, const float *view, float *code) {
    code[0] = view[9] - view[6];
    code[1] = view[2] - view[8];
    code[2] = view[4] - view[1];
    code[3] = view[3] / view[11];
    code[4] = view[7] / view[11];
    code[5] = log1(view[11]);
    for (int i = 0; i < N_BODY; i++) code[6 + i] = motion[head->sizes->n_codes - N_BODY + i];
    for (int i = 0; i < N_POSE; i++) {
        code[i] = (code[i] - head->pose_mean[i]) / head->pose_scale[i];
        code[i] = clamp(code[i], -POSE_RANGE, POSE_RANGE);
    }
}

// Widens 16 deltas to floats and adds them to sums, weighted.
static inline void add_deltas(const int8_t *deltas, float weight, f4 *sums) {
    v128_t bytes = wasm_v128_load(deltas);
    v128_t low = wasm_i16x8_extend_low_i8x16(bytes), high = wasm_i16x8_extend_high_i8x16(bytes);
    f4 w = splat(weight);
    sums[0] = mul_add(wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(low)), w, sums[0]);
    sums[1] = mul_add(wasm_f32x4_convert_i32x4(wasm_i32x4_extend_high_i16x8(low)), w, sums[1]);
    sums[2] = mul_add(wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(high)), w, sums[2]);
    sums[3] = mul_add(wasm_f32x4_convert_i32x4(wasm_i32x4_extend_high_i16x8(high)), w, sums[3]);
}

// Writes the weighted sums of a channel's deltas to sums [blocks, 16].
static void sum_deltas(const Blocks *blocks, int channel, const float *weights, float *sums) {
    int32_t n = blocks->n_weights;
    const int8_t *deltas = blocks->deltas + (size_t)channel * blocks->n_blocks * n * BLOCK;
    for (int32_t block = 0; block < blocks->n_blocks; block++) {
        f4 sum[4] = {splat(0), splat(0), splat(0), splat(0)};
        for (int32_t k = 0; k < n; k++, deltas += BLOCK) add_deltas(deltas, weights[k], sum);
        for (int i = 0; i < 4; i++) store(sums + block * BLOCK + 4 * i, sum[i]);
    }
}

static void sigmoid(float *values, int32_t n) {
    f4 one = splat(1.0f);
    for (int32_t i = 0; i < n; i += 4) {
        f4 e = exp4(wasm_f32x4_neg(load(values + i)));
        store(values + i, wasm_f32x4_div(one, add(one, e)));
    }
}

// The weights of the deltas: those of all but the clothes, then those of the clothes.
static const float *delta_weights(const Head *head, Work *work, const float *motion,
                                  const float *view) {
    const Sizes *s = head->sizes;
    float *code = work->code, pose[N_POSE];
    int32_t end = s->n_codes - N_BODY, start = end - s->n_clothes, n = 0;
    for (int32_t k = 0; k < s->n_codes; k++) work->motion[k] = motion[k];
    project_code(head, work, work->motion);
    pose_code(head, motion, view, pose);
    for (int32_t k = 0; k < s->n_codes; k++)
        if (k < start || k >= end) code[n++] = work->motion[k];
    for (int i = 0; i < N_POSE; i++) code[n++] = pose[i];
    for (int32_t k = start; k < end; k++) code[n++] = work->motion[k];
    for (int32_t k = 0; k < n; k++) code[k] *= head->delta_steps[k];
    return code;
}

// GaussianRenderer._blend and the first lines of _gaussians: values [7, N], opacities in the last.
void blend(const Head *head, Work *work, const float *motion, const float *view) {
    int32_t n = work->blocks.n_blocks * BLOCK;
    const float *weights = delta_weights(head, work, motion, view);
    for (int c = 0; c < N_CHANNELS; c++) {
        float *values = work->values + (size_t)c * n, *base = work->base + (size_t)c * n;
        sum_deltas(&work->blocks, c, weights, values);
        sum_deltas(&work->clothes_blocks, c, weights + work->blocks.n_weights, work->clothes);
        for (int32_t i = 0; i < head->sizes->n_on_body; i++)
            values[head->on_body[i]] += work->clothes[i];
        f4 unit = splat(head->units[c]);
        for (int32_t i = 0; i < n; i += 4)
            store(values + i, mul(add(load(base + i), load(values + i)), unit));
    }
    sigmoid(work->values + (size_t)6 * n, n);
}
