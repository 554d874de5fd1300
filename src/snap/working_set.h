/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pages that a guest touched first after a restore: a hint, which may be lost or wrong.
 *
 * Layout, little-endian: struct working_set_head, then `n_runs` of struct working_set_run, sorted,
 * not overlapping, in whole pages.
 */
#ifndef TORPOR_SNAP_WORKING_SET_H
#define TORPOR_SNAP_WORKING_SET_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { WORKING_SET_VERSION = 1 };
#define WORKING_SET_MAGIC 0x544553574b524f57ull /* "WORKWSET" */

struct working_set_head {
    uint64_t magic;
    uint16_t version;
    uint16_t reserved;
    uint32_t n_runs;
    uint64_t memory_bytes;
    uint32_t crc; /* CRC32C of the head with this field 0, then of the runs */
    uint32_t reserved_2;
};

struct working_set_run {
    uint64_t offset;
    uint64_t length;
};

/* A checked working set; points into the caller's bytes, which are aligned to 8. */
struct working_set {
    const struct working_set_run *runs;
    size_t n_runs;
    uint64_t memory_bytes;
};
int working_set_parse(const void *bytes, size_t n, struct working_set *ret, struct err *e);
/* Writes the runs of set bits of a bitmap of pages (bit i of word i / 64 is page i), and how many
 * pages those are. Not synced. */
int working_set_write(
    int fd, const uint64_t *bitmap, uint64_t memory_bytes, uint64_t *ret_pages, struct err *e);

#endif
