/* SPDX-License-Identifier: Apache-2.0 */
/* Templates in SQLite: the ids of the base ones, and the snapshots of the teams. */
#include "control/store/sqlite_int.h"

#include "base/arena.h"

/* --- base templates --- */

/* 1: found. 0: there is none. */
static int find_base(
    struct sqlite_conn *c, struct slice name, struct template_id *ret, struct err *e)
{
    AUTO_QUERY q = query_start(c, SQL_TEMPLATE_FIND_BASE);
    int rc;
    query_slice(&q, name);
    rc = query_step(&q, e);
    if (rc == 1)
        query_col_copy(&q, 0, ret->text, sizeof ret->text);
    return rc;
}

static int insert_base(struct sqlite_conn *c, struct slice name, int64_t now_ms,
    struct template_id *ret, struct err *e)
{
    struct template_id id;
    AUTO_QUERY q = query_start(c, SQL_TEMPLATE_INSERT_BASE);
    template_id_new(&id);
    query_text(&q, id.text);
    query_slice(&q, name);
    query_int(&q, now_ms);
    if (query_run(&q, NULL, e) < 0)
        return -1;
    *ret = id;
    return 0;
}

int sqlite_template_base(
    struct store *s, struct slice name, int64_t now_ms, struct template_id *ret, struct err *e)
{
    struct template_id id;
    int rc;
    {
        AUTO_CONN r = sqlite_reader_acquire(sqlite_of(s));
        rc = find_base(r, name, ret, e);
    }
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    AUTO_CONN c = sqlite_writer_acquire(sqlite_of(s));
    if (sqlite_begin(c, e) < 0)
        return -1;
    rc = find_base(c, name, &id, e);
    if (rc == 0)
        rc = insert_base(c, name, now_ms, &id, e);
    if (sqlite_end(c, rc < 0 ? -1 : 0, e) < 0)
        return -1;
    *ret = id;
    return 0;
}

int sqlite_template_is_base(struct store *s, struct slice name_or_id, bool *ret, struct err *e)
{
    AUTO_CONN c = sqlite_reader_acquire(sqlite_of(s));
    AUTO_QUERY q = query_start(c, SQL_TEMPLATE_IS_BASE);
    int rc;
    query_slice(&q, name_or_id);
    rc = query_step(&q, e);
    if (rc < 0)
        return -1;
    *ret = rc == 1;
    return 0;
}

/* --- snapshots --- */

/* The order is TEMPLATE_COLUMNS of sqlite_sql.c. */
static void read_template(const struct query *q, struct template_row *r)
{
    *r = (struct template_row){
        .vcpus = (int)query_col_int(q, 5),
        .memory_mb = (int)query_col_int(q, 6),
        .size_bytes = query_col_int(q, 7),
        .created_at_ms = query_col_int(q, 9),
    };
    query_col_copy(q, 0, r->id.text, sizeof r->id.text);
    query_col_copy(q, 1, r->team.text, sizeof r->team.text);
    query_col_copy(q, 2, r->host.text, sizeof r->host.text);
    query_col_copy(q, 3, r->name, sizeof r->name);
    query_col_copy(q, 4, r->generation, sizeof r->generation);
    query_col_copy(q, 8, r->default_user, sizeof r->default_user);
}

static int not_there(struct slice name, struct err *e)
{
    return err_set(
        e, ERR_NOT_FOUND, "there is no template %.*s", (int)name.n, name.n ? name.p : "");
}

static int get_template(struct sqlite_conn *c, const struct team_id *team, struct slice name_or_id,
    struct template_row *ret, struct err *e)
{
    AUTO_QUERY q = query_start(c, SQL_TEMPLATE_GET);
    int rc;
    query_text(&q, team->text);
    query_slice(&q, name_or_id);
    rc = query_step(&q, e);
    if (rc <= 0)
        return rc < 0 ? -1 : not_there(name_or_id, e);
    read_template(&q, ret);
    return 0;
}

int sqlite_template_get(struct store *s, const struct team_id *team, struct slice name_or_id,
    struct template_row *ret, struct err *e)
{
    AUTO_CONN c = sqlite_reader_acquire(sqlite_of(s));
    return get_template(c, team, name_or_id, ret, e);
}

int sqlite_template_list(struct store *s, const struct template_query *want, struct arena *a,
    struct template_rows *ret, struct err *e)
{
    AUTO_CONN c = sqlite_reader_acquire(sqlite_of(s));
    AUTO_QUERY q = query_start(c, SQL_TEMPLATE_LIST);
    struct template_rows l = {.rows = arena_calloc(a, want->limit + 1, sizeof *l.rows)};
    int rc = 0;
    if (!l.rows)
        return err_set(e, ERR_NOMEM, "out of memory");
    query_text(&q, want->team.text);
    query_int_or_null(&q, want->before_created_ms);
    query_text(&q, want->before_id.text);
    query_int(&q, (int64_t)want->limit);
    while (l.n < want->limit && (rc = query_step(&q, e)) == 1)
        read_template(&q, &l.rows[l.n++]);
    if (rc < 0)
        return -1;
    *ret = l;
    return 0;
}

static int insert_generation(struct sqlite_conn *c, const struct template_row *r, struct err *e)
{
    AUTO_QUERY q = query_start(c, SQL_GENERATION_INSERT);
    query_text(&q, r->generation);
    query_text(&q, r->team.text);
    query_text(&q, r->host.text);
    query_int(&q, r->size_bytes);
    query_int(&q, r->created_at_ms);
    return query_run(&q, NULL, e);
}

/* The order is TEMPLATE_COLUMNS of sqlite_sql.c. */
static int insert_template(struct sqlite_conn *c, const struct template_row *r, struct err *e)
{
    AUTO_QUERY q = query_start(c, SQL_TEMPLATE_INSERT);
    query_text(&q, r->id.text);
    query_text(&q, r->team.text);
    query_text(&q, r->host.text);
    query_text(&q, r->name);
    query_text(&q, r->generation[0] ? r->generation : NULL);
    query_int(&q, r->vcpus);
    query_int(&q, r->memory_mb);
    query_int(&q, r->size_bytes);
    query_text(&q, r->default_user);
    query_int(&q, r->created_at_ms);
    return query_run(&q, NULL, e);
}

static int insert_removal(
    struct sqlite_conn *c, const struct snapshot_removal *removal, struct err *e)
{
    AUTO_QUERY q = query_start(c, SQL_REMOVAL_INSERT);
    query_text(&q, removal->id.text);
    query_text(&q, removal->host.text);
    query_int(&q, removal->not_before_ms);
    return query_run(&q, NULL, e);
}

/* Runs a statement on one id; how many rows it changed. */
static int run_on_id(
    struct sqlite_conn *c, enum sql id, const char *value, int64_t *ret_changes, struct err *e)
{
    AUTO_QUERY q = query_start(c, id);
    query_text(&q, value);
    return query_run(&q, ret_changes, e);
}

/* Takes a template away; its bytes are to be removed from now on. */
static int drop_template(struct sqlite_conn *c, const struct template_row *row, struct err *e)
{
    const struct snapshot_removal removal = {.id = row->id, .host = row->host};
    if (run_on_id(c, SQL_TEMPLATE_DELETE, row->id.text, NULL, e) < 0)
        return -1;
    if (row->generation[0] && run_on_id(c, SQL_GENERATION_DELETE, row->generation, NULL, e) < 0)
        return -1;
    return insert_removal(c, &removal, e);
}

int sqlite_snapshot_begin(struct store *s, const struct snapshot_removal *removal, struct err *e)
{
    AUTO_CONN c = sqlite_writer_acquire(sqlite_of(s));
    return insert_removal(c, removal, e);
}

static int commit_in_tx(
    struct sqlite_conn *c, const struct template_row *row, bool overwrite, struct err *e)
{
    struct template_row old;
    int64_t changes;
    if (run_on_id(c, SQL_REMOVAL_DELETE, row->id.text, &changes, e) < 0)
        return -1;
    if (changes == 0)
        return err_set(e, ERR_CONFLICT, "the snapshot took too long and was given up");
    if (get_template(c, &row->team, slice_cstr(row->name), &old, e) == 0) {
        if (!overwrite)
            return err_set(e, ERR_EXISTS, "there is a template %s already", row->name);
        if (drop_template(c, &old, e) < 0)
            return -1;
    } else if (e->kind != ERR_NOT_FOUND) {
        return -1;
    }
    if (row->generation[0] && insert_generation(c, row, e) < 0)
        return -1;
    return insert_template(c, row, e);
}

int sqlite_snapshot_commit(
    struct store *s, const struct template_row *row, bool overwrite, struct err *e)
{
    AUTO_CONN c = sqlite_writer_acquire(sqlite_of(s));
    if (sqlite_begin(c, e) < 0 || sqlite_end(c, commit_in_tx(c, row, overwrite, e), e) < 0)
        return -1;
    *e = (struct err){0}; /* "there is no template of that name" was no failure */
    return 0;
}

int sqlite_snapshot_delete(
    struct store *s, const struct team_id *team, struct slice name_or_id, struct err *e)
{
    AUTO_CONN c = sqlite_writer_acquire(sqlite_of(s));
    struct template_row row;
    int rc;
    if (sqlite_begin(c, e) < 0)
        return -1;
    rc = get_template(c, team, name_or_id, &row, e);
    if (rc == 0)
        rc = drop_template(c, &row, e);
    return sqlite_end(c, rc, e);
}

/* --- removals --- */

int sqlite_removal_due(struct store *s, const struct host_id *host, int64_t now_ms,
    struct removals_due *ret, struct err *e)
{
    AUTO_CONN c = sqlite_reader_acquire(sqlite_of(s));
    AUTO_QUERY q = query_start(c, SQL_REMOVAL_DUE);
    struct removals_due due = {0};
    int rc = 0;
    query_text(&q, host->text);
    query_int(&q, now_ms);
    while (due.n < REMOVALS_DUE_MAX && (rc = query_step(&q, e)) == 1) {
        query_col_copy(&q, 0, due.ids[due.n].text, sizeof due.ids[0].text);
        due.n++;
    }
    if (rc < 0)
        return -1;
    *ret = due;
    return 0;
}

int sqlite_removal_delay(
    struct store *s, const struct template_id *id, int64_t not_before_ms, struct err *e)
{
    AUTO_CONN c = sqlite_writer_acquire(sqlite_of(s));
    AUTO_QUERY q = query_start(c, SQL_REMOVAL_DELAY);
    query_int(&q, not_before_ms);
    query_text(&q, id->text);
    return query_run(&q, NULL, e);
}

int sqlite_removal_done(struct store *s, const struct template_id *id, struct err *e)
{
    AUTO_CONN c = sqlite_writer_acquire(sqlite_of(s));
    return run_on_id(c, SQL_REMOVAL_DELETE, id->text, NULL, e);
}
