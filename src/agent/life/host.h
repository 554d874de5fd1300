/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who this host is: its data folder with host.json (host id, cluster id, format, instance number),
 * the cluster secret that sandbox tokens come from, and the instance lock that keeps two
 * installations on one machine apart.
 */
#ifndef TORPOR_AGENT_LIFE_HOST_H
#define TORPOR_AGENT_LIFE_HOST_H

#include <stdint.h>

#include "base/err.h"
#include "proto/sandbox.h"

enum { HOST_PATH_MAX = 4096, HOST_SECRET_BYTES = 32, HOST_TOKEN_CHARS = 64 };

struct host {
    char dir[HOST_PATH_MAX]; /* absolute: TORPOR_DIR */
    char run_dir[64];        /* <run base>/<instance> */
    int dir_fd;
    int sandboxes_fd; /* <dir>/sandboxes */
    int run_fd;       /* <run_dir> */
    int lock_fd;      /* holds the instance */
    unsigned instance;
    struct host_id id;
    struct host_id cluster_id;
    unsigned char secret[HOST_SECRET_BYTES];
    uint64_t epoch; /* of this start of the agent */
};

/* Opens or makes the data folder, takes the instance it had before or the lowest free one, makes
 * the run folder. ERR_CONFLICT when another agent serves this data folder. */
int host_open(struct host *h, const char *dir, const char *run_base, struct err *e);
/* Gives the instance back and closes; the run folder is removed when empty. */
void host_done(struct host *h);

/* The token of a sandbox: lower-case hex of HMAC-SHA256 over id and token epoch, under the
 * cluster's secret. The same over restarts; stored nowhere. */
int host_token(const struct host *h, const struct sandbox_id *id, unsigned token_epoch,
    char ret[HOST_TOKEN_CHARS + 1], struct err *e);

struct host_kernel {
    char vmlinux[HOST_PATH_MAX];
    char initrd[HOST_PATH_MAX];
};
int host_kernel_find(const struct host *h, struct host_kernel *ret, struct err *e);

/* Bytes that may still be used before the reserve for pauses (a tenth, at least 2 GiB) is touched;
 * negative when it is. */
int host_disk_spare(
    const struct host *h, int64_t *ret_spare_bytes, int64_t *ret_free_bytes, struct err *e);

#endif
