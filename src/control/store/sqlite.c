/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SQLite store: opening, connections, running statements.
 *
 * Theory of operation
 * One connection writes, a few read; each has a mutex that is held while a statement runs, and at
 * most one is held by a thread. The write-ahead log lets readers go on during a write, so that a
 * request that only reads never waits for another's fsync. synchronous=FULL: what a function has
 * reported as done survives a power cut. Statements are prepared once per connection and their
 * values bound, never pasted in.
 */
#include "control/store/sqlite_int.h"

#include <fcntl.h>
#include <stdio.h>

enum { BUSY_MS = 5000 };

static const struct store_ops sqlite_ops;

int sqlite_fail(struct sqlite_conn *c, int rc, struct err *e)
{
    int ext = c->db ? sqlite3_extended_errcode(c->db) : rc;
    const char *msg = c->db ? sqlite3_errmsg(c->db) : sqlite3_errstr(rc);
    if (ext == SQLITE_CONSTRAINT_UNIQUE || ext == SQLITE_CONSTRAINT_PRIMARYKEY)
        return err_set(e, ERR_EXISTS, "database: %s", msg);
    if ((rc & 0xff) == SQLITE_FULL)
        return err_set(e, ERR_NO_SPACE, "the database's disk is full");
    if ((rc & 0xff) == SQLITE_NOMEM)
        return err_set(e, ERR_NOMEM, "database: out of memory");
    return err_set(e, ERR_IO, "database: %s", msg);
}

struct sqlite_conn *sqlite_writer_acquire(struct sqlite_store *s)
{
    (void)pthread_mutex_lock(&s->writer.lock);
    return &s->writer;
}

struct sqlite_conn *sqlite_reader_acquire(struct sqlite_store *s)
{
    unsigned first = __atomic_fetch_add(&s->next_reader, 1, __ATOMIC_RELAXED);
    struct sqlite_conn *c;
    for (unsigned i = 0; i < SQLITE_READERS; i++) {
        c = &s->readers[(first + i) % SQLITE_READERS];
        if (pthread_mutex_trylock(&c->lock) == 0)
            return c;
    }
    c = &s->readers[first % SQLITE_READERS];
    (void)pthread_mutex_lock(&c->lock);
    return c;
}

void sqlite_release(struct sqlite_conn *const *c)
{
    (void)pthread_mutex_unlock(&(*c)->lock);
}

struct query query_start(struct sqlite_conn *c, enum sql id)
{
    struct query q = {.conn = c, .next = 1};
    if (!c->stmts[id])
        q.rc = sqlite3_prepare_v3(
            c->db, sqlite_texts[id], -1, SQLITE_PREPARE_PERSISTENT, &c->stmts[id], NULL);
    q.st = c->stmts[id];
    return q;
}

void query_done(struct query *q)
{
    if (!q->st)
        return;
    (void)sqlite3_reset(q->st);
    (void)sqlite3_clear_bindings(q->st);
}

static void note_bind(struct query *q, int rc)
{
    q->next++;
    if (q->rc == SQLITE_OK)
        q->rc = rc;
}

void query_slice(struct query *q, struct slice s)
{
    if (q->rc != SQLITE_OK)
        return;
    note_bind(q, s.p ? sqlite3_bind_text64(q->st, q->next, s.p, s.n, SQLITE_STATIC, SQLITE_UTF8)
                     : sqlite3_bind_null(q->st, q->next));
}

void query_text(struct query *q, const char *s)
{
    query_slice(q, slice_cstr(s));
}

void query_int(struct query *q, int64_t v)
{
    if (q->rc == SQLITE_OK)
        note_bind(q, sqlite3_bind_int64(q->st, q->next, v));
}

void query_int_or_null(struct query *q, int64_t v)
{
    if (v != 0)
        query_int(q, v);
    else
        query_text(q, NULL);
}

int query_step(struct query *q, struct err *e)
{
    int rc = q->rc == SQLITE_OK ? sqlite3_step(q->st) : q->rc;
    if (rc == SQLITE_ROW)
        return 1;
    return rc == SQLITE_DONE ? 0 : sqlite_fail(q->conn, rc, e);
}

int query_run(struct query *q, int64_t *ret_changes, struct err *e)
{
    if (query_step(q, e) < 0)
        return -1;
    if (ret_changes)
        *ret_changes = sqlite3_changes64(q->conn->db);
    return 0;
}

struct slice query_col_slice(const struct query *q, int i)
{
    const char *p = (const char *)sqlite3_column_text(q->st, i);
    return slice_of(p, p ? (size_t)sqlite3_column_bytes(q->st, i) : 0);
}

int64_t query_col_int(const struct query *q, int i)
{
    return sqlite3_column_int64(q->st, i);
}

void query_col_copy(const struct query *q, int i, char *dst, size_t size)
{
    struct slice s = query_col_slice(q, i);
    if (s.n >= size)
        s.n = utf8_complete_prefix(s.p, size - 1);
    if (s.n > 0)
        memcpy(dst, s.p, s.n);
    dst[s.n] = '\0';
}

static int run_plain(struct sqlite_conn *c, enum sql id, struct err *e)
{
    AUTO_QUERY q = query_start(c, id);
    return query_run(&q, NULL, e);
}

int sqlite_begin(struct sqlite_conn *c, struct err *e)
{
    return run_plain(c, SQL_BEGIN, e);
}

int sqlite_end(struct sqlite_conn *c, int rc, struct err *e)
{
    struct err ignored = {0};
    if (rc == 0 && run_plain(c, SQL_COMMIT, e) == 0)
        return 0;
    (void)run_plain(c, SQL_ROLLBACK, &ignored);
    return -1;
}

static int sqlite_check(struct store *s, struct err *e)
{
    AUTO_CONN c = sqlite_reader_acquire(sqlite_of(s));
    AUTO_QUERY q = query_start(c, SQL_CHECK);
    return query_step(&q, e) < 0 ? -1 : 0;
}

static void conn_close(struct sqlite_conn *c)
{
    for (size_t i = 0; i < SQL_COUNT; i++)
        (void)sqlite3_finalize(c->stmts[i]);
    (void)sqlite3_close(c->db);
    (void)pthread_mutex_destroy(&c->lock);
}

static void sqlite_close(struct store *base)
{
    struct sqlite_store *s = sqlite_of(base);
    for (size_t i = 0; i < SQLITE_READERS; i++)
        conn_close(&s->readers[i]);
    conn_close(&s->writer);
    free(s);
}

static int conn_open(struct sqlite_conn *c, const char *path, bool writer, struct err *e)
{
    int flags = (writer ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY) | SQLITE_OPEN_NOMUTEX;
    int rc = sqlite3_open_v2(path, &c->db, flags, NULL);
    if (rc != SQLITE_OK)
        return sqlite_fail(c, rc, e);
    (void)sqlite3_extended_result_codes(c->db, 1);
    (void)sqlite3_busy_timeout(c->db, BUSY_MS);
    if (writer) {
        rc = sqlite3_exec(
            c->db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;", NULL, NULL, NULL);
        if (rc != SQLITE_OK)
            return sqlite_fail(c, rc, e);
    }
    rc = sqlite3_exec(c->db, "PRAGMA foreign_keys = ON;", NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : sqlite_fail(c, rc, e);
}

/* SQLite makes its files 0644; made by us first, the log files take over the mode too. */
static int make_private_file(const char *path, struct err *e)
{
    AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? err_sys(e, errno, "open the database") : 0;
}

static int open_all(struct sqlite_store *s, const char *path, struct err *e)
{
    if (make_private_file(path, e) < 0 || conn_open(&s->writer, path, /* writer= */ true, e) < 0 ||
        sqlite_migrate_up(s->writer.db, e) < 0)
        return -1;
    for (size_t i = 0; i < SQLITE_READERS; i++)
        if (conn_open(&s->readers[i], path, /* writer= */ false, e) < 0)
            return -1;
    return 0;
}

int sqlite_store_open(const char *path, struct store **ret, struct err *e)
{
    struct sqlite_store *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_NOMEM, "out of memory");
    s->base.ops = &sqlite_ops;
    (void)pthread_mutex_init(&s->writer.lock, NULL);
    for (size_t i = 0; i < SQLITE_READERS; i++)
        (void)pthread_mutex_init(&s->readers[i].lock, NULL);
    if (open_all(s, path, e) < 0) {
        sqlite_close(&s->base);
        return -1;
    }
    *ret = &s->base;
    return 0;
}

struct store *store_close(struct store *s)
{
    if (s)
        s->ops->close(s);
    return NULL;
}

static const struct store_ops sqlite_ops = {
    .close = sqlite_close,
    .check = sqlite_check,
    .team_exists_any = sqlite_team_exists_any,
    .team_create = sqlite_team_create,
    .key_create = sqlite_key_create,
    .key_find = sqlite_key_find,
    .key_delete = sqlite_key_delete,
    .host_see = sqlite_host_see,
    .template_base = sqlite_template_base,
    .template_is_base = sqlite_template_is_base,
    .template_get = sqlite_template_get,
    .template_list = sqlite_template_list,
    .snapshot_begin = sqlite_snapshot_begin,
    .snapshot_commit = sqlite_snapshot_commit,
    .snapshot_delete = sqlite_snapshot_delete,
    .removal_due = sqlite_removal_due,
    .removal_delay = sqlite_removal_delay,
    .removal_done = sqlite_removal_done,
    .sandbox_create = sqlite_sandbox_create,
    .sandbox_get = sqlite_sandbox_get,
    .sandbox_list = sqlite_sandbox_list,
    .sandbox_list_live = sqlite_sandbox_list_live,
    .sandbox_count = sqlite_sandbox_count,
    .sandbox_change = sqlite_sandbox_change,
    .sandbox_patch = sqlite_sandbox_patch,
    .touch = sqlite_touch,
    .sandbox_purge = sqlite_sandbox_purge,
    .event_list = sqlite_event_list,
};
