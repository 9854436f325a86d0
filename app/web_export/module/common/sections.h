// Files of sections.
#ifndef TALKHEAD_SECTIONS_H
#define TALKHEAD_SECTIONS_H

#include <stddef.h>
#include <stdint.h>

enum { FINE = 0, DAMAGED = 1, OTHER_VERSION = 2, TOO_LARGE = 3 };
enum { U8, I8, U16, I16, I32, F32 };  // types of values

typedef struct {
    uint32_t name, type, offset, count;
} Entry;

typedef struct {
    uint8_t *file;
    size_t n_bytes, n_read;  // n_read: up to the end of the section that was returned last
    const Entry *entries;
    uint32_t n_entries, next;
    int is_damaged;
} Reader;

// Checks header and checksum of a file. Returns an error code.
int32_t open_file(Reader *reader, uint8_t *file, size_t n_bytes, const char *magic,
                  uint32_t version);

// Returns the next section, which must have this name, type and number of values, and begin after the
// one before, so that it can be changed in place; NULL otherwise.
void *section(Reader *reader, const char *name, uint32_t type, uint64_t count);

// Returns a section of numbers within limits; NULL otherwise.
const float *numbers(Reader *reader, const char *name, uint64_t count, float least, float most);

static inline int within(int32_t value, int32_t least, int32_t most) {
    return value >= least && value <= most;
}

#endif
