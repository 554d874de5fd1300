/* SPDX-License-Identifier: Apache-2.0 */
/* Reading sandboxes and events from SQLite. */
#include "control/store/sqlite_int.h"

#include "base/arena.h"

enum { GROW_FIRST = 16 };

static int bad_row(const char *what, const char *id, struct err *e)
{
    return err_set(e, ERR_INTERNAL, "database: bad %s of sandbox %s", what, id);
}

static void read_times(const struct query *q, struct sandbox_row *r)
{
    r->created_at_ms = query_col_int(q, 15);
    r->started_at_ms = query_col_int(q, 16);
    r->last_active_at_ms = query_col_int(q, 17);
    r->last_updated_ms = query_col_int(q, 18);
}

/* The order is SANDBOX_COLUMNS of sqlite_sql.c. */
static int read_row(const struct query *q, struct arena *a, struct sandbox_row *r, struct err *e)
{
    struct slice meta = query_col_slice(q, 14);
    *r = (struct sandbox_row){
        .revision = (uint64_t)query_col_int(q, 3),
        .status_since_ms = query_col_int(q, 7),
        .vcpus = (int)query_col_int(q, 10),
        .memory_mb = (int)query_col_int(q, 11),
        .timeout_sec = (int)query_col_int(q, 12),
    };
    query_col_copy(q, 0, r->id.text, sizeof r->id.text);
    query_col_copy(q, 1, r->team.text, sizeof r->team.text);
    query_col_copy(q, 2, r->host.text, sizeof r->host.text);
    if (!sandbox_status_parse(query_col_slice(q, 4), &r->status))
        return bad_row("status", r->id.text, e);
    if (!sandbox_reason_parse(query_col_slice(q, 5), &r->reason))
        return bad_row("reason", r->id.text, e);
    query_col_copy(q, 6, r->message, sizeof r->message);
    query_col_copy(q, 8, r->template, sizeof r->template);
    query_col_copy(q, 9, r->template_id.text, sizeof r->template_id.text);
    query_col_copy(q, 13, r->host_ip, sizeof r->host_ip);
    read_times(q, r);
    r->metadata = slice_of(arena_strndup(a, meta.p, meta.n), meta.n);
    return r->metadata.p ? 0 : err_set(e, ERR_NOMEM, "out of memory");
}

int sqlite_sandbox_get(struct store *s, const struct team_id *team, const struct sandbox_id *id,
    struct arena *a, struct sandbox_row *ret, struct err *e)
{
    AUTO_CONN c = sqlite_reader_acquire(sqlite_of(s));
    AUTO_QUERY q = query_start(c, SQL_SANDBOX_GET);
    struct sandbox_row row;
    int rc;
    query_text(&q, id->text);
    query_text(&q, team ? team->text : NULL);
    rc = query_step(&q, e);
    if (rc < 0)
        return -1;
    if (rc == 0)
        return err_set(e, ERR_NOT_FOUND, "no sandbox %s", id->text);
    if (read_row(&q, a, &row, e) < 0)
        return -1;
    *ret = row;
    return 0;
}

/* Room for one more row, in an array of the arena that doubles. */
static struct sandbox_row *list_grow(struct arena *a, struct sandbox_list *l, size_t *cap)
{
    size_t want = *cap ? *cap * 2 : GROW_FIRST;
    struct sandbox_row *rows;
    if (l->n < *cap)
        return &l->rows[l->n];
    rows = arena_calloc(a, want, sizeof *rows);
    if (!rows)
        return NULL;
    if (l->n > 0)
        memcpy(rows, l->rows, l->n * sizeof *rows);
    l->rows = rows;
    *cap = want;
    return &l->rows[l->n];
}

static int read_list(
    struct query *q, struct arena *a, size_t limit, struct sandbox_list *ret, struct err *e)
{
    struct sandbox_list l = {0};
    size_t cap = 0;
    int rc;
    while ((rc = query_step(q, e)) == 1) {
        struct sandbox_row *row;
        if (l.n == limit) {
            l.more = true;
            break;
        }
        row = list_grow(a, &l, &cap);
        if (!row)
            return err_set(e, ERR_NOMEM, "out of memory");
        if (read_row(q, a, row, e) < 0)
            return -1;
        l.n++;
    }
    if (rc < 0)
        return -1;
    *ret = l;
    return 0;
}

int sqlite_sandbox_list(struct store *s, const struct sandbox_query *want, struct arena *a,
    struct sandbox_list *ret, struct err *e)
{
    AUTO_CONN c = sqlite_reader_acquire(sqlite_of(s));
    AUTO_QUERY q = query_start(c, SQL_SANDBOX_LIST);
    query_text(&q, want->team.text);
    for (int i = 0; i < SANDBOX_STATUS_COUNT; i++)
        query_text(&q, want->statuses[i] ? sandbox_status_name((enum sandbox_status)i) : NULL);
    query_slice(&q, want->template);
    query_slice(&q, want->metadata);
    query_int_or_null(&q, want->before_created_ms);
    query_text(&q, want->before_id.text);
    query_int(&q, (int64_t)want->limit + 1);
    return read_list(&q, a, want->limit, ret, e);
}

int sqlite_sandbox_list_live(struct store *s, const struct host_id *host, struct arena *a,
    struct sandbox_list *ret, struct err *e)
{
    AUTO_CONN c = sqlite_reader_acquire(sqlite_of(s));
    AUTO_QUERY q = query_start(c, SQL_SANDBOX_LIST_LIVE);
    query_text(&q, host->text);
    return read_list(&q, a, SIZE_MAX, ret, e);
}

int sqlite_sandbox_count(struct store *s, uint64_t *ret, struct err *e)
{
    AUTO_CONN c = sqlite_reader_acquire(sqlite_of(s));
    AUTO_QUERY q = query_start(c, SQL_SANDBOX_COUNT);
    uint64_t counts[SANDBOX_STATUS_COUNT] = {0};
    enum sandbox_status status;
    int rc;
    while ((rc = query_step(&q, e)) == 1)
        if (sandbox_status_parse(query_col_slice(&q, 0), &status))
            counts[status] = (uint64_t)query_col_int(&q, 1);
    if (rc == 0)
        memcpy(ret, counts, sizeof counts);
    return rc;
}

static void read_event(const struct query *q, struct event_row *ev)
{
    ev->seq = (uint64_t)query_col_int(q, 0);
    query_col_copy(q, 1, ev->from, sizeof ev->from);
    query_col_copy(q, 2, ev->to, sizeof ev->to);
    query_col_copy(q, 3, ev->reason, sizeof ev->reason);
    query_col_copy(q, 4, ev->request_id, sizeof ev->request_id);
    ev->at_ms = query_col_int(q, 5);
}

int sqlite_event_list(struct store *s, const struct sandbox_id *id, struct arena *a,
    struct event_list *ret, struct err *e)
{
    AUTO_CONN c = sqlite_reader_acquire(sqlite_of(s));
    AUTO_QUERY q = query_start(c, SQL_EVENT_LIST);
    struct event_list l = {0};
    size_t cap = 0;
    int rc;
    query_text(&q, id->text);
    while ((rc = query_step(&q, e)) == 1) {
        if (l.n == cap) {
            size_t want = cap ? cap * 2 : GROW_FIRST;
            struct event_row *rows = arena_calloc(a, want, sizeof *rows);
            if (!rows)
                return err_set(e, ERR_NOMEM, "out of memory");
            if (l.n > 0)
                memcpy(rows, l.rows, l.n * sizeof *rows);
            l.rows = rows;
            cap = want;
        }
        read_event(&q, &l.rows[l.n++]);
    }
    if (rc < 0)
        return -1;
    *ret = l;
    return 0;
}
