/* SPDX-License-Identifier: Apache-2.0 */
/* Store conformance: snapshots, and what is to be removed of them at every step. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/cleanup.h"
#include "control/store/store.h"
#include "tmpdir.h"

#define GENERATION "0f8fad5b-d9cb-469f-a165-70867728950e"

struct fixture {
    struct tmpdir dir;
    struct store *store;
    struct arena arena;
    struct team_id team, other_team;
    struct host_id host;
};

static void open_store(struct fixture *f)
{
    char path[TMPDIR_PATH_MAX + 32];
    struct err e = {0};
    if (sqlite_store_open(tmpdir_file(&f->dir, "db.sqlite", path), &f->store, &e) < 0)
        fail_msg("%s", e.msg);
}

static void make_team(struct fixture *f, struct team_id *ret, char fill)
{
    struct err e = {0};
    struct team_row team = {.name = "t", .created_at_ms = 1};
    struct key_row key = {.name = "k", .prefix = "tpr_x", .created_at_ms = 1};
    team_id_new(&team.id);
    key.team = team.id;
    key_id_new(&key.id);
    memset(key.hash_hex, fill, KEY_HASH_HEX);
    assert_int_equal(f->store->ops->team_create(f->store, &team, &key, &e), 0);
    *ret = team.id;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct host_row host = {.cluster_id = "c1", .address = "local", .last_seen_ms = 1};
    struct host_row known;
    struct err e = {0};
    tmpdir_make(&f->dir);
    arena_init(&f->arena, 16 << 20);
    open_store(f);
    make_team(f, &f->team, 'a');
    make_team(f, &f->other_team, 'b');
    host_id_new(&host.id);
    assert_int_equal(f->store->ops->host_see(f->store, &host, &known, &e), 0);
    f->host = host.id;
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

static struct template_row make_row(const struct fixture *f, const char *name, int64_t created_ms)
{
    struct template_row row = {
        .team = f->team,
        .host = f->host,
        .generation = GENERATION,
        .vcpus = 2,
        .memory_mb = 1024,
        .size_bytes = 5,
        .default_user = "user",
        .created_at_ms = created_ms,
    };
    template_id_new(&row.id);
    (void)snprintf(row.name, sizeof row.name, "%s", name);
    return row;
}

static void begin(struct fixture *f, const struct template_row *row, int64_t not_before)
{
    struct err e = {0};
    const struct snapshot_removal removal = {row->id, row->host, not_before};
    if (f->store->ops->snapshot_begin(f->store, &removal, &e) < 0)
        fail_msg("%s", e.msg);
}

static struct template_row add(struct fixture *f, const char *name, int64_t created_ms)
{
    struct template_row row = make_row(f, name, created_ms);
    struct err e = {0};
    begin(f, &row, 1000);
    if (f->store->ops->snapshot_commit(f->store, &row, /* overwrite= */ false, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(e.kind, ERR_NONE);
    return row;
}

static size_t due(struct fixture *f, int64_t now, struct removals_due *ret)
{
    struct err e = {0};
    if (f->store->ops->removal_due(f->store, &f->host, now, ret, &e) < 0)
        fail_msg("%s", e.msg);
    return ret->n;
}

static int find(struct fixture *f, const char *name, struct template_row *ret)
{
    struct err e = {0};
    int rc = f->store->ops->template_get(f->store, &f->team, slice_cstr(name), ret, &e);
    if (rc < 0)
        assert_int_equal(e.kind, ERR_NOT_FOUND);
    return rc;
}

static void a_row_comes_back_as_it_went_in(void **state)
{
    struct fixture *f = *state;
    struct template_row row = add(f, "n", 7);
    struct template_row out;
    struct removals_due none;
    f->store = store_close(f->store);
    open_store(f);
    assert_int_equal(find(f, "n", &out), 0);
    assert_string_equal(out.id.text, row.id.text);
    assert_string_equal(out.team.text, f->team.text);
    assert_string_equal(out.host.text, f->host.text);
    assert_string_equal(out.generation, GENERATION);
    assert_int_equal(out.vcpus, 2);
    assert_int_equal(out.memory_mb, 1024);
    assert_int_equal(out.size_bytes, 5);
    assert_string_equal(out.default_user, "user");
    assert_int_equal(out.created_at_ms, 7);
    assert_int_equal(find(f, row.id.text, &out), 0);
    assert_int_equal(due(f, INT64_MAX, &none), 0);
}

static void one_that_is_not_committed_is_due_in_the_end(void **state)
{
    struct fixture *f = *state;
    struct template_row row = make_row(f, "n", 1);
    struct template_row out;
    struct removals_due list;
    struct err e = {0};
    begin(f, &row, 1000);
    assert_int_equal(find(f, "n", &out), -1);
    assert_int_equal(due(f, 999, &list), 0); /* it may still be in the making */
    assert_int_equal(due(f, 1000, &list), 1);
    assert_string_equal(list.ids[0].text, row.id.text);
    assert_int_equal(f->store->ops->removal_delay(f->store, &row.id, 2000, &e), 0);
    assert_int_equal(due(f, 1999, &list), 0);
    assert_int_equal(f->store->ops->removal_done(f->store, &row.id, &e), 0);
    assert_int_equal(due(f, INT64_MAX, &list), 0);
    /* Given up: what comes late makes no template without bytes. */
    assert_int_equal(f->store->ops->snapshot_commit(f->store, &row, false, &e), -1);
    assert_int_equal(e.kind, ERR_CONFLICT);
    assert_int_equal(find(f, "n", &out), -1);
}

static void a_taken_name_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct template_row row = add(f, "n", 1);
    struct template_row other = make_row(f, "n", 2);
    struct template_row out;
    struct removals_due list;
    struct err e = {0};
    begin(f, &other, 0);
    assert_int_equal(f->store->ops->snapshot_commit(f->store, &other, false, &e), -1);
    assert_int_equal(e.kind, ERR_EXISTS);
    assert_int_equal(find(f, "n", &out), 0);
    assert_string_equal(out.id.text, row.id.text);
    assert_int_equal(due(f, 0, &list), 1); /* the late one is still to be removed */
    assert_string_equal(list.ids[0].text, other.id.text);
}

static void an_overwrite_swaps_both_in_one(void **state)
{
    struct fixture *f = *state;
    struct template_row old = add(f, "n", 1);
    struct template_row row = make_row(f, "n", 2); /* of the same generation */
    struct template_row out;
    struct removals_due list;
    struct err e = {0};
    begin(f, &row, 1000);
    assert_int_equal(f->store->ops->snapshot_commit(f->store, &row, true, &e), 0);
    assert_int_equal(find(f, "n", &out), 0);
    assert_string_equal(out.id.text, row.id.text);
    assert_string_equal(out.generation, GENERATION);
    assert_int_equal(due(f, 0, &list), 1);
    assert_string_equal(list.ids[0].text, old.id.text);
    assert_int_equal(find(f, old.id.text, &out), -1);
}

static void a_deleted_one_is_due_at_once(void **state)
{
    struct fixture *f = *state;
    struct template_row row = add(f, "n", 1);
    struct template_row twin = add(f, "twin", 1);
    struct template_row out;
    struct removals_due list;
    struct err e = {0};
    assert_int_equal(
        f->store->ops->snapshot_delete(f->store, &f->other_team, SLICE_LIT("n"), &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
    assert_int_equal(f->store->ops->snapshot_delete(f->store, &f->team, SLICE_LIT("n"), &e), 0);
    assert_int_equal(due(f, 0, &list), 1);
    assert_string_equal(list.ids[0].text, row.id.text);
    assert_int_equal(find(f, "twin", &out), 0); /* its generation is still known */
    assert_int_equal(
        f->store->ops->snapshot_delete(f->store, &f->team, slice_cstr(twin.id.text), &e), 0);
    assert_int_equal(due(f, 0, &list), 2);
    assert_int_equal(f->store->ops->snapshot_delete(f->store, &f->team, SLICE_LIT("n"), &e), -1);
    assert_int_equal(e.kind, ERR_NOT_FOUND);
}

static void removals_are_of_one_host(void **state)
{
    struct fixture *f = *state;
    struct template_row row = make_row(f, "n", 1);
    struct removals_due list;
    struct host_id other;
    struct err e = {0};
    begin(f, &row, 0);
    host_id_new(&other);
    assert_int_equal(f->store->ops->removal_due(f->store, &other, 1, &list, &e), 0);
    assert_int_equal(list.n, 0);
}

static void lists_are_the_teams_and_page(void **state)
{
    struct fixture *f = *state;
    struct template_query q = {.team = f->team, .limit = 2};
    struct template_rows l;
    struct err e = {0};
    (void)add(f, "a", 1);
    (void)add(f, "b", 2);
    (void)add(f, "c", 3);
    assert_int_equal(f->store->ops->template_list(f->store, &q, &f->arena, &l, &e), 0);
    assert_int_equal(l.n, 2);
    assert_string_equal(l.rows[0].name, "c");
    assert_string_equal(l.rows[1].name, "b");
    q.before_created_ms = l.rows[1].created_at_ms;
    q.before_id = l.rows[1].id;
    assert_int_equal(f->store->ops->template_list(f->store, &q, &f->arena, &l, &e), 0);
    assert_int_equal(l.n, 1);
    assert_string_equal(l.rows[0].name, "a");
    q.team = f->other_team;
    q.before_created_ms = 0;
    assert_int_equal(f->store->ops->template_list(f->store, &q, &f->arena, &l, &e), 0);
    assert_int_equal(l.n, 0);
}

static void bases_are_known_by_name_and_id(void **state)
{
    struct fixture *f = *state;
    struct template_id id;
    bool is_base = false;
    struct err e = {0};
    assert_int_equal(f->store->ops->template_base(f->store, SLICE_LIT("minimal"), 1, &id, &e), 0);
    assert_int_equal(
        f->store->ops->template_is_base(f->store, SLICE_LIT("minimal"), &is_base, &e), 0);
    assert_true(is_base);
    assert_int_equal(
        f->store->ops->template_is_base(f->store, slice_cstr(id.text), &is_base, &e), 0);
    assert_true(is_base);
    (void)add(f, "n", 1);
    assert_int_equal(f->store->ops->template_is_base(f->store, SLICE_LIT("n"), &is_base, &e), 0);
    assert_false(is_base);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_row_comes_back_as_it_went_in),
        T(one_that_is_not_committed_is_due_in_the_end),
        T(a_taken_name_changes_nothing),
        T(an_overwrite_swaps_both_in_one),
        T(a_deleted_one_is_due_at_once),
        T(removals_are_of_one_host),
        T(lists_are_the_teams_and_page),
        T(bases_are_known_by_name_and_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
