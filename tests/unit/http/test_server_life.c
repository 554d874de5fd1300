/* SPDX-License-Identifier: Apache-2.0 */
/* The server under load and hostility: deadlines, bounds, threads, stopping. */
#include "fixture.h"

#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>

#include "base/sock.h"

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

/* Out of descriptors: the connection waits in the backlog, without a busy loop, and is served once
 * there are some again. */
static void test_out_of_descriptors(void **state)
{
    struct rlimit old;
    struct rlimit low;
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    start((struct http_server_config){0});
    AUTO_CLOSE int early = dial();
    peer_send(early, "GET /hello" HOST "\r\n");
    peer_expect(early, "hello", "200 OK");
    AUTO_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    AUTO_CLOSE int next = dup(fd);
    addr.sin_port = htons(fx.port);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = (struct rlimit){.rlim_cur = (rlim_t)next, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    peer_send(fd, "GET /hello" HOST "\r\n");
    peer_send(early, "GET /hello" HOST "\r\n");
    peer_expect(early, "hello", "200 OK");
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, /* timeout_ms= */ 0), 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    peer_expect(fd, "hello", "200 OK");
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
    fixture_reset();
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
        T(test_slow_loris),
        T(test_drip_does_not_extend),
        T(test_idle_timeout),
        T(test_body_timeout),
        T(test_slow_reader),
        T(test_peer_gone),
        T(test_many_blocked),
        T(test_threads_max),
        T(test_connection_cap),
        T(test_out_of_descriptors),
        T(test_accept_filter_unix),
        T(test_stop_wakes),
        T(test_stop_waits_for_handlers),
        T(test_start_failure),
    };
    (void)signal(SIGPIPE, SIG_DFL); /* the library must never raise it */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
