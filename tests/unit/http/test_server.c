/* SPDX-License-Identifier: Apache-2.0 */
/* The server's protocol, over loopback with real threads. */
#include "fixture.h"

#include <signal.h>

#include "http/client.h"

static void test_keep_alive(void **state)
{
    start((struct http_server_config){0});
    AUTO_CLOSE int fd = dial();
    for (int i = 0; i < 3; i++) {
        peer_send(fd, "GET /hello" HOST "\r\n");
        AUTO_FREE char *reply = peer_recv(fd, "hello");
        assert_memory_equal(reply, "HTTP/1.1 200 OK\r\nDate: ", 23);
        assert_non_null(
            strstr(reply, " GMT\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"));
        assert_null(strstr(reply, "Connection"));
    }
    peer_send(fd, "GET /hello" HOST "Connection: close\r\n\r\n");
    peer_expect(fd, NULL, "Connection: close\r\n\r\nhello");
}

static void test_pipelining(void **state)
{
    start((struct http_server_config){0});
    AUTO_CLOSE int fd = dial();
    peer_send(fd, "POST /echo" HOST "Content-Length: 3\r\n\r\nabc\r\n"
                  "POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n"
                  "POST /hello" HOST "Content-Length: 4\r\n\r\nskip"
                  "GET /nowhere" HOST "\r\nGET /hello" HOST "Connection: close\r\n\r\n");
    peer_expect(fd, "\r\n\r\nabc", "200 OK");
    peer_expect(fd, "\r\n\r\nde", "200 OK");
    peer_expect(fd, "\r\n\r\nhello", "200 OK");
    peer_expect(fd, "\r\n\r\nno such path", "404 Not Found");
    peer_expect(fd, "\r\n\r\nhello", "Connection: close");
    peer_expect_end(fd);
}

static void test_byte_by_byte(void **state)
{
    const char *request = "POST /stream-echo" HOST "Transfer-Encoding: chunked\r\n\r\n"
                          "5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n";
    start((struct http_server_config){0});
    AUTO_CLOSE int fd = dial();
    for (; *request; request++)
        peer_send(fd, (char[2]){*request});
    AUTO_FREE char *reply = peer_recv(fd, "0\r\n\r\n");
    assert_non_null(strstr(reply, "Transfer-Encoding: chunked\r\n\r\n"));
    /* it answers as it reads; with what framing is up to the network */
    assert_null(strstr(reply, "hello0123456789"));
}

/* The whole way through our own client, chunked both ways and many sizes. */
static void test_chunked_round_trip(void **state)
{
    struct err e = {0};
    const struct http_call call = {
        .method = "POST", .target = "/stream-echo", .host = "x", .body_length = HTTP_BODY_STREAM};
    start((struct http_server_config){0});
    struct http_conn *c = http_conn_new(dial(), &e);
    for (size_t n = 1; n < 20000; n = n * 3 + 1) {
        AUTO_BUF struct buf sent = BUF_INIT(BODY_MAX);
        AUTO_BUF struct buf got = BUF_INIT(BODY_MAX);
        const struct http_response_head *h;
        int64_t deadline = deadline_in_ms(PEER_PATIENCE_MS);
        for (size_t i = 0; i < n; i++)
            buf_append_char(&sent, (char)('a' + i % 23));
        assert_true(http_conn_reusable(c));
        assert_int_equal(http_send(c, &call, deadline, &e), 0);
        for (size_t at = 0; at < n; at += 1000)
            assert_int_equal(
                http_send_body(c, sent.p + at, n - at < 1000 ? n - at : 1000, deadline, &e), 0);
        assert_int_equal(http_send_end(c, deadline, &e), 0);
        assert_int_equal(http_recv_head(c, &h, deadline, &e), 0);
        assert_int_equal(http_recv_body_all(c, &got, deadline, &e), 0);
        assert_int_equal(got.len, n);
        assert_memory_equal(got.p, sent.p, n);
    }
    (void)http_conn_free(c);
}

static void test_expect_continue(void **state)
{
    start((struct http_server_config){0});
    AUTO_CLOSE int fd = dial();
    peer_send(fd, "POST /echo" HOST "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    peer_expect(fd, "\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n");
    peer_send(fd, "abc");
    peer_expect(fd, "\r\n\r\nabc", "HTTP/1.1 200 OK\r\n");
    /* too large: refused before it is asked for, and the connection cannot go on */
    peer_send(fd, "POST /echo" HOST "Content-Length: 9999999\r\nExpect: 100-continue\r\n\r\n");
    AUTO_FREE char *reply = peer_recv(fd, NULL);
    assert_memory_equal(reply, "HTTP/1.1 413 ", 13);
    assert_non_null(strstr(reply, "Connection: close\r\n"));
}

static void test_head_and_no_content(void **state)
{
    start((struct http_server_config){0});
    AUTO_CLOSE int fd = dial();
    peer_send(fd, "HEAD /hello" HOST "\r\nHEAD /stream-echo" HOST "\r\nGET /no-content" HOST
                  "\r\nGET /hello" HOST "Connection: close\r\n\r\n");
    peer_expect(fd, "\r\n\r\n", "Content-Length: 5\r\n");
    peer_expect(fd, "\r\n\r\n", "Transfer-Encoding: chunked\r\n");
    AUTO_FREE char *reply = peer_recv(fd, "\r\n\r\n");
    assert_memory_equal(reply, "HTTP/1.1 204 No Content\r\nDate", 29);
    assert_null(strstr(reply, "Content-Length"));
    peer_expect(fd, NULL, "\r\n\r\nhello");
}

static void test_http10(void **state)
{
    start((struct http_server_config){0});
    {
        AUTO_CLOSE int fd = dial();
        peer_send(fd, "GET /hello HTTP/1.0\r\n\r\n");
        peer_expect(fd, NULL, "Content-Length: 5\r\nConnection: close\r\n\r\nhello");
    }
    {
        AUTO_CLOSE int fd = dial();
        peer_send(fd, "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        peer_expect(fd, "hello", "Connection: keep-alive\r\n");
        peer_send(fd, "POST /stream-echo HTTP/1.0\r\nContent-Length: 9\r\n\r\nunchunked");
        AUTO_FREE char *reply = peer_recv(fd, NULL);
        assert_null(strstr(reply, "chunked\r\n"));
        assert_non_null(strstr(reply, "Connection: close\r\n\r\nunchunked"));
    }
}

static void test_query(void **state)
{
    static const struct {
        const char *target;
        const char *expected;
    } cases[] = {
        {"/query?a=1&k%C3%A9=v+w%26&k%C3%A9=2", "X-Found: 1\r\nX-Path: /query\r\n"},
        {"/query?a=1&k%C3%A9=v+w%26", "\r\n\r\nv w&"},
        {"/query?k%C3%A9", "X-Found: 1\r\n"},
        {"/query?k%C3%A9=%zz", "X-Found: 0\r\n"},
        {"/query?k%C3%A9=%00", "X-Found: 0\r\n"},
        {"/query?&&=&x=k", "X-Found: 0\r\n"},
        {"/query", "X-Found: 0\r\n"},
    };
    start((struct http_server_config){0});
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_CLOSE int fd = dial();
        char request[200];
        (void)snprintf(
            request, sizeof request, "GET %s" HOST "Connection: close\r\n\r\n", cases[i].target);
        peer_send(fd, request);
        peer_expect(fd, NULL, cases[i].expected);
    }
}

static void test_error_statuses(void **state)
{
    static const struct {
        const char *request;
        const char *status;
        const char *kind;
    } cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", "400 Bad Request", "invalid_request"},
        {"GET / HTTP/1.1\nHost: x\n\n", "400 Bad Request", "invalid_request"},
        {"GET / HTTP/2.0\r\n\r\n", "505 HTTP Version Not Supported", "unsupported"},
        {"POST /" HOST "Transfer-Encoding: gzip\r\n\r\n", "501 Not Implemented", "unsupported"},
    };
    for (int custom = 0; custom < 2; custom++) {
        start((struct http_server_config){.on_error = custom ? handle_error : NULL});
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
            AUTO_CLOSE int fd = dial();
            peer_send(fd, cases[i].request);
            AUTO_FREE char *reply = peer_recv(fd, NULL);
            assert_non_null(strstr(reply, cases[i].status));
            assert_non_null(strstr(reply, "Connection: close\r\n"));
            assert_int_equal(strstr(reply, cases[i].kind) != NULL, custom);
        }
        stop();
        assert_int_equal(fx.errors, custom ? ARRAY_LEN(cases) : 0);
    }
}

static void test_head_too_large(void **state)
{
    static const struct {
        const char *start;
        const char *status;
    } cases[] = {{"GET /", "414 URI"}, {"GET /" HOST "X: ", "431 Request Header"}};
    start((struct http_server_config){0});
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_CLOSE int fd = dial();
        AUTO_FREE char *big = calloc(1, 70000);
        memset(big, 'a', 69999);
        memcpy(big, cases[i].start, strlen(cases[i].start));
        peer_send(fd, big);
        /* although more is sent than was read, the answer is not lost to a reset */
        peer_expect(fd, NULL, cases[i].status);
    }
}

static void test_body_bounds(void **state)
{
    AUTO_FREE char *body = calloc(1, BODY_MAX + 100);
    char head[200];
    int n;
    start((struct http_server_config){0});
    for (int chunked = 0; chunked < 2; chunked++) {
        AUTO_CLOSE int fd = dial();
        memset(body, 'b', BODY_MAX + 1);
        n = snprintf(head, sizeof head, "POST /echo" HOST "%s\r\n\r\n%s",
            chunked ? "Transfer-Encoding: chunked" : "Content-Length: 1048577",
            chunked ? "100001\r\n" : "");
        assert_true(n > 0);
        peer_send(fd, head);
        if (chunked)
            peer_send(fd, body);
        peer_expect(fd, NULL, "HTTP/1.1 413 Content Too Large");
        assert_int_equal(fx.body_error, ERR_TOO_LARGE);
    }
}

static void test_malformed_body(void **state)
{
    static const struct {
        const char *request;
        enum err_kind kind;
    } cases[] = {
        {"POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\nzz\r\n", ERR_INVALID},
        {"POST /echo" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\nab", ERR_PROTOCOL},
        {"POST /echo" HOST "Content-Length: 5\r\n\r\nab", ERR_PROTOCOL},
    };
    start((struct http_server_config){0});
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_CLOSE int fd = dial();
        peer_send(fd, cases[i].request);
        assert_int_equal(shutdown(fd, SHUT_WR), 0);
        AUTO_FREE char *rest = peer_recv(fd, NULL);
        assert_non_null(strstr(rest, "Connection: close"));
        wait_for(&fx.errors, (int)i + 1);
        assert_int_equal(fx.body_error, cases[i].kind);
    }
}

static void test_unread_body(void **state)
{
    AUTO_FREE char *body = calloc(1, 100001);
    start((struct http_server_config){0});
    AUTO_CLOSE int fd = dial();
    memset(body, 'b', 100000);
    /* small: drained, also when it comes late, and the connection goes on */
    peer_send(fd, "POST /hello" HOST "Content-Length: 100000\r\n\r\n");
    peer_expect(fd, "hello", "200 OK");
    peer_send(fd, body);
    peer_send(fd, "GET /hello" HOST "\r\n");
    peer_expect(fd, "hello", "200 OK");
    /* large: the reply says that the connection ends */
    peer_send(fd, "POST /hello" HOST "Content-Length: 100000000\r\n\r\n");
    peer_send(fd, body);
    peer_expect(fd, NULL, "Connection: close\r\n\r\nhello");
}

static void test_broken_replies(void **state)
{
    static const struct {
        const char *request;
        const char *rest; /* all that comes behind the head */
    } cases[] = {
        {"GET /abort" HOST "\r\n", "4\r\nhalf\r\n"},
        {"GET /short" HOST "\r\n", "abc"},
        {"GET /forgotten" HOST "\r\n", ""},
    };
    start((struct http_server_config){0});
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_CLOSE int fd = dial();
        peer_send(fd, cases[i].request);
        peer_expect(fd, "\r\n\r\n", "200 OK");
        AUTO_FREE char *rest = peer_recv(fd, NULL);
        assert_string_equal(rest, cases[i].rest);
    }
    AUTO_CLOSE int fd = dial();
    peer_send(fd, "GET /nothing" HOST "\r\nGET /hello" HOST "\r\n");
    peer_expect(fd, "\r\n\r\n", "500 Internal Server Error\r\n");
    peer_expect(fd, "hello", "200 OK");
}

/* Where the end of the connection ends the body, an abort must be a reset. */
static void test_abort_http10_resets(void **state)
{
    struct err e = {0};
    char rest[100];
    ssize_t got;
    start((struct http_server_config){0});
    AUTO_CLOSE int fd = dial();
    peer_send(fd, "GET /abort HTTP/1.0\r\n\r\n");
    do
        got = io_read(fd, rest, sizeof rest, deadline_in_ms(PEER_PATIENCE_MS), &e);
    while (got > 0);
    assert_int_equal(got, -1);
    assert_int_equal(e.errnum, ECONNRESET);
}

int main(void)
{
#define T(f) cmocka_unit_test_teardown(f, stop_if_running)
    const struct CMUnitTest tests[] = {
        T(test_keep_alive),
        T(test_pipelining),
        T(test_byte_by_byte),
        T(test_chunked_round_trip),
        T(test_expect_continue),
        T(test_head_and_no_content),
        T(test_http10),
        T(test_query),
        T(test_error_statuses),
        T(test_head_too_large),
        T(test_body_bounds),
        T(test_malformed_body),
        T(test_unread_body),
        T(test_broken_replies),
        T(test_abort_http10_resets),
    };
    (void)signal(SIGPIPE, SIG_DFL); /* the library must never raise it */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
