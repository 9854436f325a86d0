// Linear layers. Counterparts: torch.nn.Linear and torch.nn.functional.gelu.

#include "linear.h"

// Returns the sums of four vectors.
static f4 sums(f4 a, f4 b, f4 c, f4 d) {
    f4 ab = add(wasm_i32x4_shuffle(a, b, 0, 4, 1, 5), wasm_i32x4_shuffle(a, b, 2, 6, 3, 7));
    f4 cd = add(wasm_i32x4_shuffle(c, d, 0, 4, 1, 5), wasm_i32x4_shuffle(c, d, 2, 6, 3, 7));
    return add(wasm_i64x2_shuffle(ab, cd, 0, 2), wasm_i64x2_shuffle(ab, cd, 1, 3));
}

// Four rows times one input. Two sums a row, as each addition waits for the one before.
static f4 four_rows(const float *row, int32_t n_in, const float *x) {
    f4 a[4] = {0}, b[4] = {0};
    int32_t j = 0;
    for (; j + 8 <= n_in; j += 8) {
        f4 first = load(x + j), second = load(x + j + 4);
        for (int r = 0; r < 4; r++) {
            a[r] = mul_add(load(row + r * n_in + j), first, a[r]);
            b[r] = mul_add(load(row + r * n_in + j + 4), second, b[r]);
        }
    }
    if (j < n_in)
        for (int r = 0; r < 4; r++) a[r] = mul_add(load(row + r * n_in + j), load(x + j), a[r]);
    return sums(add(a[0], b[0]), add(a[1], b[1]), add(a[2], b[2]), add(a[3], b[3]));
}

// Four rows times two inputs, so that weights are read once for both.
static void four_rows_twice(const float *row, int32_t n_in, const float *x, const float *y, f4 *p,
                            f4 *q) {
    f4 a[4] = {0}, b[4] = {0};
    for (int32_t j = 0; j < n_in; j += 4) {
        f4 first = load(x + j), second = load(y + j);
        for (int r = 0; r < 4; r++) {
            f4 weights = load(row + r * n_in + j);
            a[r] = mul_add(weights, first, a[r]);
            b[r] = mul_add(weights, second, b[r]);
        }
    }
    *p = sums(a[0], a[1], a[2], a[3]);
    *q = sums(b[0], b[1], b[2], b[3]);
}

void apply(const Linear *layer, const float *inputs, int32_t in_step, float *outputs,
           int32_t out_step, int32_t n) {
    int32_t n_in = layer->n_in;
    for (int32_t i = 0; i < layer->n_out; i += 4) {
        const float *row = layer->weights + (size_t)i * n_in;
        f4 bias = load(layer->bias + i), p, q;
        int32_t c = 0;
        for (; c + 2 <= n; c += 2) {
            const float *x = inputs + (size_t)c * in_step;
            float *out = outputs + (size_t)c * out_step + i;
            four_rows_twice(row, n_in, x, x + in_step, &p, &q);
            store(out, add(p, bias));
            store(out + out_step, add(q, bias));
        }
        if (c < n) {
            p = four_rows(row, n_in, inputs + (size_t)c * in_step);
            store(outputs + (size_t)c * out_step + i, add(p, bias));
        }
    }
}

// Rounds n values to 16 bits. Returns the step.
static float round_inputs(const float *values, int32_t n, int16_t *rounded) {
    f4 most = splat(1e-20f);
    for (int32_t i = 0; i < n; i += 4) most = at_least(wasm_f32x4_abs(load(values + i)), most);
    most = at_least(wasm_i32x4_shuffle(most, most, 2, 3, 0, 1), most);
    most = at_least(wasm_i32x4_shuffle(most, most, 1, 0, 3, 2), most);
    float largest = wasm_f32x4_extract_lane(most, 0);
    f4 factor = splat(32767.0f / largest);
    for (int32_t i = 0; i < n; i += 8) {
        f4 first = wasm_f32x4_nearest(mul(load(values + i), factor));
        f4 second = wasm_f32x4_nearest(mul(load(values + i + 4), factor));
        wasm_v128_store(rounded + i, wasm_i16x8_narrow_i32x4(wasm_i32x4_trunc_sat_f32x4(first),
                                                             wasm_i32x4_trunc_sat_f32x4(second)));
    }
    return largest / 32767.0f;
}

static f4 sums_of_whole(const v128_t *s) {
    return sums(wasm_f32x4_convert_i32x4(s[0]), wasm_f32x4_convert_i32x4(s[1]),
                wasm_f32x4_convert_i32x4(s[2]), wasm_f32x4_convert_i32x4(s[3]));
}

// Four rows times one rounded input.
static f4 four_rounded_rows(const int8_t *row, int32_t n_in, const int16_t *x) {
    v128_t s[4] = {0};
    for (int32_t j = 0; j < n_in; j += 8) {
        v128_t values = wasm_v128_load(x + j);
        for (int r = 0; r < 4; r++)
            s[r] = wasm_i32x4_add(
                s[r], wasm_i32x4_dot_i16x8(wasm_i16x8_load8x8(row + r * n_in + j), values));
    }
    return sums_of_whole(s);
}

// Four rows times two rounded inputs.
static void four_rounded_rows_twice(const int8_t *row, int32_t n_in, const int16_t *x,
                                    const int16_t *y, f4 *p, f4 *q) {
    v128_t s[4] = {0}, t[4] = {0};
    for (int32_t j = 0; j < n_in; j += 8) {
        v128_t first = wasm_v128_load(x + j), second = wasm_v128_load(y + j);
        for (int r = 0; r < 4; r++) {
            v128_t weights = wasm_i16x8_load8x8(row + r * n_in + j);
            s[r] = wasm_i32x4_add(s[r], wasm_i32x4_dot_i16x8(weights, first));
            t[r] = wasm_i32x4_add(t[r], wasm_i32x4_dot_i16x8(weights, second));
        }
    }
    *p = sums_of_whole(s);
    *q = sums_of_whole(t);
}

void apply_rounded(const Rounded *layer, const float *inputs, int32_t in_step, float *outputs,
                   int32_t out_step, int32_t n) {
    static int16_t rounded[MOST_AT_ONCE * MOST_INPUTS];
    float steps[MOST_AT_ONCE];
    int32_t n_in = layer->n_in;
    for (int32_t c = 0; c < n; c++)
        steps[c] = round_inputs(inputs + (size_t)c * in_step, n_in, rounded + c * n_in);
    for (int32_t i = 0; i < layer->n_out; i += 4) {
        const int8_t *row = layer->weights + (size_t)i * n_in;
        f4 bias = load(layer->bias + i), scales = load(layer->scales + i), p, q;
        int32_t c = 0;
        for (; c + 2 <= n; c += 2) {
            const int16_t *x = rounded + c * n_in;
            float *out = outputs + (size_t)c * out_step + i;
            four_rounded_rows_twice(row, n_in, x, x + n_in, &p, &q);
            store(out, mul_add(p, mul(scales, splat(steps[c])), bias));
            store(out + out_step, mul_add(q, mul(scales, splat(steps[c + 1])), bias));
        }
        if (c < n) {
            p = four_rounded_rows(row, n_in, rounded + c * n_in);
            float *out = outputs + (size_t)c * out_step + i;
            store(out, mul_add(p, mul(scales, splat(steps[c])), bias));
        }
    }
}

// erf: Abramowitz and Stegun, Handbook of Mathematical Functions (1964), formula 7.1.26, whose error
// is at most 1.5e-7.
static f4 erf4(f4 x) {
    f4 size = wasm_f32x4_abs(x);
    f4 t = wasm_f32x4_div(splat(1.0f), mul_add(size, splat(0.3275911f), splat(1.0f)));
    f4 p = splat(1.061405429f);
    p = mul_add(p, t, splat(-1.453152027f));
    p = mul_add(p, t, splat(1.421413741f));
    p = mul_add(p, t, splat(-0.284496736f));
    p = mul_add(p, t, splat(0.254829592f));
    f4 value = sub(splat(1.0f), mul(mul(p, t), exp4(wasm_f32x4_neg(mul(x, x)))));
    return wasm_v128_bitselect(value, x, wasm_i32x4_splat(0x7fffffff));
}

void gelu(float *values, int32_t n) {
    for (int32_t i = 0; i < n; i += 4) {
        f4 x = load(values + i), half = mul(x, splat(0.5f));
        store(values + i, mul_add(half, erf4(mul(x, splat(0.70710678f))), half));
    }
}
