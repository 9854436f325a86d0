// Level of live speech. Counterparts: LiveLevel (encoder/live_vad.py), speech_threshold_db
// (talkhead/audio.py), speech_gain (encoder/base.py).

#include "speech.h"

#define LN_10 2.302585092994046
#define PEAK_FRAMES 5  // the peak is the level that 0.2 s of the frames reach

static const double FILTER[2][6] = HUM_FILTER;

static double decibels(double power) { return 10.0 / LN_10 * log1((float)power); }

void sort_samples(Sample *samples, int32_t n) {
    static const int32_t GAPS[] = {701, 301, 132, 57, 23, 10, 4, 1};
    for (int g = 0; g < 8; g++) {
        int32_t gap = GAPS[g];
        for (int32_t i = gap; i < n; i++) {
            Sample moved = samples[i];
            int32_t j = i;
            for (; j >= gap && samples[j - gap].value > moved.value; j -= gap)
                samples[j] = samples[j - gap];
            samples[j] = moved;
        }
    }
}

void begin_level(Level *level) {
    *level = (Level){.gain = 1.0};
}

// speech_threshold_db
static double threshold_of(const Level *level) {
    Sample sorted[HISTORY_FRAMES];
    int32_t n = min_int(level->n_energies, HISTORY_FRAMES);
    for (int32_t i = 0; i < n; i++) sorted[i] = (Sample){level->energies[i], 0.0};
    sort_samples(sorted, n);
    double place = 0.1 * (n - 1);
    int32_t below = (int32_t)place, above = min_int(below + 1, n - 1);
    double low = sorted[below].value, high = sorted[above].value;
    double threshold = low + (place - below) * (high - low) + SPEECH_ABOVE_FLOOR_DB;
    double peak = sorted[n - min_int(n, PEAK_FRAMES)].value - SPEECH_BELOW_PEAK_DB;
    if (peak > threshold) threshold = peak;
    return threshold > MIN_SPEECH_DB ? threshold : MIN_SPEECH_DB;
}

// speech_gain
static double gain_of(const Level *level) {
    int32_t n = min_int(level->n_powers, HISTORY_FRAMES);
    double sum = 0.0;
    for (int32_t i = 0; i < n; i++) sum += level->powers[i];
    if (sum <= 0.0) return 1.0;
    double gain_db = SPEECH_LEVEL_DB - decibels(sum / n);
    if (gain_db > MAX_GAIN_DB) gain_db = MAX_GAIN_DB;
    if (gain_db < -MAX_GAIN_DB) gain_db = -MAX_GAIN_DB;
    return exp1((float)(gain_db / 20.0 * LN_10));
}

// Mean square of a frame after the hum filter, in direct form II transposed as in SciPy.
static double filtered_power(Level *level, const float *frame) {
    double sum = 0.0;
    for (int32_t i = 0; i < SAMPLES_PER_FRAME; i++) {
        double x = frame[i];
        for (int s = 0; s < 2; s++) {
            const double *c = FILTER[s];
            double *z = level->filter[s], y = c[0] * x + z[0];
            z[0] = c[1] * x - c[4] * y + z[1];
            z[1] = c[2] * x - c[5] * y;
            x = y;
        }
        sum += x * x;
    }
    return sum / SAMPLES_PER_FRAME;
}

int push_level(Level *level, const float *frame, float *leveled) {
    double power = filtered_power(level, frame), before = level->gain, sum = 0.0;
    double energy = decibels(power > POWER_FLOOR ? power : POWER_FLOOR);
    level->energies[level->n_energies++ % HISTORY_FRAMES] = energy;
    int quiet = energy <= threshold_of(level);
    if (!quiet) {
        for (int32_t i = 0; i < SAMPLES_PER_FRAME; i++) sum += (double)frame[i] * frame[i];
        level->powers[level->n_powers++ % HISTORY_FRAMES] = sum / SAMPLES_PER_FRAME;
    }
    if (level->n_powers >= MIN_SOUNDING) level->gain = gain_of(level);
    double step = (level->gain - before) / SAMPLES_PER_FRAME;
    for (int32_t i = 0; i < SAMPLES_PER_FRAME; i++)
        leveled[i] = clamp((float)(before + (i + 1) * step) * frame[i], -1.0f, 1.0f);
    return quiet;
}
