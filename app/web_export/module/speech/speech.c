// Motion codes of live speech: the functions that talkhead-speech.wasm exports. Counterpart: LiveSpeech
// (app/live/speech.py). One file and one line at a time; the memory is that of the file and the line.

#include "speech.h"

#define EXPORT __attribute__((visibility("default")))
#define MOST_PUSHED (FRAME_RATE * SAMPLES_PER_FRAME)
// Samples after its moment that a vector depends on, and a flag.
#define VECTOR_AHEAD (N_FFT / 2 + HOP_LENGTH * (REACH + STRIDE * DELAY))
#define FLAG_AHEAD (VECTOR_AHEAD + (MIN_RUN * PER_FRAME - 1) * VECTOR_SAMPLES)

static Model model;
static Level level;
static Encoder encoder;
static Activity activity;
static Motion motion;
static float pushed[MOST_PUSHED], piece[SAMPLES_PER_FRAME], leveled[SAMPLES_PER_FRAME];
static float *codes;  // [MOST_FRAMES, K]
static int32_t n_piece, n_before;
static int is_open, is_begun;
static int32_t most_vectors;  // of the line; unlimited until it ends
static uint64_t n_pushed, n_leveled;

// Returns memory for a file of n bytes, or 0.
EXPORT uint8_t *reserve(uint32_t n_bytes) {
    is_open = is_begun = 0;
    return reserve_file(n_bytes);
}

// Reads the file. Returns an error code.
EXPORT int32_t open_speech(uint8_t *file, uint32_t n_bytes) {
    is_open = is_begun = 0;
    model = (Model){0};
    int32_t error = read_speech(file, n_bytes, &model);
    if (error != FINE) return error;
    codes = take(sizeof(float) * MOST_FRAMES * model.sizes->n_mouth);
    take_spectra(&model);
    take_encoder(&model, &encoder);
    take_motion(&model, &motion);
    if (is_exhausted()) return TOO_LARGE;
    prepare_spectra(&model);
    is_open = 1;
    return FINE;
}

EXPORT int32_t get_n_mouth(void) { return model.sizes->n_mouth; }
EXPORT const float *get_rest(void) { return model.rest; }
EXPORT int32_t get_most_ahead(void) { return model.sizes->ahead; }

// Samples after a frame's moment that must have arrived before it is predicted.
EXPORT int32_t get_lookahead(int32_t frames) {
    int32_t n = VECTOR_AHEAD + (PER_FRAME - 1) * VECTOR_SAMPLES + frames * SAMPLES_PER_FRAME;
    return max_int(n, FLAG_AHEAD);
}

// Samples outside [-1, 1] are clipped, and those that are not numbers are silent.
static float clipped(float sample) {
    return sample == sample ? clamp(sample, -1.0f, 1.0f) : 0.0f;
}

// Begins a line whose predictions wait for `frames` frames, at most those of the predictor.
EXPORT void begin(int32_t frames) {
    if (!is_open) return;
    frames = min_int(max_int(frames, 0), model.sizes->ahead);
    int32_t spare = get_lookahead(frames) - FLAG_AHEAD;
    begin_level(&level);
    begin_encoder(&model, &encoder);
    begin_activity(&activity);
    begin_motion(&model, &motion, frames, spare / SAMPLES_PER_FRAME);
    // Sound is taken in pieces of a frame that end where the sound ends that a prediction waits for.
    n_before = SAMPLES_PER_FRAME - 1 - (get_lookahead(frames) - 1) % SAMPLES_PER_FRAME;
    __builtin_memset(piece, 0, sizeof(piece));
    n_piece = n_before;
    n_pushed = n_leveled = 0;
    most_vectors = INT32_MAX;
    is_begun = 1;
}

// Adds leveled samples to the encoder, and what that completes to flags and features.
static void listen(const float *samples, int32_t n) {
    uint8_t flags[MOST_VECTORS];
    int32_t n_features = model.sizes->n_aligned + N_MELS;
    int32_t n_vectors = encode(&model, &encoder, samples, n);
    n_vectors = min_int(n_vectors, most_vectors - motion.nets.n_vectors);
    push_flags(&motion, flags, push_posteriors(&activity, encoder.silence, n_vectors, flags));
    for (int32_t i = 0; i < n_vectors; i++)
        push_vector(&model, &motion.nets, encoder.vectors + i * n_features);
}

// Brings the piece to the level of speech, without the silence that precedes the line. Returns the
// number of samples, which `first` points to.
static int32_t level_piece(const float **first) {
    push_quiet(&activity, push_level(&level, piece, leveled));
    int32_t n = n_leveled ? SAMPLES_PER_FRAME : SAMPLES_PER_FRAME - n_before;
    *first = leveled + SAMPLES_PER_FRAME - n;
    n_piece = 0;
    return n;
}

EXPORT float *get_input(void) { return pushed; }
EXPORT int32_t get_input_size(void) { return MOST_PUSHED; }
EXPORT const float *get_codes(void) { return codes; }

// Adds the first n samples of `get_input`. Returns the number of frames that are complete, whose codes
// are in `get_codes`.
EXPORT int32_t push(int32_t n) {
    const float *first;
    int32_t n_frames = 0;
    if (!is_begun || n < 0 || n > MOST_PUSHED) return 0;
    n_pushed += (uint64_t)n;
    for (int32_t i = 0; i < n; i++) {
        piece[n_piece++] = clipped(pushed[i]);
        if (n_piece < SAMPLES_PER_FRAME) continue;
        int32_t n_new = level_piece(&first);
        n_leveled += (uint64_t)n_new;
        listen(first, n_new);
        n_frames += advance_motion(&model, &motion, codes + n_frames * model.sizes->n_mouth,
                                   MOST_FRAMES - n_frames);
    }
    return n_frames;
}

// Adds n samples of silence.
static void listen_to_silence(int32_t n) {
    static const float silence[MOST_SAMPLES];
    for (int32_t left = n; left > 0; left -= MOST_SAMPLES)
        listen(silence, min_int(left, MOST_SAMPLES));
}

// Ends the line. Returns the number of frames that were still waiting, in `get_codes`.
EXPORT int32_t finish(void) {
    uint8_t flags[2];
    const float *first = leveled;
    int32_t n = 0;
    if (!is_begun) return 0;
    is_begun = 0;
    uint64_t n_frames = (n_pushed + SAMPLES_PER_FRAME - 1) / SAMPLES_PER_FRAME;
    int32_t n_left = (int32_t)(n_frames * SAMPLES_PER_FRAME - n_leveled);
    if (n_piece > 0) {
        __builtin_memset(piece + n_piece, 0, sizeof(float) * (SAMPLES_PER_FRAME - n_piece));
        n = min_int(level_piece(&first), n_left);
    }
    listen(first, n);
    listen_to_silence(n_left - n);
    // Silence until the last vector is complete; vectors after it are left out.
    most_vectors = (int32_t)n_frames * PER_FRAME;
    listen_to_silence(N_FFT + VECTOR_SAMPLES * (DELAY + REACH));
    push_flags(&motion, flags, finish_activity(&activity, flags));
    int32_t n_done = advance_motion(&model, &motion, codes, MOST_FRAMES);
    return n_done + finish_motion(&model, &motion, codes + n_done * model.sizes->n_mouth,
                                  MOST_FRAMES - n_done);
}
