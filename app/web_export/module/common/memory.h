// Memory: the file first, then everything that the module needs, taken once and never returned.
#ifndef TALKHEAD_MEMORY_H
#define TALKHEAD_MEMORY_H

#include <stddef.h>
#include <stdint.h>

// Returns zeroed memory, or NULL if there is not enough. Nothing may be written before is_exhausted()
// was asked, which is enough to do once for several of them.
void *take(size_t n_bytes);

// Whether there was not enough memory since the file's was reserved.
int is_exhausted(void);

// Returns memory for the file, and forgets everything that was taken before.
uint8_t *reserve_file(size_t n_bytes);

#endif
