// Blending of the splats, front to back.
// Counterpart: blend (renderers/gaussian/rasterizer/cpu_blend.py). Instead of blocks in tiles, the
// groups of four pixels that the ellipse of a splat reaches in each row are visited.

#include "head.h"

#define X_MAX 0.7f  // an eighth of the exponent; a larger one is below the floor at any opacity
#define GROUP_FLOATS 16

// exp(-8 x) for x in [0, X_MAX], as in cpu_blend.py.
static inline f4 falloff(f4 x) {
    f4 e = splat(-0.00588525f);
    e = mul_add(x, e, splat(0.03984831f));
    e = mul_add(x, e, splat(-0.16602841f));
    e = mul_add(x, e, splat(0.49989978f));
    e = mul_add(x, e, splat(-0.99999476f));
    e = mul_add(x, e, splat(1.0f));
    e = mul(e, e);
    e = mul(e, e);
    return mul(e, e);
}

// Blends a splat over a group. The transmittance of a finished pixel is negated, so that every later
// splat falls below the threshold as well.
static inline void blend_group(float *group, f4 t, f4 alpha, f4 red, f4 green, f4 blue) {
    alpha = wasm_v128_and(wasm_f32x4_pmin(alpha, splat(ALPHA_CAP)),
                          wasm_f32x4_ge(alpha, splat(ALPHA_FLOOR)));
    f4 weight = mul(t, alpha), rest = sub(t, weight);
    f4 finished = wasm_f32x4_le(rest, splat(MIN_TRANSMITTANCE));
    weight = wasm_v128_andnot(weight, finished);
    f4 ended = wasm_v128_or(t, splat(-0.0f));
    store(group, wasm_v128_bitselect(ended, rest, finished));
    store(group + 4, mul_add(weight, red, load(group + 4)));
    store(group + 8, mul_add(weight, green, load(group + 8)));
    store(group + 12, mul_add(weight, blue, load(group + 12)));
}

typedef struct {
    float *groups;
    int32_t n_groups, height;  // groups in a row, rows
} Canvas;

// Blends a splat over the groups of one row that its ellipse reaches.
static inline void blend_row(const Canvas *canvas, const Splat *s, int32_t y) {
    float dy = (float)y + 0.5f - s->y, v = s->c * dy;
    float left_over = s->cut - v * v;
    if (!(left_over >= 0.0f)) return;
    float half = square_root(left_over) / s->a, middle = s->x - s->b * dy / s->a - 0.5f;
    int32_t first = max_int((int32_t)__builtin_ceilf(middle - half), 0) / GROUP;
    int32_t last = (int32_t)__builtin_floorf(middle + half);
    if (last < 0) return;
    last = min_int(last / GROUP, canvas->n_groups - 1);
    f4 a = splat(0.25f * s->a), opacity = splat(s->opacity);
    f4 red = splat(s->red), green = splat(s->green), blue = splat(s->blue);
    f4 uy = splat(0.25f * s->b * dy), vv = splat(0.0625f * v * v);
    f4 lanes = wasm_f32x4_make(0.5f, 1.5f, 2.5f, 3.5f);
    float *group = canvas->groups + ((size_t)y * canvas->n_groups + first) * GROUP_FLOATS;
    for (int32_t g = first; g <= last; g++, group += GROUP_FLOATS) {
        f4 t = load(group);
        if (!wasm_v128_any_true(wasm_f32x4_gt(t, splat(0.0f)))) continue;
        f4 dx = add(splat((float)(g * GROUP) - s->x), lanes);
        f4 u = mul_add(a, dx, uy);
        f4 x = wasm_f32x4_pmin(mul_add(u, u, vv), splat(X_MAX));
        blend_group(group, t, mul(opacity, falloff(x)), red, green, blue);
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
    for (int32_t i = 0; i < n; i++) {
        const Splat *s = work->splats + work->order[i];
        float radius = square_root(s->cut) / s->c;
        int32_t top = max_int((int32_t)__builtin_ceilf(s->y - radius - 0.5f), 0);
        int32_t bottom = min_int((int32_t)__builtin_floorf(s->y + radius - 0.5f), height - 1);
        for (int32_t y = top; y <= bottom; y++) blend_row(&canvas, s, y);
    }
    finish(&canvas, width, &work->raw);
}
