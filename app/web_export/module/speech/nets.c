// Mouth codes from features. Counterparts: TemporalNets (encoder/predictor/network.py) and
// MotionStream._raw_codes (encoder/predictor/stream.py). Each layer's outputs are kept, so that a frame
// is computed once and not again for each window that it is in. A frame's place counts the repetitions
// of the first frame before the line.

#include "speech.h"

static float *at(const Model *model, const Nets *nets, int layer, int32_t place) {
    size_t n = model->sizes->n_members * model->sizes->n_width;
    return nets->layers[layer] + place % nets->n_slots * n;
}

void take_nets(const Model *model, Nets *nets) {
    const Sizes *s = model->sizes;
    int32_t n_taps = 1, n_features = s->n_aligned + N_MELS;
    nets->n_slots = model->behind + s->ahead + QUEUE;
    for (int l = 0; l <= s->n_blocks; l++) {
        size_t n = (size_t)nets->n_slots * s->n_members * s->n_width;
        nets->layers[l] = take(sizeof(float) * n);
        if (l < s->n_blocks) n_taps = max_int(n_taps, model->blocks[l].kernel);
    }
    nets->frame = take(sizeof(float) * PER_FRAME * n_features);
    nets->taps = take(sizeof(float) * n_taps * s->n_width);
    nets->change = take(sizeof(float) * s->n_width);
    nets->output = take(sizeof(float) * max_int(s->n_width, filled_up(s->n_mouth)));
}

void begin_nets(Nets *nets) {
    nets->n_vectors = nets->n_known = nets->dirty = 0;
}

static void run_first(const Model *model, const Nets *nets, int32_t place) {
    float *row = at(model, nets, 0, place);
    apply(&model->first, nets->frame, 0, row, 0, 1);
    gelu(row, model->first.n_out);
}

static void repeat_row(const Model *model, const Nets *nets, int32_t first, int32_t stop) {
    size_t n_bytes = sizeof(float) * model->sizes->n_members * model->sizes->n_width;
    for (int32_t place = first + 1; place < stop; place++)
        __builtin_memcpy(at(model, nets, 0, place), at(model, nets, 0, first), n_bytes);
}

// Copies the last vector over the other one of its frame.
static void repeat_vector(const Model *model, const Nets *nets) {
    int32_t n = model->sizes->n_aligned + N_MELS;
    float *first = nets->frame, *second = nets->frame + n;
    int is_first = nets->n_vectors % PER_FRAME == 1;
    __builtin_memcpy(is_first ? second : first, is_first ? first : second, sizeof(float) * n);
}

void push_vector(const Model *model, Nets *nets, const float *vector) {
    int32_t n = model->sizes->n_aligned + N_MELS;
    __builtin_memcpy(nets->frame + nets->n_vectors++ % PER_FRAME * n, vector, sizeof(float) * n);
    if (nets->n_vectors == 1 && model->behind > 0) {
        repeat_vector(model, nets);
        run_first(model, nets, 0);
        repeat_row(model, nets, 0, model->behind);
    }
    if (nets->n_vectors == 1) nets->n_known = model->behind;
    if (nets->n_vectors % PER_FRAME == 0) run_first(model, nets, nets->n_known++);
}

static void run_block(const Model *model, const Nets *nets, int index, int32_t place) {
    const Block *block = &model->blocks[index];
    int32_t n = model->sizes->n_width;
    size_t n_bytes = sizeof(float) * n;
    for (int32_t m = 0; m < model->sizes->n_members; m++) {
        for (int32_t i = 0; i < block->kernel; i++) {
            int32_t tap = place - block->behind + i * block->dilation;
            __builtin_memcpy(nets->taps + i * n, at(model, nets, index, tap) + m * n, n_bytes);
        }
        const float *own = at(model, nets, index, place) + m * n;
        float *result = at(model, nets, index + 1, place) + m * n;
        apply(&block->spread[m], nets->taps, 0, nets->change, 0, 1);
        gelu(nets->change, n);
        apply(&block->mix[m], nets->change, 0, nets->output, 0, 1);
        for (int32_t i = 0; i < n; i++) result[i] = own[i] + nets->output[i];
    }
}

// Runs the blocks where they depend on frames from `first` to `last`.
static void run_blocks(const Model *model, const Nets *nets, int32_t first, int32_t last) {
    int32_t least = 0;
    for (int l = 0; l < model->sizes->n_blocks; l++) {
        least += model->blocks[l].behind;
        first -= model->blocks[l].ahead;
        last -= model->blocks[l].ahead;
        for (int32_t place = max_int(first, least); place <= last; place++)
            run_block(model, nets, l, place);
    }
}

// Predicts a mouth code; frames that have not arrived are as the last vector.
void predict(const Model *model, Nets *nets, int32_t frame, float *code) {
    const Sizes *s = model->sizes;
    int32_t place = frame + model->behind, last = place + s->ahead;
    if (last >= nets->n_known) {
        repeat_vector(model, nets);
        run_first(model, nets, nets->n_known);
        repeat_row(model, nets, nets->n_known, last + 1);
    }
    run_blocks(model, nets, nets->dirty, last);
    nets->dirty = min_int(last + 1, nets->n_known);
    for (int32_t k = 0; k < s->n_mouth; k++) code[k] = 0.0f;
    for (int32_t m = 0; m < s->n_members; m++) {
        const float *top = at(model, nets, s->n_blocks, place) + m * s->n_width;
        apply(&model->last[m], top, 0, nets->output, 0, 1);
        for (int32_t k = 0; k < s->n_mouth; k++) code[k] += nets->output[k];
    }
    for (int32_t k = 0; k < s->n_mouth; k++)
        code[k] = model->centre[k] + model->gain * (code[k] / (float)s->n_members);
}
