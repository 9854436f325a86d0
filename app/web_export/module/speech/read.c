// Reading of speech.bin. Every size and number is checked here, once; the rest relies on that.

#include "speech.h"

#define MAGIC "TALKSPCH"
#define VERSION 1u
#define MOST 1e6f  // magnitude of numbers

// The limits are those of packages, except that widths are whole vectors.
static int are_sizes_valid(const Sizes *s) {
    return within(s->n_channels, 8, 1024) && s->n_channels % 8 == 0 &&
           within(s->n_hidden, 8, 1024) && s->n_hidden % 8 == 0 &&
           within(s->n_aligned, 8, 1024) && s->n_aligned % 8 == 0 &&
           within(s->n_phones, 1, 256) && within(s->silence, 0, s->n_phones - 1) &&
           within(s->n_mouth, 1, MAX_CODES) && within(s->n_members, 1, 16) &&
           within(s->n_width, 4, 256) && s->n_width % 4 == 0 &&
           within(s->n_blocks, 0, MOST_BLOCKS) && within(s->ahead, 0, MAX_AHEAD) &&
           within(s->has_lips, 0, 1) && within(s->has_motion, 0, s->has_lips);
}

static void read_rounded(Reader *reader, const char *name, int32_t n_out, int32_t n_in,
                         Rounded *layer) {
    layer->n_out = n_out;
    layer->n_in = n_in;
    layer->weights = section(reader, name, I8, (uint64_t)n_out * n_in);
    layer->scales = numbers(reader, "SCAL", n_out, 0.0f, MOST);
    layer->bias = numbers(reader, "BIAS", n_out, -MOST, MOST);
}

// Takes memory for a layer, filled up with zeros. Returns 0 where there is nothing to be copied.
static int take_linear(Reader *reader, int32_t n_out, int32_t n_in, Linear *layer) {
    layer->n_out = filled_up(n_out);
    layer->n_in = filled_up(n_in);
    if (reader->is_damaged) return 0;
    layer->weights = take(sizeof(float) * layer->n_out * layer->n_in);
    layer->bias = take(sizeof(float) * layer->n_out);
    return !is_exhausted();
}

// Reads a layer whose weights are whole numbers of 16 bits times a scale for each row.
static void read_linear(Reader *reader, const char *name, int32_t n_out, int32_t n_in,
                        Linear *layer) {
    const int16_t *values = section(reader, name, I16, (uint64_t)n_out * n_in);
    const float *scales = numbers(reader, "SCAL", n_out, 0.0f, MOST);
    const float *bias = numbers(reader, "BIAS", n_out, -MOST, MOST);
    if (!take_linear(reader, n_out, n_in, layer)) return;
    for (int32_t i = 0; i < n_out; i++) {
        float *row = layer->weights + (size_t)i * layer->n_in;
        layer->bias[i] = bias[i];
        for (int32_t j = 0; j < n_in; j++) row[j] = scales[i] * values[(size_t)i * n_in + j];
    }
}

// Reads a matrix of floats; without a bias if it is NULL.
static void read_matrix(Reader *reader, const char *name, int32_t n_out, int32_t n_in,
                        const float *bias, Linear *layer) {
    const float *values = numbers(reader, name, (uint64_t)n_out * n_in, -MOST, MOST);
    if (!take_linear(reader, n_out, n_in, layer)) return;
    for (int32_t i = 0; i < n_out; i++) {
        if (bias != NULL) layer->bias[i] = bias[i];
        __builtin_memcpy(layer->weights + (size_t)i * layer->n_in, values + (size_t)i * n_in,
                         sizeof(float) * n_in);
    }
}

static void read_encoder(Reader *reader, Model *model) {
    const Sizes *s = model->sizes;
    int32_t n_hidden = s->n_hidden, n_features = s->n_aligned + N_MELS;
    read_matrix(reader, "MELS", N_MELS, N_BINS, NULL, &model->mels);
    read_rounded(reader, "CONV", s->n_channels, (2 * REACH + 1) * N_MELS, &model->convolution);
    for (int l = 0; l < N_LAYERS; l++) {
        int32_t n_inputs = l ? n_hidden : s->n_channels;
        read_rounded(reader, "INPT", 3 * n_hidden, n_inputs, &model->inputs[l]);
        read_rounded(reader, "STAT", 3 * n_hidden, n_hidden, &model->states[l]);
    }
    read_rounded(reader, "OWN_", s->n_aligned, n_hidden, &model->own);
    read_rounded(reader, "GATE", s->n_aligned, 2 * s->n_aligned, &model->gate);
    read_rounded(reader, "EXPE", N_MELS, n_hidden, &model->expected);
    read_rounded(reader, "CLEA", N_MELS, n_hidden, &model->detail_gate);
    const float *bias = numbers(reader, "PBIA", s->n_phones, -MOST, MOST);
    read_matrix(reader, "PHON", s->n_phones, n_hidden, bias, &model->phones);
    read_matrix(reader, "VALU", s->n_aligned, s->n_phones, NULL, &model->phone_values);
    model->scale = numbers(reader, "NSCA", n_features, -MOST, MOST);
    model->shift = numbers(reader, "NSHI", n_features, -MOST, MOST);
}

// The frames that each block depends on, as in TemporalNets. Returns 1 if they are those of the sizes.
static int place_blocks(Reader *reader, Model *model) {
    const Sizes *s = model->sizes;
    const int32_t *shapes = section(reader, "BLKS", I32, 2ull * s->n_blocks);
    int32_t ahead = s->ahead, whole = 0;
    for (int i = 0; shapes != NULL && i < s->n_blocks; i++) {
        Block *block = &model->blocks[i];
        block->kernel = shapes[2 * i];
        block->dilation = shapes[2 * i + 1];
        if (!within(block->kernel, 1, MAX_VIEW + 1) || !within(block->dilation, 1, MAX_VIEW))
            return 0;
        block->ahead = min_int(ahead, (block->kernel - 1) / 2 * block->dilation);
        block->behind = (block->kernel - 1) * block->dilation - block->ahead;
        ahead -= block->ahead;
        whole += block->behind + block->ahead;
    }
    model->behind = whole - s->ahead;
    return shapes != NULL && ahead == 0 && whole <= MAX_VIEW;
}

static Linear *read_members(Reader *reader, const char *name, int32_t n_out, int32_t n_in,
                            int32_t n_members) {
    Linear *layers = take(sizeof(Linear) * n_members);
    for (int32_t i = 0; !is_exhausted() && i < n_members; i++)
        read_linear(reader, name, n_out, n_in, &layers[i]);
    return layers;
}

static void read_nets(Reader *reader, Model *model) {
    const Sizes *s = model->sizes;
    int32_t n = s->n_width, n_mouth = s->n_mouth, n_members = s->n_members;
    if (!place_blocks(reader, model)) {
        reader->is_damaged = 1;
        return;
    }
    read_linear(reader, "FRST", n_members * n, PER_FRAME * (s->n_aligned + N_MELS),
               &model->first);
    for (int i = 0; i < s->n_blocks; i++) {
        Block *block = &model->blocks[i];
        block->spread = read_members(reader, "SPRE", n, block->kernel * n, n_members);
        block->mix = read_members(reader, "MIX_", n, n, n_members);
    }
    model->last = read_members(reader, "LAST", n_mouth, n, n_members);
    const float *gain = numbers(reader, "GAIN", 1, 0.0f, 10.0f);
    model->gain = gain == NULL ? 0.0f : gain[0];
    model->centre = numbers(reader, "CENT", n_mouth, -(float)MAX_CODE, (float)MAX_CODE);
    model->low = numbers(reader, "LOW_", n_mouth, -(float)MAX_CODE, (float)MAX_CODE);
    model->high = numbers(reader, "HIGH", n_mouth, -(float)MAX_CODE, (float)MAX_CODE);
    model->rest = numbers(reader, "REST", n_mouth, -(float)MAX_CODE, (float)MAX_CODE);
}

// The scale of Hold: HOLD times the standard deviation of the opening.
static double hold_scale(const float *own) {
    double sum = 0.0, squares = 0.0;
    for (int i = 0; i < N_LEVELS; i++) sum += own[i];
    for (int i = 0; i < N_LEVELS; i++) {
        double difference = own[i] - sum / N_LEVELS;
        squares += difference * difference;
    }
    double spread = __builtin_sqrt(squares / N_LEVELS);
    return HOLD * (spread > MIN_SPREAD ? spread : MIN_SPREAD);
}

// Returns rising quantiles of each measure.
static const float *quantiles(Reader *reader, const char *name) {
    const float *values = numbers(reader, name, MEASURES * N_LEVELS, -MOST, MOST);
    for (int i = 1; values != NULL && i < MEASURES * N_LEVELS; i++)
        if (i % N_LEVELS && values[i] < values[i - 1]) reader->is_damaged = 1;
    return values;
}

static void read_lips(Reader *reader, Model *model) {
    int32_t n = model->sizes->n_mouth;
    Lips *lips = &model->lips;
    if (!model->sizes->has_lips) return;
    lips->offset = numbers(reader, "LOFF", MEASURES, -MOST, MOST);
    lips->slope = numbers(reader, "LSLO", MEASURES * n, -MOST, MOST);
    lips->direction = numbers(reader, "LDIR", MEASURES * n, -MOST, MOST);
    lips->own = quantiles(reader, "LOWN");
    lips->predicted = quantiles(reader, "LPRE");
    if (lips->own != NULL) lips->hold = hold_scale(lips->own);
    if (!model->sizes->has_motion) return;
    lips->centre = numbers(reader, "MCEN", n, -MOST, MOST);
    lips->slow = numbers(reader, "MSLO", n * n, -MOST, MOST);
    lips->fast = numbers(reader, "MFAS", n * n, -MOST, MOST);
}

int32_t read_speech(uint8_t *file, size_t n_bytes, Model *model) {
    Reader reader;
    int32_t error = open_file(&reader, file, n_bytes, MAGIC, VERSION);
    if (error != FINE) return error;
    model->sizes = section(&reader, "SIZE", I32, sizeof(Sizes) / sizeof(int32_t));
    if (reader.is_damaged || !are_sizes_valid(model->sizes)) return DAMAGED;
    read_encoder(&reader, model);
    if (!reader.is_damaged) read_nets(&reader, model);
    if (!reader.is_damaged) read_lips(&reader, model);
    if (is_exhausted()) return TOO_LARGE;
    return reader.is_damaged || reader.next != reader.n_entries ? DAMAGED : FINE;
}
