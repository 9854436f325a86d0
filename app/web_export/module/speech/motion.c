// Motion codes from features and flags. Counterparts: MotionStream (encoder/predictor/stream.py) and
// ramps (encoder/predictor/rest.py).

#include "speech.h"

#define NEVER 1000000000  // frames since or until speech, where there is none

void take_motion(const Model *model, Motion *motion) {
    take_nets(model, &motion->nets);
    take_line(model, &motion->line);
}

void begin_motion(const Model *model, Motion *motion, int32_t ahead, int32_t horizon) {
    begin_nets(&motion->nets);
    begin_line(model, &motion->line);
    motion->ahead = ahead;
    motion->horizon = horizon;
    motion->n_flags = motion->n_done = 0;
    motion->since = NEVER;
    motion->rest = 1.0;
}

void push_flags(Motion *motion, const uint8_t *flags, int32_t n) {
    for (int32_t i = 0; i < n; i++) motion->silent[motion->n_flags++ % QUEUE] = flags[i];
}

static double clip(double value, double low, double high) {
    return value > low ? (value < high ? value : high) : low;
}

static double smaller(double a, double b) { return a < b ? a : b; }

// Frames until the next speech, as far as it is known. After the last flag there is silence.
static int32_t until_speech(const Motion *motion) {
    for (int32_t i = 0; i <= motion->horizon; i++) {
        int32_t frame = motion->n_done + i;
        if (frame < motion->n_flags && !motion->silent[frame % QUEUE]) return i;
    }
    return NEVER;
}

// MotionStream._shares: to what degree the next frame is at rest, and belongs to speech.
static float share_rest(Motion *motion, int32_t until, double *near) {
    motion->since = until == 0 ? 0 : min_int(motion->since + 1, NEVER);
    double settled = (double)(motion->since - SETTLING_FRAMES) / CLOSING_FRAMES;
    double unmoved = (double)(until - STIRRING_FRAMES) / CLOSING_FRAMES;
    double share = clip(smaller(settled, unmoved), 0.0, 1.0);
    // Speech that was not known in advance: the mouth still takes CLOSING_FRAMES to leave rest.
    double least = motion->rest - 1.0 / CLOSING_FRAMES;
    motion->rest = share > least ? share : least;
    int32_t distance = min_int(motion->since, until);
    *near = clip(1.0 - (double)(distance - NEAR_FRAMES) / FADING_FRAMES, 0.0, 1.0);
    double x = clip(motion->rest, 0.0, 1.0);
    return (float)(x * x * (3.0 - 2.0 * x));
}

static void next_frame(const Model *model, Motion *motion, float *code) {
    int32_t until = until_speech(motion);
    double near;
    float rest = share_rest(motion, until, &near);
    predict(model, &motion->nets, motion->n_done, code);
    if (model->sizes->has_lips) correct(model, &motion->line, code, near, until == 0);
    for (int32_t k = 0; k < model->sizes->n_mouth; k++) {
        float limited = clamp(code[k], model->low[k], model->high[k]);
        code[k] = rest * model->rest[k] + (1.0f - rest) * limited;
    }
    motion->n_done++;
}

static int32_t frames_before(const Model *model, Motion *motion, int32_t stop, float *codes,
                             int32_t most) {
    int32_t n = 0;
    for (; motion->n_done < stop && n < most; n++)
        next_frame(model, motion, codes + n * model->sizes->n_mouth);
    return n;
}

int32_t advance_motion(const Model *model, Motion *motion, float *codes, int32_t most) {
    int32_t n_features = motion->nets.n_vectors / PER_FRAME - motion->ahead;
    int32_t n_flags = motion->n_flags - motion->horizon;
    return frames_before(model, motion, min_int(n_features, n_flags), codes, most);
}

int32_t finish_motion(const Model *model, Motion *motion, float *codes, int32_t most) {
    int32_t n = (motion->nets.n_vectors + PER_FRAME - 1) / PER_FRAME;
    return frames_before(model, motion, n, codes, most);
}
