// The mask within which the rendering is pasted.
// Counterparts: IdleClip.landmarks (app/composer/idle_clip.py), paste_mask and mask_window
// (app/composer/paste.py), which fill polygons with OpenCV.

#include "head.h"

#define MAX_RADIUS 256  // of the blur, for faces up to 6400 pixels high
#define MIN_SHARE 0.002f
#define WINDOW_MARGIN 4
#define LINE_REACH 1.5f

typedef struct {
    float x[N_OUTLINE], y[N_OUTLINE];
} Outline;

static const uint16_t OUTLINE[N_OUTLINE] = {JAW_LINE, UPPER_LINE};

// IdleClip.landmarks, for one vertex [3].
static void project_vertex(const Head *head, const Camera *camera, const float *vertex, float *x,
                           float *y) {
    const float *v = camera->view, *p = vertex;
    float reach = FARTHEST * (float)max_int(head->sizes->crop_width, head->sizes->crop_height);
    float z = v[8] * p[0] + v[9] * p[1] + v[10] * p[2] + v[11];
    *x = camera->focal * (v[0] * p[0] + v[1] * p[1] + v[2] * p[2] + v[3]) / z + camera->center_x;
    *y = camera->focal * (v[4] * p[0] + v[5] * p[1] + v[6] * p[2] + v[7]) / z + camera->center_y;
    *x = clamp(*x, -reach, reach);
    *y = clamp(*y, -reach, reach);
}

// _fixed_point, in pixels: centers of pixels are whole numbers, as in OpenCV.
static float fixed_point(float position) {
    float units = 1 << SUBPIXEL_BITS;
    return __builtin_rintf((position - 0.5f) * units) / units;
}

// _face_height.
static float face_height(const Head *head, const Camera *camera, const float *vertices) {
    float x0, y0, x1, y1;
    project_vertex(head, camera, vertices + 3 * FOREHEAD, &x0, &y0);
    project_vertex(head, camera, vertices + 3 * CHIN, &x1, &y1);
    return square_root((x1 - x0) * (x1 - x0) + (y1 - y0) * (y1 - y0));
}

// _outline: the lower face, and a strip of neck that narrows toward its ends.
static void outline(const Head *head, const Camera *camera, const float *vertices, float neck,
                    Outline *o) {
    float low = __builtin_inff(), high = -__builtin_inff();
    for (int i = 0; i < N_OUTLINE; i++) {
        project_vertex(head, camera, vertices + 3 * OUTLINE[i], o->x + i, o->y + i);
        if (i < N_JAW_LINE) low = minimum(low, o->y[i]), high = maximum(high, o->y[i]);
    }
    for (int i = 0; i < N_OUTLINE; i++) {
        if (i < N_JAW_LINE)
            o->y[i] += neck * clamp((o->y[i] - low) / maximum(high - low, 1e-6f), 0.0f, 1.0f);
        o->x[i] = fixed_point(o->x[i]);
        o->y[i] = fixed_point(o->y[i]);
    }
}

// A part of the crop, in which the mask is made.
typedef struct {
    Window window;
    float *values;
} Area;

// Grows a range [low, high] to hold the outline's coordinates.
static void bound(const float *values, float *low, float *high) {
    for (int i = 0; i < N_OUTLINE; i++) {
        *low = minimum(*low, values[i]);
        *high = maximum(*high, values[i]);
    }
}

// The part of a crop around two outlines; empty if they are outside.
static Window area_of(const Head *head, const Outline *a, const Outline *b, float margin) {
    float left = __builtin_inff(), top = left, right = -left, bottom = -left;
    bound(a->x, &left, &right);
    bound(b->x, &left, &right);
    bound(a->y, &top, &bottom);
    bound(b->y, &top, &bottom);
    Window w;
    w.left = max_int((int32_t)__builtin_floorf(left - margin), 0);
    w.top = max_int((int32_t)__builtin_floorf(top - margin), 0);
    w.width = min_int((int32_t)__builtin_ceilf(right + margin) + 1, head->sizes->crop_width) - w.left;
    w.height = min_int((int32_t)__builtin_ceilf(bottom + margin) + 1, head->sizes->crop_height) - w.top;
    return w;
}

// Opacity of OpenCV's antialiased line at a distance from it, pixels.
static float line_opacity(float distance) {
    static const float table[14] = {254.0f, 247.5f, 227.5f, 198.0f, 163.0f, 126.5f, 93.0f,
                                    65.0f,  42.5f,  26.5f,  15.0f,  8.5f,   4.0f,   0.0f};
    float place = clamp(8.0f * distance, 0.0f, 12.0f);
    int k = (int)place;
    return (table[k] + (place - (float)k) * (table[k + 1] - table[k])) / 255.0f;
}

// Draws a line over the area.
static void draw_line(const Area *area, float x0, float y0, float x1, float y1) {
    const Window *w = &area->window;
    float dx = x1 - x0, dy = y1 - y0, length = square_root(dx * dx + dy * dy);
    if (!(length > 0.0f)) return;
    int32_t top = max_int((int32_t)__builtin_ceilf(minimum(y0, y1) - LINE_REACH) - w->top, 0);
    int32_t bottom = min_int((int32_t)(maximum(y0, y1) + LINE_REACH) - w->top, w->height - 1);
    for (int32_t row = top; row <= bottom; row++) {
        float y = (float)(row + w->top) - y0;
        // Columns within reach of the line in this row.
        float low = minimum(x0, x1) - LINE_REACH, high = maximum(x0, x1) + LINE_REACH;
        if (__builtin_fabsf(dy) > 1e-3f) {
            float middle = x0 + dx * y / dy, reach = LINE_REACH * length / __builtin_fabsf(dy);
            low = maximum(low, middle - reach), high = minimum(high, middle + reach);
        }
        int32_t first = max_int((int32_t)__builtin_ceilf(low) - w->left, 0);
        int32_t last = min_int((int32_t)__builtin_floorf(high) - w->left, w->width - 1);
        float *values = area->values + (size_t)row * w->width;
        for (int32_t column = first; column <= last; column++) {
            float x = (float)(column + w->left) - x0, along = (x * dx + y * dy) / length;
            if (along < -0.5f || along > length + 0.5f) continue;
            float opacity = line_opacity(__builtin_fabsf(x * dy - y * dx) / length);
            values[column] += (1.0f - values[column]) * opacity;
        }
    }
}

// Returns where the outline crosses a row, in ascending order.
static int crossings(const Outline *o, float y, float *xs) {
    int n = 0;
    for (int i = 0; i < N_OUTLINE; i++) {
        int j = (i + 1) % N_OUTLINE;
        if ((o->y[i] <= y) == (o->y[j] <= y)) continue;
        float x = o->x[i] + (y - o->y[i]) * (o->x[j] - o->x[i]) / (o->y[j] - o->y[i]);
        int k = n++;
        for (; k > 0 && xs[k - 1] > x; k--) xs[k] = xs[k - 1];
        xs[k] = x;
    }
    return n;
}

// cv2.fillPoly with LINE_AA.
static void fill(const Area *area, const Outline *o) {
    const Window *w = &area->window;
    for (int i = 0; i < N_OUTLINE; i++) {
        int j = (i + 1) % N_OUTLINE;
        draw_line(area, o->x[i], o->y[i], o->x[j], o->y[j]);
    }
    for (int32_t row = 0; row < w->height; row++) {
        float xs[N_OUTLINE];
        int n = crossings(o, (float)(row + w->top), xs);
        for (int k = 0; k + 1 < n; k += 2) {
            int32_t first = max_int((int32_t)__builtin_ceilf(xs[k]) - w->left, 0);
            int32_t last = min_int((int32_t)__builtin_floorf(xs[k + 1]) - w->left, w->width - 1);
            for (int32_t x = first; x <= last; x++) area->values[(size_t)row * w->width + x] = 1.0f;
        }
    }
}

// Index i of a line of n values, mirrored at its ends.
static int32_t mirrored(int32_t i, int32_t n) {
    if (i < 0) i = -i;
    if (i >= n) i = 2 * n - 2 - i;
    return max_int(min_int(i, n - 1), 0);
}

// Weights of cv2.GaussianBlur; returns their radius.
static int32_t gaussian(float sigma, float *weights) {
    int32_t radius = min_int((((int32_t)__builtin_rintf(8.0f * sigma + 1.0f)) | 1) / 2, MAX_RADIUS);
    float total = 0.0f;
    for (int32_t i = 0; i <= 2 * radius; i++) {
        float place = (float)(i - radius);
        weights[i] = exp1(-0.5f * place * place / (sigma * sigma));
        total += weights[i];
    }
    for (int32_t i = 0; i <= 2 * radius; i++) weights[i] /= total;
    return radius;
}

// Blurs the area in place; `spare` has the same size.
static void soften(Area *area, float sigma, float *spare, float *padded) {
    float weights[2 * MAX_RADIUS + 1];
    int32_t radius = gaussian(sigma, weights), width = area->window.width;
    int32_t height = area->window.height;
    for (int32_t y = 0; y < height; y++) {
        float *row = spare + (size_t)y * width;
        for (int32_t x = 0; x < width; x++) row[x] = 0.0f;
        for (int32_t i = 0; i <= 2 * radius; i++) {
            const float *other = area->values + (size_t)mirrored(y + i - radius, height) * width;
            for (int32_t x = 0; x < width; x++) row[x] += weights[i] * other[x];
        }
    }
    for (int32_t y = 0; y < height; y++) {
        const float *row = spare + (size_t)y * width;
        float *result = area->values + (size_t)y * width;
        for (int32_t x = -radius; x < width + radius; x++)
            padded[x + radius] = row[mirrored(x, width)];
        for (int32_t x = 0; x < width; x++) result[x] = 0.0f;
        for (int32_t i = 0; i <= 2 * radius; i++)
            for (int32_t x = 0; x < width; x++) result[x] += weights[i] * padded[x + i];
    }
}

// mask_window: the part of the crop around the mask.
static Window mask_window(const Head *head, const Area *area) {
    const Window *w = &area->window;
    int32_t left = w->width, right = -1, top = w->height, bottom = -1;
    for (int32_t y = 0; y < w->height; y++)
        for (int32_t x = 0; x < w->width; x++)
            if (area->values[(size_t)y * w->width + x] > MIN_SHARE) {
                left = min_int(left, x), right = max_int(right, x);
                top = min_int(top, y), bottom = y;
            }
    if (bottom < 0) return (Window){0, 0, 1, 1};
    Window result;
    result.left = max_int(w->left + left - WINDOW_MARGIN, 0);
    result.top = max_int(w->top + top - WINDOW_MARGIN, 0);
    result.width = min_int(w->left + right + 1 + WINDOW_MARGIN, head->sizes->crop_width) - result.left;
    result.height =
        min_int(w->top + bottom + 1 + WINDOW_MARGIN, head->sizes->crop_height) - result.top;
    return result;
}

// Copies the area to the window's mask, whose rows are `stride` apart.
static void copy_mask(const Area *area, const Window *window, float *mask) {
    int32_t stride = (window->width + GROUP - 1) / GROUP * GROUP;
    for (int32_t y = 0; y < window->height; y++) {
        float *row = mask + (size_t)y * stride;
        int32_t other = y + window->top - area->window.top;
        int is_inside = other >= 0 && other < area->window.height;
        for (int32_t x = 0; x < stride; x++) {
            int32_t column = x + window->left - area->window.left;
            row[x] = is_inside && column >= 0 && column < area->window.width
                         ? area->values[(size_t)other * area->window.width + column]
                         : 0.0f;
        }
    }
}

// paste_mask of two motion codes [K]: writes work->mask and returns its window of the crop.
Window paste_mask(const Head *head, Work *work, const Camera *camera, const float *source,
                  const float *target) {
    Outline before, after;
    pose_vertices(head, source, work->vertices);
    float height = face_height(head, camera, work->vertices);
    outline(head, camera, work->vertices, NECK_FRACTION * height, &before);
    pose_vertices(head, target, work->vertices);
    outline(head, camera, work->vertices, NECK_FRACTION * height, &after);
    float sigma = maximum(FEATHER_FRACTION * height, 0.8f);
    Area area = {area_of(head, &before, &after, 4.0f * sigma + 3.0f), work->area};
    if (area.window.width <= 0 || area.window.height <= 0) area.window = (Window){0, 0, 1, 1};
    for (int32_t i = 0; i < area.window.width * area.window.height; i++) area.values[i] = 0.0f;
    fill(&area, &before);
    fill(&area, &after);
    soften(&area, sigma, work->scratch, work->rows);
    Window window = mask_window(head, &area);
    copy_mask(&area, &window, work->mask);
    return window;
}
