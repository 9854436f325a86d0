// Vectors of four floats, and the functions of libm that the module needs.
#ifndef TALKHEAD_VECTORS_H
#define TALKHEAD_VECTORS_H

#include <stddef.h>
#include <stdint.h>
#include <wasm_simd128.h>

typedef v128_t f4;

static inline f4 splat(float x) { return wasm_f32x4_splat(x); }
static inline f4 load(const float *p) { return wasm_v128_load(p); }
static inline void store(float *p, f4 x) { wasm_v128_store(p, x); }
static inline f4 add(f4 a, f4 b) { return wasm_f32x4_add(a, b); }
static inline f4 sub(f4 a, f4 b) { return wasm_f32x4_sub(a, b); }
static inline f4 mul(f4 a, f4 b) { return wasm_f32x4_mul(a, b); }
static inline f4 mul_add(f4 a, f4 b, f4 c) { return add(mul(a, b), c); }
// The bound b also replaces NaN.
static inline f4 at_least(f4 a, f4 b) { return wasm_f32x4_pmax(b, a); }
static inline f4 at_most(f4 a, f4 b) { return wasm_f32x4_pmin(b, a); }
static inline f4 clamp4(f4 x, float low, float high) {
    return at_most(at_least(x, splat(low)), splat(high));
}

static inline float minimum(float a, float b) { return a < b ? a : b; }
static inline float maximum(float a, float b) { return a > b ? a : b; }
// The bounds also replace NaN.
static inline float clamp(float x, float low, float high) {
    return x > low ? (x < high ? x : high) : low;
}
static inline int32_t min_int(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t max_int(int32_t a, int32_t b) { return a > b ? a : b; }

// e^x: 2^n e^r with |r| <= ln(2) / 2 and the polynomial of Cephes' expf, relative error 1e-7.
static inline f4 exp4(f4 x) {
    x = clamp4(x, -87.0f, 87.0f);
    f4 n = wasm_f32x4_nearest(mul(x, splat(1.44269504f)));
    f4 r = sub(sub(x, mul(n, splat(0.693359375f))), mul(n, splat(-2.12194440e-4f)));
    f4 p = splat(1.9875691500e-4f);
    p = mul_add(p, r, splat(1.3981999507e-3f));
    p = mul_add(p, r, splat(8.3334519073e-3f));
    p = mul_add(p, r, splat(4.1665795894e-2f));
    p = mul_add(p, r, splat(1.6666665459e-1f));
    p = mul_add(p, r, splat(5.0000001201e-1f));
    p = add(mul_add(p, mul(r, r), r), splat(1.0f));
    v128_t exponent = wasm_i32x4_shl(wasm_i32x4_trunc_sat_f32x4(n), 23);
    return wasm_i32x4_add(p, exponent);
}

static inline float exp1(float x) { return wasm_f32x4_extract_lane(exp4(splat(x)), 0); }

// The logarithm of a positive normal number: Cephes' logf, relative error 1e-7.
static inline float log1(float x) {
    union {
        float number;
        uint32_t bits;
    } value = {x};
    int32_t exponent = (int32_t)(value.bits >> 23) - 126;
    value.bits = (value.bits & 0x007fffffu) | 0x3f000000u;
    float m = value.number;  // in [0.5, 1)
    if (m < 0.70710678f) {
        exponent -= 1;
        m += m;
    }
    m -= 1.0f;
    float z = m * m;
    float p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    float n = (float)exponent;
    return m + (m * z * p - 0.5f * z - 2.12194440e-4f * n) + 0.693359375f * n;
}

static inline float square_root(float x) { return __builtin_sqrtf(x); }

#endif
