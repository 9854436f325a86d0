// Speech: what speech.bin holds, and the state of a line.
#ifndef TALKHEAD_SPEECH_H
#define TALKHEAD_SPEECH_H

#include "linear.h"
#include "sections.h"
#include "speech_constants.h"

#define N_BINS (N_FFT / 2 + 1)
#define PER_FRAME 2                           // vectors of a video frame
#define VECTOR_SAMPLES (HOP_LENGTH * STRIDE)  // samples of a vector
#define MARGIN (REACH * HOP_LENGTH + N_FFT / 2)  // samples before its moment that a vector depends on
#define MOST_SAMPLES 1360                     // that are encoded at a time: silence after the end
#define MOST_SPECTRA 16                       // and their spectra, with those before that are needed
#define MOST_VECTORS 8                        // and their vectors
#define MOST_FRAMES 64                        // that a push returns
#define MOST_BLOCKS 8
#define MOST_LAYERS 2
#define QUEUE 64                              // flags that wait, a power of 2

// Values of speech.bin, in the order of app/web_export/speech_file.py.
typedef struct {
    int32_t n_channels, n_hidden;  // of the convolution, and of the GRU's state
    int32_t n_aligned, n_phones;   // aligned features, and phones
    int32_t silence;               // index of the phone that is silence
    int32_t n_mouth;               // components of a mouth code
    int32_t n_members, n_width;    // networks of the predictor, and their channels
    int32_t n_blocks, ahead;       // of a network, and the frames ahead that it depends on
    int32_t has_lips, has_motion;  // LipRange and LipMotion
} Sizes;

typedef struct {
    int32_t kernel, dilation, ahead, behind;
    Linear *spread, *mix;  // of each network
} Block;

typedef struct {
    const float *offset;            // [MEASURES]
    const float *slope, *direction;  // [MEASURES, K]
    const float *own, *predicted;   // [MEASURES, N_LEVELS]
    const float *centre;            // [K]
    const float *slow, *fast;       // [K, K]
    double hold;                    // scale of Hold
} Lips;

typedef struct {
    const Sizes *sizes;
    Linear cosines, sines, mels;
    Rounded convolution, inputs[MOST_LAYERS], states[MOST_LAYERS];  // of the GRU
    Rounded own, gate, expected, detail_gate;
    Linear phones, phone_values;
    const float *scale, *shift;  // [aligned + N_MELS], normalization of features
    Linear first, *last;         // of all networks, and of each
    Block blocks[MOST_BLOCKS];
    int32_t behind;                   // frames before it that a prediction depends on
    float gain;                       // of the networks' output
    const float *centre, *low, *high, *rest;  // [K]
    Lips lips;
} Model;

// speech_level.c: LiveLevel, and the samples of a sequence with a weight each.
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
int push_level(Level *level, const float *frame, float *leveled);  // 1: too quiet for speech

// speech_spectrum.c
int prepare_spectra(Model *model);
void log_mels(const Model *model, const float *samples, int32_t n, float *mels);

// speech_encoder.c: PaseStream of the small model. Vectors are those of the last samples.
typedef struct {
    float samples[MARGIN + MOST_SAMPLES + N_FFT];
    float mels[(MOST_SPECTRA + 2 * REACH) * N_MELS];
    int32_t n_samples, n_mels;  // that wait
    int32_t n_late;             // hidden vectors that are still to be dropped
    float *states[MOST_LAYERS];        // [hidden]
    float *inputs, *hidden, *gates, *gates_of_state;
    float energies[(MOST_VECTORS + DELAY) * N_MELS];  // the first DELAY are of the vectors before
    float *logits, *both, *gate;
    float expected[MOST_VECTORS * N_MELS], detail_gate[MOST_VECTORS * N_MELS];
    float *vectors;                    // normalized, [MOST_VECTORS, features]
    float silence[MOST_VECTORS];       // posteriors
} Encoder;
int take_encoder(const Model *model, Encoder *encoder);
void begin_encoder(const Model *model, Encoder *encoder);
int32_t encode(const Model *model, Encoder *encoder, const float *samples, int32_t n);

// speech_activity.c: LiveVad
typedef struct {
    float waiting;                     // posterior of the first vector of a frame
    int32_t n_waiting;
    float recent[N_SMOOTHED];
    int32_t n_recent;                  // so far
    uint8_t quiet[QUEUE];
    uint32_t n_quiet, n_used;          // pushed, and used
    uint8_t before, last;              // whether the last two frames sounded like speech
    int32_t n_spoken;                  // of `before` and `last`
} Activity;
void begin_activity(Activity *activity);
void push_quiet(Activity *activity, int quiet);
// Adds posteriors of silence. Returns how many flags are determined now: 1 is without speech.
int32_t push_posteriors(Activity *activity, const float *posteriors, int32_t n, uint8_t *flags);
int32_t finish_activity(Activity *activity, uint8_t *flags);

// speech_nets.c: the ensemble of TemporalNets
typedef struct {
    int32_t n_slots;
    float *layers[MOST_BLOCKS + 1];  // outputs [slots, members * width] of the first layer and each block
    float *frame;                    // features of a frame
    float *taps, *change, *output;   // of a network
    int32_t n_vectors, n_known;      // vectors, and frames, those before the first included
    int32_t dirty;                   // the first frame that blocks must be run for
} Nets;
int take_nets(const Model *model, Nets *nets);
void begin_nets(Nets *nets);
void push_vector(const Model *model, Nets *nets, const float *vector);
void predict(const Model *model, Nets *nets, int32_t frame, float *code);

// speech_lips.c: LineCorrection
typedef struct {
    double *past[MEASURES];  // [MEMORY_FRAMES]
    double fresh[MEASURES][FRAME_RATE];
    double quantiles[MEASURES][2][N_LEVELS];
    double *slow;            // [K]
    int32_t n_past, n_fresh, n_done;
    double last, held;
    Sample *samples;
} Line;
int take_line(const Model *model, Line *line);
void begin_line(const Model *model, Line *line);
void correct(const Model *model, Line *line, float *code, double share, int spoken);

// speech_motion.c: MotionStream
typedef struct {
    Nets nets;
    Line line;
    uint8_t silent[QUEUE];
    int32_t ahead, horizon, n_flags, n_done;
    int32_t since;
    double rest;
} Motion;
int take_motion(const Model *model, Motion *motion);
void begin_motion(const Model *model, Motion *motion, int32_t ahead, int32_t horizon);
void push_flags(Motion *motion, const uint8_t *flags, int32_t n);
// Predicts the frames that are complete, [n, K], at most `most`. Returns n.
int32_t advance_motion(const Model *model, Motion *motion, float *codes, int32_t most);
int32_t finish_motion(const Model *model, Motion *motion, float *codes, int32_t most);

// speech_read.c
int32_t read_speech(const uint8_t *file, size_t n_bytes, Model *model);

#endif
