/* SPDX-License-Identifier: Apache-2.0 */
/* The server over loopback and unix sockets with real threads. */
#include "peer.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/un.h>

#include "base/sock.h"
#include "http/client.h"
#include "http/server.h"
#include "http/status.h"

enum { BIG_BYTES = 8 << 20, BODY_MAX = 1 << 20 };

struct fixture {
    struct http_server *server;
    uint16_t port;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int blocked;   /* handlers of /block that wait */
    bool released; /* they may go on */
    int gone;      /* handlers that saw their client leave */
    enum err_kind body_error;
    int errors; /* calls of on_error */
};

static struct fixture fx;

static void note(int *counter)
{
    MUTEX_GUARD(&fx.lock);
    (*counter)++;
    (void)pthread_cond_broadcast(&fx.changed);
}

static void wait_for(const int *counter, int at_least)
{
    int64_t end = deadline_in_ms(PEER_PATIENCE_MS);
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PEER_PATIENCE_MS / 1000;
    MUTEX_GUARD(&fx.lock);
    while (*counter < at_least && clock_mono_ms() < end)
        (void)pthread_cond_timedwait(&fx.changed, &fx.lock, &until);
    assert_true(*counter >= at_least);
}

/* --- handlers --- */

static void handle_block(struct http_exchange *x)
{
    note(&fx.blocked);
    (void)pthread_mutex_lock(&fx.lock);
    while (!fx.released)
        (void)pthread_cond_wait(&fx.changed, &fx.lock);
    (void)pthread_mutex_unlock(&fx.lock);
    (void)http_reply(x, 200, NULL, SLICE_LIT("late"));
}

static void handle_echo(struct http_exchange *x)
{
    AUTO_BUF struct buf b = BUF_INIT(BODY_MAX);
    struct err e = {0};
    if (http_body_read_all(x, &b, &e) == 0) {
        (void)http_reply(x, 200, "text/plain", buf_slice(&b));
        return;
    }
    (void)pthread_mutex_lock(&fx.lock);
    fx.body_error = e.kind;
    (void)pthread_mutex_unlock(&fx.lock);
    (void)http_reply(x, http_status_from_kind(e.kind), NULL, slice_cstr(e.msg));
    note(&fx.errors);
}

static void handle_stream_echo(struct http_exchange *x)
{
    char block[7];
    struct err e = {0};
    ssize_t n;
    assert_int_equal(http_reply_begin(x, 200, "text/plain", -1, &e), 0);
    while ((n = http_body_read(x, block, sizeof block, &e)) > 0)
        if (http_reply_write(x, block, (size_t)n, &e) < 0)
            return;
    if (n == 0)
        (void)http_reply_end(x, &e);
}

static void handle_abort(struct http_exchange *x)
{
    struct err e = {0};
    assert_int_equal(http_reply_begin(x, 200, NULL, -1, &e), 0);
    assert_int_equal(http_reply_write(x, "half", 4, &e), 0);
    http_reply_abort(x);
    assert_int_equal(http_reply_write(x, "more", 4, &e), -1);
}

static void handle_short(struct http_exchange *x)
{
    struct err e = {0};
    assert_int_equal(http_reply_begin(x, 200, NULL, 10, &e), 0);
    assert_int_equal(http_reply_write(x, "abc", 3, &e), 0);
    assert_int_equal(http_reply_end(x, &e), -1);
}

static void handle_forgotten(struct http_exchange *x)
{
    struct err e = {0};
    assert_int_equal(http_reply_begin(x, 200, NULL, -1, &e), 0);
}

static void handle_wait_gone(struct http_exchange *x)
{
    struct err e = {0};
    assert_false(http_peer_gone(x));
    note(&fx.blocked);
    if (io_wait(http_fd(x), POLLRDHUP, deadline_in_ms(PEER_PATIENCE_MS), &e) > 0 &&
        http_peer_gone(x))
        note(&fx.gone);
}

static void handle_big(struct http_exchange *x)
{
    char *big = calloc(1, BIG_BYTES);
    if (http_reply(x, 200, NULL, slice_of(big, BIG_BYTES)) < 0)
        note(&fx.gone);
    free(big);
}

static void handle_query(struct http_exchange *x)
{
    struct slice v;
    bool found = http_request_query(x, "k\xc3\xa9", &v);
    http_reply_header(x, "X-Found", "%d", found);
    http_reply_header(x, "X-Path", "%.*s", (int)http_request(x)->path.n, http_request(x)->path.p);
    (void)http_reply(x, 200, NULL, found ? v : slice_of(NULL, 0));
}

static void handle_hello(struct http_exchange *x)
{
    (void)http_reply(x, 200, "text/plain", SLICE_LIT("hello"));
}

static void handle_nothing(struct http_exchange *x)
{
    assert_false(http_reply_begun(x));
}

static void handle_no_content(struct http_exchange *x)
{
    (void)http_reply(x, 204, NULL, slice_of(NULL, 0));
}

static const struct {
    const char *path;
    void (*run)(struct http_exchange *x);
} routes[] = {
    {"/hello", handle_hello},
    {"/block", handle_block},
    {"/echo", handle_echo},
    {"/stream-echo", handle_stream_echo},
    {"/abort", handle_abort},
    {"/short", handle_short},
    {"/forgotten", handle_forgotten},
    {"/wait-gone", handle_wait_gone},
    {"/big", handle_big},
    {"/query", handle_query},
    {"/nothing", handle_nothing},
    {"/no-content", handle_no_content},
};

static void handle(struct http_exchange *x, void *ctx)
{
    for (size_t i = 0; i < ARRAY_LEN(routes); i++)
        if (slice_is(http_request(x)->path, routes[i].path)) {
            routes[i].run(x);
            return;
        }
    (void)http_reply(x, 404, NULL, SLICE_LIT("no such path"));
}

static void handle_error(struct http_exchange *x, const struct err *why, void *ctx)
{
    note(&fx.errors);
    (void)http_reply(x, http_error_status(x), "text/plain", slice_cstr(err_kind_name(why->kind)));
}

/* --- fixture --- */

static void start(struct http_server_config config)
{
    struct err e = {0};
    fx = (struct fixture){0};
    (void)pthread_mutex_init(&fx.lock, NULL);
    (void)pthread_cond_init(&fx.changed, NULL);
    config.listen_fd = sock_listen_tcp("127.0.0.1", 0, &e);
    assert_true(config.listen_fd >= 0);
    fx.port = sock_local_port(config.listen_fd);
    config.handler = handle;
    fx.server = http_server_start(&config, &e);
    assert_non_null(fx.server);
}

static void release(void)
{
    MUTEX_GUARD(&fx.lock);
    fx.released = true;
    (void)pthread_cond_broadcast(&fx.changed);
}

static void stop(void)
{
    release();
    http_server_stop(fx.server);
    fx.server = NULL;
}

static int stop_if_running(void **state)
{
    if (fx.server)
        stop();
    return 0;
}

static int dial(void)
{
    struct err e = {0};
    int fd = sock_connect_tcp("127.0.0.1", fx.port, deadline_in_ms(PEER_PATIENCE_MS), &e);
    if (fd < 0)
        fail_msg("%s", e.msg);
    return fd;
}

#define HOST " HTTP/1.1\r\nHost: x\r\n"

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

/* A head that never ends costs no thread: 40 of them, two workers, and others are served. */
static void test_slow_loris(void **state)
{
    int fds[40];
    start((struct http_server_config){
        .threads_max = 2, .head_timeout_ms = 300, .on_error = handle_error});
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = dial();
        peer_send(fds[i], "GET /hello HTTP/1.1\r\nHo");
    }
    AUTO_CLOSE int fd = dial();
    peer_send(fd, "GET /hello" HOST "\r\n");
    peer_expect(fd, "hello", "200 OK");
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        peer_expect(fds[i], NULL, "HTTP/1.1 408 Request Timeout\r\n");
        (void)close(fds[i]);
    }
    assert_int_equal(fx.errors, ARRAY_LEN(fds));
}

/* The deadline counts from the first byte; more bytes do not move it. */
static void test_drip_does_not_extend(void **state)
{
    int64_t began;
    struct pollfd p;
    start((struct http_server_config){.head_timeout_ms = 200});
    AUTO_CLOSE int fd = dial();
    began = clock_mono_ms();
    peer_send(fd, "GET /hello" HOST "X: ");
    p = (struct pollfd){.fd = fd, .events = POLLIN};
    while (poll(&p, 1, /* timeout_ms= */ 20) == 0 && clock_mono_ms() - began < PEER_PATIENCE_MS)
        (void)send(fd, "a", 1, MSG_NOSIGNAL);
    assert_in_range(clock_mono_ms() - began, 190, 5000);
    peer_expect(fd, NULL, "408");
}

static void test_idle_timeout(void **state)
{
    start((struct http_server_config){.idle_timeout_ms = 100});
    AUTO_CLOSE int fresh = dial();
    AUTO_CLOSE int used = dial();
    peer_send(used, "GET /hello" HOST "\r\n");
    peer_expect(used, "hello", "200 OK");
    peer_expect_end(used);
    peer_expect_end(fresh);
}

static void test_body_timeout(void **state)
{
    start((struct http_server_config){.io_timeout_ms = 50});
    AUTO_CLOSE int fd = dial();
    peer_send(fd, "POST /echo" HOST "Content-Length: 3\r\n\r\na");
    peer_expect(fd, NULL, "HTTP/1.1 504");
    wait_for(&fx.errors, 1);
    assert_int_equal(fx.body_error, ERR_TIMEOUT);
}

/* A client that does not read holds a worker for io_timeout_ms, not longer. */
static void test_slow_reader(void **state)
{
    start((struct http_server_config){.io_timeout_ms = 100});
    AUTO_CLOSE int fd = dial();
    peer_send(fd, "GET /big" HOST "\r\n");
    wait_for(&fx.gone, 1);
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

static void test_peer_gone(void **state)
{
    start((struct http_server_config){0});
    int fd = dial();
    peer_send(fd, "GET /wait-gone" HOST "\r\n");
    wait_for(&fx.blocked, 1);
    (void)close(fd);
    wait_for(&fx.gone, 1);
}

/* 200 blocked handlers do not keep short requests waiting; then all get their answers. */
static void test_many_blocked(void **state)
{
    int fds[200];
    start((struct http_server_config){.threads_max = 256});
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = dial();
        peer_send(fds[i], "GET /block" HOST "\r\n");
    }
    wait_for(&fx.blocked, ARRAY_LEN(fds));
    AUTO_CLOSE int fd = dial();
    for (int i = 0; i < 20; i++) {
        peer_send(fd, "GET /hello" HOST "\r\n");
        peer_expect(fd, "hello", "200 OK");
    }
    release();
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        peer_expect(fds[i], "late", "200 OK");
        (void)close(fds[i]);
    }
}

/* More requests than threads: they wait for one and are all answered. */
static void test_threads_max(void **state)
{
    int fds[10];
    start((struct http_server_config){.threads_max = 3});
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = dial();
        peer_send(fds[i], "GET /block" HOST "\r\n");
    }
    wait_for(&fx.blocked, 3);
    assert_int_equal(fx.blocked, 3);
    release();
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        peer_expect(fds[i], "late", "200 OK");
        (void)close(fds[i]);
    }
}

static void test_connection_cap(void **state)
{
    int fds[4];
    start((struct http_server_config){.connections_max = 4, .on_error = handle_error});
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = dial();
        peer_send(fds[i], "GET /hello" HOST "\r\n");
        peer_expect(fds[i], "hello", "200 OK");
    }
    AUTO_CLOSE int over = dial();
    peer_expect(over, NULL, "HTTP/1.1 503 Service Unavailable\r\n");
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        peer_send(fds[i], "GET /hello" HOST "Connection: close\r\n\r\n");
        peer_expect(fds[i], NULL, "200 OK");
        (void)close(fds[i]);
    }
    AUTO_CLOSE int again = dial();
    peer_send(again, "GET /hello" HOST "\r\n");
    peer_expect(again, "hello", "200 OK");
}

static bool refuse_all(int fd, void *ctx)
{
    struct sock_peer peer;
    struct err e;
    note(&fx.errors);
    return sock_peer_get(fd, &peer, &e) < 0 || peer.uid != getuid();
}

static void test_accept_filter_unix(void **state)
{
    char path[] = "/tmp/torpor-test-http-XXXXXX";
    struct err e = {0};
    struct http_server_config config = {.handler = handle, .accept_filter = refuse_all};
    fx = (struct fixture){0};
    (void)pthread_mutex_init(&fx.lock, NULL);
    (void)pthread_cond_init(&fx.changed, NULL);
    AUTO_CLOSE int placeholder = mkstemp(path);
    assert_true(placeholder >= 0);
    for (int filtered = 1; filtered >= 0; filtered--) {
        config.listen_fd = sock_listen_unix(path, 0600, &e);
        config.accept_filter = filtered ? refuse_all : NULL;
        fx.server = http_server_start(&config, &e);
        assert_non_null(fx.server);
        AUTO_CLOSE int fd = sock_connect_unix(path, &e);
        assert_true(fd >= 0);
        if (filtered) {
            wait_for(&fx.errors, 1);
            peer_expect_end(fd);
        } else {
            peer_send(fd, "POST /echo" HOST "Content-Length: 2\r\n\r\nab");
            peer_expect(fd, "\r\n\r\nab", "200 OK");
        }
        stop();
    }
    (void)unlink(path);
}

/* Idle connections end, handlers waiting for a body or for their client are woken. */
static void test_stop_wakes(void **state)
{
    start((struct http_server_config){0});
    AUTO_CLOSE int idle = dial();
    AUTO_CLOSE int half = dial();
    AUTO_CLOSE int body = dial();
    AUTO_CLOSE int gone = dial();
    int64_t began;
    peer_send(idle, "GET /hello" HOST "\r\n");
    peer_expect(idle, "hello", "200 OK");
    peer_send(half, "GET /hel");
    peer_send(body, "POST /echo" HOST "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    peer_expect(body, "\r\n\r\n", "100 Continue");
    peer_send(gone, "GET /wait-gone" HOST "\r\n");
    wait_for(&fx.blocked, 1);
    began = clock_mono_ms();
    http_server_stop(fx.server);
    fx.server = NULL;
    assert_in_range(clock_mono_ms() - began, 0, 4000);
    assert_int_equal(fx.body_error, ERR_CANCELED);
    assert_int_equal(fx.gone, 1);
    peer_expect_end(idle);
    peer_expect_end(half);
    peer_expect(body, NULL, "HTTP/1.1 499");
}

static void *stop_main(void *server)
{
    http_server_stop(server);
    return NULL;
}

/* A handler that is busy elsewhere finishes and its reply goes out. */
static void test_stop_waits_for_handlers(void **state)
{
    pthread_t thread;
    struct pollfd p;
    start((struct http_server_config){0});
    AUTO_CLOSE int busy = dial();
    AUTO_CLOSE int idle = dial();
    peer_send(idle, "GET /hello" HOST "\r\n");
    peer_expect(idle, "hello", "200 OK");
    peer_send(busy, "GET /block" HOST "\r\n");
    wait_for(&fx.blocked, 1);
    assert_int_equal(pthread_create(&thread, NULL, stop_main, fx.server), 0);
    fx.server = NULL;
    peer_expect_end(idle); /* it is stopping */
    p = (struct pollfd){.fd = busy, .events = POLLIN};
    assert_int_equal(poll(&p, 1, /* timeout_ms= */ 0), 0);
    release();
    AUTO_FREE char *reply = peer_recv(busy, NULL);
    assert_non_null(strstr(reply, "Connection: close\r\n\r\nlate"));
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void test_start_failure(void **state)
{
    struct err e = {0};
    const struct http_server_config config = {.listen_fd = -1, .handler = handle};
    assert_null(http_server_start(&config, &e));
    assert_int_equal(e.errnum, EBADF);
    http_server_stop(NULL);
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
        T(test_slow_loris),
        T(test_drip_does_not_extend),
        T(test_idle_timeout),
        T(test_body_timeout),
        T(test_slow_reader),
        T(test_body_bounds),
        T(test_malformed_body),
        T(test_unread_body),
        T(test_broken_replies),
        T(test_abort_http10_resets),
        T(test_peer_gone),
        T(test_many_blocked),
        T(test_threads_max),
        T(test_connection_cap),
        T(test_accept_filter_unix),
        T(test_stop_wakes),
        T(test_stop_waits_for_handlers),
        T(test_start_failure),
    };
    (void)signal(SIGPIPE, SIG_DFL); /* the library must never raise it */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
