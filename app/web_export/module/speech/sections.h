// Files of sections, and the memory that they are read into.
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
    const uint8_t *file;
    size_t n_bytes;
    const Entry *entries;
    uint32_t n_entries, next;
    int is_damaged;
} Reader;

// Checks header and checksum of a file. Returns an error code.
int32_t open_file(Reader *reader, const uint8_t *file, size_t n_bytes, const char *magic,
                  uint32_t version);

// Returns the next section, which must have this name, type and number of values; NULL otherwise.
const void *section(Reader *reader, const char *name, uint32_t type, uint64_t count);

// Returns a section of numbers within limits; NULL otherwise.
const float *numbers(Reader *reader, const char *name, uint64_t count, float least, float most);

// Returns zeroed memory, or NULL if there is no more. It is never returned.
void *take(size_t n_bytes);

// Returns memory for the file, and forgets everything that was taken before.
uint8_t *reserve_file(size_t n_bytes);

#endif
