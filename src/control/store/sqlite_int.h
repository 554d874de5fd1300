/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the SQLite store share: connections, prepared statements, transactions. */
#ifndef TORPOR_CONTROL_STORE_SQLITE_INT_H
#define TORPOR_CONTROL_STORE_SQLITE_INT_H

#include <pthread.h>
#include <sqlite3.h>

#include "base/cleanup.h"
#include "control/store/store.h"

enum sql {
    SQL_BEGIN,
    SQL_COMMIT,
    SQL_ROLLBACK,
    SQL_CHECK,
    SQL_TEAM_ANY,
    SQL_TEAM_INSERT,
    SQL_KEY_INSERT,
    SQL_KEY_FIND,
    SQL_KEY_DELETE,
    SQL_KEY_TOUCH,
    SQL_HOST_SEE,
    SQL_HOST_GET,
    SQL_TEMPLATE_FIND_BASE,
    SQL_TEMPLATE_INSERT_BASE,
    SQL_TEMPLATE_IS_BASE,
    SQL_TEMPLATE_GET,
    SQL_TEMPLATE_LIST,
    SQL_TEMPLATE_INSERT,
    SQL_TEMPLATE_DELETE,
    SQL_GENERATION_INSERT,
    SQL_GENERATION_DELETE,
    SQL_REMOVAL_INSERT,
    SQL_REMOVAL_DUE,
    SQL_REMOVAL_DELAY,
    SQL_REMOVAL_DELETE,
    SQL_SANDBOX_INSERT,
    SQL_SANDBOX_GET,
    SQL_SANDBOX_LIST,
    SQL_SANDBOX_LIST_LIVE,
    SQL_SANDBOX_COUNT,
    SQL_SANDBOX_STATE,
    SQL_SANDBOX_CHANGE,
    SQL_SANDBOX_PATCH,
    SQL_SANDBOX_TOUCH,
    SQL_SANDBOX_PURGE,
    SQL_EVENT_INSERT,
    SQL_EVENT_LIST,
    SQL_COUNT
};

/* The one text of each statement, sqlite_sql.c. */
extern const char *const sqlite_texts[SQL_COUNT];

struct sqlite_conn {
    pthread_mutex_t lock; /* held while a statement of this connection runs */
    sqlite3 *db;
    sqlite3_stmt *stmts[SQL_COUNT]; /* prepared at first use */
};

enum { SQLITE_READERS = 3 };

struct sqlite_store {
    struct store base;
    struct sqlite_conn writer;
    struct sqlite_conn readers[SQLITE_READERS];
    unsigned next_reader; /* atomic; only spreads the load */
};

static inline struct sqlite_store *sqlite_of(struct store *s)
{
    return (struct sqlite_store *)s;
}

/* A locked connection for reading; release with sqlite_release. */
struct sqlite_conn *sqlite_reader_acquire(struct sqlite_store *s);
/* The locked connection for writing. */
struct sqlite_conn *sqlite_writer_acquire(struct sqlite_store *s);
void sqlite_release(struct sqlite_conn *const *c);
#define AUTO_CONN CLEANUP(sqlite_release) struct sqlite_conn *

/* One run of a prepared statement on a locked connection. The first error in binding sticks and
 * comes out of the step. */
struct query {
    struct sqlite_conn *conn;
    sqlite3_stmt *st;
    int rc;
    int next; /* parameter to bind next, from 1 */
};
#define AUTO_QUERY CLEANUP(query_done) struct query
struct query query_start(struct sqlite_conn *c, enum sql id);
void query_done(struct query *q);
/* Bind the next parameter. The bytes must live until query_done. */
void query_text(struct query *q, const char *s);   /* NULL binds NULL */
void query_slice(struct query *q, struct slice s); /* p NULL binds NULL */
void query_int(struct query *q, int64_t v);
void query_int_or_null(struct query *q, int64_t v); /* 0 binds NULL */
/* 1: a row. 0: no more. -1: failed. */
int query_step(struct query *q, struct err *e);
/* Runs a statement that gives no rows. `ret_changes` may be NULL. */
int query_run(struct query *q, int64_t *ret_changes, struct err *e);

/* Column `i` of the row, from 0. */
struct slice query_col_slice(const struct query *q, int i);
int64_t query_col_int(const struct query *q, int i); /* NULL is 0 */
/* Copies text; cut to fit. NULL is "". */
void query_col_copy(const struct query *q, int i, char *dst, size_t size);

/* Fills `e` from the connection's last failure. Returns -1. */
int sqlite_fail(struct sqlite_conn *c, int rc, struct err *e);

int sqlite_begin(struct sqlite_conn *c, struct err *e);
/* Commits when `rc` is 0 and rolls back otherwise. Returns 0 only when committed. */
int sqlite_end(struct sqlite_conn *c, int rc, struct err *e);

/* Brings the schema to the newest version, one transaction a step. */
int sqlite_migrate_up(sqlite3 *db, struct err *e);
/* Undoes the steps above `version`. */
int sqlite_migrate_down(sqlite3 *db, int64_t version, struct err *e);
int sqlite_migrate_version(sqlite3 *db, int64_t *ret, struct err *e);

/* sqlite_accounts.c */
int sqlite_team_exists_any(struct store *s, bool *ret, struct err *e);
int sqlite_team_create(
    struct store *s, const struct team_row *team, const struct key_row *key, struct err *e);
int sqlite_key_create(struct store *s, const struct key_row *key, struct err *e);
int sqlite_key_find(struct store *s, const char *hash_hex, struct key_owner *ret, struct err *e);
int sqlite_key_delete(
    struct store *s, const struct team_id *team, const struct key_id *id, struct err *e);
int sqlite_host_see(
    struct store *s, const struct host_row *host, struct host_row *ret_known, struct err *e);

/* sqlite_templates.c: see store.h. */
int sqlite_template_base(
    struct store *s, struct slice name, int64_t now_ms, struct template_id *ret, struct err *e);
int sqlite_template_is_base(struct store *s, struct slice name_or_id, bool *ret, struct err *e);
int sqlite_template_get(struct store *s, const struct team_id *team, struct slice name_or_id,
    struct template_row *ret, struct err *e);
int sqlite_template_list(struct store *s, const struct template_query *q, struct arena *a,
    struct template_rows *ret, struct err *e);
int sqlite_snapshot_begin(struct store *s, const struct snapshot_removal *removal, struct err *e);
int sqlite_snapshot_commit(
    struct store *s, const struct template_row *row, bool overwrite, struct err *e);
int sqlite_snapshot_delete(
    struct store *s, const struct team_id *team, struct slice name_or_id, struct err *e);
int sqlite_removal_due(struct store *s, const struct host_id *host, int64_t now_ms,
    struct removals_due *ret, struct err *e);
int sqlite_removal_delay(
    struct store *s, const struct template_id *id, int64_t not_before_ms, struct err *e);
int sqlite_removal_done(struct store *s, const struct template_id *id, struct err *e);

/* sqlite_sandboxes.c and sqlite_changes.c: see store.h. */
int sqlite_sandbox_create(
    struct store *s, const struct sandbox_row *row, const char *request_id, struct err *e);
int sqlite_sandbox_get(struct store *s, const struct team_id *team, const struct sandbox_id *id,
    struct arena *a, struct sandbox_row *ret, struct err *e);
int sqlite_sandbox_list(struct store *s, const struct sandbox_query *q, struct arena *a,
    struct sandbox_list *ret, struct err *e);
int sqlite_sandbox_list_live(struct store *s, const struct host_id *host, struct arena *a,
    struct sandbox_list *ret, struct err *e);
int sqlite_sandbox_count(struct store *s, uint64_t *ret, struct err *e);
int sqlite_sandbox_change(struct store *s, const struct sandbox_id *id,
    const struct sandbox_change *change, struct err *e);
int sqlite_sandbox_patch(
    struct store *s, const struct sandbox_id *id, const struct sandbox_patch *patch, struct err *e);
int sqlite_touch(struct store *s, const struct touch *touches, size_t n, struct err *e);
int sqlite_sandbox_purge(struct store *s, int64_t before_ms, size_t *ret_removed, struct err *e);
int sqlite_event_list(struct store *s, const struct sandbox_id *id, struct arena *a,
    struct event_list *ret, struct err *e);

#endif
