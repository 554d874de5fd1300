/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must outlive the power: <dir>/sandboxes/<id>/state.json, replaced atomically. It is written
 * at birth (beside the boot, so that it costs a create nothing) and at the end.
 */
#ifndef TORPOR_AGENT_LIFE_JOURNAL_H
#define TORPOR_AGENT_LIFE_JOURNAL_H

#include "agent/life/machine.h"

enum { JOURNAL_MESSAGE_MAX = 256, JOURNAL_DIGEST_MAX = 72 };

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
