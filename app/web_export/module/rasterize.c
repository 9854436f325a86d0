// Blending of the splats, front to back.
// Counterpart: blend (renderers/gaussian/rasterizer/cpu_blend.py). Instead of blocks in tiles, the
// groups of four pixels that the ellipse of a splat reaches in each row are visited.
//
// With u = a dx + b dy and v = c dy, alpha is opacity exp(-(u^2 + v^2) / 2). From one group of a row to
// the next, alpha changes by a ratio exp(-4 a u - 8 a^2), and the ratio by exp(-16 a^2), so that only
// the first group of a row needs exponentials.

#include "head.h"

#define GROUP_FLOATS 16

typedef struct {
    float *groups;
    int32_t n_groups, height;  // groups in a row, rows
} Canvas;

// What all rows of a splat share. Lane l is the l-th pixel of a group.
typedef struct {
    f4 red, green, blue;
    f4 shares;        // exp(-a^2 l^2 / 2)
    f4 ratios;        // exp(-8 a^2 - 4 a^2 l)
    f4 ratio_change;  // exp(-16 a^2)
} Brush;

// Four rows of a splat: the groups that it reaches, and alpha and exp(-a u) at their first pixel.
typedef struct {
    int32_t first[4], last[4];
    float alpha[4], slope[4];
} Rows;

static Brush make_brush(const Splat *s) {
    float a2 = s->a * s->a;
    f4 shares = exp4(mul(splat(-0.5f * a2), wasm_f32x4_make(0.0f, 1.0f, 4.0f, 9.0f)));
    f4 ratios = exp4(mul(splat(-4.0f * a2), wasm_f32x4_make(2.0f, 3.0f, 4.0f, 5.0f)));
    f4 change = splat(wasm_f32x4_extract_lane(ratios, 2));
    return (Brush){splat(s->red), splat(s->green), splat(s->blue), shares, ratios, change};
}

// Computes rows y to y + 3.
static inline void measure_rows(const Splat *s, int32_t y, int32_t n_groups, Rows *rows) {
    f4 dy = add(splat((float)y - s->y), wasm_f32x4_make(0.5f, 1.5f, 2.5f, 3.5f));
    f4 v = mul(splat(s->c), dy), vv = mul(v, v), left_over = sub(splat(s->cut), vv);
    f4 half = mul(wasm_f32x4_sqrt(at_least(left_over, splat(0.0f))), splat(1.0f / s->a));
    f4 middle = sub(splat(s->x - 0.5f), mul(splat(s->b / s->a), dy));
    f4 left = at_least(wasm_f32x4_ceil(sub(middle, half)), splat(0.0f));
    v128_t first = wasm_i32x4_shr(wasm_i32x4_trunc_sat_f32x4(left), 2);
    v128_t last = wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_floor(add(middle, half)));
    first = wasm_i32x4_min(first, wasm_i32x4_splat(n_groups));
    last = wasm_i32x4_min(wasm_i32x4_shr(last, 2), wasm_i32x4_splat(n_groups - 1));
    last = wasm_v128_or(last, wasm_f32x4_lt(left_over, splat(0.0f)));  // none: -1
    last = wasm_i32x4_max(last, wasm_i32x4_splat(-1));
    f4 start = add(wasm_f32x4_convert_i32x4(wasm_i32x4_shl(first, 2)), splat(0.5f - s->x));
    f4 u = mul_add(splat(s->a), start, mul(splat(s->b), dy));
    wasm_v128_store(rows->first, first);
    wasm_v128_store(rows->last, last);
    store(rows->alpha, mul(splat(s->opacity), exp4(mul(splat(-0.5f), mul_add(u, u, vv)))));
    store(rows->slope, exp4(mul(splat(-s->a), u)));
}

// Blends a splat over a group. The transmittance of a finished pixel is negated, so that every later
// splat falls below the threshold as well.
static inline void blend_group(float *group, f4 alpha, const Brush *brush) {
    f4 t = load(group);
    alpha = wasm_v128_and(wasm_f32x4_pmin(alpha, splat(ALPHA_CAP)),
                          wasm_f32x4_ge(alpha, splat(ALPHA_FLOOR)));
    f4 weight = mul(t, alpha), rest = sub(t, weight);
    f4 finished = wasm_f32x4_le(rest, splat(MIN_TRANSMITTANCE));
    weight = wasm_v128_andnot(weight, finished);
    f4 ended = wasm_v128_or(t, splat(-0.0f));
    store(group, wasm_v128_bitselect(ended, rest, finished));
    store(group + 4, mul_add(weight, brush->red, load(group + 4)));
    store(group + 8, mul_add(weight, brush->green, load(group + 8)));
    store(group + 12, mul_add(weight, brush->blue, load(group + 12)));
}

// Blends a splat over groups first to last of a row, given alpha and slope at its first pixel.
static inline void blend_row(float *row, int32_t first, int32_t last, float alpha, float slope,
                             const Brush *brush) {
    float slope2 = slope * slope;
    f4 powers = wasm_f32x4_make(1.0f, slope, slope2, slope2 * slope);
    f4 alphas = mul(mul(splat(alpha), powers), brush->shares);
    f4 ratios = mul(splat(slope2 * slope2), brush->ratios);
    float *group = row + first * GROUP_FLOATS, *end = row + last * GROUP_FLOATS;
    for (; group <= end; group += GROUP_FLOATS) {
        blend_group(group, alphas, brush);
        alphas = mul(alphas, ratios);
        ratios = mul(ratios, brush->ratio_change);
    }
}

static void blend_splat(const Canvas *canvas, const Splat *s) {
    float radius = square_root(s->cut) / s->c;
    int32_t top = max_int((int32_t)__builtin_ceilf(s->y - radius - 0.5f), 0);
    int32_t after = min_int((int32_t)__builtin_floorf(s->y + radius - 0.5f), canvas->height - 1) + 1;
    size_t row_floats = (size_t)canvas->n_groups * GROUP_FLOATS;
    Brush brush = make_brush(s);
    Rows rows;
    for (int32_t y = top; y < after; y += 4) {
        measure_rows(s, y, canvas->n_groups, &rows);
        for (int32_t i = 0; i < min_int(4, after - y); i++)
            blend_row(canvas->groups + (size_t)(y + i) * row_floats, rows.first[i], rows.last[i],
                      rows.alpha[i], rows.slope[i], &brush);
    }
}

static void clear(const Canvas *canvas, int32_t width) {
    float *group = canvas->groups;
    for (int32_t y = 0; y < canvas->height; y++)
        for (int32_t g = 0; g < canvas->n_groups; g++, group += GROUP_FLOATS) {
            for (int i = 0; i < GROUP; i++) group[i] = g * GROUP + i < width ? 1.0f : -1.0f;
            for (int i = 4; i < GROUP_FLOATS; i++) group[i] = 0.0f;
        }
}

// Copies the groups to a picture of planes.
static void finish(const Canvas *canvas, int32_t width, Picture *picture) {
    const float *group = canvas->groups;
    picture->width = width;
    picture->height = canvas->height;
    picture->stride = canvas->n_groups * GROUP;
    for (int32_t p = 0; p < picture->height * picture->stride; p += GROUP, group += GROUP_FLOATS) {
        store(picture->alpha + p, sub(splat(1.0f), wasm_f32x4_abs(load(group))));
        store(picture->red + p, load(group + 4));
        store(picture->green + p, load(group + 8));
        store(picture->blue + p, load(group + 12));
    }
}

// Draws n splats in the order of `order` into the picture `raw`.
void rasterize(Work *work, int32_t n, int32_t width, int32_t height) {
    Canvas canvas = {work->groups, (width + GROUP - 1) / GROUP, height};
    clear(&canvas, width);
    for (int32_t i = 0; i < n; i++) blend_splat(&canvas, work->splats + work->order[i]);
    finish(&canvas, width, &work->raw);
}
