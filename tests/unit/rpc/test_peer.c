/* SPDX-License-Identifier: Apache-2.0 */
/* Our client against a peer that does not keep to the protocol: its answer lies ready in a socket.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "http/client.h"
#include "rpc/client.h"
#include "sample.h"

enum { PATIENCE_MS = 10000, ARENA_BYTES = 1 << 20, MAX_BYTES = 1000 };

static const struct sample nothing;

static struct rpc_request request_of(int64_t patience_ms)
{
    return (struct rpc_request){.path = "/test.Service/Method",
        .request = &sample_message,
        .response = &sample_message,
        .msg = &nothing,
        .codec = RPC_CODEC_JSON,
        .deadline = deadline_in_ms(patience_ms),
        .max_bytes = MAX_BYTES};
}

/* A connection on which the peer has answered already; it sends no more when `ends`. Stores the
 * peer's end, which must stay open until the call is over. */
static struct http_conn *answered(struct slice answer, bool ends, int *ret_peer)
{
    struct err e = {0};
    struct http_conn *c;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(io_write_full(fds[1], answer.p, answer.n, deadline_in_ms(PATIENCE_MS), &e), 0);
    if (ends)
        assert_int_equal(shutdown(fds[1], SHUT_WR), 0);
    c = http_conn_new(fds[0], &e);
    assert_non_null(c);
    *ret_peer = fds[1];
    return c;
}

static int call_unary(struct slice answer, struct err *e)
{
    AUTO_CLOSE int peer = -1;
    struct http_conn *c = answered(answer, /* ends= */ true, &peer);
    struct rpc_request r = request_of(PATIENCE_MS);
    struct sample got;
    struct arena a;
    int rc;
    arena_init(&a, ARENA_BYTES);
    rc = rpc_call_unary(c, &r, &a, &got, e);
    arena_done(&a);
    http_conn_free(c);
    return rc;
}

/* Opens a stream and reads until it ends; returns how the last step went, stores the messages. */
static int call_stream(struct slice answer, int *ret_messages, struct err *e)
{
    AUTO_CLOSE int peer = -1;
    struct http_conn *c = answered(answer, /* ends= */ true, &peer);
    struct rpc_request r = request_of(PATIENCE_MS);
    struct rpc_stream s;
    struct sample got;
    struct arena a;
    int rc;
    arena_init(&a, ARENA_BYTES);
    *ret_messages = 0;
    rc = rpc_stream_open(&s, c, &r, e);
    if (rc == 0)
        while ((rc = rpc_stream_next(&s, &a, &got, e)) == 1)
            ++*ret_messages;
    rpc_stream_done(&s);
    arena_done(&a);
    http_conn_free(c);
    return rc;
}

/* A whole response with a Content-Length. */
static void put_response(struct buf *out, int status, const char *headers, struct slice body)
{
    buf_printf(out, "HTTP/1.1 %d X\r\n%sContent-Length: %zu\r\n\r\n", status, headers, body.n);
    buf_append_slice(out, body);
}

#define JSON_TYPE "Content-Type: application/json\r\n"
#define STREAM_TYPE "Content-Type: application/connect+json\r\n"

static void unary_replies_are_judged(void **state)
{
    static const struct {
        int status;
        const char *headers;
        struct slice body;
        enum err_kind kind; /* ERR_NONE: it succeeds */
        const char *msg;
    } cases[] = {
        {200, JSON_TYPE, SLICE_LIT("{\"unknown\":1}"), ERR_NONE, ""},
        {200, JSON_TYPE, SLICE_LIT("{"), ERR_PROTOCOL, NULL},
        {200, JSON_TYPE, SLICE_LIT("{\"int32\":\"x\"}"), ERR_PROTOCOL, NULL},
        {200, "Content-Type: application/proto\r\n", SLICE_LIT(""), ERR_PROTOCOL, NULL},
        {200, STREAM_TYPE, SLICE_LIT("{}"), ERR_PROTOCOL, NULL},
        {200, "", SLICE_LIT("{}"), ERR_PROTOCOL, NULL},
        {404, JSON_TYPE, SLICE_LIT("{\"code\":\"not_found\",\"message\":\"gone\"}"), ERR_NOT_FOUND,
            "gone"},
        {404, JSON_TYPE, SLICE_LIT("{\"code\":\"not_found\"}"), ERR_NOT_FOUND, "not_found"},
        {503, JSON_TYPE "Torpor-Error: no_capacity\r\n", SLICE_LIT("{\"code\":\"unavailable\"}"),
            ERR_NO_CAPACITY, "unavailable"},
        {503, JSON_TYPE "Torpor-Error: made_up\r\n", SLICE_LIT("{\"code\":\"unavailable\"}"),
            ERR_UNAVAILABLE, "unavailable"},
        {500, JSON_TYPE "Torpor-Error: none\r\n", SLICE_LIT("{\"code\":\"made_up\"}"), ERR_INTERNAL,
            "made_up"},
        {500, JSON_TYPE, SLICE_LIT("{\"code\":5,\"message\":[]}"), ERR_AGENT,
            "the call failed and does not say why"},
        {401, "", SLICE_LIT("no"), ERR_UNAUTHORIZED, "/test.Service/Method: status 401"},
        {403, "", SLICE_LIT(""), ERR_FORBIDDEN, "/test.Service/Method: status 403"},
        {404, "", SLICE_LIT("<html>"), ERR_UNSUPPORTED, "/test.Service/Method: status 404"},
        {502, "", SLICE_LIT("[]"), ERR_UNAVAILABLE, "/test.Service/Method: status 502"},
        {415, "", SLICE_LIT(""), ERR_AGENT, "/test.Service/Method: status 415"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_BUF struct buf answer = BUF_INIT(1 << 16);
        struct err e = {0};
        put_response(&answer, cases[i].status, cases[i].headers, cases[i].body);
        assert_int_equal(call_unary(buf_slice(&answer), &e), cases[i].kind ? -1 : 0);
        if (e.kind != cases[i].kind)
            fail_msg("case %zu: %s: %s", i, err_kind_name(e.kind), e.msg);
        if (cases[i].msg)
            assert_string_equal(e.msg, cases[i].msg);
    }
}

static void long_messages_are_cut_between_characters(void **state)
{
    AUTO_BUF struct buf body = BUF_INIT(1 << 16);
    AUTO_BUF struct buf answer = BUF_INIT(1 << 16);
    struct err e = {0};
    (void)state;
    buf_append_cstr(&body, "{\"code\":\"internal\",\"message\":\"");
    for (int i = 0; i < 200; i++)
        buf_append_cstr(&body, "\xc3\xa9");
    buf_append_cstr(&body, "\"}");
    put_response(&answer, 500, JSON_TYPE, buf_slice(&body));
    assert_int_equal(call_unary(buf_slice(&answer), &e), -1);
    assert_int_equal(strlen(e.msg), 254);
    assert_true(utf8_valid(e.msg, strlen(e.msg)));
}

static void cut_unary_reply_is_an_error(void **state)
{
    struct err e = {0};
    (void)state;
    assert_int_equal(
        call_unary(SLICE_LIT("HTTP/1.1 200 OK\r\n" JSON_TYPE "Content-Length: 10\r\n\r\n{}"), &e),
        -1);
    assert_int_equal(e.kind, ERR_PROTOCOL);
}

static void streams_are_judged(void **state)
{
#define EMPTY "\0\0\0\0\2{}"
    static const struct {
        struct slice body;
        int messages;
        enum err_kind kind; /* ERR_NONE: it ends well */
    } cases[] = {
        {SLICE_LIT("\2\0\0\0\2{}"), 0, ERR_NONE},
        {SLICE_LIT(EMPTY EMPTY "\2\0\0\0\2{}"), 2, ERR_NONE},
        {SLICE_LIT("\2\0\0\0\x0e{\"error\":null}"), 0, ERR_NONE},
        {SLICE_LIT(EMPTY), 1, ERR_PROTOCOL},                 /* no end */
        {SLICE_LIT(""), 0, ERR_PROTOCOL},                    /* nothing at all */
        {SLICE_LIT(EMPTY "\0\0\0"), 1, ERR_PROTOCOL},        /* cut envelope */
        {SLICE_LIT(EMPTY "\0\0\0\0\x09{"), 1, ERR_PROTOCOL}, /* cut message */
        {SLICE_LIT("\2\0\0\0\2{}x"), 0, ERR_PROTOCOL},       /* more behind the end */
        {SLICE_LIT("\2\0\0\0\2{}" EMPTY), 0, ERR_PROTOCOL},
        {SLICE_LIT("\1\0\0\0\2{}"), 0, ERR_PROTOCOL}, /* compressed */
        {SLICE_LIT("\3\0\0\0\2{}"), 0, ERR_PROTOCOL}, /* compressed end */
        {SLICE_LIT("\0\xff\xff\xff\xff"), 0, ERR_TOO_LARGE},
        {SLICE_LIT("\2\xff\xff\xff\xff"), 0, ERR_TOO_LARGE},
        {SLICE_LIT("\0\0\0\0\2[]"), 0, ERR_PROTOCOL}, /* no message */
        {SLICE_LIT("\2\0\0\0\2[]"), 0, ERR_PROTOCOL}, /* no end object */
        {SLICE_LIT("\2\0\0\0\0"), 0, ERR_PROTOCOL},
        {SLICE_LIT("\2\0\0\0\x1c{\"error\":{\"code\":\"aborted\"}}"), 0, ERR_CONFLICT},
        {SLICE_LIT("\2\0\0\0\x0d{\"error\":\"x\"}"), 0, ERR_INTERNAL},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_BUF struct buf answer = BUF_INIT(1 << 16);
        struct err e = {0};
        int messages;
        int rc;
        put_response(&answer, 200, STREAM_TYPE, cases[i].body);
        rc = call_stream(buf_slice(&answer), &messages, &e);
        if (rc != (cases[i].kind ? -1 : 0) || e.kind != cases[i].kind)
            fail_msg("case %zu: %d, %s: %s", i, rc, err_kind_name(e.kind), e.msg);
        assert_int_equal(messages, cases[i].messages);
    }
}

/* Starts a client stream and finishes it. */
static int call_client_stream(struct slice answer, struct sample *ret, struct err *e)
{
    AUTO_CLOSE int peer = -1;
    struct http_conn *c = answered(answer, /* ends= */ true, &peer);
    struct rpc_request r = request_of(PATIENCE_MS);
    struct rpc_stream s;
    struct arena a;
    int rc;
    arena_init(&a, ARENA_BYTES);
    rc = rpc_stream_start(&s, c, &r, e);
    if (rc == 0)
        rc = rpc_stream_finish(&s, &a, ret, e);
    rpc_stream_done(&s);
    arena_done(&a);
    http_conn_free(c);
    return rc;
}

static void answers_to_client_streams_are_judged(void **state)
{
#define SEVEN "\0\0\0\0\x0b{\"int32\":7}"
    static const struct {
        struct slice body;
        enum err_kind kind; /* ERR_NONE: it succeeds */
    } cases[] = {
        {SLICE_LIT(SEVEN "\2\0\0\0\2{}"), ERR_NONE},
        {SLICE_LIT("\2\0\0\0\2{}"), ERR_PROTOCOL},             /* no answer */
        {SLICE_LIT(SEVEN SEVEN "\2\0\0\0\2{}"), ERR_PROTOCOL}, /* two of them */
        {SLICE_LIT(SEVEN), ERR_PROTOCOL},                      /* no end */
        {SLICE_LIT(SEVEN "\2\0\0"), ERR_PROTOCOL},
        {SLICE_LIT(SEVEN "\2\0\0\0\2{}x"), ERR_PROTOCOL}, /* more behind the end */
        {SLICE_LIT(""), ERR_PROTOCOL},
        {SLICE_LIT("\0\xff\xff\xff\xff"), ERR_TOO_LARGE},
        {SLICE_LIT("\2\0\0\0\x1c{\"error\":{\"code\":\"aborted\"}}"), ERR_CONFLICT},
        {SLICE_LIT(SEVEN "\2\0\0\0\x1c{\"error\":{\"code\":\"aborted\"}}"), ERR_CONFLICT},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_BUF struct buf answer = BUF_INIT(1 << 16);
        struct sample got = {0};
        struct err e = {0};
        int rc;
        put_response(&answer, 200, STREAM_TYPE, cases[i].body);
        rc = call_client_stream(buf_slice(&answer), &got, &e);
        if (rc != (cases[i].kind ? -1 : 0) || e.kind != cases[i].kind)
            fail_msg("case %zu: %d, %s: %s", i, rc, err_kind_name(e.kind), e.msg);
        if (rc == 0)
            assert_int_equal(got.int32, 7);
    }
}

static void client_stream_errors_may_come_in_plain_http(void **state)
{
    AUTO_BUF struct buf answer = BUF_INIT(1 << 16);
    struct sample got;
    struct err e = {0};
    (void)state;
    put_response(&answer, 401, "", SLICE_LIT("no"));
    assert_int_equal(call_client_stream(buf_slice(&answer), &got, &e), -1);
    assert_int_equal(e.kind, ERR_UNAUTHORIZED);
}

static void stream_needs_its_content_type(void **state)
{
    AUTO_BUF struct buf answer = BUF_INIT(1 << 16);
    struct err e = {0};
    int messages;
    (void)state;
    put_response(&answer, 200, JSON_TYPE, SLICE_LIT("{}"));
    assert_int_equal(call_stream(buf_slice(&answer), &messages, &e), -1);
    assert_int_equal(e.kind, ERR_PROTOCOL);
}

static void silence_is_a_timeout(void **state)
{
    AUTO_CLOSE int peer = -1;
    struct http_conn *c = answered(SLICE_LIT(""), /* ends= */ false, &peer);
    struct rpc_request r = request_of(/* patience_ms= */ 50);
    struct sample got;
    struct arena a;
    struct err e = {0};
    (void)state;
    arena_init(&a, ARENA_BYTES);
    assert_int_equal(rpc_call_unary(c, &r, &a, &got, &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    assert_false(http_conn_reusable(c));
    arena_done(&a);
    http_conn_free(c);
}

static void request_is_the_protocol_s(void **state)
{
    AUTO_CLOSE int peer = -1;
    AUTO_BUF struct buf answer = BUF_INIT(1 << 16);
    struct http_header header = {SLICE_LIT("X-Access-Token"), SLICE_LIT("secret")};
    struct rpc_request r = request_of(PATIENCE_MS);
    struct http_conn *c;
    struct sample got;
    struct arena a;
    struct err e = {0};
    char text[1024] = "";
    (void)state;
    put_response(&answer, 200, JSON_TYPE, SLICE_LIT("{}"));
    c = answered(buf_slice(&answer), /* ends= */ false, &peer);
    r.timeout_ms = 1500;
    r.headers = &header;
    r.n_headers = 1;
    arena_init(&a, ARENA_BYTES);
    assert_int_equal(rpc_call_unary(c, &r, &a, &got, &e), 0);
    assert_true(http_conn_reusable(c));
    assert_true(io_read(peer, text, sizeof text - 1, deadline_in_ms(PATIENCE_MS), &e) > 0);
    assert_ptr_equal(strstr(text, "POST /test.Service/Method HTTP/1.1\r\n"), text);
    assert_non_null(strstr(text, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(text, "\r\nConnect-Protocol-Version: 1\r\n"));
    assert_non_null(strstr(text, "\r\nConnect-Timeout-Ms: 1500\r\n"));
    assert_non_null(strstr(text, "\r\nX-Access-Token: secret\r\n"));
    assert_non_null(strstr(text, "\r\nContent-Length: 2\r\n"));
    assert_non_null(strstr(text, "\r\n\r\n{}"));
    arena_done(&a);
    http_conn_free(c);
}

static void bad_requests_are_not_sent(void **state)
{
    AUTO_CLOSE int peer = -1;
    struct http_conn *c = answered(SLICE_LIT(""), /* ends= */ false, &peer);
    struct rpc_request r = request_of(PATIENCE_MS);
    struct sample bad = {.text = SLICE_LIT("\xff")};
    struct http_header header = {SLICE_LIT("X"), SLICE_LIT("a\r\nb")};
    struct sample got;
    struct arena a;
    struct err e = {0};
    char byte;
    (void)state;
    arena_init(&a, ARENA_BYTES);
    r.msg = &bad;
    assert_int_equal(rpc_call_unary(c, &r, &a, &got, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_string_equal(e.where, "text");
    r.msg = &nothing;
    r.headers = &header;
    r.n_headers = 1;
    assert_int_equal(rpc_call_unary(c, &r, &a, &got, &e), -1);
    assert_int_equal(e.kind, ERR_INVALID);
    assert_int_equal(recv(peer, &byte, 1, MSG_DONTWAIT), -1);
    arena_done(&a);
    http_conn_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unary_replies_are_judged),
        cmocka_unit_test(long_messages_are_cut_between_characters),
        cmocka_unit_test(cut_unary_reply_is_an_error),
        cmocka_unit_test(streams_are_judged),
        cmocka_unit_test(answers_to_client_streams_are_judged),
        cmocka_unit_test(client_stream_errors_may_come_in_plain_http),
        cmocka_unit_test(stream_needs_its_content_type),
        cmocka_unit_test(silence_is_a_timeout),
        cmocka_unit_test(request_is_the_protocol_s),
        cmocka_unit_test(bad_requests_are_not_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
