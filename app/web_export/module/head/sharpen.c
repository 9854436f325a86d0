// Sharpening of the picture inside the head.
// Counterpart: sharpen (renderers/sharpening.py).

#include "head.h"

// Row y of a plane, blurred along columns, with its ends repeated at -1 and `width`.
static void blur_columns(const Picture *picture, const float *plane, int32_t y, float *row) {
    int32_t stride = picture->stride, width = picture->width;
    const float *middle = plane + (size_t)y * stride;
    const float *above = y > 0 ? middle - stride : middle;
    const float *below = y + 1 < picture->height ? middle + stride : middle;
    f4 side = splat(SIDE), center = splat(MIDDLE);
    for (int32_t x = 0; x < stride; x += 4)
        store(row + x, add(mul(center, load(middle + x)),
                           mul(side, add(load(above + x), load(below + x)))));
    row[-1] = row[0];
    row[width] = row[width - 1];
}

static inline f4 blur_rows(const float *row) {
    return add(mul(splat(MIDDLE), load(row)), mul(splat(SIDE), add(load(row - 1), load(row + 1))));
}

// Sharpens `raw` into `sharp`, whose opacity is that of `raw`.
void sharpen(Work *work, float amount) {
    Picture *raw = &work->raw, *sharp = &work->sharp;
    const float *planes[3] = {raw->red, raw->green, raw->blue};
    float *results[3] = {sharp->red, sharp->green, sharp->blue};
    int32_t stride = raw->stride;
    float *opacity = work->rows + 4, *row = opacity + stride + 8;
    sharp->width = raw->width, sharp->height = raw->height, sharp->stride = stride;
    sharp->alpha = raw->alpha;
    for (int32_t y = 0; y < raw->height; y++) {
        size_t start = (size_t)y * stride;
        blur_columns(raw, raw->alpha, y, opacity);
        for (int k = 0; k < 3; k++) {
            blur_columns(raw, planes[k], y, row);
            for (int32_t x = 0; x < stride; x += 4) {
                f4 inside = mul(sub(blur_rows(opacity + x), splat(OPAQUE)), splat(1.0f / (1.0f - OPAQUE)));
                f4 share = mul(splat(amount), clamp4(inside, 0.0f, 1.0f));
                f4 value = load(planes[k] + start + x);
                value = mul_add(share, sub(value, blur_rows(row + x)), value);
                value = at_most(at_least(value, splat(0.0f)), load(raw->alpha + start + x));
                store(results[k] + start + x, value);
            }
        }
    }
}
