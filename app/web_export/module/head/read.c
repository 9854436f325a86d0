// Reading of head.bin. Every size, index and number is checked once, here; drawing relies on that.

#include "head.h"

#define MAGIC "TALKHEAD"
#define VERSION 1u

// Returns a section of numbers whose magnitude is at most `most`.
static const float *bounded(Reader *reader, const char *name, uint64_t count, float most) {
    return numbers(reader, name, count, -most, most);
}

// Returns a section of indices below `after`.
static const int32_t *indices(Reader *reader, const char *name, uint64_t count, int32_t after) {
    const int32_t *values = section(reader, name, I32, count);
    for (uint64_t i = 0; values != NULL && i < count; i++) {
        if (!within(values[i], 0, after - 1)) {
            reader->is_damaged = 1;
            return NULL;
        }
    }
    return values;
}

// The limits are those of packages: talkhead/dataset.py, renderers/gaussian/model.py and others.
static int are_sizes_valid(const Sizes *s) {
    return within(s->n_gaussians, 1, 100000) && within(s->n_on_body, 0, s->n_gaussians) &&
           within(s->n_codes, N_BODY + 1, 256) && within(s->n_clothes, 0, s->n_codes - N_BODY) &&
           within(s->n_moving, 0, s->n_codes - N_BODY - s->n_clothes) &&
           within(s->n_mouth, 1, s->n_codes - N_BODY) && within(s->n_triangles, 1, 4096) &&
           within(s->n_seen, 1, 2000) && within(s->n_seen_codes, 0, s->n_mouth) &&
           within(s->n_idle, 1, 1500) && within(s->crop_width, 1, 4096) &&
           within(s->crop_height, 1, 4096) && within(s->width, 1, 16384) &&
           within(s->height, 1, 16384) && within(s->plate_left, 0, s->width - 1) &&
           within(s->plate_top, 0, s->height - 1) &&
           within(s->plate_width, 1, s->width - s->plate_left) &&
           within(s->plate_height, 1, s->height - s->plate_top) &&
           within(s->small_width, 1, 4096) && within(s->small_height, 1, 4096) &&
           within(s->mask_left, 0, s->small_width - 1) &&
           within(s->mask_top, 0, s->small_height - 1) &&
           within(s->mask_width, 1, s->small_width - s->mask_left) &&
           within(s->mask_height, 1, s->small_height - s->mask_top);
}

static int are_numbers_valid(const Numbers *n) {
    return n->scale >= 1.0f / 64.0f && n->scale <= 1.0f && n->focal >= 1.0f && n->focal <= 1e6f &&
           n->sharpening >= 0.0f && n->sharpening <= 100.0f && n->near >= 0.0f &&
           n->far >= n->near && __builtin_fabsf(n->head_left) <= 16384.0f &&
           __builtin_fabsf(n->head_top) <= 16384.0f && n->shape_step > 0.0f &&
           n->shape_step <= 1.0f;
}

static void read_sections(Reader *reader, Head *head) {
    const Sizes *s = head->sizes;
    uint64_t n = s->n_gaussians, n_idle = s->n_idle, n_vertices = N_LANDMARKS * 3;
    uint64_t n_weights = s->n_codes - s->n_clothes + N_POSE;
    uint64_t period = s->n_idle > 1 ? 2 * n_idle - 2 : 1;
    head->units = bounded(reader, "UNIT", N_CHANNELS, 10.0f);
    head->base_steps = bounded(reader, "BSTP", N_CHANNELS, 1e6f);
    head->delta_steps = bounded(reader, "DSTP", s->n_codes + N_POSE, 1e6f);
    head->pose_mean = bounded(reader, "PMEA", N_POSE, 1e6f);
    head->pose_scale = bounded(reader, "PSCA", N_POSE, 1e6f);
    head->rest_view = bounded(reader, "RVIE", 12, 1e3f);
    head->template = bounded(reader, "TEMP", n_vertices, 1e3f);
    head->basis = bounded(reader, "BASI", s->n_moving * n_vertices, 1e3f);
    head->jaw = bounded(reader, "JAW_", s->n_moving * 3, 1e3f);
    head->rest_inverse = bounded(reader, "RINV", s->n_triangles * 9, 1e9f);
    head->seen = bounded(reader, "SEEN", (uint64_t)s->n_seen * s->n_seen_codes, 1e6f);
    head->code_steps = bounded(reader, "CSTP", s->n_codes, MAX_CODE / 32768.0f);
    head->codes = section(reader, "CODE", I16, n_idle * s->n_codes);
    head->views = bounded(reader, "VIEW", n_idle * 12, 1e3f);
    head->origins = bounded(reader, "ORIG", n_idle * 2, 16384.0f);
    head->gains = bounded(reader, "GAIN", period * 3, 10.0f);
    head->triangles = indices(reader, "TRIA", s->n_triangles * 3, N_LANDMARKS);
    head->index = indices(reader, "INDX", n, s->n_triangles + 3);
    head->on_body = indices(reader, "BODY", s->n_on_body, s->n_gaussians);
    head->base = section(reader, "BASE", I16, n * N_CHANNELS);
    head->shape = section(reader, "SHAP", I16, n * 6);
    head->deltas = section(reader, "DELT", I8, n * N_CHANNELS * n_weights);
    head->clothes_deltas =
        section(reader, "CDEL", I8, (uint64_t)s->n_on_body * N_CHANNELS * s->n_clothes);
    head->masks = section(reader, "MASK", U8, n_idle * s->mask_width * s->mask_height);
    head->plate = section(reader, "PLAT", U8, 3ull * s->plate_width * s->plate_height);
}

// Masks are stored as differences from the frame before, the plate as those from the pixel to the
// left, which compress better.
static void sum_differences(const Head *head) {
    const Sizes *s = head->sizes;
    size_t n = (size_t)s->mask_width * s->mask_height, n_row = (size_t)s->plate_width * 3;
    for (size_t i = n; i < n * s->n_idle; i++) head->masks[i] += head->masks[i - n];
    for (int32_t y = 0; y < s->plate_height; y++) {
        uint8_t *row = head->plate + y * n_row;
        for (size_t i = 3; i < n_row; i++) row[i] += row[i - 3];
    }
}

// Reads a file that is in memory, and keeps pointers into it. Returns an error code.
int32_t read_head(uint8_t *file, size_t n_bytes, Head *head) {
    Reader reader;
    int32_t error = open_file(&reader, file, n_bytes, MAGIC, VERSION);
    if (error != FINE) return error;
    head->sizes = section(&reader, "SIZE", I32, sizeof(Sizes) / 4);
    head->numbers = section(&reader, "NUMB", F32, sizeof(Numbers) / 4);
    if (reader.is_damaged || !are_sizes_valid(head->sizes) || !are_numbers_valid(head->numbers))
        return DAMAGED;
    read_sections(&reader, head);
    if (reader.is_damaged || reader.next != reader.n_entries) return DAMAGED;
    for (int i = 0; i < N_POSE; i++)
        if (!(head->pose_scale[i] > 0.0f)) return DAMAGED;
    for (int32_t i = 0; i < head->sizes->n_idle; i++)
        if (!(head->views[12 * i + 11] >= NEAR_PLANE)) return DAMAGED;
    sum_differences(head);
    return FINE;
}
