// Reading of files that app/web_export/sections.py encodes.

#include "sections.h"

#define HEADER_BYTES 32u
#define ENTRY_BYTES 16u
#define MOST_ENTRIES 1024u
#define ALIGNMENT 16u

static const uint8_t TYPE_BYTES[] = {1, 1, 2, 2, 4, 4};

static int is_same(const void *bytes, const char *text, int n) {
    for (int i = 0; i < n; i++)
        if (((const char *)bytes)[i] != text[i]) return 0;
    return 1;
}

// CRC-32 of zlib.
static uint32_t checksum(const uint8_t *bytes, size_t n) {
    static uint32_t table[256];
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320u ^ (value >> 1) : value >> 1;
        table[i] = value;
    }
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) crc = table[(crc ^ bytes[i]) & 255u] ^ (crc >> 8);
    return ~crc;
}

int32_t open_file(Reader *reader, uint8_t *file, size_t n_bytes, const char *magic,
                  uint32_t version) {
    const uint32_t *header = (const uint32_t *)file;
    if (n_bytes < HEADER_BYTES || !is_same(file, magic, 8)) return DAMAGED;
    if (header[2] != version) return OTHER_VERSION;
    uint32_t n_entries = header[5];
    if (header[3] != n_bytes || n_entries > MOST_ENTRIES ||
        HEADER_BYTES + n_entries * ENTRY_BYTES > n_bytes ||
        header[4] != checksum(file + HEADER_BYTES, n_bytes - HEADER_BYTES))
        return DAMAGED;
    const Entry *entries = (const Entry *)(file + HEADER_BYTES);
    size_t n_read = HEADER_BYTES + n_entries * ENTRY_BYTES;
    *reader = (Reader){file, n_bytes, n_read, entries, n_entries, 0, 0};
    return FINE;
}

void *section(Reader *reader, const char *name, uint32_t type, uint64_t count) {
    if (reader->is_damaged || reader->next >= reader->n_entries) {
        reader->is_damaged = 1;
        return NULL;
    }
    const Entry *entry = &reader->entries[reader->next++];
    uint64_t end = entry->offset + count * TYPE_BYTES[type];
    if (!is_same(&entry->name, name, 4) || entry->type != type ||
        entry->count != count || entry->offset % ALIGNMENT != 0 ||
        entry->offset < reader->n_read || end > reader->n_bytes) {
        reader->is_damaged = 1;
        return NULL;
    }
    reader->n_read = end;
    return reader->file + entry->offset;
}

const float *numbers(Reader *reader, const char *name, uint64_t count, float least, float most) {
    const float *values = section(reader, name, F32, count);
    for (uint64_t i = 0; values != NULL && i < count; i++) {
        if (!(values[i] >= least && values[i] <= most)) {  // NaN fails
            reader->is_damaged = 1;
            return NULL;
        }
    }
    return values;
}
