// Projection of the Gaussians to splats in the picture.
// Counterparts: deform (renderers/gaussian/skinning.py), project (renderers/gaussian/rasterizer/
// cpu_project.py), gather (cpu_tiles.py). Frames are moved to camera space first, so that positions
// and covariances of Gaussians need not be computed in world space.

#include "head.h"

// Moves the frames to camera space, in place: F becomes R F and o becomes R o + t.
static void move_frames(const Head *head, Work *work, const float *view) {
    for (int32_t t = 0; t < head->sizes->n_triangles + 3; t++) {
        float *f = work->gradients + 9 * t, *o = work->origins + 3 * t, moved[9], origin[3];
        for (int i = 0; i < 3; i++) {
            const float *row = view + 4 * i;
            for (int j = 0; j < 3; j++)
                moved[3 * i + j] = row[0] * f[j] + row[1] * f[3 + j] + row[2] * f[6 + j];
            origin[i] = row[0] * o[0] + row[1] * o[1] + row[2] * o[2] + row[3];
        }
        for (int i = 0; i < 9; i++) f[i] = moved[i];
        for (int i = 0; i < 3; i++) o[i] = origin[i];
    }
}

// Bounds of the tangents at which the projection's Jacobian is evaluated.
typedef struct {
    float left, right, top, bottom;
} Field;

static Field field_of_view(const Camera *camera, float width, float height) {
    float f = camera->focal, x = FOV_MARGIN * 0.5f * width / f, y = FOV_MARGIN * 0.5f * height / f;
    return (Field){-(camera->center_x / f + x), (width - camera->center_x) / f + x,
                   -(camera->center_y / f + y), (height - camera->center_y) / f + y};
}

// Returns true if there are pixel centers within `radius` of `center`.
static inline int reaches(float center, float radius, float size) {
    return center + radius >= 0.5f && center - radius <= size - 0.5f;
}

// Row of Jacobian times frame times shape: d(image position) / d(unit Gaussian).
static inline void shape_row(const float *frame, float jx, float jz, int axis, const float *l,
                             float *row) {
    const float *a = frame + 3 * axis, *z = frame + 6;
    float x = jx * a[0] + jz * z[0], y = jx * a[1] + jz * z[1], w = jx * a[2] + jz * z[2];
    row[0] = x * l[0] + y * l[1] + w * l[3];
    row[1] = y * l[2] + w * l[4];
    row[2] = w * l[5];
}

// Writes the splat of Gaussian i and returns true if it is visible.
static inline int project_one(const Head *head, const Work *work, const Camera *camera,
                              const Field *field, float width, float height, int32_t i,
                              Splat *splat, float *depth) {
    int32_t n = work->blocks.n_blocks * BLOCK;
    const float *frame = work->gradients + 9 * head->index[i], *v = work->values + i;
    const float *origin = work->origins + 3 * head->index[i];
    float opacity = v[6 * n], px = v[0], py = v[n], pz = v[2 * n];
    float x = origin[0] + frame[0] * px + frame[1] * py + frame[2] * pz;
    float y = origin[1] + frame[3] * px + frame[4] * py + frame[5] * pz;
    float z = origin[2] + frame[6] * px + frame[7] * py + frame[8] * pz;
    if (!(z > NEAR_PLANE && z < FAR_PLANE && opacity >= ALPHA_FLOOR)) return 0;
    // Covariance in the picture: J F L L^T F^T J^T + blur.
    float shape[6], u[3], w[3], j = camera->focal / z;
    for (int k = 0; k < 6; k++) shape[k] = work->shapes[(size_t)k * n + i];
    float tx = clamp(x / z, field->left, field->right);
    float ty = clamp(y / z, field->top, field->bottom);
    shape_row(frame, j, -j * tx, 0, shape, u);
    shape_row(frame, j, -j * ty, 1, shape, w);
    float xx = u[0] * u[0] + u[1] * u[1] + u[2] * u[2] + BLUR_PX2;
    float xy = u[0] * w[0] + u[1] * w[1] + u[2] * w[2];
    float yy = w[0] * w[0] + w[1] * w[1] + w[2] * w[2] + BLUR_PX2;
    float det = xx * yy - xy * xy;
    if (!(det > 0.0f && xx > 0.0f && yy > 0.0f)) return 0;
    float cut = 2.0f * log1(opacity / ALPHA_FLOOR) + 1e-3f;
    float image_x = j * x + camera->center_x, image_y = j * y + camera->center_y;
    if (!reaches(image_x, square_root(cut * xx), width) ||
        !reaches(image_y, square_root(cut * yy), height))
        return 0;
    float a = square_root(yy / det);
    *splat = (Splat){image_x, image_y, a,        -a * xy / yy, 1.0f / square_root(yy),
                     cut,     opacity, v[3 * n], v[4 * n],     v[5 * n]};
    *depth = z;
    return 1;
}

// Projects all Gaussians; returns the number of splats, whose depths are in `keys`.
int32_t project(const Head *head, Work *work, const Camera *camera, int32_t width, int32_t height) {
    Field field = field_of_view(camera, (float)width, (float)height);
    int32_t n = 0;
    move_frames(head, work, camera->view);
    for (int32_t i = 0; i < head->sizes->n_gaussians; i++)
        n += project_one(head, work, camera, &field, (float)width, (float)height, i,
                         work->splats + n, (float *)work->keys + n);
    return n;
}
