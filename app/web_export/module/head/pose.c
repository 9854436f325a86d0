// Motion of the mesh and of the frames that carry Gaussians.
// Counterparts: FaceModel.vertices (talkhead/face.py), Frames.pose (renderers/gaussian/
// initialization.py), body_frame (renderers/pose_features.py).

#include "head.h"

// FaceModel.vertices: template + code @ basis. vertices [478, 3].
void pose_vertices(const Head *head, const float *motion, float *vertices) {
    int32_t n = N_LANDMARKS * 3;
    for (int32_t i = 0; i < n; i++) vertices[i] = head->template[i];
    for (int32_t k = 0; k < head->sizes->n_moving; k++) {
        const float *row = head->basis + (size_t)k * n;
        for (int32_t i = 0; i < n; i++) vertices[i] += motion[k] * row[i];
    }
}

// _edges: two edges of a triangle and its normal, as columns [3, 3].
static void edges(const float *vertices, const int32_t *triangle, float *frame) {
    const float *a = vertices + 3 * triangle[0], *b = vertices + 3 * triangle[1];
    const float *c = vertices + 3 * triangle[2];
    float p[3], q[3];
    for (int i = 0; i < 3; i++) p[i] = b[i] - a[i], q[i] = c[i] - a[i];
    float normal[3] = {p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2],
                       p[0] * q[1] - p[1] * q[0]};
    float doubled_area =
        square_root(normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2]);
    float length = square_root(doubled_area) + 1e-3f;
    for (int i = 0; i < 3; i++) {
        frame[3 * i] = p[i];
        frame[3 * i + 1] = q[i];
        frame[3 * i + 2] = normal[i] / (doubled_area + 1e-12f) * length;
    }
}

static void multiply(const float *a, const float *b, float *product) {
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            product[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j];
}

// body_frame: F = R^T S R_rest, o = R^T (S t_rest - t), where S is body_matrix(motion).
static void pose_body(const Head *head, const float *motion, const float *view, float *gradient,
                      float *origin) {
    const float *code = motion + head->sizes->n_codes - N_BODY, *rest = head->rest_view;
    float sway[9] = {1.0f + code[0], code[1], code[2], code[3], 1.0f + code[4], code[5], 0, 0, 1};
    float back[9], rest_turn[9], turned[9], shift[3];
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) {
            back[3 * i + j] = view[4 * j + i];
            rest_turn[3 * i + j] = rest[4 * i + j];
        }
        shift[i] = sway[3 * i] * rest[3] + sway[3 * i + 1] * rest[7] + sway[3 * i + 2] * rest[11] -
                   view[4 * i + 3];
    }
    multiply(back, sway, turned);
    multiply(turned, rest_turn, gradient);
    for (int i = 0; i < 3; i++)
        origin[i] = back[3 * i] * shift[0] + back[3 * i + 1] * shift[1] + back[3 * i + 2] * shift[2];
}

// Frames.pose: deformation gradients and origins of triangles, skull, jaw and body.
void pose_frames(const Head *head, Work *work, const float *motion, const float *view) {
    int32_t n = head->sizes->n_triangles;
    pose_vertices(head, motion, work->vertices);
    for (int32_t t = 0; t < n; t++) {
        const int32_t *triangle = head->triangles + 3 * t;
        float frame[9];
        edges(work->vertices, triangle, frame);
        multiply(frame, head->rest_inverse + 9 * t, work->gradients + 9 * t);
        for (int i = 0; i < 3; i++)
            work->origins[3 * t + i] = work->vertices[3 * triangle[0] + i];
    }
    float *rigid = work->gradients + 9 * n, *origins = work->origins + 3 * n;
    for (int i = 0; i < 18; i++) rigid[i] = i % 9 % 4 == 0 ? 1.0f : 0.0f;
    for (int i = 0; i < 3; i++) {
        origins[i] = 0.0f;
        origins[3 + i] = 0.0f;
        for (int32_t k = 0; k < head->sizes->n_moving; k++)
            origins[3 + i] += motion[k] * head->jaw[3 * k + i];
    }
    pose_body(head, motion, view, rigid + 18, origins + 6);
}
