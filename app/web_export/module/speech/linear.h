// Linear layers and the activations after them.
#ifndef TALKHEAD_LINEAR_H
#define TALKHEAD_LINEAR_H

#include "../common/vectors.h"

// y = W x + b. Rows and columns are filled up with zeros to multiples of 4, and so are x and y.
typedef struct {
    int32_t n_out, n_in;    // filled up
    float *weights, *bias;  // [n_out, n_in], [n_out]
} Linear;

// The same with weights that are whole numbers times a scale for each row. Columns are multiples of 8,
// rows of 4. Inputs are rounded to 16 bits, which is several times faster than products of floats.
typedef struct {
    int32_t n_out, n_in;
    const int8_t *weights;       // [n_out, n_in]
    const float *scales, *bias;  // [n_out]
} Rounded;

#define MOST_INPUTS 2048  // of a rounded layer: sums of products fit into 32 bits
#define MOST_AT_ONCE 8

static inline int32_t filled_up(int32_t n) { return (n + 3) & ~3; }

// Applies a layer to n inputs, which begin in_step values apart; outputs begin out_step apart.
void apply(const Linear *layer, const float *inputs, int32_t in_step, float *outputs,
           int32_t out_step, int32_t n);

// The same for a rounded layer, and at most MOST_AT_ONCE inputs.
void apply_rounded(const Rounded *layer, const float *inputs, int32_t in_step, float *outputs,
                   int32_t out_step, int32_t n);

static inline f4 sigmoid4(f4 x) {
    return wasm_f32x4_div(splat(1.0f), add(splat(1.0f), exp4(wasm_f32x4_neg(x))));
}
static inline f4 tanh4(f4 x) { return sub(mul(splat(2.0f), sigmoid4(add(x, x))), splat(1.0f)); }

// x (1 + erf(x / sqrt(2))) / 2, in place.
void gelu(float *values, int32_t n);

#endif
