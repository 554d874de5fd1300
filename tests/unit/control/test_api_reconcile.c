/* SPDX-License-Identifier: Apache-2.0 */
/* The reconciler at work: what the host says becomes what the API shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api_fixture.h"
#include "base/cleanup.h"

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
    fake_wait_polled(&f->agent);
    assert_false(fake_has(&f->agent, id));
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

static void creates_of_a_dead_control_plane_end(void **state)
{
    struct fixture *f = *state;
    const char *made = "sbaaaaaaaaaaaaaaaaaaaa";
    const char *never = "sbbbbbbbbbbbbbbbbbbbbb";
    fake_set(&f->agent, made, "running", "");
    add_pending_row(f, made);
    add_pending_row(f, never);
    fake_wait_polled(&f->agent);
    assert_state(f, made, "stopped", "client_gone");
    assert_false(fake_has(&f->agent, made));
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
    fake_wait_polled(&f->agent);
    assert_false(fake_has(&f->agent, id));
    assert_state(f, id, "error", "create_failed");
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
        T(creates_of_a_dead_control_plane_end),
        T(what_could_not_be_undone_is_undone_later),
        T_CHANGES(what_could_not_be_undone_is_undone_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
