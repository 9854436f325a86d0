// Constants of the Python renderer and compositor. tests/app/web_export/test_web_module.py compares
// each with its counterpart of the same name.
#ifndef TALKHEAD_CONSTANTS_H
#define TALKHEAD_CONSTANTS_H

// renderers/gaussian/rasterizer/constants.py
#define BLUR_PX2 0.3f
#define ALPHA_FLOOR (1.0f / 255.0f)
#define ALPHA_CAP 0.999f
#define MIN_TRANSMITTANCE 1e-4f
#define NEAR_PLANE 0.01f
#define FAR_PLANE 1e10f
#define FOV_MARGIN 0.3f

// renderers/sharpening.py
#define SIDE 0.21f
#define MIDDLE 0.58f
#define OPAQUE 0.9f

// renderers/code_projection.py
#define NEIGHBORS 20
#define BANDWIDTH 0.5f

// renderers/pose_features.py
#define N_POSE 12
#define POSE_RANGE 2.5f

// talkhead/face.py
#define N_BODY 6
#define N_LANDMARKS 478
#define FOREHEAD 10
#define CHIN 152
#define MAX_CODE 1e4f

// app/composer/paste.py
#define NECK_FRACTION 0.03f
#define FEATHER_FRACTION 0.010f
#define SUBPIXEL_BITS 4

// app/composer/idle_clip.py
#define FARTHEST 4

// Outline of the pasted region: JAW_LINE of talkhead/face.py and UPPER_LINE of paste.py.
#define N_JAW_LINE 21
#define N_UPPER_LINE 9
#define N_OUTLINE (N_JAW_LINE + N_UPPER_LINE)
#define JAW_LINE                                                                                 \
    454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, \
        93, 234
#define UPPER_LINE 116, 117, 118, 119, 195, 348, 347, 346, 345

#endif
