/* SPDX-License-Identifier: Apache-2.0 */
/* The life of sandboxes through the API: create, look, change, destroy, and what can go wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api_fixture.h"
#include "base/cleanup.h"
#include "base/io.h"

static void assert_state(struct fixture *f, const char *id, const char *status, const char *reason)
{
    AUTO_ANSWER a;
    get(f, at(id, ""), &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(member(&a, "status"), status);
    assert_string_equal(member(&a, "state_reason"), reason);
}

static int delete_status(struct fixture *f, const char *id)
{
    AUTO_ANSWER a;
    struct request r = {.method = "DELETE", .target = at(id, "")};
    ask(f, &r, &a);
    return a.status;
}

/* --- create --- */

static void a_create_answers_with_the_whole_sandbox(void **state)
{
    struct fixture *f = *state;
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    post(f, "/v1/sandboxes",
        "{\"template\":\"base\",\"vcpus\":2,\"memory_mb\":1024,\"timeout_sec\":60,"
        "\"env\":{\"A\":\"1\",\"B\":\"x y\"},\"metadata\":{\"app\":\"t\\u00e9st\"}}",
        &a);
    assert_int_equal(a.status, 201);
    assert_string_equal(member(&a, "id"), f->agent.created_id);
    assert_string_equal(member(&a, "status"), "running");
    assert_string_equal(member(&a, "state_reason"), "");
    assert_string_equal(member(&a, "template"), "base");
    assert_true(strncmp(member(&a, "template_id"), "snap", 4) == 0);
    assert_string_equal(member(&a, "vcpus"), "2");
    assert_string_equal(member(&a, "memory_mb"), "1024");
    assert_string_equal(member(&a, "timeout_sec"), "60");
    assert_string_equal(member(&a, "host_ip"), "10.11.0.2");
    assert_string_equal(member(&a, "metadata.app"), "t\xc3\xa9st");
    assert_string_equal(member(&a, "status_since"), "1970-01-01T00:00:03.000Z");
    assert_string_equal(member(&a, "started_at"), "1970-01-01T00:00:02.000Z");
    assert_string_equal(member(&a, "env"), ""); /* never returned */
    assert_string_equal(f->agent.created_env, "A=1;B=x y;");
    get(f, at(member(&a, "id"), ""), &b);
    assert_string_equal(member(&b, "id"), member(&a, "id"));
}

static void defaults_are_those_of_the_contract(void **state)
{
    AUTO_ANSWER a;
    post(*state, "/v1/sandboxes", "{}", &a);
    assert_string_equal(member(&a, "template"), "minimal");
    assert_string_equal(member(&a, "vcpus"), "1");
    assert_string_equal(member(&a, "memory_mb"), "512");
    assert_string_equal(member(&a, "timeout_sec"), "0");
    assert_string_equal(member(&a, "metadata"), "{}");
}

static void the_request_id_reaches_the_agent(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    struct request r = {.method = "POST",
        .body = SLICE_LIT(""),
        .extra_name = "X-Request-Id",
        .extra_value = "trace-me"};
    AUTO_ANSWER a;
    make_sandbox(f, id);
    fake_hold(&f->agent, AGENT_LIST, true); /* so that the ping is the last call */
    fake_wait_held(&f->agent, AGENT_LIST, 1);
    r.target = at(id, "/ping");
    ask(f, &r, &a);
    assert_int_equal(a.status, 204);
    assert_string_equal(f->agent.request_id, "trace-me");
}

static void a_failed_create_leaves_a_row_that_says_why(void **state)
{
    struct fixture *f = *state;
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    fake_fail(&f->agent, AGENT_CREATE, ERR_NO_CAPACITY, "");
    post(f, "/v1/sandboxes", "{}", &a);
    assert_error(&a, 503, "no_capacity", NULL);
    assert_string_equal(a.retry_after, "5");
    get(f, at(f->agent.created_id, ""), &b);
    assert_string_equal(member(&b, "status"), "error");
    assert_string_equal(member(&b, "state_reason"), "create_failed");
    assert_string_equal(member(&b, "state_message"), "said by the agent");
    assert_true(fake_calls(&f->agent, AGENT_DESTROY) >= 1); /* its answer may have been lost */
    assert_int_equal(delete_status(f, f->agent.created_id), 204);
    assert_state(f, f->agent.created_id, "stopped", "destroyed");
}

static void inner_failures_of_the_agent_are_502_without_details(void **state)
{
    struct fixture *f = *state;
    static const enum err_kind inner[] = {
        ERR_INTERNAL, ERR_IO, ERR_PROTOCOL, ERR_NOMEM, ERR_UNAUTHORIZED, ERR_METHOD};
    for (size_t i = 0; i < ARRAY_LEN(inner); i++) {
        AUTO_ANSWER a;
        AUTO_ANSWER b;
        fake_fail(&f->agent, AGENT_CREATE, inner[i], "");
        post(f, "/v1/sandboxes", "{}", &a);
        assert_error(&a, 502, "agent_error", NULL);
        assert_string_equal(member(&a, "error.message"), "the host agent failed");
        get(f, at(f->agent.created_id, ""), &b);
        assert_string_equal(member(&b, "state_message"), "the host agent failed");
    }
}

static void an_agent_that_is_away_is_503(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    fake_agent_close(&f->agent);
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    AUTO_ANSWER c;
    post(f, "/v1/sandboxes", "{}", &a);
    assert_error(&a, 503, "agent_unavailable", NULL);
    post(f, at(id, "/exec"), "{\"cmd\":\"x\"}", &b);
    assert_error(&b, 503, "agent_unavailable", NULL);
    post(f, at(id, "/ping"), "", &c);
    assert_error(&c, 503, "agent_unavailable", NULL);
    assert_int_equal(delete_status(f, id), 503);
    assert_state(f, id, "running", ""); /* nothing is known to have changed */
    fake_agent_listen(&f->agent);
    assert_int_equal(delete_status(f, id), 204);
    assert_state(f, id, "stopped", "destroyed");
}

static void a_create_without_its_client_is_undone(void **state)
{
    struct fixture *f = *state;
    char text[512];
    char id[ID_TEXT_MAX + 1];
    struct err e = {0};
    int fd = connect_raw(f);
    (void)snprintf(text, sizeof text,
        "POST /v1/sandboxes HTTP/1.1\r\nHost: a\r\nX-API-Key: %s\r\nContent-Length: 2\r\n\r\n{}",
        f->key);
    fake_hold(&f->agent, AGENT_CREATE, true);
    assert_int_equal(io_write_full(fd, text, strlen(text), INT64_MAX, &e), 0);
    fake_wait_held(&f->agent, AGENT_CREATE, 1);
    memcpy(id, f->agent.created_id, sizeof id);
    (void)close(fd);
    assert_state(f, id, "pending", ""); /* the create goes on */
    fake_hold(&f->agent, AGENT_CREATE, false);
    fake_wait_calls(&f->agent, AGENT_DESTROY, 1);
    assert_state(f, id, "stopped", "client_gone");
    assert_int_equal(delete_status(f, id), 204); /* behind the undo */
    assert_false(fake_has(&f->agent, id));
}

/* --- destroy --- */

static void a_destroy_is_idempotent_and_kept_in_mind(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    assert_int_equal(delete_status(f, id), 204);
    assert_false(fake_has(&f->agent, id));
    assert_state(f, id, "stopped", "destroyed");
    assert_int_equal(delete_status(f, id), 204);
    assert_int_equal(fake_calls(&f->agent, AGENT_DESTROY), 1);
    AUTO_ANSWER a;
    post(f, at(id, "/exec"), "{\"cmd\":\"x\"}", &a);
    assert_error(&a, 409, "invalid_state", NULL);
    assert_string_equal(member(&a, "error.details.status"), "stopped");
}

static void a_destroy_that_fails_changes_nothing(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    fake_fail(&f->agent, AGENT_DESTROY, ERR_IO, "");
    assert_int_equal(delete_status(f, id), 502);
    assert_state(f, id, "running", "");
    fake_fail(&f->agent, AGENT_DESTROY, ERR_NOT_FOUND, "");
    assert_int_equal(delete_status(f, id), 204);
    assert_state(f, id, "stopped", "destroyed");
}

static void one_transition_at_a_time(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    struct asker first;
    struct request r = {.method = "DELETE"};
    AUTO_ANSWER a;
    make_sandbox(f, id);
    fake_hold(&f->agent, AGENT_DESTROY, true);
    r.target = at(id, "");
    asker_start(&first, f, &r);
    fake_wait_held(&f->agent, AGENT_DESTROY, 1);
    ask(f, &r, &a);
    assert_error(&a, 409, "conflict", NULL);
    fake_hold(&f->agent, AGENT_DESTROY, false);
    asker_join(&first);
    assert_int_equal(first.answer.status, 204);
    answer_done(&first.answer);
}

static void a_destroy_waits_for_the_create(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    struct asker maker;
    struct request r = {.method = "POST", .target = "/v1/sandboxes", .body = SLICE_LIT("{}")};
    fake_hold(&f->agent, AGENT_CREATE, true);
    asker_start(&maker, f, &r);
    fake_wait_held(&f->agent, AGENT_CREATE, 1);
    memcpy(id, f->agent.created_id, sizeof id);
    assert_int_equal(delete_status(f, id), 409); /* for longer than it waits */
    fake_hold(&f->agent, AGENT_CREATE, false);
    asker_join(&maker);
    assert_int_equal(maker.answer.status, 201);
    answer_done(&maker.answer);
    assert_int_equal(delete_status(f, id), 204);
    assert_false(fake_has(&f->agent, id));
}

/* --- teams --- */

static void another_teams_sandbox_is_not_there(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    struct key_row key;
    make_sandbox(f, id);
    fixture_other_team(f, f->key, &key);
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    AUTO_ANSWER c;
    AUTO_ANSWER d;
    struct request patch = {.method = "PATCH", .target = at(id, ""), .body = SLICE_LIT("{}")};
    get(f, at(id, ""), &a);
    assert_error(&a, 404, "not_found", NULL);
    ask(f, &patch, &b);
    assert_error(&b, 404, "not_found", NULL);
    post(f, at(id, "/exec"), "{\"cmd\":\"x\"}", &c);
    assert_error(&c, 404, "not_found", NULL);
    get(f, "/v1/sandboxes", &d);
    assert_string_equal(d.body.p, "[]");
    assert_int_equal(delete_status(f, id), 404);
    assert_true(fake_has(&f->agent, id));
    assert_int_equal(fake_calls(&f->agent, AGENT_EXEC), 0);
}

/* --- change and ping --- */

static void a_patch_merges_and_removes(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    struct request r = {.method = "PATCH"};
    make_sandbox(f, id);
    r.target = at(id, "");
    {
        AUTO_ANSWER a;
        r.body = SLICE_LIT("{\"timeout_sec\":90,\"metadata\":{\"a\":\"1\",\"b\":\"2\"}}");
        ask(f, &r, &a);
        assert_int_equal(a.status, 200);
        assert_string_equal(member(&a, "timeout_sec"), "90");
        assert_string_equal(member(&a, "metadata.a"), "1");
    }
    assert_int_equal(fake_calls(&f->agent, AGENT_UPDATE), 1);
    {
        AUTO_ANSWER a;
        r.body = SLICE_LIT("{\"metadata\":{\"a\":null,\"b\":\"3\",\"c\":\"\"}}");
        ask(f, &r, &a);
        assert_string_equal(member(&a, "timeout_sec"), "90");
        assert_string_equal(member(&a, "metadata.a"), "");
        assert_string_equal(member(&a, "metadata.b"), "3");
        assert_non_null(strstr(a.body.p, "\"c\":\"\""));
    }
    assert_int_equal(fake_calls(&f->agent, AGENT_UPDATE), 1); /* metadata is not the host's */
    fake_fail(&f->agent, AGENT_UPDATE, ERR_IO, "");
    {
        AUTO_ANSWER a;
        AUTO_ANSWER b;
        r.body = SLICE_LIT("{\"timeout_sec\":5,\"metadata\":{\"d\":\"4\"}}");
        ask(f, &r, &a);
        assert_error(&a, 502, "agent_error", NULL);
        get(f, at(id, ""), &b); /* all or nothing */
        assert_string_equal(member(&b, "timeout_sec"), "90");
        assert_string_equal(member(&b, "metadata.d"), "");
    }
}

static void a_ping_moves_last_active_at(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    AUTO_ANSWER c;
    make_sandbox(f, id);
    post(f, at(id, "/ping"), "", &a);
    assert_int_equal(a.status, 204);
    assert_int_equal(a.body.len, 0);
    get(f, at(id, ""), &b);
    assert_string_equal(member(&b, "last_active_at"), "2100-01-01T00:00:00.000Z");
    assert_int_equal(delete_status(f, id), 204);
    post(f, at(id, "/ping"), "", &c);
    assert_error(&c, 409, "invalid_state", NULL);
}

/* --- lists --- */

static size_t count_ids(const struct answer *a)
{
    return a->json ? a->json->count : 0;
}

static void lists_page_and_filter(void **state)
{
    struct fixture *f = *state;
    char target[256];
    char ids[5][ID_TEXT_MAX + 1];
    size_t seen = 0;
    for (int i = 0; i < 5; i++) {
        AUTO_ANSWER a;
        (void)snprintf(target, sizeof target, "{\"metadata\":{\"n\":\"%d\",\"all\":\"a b\"}}", i);
        post(f, "/v1/sandboxes", target, &a);
        (void)snprintf(ids[i], sizeof ids[i], "%s", member(&a, "id"));
    }
    (void)snprintf(target, sizeof target, "/v1/sandboxes?limit=2");
    for (int page = 0; page < 3; page++) {
        AUTO_ANSWER a;
        get(f, target, &a);
        assert_int_equal(count_ids(&a), page < 2 ? 2 : 1);
        for (const struct json_value *v = a.json->first; v; v = v->next, seen++)
            assert_true(slice_is(json_get(v, "id")->string, ids[4 - seen])); /* newest first */
        assert_int_equal(a.next_cursor[0] != '\0', page < 2);
        (void)snprintf(target, sizeof target, "/v1/sandboxes?limit=2&cursor=%s", a.next_cursor);
    }
    assert_int_equal(delete_status(f, ids[0]), 204);
    static const struct {
        const char *query;
        size_t n;
    } filters[] = {
        {"", 4},
        {"?status=stopped", 1},
        {"?status=stopped,running", 5},
        {"?status=paused", 0},
        {"?template=minimal", 4},
        {"?template=base", 0},
        {"?metadata.n=3", 1},
        {"?metadata.n=3&metadata.all=a+b", 1},
        {"?metadata.n=3&metadata.all=a%20b", 1},
        {"?metadata.n=3&metadata.n=4", 0},
        {"?metadata.none=3", 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(filters); i++) {
        AUTO_ANSWER a;
        (void)snprintf(target, sizeof target, "/v1/sandboxes%s", filters[i].query);
        get(f, target, &a);
        if (count_ids(&a) != filters[i].n)
            fail_msg("%s: %zu", target, count_ids(&a));
    }
}

/* --- restart, server --- */

static void a_restart_keeps_everything(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    char gone[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    make_sandbox(f, gone);
    assert_int_equal(delete_status(f, gone), 204);
    {
        AUTO_ANSWER a;
        post(f, at(id, "/ping"), "", &a);
    }
    fixture_stop_control(f);
    fixture_start_control(f);
    AUTO_ANSWER b;
    get(f, at(id, ""), &b); /* with the same key */
    assert_string_equal(member(&b, "status"), "running");
    assert_string_equal(member(&b, "last_active_at"), "2100-01-01T00:00:00.000Z");
    assert_state(f, gone, "stopped", "destroyed");
    assert_true(fake_has(&f->agent, id)); /* a stop destroys nothing */
}

static void one_control_plane_per_folder(void **state)
{
    struct fixture *f = *state;
    char dir[TMPDIR_PATH_MAX + 32];
    struct control *second = NULL;
    struct err e = {0};
    struct control_config config = {
        .dir = tmpdir_file(&f->dir, "var", dir), .agent_socket = "x", .listen_ipv4 = "127.0.0.1"};
    assert_int_equal(control_start(&config, &second, &e), -1);
    assert_int_equal(e.kind, ERR_EXISTS);
}

static void a_stop_in_the_middle_of_a_create_still_answers(void **state)
{
    struct fixture *f = *state;
    struct asker maker;
    struct request r = {.method = "POST", .target = "/v1/sandboxes", .body = SLICE_LIT("{}")};
    fake_hold(&f->agent, AGENT_CREATE, true);
    asker_start(&maker, f, &r);
    fake_wait_held(&f->agent, AGENT_CREATE, 1);
    fake_hold(&f->agent, AGENT_CREATE, false);
    fixture_stop_control(f); /* before or after the create ends: the client is there */
    asker_join(&maker);
    assert_int_equal(maker.answer.status, 201);
    assert_true(fake_has(&f->agent, member(&maker.answer, "id")));
    answer_done(&maker.answer);
}

static void the_server_tells_about_itself(void **state)
{
    struct fixture *f = *state;
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    AUTO_ANSWER c;
    AUTO_ANSWER d;
    f->key[0] = '\0';
    get(f, "/healthz", &a);
    assert_string_equal(a.body.p, "{\"status\":\"ok\"}");
    get(f, "/readyz", &b);
    assert_string_equal(b.body.p, "{\"status\":\"ready\"}");
    get(f, "/version", &c);
    assert_true(member(&c, "version")[0] != '\0');
    get(f, "/openapi.yaml", &d);
    assert_int_equal(d.status, 200);
    assert_string_equal(d.content_type, "application/yaml");
    assert_non_null(strstr(d.body.p, "openapi: 3.1"));
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_create_answers_with_the_whole_sandbox),
        T(defaults_are_those_of_the_contract),
        T(the_request_id_reaches_the_agent),
        T(a_failed_create_leaves_a_row_that_says_why),
        T(inner_failures_of_the_agent_are_502_without_details),
        T(an_agent_that_is_away_is_503),
        T(a_create_without_its_client_is_undone),
        T(a_destroy_is_idempotent_and_kept_in_mind),
        T(a_destroy_that_fails_changes_nothing),
        T(one_transition_at_a_time),
        T(a_destroy_waits_for_the_create),
        T(another_teams_sandbox_is_not_there),
        T(a_patch_merges_and_removes),
        T(a_ping_moves_last_active_at),
        T(lists_page_and_filter),
        T(a_restart_keeps_everything),
        T(one_control_plane_per_folder),
        T(a_stop_in_the_middle_of_a_create_still_answers),
        T(the_server_tells_about_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
