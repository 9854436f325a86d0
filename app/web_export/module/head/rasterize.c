// Blending of the splats, front to back.
// Counterpart: blend (renderers/gaussian/rasterizer/cpu_blend.py). Instead of blocks in tiles, the
// groups of four pixels that the ellipse of a splat reaches in each row are visited.
//
// With u = a dx + b dy and v = c dy, alpha is opacity exp(-(u^2 + v^2) / 2). From one group of a row to
// the next, alpha changes by a ratio exp(-4 a u - 8 a^2), and the ratio by exp(-16 a^2), so that only
// the first group of a row needs exponentials.

#include "head.h"

#define GROUP_FLOATS 16
#define MAX_BRUSHES 64
#define MAX_RUNS 1024

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

// The groups of a row that a splat reaches, and alpha and exp(-a u) at the first pixel of the first.
typedef struct {
    float *groups;
    int32_t n_groups;
    float alpha, slope;
} Run;

// Splats that are measured before they are blended, so that the processor need not wait for the
// measures. Runs of brush k end at ends[k].
typedef struct {
    int32_t n_brushes, n_runs;
    Brush brushes[MAX_BRUSHES];
    int32_t ends[MAX_BRUSHES];
    Run runs[MAX_RUNS];
} Batch;

static Brush make_brush(const Splat *s) {
    float a2 = s->a * s->a;
    f4 shares = exp4(mul(splat(-0.5f * a2), wasm_f32x4_make(0.0f, 1.0f, 4.0f, 9.0f)));
    f4 ratios = exp4(mul(splat(-4.0f * a2), wasm_f32x4_make(2.0f, 3.0f, 4.0f, 5.0f)));
    f4 change = splat(wasm_f32x4_extract_lane(ratios, 2));
    return (Brush){splat(s->red), splat(s->green), splat(s->blue), shares, ratios, change};
}

// Adds the runs of rows y to y + 3, as far as they are before row `after`.
static inline void add_runs(const Canvas *canvas, const Splat *s, int32_t y, int32_t after,
                            Batch *batch) {
    f4 dy = add(splat((float)y - s->y), wasm_f32x4_make(0.5f, 1.5f, 2.5f, 3.5f));
    f4 v = mul(splat(s->c), dy), vv = mul(v, v), left_over = sub(splat(s->cut), vv);
    f4 half = mul(wasm_f32x4_sqrt(at_least(left_over, splat(0.0f))), splat(1.0f / s->a));
    f4 middle = sub(splat(s->x - 0.5f), mul(splat(s->b / s->a), dy));
    f4 left = at_least(wasm_f32x4_ceil(sub(middle, half)), splat(0.0f));
    v128_t first = wasm_i32x4_shr(wasm_i32x4_trunc_sat_f32x4(left), 2);
    v128_t last = wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_floor(add(middle, half)));
    first = wasm_i32x4_min(first, wasm_i32x4_splat(canvas->n_groups));
    last = wasm_i32x4_min(wasm_i32x4_shr(last, 2), wasm_i32x4_splat(canvas->n_groups - 1));
    last = wasm_v128_or(last, wasm_f32x4_lt(left_over, splat(0.0f)));  // none: -1
    v128_t n_groups = wasm_i32x4_sub(last, wasm_i32x4_sub(first, wasm_i32x4_splat(1)));
    f4 start = add(wasm_f32x4_convert_i32x4(wasm_i32x4_shl(first, 2)), splat(0.5f - s->x));
    f4 u = mul_add(splat(s->a), start, mul(splat(s->b), dy));
    f4 alpha = mul(splat(s->opacity), exp4(mul(splat(-0.5f), mul_add(u, u, vv))));
    f4 slope = exp4(mul(splat(-s->a), u));
    int32_t firsts[4], counts[4];
    float alphas[4], slopes[4];
    wasm_v128_store(firsts, first);
    wasm_v128_store(counts, n_groups);
    store(alphas, alpha);
    store(slopes, slope);
    for (int32_t i = 0; i < 4; i++) {
        float *groups = canvas->groups + (y + i) * canvas->n_groups * GROUP_FLOATS;
        batch->runs[batch->n_runs] =
            (Run){groups + firsts[i] * GROUP_FLOATS, counts[i], alphas[i], slopes[i]};
        batch->n_runs += counts[i] > 0 && y + i < after;
    }
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

static inline void blend_run(const Run *run, const Brush *brush) {
    float slope = run->slope, slope2 = slope * slope;
    f4 powers = wasm_f32x4_make(1.0f, slope, slope2, slope2 * slope);
    f4 alphas = mul(mul(splat(run->alpha), powers), brush->shares);
    f4 ratios = mul(splat(slope2 * slope2), brush->ratios);
    float *group = run->groups;
    for (int32_t n = run->n_groups; n > 0; n--, group += GROUP_FLOATS) {
        blend_group(group, alphas, brush);
        alphas = mul(alphas, ratios);
        ratios = mul(ratios, brush->ratio_change);
    }
}

// Blends the splats of a batch and empties it.
static void blend_batch(Batch *batch) {
    const Run *run = batch->runs;
    for (int32_t k = 0; k < batch->n_brushes; k++) {
        Brush brush = batch->brushes[k];
        for (const Run *end = batch->runs + batch->ends[k]; run < end; run++)
            blend_run(run, &brush);
    }
    batch->n_brushes = batch->n_runs = 0;
}

static void add_splat(const Canvas *canvas, const Splat *s, Batch *batch) {
    float radius = square_root(s->cut) / s->c;
    int32_t top = max_int((int32_t)__builtin_ceilf(s->y - radius - 0.5f), 0);
    int32_t after = min_int((int32_t)__builtin_floorf(s->y + radius - 0.5f), canvas->height - 1) + 1;
    Brush brush = make_brush(s);
    for (int32_t y = top; y < after;) {
        if (batch->n_brushes == MAX_BRUSHES || batch->n_runs + 4 > MAX_RUNS) blend_batch(batch);
        int32_t k = batch->n_brushes++;
        batch->brushes[k] = brush;
        for (; y < after && batch->n_runs + 4 <= MAX_RUNS; y += 4)
            add_runs(canvas, s, y, after, batch);
        batch->ends[k] = batch->n_runs;
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
    static Batch batch;
    Canvas canvas = {work->groups, (width + GROUP - 1) / GROUP, height};
    batch.n_brushes = batch.n_runs = 0;
    clear(&canvas, width);
    for (int32_t i = 0; i < n; i++) add_splat(&canvas, work->splats + work->order[i], &batch);
    blend_batch(&batch);
    finish(&canvas, width, &work->raw);
}
