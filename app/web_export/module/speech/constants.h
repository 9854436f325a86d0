// Constants of the Python encoder and predictor. tests/app/web_export/test_speech_module.py compares
// each with its counterpart of the same name.
#ifndef TALKHEAD_SPEECH_CONSTANTS_H
#define TALKHEAD_SPEECH_CONSTANTS_H

// talkhead/types.py
#define SAMPLE_RATE 16000
#define FRAME_RATE 25

// talkhead/audio.py
// HUM_FILTER: the sections of hum_filter.
#define POWER_FLOOR 1e-10
#define SPEECH_ABOVE_FLOOR_DB 8.0
#define SPEECH_BELOW_PEAK_DB 35.0
#define MIN_SPEECH_DB -75.0
#define HUM_FILTER                                                                               \
    {{0.9499817826392998, -1.8999635652785996, 0.9499817826392998, 1.0, -1.9285084850826342,     \
      0.9299964423952546},                                                                       \
     {1.0, -2.0, 1.0, 1.0, -1.968877497385758, 0.9703966017571153}}

// encoder/base.py
#define SPEECH_LEVEL_DB -23.0
#define MAX_GAIN_DB 40.0

// encoder/live_vad.py
#define SAMPLES_PER_FRAME 640
#define HISTORY_FRAMES 250
#define MIN_SOUNDING 3
#define N_SMOOTHED 3
#define MAX_POSTERIOR 0.1
#define MAX_QUIET_POSTERIOR 0.05
#define MIN_RUN 2

// encoder/pase/trunk.py
#define N_FFT 400
#define HOP_LENGTH 160
#define STRIDE 2
#define N_MELS 80
#define REACH 2
#define MIN_LOG_POWER -7.0

// encoder/pase/live.py
#define DELAY 1

// encoder/predictor/rest.py
#define SETTLING_FRAMES 20
#define STIRRING_FRAMES 4
#define CLOSING_FRAMES 2
#define NEAR_FRAMES 3
#define FADING_FRAMES 4

// encoder/predictor/lip_range.py
#define N_LEVELS 55
#define MEASURES 2
#define STRENGTHS {1.0, 0.75}
#define SLOPES_BELOW {0.0, 0.5}
#define SLOPE_ABOVE 0.5
#define TYPICAL_FRAMES 150
#define MEMORY_FRAMES 1500
#define MIN_SPREAD 1e-4

// encoder/predictor/lip_motion.py
#define SMOOTHING 0.3
#define LEAD 0.2
#define HOLD 0.1

// talkhead/face.py
#define MAX_CODES 256
#define MAX_CODE 1e4

// encoder/predictor/network.py
#define MAX_VIEW 250

// app/web_export/speech_file.py
#define MAX_AHEAD 56

#endif
