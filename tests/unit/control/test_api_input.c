/* SPDX-License-Identifier: Apache-2.0 */
/* What the API refuses, over a real connection. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api_fixture.h"
#include "base/cleanup.h"

/* A create with this body is a 400 about this field, and nothing reaches the agent or a row. */
static void assert_refused(struct fixture *f, const char *body, const char *field)
{
    int before = fake_calls(&f->agent, AGENT_CREATE);
    AUTO_ANSWER a;
    AUTO_ANSWER list;
    post(f, "/v1/sandboxes", body, &a);
    if (a.status != 400)
        fail_msg("%s: status %d", body, a.status);
    assert_error(&a, 400, "invalid_request", field);
    assert_int_equal(fake_calls(&f->agent, AGENT_CREATE), before);
    get(f, "/v1/sandboxes?status=pending,running,stopped,error", &list);
    assert_string_equal(list.body.p, "[]");
}

static void an_unknown_template_is_404_before_anything_is_made(void **state)
{
    struct fixture *f = *state;
    AUTO_ANSWER a;
    AUTO_ANSWER list;
    post(f, "/v1/sandboxes", "{\"template\":\"nope\"}", &a);
    assert_error(&a, 404, "not_found", "template");
    get(f, "/v1/sandboxes?status=pending,running,stopped,error", &list);
    assert_string_equal(list.body.p, "[]");
    assert_int_equal(fake_calls(&f->agent, AGENT_CREATE), 0);
}

static void bad_template_names_are_400(void **state)
{
    static const char *const names[] = {"", ".", "..", "../etc/passwd", "/etc/passwd", ".hidden",
        "a/b", "a\\\\b", "a b", "a;reboot", "$(reboot)", "`x`", "a|b", "~root", "a\\nb",
        "a\\u0000b", "-x", "\xc3\xa9",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    char body[256];
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        (void)snprintf(body, sizeof body, "{\"template\":\"%s\"}", names[i]);
        assert_refused(*state, body, "template");
    }
}

static void numbers_out_of_range_or_of_another_type_are_400(void **state)
{
    static const struct {
        const char *body, *field;
    } bad[] = {
        {"{\"vcpus\":0}", "vcpus"},
        {"{\"vcpus\":33}", "vcpus"},
        {"{\"vcpus\":-1}", "vcpus"},
        {"{\"vcpus\":1.5}", "vcpus"},
        {"{\"vcpus\":\"1\"}", "vcpus"},
        {"{\"vcpus\":null}", "vcpus"},
        {"{\"vcpus\":4294967297}", "vcpus"},
        {"{\"memory_mb\":127}", "memory_mb"},
        {"{\"memory_mb\":65537}", "memory_mb"},
        {"{\"memory_mb\":true}", "memory_mb"},
        {"{\"timeout_sec\":-1}", "timeout_sec"},
        {"{\"timeout_sec\":2592001}", "timeout_sec"},
        {"{\"timeout_sec\":[]}", "timeout_sec"},
        {"{\"template\":7}", "template"},
        {"{\"env\":[]}", "env"},
        {"{\"env\":{\"A\":1}}", "env.A"},
        {"{\"env\":{\"A=B\":\"1\"}}", "env.A=B"},
        {"{\"env\":{\"\":\"1\"}}", "env."},
        {"{\"metadata\":\"x\"}", "metadata"},
        {"{\"metadata\":{\"k\":1}}", "metadata.k"},
        {"{\"metadata\":{\"k\":null}}", "metadata.k"},
        {"{\"metadata\":{\"\":\"x\"}}", "metadata."},
        {"{\"metadata\":{\"a\\u0001\":\"x\"}}", NULL},
        {"{\"metadata\":{\"k\":\"a\\u0000\"}}", "metadata.k"},
        {"{\"nope\":1}", "nope"},
        {"{\"VCPUS\":1}", "VCPUS"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_refused(*state, bad[i].body, bad[i].field);
}

static void the_allowed_range_is_told(void **state)
{
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    post(*state, "/v1/sandboxes", "{\"vcpus\":33}", &a);
    assert_string_equal(member(&a, "error.details.allowed"), "1..32");
    get(*state, "/v1/sandboxes?status=dead", &b);
    assert_error(&b, 400, "invalid_request", "status");
    assert_string_equal(member(&b, "error.details.allowed"),
        "pending, running, pausing, paused, resuming, stopped, error");
}

static void too_much_metadata_is_400(void **state)
{
    struct buf body = BUF_INIT(1 << 20);
    buf_append_cstr(&body, "{\"metadata\":{");
    for (int i = 0; i < 65; i++)
        buf_printf(&body, "%s\"k%d\":\"v\"", i ? "," : "", i);
    buf_append_cstr(&body, "}}");
    assert_refused(*state, body.p, "metadata");
    buf_reset(&body);
    buf_append_cstr(&body, "{\"metadata\":{\"k\":\"");
    for (int i = 0; i < 1025; i++)
        buf_append_char(&body, 'x');
    buf_append_cstr(&body, "\"}}");
    assert_refused(*state, body.p, "metadata.k");
    buf_done(&body);
}

static void malformed_json_is_400(void **state)
{
    static const char *const bodies[] = {"", "{", "{}}", "[]", "null", "7", "{\"vcpus\":1,}",
        "{\"vcpus\":1,\"vcpus\":2}", "{'vcpus':1}", "{\"vcpus\":01}", "{\"a\":\"\xff\"}",
        "\xef\xbb\xbf{}"};
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++)
        assert_refused(*state, bodies[i], NULL);
}

static void deep_json_is_400(void **state)
{
    struct buf body = BUF_INIT(1 << 20);
    buf_append_cstr(&body, "{\"metadata\":");
    for (int i = 0; i < 100000; i++)
        buf_append_char(&body, '[');
    assert_refused(*state, body.p, NULL);
    buf_done(&body);
}

static void a_large_body_is_413(void **state)
{
    struct fixture *f = *state;
    struct buf body = BUF_INIT(8 << 20);
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    buf_append_cstr(&body, "{\"metadata\":{\"k\":\"");
    while (body.len < (2 << 20))
        buf_append_cstr(&body, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    buf_append_cstr(&body, "\"}}");
    post(f, "/v1/sandboxes", body.p, &a);
    assert_error(&a, 413, "too_large", NULL);
    buf_reset(&body); /* small as text, large as a tree */
    buf_append_cstr(&body, "{\"x\":[");
    while (body.len < (1 << 20) - 16)
        buf_append_cstr(&body, "1,");
    buf_append_cstr(&body, "1]}");
    post(f, "/v1/sandboxes", body.p, &b);
    assert_error(&b, 413, "too_large", NULL);
    buf_done(&body);
}

static void ids_are_checked_before_anything(void **state)
{
    static const char *const bad[] = {"", "x", "..", "sb", "SBabcdefghijklmnopqrst",
        "sbabcdefghijklmnopqrs", "sbabcdefghijklmnopqrstu", "teamabcdefghijklmnopqrst",
        "sbabcdefghijklmnopqr%2e", "%2e%2e", "sbabcdefghij;lmnopqrst", "sbABCDEFGHIJKLMNOPQRST",
        "%00", "sb_bcdefghijklmnopqrst"};
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_ANSWER a;
        AUTO_ANSWER b;
        get(f, at(bad[i], ""), &a);
        assert_error(&a, 400, "invalid_request", "id");
        post(f, at(bad[i], "/exec"), "{}", &b);
        assert_error(&b, 400, "invalid_request", "id");
    }
}

static void well_formed_unknown_ids_are_404(void **state)
{
    static const char *const unknown[] = {"sbabcdefghijklmnopqrst", "sb01890189018901890189"};
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++) {
        AUTO_ANSWER a;
        AUTO_ANSWER b;
        AUTO_ANSWER c;
        struct request r = {.method = "DELETE", .target = at(unknown[i], "")};
        get(f, at(unknown[i], ""), &a);
        assert_error(&a, 404, "not_found", NULL);
        ask(f, &r, &b);
        assert_error(&b, 404, "not_found", NULL);
        post(f, at(unknown[i], "/ping"), "", &c);
        assert_error(&c, 404, "not_found", NULL);
    }
}

static void unknown_routes_are_404_for_anybody(void **state)
{
    static const char *const targets[] = {"/", "/v1", "/v1/", "/v2/sandboxes", "/v1/sandboxes/a/b",
        "/v1/sandboxes/../../etc/passwd", "/v1/sandboxes/sbabcdefghijklmnopqrst/nope", "//",
        "/V1/sandboxes", "/healthz/"};
    struct fixture *f = *state;
    f->key[0] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(targets); i++) {
        AUTO_ANSWER a;
        get(f, targets[i], &a);
        assert_error(&a, 404, "not_found", NULL);
    }
}

static void a_wrong_method_is_405_with_allow(void **state)
{
    struct fixture *f = *state;
    struct request put = {.method = "PUT", .target = "/v1/sandboxes"};
    struct request brew = {.method = "BREW", .target = "/healthz"};
    struct request options = {
        .method = "OPTIONS", .target = "/v1/sandboxes/sbabcdefghijklmnopqrst"};
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    AUTO_ANSWER c;
    AUTO_ANSWER d;
    ask(f, &put, &a);
    assert_error(&a, 405, "method_not_allowed", NULL);
    assert_string_equal(a.allow, "POST, GET, HEAD");
    ask(f, &brew, &b);
    assert_error(&b, 405, "method_not_allowed", NULL);
    assert_string_equal(b.allow, "GET, HEAD");
    ask(f, &options, &c);
    assert_string_equal(c.allow, "GET, HEAD, DELETE, PATCH");
    get(f, at("sbabcdefghijklmnopqrst", "/exec"), &d);
    assert_error(&d, 405, "method_not_allowed", NULL);
    assert_string_equal(d.allow, "POST");
}

static void malformed_http_gets_the_same_form(void **state)
{
    struct fixture *f = *state;
    static const char *const heads[] = {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /\r\n\r\n",
        ("POST /v1/sandboxes HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
         "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")};
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        AUTO_BUF struct buf answer = BUF_INIT(1 << 16);
        int status = ask_raw(f, heads[i], strlen(heads[i]), &answer);
        if (status < 400 || status >= 500)
            fail_msg("status %d: %s", status, answer.p ? answer.p : "");
        assert_non_null(strstr(answer.p, "{\"error\":{\"code\":\"invalid_request\""));
        assert_non_null(strstr(answer.p, "X-Request-Id: req"));
    }
}

static void too_many_headers_are_431(void **state)
{
    AUTO_BUF struct buf head = BUF_INIT(1 << 20);
    AUTO_BUF struct buf answer = BUF_INIT(1 << 16);
    buf_append_cstr(&head, "GET /healthz HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < 100; i++)
        buf_printf(&head, "X-%d: y\r\n", i);
    buf_append_cstr(&head, "\r\n");
    assert_int_equal(ask_raw(*state, head.p, head.len, &answer), 431);
    assert_non_null(strstr(answer.p, "\"headers_too_large\""));
}

static void request_ids_are_kept_or_made(void **state)
{
    struct fixture *f = *state;
    char long_id[66];
    struct request r = {.method = "GET", .target = "/healthz", .extra_name = "X-Request-Id"};
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    AUTO_ANSWER c;
    AUTO_ANSWER d;
    r.extra_value = "My-id_1.2";
    ask(f, &r, &a);
    assert_string_equal(a.request_id, "My-id_1.2");
    r.extra_value = "bad id";
    ask(f, &r, &b);
    assert_true(strncmp(b.request_id, "req", 3) == 0);
    memset(long_id, 'a', 65);
    long_id[65] = '\0';
    r.extra_value = long_id;
    ask(f, &r, &c);
    assert_true(strncmp(c.request_id, "req", 3) == 0);
    long_id[64] = '\0';
    ask(f, &r, &d);
    assert_string_equal(d.request_id, long_id);
}

static void keys_are_needed_and_may_come_three_ways(void **state)
{
    struct fixture *f = *state;
    char text[80];
    struct request r = {.method = "GET", .target = "/v1/sandboxes"};
    static const char *const bad[] = {"tpr_", "x", "tpr_0000000000000000000000000000000000000000",
        "TPR_0000000000000000000000000000000000000000",
        "tpr_000000000000000000000000000000000000000g"};
    f->key[0] = '\0';
    {
        AUTO_ANSWER a;
        ask(f, &r, &a);
        assert_error(&a, 401, "unauthorized", NULL);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_ANSWER a;
        r.extra_name = "X-API-Key";
        r.extra_value = bad[i];
        ask(f, &r, &a);
        assert_error(&a, 401, "unauthorized", NULL);
    }
    {
        AUTO_ANSWER a;
        r.extra_name = "Authorization";
        (void)snprintf(text, sizeof text, "Bearer %s", f->default_key);
        r.extra_value = text;
        ask(f, &r, &a);
        assert_int_equal(a.status, 200);
    }
    {
        AUTO_ANSWER a;
        (void)snprintf(text, sizeof text, "Basic %s", f->default_key);
        ask(f, &r, &a);
        assert_error(&a, 401, "unauthorized", NULL);
    }
    {
        AUTO_ANSWER a;
        r.extra_name = "X-API-Key";
        (void)snprintf(text, sizeof text, "e2b_%s", f->default_key + 4);
        ask(f, &r, &a);
        assert_int_equal(a.status, 200);
    }
}

static void the_key_is_checked_before_the_request(void **state)
{
    struct fixture *f = *state;
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    f->key[0] = '\0';
    post(f, "/v1/sandboxes", "not json", &a);
    assert_error(&a, 401, "unauthorized", NULL);
    get(f, at("bad;id", ""), &b);
    assert_error(&b, 401, "unauthorized", NULL);
}

static void a_deleted_key_is_401(void **state)
{
    struct fixture *f = *state;
    struct key_row key;
    fixture_other_team(f, f->key, &key);
    {
        AUTO_ANSWER a;
        get(f, "/v1/sandboxes", &a);
        assert_int_equal(a.status, 200);
    }
    fixture_delete_key(f, &key);
    AUTO_ANSWER b;
    get(f, "/v1/sandboxes", &b);
    assert_error(&b, 401, "unauthorized", NULL);
}

static void bad_exec_and_read_bodies_are_400(void **state)
{
    static const struct {
        const char *tail, *body, *field;
    } bad[] = {
        {"/exec", "{}", "cmd"},
        {"/exec", "{\"cmd\":\"\"}", "cmd"},
        {"/exec", "{\"cmd\":\"a\\u0000b\"}", "cmd"},
        {"/exec", "{\"cmd\":7}", "cmd"},
        {"/exec", "{\"cmd\":\"x\",\"args\":\"y\"}", "args"},
        {"/exec", "{\"cmd\":\"x\",\"args\":[1]}", "args"},
        {"/exec", "{\"cmd\":\"x\",\"args\":[\"a\\u0000\"]}", "args"},
        {"/exec", "{\"cmd\":\"x\",\"user\":\"a/b\"}", "user"},
        {"/exec", "{\"cmd\":\"x\",\"user\":\"-x\"}", "user"},
        {"/exec", "{\"cmd\":\"x\",\"cwd\":\"\\u0000\"}", "cwd"},
        {"/exec", "{\"cmd\":\"x\",\"timeout_sec\":0}", "timeout_sec"},
        {"/exec", "{\"cmd\":\"x\",\"timeout_sec\":3601}", "timeout_sec"},
        {"/exec", "{\"cmd\":\"x\",\"shell\":true}", "shell"},
        {"/exec", "{\"cmd\":\"x\",\"env\":{\"A\":\"\\u0000\"}}", "env.A"},
        {"/files/read", "{}", "path"},
        {"/files/read", "{\"path\":\"\"}", "path"},
        {"/files/read", "{\"path\":\"a\\u0000b\"}", "path"},
        {"/files/read", "{\"path\":\"x\",\"user\":\"root\"}", "user"},
    };
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_ANSWER a;
        post(f, at(id, bad[i].tail), bad[i].body, &a);
        assert_error(&a, 400, "invalid_request", bad[i].field);
    }
    assert_int_equal(fake_calls(&f->agent, AGENT_EXEC), 0);
    assert_int_equal(fake_calls(&f->agent, AGENT_READ_FILE), 0);
}

static void bad_queries_are_400(void **state)
{
    static const struct {
        const char *query, *field;
    } bad[] = {
        {"limit=0", "limit"},
        {"limit=1001", "limit"},
        {"limit=-1", "limit"},
        {"limit=x", "limit"},
        {"limit=", "limit"},
        {"limit=1&limit=2", "limit"},
        {"cursor=x", "cursor"},
        {"cursor=1.sbx", "cursor"},
        {"cursor=99999999999999999999.sbabcdefghijklmnopqrst", "cursor"},
        {"status=", "status"},
        {"status=running,", "status"},
        {"template=../x", "template"},
        {"metadata.=x", "query"},
        {"metadata.k=%ff", "metadata"},
        {"nope=1", "query"},
        {"limit=%zz", "query"},
    };
    char target[128];
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_ANSWER a;
        (void)snprintf(target, sizeof target, "/v1/sandboxes?%s", bad[i].query);
        get(*state, target, &a);
        if (a.status != 400)
            fail_msg("%s: status %d", target, a.status);
        assert_error(&a, 400, "invalid_request", bad[i].field);
    }
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_unknown_template_is_404_before_anything_is_made),
        T(bad_template_names_are_400),
        T(numbers_out_of_range_or_of_another_type_are_400),
        T(the_allowed_range_is_told),
        T(too_much_metadata_is_400),
        T(malformed_json_is_400),
        T(deep_json_is_400),
        T(a_large_body_is_413),
        T(ids_are_checked_before_anything),
        T(well_formed_unknown_ids_are_404),
        T(unknown_routes_are_404_for_anybody),
        T(a_wrong_method_is_405_with_allow),
        T(malformed_http_gets_the_same_form),
        T(too_many_headers_are_431),
        T(request_ids_are_kept_or_made),
        T(keys_are_needed_and_may_come_three_ways),
        T(the_key_is_checked_before_the_request),
        T(a_deleted_key_is_401),
        T(bad_exec_and_read_bodies_are_400),
        T(bad_queries_are_400),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
