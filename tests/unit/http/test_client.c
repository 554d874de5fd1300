/* SPDX-License-Identifier: Apache-2.0 */
/* The client against a scripted server on the other end of a socketpair. */
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>

#include "http/client.h"

struct pair {
    struct http_conn *conn;
    int peer;
};

static int setup(void **state)
{
    struct pair *p = calloc(1, sizeof *p);
    struct err e;
    int fds[2];
    if (!p || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return -1;
    p->conn = http_conn_new(fds[0], &e);
    p->peer = fds[1];
    *state = p;
    return p->conn ? 0 : -1;
}

static void peer_close(struct pair *p)
{
    (void)close(p->peer);
    p->peer = -1;
}

static int teardown(void **state)
{
    struct pair *p = *state;
    (void)http_conn_free(p->conn);
    if (p->peer >= 0)
        peer_close(p);
    free(p);
    return 0;
}

static int64_t soon(void)
{
    return deadline_in_ms(PEER_PATIENCE_MS);
}

static const struct http_call get_call = {
    .method = "GET", .target = "/x", .host = "h", .body_length = HTTP_BODY_IS_SLICE};

static void send_get(struct pair *p)
{
    struct err e = {0};
    if (http_send(p->conn, &get_call, soon(), &e) < 0)
        fail_msg("%s", e.msg);
    peer_expect(p->peer, "\r\n\r\n", "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
}

static const struct http_response_head *recv_head(struct pair *p)
{
    const struct http_response_head *h = NULL;
    struct err e = {0};
    if (http_recv_head(p->conn, &h, soon(), &e) < 0)
        fail_msg("%s", e.msg);
    return h;
}

static void expect_body(struct pair *p, const char *expected)
{
    AUTO_BUF struct buf b = BUF_INIT(1 << 20);
    struct err e = {0};
    if (http_recv_body_all(p->conn, &b, soon(), &e) < 0)
        fail_msg("%s", e.msg);
    assert_string_equal(b.p ? b.p : "", expected);
}

static void test_keep_alive(void **state)
{
    struct pair *p = *state;
    for (int i = 0; i < 3; i++) {
        assert_true(http_conn_reusable(p->conn));
        send_get(p);
        assert_false(http_conn_reusable(p->conn));
        peer_send(p->peer, "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 3\r\n\r\nabc");
        const struct http_response_head *h = recv_head(p);
        assert_int_equal(h->status, 200);
        assert_true(slice_is(http_header_find(h->headers, h->n_headers, "x"), "y"));
        assert_false(http_conn_reusable(p->conn));
        expect_body(p, "abc");
    }
    assert_true(http_conn_reusable(p->conn));
    peer_close(p);
    assert_false(http_conn_reusable(p->conn));
}

static void test_framings(void **state)
{
    static const struct {
        const char *method;
        const char *reply;
        const char *body;
        bool reusable;
    } cases[] = {
        {"GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            "abcde", true},
        {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: x\r\n\r\n", "", true},
        {"GET", "HTTP/1.1 204 No Content\r\n\r\n", "", true},
        {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "", true},
        {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "", true},
        {"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", true},
        {"GET",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n"
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
            "x", true},
        {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx", "x", false},
        {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n", "x", false},
        {"GET", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", "x", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct http_call call = get_call;
        struct err e = {0};
        void *one = NULL;
        assert_int_equal(setup(&one), 0);
        struct pair *p = one;
        call.method = cases[i].method;
        assert_int_equal(http_send(p->conn, &call, soon(), &e), 0);
        peer_send(p->peer, cases[i].reply);
        (void)recv_head(p);
        expect_body(p, cases[i].body);
        assert_int_equal(http_conn_reusable(p->conn), cases[i].reusable);
        assert_int_equal(teardown(&one), 0);
    }
    (void)state;
}

static void test_until_close(void **state)
{
    struct pair *p = *state;
    send_get(p);
    peer_send(p->peer, "HTTP/1.1 200 OK\r\n\r\nall of it");
    peer_close(p);
    (void)recv_head(p);
    expect_body(p, "all of it");
    assert_false(http_conn_reusable(p->conn));
}

/* Each reply arrives in single bytes, read with a tiny buffer. */
static void test_byte_by_byte(void **state)
{
    struct pair *p = *state;
    const char *reply = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                        "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    char got[32] = "";
    size_t n = 0;
    struct err e = {0};
    const struct http_response_head *h = NULL;
    send_get(p);
    for (size_t i = 0; i < strlen(reply); i++) {
        char one[2] = {reply[i]};
        char dst[3];
        ssize_t rc;
        peer_send(p->peer, one);
        if (!h && http_recv_head(p->conn, &h, /* deadline= */ 0, &e) < 0) {
            assert_int_equal(e.kind, ERR_TIMEOUT);
            continue;
        }
        while ((rc = http_recv_body(p->conn, dst, sizeof dst, /* deadline= */ 0, &e)) > 0) {
            memcpy(got + n, dst, (size_t)rc);
            n += (size_t)rc;
        }
        assert_true(rc == 0 || e.kind == ERR_TIMEOUT);
        assert_int_equal(rc == 0, i == strlen(reply) - 1);
    }
    assert_string_equal(got, "hello world");
}

static void test_broken_responses(void **state)
{
    static const struct {
        const char *reply; /* then the server closes */
        enum err_kind kind;
    } cases[] = {
        {"", ERR_UNAVAILABLE},
        {"HTTP/1.1 200", ERR_PROTOCOL},
        {"HTTP/1.1 100 Continue\r\n\r\n", ERR_PROTOCOL},
        {"HTTP/1.1 101 Switching Protocols\r\n\r\n", ERR_PROTOCOL},
        {"garbage\r\n\r\n", ERR_PROTOCOL},
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", ERR_PROTOCOL},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", ERR_PROTOCOL},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ERR_PROTOCOL},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", ERR_PROTOCOL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_BUF struct buf b = BUF_INIT(100);
        const struct http_response_head *h;
        struct err e = {0};
        void *one = NULL;
        assert_int_equal(setup(&one), 0);
        struct pair *p = one;
        send_get(p);
        peer_send(p->peer, cases[i].reply);
        peer_close(p);
        if (http_recv_head(p->conn, &h, soon(), &e) == 0)
            assert_int_equal(http_recv_body_all(p->conn, &b, soon(), &e), -1);
        assert_int_equal(e.kind, cases[i].kind);
        assert_false(http_conn_reusable(p->conn));
        assert_int_equal(teardown(&one), 0);
    }
    (void)state;
}

static void test_body_bound(void **state)
{
    static const char *const replies[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(replies); i++)
        for (size_t max = 4; max <= 5; max++) {
            AUTO_BUF struct buf b = BUF_INIT(max);
            struct err e = {0};
            void *one = NULL;
            assert_int_equal(setup(&one), 0);
            struct pair *p = one;
            send_get(p);
            peer_send(p->peer, replies[i]);
            (void)recv_head(p);
            assert_int_equal(http_recv_body_all(p->conn, &b, soon(), &e), max == 5 ? 0 : -1);
            if (max == 4)
                assert_int_equal(e.kind, ERR_TOO_LARGE);
            assert_int_equal(http_conn_reusable(p->conn), max == 5);
            assert_int_equal(teardown(&one), 0);
        }
    (void)state;
}

static void test_head_bound(void **state)
{
    struct pair *p = *state;
    const struct http_response_head *h;
    struct err e = {0};
    AUTO_FREE char *big = calloc(1, HTTP_HEAD_BYTES_MAX + 100);
    send_get(p);
    memset(big, 'a', HTTP_HEAD_BYTES_MAX + 50);
    memcpy(big, "HTTP/1.1 200 OK\r\nX: ", 20);
    peer_send(p->peer, big);
    assert_int_equal(http_recv_head(p->conn, &h, soon(), &e), -1);
    assert_int_equal(e.kind, ERR_PROTOCOL);
}

static void test_requests_on_the_wire(void **state)
{
    const struct http_header headers[] = {{SLICE_LIT("X-A"), SLICE_LIT("1")}};
    const struct {
        struct http_call call;
        const char *bytes;
    } cases[] = {
        {{.method = "GET", .target = "/", .host = "h", .headers = headers, .n_headers = 1},
            "GET / HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n\r\n"},
        {{.method = "POST", .target = "/?q", .host = "h", .body_length = HTTP_BODY_IS_SLICE},
            "POST /?q HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"},
        {{.method = "DELETE",
             .target = "/",
             .host = "h",
             .body = SLICE_LIT("b"),
             .body_length = -1},
            "DELETE / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nb"},
        {{.method = "PUT", .target = "/", .host = "h", .body = SLICE_LIT("ab"), .body_length = 2},
            "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab"},
        {{.method = "PUT",
             .target = "/",
             .host = "h",
             .body = SLICE_LIT("ab"),
             .body_length = HTTP_BODY_STREAM},
            "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err e = {0};
        void *one = NULL;
        assert_int_equal(setup(&one), 0);
        struct pair *p = one;
        assert_int_equal(http_send(p->conn, &cases[i].call, soon(), &e), 0);
        assert_int_equal(http_send_end(p->conn, soon(), &e), 0);
        assert_int_equal(shutdown(http_conn_fd(p->conn), SHUT_WR), 0);
        AUTO_FREE char *got = peer_recv(p->peer, NULL);
        assert_string_equal(got, cases[i].bytes);
        assert_int_equal(teardown(&one), 0);
    }
    (void)state;
}

static void test_bad_calls(void **state)
{
    const struct http_header framing = {SLICE_LIT("content-length"), SLICE_LIT("1")};
    const struct http_header injected = {SLICE_LIT("A"), SLICE_LIT("b\r\nC: d")};
    const struct http_header bad_name = {SLICE_LIT("A b"), SLICE_LIT("c")};
    const struct http_call calls[] = {
        {.method = "GET", .target = "/a b", .host = "h"},
        {.method = "GET", .target = "/\r\n", .host = "h"},
        {.method = "GET", .target = "", .host = "h"},
        {.method = "GET", .target = "/", .host = ""},
        {.method = "G T", .target = "/", .host = "h"},
        {.method = "GET", .target = "/", .host = "h", .headers = &framing, .n_headers = 1},
        {.method = "GET", .target = "/", .host = "h", .headers = &injected, .n_headers = 1},
        {.method = "GET", .target = "/", .host = "h", .headers = &bad_name, .n_headers = 1},
        {.method = "PUT", .target = "/", .host = "h", .body = SLICE_LIT("abc"), .body_length = 2},
        {.method = "PUT", .target = "/", .host = "h", .body_length = -3},
    };
    struct pair *p = *state;
    const struct http_response_head *h;
    struct err e = {0};
    char byte;
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        assert_int_equal(http_send(p->conn, &calls[i], soon(), &e), -1);
        assert_int_equal(e.kind, ERR_INVALID);
    }
    assert_int_equal(http_recv_head(p->conn, &h, soon(), &e), -1);
    assert_int_equal(http_recv_body(p->conn, &byte, 1, soon(), &e), -1);
    assert_true(http_conn_reusable(p->conn)); /* nothing went out */
    send_get(p);
    assert_int_equal(http_send_body(p->conn, "x", 1, soon(), &e), -1);
    assert_int_equal(http_send(p->conn, &get_call, soon(), &e), -1);
    assert_int_equal(e.kind, ERR_UNAVAILABLE);
}

static void test_streamed_length(void **state)
{
    struct pair *p = *state;
    struct http_call call = {
        .method = "PUT", .target = "/", .host = "h", .body = SLICE_LIT("a"), .body_length = 3};
    struct err e = {0};
    assert_int_equal(http_send(p->conn, &call, soon(), &e), 0);
    assert_int_equal(http_send_end(p->conn, soon(), &e), -1);
    assert_int_equal(http_send_body(p->conn, "bcd", 3, soon(), &e), -1);
    assert_int_equal(http_send_body(p->conn, "bc", 2, soon(), &e), 0);
    assert_int_equal(http_send_end(p->conn, soon(), &e), 0);
    peer_expect(p->peer, "abc", "Content-Length: 3\r\n\r\nabc");
}

static const struct http_call stream_call = {
    .method = "PUT", .target = "/", .host = "h", .body_length = HTTP_BODY_STREAM};

/* Sends until the socket takes no more or the client says to stop. */
static int send_until_failure(struct pair *p, struct err *e)
{
    AUTO_FREE char *block = calloc(1, 65536);
    int rc;
    do
        rc = http_send_body(p->conn, block, 65536, soon(), e);
    while (rc == 0);
    return rc;
}

/* The server refuses the upload, goes on living and reads nothing: the sender is told at once. */
static void test_early_error_stops_sending(void **state)
{
    struct pair *p = *state;
    struct err e = {0};
    assert_int_equal(http_send(p->conn, &stream_call, soon(), &e), 0);
    peer_send(p->peer, "HTTP/1.1 100 Continue\r\n\r\n");
    peer_send(p->peer, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno");
    assert_int_equal(send_until_failure(p, &e), -1);
    assert_int_equal(e.kind, ERR_UNAVAILABLE);
    assert_int_equal(recv_head(p)->status, 413);
    expect_body(p, "no");
    assert_false(http_conn_reusable(p->conn));
}

/* The server answers and closes: sending fails with EPIPE, the answer is still there. */
static void test_early_close_keeps_answer(void **state)
{
    struct pair *p = *state;
    struct err e = {0};
    assert_int_equal(http_send(p->conn, &stream_call, soon(), &e), 0);
    peer_expect(p->peer, "\r\n\r\n", "chunked");
    peer_send(p->peer, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    peer_close(p);
    assert_int_equal(send_until_failure(p, &e), -1);
    assert_int_equal(e.kind, ERR_UNAVAILABLE);
    assert_int_equal(recv_head(p)->status, 403);
    expect_body(p, "no");
}

static void test_send_timeout(void **state)
{
    struct pair *p = *state;
    AUTO_FREE char *block = calloc(1, 16u << 20);
    struct err e = {0};
    assert_int_equal(http_send(p->conn, &stream_call, soon(), &e), 0);
    assert_int_equal(http_send_body(p->conn, block, 16u << 20, deadline_in_ms(20), &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    assert_false(http_conn_reusable(p->conn));
}

static void test_recv_timeout(void **state)
{
    struct pair *p = *state;
    const struct http_response_head *h;
    struct err e = {0};
    char byte;
    send_get(p);
    assert_int_equal(http_recv_head(p->conn, &h, deadline_in_ms(20), &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    peer_send(p->peer, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n");
    (void)recv_head(p);
    assert_int_equal(http_recv_body(p->conn, &byte, 1, deadline_in_ms(20), &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_keep_alive),
        T(test_framings),
        T(test_until_close),
        T(test_byte_by_byte),
        T(test_broken_responses),
        T(test_body_bound),
        T(test_head_bound),
        T(test_requests_on_the_wire),
        T(test_bad_calls),
        T(test_streamed_length),
        T(test_early_error_stops_sending),
        T(test_early_close_keeps_answer),
        T(test_send_timeout),
        T(test_recv_timeout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
