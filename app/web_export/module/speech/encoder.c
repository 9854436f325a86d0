// Features and posteriors of silence. Counterparts: PaseStream (encoder/pase/encoder.py), LiveBranch
// (encoder/pase/live.py), AudioModel.vectors (encoder/pase/model.py).

#include "speech.h"

_Static_assert(DELAY == 1, "`energies` keeps those of one vector");

static float *take_rows(int32_t n, int32_t width) { return take(sizeof(float) * n * width); }

void take_encoder(const Model *model, Encoder *encoder) {
    const Sizes *s = model->sizes;
    int32_t n = MOST_VECTORS;
    for (int i = 0; i < N_LAYERS; i++) encoder->states[i] = take_rows(1, s->n_hidden);
    encoder->inputs = take_rows(n, s->n_channels);
    encoder->hidden = take_rows(n, s->n_hidden);
    encoder->gates = take_rows(n, 3 * s->n_hidden);
    encoder->gates_of_state = take_rows(1, 3 * s->n_hidden);
    encoder->logits = take_rows(n, filled_up(s->n_phones));
    encoder->both = take_rows(n, 2 * s->n_aligned);
    encoder->gate = take_rows(n, s->n_aligned);
    encoder->vectors = take_rows(n, s->n_aligned + N_MELS);
}

void begin_encoder(const Model *model, Encoder *encoder) {
    for (int i = 0; i < N_LAYERS; i++)
        __builtin_memset(encoder->states[i], 0, sizeof(float) * model->sizes->n_hidden);
    __builtin_memset(encoder->samples, 0, sizeof(float) * MARGIN);  // silence before the line
    encoder->n_samples = MARGIN;
    encoder->n_mels = 0;
    encoder->n_late = DELAY;
}

// A step of torch.nn.GRU; gates are W_i x + b_i. The state is replaced.
static void step(const Rounded *layer, const float *gates, float *state, float *of_state) {
    int32_t n = layer->n_in;
    apply_rounded(layer, state, 0, of_state, 0, 1);
    for (int32_t i = 0; i < n; i += 4) {
        f4 reset = sigmoid4(add(load(gates + i), load(of_state + i)));
        f4 keep = sigmoid4(add(load(gates + n + i), load(of_state + n + i)));
        f4 fresh = tanh4(mul_add(reset, load(of_state + 2 * n + i), load(gates + 2 * n + i)));
        store(state + i, mul_add(keep, sub(load(state + i), fresh), fresh));
    }
}

// LiveBranch.step: mels [2 n + 2 REACH - 1, N_MELS] to hidden vectors [n, hidden].
static void run_gru(const Model *model, Encoder *encoder, int32_t n) {
    int32_t n_channels = model->sizes->n_channels, n_hidden = model->sizes->n_hidden;
    apply_rounded(&model->convolution, encoder->mels, STRIDE * N_MELS, encoder->inputs,
                  n_channels, n);
    gelu(encoder->inputs, n * n_channels);
    const float *values = encoder->inputs;
    for (int l = 0; l < N_LAYERS; l++) {
        apply_rounded(&model->inputs[l], values, l ? n_hidden : n_channels, encoder->gates,
                      3 * n_hidden, n);
        for (int32_t i = 0; i < n; i++) {
            step(&model->states[l], encoder->gates + i * 3 * n_hidden, encoder->states[l],
                 encoder->gates_of_state);
            __builtin_memcpy(encoder->hidden + i * n_hidden, encoder->states[l],
                             sizeof(float) * n_hidden);
        }
        values = encoder->hidden;
    }
}

static void softmax(float *values, int32_t n) {
    float largest = values[0], sum = 0.0f;
    for (int32_t i = 1; i < n; i++) largest = maximum(largest, values[i]);
    for (int32_t i = 0; i < n; i++) sum += values[i] = exp1(values[i] - largest);
    for (int32_t i = 0; i < n; i++) values[i] /= sum;
}

// first + sigmoid(gate) (second - first), which replaces `first`.
static void mix(float *first, const float *second, const float *gate, int32_t n) {
    for (int32_t i = 0; i < n; i += 4) {
        f4 a = load(first + i), difference = sub(load(second + i), a);
        store(first + i, mul_add(sigmoid4(load(gate + i)), difference, a));
    }
}

// PhonemeAttention.forward: the first part of each vector, and posteriors of silence.
static void align(const Model *model, Encoder *encoder, const float *hidden, int32_t n) {
    const Sizes *s = model->sizes;
    int32_t n_aligned = s->n_aligned, n_phones = filled_up(s->n_phones);
    int32_t n_features = n_aligned + N_MELS;
    apply(&model->phones, hidden, s->n_hidden, encoder->logits, n_phones, n);
    for (int32_t i = 0; i < n; i++) {
        softmax(encoder->logits + i * n_phones, s->n_phones);
        encoder->silence[i] = encoder->logits[i * n_phones + s->silence];
    }
    float *both = encoder->both;
    apply_rounded(&model->own, hidden, s->n_hidden, both, 2 * n_aligned, n);
    apply(&model->phone_values, encoder->logits, n_phones, both + n_aligned, 2 * n_aligned, n);
    apply_rounded(&model->gate, both, 2 * n_aligned, encoder->gate, n_aligned, n);
    for (int32_t i = 0; i < n; i++) {
        float *own = both + i * 2 * n_aligned;
        mix(own, own + n_aligned, encoder->gate + i * n_aligned, n_aligned);
        __builtin_memcpy(encoder->vectors + i * n_features, own, sizeof(float) * n_aligned);
    }
}

// AcousticFeatures: the second part of each vector.
static void clear(const Model *model, Encoder *encoder, const float *hidden, int32_t n) {
    int32_t n_hidden = model->sizes->n_hidden, n_aligned = model->sizes->n_aligned;
    apply_rounded(&model->expected, hidden, n_hidden, encoder->expected, N_MELS, n);
    apply_rounded(&model->detail_gate, hidden, n_hidden, encoder->detail_gate, N_MELS, n);
    for (int32_t i = 0; i < n; i++) {
        float *expected = encoder->expected + i * N_MELS;
        mix(expected, encoder->energies + i * N_MELS, encoder->detail_gate + i * N_MELS, N_MELS);
        __builtin_memcpy(encoder->vectors + i * (n_aligned + N_MELS) + n_aligned, expected,
                         sizeof(float) * N_MELS);
    }
}

static void normalize(const Model *model, float *vectors, int32_t n) {
    int32_t n_features = model->sizes->n_aligned + N_MELS;
    for (int32_t i = 0; i < n; i++, vectors += n_features)
        for (int32_t j = 0; j < n_features; j++)
            vectors[j] = vectors[j] * model->scale[j] + model->shift[j];
}

// Computes spectra of the samples so far, and keeps the samples that later ones need.
static void add_spectra(const Model *model, Encoder *encoder, const float *samples, int32_t n) {
    __builtin_memcpy(encoder->samples + encoder->n_samples, samples, sizeof(float) * n);
    encoder->n_samples += n;
    if (encoder->n_samples < N_FFT) return;
    int32_t n_spectra = (encoder->n_samples - N_FFT) / HOP_LENGTH + 1;
    log_mels(model, encoder->samples, n_spectra, encoder->mels + encoder->n_mels * N_MELS);
    encoder->n_mels += n_spectra;
    encoder->n_samples -= n_spectra * HOP_LENGTH;
    __builtin_memmove(encoder->samples, encoder->samples + n_spectra * HOP_LENGTH,
                      sizeof(float) * encoder->n_samples);
}

// Adds at most MOST_SAMPLES samples. Returns the number of vectors that they complete.
int32_t encode(const Model *model, Encoder *encoder, const float *samples, int32_t n) {
    add_spectra(model, encoder, samples, n);
    int32_t n_wide = 2 * REACH + 1;
    if (encoder->n_mels < n_wide) return 0;
    int32_t n_inputs = (encoder->n_mels - n_wide) / STRIDE + 1;
    run_gru(model, encoder, n_inputs);
    for (int32_t i = 0; i < n_inputs; i++)
        __builtin_memcpy(encoder->energies + (DELAY + i) * N_MELS,
                         encoder->mels + (REACH + STRIDE * i) * N_MELS, sizeof(float) * N_MELS);
    encoder->n_mels -= STRIDE * n_inputs;
    __builtin_memmove(encoder->mels, encoder->mels + STRIDE * n_inputs * N_MELS,
                      sizeof(float) * encoder->n_mels * N_MELS);
    // The GRU's output is DELAY vectors late: the first one is of no moment of the line.
    int32_t dropped = min_int(encoder->n_late, n_inputs), n_vectors = n_inputs - dropped;
    const float *hidden = encoder->hidden + dropped * model->sizes->n_hidden;
    if (dropped)
        __builtin_memmove(encoder->energies, encoder->energies + dropped * N_MELS,
                          sizeof(float) * n_inputs * N_MELS);
    encoder->n_late -= dropped;
    align(model, encoder, hidden, n_vectors);
    clear(model, encoder, hidden, n_vectors);
    normalize(model, encoder->vectors, n_vectors);
    __builtin_memmove(encoder->energies, encoder->energies + n_vectors * N_MELS,
                      sizeof(float) * DELAY * N_MELS);
    return n_vectors;
}
