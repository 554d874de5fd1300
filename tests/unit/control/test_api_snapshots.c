/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots over the API: made, listed, used, overwritten, deleted; and what the host is left with.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "api_fixture.h"
#include "base/cleanup.h"
#include "base/clock.h"

static void snapshot(
    struct fixture *f, const char *id, const char *query, const char *name, struct answer *ret)
{
    char target[128];
    char body[256];
    (void)snprintf(target, sizeof target, "/v1/snapshots%s", query);
    (void)snprintf(body, sizeof body,
        name ? "{\"sandbox_id\":\"%s\",\"name\":\"%s\"}" : "{\"sandbox_id\":\"%s\"}", id,
        name ? name : "");
    post(f, target, body, ret);
}

/* Makes one and stores its id. */
static void make_snapshot(struct fixture *f, const char *id, const char *name, char ret_id[32])
{
    AUTO_ANSWER a;
    snapshot(f, id, "", name, &a);
    if (a.status != 201)
        fail_msg("snapshot: %d %s", a.status, a.body.p);
    (void)snprintf(ret_id, 32, "%s", member(&a, "snapshot_id"));
}

static int remove_snapshot(struct fixture *f, const char *name)
{
    char target[128];
    struct request r = {.method = "DELETE", .target = target};
    AUTO_ANSWER a;
    (void)snprintf(target, sizeof target, "/v1/snapshots/%s", name);
    ask(f, &r, &a);
    return a.status;
}

static int look(struct fixture *f, const char *name)
{
    char target[128];
    AUTO_ANSWER a;
    (void)snprintf(target, sizeof target, "/v1/snapshots/%s", name);
    get(f, target, &a);
    return a.status;
}

/* Spawns and checks what the host was asked for: "name|id|3|768". */
static void spawn(struct fixture *f, const char *name, const char *want)
{
    char body[128];
    AUTO_ANSWER a;
    (void)snprintf(body, sizeof body, "{\"template\":\"%s\",\"vcpus\":1,\"memory_mb\":512}", name);
    post(f, "/v1/sandboxes", body, &a);
    if (a.status != 201)
        fail_msg("spawn: %d %s", a.status, a.body.p);
    assert_string_equal(f->agent.created_from, want);
    assert_string_equal(member(&a, "vcpus"), "3");
    assert_string_equal(member(&a, "memory_mb"), "768");
}

static void made_listed_and_used(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    char want[128];
    AUTO_ANSWER a;
    AUTO_ANSWER one;
    AUTO_ANSWER list;
    AUTO_ANSWER bases;
    make_sandbox(f, id);
    snapshot(f, id, "", "warm", &a);
    assert_int_equal(a.status, 201);
    assert_string_equal(member(&a, "name"), "warm");
    assert_string_equal(member(&a, "type"), "snapshot");
    assert_string_equal(member(&a, "vcpus"), "3");
    assert_string_equal(member(&a, "memory_mb"), "768");
    assert_string_equal(member(&a, "size_bytes"), "123456");
    assert_string_equal(member(&a, "default_user"), "user");
    assert_string_equal(a.server_timing, "quiesce;dur=1.200, save;dur=34.567");
    get(f, "/v1/snapshots/warm", &one);
    assert_string_equal(member(&one, "snapshot_id"), member(&a, "snapshot_id"));
    get(f, "/v1/snapshots", &list);
    assert_int_equal(list.json->count, 3);
    assert_true(slice_is(json_get(list.json->first, "name")->string, "warm")); /* the newest */
    get(f, "/v1/snapshots?type=base", &bases);
    assert_int_equal(bases.json->count, 2);
    (void)snprintf(want, sizeof want, "warm|%s|3|768", member(&a, "snapshot_id"));
    spawn(f, "warm", want);
    spawn(f, member(&a, "snapshot_id"), want);
}

static void of_a_running_or_a_paused_one(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    char snap[32];
    AUTO_ANSWER paused;
    AUTO_ANSWER stopped;
    AUTO_ANSWER shown;
    make_sandbox(f, id);
    make_snapshot(f, id, "running", snap);
    get(f, at(id, ""), &shown);
    assert_string_equal(member(&shown, "status"), "running");
    post(f, at(id, "/pause"), "", &paused);
    assert_int_equal(paused.status, 200);
    make_snapshot(f, id, "paused", snap); /* of the same generation */
    fake_set(&f->agent, id, "stopped", "vm_exited");
    fake_wait_polled(&f->agent);
    snapshot(f, id, "", "stopped", &stopped);
    assert_error(&stopped, 409, "invalid_state", NULL);
    assert_string_equal(member(&stopped, "error.details.status"), "stopped");
    assert_int_equal(remove_snapshot(f, "running"), 204);
    assert_int_equal(look(f, "paused"), 200);
}

static void a_name_is_made_up(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    make_sandbox(f, id);
    snapshot(f, id, "", NULL, &a);
    assert_int_equal(a.status, 201);
    assert_int_equal(strlen(member(&a, "name")), strlen("template-") + 8);
    assert_memory_equal(member(&a, "name"), "template-", 9);
}

static void what_a_request_may_not_be(void **state)
{
    static const char *const bad[][2] = {
        {"{}", "sandbox_id"},
        {"{\"sandbox_id\":\"x\"}", "sandbox_id"},
        {"{\"sandbox_id\":\"sbabcdefghijklmnopqrst\",\"name\":\"../x\"}", "name"},
        {"{\"sandbox_id\":\"sbabcdefghijklmnopqrst\",\"name\":\"\"}", "name"},
        {"{\"sandbox_id\":\"sbabcdefghijklmnopqrst\",\"name\":\"snapabcdefghijklmnopqrst\"}",
            "name"},
        {"{\"sandbox_id\":\"sbabcdefghijklmnopqrst\",\"x\":1}", "x"},
    };
    static const char *const queries[] = {
        "?overwrite=1", "?overwrite", "?x=y", "?overwrite=true&a"};
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_ANSWER a;
        post(f, "/v1/snapshots", bad[i][0], &a);
        assert_error(&a, 400, "invalid_request", bad[i][1]);
    }
    for (size_t i = 0; i < ARRAY_LEN(queries); i++) {
        AUTO_ANSWER a;
        snapshot(f, "sbabcdefghijklmnopqrst", queries[i], "n", &a);
        assert_error(&a, 400, "invalid_request", NULL);
    }
    AUTO_ANSWER a;
    snapshot(f, "sbabcdefghijklmnopqrst", "", "n", &a);
    assert_error(&a, 404, "not_found", NULL);
    assert_int_equal(fake_calls(&f->agent, AGENT_CREATE_SNAPSHOT), 0);
}

static void what_a_list_may_not_be_asked(void **state)
{
    static const char *const bad[] = {"?type=x", "?limit=0", "?limit=1001", "?cursor=1.x", "?type",
        "?limit=1&limit=2", "?x=1", "?type=%zz"};
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char target[64];
        AUTO_ANSWER a;
        (void)snprintf(target, sizeof target, "/v1/snapshots%s", bad[i]);
        get(f, target, &a);
        assert_error(&a, 400, "invalid_request", NULL);
    }
}

static void lists_come_in_pages(void **state)
{
    static const char *const names[] = {"c", "b", "a", "base", "minimal"};
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    char snap[32];
    char target[256] = "/v1/snapshots?limit=2";
    size_t n = 0;
    make_sandbox(f, id);
    for (int i = 2; i >= 0; i--) {
        int64_t now = clock_real_ms();
        make_snapshot(f, id, names[i], snap);
        while (clock_real_ms() <= now) /* the next one is of another millisecond */
            ;
    }
    for (;;) {
        AUTO_ANSWER a;
        get(f, target, &a);
        assert_int_equal(a.status, 200);
        for (const struct json_value *v = a.json->first; v; v = v->next)
            assert_true(slice_is(json_get(v, "name")->string, names[n++]));
        if (!a.next_cursor[0])
            break;
        (void)snprintf(target, sizeof target, "/v1/snapshots?limit=2&cursor=%s", a.next_cursor);
    }
    assert_int_equal(n, ARRAY_LEN(names));
}

static void a_name_is_taken_once(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    char snap[32];
    AUTO_ANSWER a;
    make_sandbox(f, id);
    make_snapshot(f, id, "n", snap);
    snapshot(f, id, "?overwrite=false", "n", &a);
    assert_error(&a, 409, "already_exists", NULL);
    assert_int_equal(fake_calls(&f->agent, AGENT_CREATE_SNAPSHOT), 1); /* nothing was frozen */
    assert_true(fake_has_snapshot(&f->agent, snap));
}

static void the_names_of_the_bases_are_taken(void **state)
{
    static const char *const names[] = {"minimal", "base"};
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        AUTO_ANSWER a;
        AUTO_ANSWER b;
        snapshot(f, id, "", names[i], &a);
        assert_error(&a, 409, "already_exists", NULL);
        snapshot(f, id, "?overwrite=true", names[i], &b);
        assert_error(&b, 403, "forbidden", NULL);
        assert_int_equal(remove_snapshot(f, names[i]), 403);
    }
    assert_int_equal(fake_calls(&f->agent, AGENT_CREATE_SNAPSHOT), 0);
}

static void a_base_cannot_be_deleted_by_its_id(void **state)
{
    struct fixture *f = *state;
    AUTO_ANSWER a;
    get(f, "/v1/snapshots/minimal", &a);
    assert_int_equal(remove_snapshot(f, member(&a, "snapshot_id")), 403);
}

static void an_overwritten_one_gives_way(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    char old[32];
    char want[128];
    AUTO_ANSWER a;
    make_sandbox(f, id);
    make_snapshot(f, id, "n", old);
    snapshot(f, id, "?overwrite=true", "n", &a);
    assert_int_equal(a.status, 201);
    assert_string_not_equal(member(&a, "snapshot_id"), old);
    fake_wait_snapshots(&f->agent, 1);
    assert_false(fake_has_snapshot(&f->agent, old));
    (void)snprintf(want, sizeof want, "n|%s|3|768", member(&a, "snapshot_id"));
    spawn(f, "n", want);
    assert_int_equal(look(f, old), 404);
    AUTO_ANSWER fresh;
    snapshot(f, id, "?overwrite=true", "new", &fresh); /* with nothing to overwrite */
    assert_int_equal(fresh.status, 201);
}

static void a_deleted_one_goes_from_the_host(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    char a[32];
    char b[32];
    make_sandbox(f, id);
    make_snapshot(f, id, "a", a);
    make_snapshot(f, id, "b", b);
    fake_fail(&f->agent, AGENT_DELETE_SNAPSHOT, ERR_UNAVAILABLE, "");
    assert_int_equal(remove_snapshot(f, "a"), 204);
    assert_int_equal(look(f, "a"), 404);
    fake_wait_calls(&f->agent, AGENT_DELETE_SNAPSHOT, 2); /* it is tried again */
    fake_fail(&f->agent, AGENT_DELETE_SNAPSHOT, ERR_NONE, "");
    fake_wait_snapshots(&f->agent, 1);
    assert_true(fake_has_snapshot(&f->agent, b));
    assert_int_equal(remove_snapshot(f, b), 204); /* by its id */
    fake_wait_snapshots(&f->agent, 0);
    assert_int_equal(remove_snapshot(f, "a"), 404);
    AUTO_ANSWER gone;
    post(f, "/v1/sandboxes", "{\"template\":\"a\"}", &gone);
    assert_error(&gone, 404, "not_found", "template");
    assert_int_equal(fake_calls(&f->agent, AGENT_CREATE), 1);
}

static void what_is_to_be_removed_survives_a_restart(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    char snap[32];
    make_sandbox(f, id);
    make_snapshot(f, id, "a", snap);
    fake_fail(&f->agent, AGENT_DELETE_SNAPSHOT, ERR_AGENT, "");
    assert_int_equal(remove_snapshot(f, "a"), 204);
    fake_wait_calls(&f->agent, AGENT_DELETE_SNAPSHOT, 1);
    fixture_stop_control(f);
    fake_fail(&f->agent, AGENT_DELETE_SNAPSHOT, ERR_NONE, "");
    assert_true(fake_has_snapshot(&f->agent, snap));
    fixture_start_control(f);
    fake_wait_snapshots(&f->agent, 0);
}

static void one_that_fails_leaves_nothing(void **state)
{
    static const struct {
        enum err_kind kind;
        int status;
        const char *code;
    } cases[] = {
        {ERR_NO_SPACE, 507, "insufficient_storage"},
        {ERR_AGENT, 502, "agent_error"},
        {ERR_BAD_STATE, 409, "invalid_state"},
        {ERR_NOT_FOUND, 503, "agent_unavailable"},
        {ERR_TIMEOUT, 504, "timeout"},
    };
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_ANSWER a;
        fake_fail(&f->agent, AGENT_CREATE_SNAPSHOT, cases[i].kind, "");
        snapshot(f, id, "", "n", &a);
        assert_error(&a, cases[i].status, cases[i].code, NULL);
        assert_int_equal(look(f, "n"), 404);
    }
    fake_fail(&f->agent, AGENT_CREATE_SNAPSHOT, ERR_NONE, "");
    {
        MUTEX_GUARD(&f->agent.mutex);
        f->agent.bad_snapshot = true;
    }
    AUTO_ANSWER bad;
    snapshot(f, id, "", "n", &bad);
    assert_error(&bad, 502, "agent_error", NULL);
    assert_int_equal(look(f, "n"), 404);
    fake_wait_snapshots(&f->agent, 0); /* what the host had made of it is removed */
}

static void a_lost_answer_makes_no_template(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    make_sandbox(f, id);
    fake_lose(&f->agent, AGENT_CREATE_SNAPSHOT, true);
    snapshot(f, id, "", "n", &a);
    assert_error(&a, 503, "agent_unavailable", NULL);
    assert_int_equal(look(f, "n"), 404);
    fake_lose(&f->agent, AGENT_CREATE_SNAPSHOT, false);
    snapshot(f, id, "", "n", &b); /* its name is free */
    assert_int_equal(b.status, 201);
}

static void another_teams_are_not_there(void **state)
{
    struct fixture *f = *state;
    struct key_row row;
    char id[ID_TEXT_MAX + 1];
    char theirs[ID_TEXT_MAX + 1];
    char snap[32];
    char body[128];
    make_sandbox(f, id);
    make_snapshot(f, id, "n", snap);
    fixture_other_team(f, f->key, &row);
    assert_int_equal(look(f, "n"), 404);
    assert_int_equal(look(f, snap), 404);
    assert_int_equal(remove_snapshot(f, "n"), 404);
    assert_int_equal(remove_snapshot(f, snap), 404);
    AUTO_ANSWER list;
    get(f, "/v1/snapshots", &list);
    assert_int_equal(list.json->count, 2);
    AUTO_ANSWER a;
    (void)snprintf(body, sizeof body, "{\"template\":\"%s\"}", snap);
    post(f, "/v1/sandboxes", body, &a);
    assert_error(&a, 404, "not_found", "template");
    AUTO_ANSWER foreign;
    snapshot(f, id, "", "x", &foreign); /* of another team's sandbox */
    assert_error(&foreign, 404, "not_found", NULL);
    make_sandbox(f, theirs);
    make_snapshot(f, theirs, "n", snap); /* names are the team's own */
    (void)snprintf(f->key, sizeof f->key, "%s", f->default_key);
    assert_int_equal(look(f, "n"), 200);
    assert_int_equal(fake_count_snapshots(&f->agent), 2);
}

/* The create has found the template; it must not lose it. */
static void overwritten_while_spawning(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    char old[32];
    struct asker spawner;
    struct request r = {
        .method = "POST", .target = "/v1/sandboxes", .body = SLICE_LIT("{\"template\":\"n\"}")};
    AUTO_ANSWER a;
    make_sandbox(f, id);
    make_snapshot(f, id, "n", old);
    fake_hold(&f->agent, AGENT_CREATE, true);
    asker_start(&spawner, f, &r);
    fake_wait_held(&f->agent, AGENT_CREATE, 1);
    snapshot(f, id, "?overwrite=true", "n", &a);
    assert_int_equal(a.status, 201);
    assert_int_equal(remove_snapshot(f, "n"), 204); /* the new one goes, the old one waits */
    fake_wait_snapshots(&f->agent, 1);
    assert_true(fake_has_snapshot(&f->agent, old));
    fake_hold(&f->agent, AGENT_CREATE, false);
    asker_join(&spawner);
    assert_int_equal(spawner.answer.status, 201);
    answer_done(&spawner.answer);
    fake_wait_snapshots(&f->agent, 0);
}

static void histograms_are_in_the_metrics(void **state)
{
    struct fixture *f = *state;
    AUTO_ANSWER a;
    {
        MUTEX_GUARD(&f->agent.mutex);
        f->agent.histograms = true;
    }
    fake_wait_polled(&f->agent);
    get(f, "/metrics", &a);
    assert_int_equal(a.status, 200);
    assert_non_null(
        strstr(a.body.p, "# TYPE torpor_pause_seconds histogram\n"
                         "torpor_pause_seconds_bucket{phase=\"save\",le=\"0.001\"} 0\n"
                         "torpor_pause_seconds_bucket{phase=\"save\",le=\"0.0025\"} 0\n"
                         "torpor_pause_seconds_bucket{phase=\"save\",le=\"0.005\"} 1\n"));
    assert_non_null(
        strstr(a.body.p, "{phase=\"save\",le=\"+Inf\"} 2\n"
                         "torpor_pause_seconds_sum{phase=\"save\"} 1.500000\n"
                         "torpor_pause_seconds_count{phase=\"save\"} 2\n"
                         "torpor_pause_seconds_bucket{phase=\"quiesce\",le=\"0.001\"}"));
    assert_non_null(strstr(a.body.p, "torpor_resume_seconds_count{phase=\"load\"} 2\n"));
    assert_null(strstr(a.body.p, "a\"b"));
    assert_null(strstr(a.body.p, "short\",le"));
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(made_listed_and_used),
        T(of_a_running_or_a_paused_one),
        T(a_name_is_made_up),
        T(what_a_request_may_not_be),
        T(what_a_list_may_not_be_asked),
        T(lists_come_in_pages),
        T(a_name_is_taken_once),
        T(the_names_of_the_bases_are_taken),
        T(a_base_cannot_be_deleted_by_its_id),
        T(an_overwritten_one_gives_way),
        T(a_deleted_one_goes_from_the_host),
        T(what_is_to_be_removed_survives_a_restart),
        T(one_that_fails_leaves_nothing),
        T(a_lost_answer_makes_no_template),
        T(another_teams_are_not_there),
        T(overwritten_while_spawning),
        T(histograms_are_in_the_metrics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
