/* SPDX-License-Identifier: Apache-2.0 */
/* The qcow2 files that this folder writes and reads: QEMU's docs/interop/qcow2.txt, of which
 * overlays use version 3, clusters of 64 KiB, refcounts of 16 bits and nothing else. */
#ifndef TORPOR_AGENT_DISK_QCOW2_INT_H
#define TORPOR_AGENT_DISK_QCOW2_INT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
    QCOW2_CLUSTER_BITS = 16,
    QCOW2_CLUSTER = 1 << QCOW2_CLUSTER_BITS,
    QCOW2_REFCOUNT_ORDER = 4, /* 16 bits each */
    QCOW2_SECTOR = 512,
    QCOW2_L2_ENTRIES = QCOW2_CLUSTER / 8,
    QCOW2_L1_ENTRIES_MAX = QCOW2_CLUSTER / 8, /* ours: one cluster of them */
    QCOW2_REFCOUNTS = QCOW2_CLUSTER / 2       /* in a block */
};
#define QCOW2_MAGIC 0x514649fbu /* "QFI\xfb" */
#define QCOW2_L1_REACH ((uint64_t)QCOW2_L2_ENTRIES * QCOW2_CLUSTER)
#define QCOW2_VIRTUAL_MAX (QCOW2_L1_REACH * QCOW2_L1_ENTRIES_MAX)

/* Version 3, big-endian, followed by the end mark of the header extensions. */
struct qcow2_header {
    uint32_t magic;
    uint32_t version;
    uint64_t backing_file_offset;
    uint32_t backing_file_size;
    uint32_t cluster_bits;
    uint64_t size;
    uint32_t crypt_method;
    uint32_t l1_size;
    uint64_t l1_table_offset;
    uint64_t refcount_table_offset;
    uint32_t refcount_table_clusters;
    uint32_t nb_snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible_features;
    uint64_t compatible_features;
    uint64_t autoclear_features;
    uint32_t refcount_order;
    uint32_t header_length;
    uint8_t compression_type;
    uint8_t padding[7];
    uint32_t end_type; /* extension 0: no more */
    uint32_t end_length;
};
enum { QCOW2_HEADER_BYTES = 112 }; /* without the end mark */
static_assert(sizeof(struct qcow2_header) == QCOW2_HEADER_BYTES + 8, "no hidden padding");

/* Where the tables of a file lie, in clusters. */
struct qcow2_layout {
    uint64_t l1;
    uint64_t refcount_table;
    uint32_t refcount_table_clusters;
};

int qcow2_write_at(int fd, uint64_t offset, const void *src, size_t n, struct err *e);
int qcow2_write_header(
    int fd, uint64_t virtual_bytes, const struct qcow2_layout *layout, struct err *e);
/* A multiple of 512 that one cluster of L1 can map. */
int qcow2_check_size(uint64_t virtual_bytes, struct err *e);
uint64_t qcow2_l1_entries(uint64_t virtual_bytes);

#endif
