// Voice activity of live speech. Counterpart: LiveVad (encoder/live_vad.py).

#include "speech.h"

_Static_assert(MIN_RUN == 2, "flags depend on one frame before and one after");

void begin_activity(Activity *activity) {
    *activity = (Activity){.n_spoken = MIN_RUN - 1};
}

void push_quiet(Activity *activity, int quiet) {
    activity->quiet[activity->n_quiet++ % QUEUE] = (uint8_t)quiet;
}

// Adds a frame. Returns 1 if that determines the flag of the frame before it.
static int32_t push_spoken(Activity *activity, int spoken, uint8_t *flag) {
    int32_t n = activity->n_spoken == MIN_RUN;
    if (n) *flag = !(activity->last && (activity->before || spoken));
    activity->before = activity->last;
    activity->last = spoken;
    activity->n_spoken = MIN_RUN;
    return n;
}

// Whether a frame with this posterior of silence sounds like speech.
static int is_spoken(Activity *activity, float posterior) {
    activity->recent[activity->n_recent++ % N_SMOOTHED] = posterior;
    int32_t n = min_int(activity->n_recent, N_SMOOTHED);
    int quiet = activity->quiet[activity->n_used++ % QUEUE];
    double sum = 0.0;
    for (int32_t i = 0; i < n; i++) sum += activity->recent[i];
    return sum <= (quiet ? MAX_QUIET_POSTERIOR : MAX_POSTERIOR) * n;
}

int32_t push_posteriors(Activity *activity, const float *posteriors, int32_t n, uint8_t *flags) {
    int32_t n_flags = 0;
    for (int32_t i = 0; i < n; i++) {
        if (activity->n_waiting++ % PER_FRAME == 0) {
            activity->waiting = posteriors[i];
            continue;
        }
        float mean = (activity->waiting + posteriors[i]) / PER_FRAME;
        n_flags += push_spoken(activity, is_spoken(activity, mean), flags + n_flags);
    }
    return n_flags;
}

int32_t finish_activity(Activity *activity, uint8_t *flags) {
    return push_spoken(activity, 0, flags);
}
