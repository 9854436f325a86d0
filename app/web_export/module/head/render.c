// Rendering of a motion code.
// Counterpart: GaussianRenderer.render (renderers/gaussian/model.py).

#include "head.h"

// Draws the head with a motion code [K] into the picture `sharp`.
void render(const Head *head, Work *work, const float *motion, const Camera *camera,
            int32_t width, int32_t height) {
    blend(head, work, motion, camera->view);
    pose_frames(head, work, motion, camera->view);
    int32_t n = project(head, work, camera, width, height);
    sort_by_depth(work, n);
    rasterize(work, n, width, height);
    sharpen(work, head->numbers->sharpening);
}
