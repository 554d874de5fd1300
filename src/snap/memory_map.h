/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.map: which blob holds which part of a guest's memory. The shim serves page faults from it
 * and writes the next one; the agent keeps it in a generation's folder.
 *
 * Layout, little-endian: struct memory_map_head, `n_entries` of struct memory_map_entry, `n_blobs`
 * of struct memory_map_blob. Entries are sorted and cover [0, memory_bytes) exactly; blob index 0
 * is zeros (its blob_offset is 0), index i is blobs[i - 1]. Lengths and offsets are whole pages of
 * MEMORY_PAGE bytes. A reader refuses incompatible feature bits that it does not know and ignores
 * compatible ones.
 */
#ifndef TORPOR_SNAP_MEMORY_MAP_H
#define TORPOR_SNAP_MEMORY_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/uuid.h"

enum {
    MEMORY_PAGE = 4096,
    MEMORY_MAP_VERSION = 1,
    MEMORY_MAP_BLOBS_MAX = 64, /* SHIM_BLOBS_MAX */
};
#define MEMORY_MAP_MAGIC 0x50414d4d50524f54ull /* "TORPMMAP" */

struct memory_map_head {
    uint64_t magic;
    uint16_t version;
    uint16_t head_bytes;
    uint16_t entry_bytes;
    uint16_t blob_bytes;
    uint64_t compatible;
    uint64_t incompatible;
    uint64_t memory_bytes; /* in offsets of the VMM's memory file */
    uint32_t page_bytes;
    uint32_t n_blobs;
    uint64_t n_entries;
    uint32_t crc; /* CRC32C of the head with this field 0, then of all that follows it */
    uint32_t reserved;
};

struct memory_map_entry {
    uint64_t offset;
    uint64_t length;
    uint64_t blob_offset;
    uint32_t blob; /* 0: zeros */
    uint32_t reserved;
};

struct memory_map_blob {
    unsigned char uuid[UUID_BYTES];
    uint64_t bytes; /* size of the blob's file */
};

/* A checked map; points into the caller's bytes (an mmap of the file, for instance). */
struct memory_map {
    const struct memory_map_entry *entries;
    size_t n_entries;
    const struct memory_map_blob *blobs;
    size_t n_blobs;
    uint64_t memory_bytes;
};

/* Checks everything that readers rely on: sums, order, cover, bounds of every reference. `bytes`
 * must be aligned to 8 and outlive `ret`. ERR_INVALID says what is wrong; ERR_UNSUPPORTED for a
 * version or feature of a newer program. */
int memory_map_parse(const void *bytes, size_t n, struct memory_map *ret, struct err *e);
/* The entry that holds `offset` (< memory_bytes). Binary search; never NULL. */
const struct memory_map_entry *memory_map_find(const struct memory_map *m, uint64_t offset);

/* Writes a map front to back into an empty file. Adjacent parts that fit together become one entry.
 * Small: no heap. */
enum { MEMORY_MAP_WRITER_ENTRIES = 128 };
struct memory_map_writer {
    int fd;
    uint64_t memory_bytes;
    uint64_t at;          /* of memory; all before is written or in `pending` */
    uint64_t file_offset; /* of the next flush */
    uint64_t n_entries;
    uint32_t crc;
    size_t n_buffered;
    struct memory_map_entry buffered[MEMORY_MAP_WRITER_ENTRIES]; /* the last may still grow */
};
void memory_map_writer_init(struct memory_map_writer *w, int fd, uint64_t memory_bytes);
/* The next `length` bytes of memory: blob 0 for zeros. */
int memory_map_write(struct memory_map_writer *w, uint64_t length, uint32_t blob,
    uint64_t blob_offset, struct err *e);
/* All of memory has been written. Appends the blob table and writes the head. Not synced. */
int memory_map_write_end(
    struct memory_map_writer *w, const struct memory_map_blob *blobs, size_t n, struct err *e);

#endif
