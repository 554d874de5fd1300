/* SPDX-License-Identifier: Apache-2.0 */
/* The reconciler at work: what the host says becomes what the API shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sqlite3.h>
#include <stdint.h>

#include <cmocka.h>

#include "api_fixture.h"
#include "base/cleanup.h"
#include "base/io.h"

/* With polls for changes only, but for the first. */
static int setup_changes_only(void **state)
{
    int rc;
    fixture_full_every_ms = 3600000;
    rc = fixture_setup(state);
    fixture_full_every_ms = 1;
    return rc;
}

static void assert_state(struct fixture *f, const char *id, const char *status, const char *reason)
{
    AUTO_ANSWER a;
    get(f, at(id, ""), &a);
    assert_string_equal(member(&a, "status"), status);
    assert_string_equal(member(&a, "state_reason"), reason);
}

static void a_vm_that_exits_is_shown(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    fake_set(&f->agent, id, "stopped", "vm_exited");
    fake_wait_polled(&f->agent);
    assert_state(f, id, "stopped", "vm_exited");
}

static void lost_and_found(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    fake_forget(&f->agent, id);
    fake_wait_polled(&f->agent);
    assert_state(f, id, "stopped", "lost");
    fake_set(&f->agent, id, "running", ""); /* revision 1 again, which is not newer */
    fake_wait_polled(&f->agent);
    assert_state(f, id, "running", "");
}

static void a_reply_about_changes_loses_nobody(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    char other[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    make_sandbox(f, other);
    fake_wait_polled(&f->agent);
    fake_forget(&f->agent, id);
    fake_set(&f->agent, other, "stopped", "vm_exited");
    fake_wait_polled(&f->agent);
    assert_state(f, other, "stopped", "vm_exited");
    assert_state(f, id, "running", "");
}

static void an_agent_that_starts_anew_is_asked_for_everything(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    fake_wait_polled(&f->agent);
    fake_forget(&f->agent, id);
    {
        MUTEX_GUARD(&f->agent.mutex);
        f->agent.epoch++;
    }
    fake_wait_polled(&f->agent);
    fake_wait_polled(&f->agent); /* the first only shows the new life */
    assert_state(f, id, "stopped", "lost");
}

static void another_host_changes_nothing(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    {
        MUTEX_GUARD(&f->agent.mutex);
        memcpy(f->agent.host_id, "hostabcdefghijklmnopqrst", ID_TEXT_MAX + 1);
    }
    fake_set(&f->agent, id, "stopped", "vm_exited");
    fake_forget(&f->agent, id);
    fake_wait_polled(&f->agent);
    fake_wait_polled(&f->agent);
    assert_state(f, id, "running", "");
    /* A destroy would only hear "not there" from it. */
    AUTO_ANSWER a;
    struct request r = {.method = "DELETE", .target = at(id, "")};
    ask(f, &r, &a);
    assert_error(&a, 503, "agent_unavailable", NULL);
    assert_state(f, id, "running", "");
}

static void another_cluster_changes_nothing(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    {
        MUTEX_GUARD(&f->agent.mutex);
        f->agent.cluster_id = "c2";
        f->agent.epoch++; /* so that it is looked at anew */
    }
    fake_forget(&f->agent, id);
    fake_wait_polled(&f->agent);
    fake_wait_polled(&f->agent);
    assert_state(f, id, "running", "");
}

static void a_sandbox_that_nobody_knows_is_left_alone(void **state)
{
    struct fixture *f = *state;
    const char *id = "sbabcdefghijklmnopqrst";
    fake_set(&f->agent, id, "running", "");
    fake_wait_polled(&f->agent);
    assert_true(fake_has(&f->agent, id));
    assert_int_equal(fake_calls(&f->agent, AGENT_DESTROY), 0);
    AUTO_ANSWER a;
    get(f, at(id, ""), &a);
    assert_error(&a, 404, "not_found", NULL);
}

static void what_is_over_is_removed_from_the_host(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    struct request r = {.method = "DELETE"};
    make_sandbox(f, id);
    r.target = at(id, "");
    ask(f, &r, &a);
    assert_int_equal(a.status, 204);
    fake_set(&f->agent, id, "running", ""); /* it comes back, from a backup say */
    fake_wait_gone(&f->agent, id);
    assert_state(f, id, "stopped", "destroyed");
}

static void a_create_under_way_is_not_judged(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    struct asker maker;
    struct request r = {.method = "POST", .target = "/v1/sandboxes", .body = SLICE_LIT("{}")};
    fake_hold(&f->agent, AGENT_CREATE, true);
    asker_start(&maker, f, &r);
    fake_wait_held(&f->agent, AGENT_CREATE, 1);
    memcpy(id, f->agent.created_id, sizeof id);
    fake_wait_polled(&f->agent); /* the host does not know it yet */
    assert_state(f, id, "pending", "");
    fake_hold(&f->agent, AGENT_CREATE, false);
    asker_join(&maker);
    assert_int_equal(maker.answer.status, 201);
    answer_done(&maker.answer);
    fake_wait_polled(&f->agent);
    assert_state(f, id, "running", "");
}

static void a_late_reply_loses_nothing_that_is_newer(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    int calls;
    /* A question that was asked before the sandbox was made, and answered after. */
    fake_hold(&f->agent, AGENT_LIST, true);
    fake_wait_held(&f->agent, AGENT_LIST, 1);
    calls = fake_calls(&f->agent, AGENT_LIST);
    make_sandbox(f, id);
    fake_forget(&f->agent, id); /* so that the answer does not name it */
    fake_pass_one(&f->agent, AGENT_LIST);
    fake_wait_calls(&f->agent, AGENT_LIST, calls + 1); /* the first answer is dealt with */
    assert_state(f, id, "running", "");
    fake_pass_one(&f->agent, AGENT_LIST);
    fake_wait_calls(&f->agent, AGENT_LIST, calls + 2);
    assert_state(f, id, "stopped", "lost"); /* that question was asked when it was there */
}

/* A row as a control plane leaves it that dies during a create. */
static void add_pending_row(struct fixture *f, const char *id)
{
    char path[TMPDIR_PATH_MAX + 32];
    char other_id[ID_TEXT_MAX + 1];
    struct store *store;
    struct arena arena;
    struct sandbox_row row;
    struct sandbox_id other;
    struct err e = {0};
    make_sandbox(f, other_id); /* a row to take team, host and template from */
    arena_init(&arena, 1 << 20);
    assert_true(sandbox_id_parse(slice_cstr(other_id), &other));
    assert_int_equal(
        sqlite_store_open(tmpdir_file(&f->dir, "var/control.db", path), &store, &e), 0);
    assert_int_equal(store->ops->sandbox_get(store, NULL, &other, &arena, &row, &e), 0);
    assert_true(sandbox_id_parse(slice_cstr(id), &row.id));
    row.status = SANDBOX_PENDING;
    row.revision = 0;
    assert_int_equal(store->ops->sandbox_create(store, &row, NULL, &e), 0);
    (void)store_close(store);
    arena_done(&arena);
}

static void creates_of_a_dead_control_plane_are_settled(void **state)
{
    struct fixture *f = *state;
    const char *made = "sbaaaaaaaaaaaaaaaaaaaa";
    const char *never = "sbbbbbbbbbbbbbbbbbbbbb";
    fake_set(&f->agent, made, "running", "");
    add_pending_row(f, made);
    add_pending_row(f, never);
    fake_wait_polled(&f->agent);
    assert_state(f, made, "running", ""); /* it may have been in use for long: an old copy */
    assert_true(fake_has(&f->agent, made));
    assert_int_equal(fake_calls(&f->agent, AGENT_DESTROY), 0);
    assert_state(f, never, "error", "create_failed");
}

static void what_could_not_be_undone_is_undone_later(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    fake_fail(&f->agent, AGENT_DESTROY, ERR_IO, "");
    fake_fail(&f->agent, AGENT_CREATE, ERR_TIMEOUT, "");
    post(f, "/v1/sandboxes", "{}", &a);
    assert_error(&a, 504, "timeout", NULL);
    memcpy(id, f->agent.created_id, sizeof id);
    assert_state(f, id, "error", "create_failed");
    fake_set(&f->agent, id, "running", ""); /* the host made it all the same */
    fake_wait_polled(&f->agent);
    assert_true(fake_has(&f->agent, id));
    fake_fail(&f->agent, AGENT_DESTROY, ERR_NONE, "");
    fake_wait_gone(&f->agent, id);
    assert_state(f, id, "error", "create_failed");
}

/* Takes the sandbox out of the database, as one that was restored from an older day. */
static void forget_row(struct fixture *f, const char *id)
{
    char path[TMPDIR_PATH_MAX + 32];
    sqlite3 *db;
    AUTO_FREE char *sql = NULL;
    assert_int_not_equal(asprintf(&sql, "DELETE FROM sandboxes WHERE id = '%s'", id), -1);
    assert_int_equal(sqlite3_open(tmpdir_file(&f->dir, "var/control.db", path), &db), SQLITE_OK);
    (void)sqlite3_busy_timeout(db, 10000);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    (void)sqlite3_close(db);
}

/* Puts the sandbox's row back to an older day. */
static void age_row(struct fixture *f, const char *id, const char *status, const char *reason)
{
    char path[TMPDIR_PATH_MAX + 32];
    sqlite3 *db;
    AUTO_FREE char *sql = NULL;
    assert_int_not_equal(asprintf(&sql,
                             "UPDATE sandboxes SET status = '%s', state_reason = '%s', "
                             "revision = 0 WHERE id = '%s'",
                             status, reason, id),
        -1);
    assert_int_equal(sqlite3_open(tmpdir_file(&f->dir, "var/control.db", path), &db), SQLITE_OK);
    (void)sqlite3_busy_timeout(db, 10000);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    (void)sqlite3_close(db);
}

static void an_old_database_catches_up(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *status, *reason;
    } olds[] = {{"pending", ""}, {"running", ""}, {"pausing", ""}, {"paused", "idle"},
        {"resuming", ""}, {"stopped", "vm_exited"}, {"stopped", "lost"},
        {"error", "restore_failed"}};
    char ids[ARRAY_LEN(olds)][ID_TEXT_MAX + 1];
    char young[ID_TEXT_MAX + 1];
    char gone[ID_TEXT_MAX + 1];
    for (size_t i = 0; i < ARRAY_LEN(olds); i++)
        make_sandbox(f, ids[i]);
    make_sandbox(f, young);
    make_sandbox(f, gone);
    fixture_stop_control(f);
    for (size_t i = 0; i < ARRAY_LEN(olds); i++)
        age_row(f, ids[i], olds[i].status, olds[i].reason);
    forget_row(f, young);         /* made after the backup */
    fake_forget(&f->agent, gone); /* destroyed after the backup */
    fixture_start_control(f);
    fake_wait_polled(&f->agent);
    fake_wait_polled(&f->agent);
    for (size_t i = 0; i < ARRAY_LEN(olds); i++) {
        assert_state(f, ids[i], "running", "");
        assert_true(fake_has(&f->agent, ids[i]));
    }
    assert_true(fake_has(&f->agent, young));
    assert_state(f, gone, "stopped", "lost");
    assert_int_equal(fake_calls(&f->agent, AGENT_DESTROY), 0);
    AUTO_ANSWER a;
    get(f, "/metrics", &a);
    assert_non_null(strstr(a.body.p, "\ntorpor_unknown_sandboxes 1\n"));
    assert_non_null(strstr(a.body.p, young));
}

static void a_fresh_data_folder_of_the_agent_changes_nothing(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    char first[ID_TEXT_MAX + 1];
    struct fake_sandbox kept[FAKE_SANDBOXES_MAX];
    make_sandbox(f, id);
    fake_agent_close(&f->agent);
    memcpy(first, f->agent.host_id, sizeof first);
    memcpy(kept, f->agent.boxes, sizeof kept);
    memset(f->agent.boxes, 0, sizeof f->agent.boxes);
    memcpy(f->agent.host_id, "hostabcdefghijklmnopqrst", ID_TEXT_MAX + 1);
    f->agent.host_revision = 1;
    f->agent.epoch++;
    fake_agent_listen(&f->agent);
    fake_wait_polled(&f->agent);
    fake_wait_polled(&f->agent);
    assert_state(f, id, "running", "");
    /* The folder is mounted again. */
    fake_agent_close(&f->agent);
    memcpy(f->agent.host_id, first, sizeof first);
    memcpy(f->agent.boxes, kept, sizeof kept);
    f->agent.epoch++;
    fake_agent_listen(&f->agent);
    fake_wait_polled(&f->agent);
    fake_wait_polled(&f->agent);
    assert_state(f, id, "running", "");
    assert_true(fake_has(&f->agent, id));
    assert_int_equal(fake_calls(&f->agent, AGENT_DESTROY), 0);
}

static void an_agent_in_recovery_loses_nobody(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    {
        MUTEX_GUARD(&f->agent.mutex);
        f->agent.incomplete = true;
        f->agent.epoch++;
    }
    fake_forget(&f->agent, id); /* not found again yet */
    fake_wait_polled(&f->agent);
    fake_wait_polled(&f->agent);
    assert_state(f, id, "running", "");
    {
        MUTEX_GUARD(&f->agent.mutex);
        f->agent.incomplete = false;
    }
    fake_wait_polled(&f->agent);
    assert_state(f, id, "stopped", "lost");
}

static void a_wrong_database_changes_nothing_on_the_host(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    char path[TMPDIR_PATH_MAX + 32];
    struct err e = {0};
    make_sandbox(f, id);
    fake_wait_polled(&f->agent);
    fixture_stop_control(f);
    assert_int_equal(io_remove_tree(AT_FDCWD, tmpdir_file(&f->dir, "var", path), &e), 0);
    fixture_start_control(f);
    fake_wait_polled(&f->agent);
    fake_wait_polled(&f->agent);
    assert_true(fake_has(&f->agent, id));
    assert_int_equal(fake_calls(&f->agent, AGENT_DESTROY), 0);
}

static void a_down_agent_changes_nothing(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    make_sandbox(f, id);
    fake_agent_close(&f->agent);
    get(f, at(id, ""), &a);
    assert_string_equal(member(&a, "status"), "running");
    fake_agent_listen(&f->agent);
    fake_wait_polled(&f->agent);
    assert_state(f, id, "running", "");
    assert_true(fake_has(&f->agent, id));
}

static void lost_replies_lose_nothing(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    int calls;
    make_sandbox(f, id);
    fake_fail(&f->agent, AGENT_LIST, ERR_UNAVAILABLE, "");
    calls = fake_calls(&f->agent, AGENT_LIST);
    fake_set(&f->agent, id, "stopped", "vm_exited");
    fake_wait_calls(&f->agent, AGENT_LIST, calls + 2);
    assert_state(f, id, "running", "");
    fake_fail(&f->agent, AGENT_LIST, ERR_NONE, "");
    fake_wait_polled(&f->agent);
    assert_state(f, id, "stopped", "vm_exited");
}

/* A reply of an earlier moment: lower revisions, and without what was made since. */
static void a_reply_that_was_overtaken_says_nothing(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    char young[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    fake_set(&f->agent, id, "paused", "idle");
    fake_set(&f->agent, id, "running", "");
    make_sandbox(f, young);
    fake_wait_polled(&f->agent);
    {
        MUTEX_GUARD(&f->agent.mutex);
        for (size_t i = 0; i < FAKE_SANDBOXES_MAX; i++)
            if (strcmp(f->agent.boxes[i].id, id) == 0) {
                (void)snprintf(f->agent.boxes[i].status, sizeof f->agent.boxes[i].status, "paused");
                f->agent.boxes[i].revision = 2;
            } else {
                f->agent.boxes[i].id[0] = '\0';
            }
        f->agent.host_revision = 2;
    }
    fake_wait_polled(&f->agent);
    fake_wait_polled(&f->agent);
    assert_state(f, id, "running", "");
    assert_state(f, young, "running", "");
}

static void auto_paused_ones_are_noted_and_acknowledged(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    fake_wait_polled(&f->agent);
    fake_forget(&f->agent, id); /* from the list of those that run */
    {
        MUTEX_GUARD(&f->agent.mutex);
        memcpy(f->agent.auto_paused, id, sizeof id);
    }
    fake_wait_polled(&f->agent);
    fake_wait_polled(&f->agent);
    assert_state(f, id, "paused", "idle");
    MUTEX_GUARD(&f->agent.mutex);
    assert_string_equal(f->agent.auto_paused, "");
    assert_int_equal(f->agent.acked_revision, 1);
}

/* A poll waits at the agent; what happens there is known without waiting for the next one. */
static void polls_wait_at_the_agent(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    int calls;
    make_sandbox(f, id);
    {
        MUTEX_GUARD(&f->agent.mutex);
        f->agent.waits = true;
    }
    fake_wait_polled(&f->agent);
    calls = fake_calls(&f->agent, AGENT_LIST);
    fake_set(&f->agent, id, "stopped", "vm_exited");
    fake_wait_calls(&f->agent, AGENT_LIST, calls + 1);
    assert_state(f, id, "stopped", "vm_exited");
    MUTEX_GUARD(&f->agent.mutex);
    assert_in_range(f->agent.wait_ms, 1, 20);
}

/* The question that waits at the agent is broken off: without that, this would take minutes. */
static void a_stop_does_not_wait_for_the_agent(void **state)
{
    struct fixture *f = *state;
    int poll_ms = fixture_poll_ms;
    int calls;
    fixture_stop_control(f);
    fixture_poll_ms = 600000;
    fixture_full_every_ms = 3600000;
    fixture_start_control(f);
    fixture_full_every_ms = 1;
    fixture_poll_ms = poll_ms;
    {
        MUTEX_GUARD(&f->agent.mutex);
        f->agent.waits = true;
    }
    fake_wait_waiting(&f->agent);
    calls = fake_calls(&f->agent, AGENT_LIST);
    fixture_stop_control(f);
    assert_int_equal(fake_calls(&f->agent, AGENT_LIST), calls);
    fixture_start_control(f);
}

/* Removals that hang delay neither the reconciler nor another removal. */
static void a_destroy_that_hangs_delays_nothing(void **state)
{
    struct fixture *f = *state;
    char ids[3][ID_TEXT_MAX + 1];
    for (int i = 0; i < 3; i++) {
        AUTO_ANSWER a;
        struct request r = {.method = "DELETE"};
        make_sandbox(f, ids[i]);
        if (i == 2)
            continue;
        r.target = at(ids[i], "");
        ask(f, &r, &a);
        assert_int_equal(a.status, 204);
    }
    fake_hold(&f->agent, AGENT_DESTROY, true);
    fake_set(&f->agent, ids[0], "running", "");
    fake_set(&f->agent, ids[1], "running", "");
    fake_wait_held(&f->agent, AGENT_DESTROY, 2);
    fake_set(&f->agent, ids[2], "stopped", "vm_exited");
    fake_wait_polled(&f->agent);
    assert_state(f, ids[2], "stopped", "vm_exited");
    fake_hold(&f->agent, AGENT_DESTROY, false);
    fake_wait_gone(&f->agent, ids[0]);
    fake_wait_gone(&f->agent, ids[1]);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
#define T_CHANGES(fn) cmocka_unit_test_setup_teardown(fn, setup_changes_only, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_vm_that_exits_is_shown),
        T_CHANGES(a_vm_that_exits_is_shown),
        T(lost_and_found),
        T_CHANGES(a_reply_about_changes_loses_nobody),
        T_CHANGES(an_agent_that_starts_anew_is_asked_for_everything),
        T(another_host_changes_nothing),
        T(another_cluster_changes_nothing),
        T(a_sandbox_that_nobody_knows_is_left_alone),
        T(what_is_over_is_removed_from_the_host),
        T_CHANGES(what_is_over_is_removed_from_the_host),
        T(a_create_under_way_is_not_judged),
        T(a_late_reply_loses_nothing_that_is_newer),
        T(creates_of_a_dead_control_plane_are_settled),
        T(what_could_not_be_undone_is_undone_later),
        T_CHANGES(what_could_not_be_undone_is_undone_later),
        T(an_old_database_catches_up),
        T_CHANGES(an_old_database_catches_up),
        T(a_fresh_data_folder_of_the_agent_changes_nothing),
        T(an_agent_in_recovery_loses_nobody),
        T(a_wrong_database_changes_nothing_on_the_host),
        T(a_down_agent_changes_nothing),
        T(lost_replies_lose_nothing),
        T_CHANGES(lost_replies_lose_nothing),
        T(a_reply_that_was_overtaken_says_nothing),
        T(auto_paused_ones_are_noted_and_acknowledged),
        T_CHANGES(auto_paused_ones_are_noted_and_acknowledged),
        T_CHANGES(polls_wait_at_the_agent),
        T(a_stop_does_not_wait_for_the_agent),
        T(a_destroy_that_hangs_delays_nothing),
        T_CHANGES(a_destroy_that_hangs_delays_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
