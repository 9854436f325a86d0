// What the page calls: app/web_export/page/head.js.

#include "head.h"

#define EXPORT __attribute__((visibility("default")))

static Head head;
static Work work;
static int is_open;
// width, height, displayed frames, mouth components, crop width, crop height.
static int32_t facts[6];
// Of the last picture: left, top, width, height, source pixels.
static Window place;
static float mouth[256], own[256], code[256];

EXPORT uint8_t *reserve(size_t n_bytes) {
    is_open = 0;
    return reserve_file(n_bytes);
}

static float *floats(size_t n) { return take(n * sizeof(float)); }

static void take_picture(Picture *picture, size_t n) {
    picture->red = floats(n);
    picture->green = floats(n);
    picture->blue = floats(n);
    picture->alpha = floats(n);
}

// The largest number of pixels of a picture; a crop between source pixels reaches some more of them.
static size_t n_source_pixels(const Sizes *s, float scale) {
    size_t width = min_int((int32_t)((float)s->crop_width / scale) + 4, s->width);
    size_t height = min_int((int32_t)((float)s->crop_height / scale) + 4, s->height);
    size_t n_crop = (size_t)s->crop_width * s->crop_height;
    return width * height > n_crop ? width * height : n_crop;
}

// Takes the memory for drawing.
static void take_memory(const Sizes *s) {
    size_t n = filled_up(s->n_gaussians), stride = (s->crop_width + GROUP - 1) / GROUP * GROUP;
    size_t n_pixels = stride * s->crop_height, n_frames = s->n_triangles + 3;
    work.code = floats(s->n_codes + N_POSE);
    work.motion = floats(s->n_codes);
    work.distances = floats(s->n_seen);
    work.vertices = floats(3 * N_LANDMARKS);
    work.gradients = floats(9 * n_frames);
    work.origins = floats(3 * n_frames);
    work.values = floats(N_CHANNELS * n);
    work.clothes = floats(filled_up(s->n_on_body));
    work.splats = take(n * sizeof(Splat));
    work.keys = take(n * sizeof(uint32_t));
    work.order = take(n * sizeof(uint32_t));
    work.spare = take(n * sizeof(uint32_t));
    work.groups = floats(4 * n_pixels);
    work.area = floats(n_pixels);
    work.mask = floats(n_pixels);
    work.person = floats(n_pixels);
    work.scratch = floats(n_pixels);
    work.rows = floats(5 * stride + s->mask_width + 2 * 512 + 64);
    take_picture(&work.raw, n_pixels);
    take_picture(&work.sharp, n_pixels);
    work.pixels = take(4 * n_source_pixels(s, head.numbers->scale));
    take_gaussians(s, &work);
}

// Reads the file that was copied to `reserve`. Returns an error code.
EXPORT int32_t open_head(uint8_t *file, size_t n_bytes) {
    is_open = 0;
    int32_t error = read_head(file, n_bytes, &head);
    if (error != FINE) return error;
    const Sizes *s = head.sizes;
    take_memory(s);
    if (is_exhausted()) return TOO_LARGE;
    prepare_gaussians(&head, &work);
    int32_t period = s->n_idle > 1 ? 2 * s->n_idle - 2 : 1;
    int32_t values[] = {s->width, s->height, period, s->n_mouth, s->crop_width, s->crop_height};
    for (int i = 0; i < 6; i++) facts[i] = values[i];
    is_open = 1;
    return FINE;
}

EXPORT const int32_t *get_facts(void) { return facts; }
EXPORT float *get_mouth(void) { return mouth; }
EXPORT const Window *get_place(void) { return &place; }
EXPORT const uint8_t *get_pixels(void) { return work.pixels; }
// The last rendering before it was pasted: planes of red, green, blue and opacity.
EXPORT const Picture *get_rendering(void) { return &work.sharp; }

// The number in the clip of a frame of the clip played there and back (ping_pong, idle_clip.py).
static int32_t clip_frame(int32_t *shown) {
    int32_t n = head.sizes->n_idle, period = n > 1 ? 2 * n - 2 : 1;
    *shown = (int32_t)((uint32_t)*shown % (uint32_t)period);
    return *shown < n ? *shown : period - *shown;
}

// with_face (app/composer/frames.py): the frame's own code, and the one with the mouth of the page.
static void make_codes(int32_t frame) {
    int32_t n = head.sizes->n_codes;
    for (int32_t k = 0; k < n; k++) {
        own[k] = head.code_steps[k] * head.codes[(size_t)frame * n + k];
        code[k] = k < head.sizes->n_mouth ? clamp(mouth[k], -MAX_CODE, MAX_CODE) : own[k];
    }
}

// crop_intrinsics (talkhead/cameras.py).
static Camera camera_at(const float *view, float left, float top) {
    const Sizes *s = head.sizes;
    double scale = head.numbers->scale, focal = head.numbers->focal;
    return (Camera){view, (float)(focal * scale), (float)((0.5 * s->width - left) * scale),
                    (float)((0.5 * s->height - top) * scale)};
}

// Compositor._patch and paste: draws the lower face of a frame with the mouth of get_mouth().
EXPORT void draw_patch(int32_t shown) {
    if (!is_open) return;
    int32_t frame = clip_frame(&shown);
    const float *origin = head.origins + 2 * frame;
    make_codes(frame);
    Camera camera = camera_at(head.views + 12 * frame, origin[0], origin[1]);
    Window window = paste_mask(&head, &work, &camera, own, code);
    camera.center_x -= (float)window.left;
    camera.center_y -= (float)window.top;
    render(&head, &work, code, &camera, window.width, window.height);
    place = paste(&head, &work, shown, frame, window);
}

// HeadCompositor: draws the whole head with the mouth of get_mouth().
EXPORT void draw_head(int32_t shown) {
    if (!is_open) return;
    int32_t frame = clip_frame(&shown);
    make_codes(frame);
    Camera camera =
        camera_at(head.views + 12 * frame, head.numbers->head_left, head.numbers->head_top);
    render(&head, &work, code, &camera, head.sizes->crop_width, head.sizes->crop_height);
    place = (Window){0, 0, head.sizes->crop_width, head.sizes->crop_height};
    write_picture(&work);
}
