#include "memory.h"

#define PAGE 65536u
#define ALIGNMENT 16u

extern uint8_t __heap_base;
static size_t next;
static int has_failed;

// Makes memory up to `end` available. The linker limits the module's memory.
static int grow_to(size_t end) {
    size_t n_pages = __builtin_wasm_memory_size(0), needed = (end + PAGE - 1) / PAGE;
    return needed <= n_pages || __builtin_wasm_memory_grow(0, needed - n_pages) != (size_t)-1;
}

void *take(size_t n_bytes) {
    size_t start = (next + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (n_bytes > 0x7fffffffu - start || !grow_to(start + n_bytes)) {
        has_failed = 1;
        return NULL;
    }
    next = start + n_bytes;
    __builtin_memset((void *)start, 0, n_bytes);
    return (void *)start;
}

int is_exhausted(void) { return has_failed; }

uint8_t *reserve_file(size_t n_bytes) {
    next = (size_t)&__heap_base;
    has_failed = 0;
    return take(n_bytes);
}
