/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a VM's memory: SAVE, COMMIT, CANCEL. */
#ifndef TORPOR_SHIM_SAVE_H
#define TORPOR_SHIM_SAVE_H

#include "base/uuid.h"
#include "shim/memory.h"

struct save_params {
    int *fds; /* blob, checksums, map: all taken */
    struct uuid blob;
    bool write_back; /* the disk begins while memory is still being read */
    /* Called every few hundred KiB: true breaks the SAVE off with ERR_CANCELED. */
    bool (*should_stop)(void *arg);
    void *arg;
};

enum { SAVE_FDS = 3 };

struct save_numbers {
    uint64_t pages_stored;
    uint64_t pages_zero;
    uint64_t pages_referred;
    uint64_t scan_us;
    uint64_t write_us;
    uint64_t map_entries;
    uint64_t map_blobs;
};

/* Writes the written pages that differ from what the source has into the blob, and the map of all
 * memory. The memory is mapped and the vCPUs stand still. What an earlier SAVE left pending is
 * forgotten. ERR_CANCELED, ERR_TOO_LARGE when the map would name more than SHIM_BLOBS_MAX blobs,
 * ERR_NO_SPACE, ERR_IO. */
int save_memory(
    struct memory *m, const struct save_params *params, struct save_numbers *ret, struct err *e);

/* The last SAVE is durable: its map becomes the source. Nothing pending is fine. */
int save_commit(struct memory *m, struct err *e);

#endif
