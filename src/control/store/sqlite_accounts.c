/* SPDX-License-Identifier: Apache-2.0 */
/* Teams, API keys and hosts in SQLite. */
#include "control/store/sqlite_int.h"

int sqlite_team_exists_any(struct store *s, bool *ret, struct err *e)
{
    AUTO_CONN c = sqlite_reader_acquire(sqlite_of(s));
    AUTO_QUERY q = query_start(c, SQL_TEAM_ANY);
    int rc = query_step(&q, e);
    if (rc < 0)
        return -1;
    *ret = rc == 1;
    return 0;
}

static int insert_team(struct sqlite_conn *c, const struct team_row *team, struct err *e)
{
    AUTO_QUERY q = query_start(c, SQL_TEAM_INSERT);
    query_text(&q, team->id.text);
    query_text(&q, team->name);
    query_int(&q, team->created_at_ms);
    return query_run(&q, NULL, e);
}

static int insert_key(struct sqlite_conn *c, const struct key_row *key, struct err *e)
{
    AUTO_QUERY q = query_start(c, SQL_KEY_INSERT);
    query_text(&q, key->id.text);
    query_text(&q, key->team.text);
    query_text(&q, key->name);
    query_text(&q, key->hash_hex);
    query_text(&q, key->prefix);
    query_int(&q, key->created_at_ms);
    return query_run(&q, NULL, e);
}

int sqlite_team_create(
    struct store *s, const struct team_row *team, const struct key_row *key, struct err *e)
{
    AUTO_CONN c = sqlite_writer_acquire(sqlite_of(s));
    int rc;
    if (sqlite_begin(c, e) < 0)
        return -1;
    rc = insert_team(c, team, e);
    if (rc == 0)
        rc = insert_key(c, key, e);
    return sqlite_end(c, rc, e);
}

int sqlite_key_create(struct store *s, const struct key_row *key, struct err *e)
{
    AUTO_CONN c = sqlite_writer_acquire(sqlite_of(s));
    return insert_key(c, key, e);
}

int sqlite_key_find(struct store *s, const char *hash_hex, struct key_owner *ret, struct err *e)
{
    AUTO_CONN c = sqlite_reader_acquire(sqlite_of(s));
    AUTO_QUERY q = query_start(c, SQL_KEY_FIND);
    int rc;
    query_text(&q, hash_hex);
    rc = query_step(&q, e);
    if (rc < 0)
        return -1;
    if (rc == 0)
        return err_set(e, ERR_NOT_FOUND, "no such key");
    query_col_copy(&q, 0, ret->key.text, sizeof ret->key.text);
    query_col_copy(&q, 1, ret->team.text, sizeof ret->team.text);
    return 0;
}

int sqlite_key_delete(
    struct store *s, const struct team_id *team, const struct key_id *id, struct err *e)
{
    AUTO_CONN c = sqlite_writer_acquire(sqlite_of(s));
    AUTO_QUERY q = query_start(c, SQL_KEY_DELETE);
    int64_t changes;
    query_text(&q, team->text);
    query_text(&q, id->text);
    if (query_run(&q, &changes, e) < 0)
        return -1;
    return changes > 0 ? 0 : err_set(e, ERR_NOT_FOUND, "no such key");
}

static int see_host(struct sqlite_conn *c, const struct host_row *host, struct err *e)
{
    AUTO_QUERY q = query_start(c, SQL_HOST_SEE);
    query_text(&q, host->id.text);
    query_text(&q, host->cluster_id);
    query_text(&q, host->address);
    query_int(&q, host->last_seen_ms);
    query_int(&q, (int64_t)host->agent_epoch);
    return query_run(&q, NULL, e);
}

static int get_host(
    struct sqlite_conn *c, const struct host_id *id, struct host_row *ret, struct err *e)
{
    AUTO_QUERY q = query_start(c, SQL_HOST_GET);
    int rc;
    query_text(&q, id->text);
    rc = query_step(&q, e);
    if (rc <= 0)
        return rc < 0 ? -1 : err_set(e, ERR_NOT_FOUND, "no such host");
    *ret = (struct host_row){.id = *id};
    query_col_copy(&q, 0, ret->cluster_id, sizeof ret->cluster_id);
    ret->last_seen_ms = query_col_int(&q, 1);
    ret->agent_epoch = (uint64_t)query_col_int(&q, 2);
    return 0;
}

int sqlite_host_see(
    struct store *s, const struct host_row *host, struct host_row *ret_known, struct err *e)
{
    AUTO_CONN c = sqlite_writer_acquire(sqlite_of(s));
    struct host_row known;
    int rc;
    if (sqlite_begin(c, e) < 0)
        return -1;
    rc = see_host(c, host, e);
    if (rc == 0)
        rc = get_host(c, &host->id, &known, e);
    if (sqlite_end(c, rc, e) < 0)
        return -1;
    *ret_known = known;
    return 0;
}
