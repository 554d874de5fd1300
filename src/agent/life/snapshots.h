/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshot templates of this host: <dir>/templates/<snapshot id>.json, each naming the generation
 * that it keeps. Which team has one under which name is the control plane's business.
 */
#ifndef TORPOR_AGENT_LIFE_SNAPSHOTS_H
#define TORPOR_AGENT_LIFE_SNAPSHOTS_H

#include <stdint.h>

#include "base/err.h"
#include "base/uuid.h"
#include "proto/sandbox.h"

struct snapshot {
    struct template_id id;
    struct uuid generation;
    int32_t vcpus;
    int32_t memory_mb;
    int64_t size_bytes; /* as really allocated when it was made */
    int64_t created_at_ms;
    char default_user[33];
};

/* All take the descriptor of <dir>/templates. Durable when it returns 0. */
int snapshot_write(int dirfd, const struct snapshot *s, struct err *e);
/* ERR_NOT_FOUND; ERR_INVALID when it is damaged. */
int snapshot_read(int dirfd, const struct template_id *id, struct snapshot *ret, struct err *e);
/* Durable; what is not there is removed already. On failure it is there as before. */
int snapshot_remove(int dirfd, const struct template_id *id, struct err *e);
/* Every one that can be read; those that cannot are logged and counted. What was
 * cut off while it was written or removed goes. */
int snapshots_each(int dirfd, void (*each)(void *ctx, const struct snapshot *s), void *ctx,
    size_t *ret_damaged, struct err *e);

#endif
