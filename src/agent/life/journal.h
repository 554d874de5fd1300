/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must outlive the power: <dir>/sandboxes/<id>/state.json, replaced atomically. It is written
 * at birth (beside the boot, so that it costs a create nothing), with each generation that is
 * committed, beside each resume, and at the end.
 */
#ifndef TORPOR_AGENT_LIFE_JOURNAL_H
#define TORPOR_AGENT_LIFE_JOURNAL_H

#include "agent/life/machine.h"
#include "base/uuid.h"

enum {
    JOURNAL_MESSAGE_MAX = 256,
    JOURNAL_DIGEST_MAX = 72,
    JOURNAL_LIVE_MAX = 8, /* live snapshots of one VM that its next ones refer to */
};

struct journal_entry {
    struct sandbox_id id;
    struct machine_state state;
    char message[JOURNAL_MESSAGE_MAX]; /* for people, "" if none */
    char template[65];
    char image_digest[JOURNAL_DIGEST_MAX];
    char request_id[65];
    int32_t vcpus;
    int32_t memory_mb;
    int32_t timeout_sec;
    int32_t slot; /* of the network; 0 in state.json */
    /* The generation that it sleeps in, or that its VM was restored from; "" for a cold boot. It is
     * pinned as long as it stands here. */
    char generation[UUID_TEXT + 1];
    int32_t owns_generation;           /* 1: it was made by this sandbox's pause; 0: a template's */
    char snapshot_id[ID_TEXT_MAX + 1]; /* the template it was spawned from, "" if none */
    /* Of the VM that runs, so that an agent that adopts it can go on; "" and 0 otherwise. */
    char
        live[JOURNAL_LIVE_MAX * (UUID_TEXT + 1) + 1]; /* live snapshots, each followed by a comma */
    /* The set of files that its VM was booted with: an agent that adopts it may have another. */
    char vmm_digest[JOURNAL_DIGEST_MAX];
    char vmm_version[32];
    char vmm_accel[8];
    int32_t vmm_tsc_khz;
    int32_t disk_only; /* 1: the VM was booted; of the generation it uses the disk */
    char secret[65];   /* of a pause under way: what opens envd again */
    int64_t created_at_ms;
    int64_t started_at_ms; /* 0: not yet */
    int64_t status_since_ms;
    int64_t last_active_at_ms;
};

struct err;

#define JOURNAL_STATE_FILE "state.json"
/* The name of a sandbox's file in the run folder: "<id>.json". */
#define JOURNAL_RUN_SUFFIX ".json"

/* Replaces the file atomically; durable when it returns 0, where the file system is. */
int journal_write(int dirfd, const char *name, const struct journal_entry *entry, struct err *e);
/* ERR_NOT_FOUND when there is none, ERR_INVALID when it is not one of ours. */
int journal_read(int dirfd, const char *name, struct journal_entry *ret, struct err *e);

#endif
