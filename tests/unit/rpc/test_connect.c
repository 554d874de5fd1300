/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Connect protocol over a real server of ours: our client, and raw requests that no client of
 * ours would send.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/sock.h"
#include "http/client.h"
#include "http/server.h"
#include "json/json.h"
#include "rpc/client.h"
#include "rpc/server.h"
#include "sample.h"

enum { MAX_BYTES = 4096, PATIENCE_MS = 10000, BODY_BYTES_MAX = 1 << 20, ARENA_BYTES = 4 << 20 };

static uint16_t port;
static struct arena arena;

/* --- the service --- */

/* Answers with the request; int64 becomes the milliseconds that the caller gave. */
static int echo(struct rpc_call *call, const void *req, void *resp, struct err *e)
{
    const struct sample *in = req;
    struct sample *out = resp;
    assert_ptr_equal(call->ctx, &port);
    if (slice_is(in->text, "fail"))
        return err_field(e, "some_field", "not \"this\" \xff");
    if (slice_is(in->text, "kind"))
        return err_set(e, (enum err_kind)in->int32, "of that kind");
    if (slice_is(in->text, "header"))
        return err_field(e, "a\r\nInjected: yes", "hostile name");
    *out = *in;
    out->int64 = call->deadline == DEADLINE_NEVER ? -1 : call->deadline - clock_mono_ms();
    return 0;
}

/* Sends int32 messages that count, then ends as the text says. */
static int count(struct rpc_call *call, const void *req, struct err *e)
{
    const struct sample *in = req;
    for (int32_t i = 0; i < in->int32; i++) {
        struct sample out = {.int32 = i, .bytes = in->bytes};
        if (rpc_send(call, &sample_message, &out, e) < 0)
            return -1;
    }
    if (slice_is(in->text, "fail"))
        return err_field(e, "some_field", "ended badly");
    if (slice_is(in->text, "kind"))
        return err_set(e, ERR_NO_CAPACITY, "none left");
    if (slice_is(in->text, "cut"))
        http_reply_abort(call->x);
    return 0;
}

static const struct rpc_method methods[] = {
    {.path = "/test.Service/Echo",
        .request = &sample_message,
        .response = &sample_message,
        .unary = echo},
    {.path = "/test.Service/Count",
        .request = &sample_message,
        .response = &sample_message,
        .stream = count},
};

static void handle(struct http_exchange *x, void *ctx)
{
    if (!rpc_serve(x, methods, ARRAY_LEN(methods), MAX_BYTES, ctx))
        (void)http_reply(x, 418, "text/plain", SLICE_LIT("not an rpc"));
}

static int start(void **state)
{
    struct err e = {0};
    struct http_server_config config = {.handler = handle, .ctx = &port};
    config.listen_fd = sock_listen_tcp("127.0.0.1", 0, &e);
    if (config.listen_fd < 0)
        return -1;
    port = sock_local_port(config.listen_fd);
    *state = http_server_start(&config, &e);
    arena_init(&arena, ARENA_BYTES);
    return *state ? 0 : -1;
}

static int stop(void **state)
{
    http_server_stop(*state);
    arena_done(&arena);
    return 0;
}

static struct http_conn *dial(void)
{
    struct err e = {0};
    int fd = sock_connect_tcp("127.0.0.1", port, deadline_in_ms(PATIENCE_MS), &e);
    struct http_conn *c = fd < 0 ? NULL : http_conn_new(fd, &e);
    if (!c)
        fail_msg("%s", e.msg);
    return c;
}

static void hang_up(struct http_conn **c)
{
    *c = http_conn_free(*c);
}
#define AUTO_CONN CLEANUP(hang_up)

/* --- our client --- */

static struct rpc_request request_of(
    const char *path, enum rpc_codec codec, const struct sample *msg)
{
    return (struct rpc_request){.path = path,
        .request = &sample_message,
        .response = &sample_message,
        .msg = msg,
        .codec = codec,
        .deadline = deadline_in_ms(PATIENCE_MS),
        .max_bytes = BODY_BYTES_MAX};
}

static void unary_call_answers(void **state)
{
    struct sample sent = {.text = SLICE_LIT("hi \xe2\x82\xac"), .bytes = SLICE_LIT("\0\xff")};
    AUTO_CONN struct http_conn *c = dial();
    (void)state;
    for (int codec = 0; codec < 2; codec++) {
        struct rpc_request r = request_of("/test.Service/Echo", (enum rpc_codec)codec, &sent);
        struct sample got;
        struct err e = {0};
        if (rpc_call_unary(c, &r, &arena, &got, &e) < 0)
            fail_msg("%s", e.msg);
        assert_true(slice_is(got.text, "hi \xe2\x82\xac"));
        assert_true(slice_eq(got.bytes, SLICE_LIT("\0\xff")));
        assert_int_equal(got.int64, -1);
        assert_true(http_conn_reusable(c));
    }
}

static void timeout_reaches_the_handler(void **state)
{
    struct sample sent = {0};
    AUTO_CONN struct http_conn *c = dial();
    struct rpc_request r = request_of("/test.Service/Echo", RPC_CODEC_PROTO, &sent);
    struct sample got;
    struct err e = {0};
    (void)state;
    r.timeout_ms = 60000;
    assert_int_equal(rpc_call_unary(c, &r, &arena, &got, &e), 0);
    assert_in_range(got.int64, 30000, 60000);
}

static void unary_error_brings_kind_field_and_message(void **state)
{
    struct sample sent = {.text = SLICE_LIT("fail")};
    AUTO_CONN struct http_conn *c = dial();
    (void)state;
    for (int codec = 0; codec < 2; codec++) {
        struct rpc_request r = request_of("/test.Service/Echo", (enum rpc_codec)codec, &sent);
        struct sample got;
        struct err e = {0};
        assert_int_equal(rpc_call_unary(c, &r, &arena, &got, &e), -1);
        assert_int_equal(e.kind, ERR_INVALID);
        assert_string_equal(e.where, "some_field");
        assert_string_equal(e.msg, "not \"this\" \xef\xbf\xbd");
        assert_true(http_conn_reusable(c));
    }
}

static void every_kind_comes_back(void **state)
{
    AUTO_CONN struct http_conn *c = dial();
    (void)state;
    for (int kind = ERR_INVALID; kind < ERR_KIND_COUNT; kind++) {
        struct sample sent = {.text = SLICE_LIT("kind"), .int32 = kind};
        struct rpc_request r = request_of("/test.Service/Echo", RPC_CODEC_PROTO, &sent);
        struct sample got;
        struct err e = {0};
        assert_int_equal(rpc_call_unary(c, &r, &arena, &got, &e), -1);
        assert_int_equal(e.kind, kind);
        assert_string_equal(e.msg, "of that kind");
    }
}

static void hostile_field_name_is_no_header(void **state)
{
    struct sample sent = {.text = SLICE_LIT("header")};
    AUTO_CONN struct http_conn *c = dial();
    struct rpc_request r = request_of("/test.Service/Echo", RPC_CODEC_JSON, &sent);
    struct sample got;
    struct err e = {0};
    (void)state;
    assert_int_equal(rpc_call_unary(c, &r, &arena, &got, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_string_equal(e.where, "");
}

static void request_bound_is_the_server_s(void **state)
{
    static char big[2 * MAX_BYTES];
    struct sample sent = {.bytes = {big, sizeof big}};
    struct sample got;
    struct rpc_stream s;
    struct err e = {0};
    (void)state;
    for (int codec = 0; codec < 2; codec++) {
        AUTO_CONN struct http_conn *unary = dial();
        AUTO_CONN struct http_conn *stream = dial();
        struct rpc_request r = request_of("/test.Service/Echo", (enum rpc_codec)codec, &sent);
        assert_int_equal(rpc_call_unary(unary, &r, &arena, &got, &e), -1);
        assert_int_equal(e.kind, ERR_TOO_LARGE);
        r.path = "/test.Service/Count";
        assert_int_equal(rpc_stream_open(&s, stream, &r, &e), 0);
        assert_int_equal(rpc_stream_next(&s, &arena, &got, &e), -1);
        assert_int_equal(e.kind, ERR_TOO_LARGE);
        rpc_stream_done(&s);
    }
}

static void response_bound_is_the_caller_s(void **state)
{
    static const char some[100];
    struct sample sent = {.bytes = {some, sizeof some}, .int32 = 1};
    struct sample got;
    struct rpc_stream s;
    struct err e = {0};
    AUTO_CONN struct http_conn *unary = dial();
    AUTO_CONN struct http_conn *stream = dial();
    struct rpc_request r = request_of("/test.Service/Echo", RPC_CODEC_PROTO, &sent);
    (void)state;
    r.max_bytes = 50;
    assert_int_equal(rpc_call_unary(unary, &r, &arena, &got, &e), -1);
    assert_int_equal(e.kind, ERR_TOO_LARGE);
    r.path = "/test.Service/Count";
    assert_int_equal(rpc_stream_open(&s, stream, &r, &e), 0);
    assert_int_equal(rpc_stream_next(&s, &arena, &got, &e), -1);
    assert_int_equal(e.kind, ERR_TOO_LARGE);
    rpc_stream_done(&s);
}

/* Opens Count on `c` and reads `n` messages. */
static void read_messages(
    struct rpc_stream *s, struct http_conn *c, const struct rpc_request *r, int n)
{
    struct err e = {0};
    struct sample got;
    if (rpc_stream_open(s, c, r, &e) < 0)
        fail_msg("%s", e.msg);
    for (int i = 0; i < n; i++) {
        assert_int_equal(rpc_stream_next(s, &arena, &got, &e), 1);
        assert_int_equal(got.int32, i);
    }
}

static void stream_ends_well(void **state)
{
    AUTO_CONN struct http_conn *c = dial();
    (void)state;
    for (int codec = 0; codec < 2; codec++) {
        for (int n = 0; n < 4; n++) {
            struct sample sent = {.int32 = n, .bytes = SLICE_LIT("payload")};
            struct rpc_request r = request_of("/test.Service/Count", (enum rpc_codec)codec, &sent);
            struct rpc_stream s;
            struct sample got;
            struct err e = {0};
            read_messages(&s, c, &r, n);
            assert_int_equal(rpc_stream_next(&s, &arena, &got, &e), 0);
            rpc_stream_done(&s);
            assert_true(http_conn_reusable(c));
        }
    }
}

static void stream_ends_with_an_error(void **state)
{
    static const struct {
        const char *text;
        enum err_kind kind;
        const char *where;
        const char *msg;
    } cases[] = {{"fail", ERR_INVALID, "some_field", "ended badly"},
        {"kind", ERR_NO_CAPACITY, "", "none left"}};
    AUTO_CONN struct http_conn *c = dial();
    (void)state;
    for (int i = 0; i < 8; i++) {
        int n = i / 4 * 2; /* also as the very first thing */
        struct sample sent = {.int32 = n, .text = slice_cstr(cases[i % 2].text)};
        struct rpc_request r =
            request_of("/test.Service/Count", i & 2 ? RPC_CODEC_JSON : RPC_CODEC_PROTO, &sent);
        struct rpc_stream s;
        struct sample got;
        struct err e = {0};
        read_messages(&s, c, &r, n);
        assert_int_equal(rpc_stream_next(&s, &arena, &got, &e), -1);
        assert_int_equal(e.kind, cases[i % 2].kind);
        assert_string_equal(e.where, cases[i % 2].where);
        assert_string_equal(e.msg, cases[i % 2].msg);
        rpc_stream_done(&s);
        assert_true(http_conn_reusable(c));
    }
}

static void cut_stream_is_an_error(void **state)
{
    struct sample sent = {.int32 = 2, .text = SLICE_LIT("cut")};
    AUTO_CONN struct http_conn *c = dial();
    struct rpc_request r = request_of("/test.Service/Count", RPC_CODEC_PROTO, &sent);
    struct rpc_stream s;
    struct sample got;
    struct err e = {0};
    (void)state;
    read_messages(&s, c, &r, 2);
    assert_int_equal(rpc_stream_next(&s, &arena, &got, &e), -1);
    assert_true(e.kind == ERR_PROTOCOL || e.kind == ERR_IO);
    assert_false(http_conn_reusable(c));
    rpc_stream_done(&s);
}

/* --- raw requests --- */

struct raw {
    const char *method; /* NULL: POST */
    const char *path;
    const char *type;
    const char *name, *value; /* one further header */
    struct slice body;
};
struct reply {
    int status;
    char type[64];
    char kind[64];
    char allow[64];
    struct buf body;
};

static void copy_header(const struct http_response_head *head, const char *name, char dst[64])
{
    dst[0] = '\0';
    (void)slice_copy_cstr(http_header_find(head->headers, head->n_headers, name), dst, 64);
}

static struct reply ask(const struct raw *raw)
{
    AUTO_CONN struct http_conn *c = dial();
    struct http_header headers[2];
    struct http_call call = {.method = raw->method ? raw->method : "POST",
        .target = raw->path,
        .host = "localhost",
        .headers = headers,
        .body = raw->body,
        .body_length = HTTP_BODY_IS_SLICE};
    struct reply got = {.body = BUF_INIT(BODY_BYTES_MAX)};
    const struct http_response_head *head = NULL;
    int64_t deadline = deadline_in_ms(PATIENCE_MS);
    struct err e = {0};
    if (raw->type)
        headers[call.n_headers++] =
            (struct http_header){SLICE_LIT("Content-Type"), slice_cstr(raw->type)};
    if (raw->name)
        headers[call.n_headers++] =
            (struct http_header){slice_cstr(raw->name), slice_cstr(raw->value)};
    if (http_send(c, &call, deadline, &e) < 0 || http_recv_head(c, &head, deadline, &e) < 0)
        fail_msg("%s", e.msg);
    got.status = head->status;
    copy_header(head, "Content-Type", got.type);
    copy_header(head, "Torpor-Error", got.kind);
    copy_header(head, "Allow", got.allow);
    if (http_recv_body_all(c, &got.body, deadline, &e) < 0)
        fail_msg("%s", e.msg);
    buf_append(&got.body, "", 0);
    return got;
}
#define ASK(...) ask(&(struct raw){__VA_ARGS__})

static void check_body(struct reply *got, const char *want)
{
    assert_string_equal(got->body.p, want);
    buf_done(&got->body);
}

static void other_paths_are_left_alone(void **state)
{
    struct reply got = ASK(.path = "/test.Service/Nope", .type = "application/json");
    (void)state;
    assert_int_equal(got.status, 418);
    check_body(&got, "not an rpc");
}

static void only_post_is_allowed(void **state)
{
    struct reply got = ASK(.method = "GET", .path = "/test.Service/Echo");
    (void)state;
    assert_int_equal(got.status, 405);
    assert_string_equal(got.allow, "POST");
    buf_done(&got.body);
}

static void content_types_are_checked(void **state)
{
    static const struct {
        const char *path;
        const char *type;
        int status;
    } cases[] = {
        {"/test.Service/Echo", "application/json", 200},
        {"/test.Service/Echo", "Application/JSON; charset=UTF-8", 200},
        {"/test.Service/Echo", "application/json;charset=latin1", 415},
        {"/test.Service/Echo", "application/connect+json", 415},
        {"/test.Service/Echo", "application/jsonx", 415},
        {"/test.Service/Echo", "text/plain", 415},
        {"/test.Service/Echo", "application/grpc", 415},
        {"/test.Service/Echo", NULL, 415},
        {"/test.Service/Count", "application/json", 415},
        {"/test.Service/Count", "application/connect+json", 200},
        {"/test.Service/Count", "application/connect+proto", 200},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct reply got =
            ASK(.path = cases[i].path, .type = cases[i].type, .body = SLICE_LIT("{}"));
        if (got.status != cases[i].status)
            fail_msg("%s: status %d", cases[i].type ? cases[i].type : "none", got.status);
        buf_done(&got.body);
    }
}

static void unary_answer_is_plain_json(void **state)
{
    struct reply got = ASK(.path = "/test.Service/Echo", .type = "application/json",
        .name = "Connect-Protocol-Version", .value = "1",
        .body = SLICE_LIT("{\"optInt32\":0,\"later\":[1]}"));
    (void)state;
    assert_int_equal(got.status, 200);
    assert_string_equal(got.type, "application/json");
    check_body(&got, "{\"int64\":\"-1\",\"optInt32\":0}");
}

static void unary_errors_have_a_status_and_a_body(void **state)
{
    static const struct {
        struct slice body;
        int status;
        const char *want;
    } cases[] = {
        {SLICE_LIT("{\"text\":\"kind\",\"int32\":4}"), 404,
            "{\"code\":\"not_found\",\"message\":\"of that kind\"}"},
        {SLICE_LIT("{\"text\":\"kind\",\"int32\":10}"), 429,
            "{\"code\":\"resource_exhausted\",\"message\":\"of that kind\"}"},
        {SLICE_LIT("{\"int32\":\"x\"}"), 400,
            "{\"code\":\"invalid_argument\",\"message\":\"int32 must be an integer\"}"},
        {SLICE_LIT(""), 400,
            "{\"code\":\"invalid_argument\",\"message\":\"JSON: the text is empty\"}"},
    };
    (void)state;
    assert_int_equal(ERR_NOT_FOUND, 4);
    assert_int_equal(ERR_TOO_LARGE, 10);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct reply got =
            ASK(.path = "/test.Service/Echo", .type = "application/json", .body = cases[i].body);
        assert_int_equal(got.status, cases[i].status);
        assert_string_equal(got.type, "application/json");
        check_body(&got, cases[i].want);
    }
}

static void protobuf_errors_are_json_too(void **state)
{
    struct reply got = ASK(.path = "/test.Service/Echo", .type = "application/proto",
        .body = SLICE_LIT("\x42\x04kind\x10\x04"));
    (void)state;
    assert_int_equal(got.status, 404);
    assert_string_equal(got.type, "application/json");
    assert_string_equal(got.kind, "not_found");
    check_body(&got, "{\"code\":\"not_found\",\"message\":\"of that kind\"}");
}

static void empty_protobuf_is_an_empty_message(void **state)
{
    struct reply got = ASK(.path = "/test.Service/Echo", .type = "application/proto");
    (void)state;
    assert_int_equal(got.status, 200);
    assert_string_equal(got.type, "application/proto");
    assert_int_equal(got.body.len, 11); /* int64: -1 */
    buf_done(&got.body);
}

static void headers_of_the_protocol_are_checked(void **state)
{
    static const struct {
        const char *name;
        const char *value;
        int status;
    } cases[] = {
        {"Connect-Protocol-Version", "2", 400},
        {"Connect-Timeout-Ms", "1", 200},
        {"Connect-Timeout-Ms", "9999999999", 200},
        {"Connect-Timeout-Ms", "10000000000", 400},
        {"Connect-Timeout-Ms", "99999999999999999999999", 400},
        {"Connect-Timeout-Ms", "0", 400},
        {"Connect-Timeout-Ms", "", 400},
        {"Connect-Timeout-Ms", "-1", 400},
        {"Connect-Timeout-Ms", "1s", 400},
        {"Connect-Timeout-Ms", "1.5", 400},
        {"Content-Encoding", "identity", 200},
        {"Content-Encoding", "gzip", 501},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct reply got = ASK(.path = "/test.Service/Echo", .type = "application/json",
            .name = cases[i].name, .value = cases[i].value, .body = SLICE_LIT("{}"));
        if (got.status != cases[i].status)
            fail_msg("%s: %s: status %d", cases[i].name, cases[i].value, got.status);
        buf_done(&got.body);
    }
}

/* The end envelope that a stream consists of, as text; fails when there is more than that. */
static struct slice only_envelope(struct reply *got)
{
    assert_int_equal(got->status, 200);
    assert_string_equal(got->type, "application/connect+json");
    assert_true(got->body.len > 5);
    assert_int_equal(got->body.p[0], 2);
    assert_int_equal((size_t)(unsigned char)got->body.p[3] * 256 + (unsigned char)got->body.p[4],
        got->body.len - 5);
    return slice_of(got->body.p + 5, got->body.len - 5);
}

static void stream_requests_are_checked(void **state)
{
    static const struct {
        struct slice body;
        const char *code; /* NULL: it ends well */
    } cases[] = {
        {SLICE_LIT("\0\0\0\0\2{}"), NULL},
        {SLICE_LIT(""), "unimplemented"},
        {SLICE_LIT("\0\0\0"), "invalid_argument"},
        {SLICE_LIT("\0\0\0\0\3{}"), "invalid_argument"},
        {SLICE_LIT("\1\0\0\0\2{}"), "internal"},         /* compressed */
        {SLICE_LIT("\2\0\0\0\2{}"), "invalid_argument"}, /* an end envelope */
        {SLICE_LIT("\x80\0\0\0\2{}"), "invalid_argument"},
        {SLICE_LIT("\0\0\0\x10\1{}"), "resource_exhausted"},
        {SLICE_LIT("\0\xff\xff\xff\xff{}"), "resource_exhausted"},
        {SLICE_LIT("\0\0\0\0\2{}x"), "unimplemented"},
        {SLICE_LIT("\0\0\0\0\2{}\0\0\0\0\2{}"), "unimplemented"},
        {SLICE_LIT("\0\0\0\0\0"), "invalid_argument"}, /* no JSON at all */
        {SLICE_LIT("\0\0\0\0\2[]"), "invalid_argument"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct reply got = ASK(.path = "/test.Service/Count", .type = "application/connect+json",
            .body = cases[i].body);
        const struct json_value *end;
        const struct json_value *code;
        struct err e = {0};
        assert_int_equal(json_parse(only_envelope(&got), &arena, &end, &e), 0);
        code = json_get(json_get(end, "error"), "code");
        if (!code != !cases[i].code || (code && !slice_is(code->string, cases[i].code)))
            fail_msg("case %zu: %s", i, got.body.p + 5);
        buf_done(&got.body);
    }
}

static void stream_is_envelopes(void **state)
{
    struct reply got = ASK(.path = "/test.Service/Count", .type = "application/connect+json",
        .body = SLICE_LIT("\0\0\0\0\x0b{\"int32\":2}"));
    static const char want[] = "\0\0\0\0\2{}\0\0\0\0\x0b{\"int32\":1}\2\0\0\0\2{}";
    (void)state;
    assert_int_equal(got.status, 200);
    assert_string_equal(got.type, "application/connect+json");
    assert_int_equal(got.body.len, sizeof want - 1);
    assert_memory_equal(got.body.p, want, sizeof want - 1);
    buf_done(&got.body);
}

static void stream_errors_travel_at_status_200(void **state)
{
    struct reply got = ASK(.path = "/test.Service/Count", .type = "application/connect+json",
        .name = "Connect-Timeout-Ms", .value = "soon", .body = SLICE_LIT("\0\0\0\0\2{}"));
    (void)state;
    assert_non_null(strstr(only_envelope(&got).p, "{\"error\":{\"code\":\"invalid_argument\""));
    buf_done(&got.body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unary_call_answers),
        cmocka_unit_test(timeout_reaches_the_handler),
        cmocka_unit_test(unary_error_brings_kind_field_and_message),
        cmocka_unit_test(every_kind_comes_back),
        cmocka_unit_test(hostile_field_name_is_no_header),
        cmocka_unit_test(request_bound_is_the_server_s),
        cmocka_unit_test(response_bound_is_the_caller_s),
        cmocka_unit_test(stream_ends_well),
        cmocka_unit_test(stream_ends_with_an_error),
        cmocka_unit_test(cut_stream_is_an_error),
        cmocka_unit_test(other_paths_are_left_alone),
        cmocka_unit_test(only_post_is_allowed),
        cmocka_unit_test(content_types_are_checked),
        cmocka_unit_test(unary_answer_is_plain_json),
        cmocka_unit_test(unary_errors_have_a_status_and_a_body),
        cmocka_unit_test(protobuf_errors_are_json_too),
        cmocka_unit_test(empty_protobuf_is_an_empty_message),
        cmocka_unit_test(headers_of_the_protocol_are_checked),
        cmocka_unit_test(stream_requests_are_checked),
        cmocka_unit_test(stream_is_envelopes),
        cmocka_unit_test(stream_errors_travel_at_status_200),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
