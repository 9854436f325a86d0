// The head: what head.bin holds, the memory that drawing needs, and the steps of drawing.
#ifndef TALKHEAD_HEAD_H
#define TALKHEAD_HEAD_H

#include "../common/memory.h"
#include "../common/sections.h"
#include "../common/vectors.h"
#include "constants.h"

#define N_CHANNELS 7  // position 3, color 3, opacity logit 1
#define BLOCK 16      // Gaussians whose deltas are stored side by side
#define GROUP 4       // pixels of a row that are drawn at once

// Values of head.bin, in the order of app/web_export/head_file.py.
typedef struct {
    int32_t n_gaussians, n_on_body;   // Gaussians, and those of them with deltas of the clothes
    int32_t n_codes, n_mouth;         // components of a motion code, and of the mouth
    int32_t n_moving, n_clothes;      // components that move vertices, the first ones; clothes follow
    int32_t n_triangles;              // frames that are triangles, before skull, jaw and body
    int32_t n_seen, n_seen_codes;     // training codes of CodeProjector, and their components
    int32_t n_idle;                   // frames of the idle clip
    int32_t crop_width, crop_height;  // crop pixels
    int32_t width, height;            // of the idle video, source pixels
    int32_t plate_left, plate_top, plate_width, plate_height;  // the stored part, source pixels
    int32_t mask_left, mask_top, mask_width, mask_height;      // the stored part, small pixels
    int32_t small_width, small_height;                         // of whole masks
} Sizes;

typedef struct {
    float scale;               // crop pixels per source pixel
    float focal;               // focal length, source pixels
    float sharpening;          // amount
    float near, far;           // reach of CodeProjector; may be infinite
    float head_left, head_top;  // origin of the crop that mode head shows, source pixels
    float shape_step;
} Numbers;

typedef struct {
    const Sizes *sizes;
    const Numbers *numbers;
    const float *units, *base_steps;        // [7]
    const float *delta_steps, *code_steps;  // [K + 12], [K]
    const float *pose_mean, *pose_scale;    // [12]
    const float *rest_view;                 // [3, 4]
    const float *template, *basis, *jaw;    // [478, 3], [moving, 478, 3], [moving, 3]
    const float *rest_inverse;              // [T, 3, 3]
    const float *seen;                      // [S, M]
    const float *views, *origins;           // [F, 3, 4], [F, 2]
    const float *gains;                     // [period, 3]
    const int32_t *triangles, *index;       // [T, 3], [N]
    const int32_t *on_body;                 // [B], Gaussians with deltas for clothes
    const int16_t *base, *shape;            // [7, N], [6, N]
    const int16_t *codes;                   // [F, K]
    const int8_t *deltas, *clothes_deltas;  // [K - clothes + 12, N, 7], [clothes, B, 7]
    uint8_t *masks, *plate;                 // [F, h, w], [h, w, 3]; differences until they are summed
} Head;

// A view of the person: world to camera [3, 4], and the camera.
typedef struct {
    const float *view;
    float focal, center_x, center_y;  // crop pixels
} Camera;

typedef struct {
    int32_t left, top, width, height;
} Window;

// A Gaussian in the picture, see cpu_project.py.
typedef struct {
    float x, y, a, b, c, cut;
    float opacity, red, green, blue;
} Splat;

// A picture of floats, four planes whose rows are `stride` apart.
typedef struct {
    int32_t width, height, stride;
    float *red, *green, *blue, *alpha;
} Picture;

// Deltas in the order in which they are blended: [7, blocks, n_weights, 16].
typedef struct {
    int32_t n_blocks, n_weights;
    int8_t *deltas;
} Blocks;

// Memory that is taken once for a head. N and B are filled up to multiples of BLOCK.
typedef struct {
    Blocks blocks, clothes_blocks;
    float *base;                 // [7, N]
    float *code;                 // [K + 12], weights of the deltas; clothes first, see blend.c
    float *motion;               // [K]
    float *distances;            // [S]
    float *vertices;             // [478, 3]
    float *gradients, *origins;  // [T + 3, 9], [T + 3, 3]
    float *shapes;               // [6, N], elements of L: 00, 10, 11, 20, 21, 22
    float *values;               // [7, N]
    float *clothes;              // [B]
    Splat *splats;               // [N]
    uint32_t *keys, *order, *spare;  // [N]
    float *groups;               // [rows, groups, 4, 4]: transmittance, red, green, blue
    Picture raw, sharp;
    float *mask, *person, *area, *scratch;  // [rows, stride]
    float *rows;                 // rows of a picture, for filters
    uint8_t *pixels;             // RGBA
} Work;

// read.c
int32_t read_head(uint8_t *file, size_t n_bytes, Head *head);

// prepare.c
int32_t filled_up(int32_t n);
void take_gaussians(const Sizes *sizes, Work *work);
void prepare_gaussians(const Head *head, Work *work);

// blend.c
void blend(const Head *head, Work *work, const float *motion, const float *view);

// pose.c
void pose_vertices(const Head *head, const float *motion, float *vertices);
void pose_frames(const Head *head, Work *work, const float *motion, const float *view);

// project.c, sort.c, rasterize.c, sharpen.c
int32_t project(const Head *head, Work *work, const Camera *camera, int32_t width, int32_t height);
void sort_by_depth(Work *work, int32_t n);
void rasterize(Work *work, int32_t n, int32_t width, int32_t height);
void sharpen(Work *work, float amount);

// render.c
void render(const Head *head, Work *work, const float *motion, const Camera *camera,
            int32_t width, int32_t height);

// mask.c
Window paste_mask(const Head *head, Work *work, const Camera *camera, const float *source,
                  const float *target);

// paste.c
Window paste(const Head *head, Work *work, int32_t shown, int32_t frame, Window window);
void write_picture(Work *work);

#endif
