// Speech: what speech.bin holds, and the state of a line.
#ifndef TALKHEAD_SPEECH_H
#define TALKHEAD_SPEECH_H

#include "../common/memory.h"
#include "../common/sections.h"
#include "constants.h"
#include "linear.h"

#define N_BINS (N_FFT / 2 + 1)
#define PER_FRAME 2                              // vectors of a video frame
#define VECTOR_SAMPLES (HOP_LENGTH * STRIDE)     // samples of a vector
#define MARGIN (REACH * HOP_LENGTH + N_FFT / 2)  // samples before it that a vector depends on
#define MOST_SAMPLES 1360                        // that are encoded at once: silence after the end
#define MOST_SPECTRA 20                          // with those that were waiting
#define MOST_VECTORS MOST_AT_ONCE
#define MOST_BLOCKS 8
#define N_LAYERS 2
#define QUEUE (MAX_AHEAD + 8)  // frames that may wait: those ahead, and at most 4 for the encoder
#define MOST_FRAMES QUEUE      // that are returned at once: all that waited, at the end

// Values of speech.bin, in the order of app/web_export/speech_file.py.
typedef struct {
    int32_t n_channels, n_hidden;  // of the convolution, and of the GRU's state
    int32_t n_aligned, n_phones;   // aligned features, and phones
    int32_t silence;               // index of the phone that is silence
    int32_t n_mouth;               // components of a mouth code, K
    int32_t n_members, n_width;    // networks of the predictor, and their channels
    int32_t n_blocks, ahead;       // of a network, and the frames ahead that it depends on
    int32_t has_lips, has_motion;  // LipRange and LipMotion
} Sizes;

typedef struct {
    int32_t kernel, dilation, ahead, behind;
    Linear *spread, *mix;  // of each network
} Block;

typedef struct {
    const float *offset;             // [MEASURES]
    const float *slope, *direction;  // [MEASURES, K]
    const float *own, *predicted;    // [MEASURES, N_LEVELS]
    const float *centre;             // [K]
    const float *slow, *fast;        // [K, K]
    double hold;                     // scale of Hold
} Lips;

typedef struct {
    const Sizes *sizes;
    Linear cosines, sines, mels;                                // to log mel energies
    Rounded convolution, inputs[N_LAYERS], states[N_LAYERS];    // the convolution and the GRU
    Rounded own, gate, expected, detail_gate;                   // to features
    Linear phones, phone_values;
    const float *scale, *shift;                // normalization of features [aligned + N_MELS]
    Linear first, *last;                       // of all networks, and of each
    Block blocks[MOST_BLOCKS];
    int32_t behind;                            // frames before it that a prediction depends on
    float gain;                                // factor on the networks' output
    const float *centre, *low, *high, *rest;   // [K]
    Lips lips;
} Model;

// read.c
int32_t read_speech(uint8_t *file, size_t n_bytes, Model *model);

// level.c: LiveLevel
typedef struct {
    double value, weight;
} Sample;

typedef struct {
    double gain, filter[2][2];
    double energies[HISTORY_FRAMES], powers[HISTORY_FRAMES];
    int32_t n_energies, n_powers;  // so far
} Level;

void sort_samples(Sample *samples, int32_t n);
void begin_level(Level *level);
// Brings a frame to the level of speech. Returns 1 if it is too quiet for speech.
int push_level(Level *level, const float *frame, float *leveled);

// spectrum.c
void take_spectra(Model *model);
void prepare_spectra(Model *model);
void log_mels(const Model *model, const float *samples, int32_t n, float *mels);

// encoder.c: PaseStream of the small model
typedef struct {
    float samples[MARGIN + MOST_SAMPLES + N_FFT];
    float mels[MOST_SPECTRA * N_MELS];
    int32_t n_samples, n_mels;  // that wait
    int32_t n_late;             // hidden vectors that are still to be dropped
    float energies[(MOST_VECTORS + DELAY) * N_MELS];  // of vectors; the first have waited
    float *states[N_LAYERS];                          // [hidden]
    float *inputs, *hidden, *gates, *gates_of_state;  // of the GRU
    float *logits, *both, *gate;                      // of PhonemeAttention
    float expected[MOST_VECTORS * N_MELS], detail_gate[MOST_VECTORS * N_MELS];
    float *vectors;               // normalized, [MOST_VECTORS, aligned + N_MELS]
    float silence[MOST_VECTORS];  // posteriors
} Encoder;

void take_encoder(const Model *model, Encoder *encoder);
void begin_encoder(const Model *model, Encoder *encoder);
int32_t encode(const Model *model, Encoder *encoder, const float *samples, int32_t n);

// activity.c: LiveVad
typedef struct {
    float waiting;  // posterior of the first vector of a frame
    int32_t n_waiting;
    float recent[N_SMOOTHED];
    int32_t n_recent;  // so far
    uint8_t quiet[QUEUE];
    uint32_t n_quiet, n_used;  // so far
    int before, last;          // whether the last two frames sounded like speech
    int32_t n_spoken;          // how many of them there are
} Activity;

void begin_activity(Activity *activity);
void push_quiet(Activity *activity, int quiet);
// Adds posteriors of silence. Returns how many flags are determined now; 1 is without speech.
int32_t push_posteriors(Activity *activity, const float *posteriors, int32_t n, uint8_t *flags);
int32_t finish_activity(Activity *activity, uint8_t *flags);

// nets.c: TemporalNets
typedef struct {
    int32_t n_slots;
    float *layers[MOST_BLOCKS + 1];  // outputs [slots, members * width] of each layer
    float *frame;                    // features of a frame
    float *taps, *change, *output;   // of a network
    int32_t n_vectors, n_known;      // vectors, and places whose features are known
    int32_t dirty;                   // the first place that blocks must be run for
} Nets;

void take_nets(const Model *model, Nets *nets);
void begin_nets(Nets *nets);
void push_vector(const Model *model, Nets *nets, const float *vector);
void predict(const Model *model, Nets *nets, int32_t frame, float *code);

// lips.c: LineCorrection
typedef struct {
    double *past[MEASURES];  // [MEMORY_FRAMES]
    double fresh[MEASURES][FRAME_RATE];
    double quantiles[MEASURES][2][N_LEVELS];  // at the beginning and the end of the second
    double *slow;                             // [K]
    int32_t n_past, n_fresh, n_done;
    double last, held;
    Sample *samples;
} Line;

void take_line(const Model *model, Line *line);
void begin_line(const Model *model, Line *line);
void correct(const Model *model, Line *line, float *code, double share, int spoken);

// motion.c: MotionStream
typedef struct {
    Nets nets;
    Line line;
    uint8_t silent[QUEUE];
    int32_t ahead, horizon, n_flags, n_done;
    int32_t since;
    double rest;
} Motion;

void take_motion(const Model *model, Motion *motion);
void begin_motion(const Model *model, Motion *motion, int32_t ahead, int32_t horizon);
void push_flags(Motion *motion, const uint8_t *flags, int32_t n);
// Predict frames that are complete, or all: codes [n, K], at most `most`. Return n.
int32_t advance_motion(const Model *model, Motion *motion, float *codes, int32_t most);
int32_t finish_motion(const Model *model, Motion *motion, float *codes, int32_t most);

#endif
