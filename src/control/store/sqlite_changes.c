/* SPDX-License-Identifier: Apache-2.0 */
/* Changing sandboxes in SQLite; each transition writes its event in the same transaction. */
#include "control/store/sqlite_int.h"

struct event {
    const char *sandbox;
    const char *team;
    const char *from;
    const char *to;
    const char *reason;
    const char *request_id; /* may be NULL */
    int64_t at_ms;
};

static int insert_event(struct sqlite_conn *c, const struct event *ev, struct err *e)
{
    AUTO_QUERY q = query_start(c, SQL_EVENT_INSERT);
    query_text(&q, ev->sandbox);
    query_text(&q, ev->team);
    query_text(&q, ev->from);
    query_text(&q, ev->to);
    query_text(&q, ev->reason);
    query_text(&q, ev->request_id ? ev->request_id : "");
    query_int(&q, ev->at_ms);
    return query_run(&q, NULL, e);
}

/* The order is SANDBOX_COLUMNS of sqlite_sql.c. */
static int insert_row(struct sqlite_conn *c, const struct sandbox_row *r, struct err *e)
{
    AUTO_QUERY q = query_start(c, SQL_SANDBOX_INSERT);
    query_text(&q, r->id.text);
    query_text(&q, r->team.text);
    query_text(&q, r->host.text[0] ? r->host.text : NULL);
    query_int(&q, (int64_t)r->revision);
    query_text(&q, sandbox_status_name(r->status));
    query_text(&q, sandbox_reason_name(r->reason));
    query_text(&q, r->message);
    query_int(&q, r->status_since_ms);
    query_text(&q, r->template);
    query_text(&q, r->template_id.text);
    query_int(&q, r->vcpus);
    query_int(&q, r->memory_mb);
    query_int(&q, r->timeout_sec);
    query_text(&q, r->host_ip);
    query_slice(&q, r->metadata.p ? r->metadata : SLICE_LIT("{}"));
    query_int(&q, r->created_at_ms);
    query_int_or_null(&q, r->started_at_ms);
    query_int_or_null(&q, r->last_active_at_ms);
    query_int(&q, r->last_updated_ms);
    return query_run(&q, NULL, e);
}

int sqlite_sandbox_create(
    struct store *s, const struct sandbox_row *row, const char *request_id, struct err *e)
{
    struct event ev = {
        .sandbox = row->id.text,
        .team = row->team.text,
        .from = "",
        .to = sandbox_status_name(row->status),
        .reason = sandbox_reason_name(row->reason),
        .request_id = request_id,
        .at_ms = row->created_at_ms,
    };
    AUTO_CONN c = sqlite_writer_acquire(sqlite_of(s));
    int rc;
    if (sqlite_begin(c, e) < 0)
        return -1;
    rc = insert_row(c, row, e);
    if (rc == 0)
        rc = insert_event(c, &ev, e);
    return sqlite_end(c, rc, e);
}

struct stored_state {
    char team[ID_TEXT_MAX + 1];
    char status[16];
    char reason[24];
    uint64_t revision;
};

static int get_state(
    struct sqlite_conn *c, const struct sandbox_id *id, struct stored_state *ret, struct err *e)
{
    AUTO_QUERY q = query_start(c, SQL_SANDBOX_STATE);
    int rc;
    query_text(&q, id->text);
    rc = query_step(&q, e);
    if (rc <= 0)
        return rc < 0 ? -1 : err_set(e, ERR_NOT_FOUND, "no sandbox %s", id->text);
    query_col_copy(&q, 0, ret->team, sizeof ret->team);
    query_col_copy(&q, 1, ret->status, sizeof ret->status);
    query_col_copy(&q, 2, ret->reason, sizeof ret->reason);
    ret->revision = (uint64_t)query_col_int(&q, 3);
    return 0;
}

static int update_row(struct sqlite_conn *c, const struct sandbox_id *id,
    const struct sandbox_change *ch, struct err *e)
{
    AUTO_QUERY q = query_start(c, SQL_SANDBOX_CHANGE);
    query_text(&q, sandbox_status_name(ch->status));
    query_text(&q, sandbox_reason_name(ch->reason));
    query_text(&q, ch->message ? ch->message : "");
    query_int(&q, (int64_t)ch->revision);
    query_int(&q, ch->at_ms);
    query_int_or_null(&q, ch->started_at_ms);
    query_int_or_null(&q, ch->last_active_at_ms);
    query_int_or_null(&q, ch->vcpus);
    query_int_or_null(&q, ch->memory_mb);
    query_text(&q, ch->host_ip);
    query_int(&q, ch->at_ms);
    query_text(&q, id->text);
    return query_run(&q, NULL, e);
}

static int change_in_tx(struct sqlite_conn *c, const struct sandbox_id *id,
    const struct sandbox_change *ch, struct err *e)
{
    struct stored_state was;
    struct event ev;
    if (get_state(c, id, &was, e) < 0)
        return -1;
    if (ch->revision != 0 && ch->revision < was.revision)
        return err_set(e, ERR_CONFLICT, "a newer revision of sandbox %s is known", id->text);
    if (update_row(c, id, ch, e) < 0)
        return -1;
    ev = (struct event){
        .sandbox = id->text,
        .team = was.team,
        .from = was.status,
        .to = sandbox_status_name(ch->status),
        .reason = sandbox_reason_name(ch->reason),
        .request_id = ch->request_id,
        .at_ms = ch->at_ms,
    };
    if (strcmp(ev.from, ev.to) == 0 && strcmp(was.reason, ev.reason) == 0)
        return 0; /* no transition: only its numbers were renewed */
    return insert_event(c, &ev, e);
}

int sqlite_sandbox_change(struct store *s, const struct sandbox_id *id,
    const struct sandbox_change *change, struct err *e)
{
    AUTO_CONN c = sqlite_writer_acquire(sqlite_of(s));
    if (sqlite_begin(c, e) < 0)
        return -1;
    return sqlite_end(c, change_in_tx(c, id, change, e), e);
}

int sqlite_sandbox_patch(
    struct store *s, const struct sandbox_id *id, const struct sandbox_patch *patch, struct err *e)
{
    AUTO_CONN c = sqlite_writer_acquire(sqlite_of(s));
    AUTO_QUERY q = query_start(c, SQL_SANDBOX_PATCH);
    int64_t changes;
    if (patch->has_timeout_sec)
        query_int(&q, patch->timeout_sec);
    else
        query_text(&q, NULL);
    query_slice(&q, patch->metadata);
    query_int(&q, patch->at_ms);
    query_text(&q, id->text);
    if (query_run(&q, &changes, e) < 0)
        return -1;
    return changes > 0 ? 0 : err_set(e, ERR_NOT_FOUND, "no sandbox %s", id->text);
}

static int touch_one(struct sqlite_conn *c, const struct touch *t, struct err *e)
{
    struct key_id key;
    bool is_key = key_id_parse(slice_cstr(t->id), &key);
    AUTO_QUERY q = query_start(c, is_key ? SQL_KEY_TOUCH : SQL_SANDBOX_TOUCH);
    query_int(&q, t->at_ms);
    query_text(&q, t->id);
    return query_run(&q, NULL, e);
}

int sqlite_touch(struct store *s, const struct touch *touches, size_t n, struct err *e)
{
    AUTO_CONN c = sqlite_writer_acquire(sqlite_of(s));
    int rc = 0;
    if (sqlite_begin(c, e) < 0)
        return -1;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = touch_one(c, &touches[i], e);
    return sqlite_end(c, rc, e);
}

int sqlite_sandbox_purge(struct store *s, int64_t before_ms, size_t *ret_removed, struct err *e)
{
    AUTO_CONN c = sqlite_writer_acquire(sqlite_of(s));
    AUTO_QUERY q = query_start(c, SQL_SANDBOX_PURGE);
    int64_t changes;
    query_int(&q, before_ms);
    if (query_run(&q, &changes, e) < 0)
        return -1;
    *ret_removed = (size_t)changes;
    return 0;
}
