/* SPDX-License-Identifier: Apache-2.0 */
/* Work inside a sandbox through the API: exec, writing and reading files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api_fixture.h"
#include "base/cleanup.h"

/* --- exec --- */

static void an_exec_carries_everything(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    make_sandbox(f, id);
    f->agent.exec_answer = (struct agent_exec_response){
        .stdout_bytes = SLICE_LIT("h\xc3\xa9llo\n\0x"),
        .stderr_bytes = SLICE_LIT(""),
        .exit_code = 3,
        .duration_ms = 12,
    };
    post(f, at(id, "/exec"),
        "{\"cmd\":\"/bin/x\",\"args\":[\"a b\",\"\",\"$(c)\"],\"cwd\":\"/w\",\"user\":\"me\","
        "\"stdin\":\"in\",\"timeout_sec\":9}",
        &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(f->agent.exec_seen, "/bin/x|a b||$(c)|/w|me|in|9");
    assert_string_equal(member(&a, "sandbox_id"), id);
    assert_string_equal(member(&a, "cmd"), "/bin/x");
    assert_true(slice_eq(json_get(a.json, "stdout")->string, f->agent.exec_answer.stdout_bytes));
    assert_string_equal(member(&a, "exit_code"), "3");
    assert_string_equal(member(&a, "duration_ms"), "12");
    assert_string_equal(member(&a, "encoding"), "utf-8");
    assert_string_equal(member(&a, "timed_out"), "false");
    assert_string_equal(member(&a, "truncated"), "false");
    assert_null(json_get(a.json, "signal"));
}

static void an_exec_has_defaults(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    make_sandbox(f, id);
    post(f, at(id, "/exec"), "{\"cmd\":\"x\"}", &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(f->agent.exec_seen, "x||||30");
}

static void binary_output_comes_as_base64(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    make_sandbox(f, id);
    f->agent.exec_answer = (struct agent_exec_response){
        .stdout_bytes = SLICE_LIT("\xff\x00\x01"),
        .stderr_bytes = SLICE_LIT("text"),
        .exit_code = 137,
        .signal = SLICE_LIT("SIGKILL"),
    };
    post(f, at(id, "/exec"), "{\"cmd\":\"x\"}", &a);
    assert_string_equal(member(&a, "encoding"), "base64");
    assert_string_equal(member(&a, "stdout"), "/wAB");
    assert_string_equal(member(&a, "stderr"), "dGV4dA==");
    assert_string_equal(member(&a, "signal"), "SIGKILL");
}

static void output_that_was_cut_stays_text(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    make_sandbox(f, id);
    f->agent.exec_answer = (struct agent_exec_response){
        .stdout_bytes = SLICE_LIT("ab\xc3"), .truncated = true, .timed_out = true};
    post(f, at(id, "/exec"), "{\"cmd\":\"x\"}", &a);
    assert_string_equal(member(&a, "encoding"), "utf-8");
    assert_string_equal(member(&a, "stdout"), "ab");
    assert_string_equal(member(&a, "truncated"), "true");
    assert_string_equal(member(&a, "timed_out"), "true");
}

static void large_output_comes_whole(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_FREE char *bytes = malloc(LIMIT_EXEC_OUTPUT_BYTES);
    AUTO_ANSWER a;
    make_sandbox(f, id);
    memset(bytes, 1, LIMIT_EXEC_OUTPUT_BYTES); /* six characters each in JSON */
    f->agent.exec_answer =
        (struct agent_exec_response){.stdout_bytes = {bytes, LIMIT_EXEC_OUTPUT_BYTES}};
    post(f, at(id, "/exec"), "{\"cmd\":\"x\"}", &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(json_get(a.json, "stdout")->string.n, LIMIT_EXEC_OUTPUT_BYTES);
}

static void what_the_agent_says_of_an_exec_passes(void **state)
{
    static const struct {
        enum err_kind kind;
        const char *where;
        int status;
        const char *code;
    } said[] = {
        {ERR_INVALID, "cmd", 400, "invalid_request"},
        {ERR_TIMEOUT, "", 504, "timeout"},
        {ERR_NOT_FOUND, "", 404, "not_found"},
        {ERR_CONFLICT, "", 409, "conflict"},
        {ERR_NO_SPACE, "", 507, "insufficient_storage"},
        {ERR_UNAVAILABLE, "", 503, "agent_unavailable"},
        {ERR_IO, "", 502, "agent_error"},
    };
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    for (size_t i = 0; i < ARRAY_LEN(said); i++) {
        AUTO_ANSWER a;
        fake_fail(&f->agent, AGENT_EXEC, said[i].kind, said[i].where);
        post(f, at(id, "/exec"), "{\"cmd\":\"nope\"}", &a);
        assert_error(&a, said[i].status, said[i].code, said[i].where);
    }
    assert_int_equal(fake_calls(&f->agent, AGENT_EXEC), ARRAY_LEN(said)); /* none was repeated */
}

/* --- files --- */

#define PART(name, value)                                                                          \
    "--B\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n" value "\r\n"
#define FILE_PART(value)                                                                           \
    "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n"                     \
    "Content-Type: application/octet-stream\r\n\r\n" value "\r\n"
#define END "--B--\r\n"

static void write_form(struct fixture *f, const char *id, struct slice body, struct answer *ret)
{
    struct request r = {
        .method = "POST",
        .target = at(id, "/files/write"),
        .content_type = "multipart/form-data; boundary=B",
        .body = body,
    };
    ask(f, &r, ret);
}

static void files_are_written_in_either_order(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    make_sandbox(f, id);
    write_form(f, id, SLICE_LIT(PART("path", "/d/a") FILE_PART("a\0b") END), &a);
    assert_int_equal(a.status, 204);
    assert_string_equal(f->agent.file_path, "/d/a");
    assert_true(slice_eq(buf_slice(&f->agent.file), SLICE_LIT("a\0b")));
    assert_int_equal(f->agent.file_mode, -1);
    assert_string_equal(f->agent.file_user, "");
    write_form(f, id,
        SLICE_LIT(FILE_PART("") PART("mode", "0755") PART("user", "me") PART("path", "rel") END),
        &b);
    assert_int_equal(b.status, 204);
    assert_string_equal(f->agent.file_path, "rel");
    assert_int_equal(f->agent.file.len, 0);
    assert_int_equal(f->agent.file_mode, 0755);
    assert_string_equal(f->agent.file_user, "me");
}

static void bad_forms_are_refused(void **state)
{
    static const struct {
        struct slice body;
        const char *field;
    } bad[] = {
        {SLICE_LIT(FILE_PART("x") END), "path"},
        {SLICE_LIT(PART("path", "/a") END), "file"},
        {SLICE_LIT(PART("path", "") FILE_PART("x") END), "path"},
        {SLICE_LIT(PART("path", "a\0b") FILE_PART("x") END), "path"},
        {SLICE_LIT(PART("path", "\xff") FILE_PART("x") END), "path"},
        {SLICE_LIT(PART("path", "/a") PART("path", "/b") FILE_PART("x") END), "path"},
        {SLICE_LIT(PART("path", "/a") PART("nope", "1") FILE_PART("x") END), "nope"},
        {SLICE_LIT(PART("path", "/a") PART("mode", "999") FILE_PART("x") END), "mode"},
        {SLICE_LIT(PART("path", "/a") PART("mode", "7777") FILE_PART("x") END), "mode"},
        {SLICE_LIT(PART("path", "/a") PART("user", "a b") FILE_PART("x") END), "user"},
        {SLICE_LIT(PART("path", "/a") FILE_PART("x")), NULL}, /* no end */
        {SLICE_LIT("nonsense"), NULL},
    };
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    make_sandbox(f, id);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_ANSWER a;
        write_form(f, id, bad[i].body, &a);
        if (a.status != 400)
            fail_msg("form %zu: status %d", i, a.status);
        assert_error(&a, 400, "invalid_request", bad[i].field);
    }
    AUTO_ANSWER b;
    post(f, at(id, "/files/write"), "{}", &b);
    assert_error(&b, 415, "unsupported_media_type", NULL);
    assert_int_equal(fake_calls(&f->agent, AGENT_WRITE_FILE), 0);
}

static void a_file_may_have_100_mib_and_no_more(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    struct buf body = BUF_INIT(LIMIT_FILE_UNARY_BYTES + (1 << 20));
    char *room;
    make_sandbox(f, id);
    buf_append_cstr(&body, PART("path", "/big"));
    buf_append_cstr(&body, "--B\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n");
    room = buf_reserve(&body, LIMIT_FILE_UNARY_BYTES);
    assert_non_null(room);
    memset(room, 'z', LIMIT_FILE_UNARY_BYTES);
    buf_commit(&body, LIMIT_FILE_UNARY_BYTES);
    buf_append_cstr(&body, "\r\n" END);
    {
        AUTO_ANSWER a;
        write_form(f, id, buf_slice(&body), &a);
        assert_int_equal(a.status, 204);
        assert_int_equal(f->agent.file.len, LIMIT_FILE_UNARY_BYTES);
    }
    {
        AUTO_ANSWER a;
        post(f, at(id, "/files/read"), "{\"path\":\"/big\"}", &a);
        assert_int_equal(a.status, 200);
        assert_int_equal(a.body.len, LIMIT_FILE_UNARY_BYTES);
    }
    body.len -= strlen("\r\n" END);
    buf_append_cstr(&body, "z\r\n" END); /* one byte more, still within the form's own bound */
    {
        AUTO_ANSWER a;
        write_form(f, id, buf_slice(&body), &a);
        assert_error(&a, 413, "too_large", NULL);
    }
    buf_done(&body);
    assert_int_equal(fake_calls(&f->agent, AGENT_WRITE_FILE), 1);
}

static void a_declared_length_beyond_the_bound_is_refused_unread(void **state)
{
    struct fixture *f = *state;
    char text[512];
    char id[ID_TEXT_MAX + 1];
    AUTO_BUF struct buf answer = BUF_INIT(1 << 16);
    make_sandbox(f, id);
    (void)snprintf(text, sizeof text,
        "POST /v1/sandboxes/%s/files/write HTTP/1.1\r\nHost: a\r\nX-API-Key: %s\r\n"
        "Content-Type: multipart/form-data; boundary=B\r\nContent-Length: 999999999999\r\n\r\n",
        id, f->key);
    assert_int_equal(ask_raw(f, text, strlen(text), &answer), 413);
}

static void files_are_read_as_bytes(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    make_sandbox(f, id);
    buf_append(&f->agent.file, "\0\xff{}", 4);
    (void)snprintf(f->agent.file_path, sizeof f->agent.file_path, "/x");
    post(f, at(id, "/files/read"), "{\"path\":\"/x\"}", &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.content_type, "application/octet-stream");
    assert_true(slice_eq(buf_slice(&a.body), SLICE_LIT("\0\xff{}")));
    post(f, at(id, "/files/read"), "{\"path\":\"/nope\"}", &b);
    assert_error(&b, 404, "not_found", NULL);
}

static void an_agent_that_started_anew_is_reached_again(void **state)
{
    struct fixture *f = *state;
    char id[ID_TEXT_MAX + 1];
    AUTO_ANSWER a;
    AUTO_ANSWER b;
    make_sandbox(f, id);
    post(f, at(id, "/exec"), "{\"cmd\":\"x\"}", &a); /* leaves a connection behind */
    assert_int_equal(a.status, 200);
    fake_agent_close(&f->agent);
    fake_agent_listen(&f->agent);
    post(f, at(id, "/exec"), "{\"cmd\":\"x\"}", &b);
    assert_int_equal(b.status, 200);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_exec_carries_everything),
        T(an_exec_has_defaults),
        T(binary_output_comes_as_base64),
        T(output_that_was_cut_stays_text),
        T(large_output_comes_whole),
        T(what_the_agent_says_of_an_exec_passes),
        T(files_are_written_in_either_order),
        T(bad_forms_are_refused),
        T(a_file_may_have_100_mib_and_no_more),
        T(a_declared_length_beyond_the_bound_is_refused_unread),
        T(files_are_read_as_bytes),
        T(an_agent_that_started_anew_is_reached_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
