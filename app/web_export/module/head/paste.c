// The picture that is drawn over an idle frame.
// Counterparts: enlarged_mask (talkhead/crops.py), CropPaster (app/composer/paste.py).

#include "head.h"

#define SUBPIXELS 32.0f  // OpenCV rounds positions to these
#define N_PLANES 5       // red, green, blue, opacity, share

// The two values between which a position is interpolated, and the share of the second one.
typedef struct {
    int32_t low, high;
    float share;
} Between;

// Position of crop pixel i in a small mask of n_small pixels, of which n from `first` on are stored.
static Between small_position(int32_t i, int32_t n_crop, int32_t n_small, int32_t first, int32_t n) {
    float place = ((float)i + 0.5f) * (float)n_small / (float)n_crop - 0.5f;
    float low = __builtin_floorf(place);
    int32_t k = (int32_t)low - first;
    return (Between){max_int(min_int(k, n - 1), 0), max_int(min_int(k + 1, n - 1), 0), place - low};
}

// enlarged_mask: the person mask of a window. `mixed` holds a row of the small mask.
static void enlarge_mask(const Head *head, int32_t frame, const Window *window, int32_t stride,
                         float *person, float *mixed) {
    const Sizes *s = head->sizes;
    const uint8_t *mask = head->masks + (size_t)frame * s->mask_width * s->mask_height;
    for (int32_t y = 0; y < window->height; y++) {
        Between row = small_position(y + window->top, s->crop_height, s->small_height, s->mask_top,
                                     s->mask_height);
        const uint8_t *above = mask + row.low * s->mask_width;
        const uint8_t *below = mask + row.high * s->mask_width;
        for (int32_t x = 0; x < s->mask_width; x++)
            mixed[x] = ((float)above[x] + row.share * ((float)below[x] - (float)above[x])) / 255.0f;
        for (int32_t x = 0; x < window->width; x++) {
            Between column = small_position(x + window->left, s->crop_width, s->small_width,
                                            s->mask_left, s->mask_width);
            float left = mixed[column.low], right = mixed[column.high];
            person[(size_t)y * stride + x] = left + column.share * (right - left);
        }
    }
}

// The opacity of person and head, doubled and limited to 1, in place of the person mask.
static void cover(const Picture *picture, float *person) {
    for (int32_t p = 0; p < picture->height * picture->stride; p += 4) {
        f4 most = at_least(load(picture->alpha + p), load(person + p));
        store(person + p, clamp4(mul(splat(2.0f), most), 0.0f, 1.0f));
    }
}

// Multiplies the mask by `covered`, dilated by a pixel. `rows` holds a row.
static void limit_mask(const Picture *picture, const float *covered, float *mask, float *rows) {
    int32_t stride = picture->stride;
    float *highest = rows + 4;
    for (int32_t y = 0; y < picture->height; y++, mask += stride, covered += stride) {
        const float *above = y > 0 ? covered - stride : covered;
        const float *below = y + 1 < picture->height ? covered + stride : covered;
        for (int32_t x = 0; x < stride; x += 4)
            store(highest + x, at_least(load(covered + x), at_least(load(above + x), load(below + x))));
        highest[-1] = highest[picture->width] = 0.0f;
        for (int32_t x = 0; x < stride; x += 4) {
            f4 sides = at_least(load(highest + x - 1), load(highest + x + 1));
            store(mask + x, mul(load(mask + x), at_least(load(highest + x), sides)));
        }
    }
}

// The four pixels that a position is interpolated from, and their weights.
typedef struct {
    int32_t pixels[4];
    float cubic[4], linear[4];
} Taps;

// Taps of OpenCV's cubic interpolation (a = -0.75; edges repeated) and its linear one (0 outside).
static Taps taps_at(float place, int32_t n) {
    Taps taps;
    place = __builtin_rintf(place * SUBPIXELS) / SUBPIXELS;
    float low = __builtin_floorf(place), t = place - low, u = 1.0f - t, a = -0.75f;
    taps.cubic[0] = ((a * (t + 1.0f) - 5.0f * a) * (t + 1.0f) + 8.0f * a) * (t + 1.0f) - 4.0f * a;
    taps.cubic[1] = ((a + 2.0f) * t - (a + 3.0f)) * t * t + 1.0f;
    taps.cubic[2] = ((a + 2.0f) * u - (a + 3.0f)) * u * u + 1.0f;
    taps.cubic[3] = 1.0f - taps.cubic[0] - taps.cubic[1] - taps.cubic[2];
    for (int i = 0; i < 4; i++) {
        int32_t k = (int32_t)low - 1 + i;
        taps.pixels[i] = max_int(min_int(k, n - 1), 0);
        taps.linear[i] = k < 0 || k >= n ? 0.0f : i == 1 ? u : i == 2 ? t : 0.0f;
    }
    return taps;
}

// Writes a row of a plane, interpolated between four rows, to `row`.
static void mix_rows(const float *plane, int32_t stride, const Taps *taps, const float *weights,
                     float *row) {
    const float *rows[4];
    f4 shares[4];
    for (int i = 0; i < 4; i++) {
        rows[i] = plane + (size_t)taps->pixels[i] * stride;
        shares[i] = splat(weights[i]);
    }
    for (int32_t x = 0; x < stride; x += 4)
        store(row + x, add(add(mul(shares[0], load(rows[0] + x)), mul(shares[1], load(rows[1] + x))),
                           add(mul(shares[2], load(rows[2] + x)), mul(shares[3], load(rows[3] + x)))));
}

static uint8_t to_byte(float value) { return (uint8_t)clamp(value + 0.5f, 0.0f, 255.0f); }

// The stored part of row y of the background.
static const uint8_t *plate_row(const Head *head, int32_t y) {
    const Sizes *s = head->sizes;
    int32_t row = max_int(min_int(y - s->plate_top, s->plate_height - 1), 0);
    return head->plate + 3 * (size_t)row * s->plate_width;
}

// Writes a pixel: the head over the background, as opaque as it is pasted. Four lanes are its colors.
static inline void write_pixel(f4 color, float opacity, float share, f4 gain, const uint8_t *plate,
                               uint8_t *pixel) {
    float behind = 1.0f - clamp(opacity, 0.0f, 1.0f);
    f4 back = wasm_f32x4_make((float)plate[0], (float)plate[1], (float)plate[2], 0.0f);
    f4 made = mul_add(color, gain, mul(splat(behind), back));
    made = wasm_f32x4_replace_lane(made, 3, 255.0f * share);
    made = clamp4(add(made, splat(0.5f)), 0.0f, 255.0f);
    v128_t numbers = wasm_i32x4_trunc_sat_f32x4(made);
    v128_t narrow = wasm_i16x8_narrow_i32x4(numbers, numbers);
    wasm_v128_store32_lane(pixel, wasm_u8x16_narrow_i16x8(narrow, narrow), 0);
}

// CropPaster._in_source: the source pixels that a window of the crop covers.
static Window source_window(const Head *head, const float *origin, const Window *w) {
    float scale = head->numbers->scale;
    float left = origin[0] + (float)w->left / scale, top = origin[1] + (float)w->top / scale;
    float right = origin[0] + (float)(w->left + w->width) / scale;
    float bottom = origin[1] + (float)(w->top + w->height) / scale;
    Window result;
    result.left = max_int((int32_t)__builtin_floorf(left), 0);
    result.top = max_int((int32_t)__builtin_floorf(top), 0);
    result.width = max_int(min_int((int32_t)__builtin_ceilf(right), head->sizes->width) - result.left, 0);
    result.height =
        max_int(min_int((int32_t)__builtin_ceilf(bottom), head->sizes->height) - result.top, 0);
    return result;
}

// Position in the window of crop pixels of source pixel i.
static float crop_position(int32_t i, float origin, int32_t first, float scale) {
    return ((float)i + 0.5f - origin) * scale - (float)first - 0.5f;
}

// A row of the five planes, from which source pixels are made.
typedef struct {
    const float *planes[N_PLANES];
    int32_t width;
} Row;

// Row y of the source in crop columns: a row of the planes, or one interpolated into `mixed`.
static Row crop_row(const float *const *planes, int32_t stride, const Window *window, float place,
                    int is_exact, float *mixed) {
    Row row = {.width = window->width};
    Taps taps = taps_at(place, window->height);
    int32_t exact = max_int(min_int((int32_t)place, window->height - 1), 0);
    for (int k = 0; k < N_PLANES; k++) {
        if (!is_exact)
            mix_rows(planes[k], stride, &taps, k < 4 ? taps.cubic : taps.linear, mixed + k * stride);
        row.planes[k] = is_exact ? planes[k] + (size_t)exact * stride : mixed + k * stride;
    }
    return row;
}

// The five values of a row at a position.
static inline void sample(const Row *row, float place, int is_exact, float *values) {
    if (is_exact) {
        int32_t column = max_int(min_int((int32_t)place, row->width - 1), 0);
        for (int k = 0; k < N_PLANES; k++) values[k] = row->planes[k][column];
        return;
    }
    Taps taps = taps_at(place, row->width);
    for (int k = 0; k < N_PLANES; k++) {
        const float *weights = k < 4 ? taps.cubic : taps.linear;
        values[k] = 0.0f;
        for (int i = 0; i < 4; i++) values[k] += weights[i] * row->planes[k][taps.pixels[i]];
    }
}

// CropPaster.paste, as a picture with opacity that is drawn over the frame. shown: number of the
// frame, there and back; frame: its number in the clip. Returns its place in source pixels.
Window paste(const Head *head, Work *work, int32_t shown, int32_t frame, Window window) {
    const Sizes *s = head->sizes;
    const Picture *sharp = &work->sharp;
    const float *origin = head->origins + 2 * frame, *gains = head->gains + 3 * shown;
    const float *planes[N_PLANES] = {sharp->red, sharp->green, sharp->blue, sharp->alpha, work->mask};
    float scale = head->numbers->scale, values[N_PLANES];
    f4 gain = mul(splat(255.0f), wasm_f32x4_make(gains[0], gains[1], gains[2], 0.0f));
    enlarge_mask(head, frame, &window, sharp->stride, work->person, work->rows);
    cover(sharp, work->person);
    limit_mask(sharp, work->person, work->mask, work->rows);
    Window source = source_window(head, origin, &window);
    uint8_t *pixel = work->pixels;
    for (int32_t y = source.top; y < source.top + source.height; y++) {
        float place = crop_position(y, origin[1], window.top, scale);
        Row row = crop_row(planes, sharp->stride, &window, place, scale == 1.0f, work->rows);
        const uint8_t *plate = plate_row(head, y);
        for (int32_t x = source.left; x < source.left + source.width; x++, pixel += 4) {
            int32_t column = max_int(min_int(x - s->plate_left, s->plate_width - 1), 0);
            sample(&row, crop_position(x, origin[0], window.left, scale), scale == 1.0f, values);
            f4 color = wasm_f32x4_make(values[0], values[1], values[2], 0.0f);
            write_pixel(color, values[3], values[4], gain, plate + 3 * column, pixel);
        }
    }
    return source;
}

// over (app/composer/frames.py), left to the page: writes the whole picture with its opacity.
void write_picture(Work *work) {
    const Picture *sharp = &work->sharp;
    uint8_t *pixel = work->pixels;
    for (int32_t y = 0; y < sharp->height; y++)
        for (int32_t x = 0; x < sharp->width; x++, pixel += 4) {
            int32_t p = y * sharp->stride + x;
            float white = 255.0f / maximum(sharp->alpha[p], 1e-4f);
            pixel[0] = to_byte(sharp->red[p] * white);
            pixel[1] = to_byte(sharp->green[p] * white);
            pixel[2] = to_byte(sharp->blue[p] * white);
            pixel[3] = to_byte(sharp->alpha[p] * 255.0f);
        }
}
