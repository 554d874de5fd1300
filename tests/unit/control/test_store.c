/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Store conformance: what every implementation of struct store_ops must do. Only open_store() and
 * reopen_store() know which database is below.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/arena.h"
#include "control/store/store.h"
#include "tmpdir.h"

struct fixture {
    struct tmpdir dir;
    struct store *store;
    struct arena arena;
    struct team_id team;
    struct team_id other_team;
    struct host_id host;
    struct template_id template;
};

static void open_store(struct fixture *f)
{
    char path[TMPDIR_PATH_MAX + 32];
    struct err e = {0};
    if (sqlite_store_open(tmpdir_file(&f->dir, "db.sqlite", path), &f->store, &e) < 0)
        fail_msg("%s", e.msg);
}

static void reopen_store(struct fixture *f)
{
    f->store = store_close(f->store);
    open_store(f);
}

static struct key_row make_key(const struct team_id *team, char fill)
{
    struct key_row key = {.team = *team, .name = "k", .prefix = "tpr_x", .created_at_ms = 1};
    key_id_new(&key.id);
    memset(key.hash_hex, fill, KEY_HASH_HEX);
    return key;
}

static void make_team(struct fixture *f, struct team_id *ret, char fill)
{
    struct err e = {0};
    struct team_row team = {.name = "t", .created_at_ms = 1};
    struct key_row key;
    team_id_new(&team.id);
    key = make_key(&team.id, fill);
    assert_int_equal(f->store->ops->team_create(f->store, &team, &key, &e), 0);
    *ret = team.id;
}

static void make_host(struct fixture *f)
{
    struct err e = {0};
    struct host_row host = {.cluster_id = "c1", .address = "local", .last_seen_ms = 1};
    struct host_row known;
    host_id_new(&host.id);
    assert_int_equal(f->store->ops->host_see(f->store, &host, &known, &e), 0);
    f->host = host.id;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err e = {0};
    tmpdir_make(&f->dir);
    arena_init(&f->arena, 64 << 20);
    open_store(f);
    make_team(f, &f->team, 'a');
    make_team(f, &f->other_team, 'b');
    make_host(f);
    assert_int_equal(
        f->store->ops->template_base(f->store, SLICE_LIT("minimal"), 1, &f->template, &e), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    store_close(f->store);
    arena_done(&f->arena);
    tmpdir_remove(&f->dir);
    free(f);
    return 0;
}

static struct sandbox_row make_row(const struct fixture *f, int64_t created_ms)
{
    struct sandbox_row row = {
        .team = f->team,
        .host = f->host,
        .status = SANDBOX_PENDING,
        .status_since_ms = created_ms,
        .template = "minimal",
        .template_id = f->template,
        .vcpus = 1,
        .memory_mb = 512,
        .timeout_sec = 7,
        .metadata = SLICE_LIT("{\"app\":\"x\",\"a\\\"b\":\"1\"}"),
        .created_at_ms = created_ms,
        .last_updated_ms = created_ms,
    };
    sandbox_id_new(&row.id);
    return row;
}

static struct sandbox_row add_row(struct fixture *f, int64_t created_ms)
{
    struct err e = {0};
    struct sandbox_row row = make_row(f, created_ms);
    assert_int_equal(f->store->ops->sandbox_create(f->store, &row, "req-1", &e), 0);
    return row;
}

static void set_status(struct fixture *f, const struct sandbox_row *row, enum sandbox_status status,
    enum sandbox_reason reason, int64_t at_ms)
{
    struct err e = {0};
    struct sandbox_change ch = {.status = status, .reason = reason, .at_ms = at_ms};
    assert_int_equal(f->store->ops->sandbox_change(f->store, &row->id, &ch, &e), 0);
}

static struct sandbox_row get_row(struct fixture *f, const struct sandbox_id *id)
{
    struct err e = {0};
    struct sandbox_row row;
    if (f->store->ops->sandbox_get(f->store, NULL, id, &f->arena, &row, &e) < 0)
        fail_msg("%s", e.msg);
    return row;
}

static struct sandbox_query query_all(const struct fixture *f)
{
    struct sandbox_query q = {.team = f->team, .limit = 100};
    for (int i = 0; i < SANDBOX_STATUS_COUNT; i++)
        q.statuses[i] = true;
    return q;
}

static struct sandbox_list list(struct fixture *f, const struct sandbox_query *q)
{
    struct err e = {0};
    struct sandbox_list l;
    if (f->store->ops->sandbox_list(f->store, q, &f->arena, &l, &e) < 0)
        fail_msg("%s", e.msg);
    return l;
}

/* --- teams and keys --- */

static void keys_are_found_by_hash_until_deleted(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct key_row key = make_key(&f->team, 'c');
    struct key_owner owner;
    assert_int_equal(f->store->ops->key_create(f->store, &key, &e), 0);
    assert_int_equal(f->store->ops->key_find(f->store, key.hash_hex, &owner, &e), 0);
    assert_string_equal(owner.team.text, f->team.text);
    assert_string_equal(owner.key.text, key.id.text);
    assert_int_equal(f->store->ops->key_delete(f->store, &f->other_team, &key.id, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_int_equal(f->store->ops->key_delete(f->store, &f->team, &key.id, &e), 0);
    assert_int_equal(f->store->ops->key_find(f->store, key.hash_hex, &owner, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
}

static void a_team_that_fails_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct team_row team = {.name = "t", .created_at_ms = 1};
    struct key_row key;
    team_id_new(&team.id);
    key = make_key(&team.id, 'a'); /* the hash of the first team's key */
    assert_int_equal(f->store->ops->team_create(f->store, &team, &key, &e), -1);
    assert_int_equal(e.kind, ERR_EXISTS);
    memset(key.hash_hex, 'd', KEY_HASH_HEX);
    /* With the team left behind, this would collide with it. */
    assert_int_equal(f->store->ops->team_create(f->store, &team, &key, &e), 0);
}

static void keys_need_a_team(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct team_id nobody;
    struct key_row key;
    team_id_new(&nobody);
    key = make_key(&nobody, 'e');
    assert_int_equal(f->store->ops->key_create(f->store, &key, &e), -1);
    assert_int_equal(e.kind, ERR_IO);
}

/* --- hosts and templates --- */

static void a_host_keeps_its_cluster(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct host_row host = {.id = f->host, .address = "x", .last_seen_ms = 9, .agent_epoch = 3};
    struct host_row known;
    memcpy(host.cluster_id, "c1", 3);
    assert_int_equal(f->store->ops->host_see(f->store, &host, &known, &e), 0);
    assert_int_equal(known.last_seen_ms, 9);
    assert_int_equal(known.agent_epoch, 3);
    memcpy(host.cluster_id, "c2", 3);
    host.last_seen_ms = 10;
    assert_int_equal(f->store->ops->host_see(f->store, &host, &known, &e), 0);
    assert_string_equal(known.cluster_id, "c1");
    assert_int_equal(known.last_seen_ms, 9);
}

static void base_templates_have_one_id(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct template_id again, base;
    assert_int_equal(
        f->store->ops->template_base(f->store, SLICE_LIT("minimal"), 2, &again, &e), 0);
    assert_string_equal(again.text, f->template.text);
    assert_int_equal(f->store->ops->template_base(f->store, SLICE_LIT("base"), 2, &base, &e), 0);
    assert_string_not_equal(base.text, f->template.text);
    assert_true(template_id_parse(slice_cstr(base.text), &again));
}

/* --- sandboxes --- */

static void a_row_comes_back_as_it_went_in(void **state)
{
    struct fixture *f = *state;
    struct sandbox_row in = add_row(f, 1000);
    struct sandbox_row out = get_row(f, &in.id);
    assert_string_equal(out.id.text, in.id.text);
    assert_string_equal(out.team.text, f->team.text);
    assert_string_equal(out.host.text, f->host.text);
    assert_int_equal(out.status, SANDBOX_PENDING);
    assert_int_equal(out.reason, REASON_NONE);
    assert_int_equal(out.revision, 0);
    assert_string_equal(out.template, "minimal");
    assert_string_equal(out.template_id.text, f->template.text);
    assert_int_equal(out.vcpus, 1);
    assert_int_equal(out.memory_mb, 512);
    assert_int_equal(out.timeout_sec, 7);
    assert_true(slice_eq(out.metadata, in.metadata));
    assert_int_equal(out.created_at_ms, 1000);
    assert_int_equal(out.started_at_ms, 0);
    assert_int_equal(out.last_active_at_ms, 0);
    assert_int_equal(out.last_updated_ms, 1000);
}

static void an_id_is_taken_once(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct sandbox_row row = add_row(f, 1);
    assert_int_equal(f->store->ops->sandbox_create(f->store, &row, NULL, &e), -1);
    assert_int_equal(e.kind, ERR_EXISTS);
}

static void another_teams_row_is_not_there(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct sandbox_row row = add_row(f, 1);
    struct sandbox_row out;
    struct sandbox_query q = query_all(f);
    assert_int_equal(
        f->store->ops->sandbox_get(f->store, &f->other_team, &row.id, &f->arena, &out, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_int_equal(
        f->store->ops->sandbox_get(f->store, &f->team, &row.id, &f->arena, &out, &e), 0);
    q.team = f->other_team;
    assert_int_equal(list(f, &q).n, 0);
}

static void a_change_writes_row_and_event(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct sandbox_row row = add_row(f, 1000);
    struct event_list events;
    struct sandbox_change ch = {
        .status = SANDBOX_RUNNING,
        .message = "m",
        .revision = 3,
        .at_ms = 2000,
        .started_at_ms = 1900,
        .last_active_at_ms = 1950,
        .vcpus = 2,
        .host_ip = "10.11.0.1",
        .request_id = "req-2",
    };
    assert_int_equal(f->store->ops->sandbox_change(f->store, &row.id, &ch, &e), 0);
    row = get_row(f, &row.id);
    assert_int_equal(row.status, SANDBOX_RUNNING);
    assert_int_equal(row.revision, 3);
    assert_int_equal(row.status_since_ms, 2000);
    assert_int_equal(row.started_at_ms, 1900);
    assert_int_equal(row.last_active_at_ms, 1950);
    assert_int_equal(row.vcpus, 2);
    assert_int_equal(row.memory_mb, 512); /* was not told */
    assert_string_equal(row.host_ip, "10.11.0.1");
    assert_string_equal(row.message, "m");
    assert_int_equal(f->store->ops->event_list(f->store, &row.id, &f->arena, &events, &e), 0);
    assert_int_equal(events.n, 2);
    assert_string_equal(events.rows[0].from, "");
    assert_string_equal(events.rows[0].to, "pending");
    assert_string_equal(events.rows[0].request_id, "req-1");
    assert_string_equal(events.rows[1].from, "pending");
    assert_string_equal(events.rows[1].to, "running");
    assert_string_equal(events.rows[1].request_id, "req-2");
    assert_int_equal(events.rows[1].at_ms, 2000);
    assert_int_equal(events.rows[1].seq, 2);
}

static void the_newer_revision_wins(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct event_list events;
    struct sandbox_row row = add_row(f, 1);
    struct sandbox_change newer = {.status = SANDBOX_STOPPED, .revision = 5, .at_ms = 2};
    struct sandbox_change late = {.status = SANDBOX_RUNNING, .revision = 4, .at_ms = 3};
    assert_int_equal(f->store->ops->sandbox_change(f->store, &row.id, &newer, &e), 0);
    assert_int_equal(f->store->ops->sandbox_change(f->store, &row.id, &late, &e), -1);
    assert_int_equal(e.kind, ERR_CONFLICT);
    row = get_row(f, &row.id);
    assert_int_equal(row.status, SANDBOX_STOPPED);
    assert_int_equal(row.revision, 5);
    set_status(f, &row, SANDBOX_STOPPED, REASON_DESTROYED, 4); /* our own: keeps the revision */
    row = get_row(f, &row.id);
    assert_int_equal(row.reason, REASON_DESTROYED);
    assert_int_equal(row.revision, 5);
    assert_int_equal(f->store->ops->event_list(f->store, &row.id, &f->arena, &events, &e), 0);
    assert_int_equal(events.n, 3); /* the refused change left none */
}

static void a_change_of_nothing_writes_no_event(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct event_list events;
    struct sandbox_row row = add_row(f, 1);
    set_status(f, &row, SANDBOX_PENDING, REASON_NONE, 2);
    assert_int_equal(f->store->ops->event_list(f->store, &row.id, &f->arena, &events, &e), 0);
    assert_int_equal(events.n, 1);
}

static void changes_of_nobody_are_refused(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct sandbox_id nobody;
    struct sandbox_change ch = {.status = SANDBOX_STOPPED, .at_ms = 1};
    struct sandbox_patch patch = {.at_ms = 1};
    sandbox_id_new(&nobody);
    assert_int_equal(f->store->ops->sandbox_change(f->store, &nobody, &ch, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_int_equal(f->store->ops->sandbox_patch(f->store, &nobody, &patch, &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
}

static void a_patch_changes_what_it_names(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct sandbox_row row = add_row(f, 1);
    struct sandbox_patch p = {.has_timeout_sec = true, .timeout_sec = 0, .at_ms = 50};
    assert_int_equal(f->store->ops->sandbox_patch(f->store, &row.id, &p, &e), 0);
    row = get_row(f, &row.id);
    assert_int_equal(row.timeout_sec, 0);
    assert_int_equal(row.last_updated_ms, 50);
    assert_true(slice_is(row.metadata, "{\"app\":\"x\",\"a\\\"b\":\"1\"}"));
    p = (struct sandbox_patch){.metadata = SLICE_LIT("{}"), .at_ms = 60};
    assert_int_equal(f->store->ops->sandbox_patch(f->store, &row.id, &p, &e), 0);
    row = get_row(f, &row.id);
    assert_true(slice_is(row.metadata, "{}"));
    assert_int_equal(row.timeout_sec, 0);
}

static void lists_are_newest_first_and_page(void **state)
{
    struct fixture *f = *state;
    struct sandbox_query q = query_all(f);
    struct sandbox_list l;
    struct sandbox_id seen[7];
    size_t n = 0;
    for (int i = 0; i < 7; i++)
        (void)add_row(f, 100 + i / 2); /* pairs of the same time */
    q.limit = 3;
    do {
        l = list(f, &q);
        assert_true(l.n > 0 && n + l.n <= 7);
        for (size_t i = 0; i < l.n; i++) {
            if (i > 0)
                assert_true(l.rows[i - 1].created_at_ms >= l.rows[i].created_at_ms);
            for (size_t j = 0; j < n; j++)
                assert_string_not_equal(seen[j].text, l.rows[i].id.text);
            seen[n++] = l.rows[i].id;
        }
        q.before_created_ms = l.rows[l.n - 1].created_at_ms;
        q.before_id = l.rows[l.n - 1].id;
    } while (l.more);
    assert_int_equal(n, 7);
}

static void lists_filter(void **state)
{
    struct fixture *f = *state;
    struct sandbox_query q = query_all(f);
    struct sandbox_row a = add_row(f, 1);
    struct sandbox_row b = add_row(f, 2);
    set_status(f, &b, SANDBOX_STOPPED, REASON_DESTROYED, 3);
    q.statuses[SANDBOX_STOPPED] = false;
    assert_int_equal(list(f, &q).n, 1);
    assert_string_equal(list(f, &q).rows[0].id.text, a.id.text);
    q = query_all(f);
    q.template = SLICE_LIT("base");
    assert_int_equal(list(f, &q).n, 0);
    q.template = slice_cstr(f->template.text);
    assert_int_equal(list(f, &q).n, 2);
    q = query_all(f);
    q.metadata = SLICE_LIT("{\"app\":\"x\"}");
    assert_int_equal(list(f, &q).n, 2);
    q.metadata = SLICE_LIT("{\"app\":\"x\",\"a\\\"b\":\"1\"}");
    assert_int_equal(list(f, &q).n, 2);
    q.metadata = SLICE_LIT("{\"app\":\"x\",\"none\":\"1\"}");
    assert_int_equal(list(f, &q).n, 0);
    q.metadata = SLICE_LIT("{\"app\":\"y\"}");
    assert_int_equal(list(f, &q).n, 0);
}

static void live_rows_are_of_one_host(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct sandbox_list l;
    struct host_id other;
    struct sandbox_row a = add_row(f, 1);
    struct sandbox_row b = add_row(f, 2);
    set_status(f, &b, SANDBOX_ERROR, REASON_CREATE_FAILED, 3);
    assert_int_equal(f->store->ops->sandbox_list_live(f->store, &f->host, &f->arena, &l, &e), 0);
    assert_int_equal(l.n, 1);
    assert_string_equal(l.rows[0].id.text, a.id.text);
    assert_int_equal(l.rows[0].created_at_ms, a.created_at_ms);
    assert_int_equal(l.rows[0].metadata.n, 2); /* without its metadata */
    host_id_new(&other);
    assert_int_equal(f->store->ops->sandbox_list_live(f->store, &other, &f->arena, &l, &e), 0);
    assert_int_equal(l.n, 0);
}

static void rows_are_counted_by_status(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    uint64_t counts[SANDBOX_STATUS_COUNT];
    struct sandbox_row b;
    (void)add_row(f, 1);
    (void)add_row(f, 2);
    b = add_row(f, 3);
    set_status(f, &b, SANDBOX_ERROR, REASON_CREATE_FAILED, 4);
    assert_int_equal(f->store->ops->sandbox_count(f->store, counts, &e), 0);
    assert_int_equal(counts[b.status], 2);
    assert_int_equal(counts[SANDBOX_ERROR], 1);
    assert_int_equal(counts[SANDBOX_PAUSED], 0);
}

static void touches_only_move_forward(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct sandbox_row row = add_row(f, 1);
    struct touch t[2] = {{.at_ms = 500}, {"sbnobodynobodynobodynn", 1}};
    memcpy(t[0].id, row.id.text, sizeof t[0].id);
    assert_int_equal(f->store->ops->touch(f->store, t, 2, &e), 0);
    t[0].at_ms = 400;
    assert_int_equal(f->store->ops->touch(f->store, t, 1, &e), 0);
    assert_int_equal(get_row(f, &row.id).last_active_at_ms, 500);
}

static void a_purge_takes_only_old_ones_that_are_over(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    size_t removed = 0;
    struct sandbox_row old = add_row(f, 1), young = add_row(f, 1), exited = add_row(f, 1);
    struct sandbox_row running = add_row(f, 1), out;
    set_status(f, &old, SANDBOX_STOPPED, REASON_DESTROYED, 10);
    set_status(f, &young, SANDBOX_STOPPED, REASON_DESTROYED, 100);
    set_status(f, &exited, SANDBOX_STOPPED, REASON_VM_EXITED, 10);
    set_status(f, &running, SANDBOX_RUNNING, REASON_NONE, 10);
    assert_int_equal(f->store->ops->sandbox_purge(f->store, 50, &removed, &e), 0);
    assert_int_equal(removed, 1);
    assert_int_equal(f->store->ops->sandbox_get(f->store, NULL, &old.id, &f->arena, &out, &e), -1);
    (void)get_row(f, &young.id);
    (void)get_row(f, &exited.id);
    (void)get_row(f, &running.id);
}

static void everything_survives_a_restart(void **state)
{
    struct fixture *f = *state;
    struct err e = {0};
    struct sandbox_row row = add_row(f, 1);
    struct key_owner owner;
    bool any = false;
    char hash[KEY_HASH_HEX + 1] = {0};
    set_status(f, &row, SANDBOX_RUNNING, REASON_NONE, 2);
    reopen_store(f);
    assert_int_equal(get_row(f, &row.id).status, SANDBOX_RUNNING);
    memset(hash, 'a', KEY_HASH_HEX);
    assert_int_equal(f->store->ops->key_find(f->store, hash, &owner, &e), 0);
    assert_int_equal(f->store->ops->team_exists_any(f->store, &any, &e), 0);
    assert_true(any);
    assert_int_equal(f->store->ops->check(f->store, &e), 0);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(keys_are_found_by_hash_until_deleted),
        T(a_team_that_fails_leaves_nothing),
        T(keys_need_a_team),
        T(a_host_keeps_its_cluster),
        T(base_templates_have_one_id),
        T(a_row_comes_back_as_it_went_in),
        T(an_id_is_taken_once),
        T(another_teams_row_is_not_there),
        T(a_change_writes_row_and_event),
        T(the_newer_revision_wins),
        T(a_change_of_nothing_writes_no_event),
        T(changes_of_nobody_are_refused),
        T(a_patch_changes_what_it_names),
        T(lists_are_newest_first_and_page),
        T(lists_filter),
        T(live_rows_are_of_one_host),
        T(rows_are_counted_by_status),
        T(touches_only_move_forward),
        T(a_purge_takes_only_old_ones_that_are_over),
        T(everything_survives_a_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
