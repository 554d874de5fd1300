/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checksums of blobs: CRC32C (Castagnoli, as iSCSI's and ext4's) of each CHECKSUM_BLOCK bytes, in a
 * file beside the blob, so that whoever reads a part can verify that part.
 *
 * Layout of <uuid>.crc, little-endian: struct checksum_head, then one u32 a block; the last block
 * may be short.
 */
#ifndef TORPOR_SNAP_CHECKSUM_H
#define TORPOR_SNAP_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/uuid.h"

enum { CHECKSUM_BLOCK = 64 << 10, CHECKSUM_VERSION = 1 };
#define CHECKSUM_MAGIC 0x53435243504f5254ull /* "TROPCRCS" */

struct checksum_head {
    uint64_t magic;
    uint16_t version;
    uint16_t head_bytes;
    uint32_t block_bytes;
    uint64_t blob_bytes;
    unsigned char uuid[UUID_BYTES];
    uint32_t reserved;
    uint32_t crc; /* CRC32C of the head with this field 0, then of the sums */
};

/* CRC32C of `n` more bytes; start with `crc` 0. Uses the CPU's instruction where it has one. */
uint32_t crc32c(uint32_t crc, const void *p, size_t n);

/* Takes a blob's bytes front to back in pieces of any size and writes the file of sums. No heap. */
enum { CHECKSUM_WRITER_SUMS = 256 };
struct checksum_writer {
    int fd;
    struct uuid blob;
    uint64_t bytes;  /* so far */
    uint32_t block;  /* sum of the block under way */
    uint32_t crc;    /* of the sums so far */
    uint64_t n_sums; /* flushed and buffered */
    size_t n_buffered;
    uint32_t buffered[CHECKSUM_WRITER_SUMS];
};
void checksum_writer_init(struct checksum_writer *w, int fd, const struct uuid *blob);
int checksum_write(struct checksum_writer *w, const void *p, size_t n, struct err *e);
/* Not synced. */
int checksum_write_end(struct checksum_writer *w, struct err *e);

/* Reads the whole blob and writes its sums: for files that others wrote. */
int checksum_file(int blob_fd, int sums_fd, const struct uuid *blob, struct err *e);

/* A checked file of sums; points into the caller's bytes. */
struct checksums {
    const uint32_t *sums;
    uint64_t n_sums;
    uint64_t blob_bytes;
    struct uuid blob;
};
int checksums_parse(const void *bytes, size_t n, struct checksums *ret, struct err *e);
/* Verifies the whole block `index`, whose bytes are `p` (short for the last). ERR_IO when they are
 * not what was written. */
int checksums_verify(
    const struct checksums *c, uint64_t index, const void *p, size_t n, struct err *e);

#endif
