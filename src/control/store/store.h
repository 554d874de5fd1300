/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the control plane keeps: teams, keys, hosts, templates, sandboxes and their events.
 *
 * An interface, so that another database can be put below it; SQL is only in its implementations.
 * All functions may be called by any thread, and each is one transaction: done and durable when it
 * returns 0, without effect when it returns -1. Rows live in the arena given. A database that fails
 * is ERR_IO, a full disk ERR_NO_SPACE.
 */
#ifndef TORPOR_CONTROL_STORE_STORE_H
#define TORPOR_CONTROL_STORE_STORE_H

#include "control/store/rows.h"

struct arena;
struct store;

struct store_ops {
    void (*close)(struct store *s);
    /* Fails when the database does not answer. */
    int (*check)(struct store *s, struct err *e);

    int (*team_exists_any)(struct store *s, bool *ret, struct err *e);
    /* A team and its first key, both or neither. */
    int (*team_create)(
        struct store *s, const struct team_row *team, const struct key_row *key, struct err *e);
    int (*key_create)(struct store *s, const struct key_row *key, struct err *e);
    /* Whose key has this hash. ERR_NOT_FOUND. */
    int (*key_find)(struct store *s, const char *hash_hex, struct key_owner *ret, struct err *e);
    /* ERR_NOT_FOUND when the team has no such key. */
    int (*key_delete)(
        struct store *s, const struct team_id *team, const struct key_id *id, struct err *e);

    /* Adds the host or, when it is known, renews last_seen, agent_epoch and state. The cluster of a
     * known host never changes: `ret_known` is what is stored. */
    int (*host_see)(
        struct store *s, const struct host_row *host, struct host_row *ret_known, struct err *e);
    /* The id of the base template of that name; makes the row at the first sight of it. */
    int (*template_base)(
        struct store *s, struct slice name, int64_t now_ms, struct template_id *ret, struct err *e);

    /* Whether a base template has that name or id. */
    int (*template_is_base)(struct store *s, struct slice name_or_id, bool *ret, struct err *e);
    /* The team's snapshot of that name, else of that id. ERR_NOT_FOUND, also for another team's. */
    int (*template_get)(struct store *s, const struct team_id *team, struct slice name_or_id,
        struct template_row *ret, struct err *e);
    /* The team's snapshots, newest first, at most `q->limit`. */
    int (*template_list)(struct store *s, const struct template_query *q, struct arena *a,
        struct template_rows *ret, struct err *e);
    /* A snapshot is going to be made: unless it is committed, the host has to remove it from
     * `not_before_ms` on. */
    int (*snapshot_begin)(struct store *s, const struct snapshot_removal *removal, struct err *e);
    /* It is there: it becomes a template. With `overwrite` the one of that name gives way, and is
     * to be removed. ERR_EXISTS without; ERR_CONFLICT when it is no longer among the removals. */
    int (*snapshot_commit)(
        struct store *s, const struct template_row *row, bool overwrite, struct err *e);
    /* Takes the team's snapshot of that name or id away; it is to be removed. ERR_NOT_FOUND. */
    int (*snapshot_delete)(
        struct store *s, const struct team_id *team, struct slice name_or_id, struct err *e);
    /* Some of those that the host has to remove by now. */
    int (*removal_due)(struct store *s, const struct host_id *host, int64_t now_ms,
        struct removals_due *ret, struct err *e);
    /* Not before then. One that is gone is skipped. */
    int (*removal_delay)(
        struct store *s, const struct template_id *id, int64_t not_before_ms, struct err *e);
    /* The host has removed it. */
    int (*removal_done)(struct store *s, const struct template_id *id, struct err *e);

    /* Adds the row and its first event. ERR_EXISTS for an id that is there. */
    int (*sandbox_create)(
        struct store *s, const struct sandbox_row *row, const char *request_id, struct err *e);
    /* `team` NULL: whoever's. ERR_NOT_FOUND, also for another team's. */
    int (*sandbox_get)(struct store *s, const struct team_id *team, const struct sandbox_id *id,
        struct arena *a, struct sandbox_row *ret, struct err *e);
    /* Newest first. */
    int (*sandbox_list)(struct store *s, const struct sandbox_query *q, struct arena *a,
        struct sandbox_list *ret, struct err *e);
    /* All rows of a host that are neither stopped nor error, in no order and
     * without their metadata. */
    int (*sandbox_list_live)(struct store *s, const struct host_id *host, struct arena *a,
        struct sandbox_list *ret, struct err *e);
    /* How many rows there are in each status; `ret` has SANDBOX_STATUS_COUNT. */
    int (*sandbox_count)(struct store *s, uint64_t *ret, struct err *e);
    /* A transition: the row and its event. ERR_CONFLICT when the row's revision is newer than the
     * change's; ERR_NOT_FOUND. */
    int (*sandbox_change)(struct store *s, const struct sandbox_id *id,
        const struct sandbox_change *change, struct err *e);
    /* Settings of a sandbox; no transition and no event. ERR_NOT_FOUND. */
    int (*sandbox_patch)(struct store *s, const struct sandbox_id *id,
        const struct sandbox_patch *patch, struct err *e);
    /* Raises last_active_at of sandboxes and last_used of keys; ids that are gone are skipped. */
    int (*touch)(struct store *s, const struct touch *touches, size_t n, struct err *e);
    /* Removes rows that are stopped as destroyed or client_gone, or error as create_failed, since
     * before `before_ms`. */
    int (*sandbox_purge)(struct store *s, int64_t before_ms, size_t *ret_removed, struct err *e);
    /* Oldest first. */
    int (*event_list)(struct store *s, const struct sandbox_id *id, struct arena *a,
        struct event_list *ret, struct err *e);
};

struct store {
    const struct store_ops *ops;
};

/* Opens (and makes, mode 0600) the SQLite database at `path` and brings its schema up to date. */
int sqlite_store_open(const char *path, struct store **ret, struct err *e);
/* NULL is fine. Returns NULL. */
struct store *store_close(struct store *s);

#endif
