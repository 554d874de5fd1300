/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Root disks: a copy-on-write overlay per sandbox over one shared read-only base image. Overlays
 * are qcow2 files whose header names no backing file: the driver gives the whole graph at start.
 */
#ifndef TORPOR_AGENT_DISK_DISK_H
#define TORPOR_AGENT_DISK_DISK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* Makes the overlay `name` in the folder `dirfd`, `virtual_bytes` large (a multiple of 512), owned
 * by `owner`, mode 0600. No program is run. An existing file is ERR_EXISTS. */
int disk_overlay_create(
    int dirfd, const char *name, uint64_t virtual_bytes, uid_t owner, struct err *e);
/* Removes it; absent is fine. */
int disk_overlay_remove(int dirfd, const char *name, struct err *e);
/* Merges frozen overlays, bottom first, into one that says the same over the same base image, in
 * the empty file `out_fd`. The files may come from a guest that owns its VMM: they are read
 * strictly and anything but a plain overlay of ours is ERR_INVALID. Not synced. */
int disk_layers_merge(const int *layer_fds, size_t n, int out_fd, struct err *e);
/* Bytes as really allocated (st_blocks). */
int disk_allocated_bytes(int dirfd, const char *name, uint64_t *ret, struct err *e);

#endif
