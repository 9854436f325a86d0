// Log mel energies. Counterpart: log_mels (encoder/pase/trunk.py). The transform of 400 samples is a
// product with a matrix: after folding, it is small, and simpler than a fast one of that length.

#include "speech.h"

#define N_FOLDED ((N_BINS + 3) / 4 * 4)
// Cosine and sine of 2 pi / N_FFT.
#define STEP_COSINE 0.99987663248166059864
#define STEP_SINE 0.01570731731182067575
#define LOG10_E 0.43429448f

_Static_assert(N_FFT == 400, "STEP_COSINE and STEP_SINE");

static float window[N_FFT];
static float even[MOST_SPECTRA * N_FOLDED], odd[MOST_SPECTRA * N_FOLDED];
static float real[MOST_SPECTRA * N_FOLDED], imaginary[MOST_SPECTRA * N_FOLDED];

static void take_square(Linear *layer) {
    layer->n_out = layer->n_in = N_FOLDED;
    layer->weights = take(sizeof(float) * N_FOLDED * N_FOLDED);
    layer->bias = take(sizeof(float) * N_FOLDED);
}

void take_spectra(Model *model) {
    take_square(&model->cosines);
    take_square(&model->sines);
}

// Computes the window and the matrices of the transform.
void prepare_spectra(Model *model) {
    static float cosine[N_FFT], sine[N_FFT];
    double c = 1.0, s = 0.0;
    for (int i = 0; i < N_FFT; i++) {
        cosine[i] = (float)c;
        sine[i] = (float)s;
        window[i] = (float)(0.5 - 0.5 * c);
        double turned = c * STEP_COSINE - s * STEP_SINE;
        s = s * STEP_COSINE + c * STEP_SINE;
        c = turned;
    }
    for (int k = 0; k < N_BINS; k++) {
        for (int i = 0; i < N_BINS; i++) {
            model->cosines.weights[k * N_FOLDED + i] = cosine[k * i % N_FFT];
            model->sines.weights[k * N_FOLDED + i] = sine[k * i % N_FFT];
        }
    }
}

// Sums and differences of the samples at equal distance from the window's middle: cosines and sines
// there are equal and opposite.
static void fold(const float *samples, float *sums, float *differences) {
    int half = N_FFT / 2;
    sums[0] = window[0] * samples[0];
    sums[half] = window[half] * samples[half];
    differences[0] = differences[half] = 0.0f;
    for (int i = 1; i < half; i++) {
        float first = window[i] * samples[i], second = window[N_FFT - i] * samples[N_FFT - i];
        sums[i] = first + second;
        differences[i] = first - second;
    }
}

// Computes n spectra, HOP_LENGTH samples apart: mels [n, N_MELS].
void log_mels(const Model *model, const float *samples, int32_t n, float *mels) {
    float floor = exp1((float)MIN_LOG_POWER / LOG10_E);
    for (int32_t i = 0; i < n; i++)
        fold(samples + i * HOP_LENGTH, even + i * N_FOLDED, odd + i * N_FOLDED);
    apply(&model->cosines, even, N_FOLDED, real, N_FOLDED, n);
    apply(&model->sines, odd, N_FOLDED, imaginary, N_FOLDED, n);
    for (int32_t i = 0; i < n * N_FOLDED; i += 4) {
        f4 a = load(real + i), b = load(imaginary + i);
        store(real + i, mul_add(a, a, mul(b, b)));
    }
    apply(&model->mels, real, N_FOLDED, mels, N_MELS, n);
    for (int32_t i = 0; i < n * N_MELS; i++)
        mels[i] = (LOG10_E * log1(maximum(mels[i], floor)) + 4.0f) / 4.0f;
}
