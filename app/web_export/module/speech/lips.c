// Correction of the mouth codes of a line. Counterparts: LineCorrection (encoder/predictor/
// lip_range.py), LineMotion and Hold (encoder/predictor/lip_motion.py).

#include "speech.h"

static const double STRENGTH_OF[MEASURES] = STRENGTHS, SLOPE_BELOW[MEASURES] = SLOPES_BELOW;

void take_line(const Model *model, Line *line) {
    line->slow = take(sizeof(double) * model->sizes->n_mouth);
    line->samples = take(sizeof(Sample) * (N_LEVELS + MEMORY_FRAMES));
    for (int i = 0; i < MEASURES; i++) line->past[i] = take(sizeof(double) * MEMORY_FRAMES);
}

void begin_line(const Model *model, Line *line) {
    line->n_past = line->n_fresh = line->n_done = 0;
    if (!model->sizes->has_lips) return;
    for (int m = 0; m < MEASURES; m++)
        for (int i = 0; i < N_LEVELS; i++)
            line->quantiles[m][0][i] = line->quantiles[m][1][i] =
                model->lips.predicted[m * N_LEVELS + i];
}

// LineMotion.changed, of which `share` is applied.
static void change_motion(const Model *model, Line *line, double *code, double share) {
    const Lips *lips = &model->lips;
    int32_t n = model->sizes->n_mouth;
    double changed[MAX_CODES];
    for (int32_t k = 0; k < n; k++) {
        if (line->n_done == 0) line->slow[k] = code[k];
        line->slow[k] += SMOOTHING * (code[k] - line->slow[k]);
    }
    for (int32_t k = 0; k < n; k++) {
        const float *slow = lips->slow + k * n, *fast = lips->fast + k * n;
        changed[k] = lips->centre[k];
        for (int32_t j = 0; j < n; j++)
            changed[k] += slow[j] * (line->slow[j] - lips->centre[j]) +
                          fast[j] * (code[j] - line->slow[j]);
    }
    for (int32_t k = 0; k < n; k++) code[k] += share * (changed[k] - code[k]);
}

// LipRange.measured
static double measured(const Model *model, const double *code, int measure) {
    int32_t n = model->sizes->n_mouth;
    double sum = 0.0;
    for (int32_t k = 0; k < n; k++) sum += code[k] * model->lips.slope[measure * n + k];
    return model->lips.offset[measure] + sum;
}

static void move_code(const Model *model, double *code, int measure, double change) {
    int32_t n = model->sizes->n_mouth;
    const float *direction = model->lips.direction + measure * n;
    for (int32_t k = 0; k < n; k++) code[k] += change * direction[k];
}

// Returns the index of the last of n rising values that is at most `value`; -1 if none is.
static int32_t last_below(const double *values, int32_t n, double value) {
    int32_t index = -1;
    while (index + 1 < n && values[index + 1] <= value) index++;
    return index;
}

// LipRange.wanted: the value that has the same quantile in the person's own speech.
static double wanted(const Model *model, double value, const double *predicted, int measure) {
    const float *own = model->lips.own + measure * N_LEVELS;
    double first = predicted[0], last = predicted[N_LEVELS - 1];
    int32_t i = last_below(predicted, N_LEVELS, value);
    if (i < 0) return own[0] + SLOPE_BELOW[measure] * (value - first);
    if (i == N_LEVELS - 1) return own[i] + SLOPE_ABOVE * (value - last);
    double share = (value - predicted[i]) / (predicted[i + 1] - predicted[i]);
    return own[i] + share * (own[i + 1] - own[i]);
}

// LineCorrection._remember: adds the spoken values of a second, and mixes the quantiles for the end of
// the next one.
static void remember(const Model *model, Line *line, int measure) {
    double *past = line->past[measure], total = 0.0;
    const float *predicted = model->lips.predicted + measure * N_LEVELS;
    for (int32_t i = 0; i < line->n_fresh; i++)
        past[(line->n_past + i) % MEMORY_FRAMES] = line->fresh[measure][i];
    int32_t n_past = min_int(line->n_past + line->n_fresh, MEMORY_FRAMES), n = N_LEVELS + n_past;
    double share = (double)n_past / (n_past + TYPICAL_FRAMES);
    Sample *samples = line->samples;
    for (int32_t i = 0; i < N_LEVELS; i++)
        samples[i] = (Sample){predicted[i], (1.0 - share) / N_LEVELS};
    for (int32_t i = 0; i < n_past; i++) samples[N_LEVELS + i] = (Sample){past[i], share / n_past};
    sort_samples(samples, n);
    // Quantiles at (i + 1/2) / N_LEVELS, between the middles of the samples' weights.
    double *quantiles = line->quantiles[measure][1];
    __builtin_memcpy(line->quantiles[measure][0], quantiles, sizeof(double) * N_LEVELS);
    double middle = samples[0].weight / 2.0, before = middle;
    for (int32_t level = 0, i = 0; level < N_LEVELS; level++) {
        double place = (level + 0.5) / N_LEVELS;
        while (i < n && middle <= place) {
            total += samples[i].weight;
            before = middle;
            if (++i < n) middle = total + samples[i].weight / 2.0;
        }
        if (i == 0 || i == n) {
            quantiles[level] = samples[i == 0 ? 0 : n - 1].value;
            continue;
        }
        double low = samples[i - 1].value, part = (place - before) / (middle - before);
        quantiles[level] = low + part * (samples[i].value - low);
    }
}

static void end_second(const Model *model, Line *line) {
    for (int m = 0; m < MEASURES; m++) remember(model, line, m);
    line->n_past += line->n_fresh;
    line->n_fresh = 0;
}

// Hold.held
static double held(const Model *model, Line *line, double value) {
    if (line->n_done == 0) line->last = line->held = value;
    double change = value + LEAD * (value - line->last) - line->held;
    double size = __builtin_fabs(change);
    line->held += change * size / (size + model->lips.hold);
    line->last = value;
    return line->held;
}

// Corrects the next frame, which belongs to speech to the degree `share`.
void correct(const Model *model, Line *line, float *code, double share, int spoken) {
    int32_t n = model->sizes->n_mouth;
    double whole[MAX_CODES], progress = (line->n_done % FRAME_RATE + 1.0) / FRAME_RATE;
    for (int32_t k = 0; k < n; k++) whole[k] = code[k];
    if (model->sizes->has_motion) change_motion(model, line, whole, share);
    for (int m = 0; m < MEASURES; m++) {
        double value = measured(model, whole, m);
        double before = wanted(model, value, line->quantiles[m][0], m);
        double after = wanted(model, value, line->quantiles[m][1], m);
        double target = before + progress * (after - before);
        if (spoken) line->fresh[m][line->n_fresh] = value;
        move_code(model, whole, m, share * STRENGTH_OF[m] * (target - value));
    }
    if (spoken) line->n_fresh++;
    if (model->sizes->has_motion) {
        double opening = measured(model, whole, 0);
        move_code(model, whole, 0, share * (held(model, line, opening) - opening));
    }
    for (int32_t k = 0; k < n; k++) code[k] = (float)whole[k];
    line->n_done++;
    if (line->n_done % FRAME_RATE == 0) end_second(model, line);
}
